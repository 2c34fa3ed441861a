// The model in onnxruntime-web, in a thread of its own so that the page stays responsive.
import { greedy } from "./ctc.js";

const ORT = "./node_modules/onnxruntime-web/dist/ort.wasm.min.mjs";
const PIECE_S = 30; // attention needs memory for each pair of frames, so longer recordings are divided
const SEARCH_S = 10; // the last seconds of a piece, in which a pause is looked for
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
  await recognise({ samples: new Float32Array(rate), rate, mask: new Uint8Array(layers).fill(1) }); // the first run is slow
  return { loaded: bytes.byteLength };
}

async function recognise({ samples, rate, mask, depth }) {
  const started = performance.now();
  const labels = [];
  let frame = 0;
  for (const piece of split(samples, rate)) {
    const { log_probs, log_probs_lens } = await session.run({
      waveform: new ort.Tensor("float32", piece, [1, piece.length]),
      waveform_lens: new ort.Tensor("int64", [BigInt(piece.length)], [1]),
      keep: new ort.Tensor("bool", mask, [mask.length]),
    });
    const frames = Number(log_probs_lens.data[0]);
    labels.push(...greedy(log_probs.data, frames, log_probs.dims[2], frame));
    frame += frames;
  }
  return { labels, depth, seconds: (performance.now() - started) / 1000 };
}

// Pieces of up to PIECE_S, cut where 0.2 s are quietest.
function split(samples, rate) {
  const pieces = [];
  let start = 0;
  while (samples.length - start > PIECE_S * rate) {
    const end = quietest(samples, start + (PIECE_S - SEARCH_S) * rate, start + PIECE_S * rate, Math.round(0.2 * rate));
    pieces.push(samples.subarray(start, end));
    start = end;
  }
  return [...pieces, samples.subarray(start)];
}

function quietest(samples, from, to, width) {
  let best = to, least = Infinity;
  for (let start = from; start + width <= to; start += width >> 1) {
    const energy = samples.subarray(start, start + width).reduce((sum, value) => sum + value * value, 0);
    if (energy < least) [best, least] = [start + (width >> 1), energy];
  }
  return best;
}
