#!/usr/bin/env python3
"""Compare the times of recognised words with the true ones, which a speech synthesiser tells; for several longest tails.

python tools/word_times.py --exp egs/mini/exp/train [--count 150]

The sentences are new ones of the words of egs/mini, spoken by voices that no model of egs/mini has heard in training. Only
sentences count of which every word is recognised.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "egs/mini/local"))

from corpus import read_config  # noqa: E402
from espeak import SAMPLE_RATE, Voice, say_with_times  # noqa: E402

from asrprune.recognizer import Recognizer, Word  # noqa: E402
from asrprune.runtime.failures import exit_status  # noqa: E402
from asrprune.runtime.torch_pair import import_torchaudio  # noqa: E402

TAILS_S = (0.0, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
SILENCE_S = 0.25  # before and after a sentence
NEAR_S = 0.1


def sentences(count: int, rate: int) -> list[tuple[np.ndarray, list[str], np.ndarray]]:
    """Return samples (N,) at ``rate``, words, and the times (W + 1,) where each word begins and the last ends, by sentence."""
    import torch

    options = read_config(ROOT / "egs/mini/conf/corpus.yaml")
    rng, made = np.random.default_rng(1), []
    variants = [*options.sets.dev.female, *options.sets.dev.male]
    for _ in range(count):
        pace, pitch, spread = (
            int(rng.uniform(*pair)) for pair in (options.words_per_minute, options.pitch, options.pitch_range)
        )
        voice = Voice(str(rng.choice(options.accents)), str(rng.choice(variants)), pace, pitch, spread)
        words = [str(word) for word in rng.choice(options.words, size=rng.integers(3, 9))]
        ((samples, begins),) = say_with_times(voice, [" ".join(words)])
        if len(begins) != len(words):
            continue
        speech = torch.from_numpy(samples.astype(np.float32))
        resampled = import_torchaudio().functional.resample(speech, SAMPLE_RATE, rate).numpy()
        silence = np.zeros(int(SILENCE_S * rate), np.float32)
        audio = np.concatenate([silence, resampled / (2 * np.abs(resampled).max()), silence])
        audio += rng.normal(0.0, 0.003, len(audio))
        made.append((audio.astype(np.float32), words, SILENCE_S + np.array([*begins, len(samples)]) / SAMPLE_RATE))
    return made


def differences(found: list[Word], times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return recognised minus true time in seconds, for the beginnings (W,) and the ends (W,) of a sentence's words."""
    return np.array([word.start_s for word in found]) - times[:-1], np.array([word.end_s for word in found]) - times[1:]


def run(exp: Path, count: int) -> None:
    """Print a table."""
    recognizer = Recognizer.load(exp)
    spoken = sentences(count, recognizer.model.frontend.sample_rate)
    print(
        "| longest tail (s) | beginnings, mean error (s) | ends, mean error (s) | within 0.1 s |\n| ---: | ---: | ---: | ---: |"
    )
    for tail in TAILS_S:
        recognizer.model.word_tail_s = tail
        heard = [(recognizer.transcribe(audio).words, words, times) for audio, words, times in spoken]
        right = [differences(list(found), times) for found, words, times in heard if [word.text for word in found] == words]
        begins, ends = (np.abs(np.concatenate(part)) for part in zip(*right, strict=True))
        near = 100 * np.mean(np.concatenate([begins, ends]) <= NEAR_S)
        print(f"| {tail:.2f} | {begins.mean():.3f} | {ends.mean():.3f} | {near:.0f} % |")
    print(f"\n{len(right)} of {len(spoken)} sentences, {len(begins)} words")


def main() -> int:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exp", type=Path, required=True, help="experiment of egs/mini")
    parser.add_argument("--count", type=int, default=150, help="sentences")
    given = parser.parse_args()
    return exit_status(lambda: run(given.exp, given.count))


if __name__ == "__main__":
    sys.exit(main())
