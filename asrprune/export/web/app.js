// The page: it sends samples and the chosen layers to the worker, and shows what comes back.
import { Recorder, decode } from "./audio.js";
import { drawChart } from "./chart.js";
import { words } from "./ctc.js";

const $ = (id) => document.getElementById(id);
const state = { model: null, units: [], rows: [], samples: null, busy: false, again: false };
const worker = new Worker("worker.js", { type: "module" });
const recorder = new Recorder();

start().catch((error) => fail(error.message));

async function start() {
  const [model, tokens] = await Promise.all([load("model.onnx.json"), load("tokens.txt")]);
  state.model = JSON.parse(model);
  state.units = tokens.trim().split("\n").map((line) => line.slice(0, line.lastIndexOf(" ")));
  state.rows = [...state.model.depths].reverse(); // the slider goes from few layers to all
  worker.onmessage = ({ data }) => receive(data);
  worker.onerror = (event) => fail(event.message || "worker.js: cannot be run; copy the folder again");
  worker.postMessage({ path: "model.onnx", rate: rate(), layers: state.model.num_layers });
  prepareSlider();
  drawChart($("chart"), $("chart-note"), state.model, select);
}

async function load(name) {
  const answer = await fetch(name);
  if (!answer.ok) throw new Error(`${name}: cannot be read (${answer.status}); export the model again with --web`);
  return answer.text();
}

function receive(data) {
  if (data.error) return fail(data.error);
  if (data.loaded) return ready(data.loaded);
  state.busy = false;
  $("text").dataset.state = "";
  if (state.again) return recognise();
  showText(data);
}

function ready(bytes) {
  const { num_layers, vocab_size, precision = "float32" } = state.model;
  const size = `${(bytes / 1e6).toFixed(1)} MB, ${precision}`;
  $("model").textContent = `One model of ${num_layers} layers (${size}, ${vocab_size} text units). Choose how many run.`;
  for (const id of ["record", "file", "depth"]) $(id).disabled = false;
  document.body.dataset.ready = "true";
}

function prepareSlider() {
  const position = state.rows.findIndex((row) => row.depth === state.model.depth);
  $("depth").max = state.rows.length - 1;
  $("layers").replaceChildren(...Array.from({ length: state.model.num_layers }, () => document.createElement("span")));
  select(position < 0 ? state.rows.length - 1 : position);
}

function select(position) {
  $("depth").value = position;
  const { depth, keep, params_m } = state.rows[position];
  const text = `${depth} of ${state.model.num_layers} layers`;
  $("depth-text").textContent = text;
  $("depth").setAttribute("aria-valuetext", text);
  $("params").textContent = params_m < 0.1 ? `${Math.round(1000 * params_m)} k` : `${params_m.toFixed(1)} M`;
  [...$("layers").children].forEach((layer, i) => layer.classList.toggle("on", keep.includes(i + 1)));
  $("layers").setAttribute("aria-label", `Layers that run: ${keep.join(", ")}`);
  $("chart").dispatchEvent(new CustomEvent("depth", { detail: depth }));
  recognise();
}

// While the worker is busy, only the latest wish is remembered.
function recognise() {
  state.again = state.busy;
  if (!state.samples || state.busy) return;
  state.busy = true;
  $("text").dataset.state = "busy";
  const { keep, depth } = state.rows[$("depth").value];
  const mask = Uint8Array.from({ length: state.model.num_layers }, (_, i) => (keep.includes(i + 1) ? 1 : 0));
  worker.postMessage({ samples: state.samples, rate: rate(), frame_s: frameS(), windows: state.model.windows, mask, depth });
}

function showText({ labels, seconds, depth }) {
  const spans = words(labels, state.units).flatMap((word) => {
    const span = document.createElement("span");
    span.textContent = word.text;
    span.title = `${(word.first * frameS()).toFixed(2)} s, confidence ${Math.round(100 * word.confidence)} %`;
    span.style.setProperty("--confidence", word.confidence);
    span.classList.toggle("low", word.confidence < 0.5);
    return [span, " "];
  });
  $("text").dataset.state = spans.length ? "" : "empty";
  $("text").dataset.depth = depth;
  $("text").replaceChildren(...(spans.length ? spans : ["No words were recognised at this depth."]));
  const duration = state.samples.length / rate();
  $("rtf").textContent = (seconds / duration).toFixed(3);
  $("seconds").textContent = `${Math.round(1000 * seconds)} ms`;
  $("duration").textContent = `${duration.toFixed(1)} s`;
}

const rate = () => state.model.frontend.sample_rate ?? 16000;
// The samples of a frame are a whole number.
const frameS = () => (state.model.factor * Math.trunc((rate() * (state.model.frontend.frame_shift_ms ?? 10)) / 1000)) / rate();

async function use(blob, name) {
  try {
    state.samples = await decode(blob, rate(), name);
  } catch (error) {
    return fail(error.message);
  }
  $("error").hidden = true;
  URL.revokeObjectURL($("player").src);
  $("player").src = URL.createObjectURL(blob);
  $("player").hidden = false;
  recognise();
}

function fail(message) {
  state.busy = false;
  $("error").textContent = message;
  $("error").hidden = false;
  if (!document.body.dataset.ready) $("model").textContent = "The model could not be loaded.";
}

async function toggleRecording() {
  try {
    if (!recorder.running) await recorder.start();
    else await use(await recorder.stop(), "the recording");
  } catch (error) {
    fail(error.message);
  }
  $("record").classList.toggle("recording", recorder.running);
  $("record-text").textContent = recorder.running ? "Stop" : "Record";
}

$("depth").addEventListener("input", () => select(Number($("depth").value)));
$("record").addEventListener("click", toggleRecording);
$("file").addEventListener("change", () => {
  const [file] = $("file").files;
  if (file) use(file, file.name);
  $("file").value = ""; // the same file can be chosen again
});
for (const [name, over] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
  $("drop").addEventListener(name, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", over);
    const [file] = name === "drop" && document.body.dataset.ready ? event.dataTransfer.files : [];
    if (file) use(file, file.name);
  });
}
