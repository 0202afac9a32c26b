
// The sequence diagram.

// What peers say to each other is shown first; what Grapes do for them at a click.
const state = {
  kinds: new Set(["utp", "punch", "other"]),
  drops: true,
  events: true,
  quiet: false,
  pair: null,
  limit: STEP,
  open: new Set(),
};
// A run in which only Grapes talk should not open on an empty picture.
if (!data.packets.some((packet) => ["utp", "punch"].includes(packet.kind))) KINDS.forEach(([kind]) => state.kinds.add(kind));

const pairOf = (packet) => [firstLane(packet), lastLane(packet)].sort((a, b) => a - b).join("-");

/** The packets that the controls ask for; what is folded away as { folded: packets }. */
const select = () => {
  const wanted = data.packets.filter(
    (packet) => (state.kinds.has(packet.kind) || (state.drops && dropOf(packet))) && (state.pair === null || pairOf(packet) === state.pair),
  );
  const rows = [];
  for (let i = 0; i < wanted.length; ) {
    let j = i + 1;
    const alike = (packet) => packet.kind === wanted[i].kind && pairOf(packet) === pairOf(wanted[i]) && !dropOf(packet);
    if (!dropOf(wanted[i])) while (j < wanted.length && alike(wanted[j])) j++;
    const run = wanted.slice(i, j);
    if (run.length > FOLD && !state.open.has(run[0].id)) {
      rows.push(...run.slice(0, 4), { folded: run.slice(4, -2), key: run[0].id }, ...run.slice(-2));
    } else rows.push(...run);
    i = j;
  }
  return { wanted, rows: rows.slice(0, state.limit), more: Math.max(0, rows.length - state.limit) };
};

/** Which lanes there is something for, from left to right; the busiest where there are too many. */
const chooseLanes = (packets, marks) => {
  const touched = new Map();
  const touch = (lane) => lane !== null && lane !== undefined && touched.set(lane, (touched.get(lane) ?? 0) + 1);
  for (const packet of packets) {
    packet.way.forEach(([, lane]) => touch(lane));
    touch(lastLane(packet));
  }
  marks.forEach((mark) => touch(mark.lane));
  const busiest = [...touched].sort((a, b) => b[1] - a[1] || a[0] - b[0]).slice(0, MAX_LANES);
  return { lanes: busiest.map(([lane]) => lane).sort((a, b) => a - b), hidden: touched.size - busiest.length };
};

/** Times to heights: the order and the rough distances are kept, so that a millisecond and a minute can both be seen. */
const layOut = (moments) => {
  moments.sort((a, b) => a.at - b.at || a.order - b.order);
  const breaks = [];
  const steps = [];
  let [y, last, lastSend, lastMark] = [12, null, -99, -99];
  const [lastArrival, lastDrop] = [new Map(), new Map()];
  for (const moment of moments) {
    if (last !== null && moment.at > last) {
      const apart = moment.at - last;
      const before = y;
      y += 3 + 9 * Math.log10(1 + (apart / 1e6) * 4);
      if (apart >= 4e8) {
        y += 22;
        breaks.push({ y: (before + y) / 2, apart });
      }
    }
    if (moment.kind === "send" || moment.kind === "fold") {
      y = Math.max(y, lastSend + 16, lastMark + 14);
      lastSend = y;
    } else if (moment.kind === "arrive") {
      y = Math.max(y, (lastArrival.get(moment.lane) ?? -99) + 6, (lastDrop.get(moment.lane) ?? -99) + 13);
      lastArrival.set(moment.lane, y);
      if (moment.drop) lastDrop.set(moment.lane, y);
    } else {
      y = Math.max(y, lastMark + 17, lastSend + 14, (lastArrival.get(moment.lane) ?? -99) + 12);
      lastMark = y;
    }
    moment.y = y;
    steps.push([moment.at, y]);
    last = moment.at;
  }
  /** The height of any time, before and after everything included. */
  const yAt = (at) => {
    let [low, high] = [0, steps.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (steps[middle][0] < at) low = middle + 1;
      else high = middle;
    }
    if (low === steps.length) return y + 14;
    if (low === 0 || steps[low][0] === at) return steps[low][1];
    const [[t0, y0], [t1, y1]] = [steps[low - 1], steps[low]];
    return y0 + ((y1 - y0) * (at - t0)) / (t1 - t0);
  };
  return { height: y + 28, breaks, yAt };
};

