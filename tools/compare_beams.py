#!/usr/bin/env python3
"""Decode a set with our beam search and with ctc-beam-decoder, say of each text that differs why, and how long both took.

pip install ctc-beam-decoder==0.2.0 && python tools/compare_beams.py --exp EXP data/test 12 6 2

Beam, language model and weights are those of the experiment's config, or of --lm; layers are those of its plan. The other
search is pyctcdecode's: it keeps a prefix twice, with and without a blank at its end, and adds up all ways to write a text in
text units. Where texts differ, both search once more and keep WIDE prefixes: if they agree then, a narrow beam had lost it.
In an empty text the other one counts an unknown word.
"""

import argparse
import math
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from ctc_beam_decoder import BeamSearchDecoder

from asrprune.cli.options import decoder_given
from asrprune.data.batching import sorted_batches
from asrprune.data.dataset import Corpus
from asrprune.decode.choose import decoder_of
from asrprune.decode.prefix_beam import PrefixBeam
from asrprune.experiment.store import Experiment, load
from asrprune.infer.runner import Runner
from asrprune.prune.find import find_plan

WIDE = 300


class Searches:
    """Both searches, with any width."""

    def __init__(self, experiment: Experiment, lm: Path | None, weights: dict[str, float]) -> None:
        found = decoder_of(experiment, {**decoder_given("beam", lm, None), **weights})
        assert isinstance(found, PrefixBeam)
        self.beam, options, self.tokenizer = found, found.options, experiment.tokenizer
        self.other = BeamSearchDecoder(
            ["", *self.tokenizer.pieces[1:]], kenlm_model_path=options.lm, alpha=options.lm_weight or 0.0,
            beta=options.word_bonus or 0.0, unk_score_offset=0.0,
        )  # fmt: skip
        self.least = math.log(options.min_prob)
        self.took = self.seconds = np.zeros(2)  # CPU time of both: of the last text, and of all texts with the narrow beam

    def texts(self, log_probs: np.ndarray, width: int) -> tuple[str, str]:
        """Our text and the other one, of (T', V) log-probabilities."""
        self.beam.options = self.beam.options.model_copy(update={"width": width})
        began = time.process_time()
        (path,) = self.beam.decode(torch.from_numpy(log_probs)[None], torch.tensor([len(log_probs)]))
        between = time.process_time()
        other = self.other.decode_beams(log_probs, beam_width=width, beam_prune_logp=-1e9, token_min_logp=self.least)
        self.took = np.array([between - began, time.process_time() - between])
        return self.tokenizer.decode(path.labels), other[0][0]

    def compare(self, log_probs: np.ndarray, width: int) -> str:
        """Why the texts differ, with both of them; "same" if they do not."""
        ours, other = self.texts(log_probs, width)
        self.seconds = self.seconds + self.took
        if ours == other:
            return "same"
        wide, other_wide = self.texts(log_probs, WIDE)
        if wide != other_wide:
            return "definition"
        lost = [name for name, text in (("ours", ours), ("the other", other)) if text != wide]
        return f"pruned by {' and '.join(lost)}"


def main() -> None:
    """Print a line for each text that differs, and one for each depth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="data directory, with features")
    parser.add_argument("depths", type=int, nargs="+")
    parser.add_argument("--exp", type=Path, required=True)
    parser.add_argument("--lm", type=Path)
    parser.add_argument("--plan", help="strategy or plan file")
    parser.add_argument("--weights", type=float, nargs=2, default=(), help="lm_weight and word_bonus, not the tuned ones")
    given = parser.parse_args()
    experiment, weights = load(given.exp), dict(zip(("lm_weight", "word_bonus"), given.weights, strict=False))
    searches, runner, corpus = Searches(experiment, given.lm, weights), Runner.of(experiment), Corpus(given.data, None)
    keeps = {find_plan(experiment, given.plan).keep(depth): depth for depth in given.depths}
    width, counts = searches.beam.options.width, {depth: Counter[str]() for depth in given.depths}
    for batch in runner.batches(corpus, sorted_batches(corpus.lengths, experiment.config.decode.max_frames)):
        for keep, emissions in runner.emissions(batch.features, batch.lens, list(keeps)):
            rows = zip(batch.index, emissions.log_probs.float().cpu().numpy(), emissions.lens.tolist(), strict=True)
            for index, log_probs, length in rows:
                why = searches.compare(log_probs[:length], width)
                counts[keeps[keep]][why] += 1
                if why != "same":
                    print(f"depth {keeps[keep]}: {corpus.ids[index]}: {why}: {searches.texts(log_probs[:length], width)}")
    for depth, found in counts.items():
        print(f"depth {depth}: {found.total()} utterances: {', '.join(f'{n} {why}' for why, n in found.most_common())}")
    print("seconds of CPU time: ours {:.2f}, the other {:.2f}".format(*searches.seconds))


if __name__ == "__main__":
    main()
