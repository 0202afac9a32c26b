
// What is drawn over time, and the table of mappings; then the first drawing of all.

const end = Math.max(data.end, 1);

/** Round times, at most so many. */
const ticks = (most, until) => {
  const rough = until / Math.max(1, most);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((step) => until / step <= most) ?? 10 * power;
  const all = [];
  for (let at = 0; at <= until * 1.0001; at += step) all.push(at);
  return all;
};

const figure = (title, legend) => {
  const box = html("figure", "", html("figcaption", "", html("b", "", title)));
  if (legend) box.firstChild.append(legend);
  byId("timeline").querySelector(".charts").append(box);
  byId("timeline").hidden = false;
  return box;
};

const frame = (width, height, left) => {
  const picture = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}` });
  const x = (at) => left + ((width - left - 8) * at) / end;
  for (const fault of data.faults) {
    const to = fault.to ?? end;
    const band = svg("rect", { x: x(fault.from), y: 0, width: Math.max(2, x(to) - x(fault.from)), height: height - 18, class: "fault-band" });
    picture.append(explain(band, [fault.text, `${seconds(fault.from)}${fault.to === null ? " on" : ` to ${seconds(fault.to)}`}`]));
  }
  for (const at of ticks(Math.max(2, Math.floor(width / 110)), end)) {
    picture.append(svg("line", { x1: x(at), x2: x(at), y1: 0, y2: height - 18, class: "grid" }));
    picture.append(svg("text", { x: x(at), y: height - 5, class: x(at) > width - 30 ? "tick end" : at ? "tick" : "tick start" }, at ? span(at) : "0"));
  }
  return { picture, x };
};

const ROW = 22;
const LEFT = 56; // what is drawn over time begins here, in every chart
/** Bars in rows, each with its text beside or in it. */
const drawRows = (title, rows, most, what) => {
  if (!rows.length) return;
  const box = figure(title, rows.length > most ? html("span", "rest", `${rows.length - most} more ${what} not drawn`) : null);
  const width = box.clientWidth;
  const shown = rows.slice(0, most);
  const { picture, x } = frame(width, shown.length * ROW + 22, LEFT);
  shown.forEach((row, index) => {
    const y = index * ROW + 3;
    const [from, to] = [x(row.from), Math.max(x(row.from) + 3, x(row.to))];
    const group = svg("g", { class: `row ${row.className}` });
    if (row.point) group.append(svg("circle", { cx: from, cy: y + 8, r: 5 }));
    else group.append(svg("rect", { x: from, y, width: to - from, height: 16, rx: 4 }));
    const words = row.text.length * 6.1;
    const inside = !row.point && to - from > words + 12;
    const right = (row.point ? from + 5 : to) + words + 8 < width;
    const at = inside ? from + 7 : right ? (row.point ? from + 10 : to + 6) : Math.max(4, row.point ? from - 10 : from - 6);
    const anchor = inside || right ? "start" : from - words > 0 ? "end" : "start";
    const place = anchor === "start" && !inside && !right ? 4 : at;
    group.append(svg("text", { x: place, y: y + 12, class: `${anchor}${inside ? " inside" : ""}` }, cut(row.text, Math.floor((width - 8) / 6.1))));
    picture.append(explain(group, row.story));
  });
  box.append(picture);
};

const drawCurves = (title, curves, format, note) => {
  const used = curves.filter((curve) => curve.points.length);
  if (!used.length) return;
  const shown = used.slice(0, 6);
  const legend = html("span", "legend");
  shown.forEach((curve, index) => legend.append(html("span", `s${index}`, curve.name)));
  if (used.length > shown.length) legend.append(html("span", "rest", `${used.length - shown.length} more not drawn`));
  if (note) legend.append(html("span", "rest", note));
  const box = figure(title, legend);
  const [width, height, left] = [box.clientWidth, 150, LEFT];
  const { picture, x } = frame(width, height, left);
  const top = Math.max(...shown.flatMap((curve) => curve.points.map((point) => point[1])), 1e-9);
  const scale = ticks(5, top * 1.05);
  const y = (value) => height - 20 - ((height - 30) * value) / (top * 1.08);
  for (const value of scale) {
    picture.append(svg("line", { x1: left, x2: width - 8, y1: y(value), y2: y(value), class: "grid" }));
    picture.append(svg("text", { x: left - 6, y: y(value) + 3.5, class: "tick end" }, format(value)));
  }
  shown.forEach((curve, index) => {
    const steps = curve.points.map(([at, value], number) => {
      const point = `${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
      return number === 0 ? `M${point}` : curve.stairs ? `H${x(at).toFixed(1)} V${y(value).toFixed(1)}` : `L${point}`;
    });
    if (curve.area) {
      const [first, last] = [curve.points[0], curve.points[curve.points.length - 1]];
      picture.append(svg("path", { d: `${steps.join(" ")} L${x(last[0])} ${y(0)} L${x(first[0])} ${y(0)} Z`, class: `area s${index}` }));
    }
    picture.append(svg("path", { d: steps.join(" "), class: `curve s${index}${curve.dashed ? " dashed" : ""}` }));
    if (curve.points.length < 40 && !curve.stairs) {
      curve.points.forEach(([at, value]) => picture.append(svg("circle", { cx: x(at), cy: y(value), r: 2.2, class: `dot s${index}` })));
    }
  });
  const cursor = svg("line", { y1: 0, y2: height - 18, class: "cursor", visibility: "hidden" });
  const surface = svg("rect", { x: left, y: 0, width: Math.max(1, width - left - 8), height: height - 18, class: "surface" });
  let at = 0;
  surface.addEventListener("pointermove", (event) => {
    const place = event.clientX - picture.getBoundingClientRect().left;
    at = Math.max(0, Math.min(end, ((place - left) / (width - left - 8)) * end));
    cursor.setAttribute("x1", x(at));
    cursor.setAttribute("x2", x(at));
    cursor.setAttribute("visibility", "visible");
    tip.replaceChildren(...readings().map((line, index) => html("p", index ? "" : "first", line)));
  });
  surface.addEventListener("pointerleave", () => cursor.setAttribute("visibility", "hidden"));
  const readings = () => [seconds(at), ...shown.map((curve) => {
    const before = curve.points.filter((point) => point[0] <= at).pop();
    return before ? `${curve.name}: ${format(before[1])}` : "";
  })].filter(Boolean);
  picture.append(cursor, explain(surface, readings));
  box.append(picture);
};

