"""Real-time factors (RTF) by depth. RTF = total seconds of computing / total seconds of audio."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from asrprune.config.schema import BenchConfig
from asrprune.data.extract import utterance_samples
from asrprune.data.kaldi import read_data_dir, spread_evenly
from asrprune.data.tokenizer import Tokenizer
from asrprune.decode.choose import decoder_of
from asrprune.decode.decoder import Decoder
from asrprune.decode.greedy import GREEDY
from asrprune.decode.one_piece import too_long
from asrprune.experiment.paths import ExperimentPaths
from asrprune.experiment.plan import Keep
from asrprune.experiment.store import Experiment
from asrprune.features.fbank import compute_fbank
from asrprune.infer.runner import Runner
from asrprune.model.ctc_model import num_params
from asrprune.runtime.errors import UserError
from asrprune.runtime.hardware import Environment, autocast_type, environment
from asrprune.runtime.progress import track
from asrprune.runtime.records import Record

WARM_UP = 1  # warm-up passes


class Timed(Record):
    """The real-time factor of a sub-model: median, minimum and maximum over the repetitions."""

    depth: int
    keep: Keep
    params_m: float
    rtf: float  # the median
    rtf_min: float
    rtf_max: float
    decoder_rtf: float | None = None  # median RTF of the decoder alone; None in files of earlier versions


class Bench(Record):
    """bench.json: real-time factors, and how they were measured."""

    made_by: ClassVar[str] = "stage 10 (`asrprune bench`)"
    format: Literal[1]
    set: str
    utterances: int
    audio_s: float
    threads: int
    batch: int
    dtype: str
    decoder: str | None = None  # None in files of earlier versions
    repeats: int
    device: str
    features_rtf: float
    model_sha256: str
    environment: Environment
    rows: tuple[Timed, ...] = Field(min_length=1)


def bench(
    experiment: Experiment,
    directory: Path,
    keeps: Sequence[Keep],
    allow_pipes: bool = False,
    given: Mapping[str, Any] | None = None,
) -> Path:
    """Measure features and sub-models on utterances of a set; write ``bench.json`` in the experiment.

    Each repetition runs every sub-model once, so that a change of the speed of the machine affects all of them. The time of a
    sub-model covers encoder, CTC head and decoder. The decoder and the features are also timed separately.

    Args:
        experiment: the full model.
        directory: a data directory; ``bench.utterances`` utterances of it are used, spread evenly.
        keeps: the layers of each sub-model.
        allow_pipes: run shell commands in wav.scp.
        given: values that replace numbers of ``decode.decoder`` in the config.
    """
    options, decoder = experiment.config.bench, decoder_of(experiment, given)
    before = torch.get_num_threads()
    torch.set_num_threads(options.threads or before)
    try:
        features, audio_s, features_rtf = _features(experiment, directory, options, allow_pipes)
        batches = _batches(features, options.batch)
        rows = measure(experiment, batches, keeps, options.repeats, audio_s, decoder)
        threads = torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
    device = experiment.model.device
    path = ExperimentPaths(experiment.path).bench
    Bench(
        format=1, set=directory.name, utterances=len(features), audio_s=audio_s, threads=threads, batch=options.batch,
        dtype=str(autocast_type(experiment.config.decode.precision, device)).removeprefix("torch."),
        decoder=decoder.identity, repeats=options.repeats, device=device.type, features_rtf=features_rtf,
        model_sha256=experiment.record.model_sha256, environment=environment(), rows=rows,
    ).write(path)  # fmt: skip
    return path


def measure(
    experiment: Experiment,
    batches: Sequence[tuple[Tensor, Tensor]],
    keeps: Sequence[Keep],
    repeats: int,
    audio_s: float,
    decoder: Decoder = GREEDY,
) -> tuple[Timed, ...]:
    """Time sub-models on (features, lens) batches."""
    seconds = np.empty((repeats + WARM_UP, len(keeps), 2))  # total, decoder
    runner = Runner.of(experiment)
    for repeat in track(range(repeats + WARM_UP), "bench"):
        for position, keep in enumerate(keeps):
            started = _now()
            own = _recognise(runner, decoder, experiment.tokenizer, batches, keep)
            seconds[repeat, position] = _now() - started, own
    rtf = seconds[WARM_UP:].transpose(1, 2, 0) / audio_s
    return tuple(
        Timed(
            depth=len(keep), keep=keep, params_m=num_params(experiment.model, keep) / 1e6,
            rtf=float(np.median(whole)), rtf_min=float(whole.min()), rtf_max=float(whole.max()),
            decoder_rtf=float(np.median(own)),
        )
        for keep, (whole, own) in zip(keeps, rtf, strict=True)
    )  # fmt: skip


def _recognise(
    runner: Runner, decoder: Decoder, tokenizer: Tokenizer, batches: Sequence[tuple[Tensor, Tensor]], keep: Keep
) -> float:
    """Recognise all batches; return the seconds of the decoder."""
    seconds = 0.0
    for features, lens in batches:
        ((_, emissions),) = runner.emissions(features, lens, [keep])
        started = _now()
        for path in decoder.decode(emissions.log_probs, emissions.lens):
            tokenizer.decode(path.labels)
        seconds += _now() - started
    return seconds


def _features(
    experiment: Experiment, directory: Path, options: BenchConfig, allow_pipes: bool = False
) -> tuple[list[np.ndarray], float, float]:
    """Return features of the utterances (longest first), seconds of audio, and the RTF of features (without reading audio)."""
    frontend = experiment.config.frontend
    chosen = spread_evenly(read_data_dir(directory, need_text=False), options.utterances)
    samples = [utterance_samples(utterance, frontend, allow_pipes) for utterance in chosen]
    durations = ((one.id, len(signal) / frontend.sample_rate) for one, signal in zip(chosen, samples, strict=True))
    if fault := too_long(directory, durations, experiment.model):
        raise UserError(fault)
    audio_s = sum(map(len, samples)) / frontend.sample_rate
    compute_fbank(samples[0], frontend)  # warm-up
    started = time.perf_counter()
    features = [compute_fbank(signal, frontend) for signal in samples]
    return sorted(features, key=len, reverse=True), audio_s, (time.perf_counter() - started) / audio_s


def _batches(features: Sequence[np.ndarray], size: int) -> list[tuple[Tensor, Tensor]]:
    batches = []
    for start in range(0, len(features), size):
        part = [torch.from_numpy(matrix) for matrix in features[start : start + size]]
        lens = torch.tensor([len(matrix) for matrix in part])
        batches.append((torch.nn.utils.rnn.pad_sequence(part, batch_first=True), lens))
    return batches


def _now() -> float:
    """Return the time after waiting for the GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def keeps_of(experiment: Experiment) -> list[Keep]:
    """Return layers 1..d for each depth d: the speed depends on the number of layers, not on which layers run."""
    return [tuple(range(1, depth + 1)) for depth in experiment.config.depths()]
