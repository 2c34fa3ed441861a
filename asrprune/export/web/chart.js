// The curve of the error rate by depth, as SVG. A click on a point chooses its depth.

const HEIGHT = 220, LEFT = 44, RIGHT = 16, TOP = 22, BOTTOM = 34;

export function drawChart(place, note, model, select) {
  const rows = [...model.depths].reverse();
  const measured = rows.some((row) => row.wer != null); // of this very file, with int8 or fp16 weights
  const points = rows.map((row, position) => ({ position, depth: row.depth, wer: measured ? row.wer : row.score }))
    .filter(({ wer }) => wer != null);
  if (!points.length || (!measured && model.metric === "ctc")) {
    note.textContent = "The model has no error rates: its layers were not chosen by a search with them.";
    return;
  }
  note.textContent = measured
    ? `In percent, of this ${model.precision} file on ${model.compared.utterances} utterances of ${model.compared.set}.`
    : `In percent, on ${model.dev_set}, when the layers were chosen (strategy ${model.strategy}).`;
  let depth = model.depth;
  const draw = () => place.replaceChildren(chart(points, depth, place.clientWidth, select));
  place.addEventListener("depth", ({ detail }) => { depth = detail; draw(); });
  new ResizeObserver(draw).observe(place);
}

function chart(points, depth, width, select) {
  const top = niceTop(Math.max(...points.map(({ wer }) => wer)));
  const [first, last] = [points[0].depth, points[points.length - 1].depth];
  const x = (at) => LEFT + ((width - LEFT - RIGHT) * (at - first)) / Math.max(last - first, 1);
  const y = (wer) => HEIGHT - BOTTOM - ((HEIGHT - TOP - BOTTOM) * wer) / top;
  const svg = make("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img" });
  svg.setAttribute("aria-label", points.map(({ depth: at, wer }) => `${at} layers: ${wer.toFixed(1)} %`).join("; "));
  for (const share of [0, 0.5, 1]) {
    svg.append(make("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(share * top), y2: y(share * top) }));
    svg.append(make("text", { x: LEFT - 8, y: y(share * top) + 4, "text-anchor": "end" }, `${+(share * top).toFixed(1)} %`));
  }
  svg.append(make("polyline", { class: "curve", points: points.map(({ depth: at, wer }) => `${x(at)},${y(wer)}`).join(" ") }));
  const every = Math.ceil(points.length / Math.max(2, Math.floor((width - LEFT) / 34)));
  points.forEach(({ position, depth: at, wer }, i) => {
    const now = at === depth;
    const point = make("circle", { cx: x(at), cy: y(wer), r: now ? 7 : 5, class: now ? "now" : "" });
    point.append(make("title", {}, `${at} layers: ${wer.toFixed(1)} %`));
    point.addEventListener("click", () => select(position));
    svg.append(point);
    if ((points.length - 1 - i) % every === 0) svg.append(make("text", { x: x(at), y: HEIGHT - 12, "text-anchor": "middle" }, at));
    if (now) svg.append(make("text", { class: "value", x: x(at), y: y(wer) - 12, "text-anchor": anchor(i, points) }, `${wer.toFixed(1)} %`));
  });
  return svg;
}

const anchor = (i, points) => (i === 0 ? "start" : i === points.length - 1 ? "end" : "middle");

// The smallest of 1, 2, 5, 10, 20, 50, ... times a step that the curve fits below.
function niceTop(largest) {
  const power = 10 ** Math.floor(Math.log10(Math.max(largest, 1)));
  return [1, 2, 3, 4, 5, 6, 8, 10].map((step) => step * power).find((top) => top >= largest);
}

function make(name, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}