const peerName = (peer) => {
  const address = peer.replace(/:\d+$/, "").replace(/^\[|\]$/g, "");
  const lane = data.lanes.find((lane) => lane.address === address && lane.behind === null);
  return lane ? `${lane.name}${peer.slice(peer.lastIndexOf(":"))}` : peer;
};

const drawTimeline = () => {
  noteWhatIsLeftOut();
  byId("timeline").querySelector(".charts").replaceChildren();
  drawRows("Expectations and faults", [
    ...data.faults.map((fault) => ({ from: fault.from, to: fault.to ?? end, className: "fault", text: fault.text, story: [fault.text, `${seconds(fault.from)}${fault.to === null ? " on" : ` to ${seconds(fault.to)}`}`] })),
    ...data.expectations.map((one) => ({ from: one.at, to: one.at, point: true, className: one.met ? "good" : "bad", text: one.text, story: [one.text, `${one.met ? "met" : "not met"}: decided at ${seconds(one.at)}`] })),
  ], 24, "rows");
  drawRows("NAT mappings", [...data.mappings]
    .sort((a, b) => a.lane - b.lane || a.from - b.from)
    .map((mapping) => ({ from: mapping.from, to: mapping.to ?? end, className: `mapping ${mapping.protocol}${mapping.to === null ? " lives" : ""}`, text: `${laneName(mapping.lane)}: ${mapping.internal} ↔ ${mapping.external}${mapping.remote ? ` for ${mapping.remote}` : ""}`, story: mappingStory(mapping) })),
  24, "mappings");
  const perSecond = (n) => n * (1e9 / data.bin);
  drawCurves("Goodput", data.goodput
    .filter((flow) => flow.from !== flow.to)
    .map((flow) => ({ flow, total: flow.bytes.reduce((sum, n) => sum + n, 0) }))
    .sort((a, b) => b.total - a.total)
    .map(({ flow, total }) => ({
      name: `${laneName(flow.from)} → ${laneName(flow.to)}, ${bytes(total)}`,
      stairs: true,
      area: true,
      points: [...flow.bytes.map((n, index) => [index * data.bin, perSecond(n)]), [Math.min(end, flow.bytes.length * data.bin), 0]],
    })), (n) => `${bytes(n)}/s`, `streams' bytes that arrived for the first time, in steps of ${span(data.bin)}`);
  const connections = [...data.connections].sort((a, b) => b.points.length - a.points.length);
  const named = (curve) => `${laneName(curve.lane)} → ${peerName(curve.name)}`;
  drawCurves("Congestion window", connections.map((curve) => ({ name: named(curve), points: curve.points.map(([at, window]) => [at, window]) })), bytes);
  drawCurves("Bytes in flight", connections.map((curve) => ({ name: named(curve), stairs: true, points: curve.points.map(([at, , flight]) => [at, flight]) })), bytes);
  drawCurves("Round-trip time", connections.map((curve) => ({ name: named(curve), points: curve.points.filter((point) => point[3] > 0).map((point) => [point[0], point[3] / 1e3]) })), (n) => `${+n.toPrecision(3)} ms`, "smoothed");
  drawCurves("Queues", [...data.queues].sort((a, b) => b.points.length - a.points.length).map((curve) => ({ name: curve.name, area: true, points: drained(curve.points) })), bytes);
};

