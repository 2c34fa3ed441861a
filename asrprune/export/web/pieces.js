// Dividing long recordings: a model hears speech best in pieces as long as the utterances that it was trained on.

const LONGEST_S = 30; // attention needs memory for each pair of frames

// Pieces, cut where 0.2 s in their last two thirds are quietest: [{start, samples}], where start is the place of the first sample.
// windows: the seconds of a recording that is not divided, and of a piece of a longer one.
export function pieces(samples, rate, { one_piece_s, window_s }) {
  const piece = Math.floor(Math.min(window_s, LONGEST_S) * rate);
  if (samples.length <= Math.min(one_piece_s, LONGEST_S) * rate) return [{ start: 0, samples }];
  const found = [];
  let start = 0;
  while (samples.length - start > piece) {
    const end = quietest(samples, start + Math.floor(piece / 3), start + piece, Math.round(0.2 * rate));
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
