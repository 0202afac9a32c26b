// The data, and what all pictures need. Texts get into the document as text, never as markup.

const data = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";
const KINDS = [["utp", "µTP"], ["punch", "punches"], ["dht", "DHT"], ["tcp", "TCP"], ["other", "other"]];
const STEP = 250; // packets that are shown at first, and more at each click
const MAX_LANES = 16;
const MAX_MARKS = 400;
const FOLD = 10; // so many packets in a row between the same two are folded
const GUTTER = 62;

// ---- small helpers

const byId = (id) => document.getElementById(id);
const svg = (tag, attributes = {}, ...children) => {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
};
const html = (tag, className, ...children) => {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
};
const plural = (count, one) => `${count.toLocaleString("en")} ${one}${count === 1 ? "" : "s"}`;
const seconds = (ns) => `${(ns / 1e9).toFixed(3)} s`;
const span = (ns) => (ns < 1e9 ? `${+(ns / 1e6).toPrecision(3)} ms` : `${+(ns / 1e9).toPrecision(4)} s`);
const cut = (text, room) => (text.length <= room ? text : room < 3 ? "" : text.slice(0, room - 1) + "…");
const laneName = (lane) => (lane === null || lane === undefined ? "?" : data.lanes[lane].name);
const bytes = (n) => (n < 1e4 ? `${Math.round(n)} B` : n < 1e6 ? `${+(n / 1e3).toPrecision(3)} kB` : `${+(n / 1e6).toPrecision(3)} MB`);

// ---- one tooltip for everything

const tip = byId("tip");
const place = (event) => {
  const [width, height] = [tip.offsetWidth, tip.offsetHeight];
  const left = Math.min(event.clientX + 14, innerWidth - width - 8);
  const below = event.clientY + 18;
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${below + height > innerHeight ? Math.max(8, event.clientY - height - 12) : below}px`;
};
const explain = (element, lines) => {
  const all = () => (typeof lines === "function" ? lines() : lines).filter(Boolean);
  if (typeof lines !== "function") {
    element.setAttribute("role", "img");
    element.setAttribute("aria-label", all().join("; "));
  }
  element.addEventListener("pointerenter", (event) => {
    tip.replaceChildren(...all().map((line, index) => html("p", index ? "" : "first", line)));
    tip.hidden = false;
    place(event);
  });
  element.addEventListener("pointermove", place);
  element.addEventListener("pointerleave", () => (tip.hidden = true));
  return element;
};

// ---- packets

const dropOf = (packet) => packet.end && packet.end[1].dropped;
const deliveredTo = (packet) => (packet.end && packet.end[1].delivered ? packet.end[1].delivered.lane : null);
const firstLane = (packet) => packet.way[0][1];
const lastLane = (packet) => deliveredTo(packet) ?? (dropOf(packet) ? dropOf(packet).lane : null) ?? packet.way[packet.way.length - 1][1];
const shortReason = (rule) => rule.split(":")[0];

/** What is in a packet, in a word or two. */
const label = (packet) => {
  const words = packet.summary.split(" ");
  const length = /\blen=(\d+)/.exec(packet.summary);
  const payload = length && length[1] !== "0" ? ` ${length[1]} B` : "";
  switch (packet.kind) {
    case "utp": return words[1] + payload;
    case "tcp": return "TCP " + words.slice(1).filter((word) => /^[A-Z]+$/.test(word)).join(" ") + payload;
    case "dht": return words.slice(1).join(" ");
    default: return packet.summary;
  }
};

const story = (packet) => {
  const lines = [`packet ${packet.id}: ${packet.summary}`, `${packet.size} bytes, ${packet.source} → ${packet.destination}`];
  lines.push(`${seconds(packet.way[0][0])} sent by ${laneName(firstLane(packet))}`);
  packet.way.slice(1).forEach(([at, lane], index) => {
    const [source, destination] = packet.rewritten[index];
    lines.push(`${seconds(at)} translated at ${laneName(lane)}: ${source} → ${destination}`);
  });
  if (!packet.end) lines.push("on its way when the run ended");
  else if (dropOf(packet)) lines.push(`${seconds(packet.end[0])} dropped at ${dropOf(packet).hop}: ${dropOf(packet).rule}`);
  else lines.push(`${seconds(packet.end[0])} delivered to ${laneName(deliveredTo(packet))}`);
  return lines;
};
