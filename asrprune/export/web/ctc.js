// Greedy CTC decoding, and the words of text units. Unit 0 is the blank.

// log_probs: frames x units, row by row. Returns [{label, first, last, confidence}]; frames count from `offset`.
export function greedy(logProbs, frames, units, offset = 0) {
  const found = [];
  let before = 0;
  for (let frame = 0; frame < frames; frame++) {
    const row = logProbs.subarray(frame * units, (frame + 1) * units);
    let best = 0;
    for (let unit = 1; unit < units; unit++) if (row[unit] > row[best]) best = unit;
    if (best && best !== before) found.push({ label: best, first: offset + frame, probabilities: [] });
    if (best) {
      const last = found[found.length - 1];
      last.last = offset + frame;
      last.probabilities.push(Math.exp(row[best]));
    }
    before = best;
  }
  return found.map(({ probabilities, ...label }) => ({ ...label, confidence: mean(probabilities) }));
}

// Units that begin with ▁ begin a word. The confidence of a word is the mean over its units.
export function words(labels, units) {
  const groups = [];
  for (const label of labels) {
    if (units[label.label].startsWith("▁") || !groups.length) groups.push([]);
    groups[groups.length - 1].push(label);
  }
  return groups
    .map((group) => ({
      text: group.map(({ label }) => units[label]).join("").replaceAll("▁", " ").trim(),
      first: group[0].first,
      confidence: mean(group.map(({ confidence }) => confidence)),
    }))
    .filter(({ text }) => text);
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
