// The model in onnxruntime-web, in a thread of its own so that the page stays responsive.
import { greedy } from "./ctc.js";
import { isSilent, pieces } from "./pieces.js";

const ORT = "./node_modules/onnxruntime-web/dist/ort.wasm.min.mjs";
let ort, session;

onmessage = async ({ data }) => {
  try {
    postMessage(data.path ? await load(data) : await recognise(data));
  } catch (error) {
    postMessage({ error: error.message });
  }
};

async function load({ path, rate, layers }) {
  try {
    ort = await import(ORT);
  } catch {
    throw new Error("onnxruntime-web is missing; run `npm install onnxruntime-web` in the folder of this page, and reload.");
  }
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path}: cannot be read (${answer.status}); export the model again with --web`);
  const bytes = await answer.arrayBuffer();
  try {
    session = await ort.InferenceSession.create(bytes);
  } catch (error) {
    throw new Error(`${path}: onnxruntime-web cannot load it (${error.message}); export it again with --web`);
  }
  await run(new Float32Array(rate), new Uint8Array(layers).fill(1)); // the first run is slow
  return { loaded: bytes.byteLength };
}

// frame_s: the time between two frames of the model.
async function recognise({ samples, rate, frame_s, windows, mask, depth }) {
  const started = performance.now();
  const labels = [];
  for (const piece of pieces(samples, rate, windows)) {
    if (isSilent(piece.samples)) continue;
    const { log_probs, log_probs_lens } = await run(piece.samples, mask);
    const first = Math.round(piece.start / rate / frame_s);
    labels.push(...greedy(log_probs.data, Number(log_probs_lens.data[0]), log_probs.dims[2], first));
  }
  return { labels, depth, seconds: (performance.now() - started) / 1000 };
}

function run(samples, mask) {
  return session.run({
    waveform: new ort.Tensor("float32", samples, [1, samples.length]),
    waveform_lens: new ort.Tensor("int64", [BigInt(samples.length)], [1]),
    keep: new ort.Tensor("bool", mask, [mask.length]),
  });
}
