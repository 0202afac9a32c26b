//! Brokers to reach peers behind NATs by: `--broker`.

use clap::Args;
use grenache::broker::BrokerAddress;
use grenache::connect::ConnectConfig;
use grenache::rpc::ClientConfig;

use super::address::Target;
use super::failure::Failure;

/// Which brokers to ask.
#[derive(Debug, Args)]
pub(super) struct BrokersArgs {
    /// Cross NATs with this broker's help: by punching, or by its relay where it has one. Of several, the first that
    /// answers introduces
    #[arg(long = "broker", value_name = "NAME|HOST:PORT")]
    brokers: Vec<Target>,
}

impl BrokersArgs {
    /// Whether none is asked for.
    pub(super) fn is_empty(&self) -> bool {
        self.brokers.is_empty()
    }

    /// Whether one has to be looked up.
    pub(super) fn is_by_name(&self) -> bool {
        self.brokers.iter().any(|broker| matches!(broker, Target::Name(_)))
    }

    /// How to reach peers by them; `None` where there is none.
    pub(super) async fn config(&self, client: ClientConfig) -> Result<Option<ConnectConfig>, Failure> {
        let mut config = ConnectConfig::default().client(client);
        for broker in &self.brokers {
            config = config.broker(match broker {
                Target::Name(name) => BrokerAddress::Name(name.clone()),
                Target::At(address) => BrokerAddress::At(address.resolve().await?),
            });
        }
        Ok((!self.brokers.is_empty()).then_some(config))
    }
}
