#!/usr/bin/env python3
"""Measure what windows do to long recordings: WER of whole recordings, with the model's windows and with those of 30 s.

    cd egs/mini; python ../../tools/long_recordings.py exp/train data/test

The data directory has segments; the words of a recording are those of its segments, one after another.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from asrprune.data.tables import read_table
from asrprune.data.windows import WINDOWS
from asrprune.experiment.store import load
from asrprune.recognizer import Recognizer
from asrprune.scoring.wer import score
from asrprune.transcribe.trained import TrainedModel


def main() -> None:
    """Print a line for each kind of windows and each depth."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("exp", type=Path)
    options.add_argument("data", type=Path)
    options.add_argument("--recordings", type=int, default=8, help="the first ones")
    given = options.parse_args()
    paths, texts = read_table(given.data / "wav.scp"), read_table(given.data / "text")
    references: dict[str, list[str]] = {name: [] for name in sorted(paths)[: given.recordings]}
    for key, segment in read_table(given.data / "segments").items():
        references.get(segment.split()[0], []).append(texts[key])
    experiment = load(given.exp)
    for windows in (WINDOWS, experiment.record.windows or WINDOWS):
        model = TrainedModel(replace(experiment, record=experiment.record.model_copy(update={"windows": windows})))
        recogniser = Recognizer(model, model.decoder({}))
        for depth in (experiment.num_layers, min(experiment.config.depths())):
            said = {name: recogniser.transcribe(paths[name], depth=depth).text for name in references}
            wer = score({name: " ".join(words) for name, words in references.items()}, said)
            print(
                f"windows of {windows.window_s:g} s, {depth} layers: WER {wer.wer:.1f} % of {wer.ref_words} words", flush=True
            )


if __name__ == "__main__":
    main()