const drawSequence = () => {
  const section = byId("sequence");
  if (!data.packets.length && !data.marks.length) return;
  section.hidden = false;
  const { wanted, rows, more } = select();
  const shownPackets = rows.filter((row) => !row.folded);
  const until = more ? rows[rows.length - 1].way?.[0][0] ?? Infinity : Infinity;
  const marks = data.marks.filter((mark) => mark.at <= until && (mark.tone === "quiet" ? state.quiet : state.events));
  const { lanes, hidden } = chooseLanes(shownPackets, marks.filter((mark) => state.pair === null || state.pair.split("-").includes(String(mark.lane))));
  const scroll = section.querySelector(".scroll");
  const width = Math.max(scroll.clientWidth - 2, GUTTER + lanes.length * 116);
  const laneWidth = (width - GUTTER) / Math.max(1, lanes.length);
  const column = new Map(lanes.map((lane, index) => [lane, GUTTER + (index + 0.5) * laneWidth]));
  const x = (lane) => column.get(lane);
  const visible = (packet) => packet.way.every(([, lane]) => column.has(lane)) && (lastLane(packet) === null || column.has(lastLane(packet)));

  const moments = [];
  const rowsDrawn = [];
  for (const row of rows) {
    if (row.folded) {
      const moment = { at: row.folded[0].way[0][0], order: 3, kind: "fold" };
      moments.push(moment);
      rowsDrawn.push({ row, moment });
      continue;
    }
    if (!visible(row)) continue;
    const own = row.way.map(([at, lane], index) => ({ at, lane, order: index ? 1 : 3, kind: index ? "arrive" : "send" }));
    const itself = row.end && row.way.length === 1 && lastLane(row) === firstLane(row);
    if (itself) rowsDrawn.push({ row, own: [own[0], { lane: own[0].lane, get y() { return own[0].y + 9; } }] }), moments.push(own[0]);
    if (itself) continue;
    if (row.end) own.push({ at: row.end[0], lane: lastLane(row), order: 1, kind: "arrive", drop: dropOf(row) });
    moments.push(...own);
    rowsDrawn.push({ row, own });
  }
  const markable = marks.filter((mark) => mark.lane === null || column.has(mark.lane));
  const drawnMarks = markable.slice(0, MAX_MARKS)
    .map((mark) => ({ mark, moment: { at: mark.at, lane: mark.lane, order: 2, kind: "mark" } }));
  moments.push(...drawnMarks.map(({ moment }) => moment));
  const faults = data.faults
    .filter((fault) => fault.from <= until)
    .map((fault) => {
      const from = { at: fault.from, order: 0, kind: "mark" };
      const to = fault.to !== null && fault.to <= until ? { at: fault.to, order: 0, kind: "arrive", lane: null } : null;
      moments.push(from, ...(to ? [to] : []));
      return { fault, from, to };
    });
  const { height, breaks, yAt } = layOut(moments);

  const picture = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}` });
  const layer = (name) => {
    const group = svg("g", { class: name });
    picture.append(group);
    return group;
  };
  const [bands, lines, bars, arrows, labels, events] = ["bands", "lanes", "bars", "arrows", "labels", "events"].map(layer);

  for (const { fault, from, to } of faults) {
    const bottom = to ? to.y : height;
    const band = svg("g", { class: "fault" });
    band.append(svg("rect", { x: GUTTER - 6, y: from.y, width: width - GUTTER + 6, height: Math.max(3, bottom - from.y) }));
    events.append(svg("text", { x: GUTTER, y: from.y + 11, class: "fault-text" }, `✂ ${cut(fault.text, (width - GUTTER) / 6.2)}`));
    bands.append(explain(band, [fault.text, `from ${seconds(fault.from)}${fault.to === null ? "" : ` to ${seconds(fault.to)}`}`]));
  }
  for (const { y, apart } of breaks) {
    bands.append(svg("line", { x1: GUTTER, x2: width, y1: y, y2: y, class: "break" }));
    bands.append(svg("text", { x: GUTTER - 6, y: y + 3.5, class: "break-text" }, `⋯ ${span(apart)}`));
  }

  // Who is down has no line.
  for (const lane of lanes) {
    let from = 0;
    const line = (to, down) => lines.append(svg("line", { x1: x(lane), x2: x(lane), y1: from, y2: to, class: down ? "down" : data.lanes[lane].kind }));
    for (const mark of data.marks.filter((mark) => mark.lane === lane && ["crashed", "up again"].includes(mark.text))) {
      const y = yAt(mark.at);
      line(y, mark.text === "up again");
      from = y;
    }
    const crashed = data.marks.filter((mark) => mark.lane === lane && ["crashed", "up again"].includes(mark.text)).pop();
    line(height, crashed?.text === "crashed");
  }
  drawBars(bars, column, yAt, height);

  let [lastTime, lastText] = [-99, ""];
  for (const moment of moments) {
    const text = seconds(moment.at);
    if (text !== lastText && moment.y > lastTime + 13) {
      lines.append(svg("text", { x: GUTTER - 6, y: moment.y + 3.5, class: "time" }, text));
      [lastTime, lastText] = [moment.y, text];
    }
  }
  for (const { row, own, moment } of rowsDrawn) {
    if (row.folded) drawFold(events, row, moment.y, width);
    else drawPacket(arrows, labels, row, own, x, laneWidth);
  }
  for (const { mark, moment } of drawnMarks) drawMark(events, mark, moment.y, x, laneWidth, width);

  const head = svg("svg", { width, height: 46, viewBox: `0 0 ${width} 46` });
  for (const lane of lanes) {
    const { name, kind, address } = data.lanes[lane];
    const box = svg("g", { class: `lane-head ${kind}` });
    const boxWidth = Math.min(laneWidth - 8, 150);
    box.append(svg("rect", { x: x(lane) - boxWidth / 2, y: 4, width: boxWidth, height: 37, rx: kind === "nat" ? 0 : 8 }));
    box.append(svg("text", { x: x(lane), y: 20, class: "name" }, cut(name, boxWidth / 7)));
    box.append(svg("text", { x: x(lane), y: 34, class: "address" }, cut(kind === "nat" ? `NAT ${address}` : address, boxWidth / 5.6)));
    const { behind } = data.lanes[lane];
    head.append(explain(box, [`${kind === "nat" ? "NAT" : "host"} ${name}`, address, behind === null ? "on the internet" : `behind ${laneName(behind)}`]));
  }
  section.querySelector(".head").replaceChildren(head);
  section.querySelector(".body").replaceChildren(picture);
  note(section, { wanted, rows, more, hidden, drawn: rowsDrawn, unmarked: markable.length - drawnMarks.length });
};

const drawBars = (bars, column, yAt, height) => {
  const slots = new Map();
  for (const mapping of data.mappings) {
    if (!column.has(mapping.lane)) continue;
    const top = yAt(mapping.from);
    const bottom = mapping.to === null ? height : yAt(mapping.to);
    const taken = slots.get(mapping.lane) ?? [];
    let slot = taken.findIndex((until) => until <= top);
    if (slot < 0) slot = taken.length;
    if (slot > 7) continue;
    taken[slot] = bottom;
    slots.set(mapping.lane, taken);
    const bar = svg("rect", { x: column.get(mapping.lane) + 4 + slot * 5, y: top, width: 3, height: Math.max(3, bottom - top), rx: 1.5, class: `mapping ${mapping.protocol}` });
    bars.append(explain(bar, mappingStory(mapping)));
  }
};

const mappingStory = (mapping) => [
  `${mapping.protocol.toUpperCase()} mapping at ${laneName(mapping.lane)}: ${mapping.internal} ↔ ${mapping.external}`,
  mapping.remote && `only for ${mapping.remote}`,
  `made at ${seconds(mapping.from)}`,
  mapping.to === null ? "still there at the end" : `ended at ${seconds(mapping.to)}: ${mapping.reason}`,
];

const head = (x, y, angle) => {
  const at = (distance, turn) => `${x + distance * Math.cos(angle + turn)},${y + distance * Math.sin(angle + turn)}`;
  return svg("polygon", { points: `${x},${y} ${at(-7, 0.42)} ${at(-7, -0.42)}` });
};

const drawPacket = (arrows, labels, packet, own, x, laneWidth) => {
  const drop = dropOf(packet);
  const group = svg("g", { class: `packet ${packet.kind}${drop ? " dropped" : ""}${packet.end ? "" : " open"}` });
  const [start] = own;
  let points = own.map((moment) => [moment.lane === null || moment.lane === undefined ? null : x(moment.lane), Math.max(moment.y, start.y)]);
  if (drop) {
    const from = points[points.length - 2];
    const to = points[points.length - 1];
    if (to[0] === null) to[0] = from[0] + laneWidth * 0.4;
    else if (drop.lost) {
      const share = drop.hop.endsWith(", down") ? 0.8 : 0.5;
      to[0] = from[0] + (to[0] - from[0]) * share;
    }
  }
  if (!packet.end) points.push([points[points.length - 1][0] + 22, points[points.length - 1][1] + 8]);
  for (let i = 1; i < points.length; i++) {
    const [[x1, y1], [x2, y2]] = [points[i - 1], points[i]];
    const last = i === points.length - 1;
    if (Math.abs(x2 - x1) < 2) {
      const out = 30;
      const y = Math.max(y2, y1 + 9);
      group.append(svg("path", { d: `M${x1} ${y1} h${out} V${y} h${-out}` }));
      if (last && !drop && packet.end) group.append(head(x2, y, Math.PI));
      points[i] = [x2, y];
      continue;
    }
    group.append(svg("line", { x1, y1, x2, y2 }));
    if (!last) group.append(svg("circle", { cx: x2, cy: y2, r: 2.4 }));
    else if (!drop && packet.end) group.append(head(x2, y2, Math.atan2(y2 - y1, x2 - x1)));
  }
  const [[x1, y1], [x2, y2]] = points;
  const itself = Math.abs(x2 - x1) < 2;
  const room = itself ? laneWidth - 40 : Math.abs(x2 - x1) - 12;
  const words = cut(label(packet), Math.floor(room / 5.9));
  const text = svg("text", itself ? { x: x1 + 34, y: (y1 + y2) / 2 + 5, class: `start ${packet.kind}` } : { x: (x1 + x2) / 2, y: (y1 + y2) / 2 - 3, class: packet.kind }, words);
  labels.append(text);
  if (drop) {
    const [xe, ye] = points[points.length - 1];
    group.append(svg("path", { class: "cross", d: `M${xe - 4.5} ${ye - 4.5} l9 9 m0 -9 l-9 9` }));
    const right = xe >= points[points.length - 2][0];
    const reason = svg("text", { x: xe + (right ? 8 : -8), y: ye + 10, class: `reason ${right ? "start" : "end"}` }, cut(shortReason(drop.rule), 30));
    labels.append(explain(reason, story(packet)));
  }
  group.prepend(svg("polyline", { class: "hit", points: points.map((point) => point.join(",")).join(" ") }));
  group.addEventListener("click", () => {
    state.pair = state.pair === null ? pairOf(packet) : null;
    tip.hidden = true;
    drawSequence();
  });
  arrows.append(explain(group, story(packet)));
};

const drawFold = (events, row, y, width) => {
  const { folded } = row;
  const [a, b] = pairOf(folded[0]).split("-").map(Number);
  const between = a === b ? `${laneName(a)} to itself` : `${laneName(a)} and ${laneName(b)}`;
  const kind = KINDS.find(([name]) => name === folded[0].kind)[1];
  const total = folded.reduce((sum, packet) => sum + packet.size, 0);
  const took = folded[folded.length - 1].way[0][0] - folded[0].way[0][0];
  const text = `${folded.length} more ${kind} packets between ${between}, ${bytes(total)} in ${span(took)} — show`;
  const group = svg("g", { class: "fold", tabindex: 0 });
  group.append(svg("rect", { x: GUTTER, y: y - 8, width: width - GUTTER - 8, height: 16, rx: 8 }));
  group.append(svg("text", { x: GUTTER + (width - GUTTER) / 2, y: y + 3.5 }, cut(text, (width - GUTTER) / 6)));
  const open = () => {
    state.open.add(row.key);
    state.limit += folded.length;
    drawSequence();
  };
  group.addEventListener("click", open);
  group.addEventListener("keydown", (event) => event.key === "Enter" && open());
  events.append(group);
};

const drawMark = (events, mark, y, x, laneWidth, width) => {
  const group = svg("g", { class: `mark ${mark.tone}` });
  const again = mark.times > 1 ? ` ×${mark.times.toLocaleString("en")}` : "";
  if (mark.lane === null) {
    group.append(svg("line", { x1: GUTTER, x2: width, y1: y, y2: y }));
    const sign = mark.tone === "good" ? "✓ " : mark.tone === "bad" ? "✕ " : "";
    group.append(svg("text", { x: width - 8, y: y - 4, class: "end" }, sign + cut(mark.text, (width - GUTTER) / 6.2)));
  } else {
    const cx = x(mark.lane);
    group.append(svg("circle", { cx, cy: y, r: 4 }));
    const right = cx + laneWidth * 1.2 < width || cx < width / 2;
    const room = right ? width - cx - 14 : cx - GUTTER - 14;
    group.append(svg("text", { x: cx + (right ? 9 : -9), y: y + 3.5, class: right ? "start" : "end" }, cut(mark.text, Math.min(52, Math.floor(room / 6.4)) - again.length) + again));
  }
  events.append(explain(group, [mark.text + again, `${seconds(mark.at)}${mark.times > 1 ? ` to ${seconds(mark.until)}` : ""}${mark.lane === null ? "" : ` at ${laneName(mark.lane)}`}`]));
};

/** Says what is shown and what is not. */
const note = (section, { wanted, rows, more, hidden, drawn, unmarked }) => {
  const shown = drawn.filter(({ row }) => !row.folded).length;
  const folded = rows.reduce((sum, row) => sum + (row.folded ? row.folded.length : 0), 0);
  const parts = [`${shown.toLocaleString("en")} of ${plural(data.counts.sent, "packet")} drawn`];
  if (folded) parts.push(`${folded.toLocaleString("en")} folded`);
  if (data.packets.length > wanted.length) parts.push(`${(data.packets.length - wanted.length).toLocaleString("en")} filtered out`);
  if (hidden) parts.push(`${plural(hidden, "quieter lane")} left out`);
  if (data.counts.sent > data.packets.length) {
    parts.push(`this file keeps ${data.packets.length.toLocaleString("en")}: the first, the last, and drops between`);
  }
  if (data.left_out.marks + unmarked) parts.push(`${plural(data.left_out.marks + unmarked, "later event")} left out`);
  section.querySelector(".note").textContent = parts.join(" · ") + ". Time runs down, not to scale; a dot is a translation, bars beside a NAT are its mappings.";
  const foot = section.querySelector(".more");
  foot.replaceChildren();
  if (more) {
    const button = html("button", "", `Show ${Math.min(more, STEP)} of ${more.toLocaleString("en")} more`);
    button.addEventListener("click", () => {
      state.limit += STEP;
      drawSequence();
    });
    foot.append(button);
  }
  const flow = section.querySelector(".flow");
  flow.replaceChildren();
  if (state.pair !== null) {
    const [a, b] = state.pair.split("-").map(Number);
    const button = html("button", "chip on", a === b ? `only ${laneName(a)} itself ✕` : `only ${laneName(a)} ↔ ${laneName(b)} ✕`);
    button.addEventListener("click", () => {
      state.pair = null;
      drawSequence();
    });
    flow.append(button);
  }
};

const drawControls = () => {
  const chips = byId("sequence").querySelector(".chips");
  const chip = (className, text, on, toggle) => {
    const button = html("button", `chip ${className}`, text);
    const show = () => {
      button.classList.toggle("on", on());
      button.setAttribute("aria-pressed", on());
    };
    button.addEventListener("click", () => {
      toggle();
      state.limit = STEP;
      show();
      drawSequence();
    });
    show();
    chips.append(button);
  };
  for (const [kind, name] of KINDS) {
    const count = data.packets.filter((packet) => packet.kind === kind).length;
    if (!count) continue;
    const toggle = () => (state.kinds.has(kind) ? state.kinds.delete(kind) : state.kinds.add(kind));
    chip(kind, `${name} ${count.toLocaleString("en")}`, () => state.kinds.has(kind), toggle);
  }
  const drops = data.packets.filter(dropOf).length;
  if (drops) chip("drops", `✕ drops ${drops.toLocaleString("en")}`, () => state.drops, () => (state.drops = !state.drops));
  chip("events", "events", () => state.events, () => (state.events = !state.events));
  chip("quiet", "housekeeping", () => state.quiet, () => (state.quiet = !state.quiet));
};
