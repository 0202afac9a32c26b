# The original Grape from npm, for tests beside ours.
#
#   docker run --rm -p 30001:30001 -p 20001:20001/udp IMAGE --dp 20001 --aph 30001 --bn ''
FROM debian:trixie-slim AS npm
RUN apt-get update && apt-get install --yes --no-install-recommends npm
ARG VERSION
# The package names its dependencies by exact version.
RUN npm install --global --prefix /opt/grape --ignore-scripts "grenache-grape@$VERSION"

FROM debian:trixie-slim
# tini, because the original has no handler for SIGTERM, and process 1 without one ignores it.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends nodejs tini \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/log/*
COPY --from=npm /opt/grape /opt/grape
COPY grape-node-health.js /opt/grape/health.js

USER 65532:65532
EXPOSE 20001/udp 30001/tcp
STOPSIGNAL SIGTERM
# It reads the ports from the Grape's own arguments.
HEALTHCHECK --interval=10s --timeout=6s --start-period=10s --retries=3 CMD ["node", "/opt/grape/health.js"]
ENTRYPOINT ["/usr/bin/tini", "--", "node", "/opt/grape/lib/node_modules/grenache-grape/bin/grape.js"]

ARG VERSION
LABEL org.opencontainers.image.title="grenache-grape-node" \
      org.opencontainers.image.description="The original Grape of Grenache micro-services, from npm" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION"
