// Dividing long recordings: attention needs memory for each pair of frames.

const PIECE_S = 30;
const SEARCH_S = 10; // the last seconds of a piece, in which a pause is looked for

// Pieces of up to PIECE_S, cut where 0.2 s are quietest: [{start, samples}], where start is the place of the first sample.
export function pieces(samples, rate) {
  const found = [];
  let start = 0;
  while (samples.length - start > PIECE_S * rate) {
    const end = quietest(samples, start + (PIECE_S - SEARCH_S) * rate, start + PIECE_S * rate, Math.round(0.2 * rate));
    found.push({ start, samples: samples.subarray(start, end) });
    start = end;
  }
  return [...found, { start, samples: samples.subarray(start) }];
}

// A model may say anything about samples that are all equal, such as digital silence.
export function isSilent(samples) {
  return samples.every((sample) => sample === samples[0]);
}

function quietest(samples, from, to, width) {
  let best = to, least = Infinity;
  for (let start = from; start + width <= to; start += width >> 1) {
    const energy = samples.subarray(start, start + width).reduce((sum, value) => sum + value * value, 0);
    if (energy < least) [best, least] = [start + (width >> 1), energy];
  }
  return best;
}
