#!/usr/bin/env python3
"""Record what another prefix beam search says of small random utterances, for test/decode/test_prefix_beam.py.

pip install ctc-beam-decoder==0.2.0 && python tools/record_ctc_beam_decoder.py

It is pyctcdecode's algorithm in C++, with KenLM for the language model. Its beam is wide enough to keep everything, so that
only the definition of the score counts; words that the model lacks cost nothing more. Its hot words earn otherwise than our
phrases, and are not compared.
"""

import json
from pathlib import Path

import numpy as np
from ctc_beam_decoder import BeamSearchDecoder

FOLDER = Path(__file__).resolve().parents[1] / "test/fixtures/ctc_beam_decoder"
PIECES = ("<blk>", "▁a", "▁b", "c", "d")  # every text is written in one way
FRAMES, UTTERANCES = 6, 12
WEIGHTS = ((None, 0.0), (0.5, 0.0), (1.0, 1.5), (2.0, -0.5))  # of the language model (None: there is none), and a word's bonus


def record() -> None:
    """Write the utterances and its texts and scores."""
    cases = []
    for lm_weight, word_bonus in WEIGHTS:
        model = None if lm_weight is None else str(FOLDER / "tiny.arpa")
        decoder = BeamSearchDecoder(
            ["", *PIECES[1:]], kenlm_model_path=model, alpha=lm_weight or 0.0, beta=word_bonus, unk_score_offset=0.0
        )
        for seed in range(UTTERANCES):
            scores = np.random.default_rng(seed).normal(scale=1.5, size=(FRAMES, len(PIECES)))
            log_probs = np.round(scores - np.logaddexp.reduce(scores, axis=1, keepdims=True), 4)
            text, _, _, _, score = decoder.decode_beams(
                log_probs, beam_width=100_000, beam_prune_logp=-1e9, token_min_logp=-1e9
            )[0]
            cases.append(
                {
                    "lm_weight": lm_weight,
                    "word_bonus": word_bonus,
                    "log_probs": log_probs.tolist(),
                    "text": text,
                    "score": score,
                }
            )
    (FOLDER / "random.json").write_text(json.dumps({"pieces": PIECES, "cases": cases}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    record()
