"""A made-up but realistic experiment: 12 layers, two sets, four strategies, every file that a report reads."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from records import plan_of

from asrprune.config.load import parse_config, write_config
from asrprune.decode.benchmark import Bench, Timed
from asrprune.decode.sweep import Decoded
from asrprune.experiment.plan import Step
from asrprune.experiment.store import Epoch, ModelRecord
from asrprune.report.build import write_report
from asrprune.scoring.wer import Score

NUM_LAYERS = 12
MODEL_SHA256 = "5f" * 32
KEEP = {
    "iterative": {12: [*range(1, 13)], 10: [*range(1, 9), 10, 12], 8: [1, 2, 3, 4, 5, 6, 8, 12], 6: [1, 2, 3, 4, 6, 12]},
    "svcca": {12: [*range(1, 13)], 10: [*range(1, 11)], 8: [1, 2, 3, 4, 5, 7, 9, 12], 6: [1, 2, 3, 5, 9, 12]},
    "every": {
        12: [*range(1, 13)],
        10: [1, 2, 3, 5, 6, 7, 8, 10, 11, 12],
        8: [1, 3, 4, 6, 7, 9, 10, 12],
        6: [1, 3, 5, 8, 10, 12],
    },
    "lowest": {12: [*range(1, 13)], 10: [*range(1, 11)], 8: [*range(1, 9)], 6: [*range(1, 7)]},
}
KEEP["iterative"] |= {4: [1, 2, 4, 6], 2: [1, 4]}
KEEP["svcca"] |= {4: [1, 2, 6, 12], 2: [1, 12]}
KEEP["every"] |= {4: [1, 5, 8, 12], 2: [1, 12]}
KEEP["lowest"] |= {4: [1, 2, 3, 4], 2: [1, 2]}
WER = {
    "iterative": {12: 5.2, 10: 5.3, 8: 5.5, 6: 6.1, 4: 7.6, 2: 13.9},
    "svcca": {12: 5.2, 10: 5.5, 8: 6.2, 6: 8.9, 4: 31.5, 2: 100.0},
    "every": {12: 5.2, 10: 6.0, 8: 7.9, 6: 13.8, 4: 47.3, 2: 98.4},
    "lowest": {12: 5.2, 10: 5.5, 8: 5.9, 6: 6.3, 4: 8.8, 2: 17.2},
}
SETS = {"dev": (400, 0.26, 2011), "test": (2000, 1.3, 10042)}  # utterances, hours, reference words


def make_experiment(exp: Path) -> Path:
    """Write the whole experiment directory."""
    exp.mkdir(parents=True)
    model = {"dim": 144, "heads": 4, "ffn": 576, "num_layers": NUM_LAYERS, "taps": [3, 6, 9], "tap_weight": 0.66}
    config = {"tokenizer": {"vocab_size": 256}, "model": model, "train": {"epochs": 18}}
    write_config(parse_config(config, "the made-up config"), exp / "config.yaml")
    members = [Epoch(epoch=epoch, wer=dev_wer(epoch, 12)) for epoch in (14, 16, 17, 18)]
    ModelRecord(
        format=1, model_sha256=MODEL_SHA256, members=members, num_layers=NUM_LAYERS, params_m=params(12),
        asrprune="0.1.0+abcdef1234", seed=1,
    ).write(exp / "model.json")  # fmt: skip
    make_log(exp / "train.jsonl")
    make_svcca(exp / "svcca/dev.npz")
    for strategy in KEEP:
        make_plan(exp / f"plans/{strategy}.json", strategy)
        for name in SETS:
            for depth in KEEP[strategy]:
                make_decode(exp / f"decode/{name}/{strategy}_d{depth}", name, strategy, depth)
    make_bench(exp / "bench.json")
    return exp


def params(depth: int) -> float:
    return 0.31 + 0.25 * depth


def dev_wer(epoch: int, layer: int) -> float:
    floor = {3: 9.5, 6: 6.2, 9: 5.5, 12: 5.3}[layer]
    return round(floor + (100 - floor) * math.exp(-epoch / 2.2) + 0.15 * math.sin(3.0 * epoch + layer), 3)


def make_log(path: Path) -> None:
    lines: list[dict[str, Any]] = []
    for epoch in range(1, 19):
        losses = {str(layer): 0.3 + 1.2 / layer + 4.0 * math.exp(-epoch / 3.0) for layer in (3, 6, 9, 12)}
        for step in range(100 * epoch - 90, 100 * epoch + 1, 10):
            rate = 2e-3 * min(step / 400, (400 / step) ** 0.5)
            loss = sum(losses.values()) / 4
            common = {"lr": rate, "grad_norm": 2.1, "frames_per_s": 30000, "elapsed_s": 0.15 * step}
            lines.append({"kind": "step", "step": step, "epoch": epoch, "loss": loss, "tap_losses": losses} | common)
        wers = {str(layer): dev_wer(epoch, layer) for layer in (3, 6, 9, 12)}
        scores = {"train_loss": 0.9 * loss, "dev_loss": losses, "dev_wer": wers, "seconds": 15.0 * epoch}
        lines.append({"kind": "epoch", "epoch": epoch, "step": 100 * epoch} | scores)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def make_svcca(path: Path) -> None:
    path.parent.mkdir(parents=True)
    layers = np.arange(NUM_LAYERS + 1)
    place = np.cumsum([0, 3.0, 1.2, 0.8, 0.6, 0.5, 0.4, 0.3, 0.3, 0.25, 0.25, 0.3, 0.9])
    gap = np.abs(place[:, None] - place[None, :])
    matrices = {"similarity": np.exp(-0.12 * gap), "cka": np.exp(-0.3 * gap), "influence": 0.25 * np.diff(place)}
    np.savez(path, **matrices, frames=21_540, layers=layers, model_sha256=MODEL_SHA256)


def make_plan(path: Path, strategy: str) -> None:
    scored = strategy == "iterative"
    steps = (Step.of(tuple(keep), WER[strategy][depth] + 0.2 if scored else None) for depth, keep in KEEP[strategy].items())
    cost = {"metric": "wer", "layer_forwards": 402, "naive_layer_forwards": 572, "seconds": 41.7} if scored else {}
    dev_set = "dev" if strategy in ("iterative", "svcca") else None
    plan_of(strategy, NUM_LAYERS, tuple(steps), MODEL_SHA256, dev_set=dev_set, asrprune="0.1.0+abcdef1234", **cost).write(path)


def make_decode(path: Path, name: str, strategy: str, depth: int) -> None:
    utterances, hours, words = SETS[name]
    wer = WER[strategy][depth] - (0.4 if name == "dev" and depth < 12 else 0.0)
    errors = round(wer / 100 * words)
    sub, ins, rate = int(0.6 * errors), int(0.1 * errors), 100 * errors / words
    half = 1.96 * 100 * math.sqrt(max(wer / 100 * (1 - wer / 100), 1e-4) / words) * 1.8
    Decoded(
        format=1, set=name, strategy=strategy, depth=depth, keep=KEEP[strategy][depth], params_m=params(depth),
        decoder="greedy, float32", model_sha256=MODEL_SHA256, utterances=utterances, hours=hours, text_sha256=name * 8,
    ).write(path / "decode.json")  # fmt: skip
    Score(
        wer=rate, wer_ci95=(rate - 0.8 * half, rate + half), cer=wer / 2, sub=sub, del_=errors - sub - ins, ins=ins,
        cor=words - errors + ins, ref_words=words, utterances=utterances, sentence_error=min(100.0, 4 * wer),
    ).write(path / "score.json")  # fmt: skip


def make_bench(path: Path) -> None:
    rows = [
        Timed(depth=depth, keep=KEEP[strategy][depth], params_m=params(depth), rtf=rtf, rtf_min=0.97 * rtf, rtf_max=1.05 * rtf)
        for strategy in ("iterative", "svcca")
        for depth in KEEP[strategy]
        for rtf in [round(0.0009 + 0.00044 * depth + (2e-5 if strategy == "svcca" and depth < 12 else 0), 6)]
    ]
    Bench(
        format=1, set="test", utterances=100, audio_s=220.1, threads=2, batch=1, dtype="float32", repeats=5, device="cpu",
        features_rtf=0.0011, model_sha256=MODEL_SHA256, rows=rows,
        environment={"cpu": "A Processor 9000", "python": "3.11.9", "torch": "2.14.1"},
    ).write(path)  # fmt: skip


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    return make_experiment(tmp_path / "exp/mini_12l")


@pytest.fixture(scope="session")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment whose report is written; for reading only."""
    exp = make_experiment(tmp_path_factory.mktemp("reported") / "mini <12l> & co")
    write_report(exp)
    return exp