const noteWhatIsLeftOut = () => {
  const { faults, samples, mappings } = data.left_out;
  const parts = [faults && plural(faults, "later fault"), mappings && plural(mappings, "later mapping"), samples && plural(samples, "sample")];
  byId("timeline").querySelector(".left").textContent = parts.some(Boolean) ? `Left out: ${parts.filter(Boolean).join(", ")}; all but samples are in events.jsonl.` : "";
};

/** A queue is empty once what was in it is on the line, unless something came before. */
const drained = (points) => points.flatMap(([at, waiting, wait], index) => {
  const empty = at + wait;
  const next = points[index + 1];
  return next && next[0] <= empty ? [[at, waiting]] : [[at, waiting], [Math.min(empty, end), 0], ...(next ? [[next[0], 0]] : [])];
});

// ---- mappings as a table

const drawMappings = () => {
  if (!data.mappings.length) return;
  const section = byId("mappings");
  section.hidden = false;
  const row = (tag, cells) => html("tr", "", ...cells.map((cell) => html(tag, "", cell)));
  const shown = data.mappings.slice(0, 200);
  const rows = shown.map((mapping) => row("td", [
    laneName(mapping.lane), mapping.protocol.toUpperCase(), mapping.internal, mapping.external, mapping.remote ?? "all", seconds(mapping.from),
    mapping.to === null ? "—" : seconds(mapping.to), mapping.reason ?? "still there",
  ]));
  const table = html("table", "", html("thead", "", row("th", ["NAT", "", "inside", "outside", "for", "from", "to", "end"])), html("tbody", "", ...rows));
  section.querySelector(".table").replaceChildren(table);
  const rest = data.mappings.length + data.left_out.mappings - shown.length;
  if (rest) section.append(html("p", "note", `${plural(rest, "more mapping")} in events.jsonl.`));
};

drawControls();
drawMappings();
let width = 0;
const redraw = () => {
  if (width === document.documentElement.clientWidth) return;
  width = document.documentElement.clientWidth;
  drawSequence();
  drawTimeline();
};
redraw();
addEventListener("resize", () => requestAnimationFrame(redraw));
document.documentElement.dataset.drawn = "yes";
