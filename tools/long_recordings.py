#!/usr/bin/env python3
"""Measure what windows do to long recordings.

    cd egs/mini; python ../../tools/long_recordings.py exp/train data/test

Joins the utterances of each recording (without a file segments: of each speaker) to one, and transcribes it with several
kinds of windows. Its WER and its words are compared with those of the utterances alone.
"""

import argparse
from dataclasses import replace
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np

from asrprune.data.extract import utterance_samples
from asrprune.data.kaldi import Utterance, read_data_dir
from asrprune.data.windows import WINDOWS, Windows
from asrprune.decode.words import Word
from asrprune.experiment.store import Experiment, load
from asrprune.recognizer import Recognizer
from asrprune.scoring.wer import score
from asrprune.transcribe.trained import TrainedModel

Words = dict[str, list[Word]]  # of each joined recording


def main() -> None:
    """Print a line for each depth and each kind of windows."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("exp", type=Path)
    options.add_argument("data", type=Path)
    options.add_argument("--recordings", type=int, help="the first ones; default: all")
    options.add_argument("--depths", type=int, nargs="+", help="default: the largest and the smallest one of the config")
    given = options.parse_args()
    experiment = load(given.exp)
    joined = _joined(read_data_dir(given.data), given.recordings)
    texts = {name: " ".join(utterance.text for utterance in utterances) for name, utterances in joined.items()}
    fitting = experiment.record.windows or WINDOWS
    kinds = {
        "windows of 30 s": WINDOWS.model_copy(update={"pause_db": None}),
        "windows that fit": fitting.model_copy(update={"pause_db": None}),
        "windows that fit and end in pauses": fitting.model_copy(update={"pause_db": WINDOWS.pause_db}),
    }
    for depth in given.depths or sorted({experiment.num_layers, min(experiment.config.depths())}, reverse=True):
        alone = _alone(experiment, joined, depth)
        print(f"{depth} layers, utterances alone: {_wer(texts, alone)}", flush=True)
        for kind, windows in kinds.items():
            whole = _whole(experiment, joined, depth, windows)
            print(f"{depth} layers, {kind}: {_wer(texts, whole)}; {_same(alone, whole)}", flush=True)


def _joined(utterances: list[Utterance], most: int | None) -> dict[str, list[Utterance]]:
    joined: dict[str, list[Utterance]] = {}
    for utterance in sorted(utterances, key=lambda one: (one.recording, one.start_s)):
        joined.setdefault(utterance.speaker if utterance.recording == utterance.id else utterance.recording, []).append(
            utterance
        )
    return dict(list(joined.items())[:most])


def _alone(experiment: Experiment, joined: dict[str, list[Utterance]], depth: int) -> Words:
    """Return the words of the utterances, with times from the beginning of the joined recording."""
    recogniser, frontend = _recogniser(experiment, WINDOWS), experiment.config.frontend
    words: Words = {name: [] for name in joined}
    for name, utterances in joined.items():
        begin = 0.0
        for utterance in utterances:
            samples = utterance_samples(utterance, frontend)
            for word in recogniser.transcribe(samples, depth=depth).words:
                words[name].append(replace(word, start_s=begin + word.start_s, end_s=begin + word.end_s))
            begin += len(samples) / frontend.sample_rate
    return words


def _whole(experiment: Experiment, joined: dict[str, list[Utterance]], depth: int, windows: Windows) -> Words:
    recogniser = _recogniser(experiment, windows)
    words: Words = {}
    for name, utterances in joined.items():
        samples = np.concatenate([utterance_samples(utterance, experiment.config.frontend) for utterance in utterances])
        words[name] = list(recogniser.transcribe(samples, depth=depth).words)
    return words


def _recogniser(experiment: Experiment, windows: Windows) -> Recognizer:
    model = TrainedModel(replace(experiment, record=experiment.record.model_copy(update={"windows": windows})))
    return Recognizer(model, model.decoder({}))


def _wer(texts: dict[str, str], words: Words) -> str:
    wer = score(texts, {name: " ".join(word.text for word in found) for name, found in words.items()})
    return f"WER {wer.wer:.1f} % of {wer.ref_words} words"


def _same(alone: Words, whole: Words) -> str:
    """Say how many words of the utterances alone are found in the joined recordings, and how many of these at the same time."""
    same = at_once = 0
    for name in alone:
        before, after = ([word.text for word in words[name]] for words in (alone, whole))
        for block in SequenceMatcher(None, before, after, autojunk=False).get_matching_blocks():
            same += block.size
            for place in range(block.size):
                at_once += abs(alone[name][block.a + place].start_s - whole[name][block.b + place].start_s) <= 0.1
    return f"{same / sum(map(len, alone.values())):.1%} of the words alone, {at_once / same:.1%} of them within 0.1 s"


if __name__ == "__main__":
    main()
