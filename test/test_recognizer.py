"""The public runtime: any depth per call, words with times and confidence, and the text that `asrprune decode` writes."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from commands import asrprune as run_command
from commands import refused
from experiments import config_with, untrained
from records import plan_of

import asrprune
from asrprune import recognizer as module
from asrprune.config.schema import Config, Conv1dConfig, TokenizerConfig
from asrprune.data.extract import extract
from asrprune.data.kaldi import Utterance, read_data_dir, write_data_dir
from asrprune.data.tables import open_table
from asrprune.data.tokenizer import train_tokenizer
from asrprune.decode.sweep import SubModel, decode_set
from asrprune.decode.threshold import EarlyExit
from asrprune.experiment import store as experiment
from asrprune.experiment.plan import Step, plan_path
from asrprune.experiment.weights import load_weights
from asrprune.features.resample import SPEED_FILTER
from asrprune.prune.find import find_plan
from asrprune.prune.surgery import prune
from asrprune.recognizer import Hypothesis, Recognizer
from asrprune.runtime.errors import UserError
from asrprune.runtime.executor import HERE
from asrprune.runtime.torch_pair import import_torchaudio
from asrprune.transcribe import listener

ITERATIVE = (Step.of((1, 2, 3, 4), 5.0), Step.of((1, 3, 4), 6.0), Step.of((3,), 7.0))


@pytest.fixture(scope="module")
def exp(tiny_config: Config, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained experiment, which says something other at every depth, with a iterative plan."""
    exp = tmp_path_factory.mktemp("recognizer") / "exp"
    sha = untrained(exp, tiny_config, tiny_data).record.model_sha256
    plan_of("iterative", 4, ITERATIVE, sha, metric="wer", dev_set="dev").write(plan_path(exp, "iterative"))
    return exp


@pytest.fixture
def asr(exp: Path) -> Recognizer:
    return Recognizer.load(exp)


@pytest.fixture(scope="module")
def wavs(tiny_data: Path) -> dict[str, Path]:
    return {utterance.id: Path(utterance.audio) for utterance in read_data_dir(tiny_data / "dev")}


@pytest.fixture
def wav(wavs: dict[str, Path]) -> Path:
    return max(wavs.values(), key=lambda path: path.stat().st_size)


# ---- text


def test_it_is_the_packages_public_name() -> None:
    assert asrprune.Recognizer is Recognizer


def test_text_is_that_of_decoding_at_every_depth(exp: Path, wavs: dict[str, Path], tmp_path: Path, dev: Path) -> None:
    """`asrprune fbank` and `decode` on the audio, in padded batches, against one file after another."""
    own = experiment.load(Path(shutil.copytree(exp, tmp_path / "exp")))
    extract(dev, own.config.frontend, HERE)
    asr = Recognizer.load(own.path)
    for step in ITERATIVE:
        (output,) = decode_set(own, dev, [SubModel("iterative", step.keep)])
        found = {key: asr.transcribe(path, depth=step.depth) for key, path in wavs.items()}
        texts = {key: hypothesis.text for key, hypothesis in found.items()}
        assert texts == dict(open_table(output / "text", allow_empty=True))
        assert {hypothesis.layers for hypothesis in found.values()} == {step.keep}


def test_a_file_its_path_as_text_and_its_samples_are_the_same(asr: Recognizer, wav: Path) -> None:
    samples, _ = soundfile.read(wav, dtype="float32")
    hypothesis = asr.transcribe(wav)
    assert hypothesis.text
    assert asr.transcribe(str(wav)) == hypothesis
    assert asr.transcribe(samples) == hypothesis
    assert asr.transcribe(samples.astype(np.float64)) == hypothesis


def test_depth_is_per_call_and_nothing_sticks(asr: Recognizer, wav: Path) -> None:
    full = asr.transcribe(wav)
    assert full.layers == (1, 2, 3, 4)
    assert asr.transcribe(wav, depth=3).layers == (1, 3, 4)
    assert asr.transcribe(wav, layers=[2, 4]).layers == (2, 4)
    texts = {asr.transcribe(wav, depth=depth).text for depth in (4, 3, 1)}
    assert len(texts) == 3, "every depth says something else, so that the tests above say something"
    assert asr.transcribe(wav) == full
    assert asr.transcribe(wav, depth=4) == full


def test_a_pruned_experiment_says_what_the_full_one_says_with_these_layers(asr: Recognizer, wav: Path, tmp_path: Path) -> None:
    prune(asr.model.experiment, (1, 3, 4), tmp_path / "pruned")
    pruned = Recognizer.load(tmp_path / "pruned")
    expected = asr.transcribe(wav, depth=3)
    found = pruned.transcribe(wav)
    assert (found.text, found.words) == (expected.text, expected.words)
    assert found.layers == (1, 2, 3)


# ---- words


def test_words_ascend_within_the_audio(asr: Recognizer, wavs: dict[str, Path]) -> None:
    for path in wavs.values():
        for depth in (4, 3, 1):
            hypothesis = asr.transcribe(path, depth=depth)
            assert " ".join(word.text for word in hypothesis.words) == hypothesis.text
            times = [time for word in hypothesis.words for time in (word.start_s, word.end_s)]
            assert times == sorted(times)
            assert all(word.start_s < word.end_s for word in hypothesis.words)
            assert times[0] >= 0.0
            assert times[-1] <= soundfile.info(path).duration
            assert all(0.0 < word.confidence <= 1.0 for word in hypothesis.words)


def emit(recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch, frames: list[tuple[str, float]]) -> None:
    """Let the recogniser emit, frame by frame, a piece with a probability; the rest is spread over the others."""
    pieces = recognizer.model.units.pieces
    rows = torch.stack([torch.full((len(pieces),), (1 - p) / (len(pieces) - 1)) for _, p in frames])
    for row, (piece, p) in zip(rows, frames, strict=True):
        row[pieces.index(piece)] = p
    monkeypatch.setattr(recognizer.listener, "_emit", lambda *_: [rows.log().numpy()])


def test_times_and_confidence_by_hand(asr: Recognizer, wav: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame is 40 ms. A word lasts to the next one, or to 0.25 s after its label. Confidence: the mean probability."""
    emit(asr, monkeypatch, [
        ("<blk>", 0.9), ("▁one", 0.6), ("▁one", 0.8), ("<blk>", 0.9),
        ("▁two", 0.5), ("▁two", 0.5), ("▁one", 1.0), ("▁<unk>", 0.7),
    ])  # fmt: skip
    words = asr.transcribe(wav).words
    assert [(word.text, word.start_s, word.end_s) for word in words] == [
        ("one", 0.04, 0.16), ("two", 0.16, 0.24), ("one", 0.24, 0.28), ("<unk>", 0.28, 0.57)
    ]  # fmt: skip
    assert [word.confidence for word in words] == pytest.approx([0.7, 0.5, 1.0, 0.7])


@pytest.fixture(scope="module")
def coarse(tiny_config: Config, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment with convolutions over time alone, and one encoder frame for eight of the features."""
    config = config_with(tiny_config, "model", subsampling=Conv1dConfig(factor=8))
    return untrained(tmp_path_factory.mktemp("coarse") / "exp", config, tiny_data).path


def test_times_follow_the_factor_of_the_front_end(coarse: Path, wav: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame is 80 ms."""
    asr = Recognizer.load(coarse)
    emit(asr, monkeypatch, [("<blk>", 0.9), ("▁one", 0.6), ("▁one", 0.8), ("<blk>", 0.9), ("▁two", 0.5)])
    words = asr.transcribe(wav).words
    assert [(word.text, word.start_s, word.end_s) for word in words] == [("one", 0.08, 0.32), ("two", 0.32, 0.65)]
    assert [word.confidence for word in words] == pytest.approx([0.7, 0.5])


def test_times_are_those_of_whole_samples(
    tiny_config: Config, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 22,050 Hz frames begin every 220 samples, which is not quite 10 ms: 8 s in an hour."""
    config = config_with(tiny_config, "frontend", sample_rate=22050)
    asr = Recognizer.load(untrained(tmp_path / "exp", config, tiny_data).path)
    emit(asr, monkeypatch, [("<blk>", 0.9)] * 1000 + [("▁one", 0.9)])
    (word,) = asr.transcribe(np.random.default_rng(0).normal(0.0, 0.1, 1002 * 880)).words
    assert word.start_s == round(1000 * 4 * 220 / 22050, 3)
    assert asr.model.timing.window_frames[0] == 3004


def test_factor_8_hears_nothing_in_14_frames(coarse: Path) -> None:
    model = Recognizer.load(coarse)
    silence = [listener.Heard(np.zeros((count, 80), dtype=np.float32), count, 160 * count) for count in (0, 7, 14, 15, 22, 23)]
    frames = [len(log_probs) for log_probs, _ in model.listener.with_layers((1,))(silence)]
    assert frames == [0, 0, 0, 1, 1, 2]
    assert model.transcribe(np.full(2300, 0.1, dtype=np.float32)).words == ()


@pytest.fixture(scope="module")
def spelling(exp: Path, tiny_config: Config, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same experiment with characters for units."""
    folder = tmp_path_factory.mktemp("spelling")
    train_tokenizer(["one two three"], TokenizerConfig(type="char", vocab_size=None), folder)
    return untrained(folder / "exp", tiny_config, tiny_data, folder / "bpe.model").path


@pytest.mark.parametrize(("kind", "words"), [("coarse", 1), ("spelling", 2)])
def test_other_front_ends_and_units_say_what_decoding_says(
    kind: str, words: int, request: pytest.FixtureRequest, wavs: dict[str, Path], dev: Path
) -> None:
    own = experiment.load(request.getfixturevalue(kind))
    extract(dev, own.config.frontend, HERE)
    (output,) = decode_set(own, dev, [SubModel("lowest", (1, 2))])
    asr = Recognizer.load(own.path)
    found = {key: asr.transcribe(path, depth=2) for key, path in wavs.items()}
    assert {key: hypothesis.text for key, hypothesis in found.items()} == dict(open_table(output / "text", allow_empty=True))
    assert max(len(hypothesis.words) for hypothesis in found.values()) >= words
    for key, hypothesis in found.items():
        assert all(word.end_s <= soundfile.info(wavs[key]).duration for word in hypothesis.words)


def test_characters_make_words(spelling: Path, wav: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asr = Recognizer.load(spelling)
    emit(asr, monkeypatch, [
        ("n", 0.5), ("o", 0.7), ("▁", 0.9), ("<blk>", 0.9), ("▁", 0.9), ("t", 0.9), ("w", 0.9), ("<unk>", 0.4),
        ("<blk>", 0.9), ("▁", 0.6), ("<blk>", 0.5), ("e", 0.6), ("e", 0.8), ("▁", 0.9),
    ])  # fmt: skip
    hypothesis = asr.transcribe(wav)
    assert hypothesis.text == "no tw<unk> e"
    assert [(word.text, word.start_s, word.end_s) for word in hypothesis.words] == [
        ("no", 0.0, 0.08), ("tw<unk>", 0.16, 0.36), ("e", 0.36, 0.52)
    ]  # fmt: skip
    assert [word.confidence for word in hypothesis.words] == pytest.approx([0.6, (0.9 * 3 + 0.4) / 4, (0.6 + 0.7) / 2])


# ---- long recordings


def test_a_long_recording_is_transcribed_in_windows_as_it_is_decoded(
    exp: Path, asr: Recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An utterance of 59 seconds is one piece, one of 125 seconds five windows; both are in one batch."""
    directory = tmp_path / "long"
    rng, utterances = np.random.default_rng(0), []
    for seconds in (59, 125):
        soundfile.write(tmp_path / f"{seconds}.wav", rng.normal(0.0, 0.1, seconds * 16000 + 77), 16000)
        utterances.append(Utterance(f"s-{seconds}", str(tmp_path / f"{seconds}.wav"), 0.0, None, "s", "one"))
    write_data_dir(directory, utterances)
    extract(directory, asr.model.frontend, HERE)
    own = experiment.load(Path(shutil.copytree(exp, tmp_path / "exp")))
    (output,) = decode_set(own, directory, [SubModel("lowest", (1, 2, 3, 4))])
    texts = dict(open_table(output / "text", allow_empty=True))
    lengths: list[int] = []
    whole = asr.listener._emit
    monkeypatch.setattr(asr.listener, "_emit", lambda batch, keep: lengths.append(batch[0].frames) or whole(batch, keep))
    monkeypatch.setattr("asrprune.runtime.progress._LOG_EVERY_S", 0.0)
    caplog.set_level("INFO")
    for utterance in utterances:
        found = asr.transcribe(utterance.audio)
        assert found.text == texts[utterance.id]
        times = [time for word in found.words for time in (word.start_s, word.end_s)]
        assert times == sorted(times)
    assert lengths == [5900, 3000, 3000, 3000, 3000, 2100]
    assert [record.getMessage().partition(",")[0] for record in caplog.records] == [
        f"{tmp_path}/125.wav: {minutes}/2 minutes" for minutes in (0, 0, 1, 1, 2)
    ]
    assert times[-1] > 120


def test_batches_say_what_one_recording_after_the_other_says(
    asr: Recognizer, wavs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the given order, with errors in their places, and with all frames of padding."""
    rng, sizes = np.random.default_rng(0), []
    noise = [rng.normal(0.0, 0.1, int(16000 * seconds)).astype(np.float32) for seconds in (3.0, 0.03, 61.0, 0.0, 0.7, 9.0)]
    audios = [noise[0], tmp_path / "none.wav", *noise[1:], np.zeros(16000, np.float32), *wavs.values(), np.zeros((2, 2))]
    expected = [said_or_not(asr, audio) for audio in audios]
    assert len(set(map(str, expected))) > len(wavs)
    emissions = asr.model.emissions
    monkeypatch.setattr(asr.model, "emissions", lambda batch, keep: sizes.append(len(batch)) or emissions(batch, keep))
    for read_ahead_s, batch_s, largest in ((300.0, 60.0, 4), (6.0, 60.0, 2), (300.0, 0.0, 1)):
        monkeypatch.setattr(listener, "READ_AHEAD_S", read_ahead_s)
        monkeypatch.setattr(listener, "BATCH_S", batch_s)
        sizes.clear()
        for found, wanted in zip(asr.transcribe_many(audios), expected, strict=True):
            assert (str(found), type(found)) == (wanted, UserError) if isinstance(wanted, str) else found.text == wanted.text
            if isinstance(found, Hypothesis):
                assert [(word.start_s, word.end_s) for word in found.words] == [(w.start_s, w.end_s) for w in wanted.words]
        assert max(sizes) >= largest
        assert largest > 1 or max(sizes) == 1


def said_or_not(asr: Recognizer, audio: Path | np.ndarray) -> Hypothesis | str:
    try:
        return asr.transcribe(audio)
    except UserError as error:
        return str(error)


# ---- fit


@pytest.mark.parametrize(("budget", "depth", "layers"), [(0.4, 4, (1, 2, 3, 4)), (0.39, 3, (1, 3, 4)), (0.1, 1, (3,))])
def test_fit_takes_the_deepest_within_the_budget(
    asr: Recognizer, wav: Path, monkeypatch: pytest.MonkeyPatch, budget: float, depth: int, layers: tuple[int, ...]
) -> None:
    monkeypatch.setattr(asr, "_rtf", lambda keep, seconds: 0.1 * len(keep))
    assert asr.fit(budget) == depth
    assert asr.layers == layers
    assert asr.transcribe(wav).layers == layers
    assert asr.transcribe(wav, depth=4).layers == (1, 2, 3, 4), "a call may still say otherwise"
    assert asr.transcribe(wav).layers == layers


def test_fit_below_the_fastest_depth_says_what_that_takes(asr: Recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asr, "_rtf", lambda keep, seconds: 0.1 * len(keep))
    with pytest.raises(UserError, match=r"no depth .* real-time factor of 0\.05 or less here; the smallest has 0\.1000"):
        asr.fit(0.05)
    assert asr.layers == (1, 2, 3, 4)


def test_fit_measures_the_median_run_after_a_warm_up(asr: Recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that take 50 (the first), 1, 9 and 2 seconds a layer, on 5 seconds of audio: 2 count."""
    clock, runs = [0.0], []

    def transcribe(samples: np.ndarray, layers: tuple[int, ...]) -> None:
        assert samples.shape == (5 * 16000,)
        clock[0] += len(layers) * (50.0, 1.0, 9.0, 2.0)[len(runs) % 4]
        runs.append(layers)

    monkeypatch.setattr(asr, "transcribe", transcribe)
    monkeypatch.setattr(module.time, "perf_counter", lambda: clock[0])
    assert asr.fit(1.2) == 3
    assert runs == [(1, 2, 3, 4)] * 4 + [(1, 3, 4)] * 4


def test_fit_by_parameters_and_by_memory(asr: Recognizer) -> None:
    """The head, the front end and each layer have their parameters; a float32 has four bytes."""
    weights = load_weights(asr.model.experiment.path / "model.safetensors")
    layer = sum(weight.numel() for name, weight in weights.items() if name.startswith("encoder.layers.0."))
    whole = sum(weight.numel() for name, weight in weights.items() if not name.startswith("cmvn"))
    assert asr.fit(params_m=(whole - layer) / 1e6) == 3
    assert asr.fit(params_m=(whole - layer - 1) / 1e6) == 1
    assert asr.fit(memory_mb=4 * whole / 1e6) == 4
    with pytest.raises(UserError, match=r"no depth of plan iterative has 0\.01 MB of weights or less; the smallest has 0\.0\d"):
        asr.fit(memory_mb=0.01)
    for budgets in ({}, {"rtf": 1.0, "params_m": 1.0}):
        with pytest.raises(UserError, match="exactly one of rtf, params_m and memory_mb"):
            asr.fit(**budgets)


def test_fit_really_runs(asr: Recognizer) -> None:
    assert asr.fit(1000.0, seconds=0.5) == 4


# ---- mistakes


def test_empty_and_too_short_audio_is_the_empty_hypothesis(asr: Recognizer, tmp_path: Path) -> None:
    for count in (0, 1, 79, 80, 800, 1039):
        hypothesis = asr.transcribe(np.full(count, 0.1, dtype=np.float32))
        assert (hypothesis.text, hypothesis.words) == ("", ())
    soundfile.write(tmp_path / "short.wav", np.full(400, 0.1), 16000)
    assert asr.transcribe(tmp_path / "short.wav").text == ""
    assert asr.transcribe(np.full(1040, 0.1, dtype=np.float32)).layers == (1, 2, 3, 4)  # 7 frames, one of the encoder


@pytest.mark.parametrize("rate", [8000, 44100])
def test_other_rates_and_channels_are_those_of_the_model(
    asr: Recognizer, tmp_path: Path, rate: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The same samples, resampled by torchaudio; one sentence in the log."""
    noise = np.random.default_rng(0).normal(0.0, 0.1, (2 * rate, 2)).astype(np.float32)
    soundfile.write(tmp_path / "stereo.wav", noise, rate, subtype="FLOAT")
    resample = import_torchaudio().functional.resample
    expected = asr.transcribe(resample(torch.from_numpy(noise.mean(axis=1)), rate, 16000, **SPEED_FILTER).numpy())
    listener.told.clear()
    with caplog.at_level("INFO"):
        found = [asr.transcribe(tmp_path / "stereo.wav") for _ in range(2)]
    assert [hypothesis.text for hypothesis in found] == [expected.text] * 2 != ["", ""]
    sentence = f"recordings with {rate} Hz and 2 channels: 2 channels are mixed into one, {rate} Hz are resampled to 16000 Hz"
    assert caplog.messages == [sentence]


def test_a_rate_that_has_no_speech_is_refused(asr: Recognizer, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "slow.wav", np.zeros(100), 50)
    with pytest.raises(UserError, match=r"slow\.wav: is sampled at 50 Hz, but only whole rates of 4000 to 192000 Hz"):
        asr.transcribe(tmp_path / "slow.wav")


def test_digital_silence_says_nothing(asr: Recognizer) -> None:
    silence = np.zeros(90 * 16000, np.float32)
    assert asr.transcribe(silence).text == ""
    features = asr.model.features(lambda start, count: silence[start : start + count], 16000, 0, 100)
    (log_probs,) = asr.model.emissions([features], (1, 2, 3, 4))
    assert log_probs.argmax(1).any(), "the model itself says something"
    silence[: 20 * 16000] = np.random.default_rng(0).normal(0.0, 0.1, 20 * 16000)
    for decoder in ({"type": "greedy"}, {"type": "beam", "width": 2}):
        words = Recognizer(asr.model, asr.model.decoder(decoder)).transcribe(silence).words
        assert words
        assert words[-1].end_s < 60.0, "two windows are silent from end to end"


def test_a_missing_file_is_refused(asr: Recognizer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.wav: cannot be read"):
        asr.transcribe(tmp_path / "none.wav")


@pytest.mark.parametrize("samples", [np.zeros((16000, 2), np.float32), np.zeros(16000, np.int16), np.zeros((), np.float32)])
def test_samples_of_another_kind_are_refused(asr: Recognizer, samples: np.ndarray) -> None:
    with pytest.raises(UserError, match=r"samples must be \(N,\) floating-point numbers in \[-1, 1\), got (float32|int16) of"):
        asr.transcribe(samples)


@pytest.mark.parametrize("audio", [torch.zeros(16000), [0.0] * 16000, b"a.wav", None])
def test_what_is_no_audio_is_refused(asr: Recognizer, audio: Any) -> None:
    with pytest.raises(UserError, match=r"audio: must be a path or a numpy array of samples, got (Tensor|list|bytes|NoneType)"):
        asr.transcribe(audio)


def test_arguments_of_another_kind_are_refused(exp: Path, asr: Recognizer, wav: Path) -> None:
    samples = np.random.default_rng(0).normal(0.0, 0.1, 16000)
    calls: list[tuple[Callable[[], Any], str]] = [
        (lambda: asr.transcribe(wav, sample_rate=8000), "a file has its own rate, so sample_rate has no effect"),
        (lambda: asr.transcribe_many(str(wav)), "audios: must be a list of recordings; for one use transcribe"),
        (lambda: asr.transcribe_many(samples), "audios: must be a list"),
        (lambda: asr.transcribe(wav, depth=True), r"depth: must be a number of layers, such as 6, or \"auto\", got True"),
        (lambda: asr.transcribe(wav, depth=2.0), r"depth: must be a number of layers, .* got 2\.0"),
        (lambda: Recognizer.load(None), "the path of a model must be a string or a Path, got None"),
        (lambda: Recognizer.load(exp, decoder="beam"), "decoder: must be numbers such as .*, got 'beam'"),
        (lambda: asr.transcribe(wav, layers="12"), r"layers: must be layer numbers, such as \[1, 2, 5\], got '12'"),
        (lambda: asr.transcribe(wav, layers=[1.0]), "layers: must be layer numbers"),
        (
            lambda: asr.transcribe(wav, layers=(layer for layer in (2, 1))),
            r"layers must ascend and lie in 1\.\.4, got \[2, 1\]",
        ),
        (lambda: asr.transcribe(wav, layers=2), "layers: must be layer numbers"),  # type: ignore[arg-type]
        (lambda: asr.transcribe(wav, depth="auto", exit_threshold=float("nan")), "must be a number from 0 to 1"),
        (lambda: asr.transcribe(wav, depth="auto", exit_threshold="0.5"), "must be a number from 0 to 1"),  # type: ignore[arg-type]
        (lambda: asr.fit(rtf=float("nan")), "fit: rtf must be a number"),
        (lambda: asr.fit(rtf=1.0, seconds=0), "seconds one above 0"),
        (lambda: Recognizer.load(exp, low_memory=True), "low_memory is a mode of exported models"),
        (lambda: Recognizer.load(exp, device="gpu"), r'device must be "cpu", "cuda" or a GPU such as "cuda:1", got \'gpu\''),
    ]
    for call, message in calls:
        with pytest.raises(UserError, match=message):
            call()
    assert asr.transcribe(wav, layers=np.array([1, 2])) == asr.transcribe(wav, layers=[1, 2])
    assert asr.transcribe(np.ma.array(samples)) == asr.transcribe(samples)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "contains samples that are not finite"),
        (np.inf, "not finite"),
        (-(2.0**15), "its largest sample is 32768, but"),
    ],
)
def test_samples_of_another_scale_are_refused(asr: Recognizer, value: float, message: str) -> None:
    samples = np.zeros(16000, np.float32)
    samples[100] = value
    with pytest.raises(UserError, match=message):
        asr.transcribe(samples)


def test_samples_of_another_rate_are_resampled(asr: Recognizer, tmp_path: Path) -> None:
    samples = np.random.default_rng(0).normal(0.0, 0.1, 16000).astype(np.float32)
    assert asr.transcribe(samples, sample_rate=16000) == asr.transcribe(samples)
    soundfile.write(tmp_path / "narrow.wav", samples, 8000, subtype="FLOAT")
    assert asr.transcribe(samples, sample_rate=8000) == asr.transcribe(tmp_path / "narrow.wav") != asr.transcribe(samples)


def test_the_working_directory_may_change(exp: Path, wav: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan is read on first use."""
    expected = Recognizer.load(exp).transcribe(wav, depth=3)
    monkeypatch.chdir(exp.parent)
    recognizers = Recognizer.load(exp.name), Recognizer.load(exp.name, f"{exp.name}/plans/iterative.json")
    monkeypatch.chdir(tmp_path)
    assert [asr.transcribe(wav, depth=3) for asr in recognizers] == [expected, expected]


def test_a_depth_that_the_plan_lacks_lists_those_it_has(asr: Recognizer, wav: Path) -> None:
    with pytest.raises(UserError, match=r"plan iterative has no depth 2; it has 4, 3, 1"):
        asr.transcribe(wav, depth=2)


@pytest.mark.parametrize("layers", [[], [2, 1], [0], [5]])
def test_layers_that_the_model_lacks_are_refused(asr: Recognizer, wav: Path, layers: list[int]) -> None:
    with pytest.raises(UserError, match=r"layers must ascend and lie in 1\.\.4"):
        asr.transcribe(wav, layers=layers)


def test_depth_and_layers_together_are_refused(asr: Recognizer, wav: Path) -> None:
    with pytest.raises(UserError, match="give a depth or layers, not both"):
        asr.transcribe(wav, depth=1, layers=[1])


def test_what_is_no_experiment_names_the_stage(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not an experiment \(it has no config\.yaml\); stage 4"):
        Recognizer.load(tmp_path)


# ---- plans


def test_without_a_plan_depths_are_from_the_bottom_up(spelling: Path) -> None:
    plan = find_plan(experiment.load(spelling), None)
    assert plan.strategy == "lowest"
    assert [plan.keep(depth) for depth in (4, 2, 1)] == [(1, 2, 3, 4), (1, 2), (1,)]


def test_plans_by_name_and_by_file(exp: Path, tmp_path: Path) -> None:
    loaded = experiment.load(exp)
    assert find_plan(loaded, None).steps == find_plan(loaded, "iterative").steps == ITERATIVE
    mine = plan_of("mine", 4, (Step.of((2, 3)),), loaded.record.model_sha256)
    mine.write(tmp_path / "mine.json")
    for path in (tmp_path / "mine.json", str(tmp_path / "mine.json")):
        assert Recognizer.load(exp, path).plan == mine
    with pytest.raises(UserError, match=r"plans/svcca\.json: no such file; .*stage 7"):
        find_plan(loaded, "svcca")


def test_a_plan_of_an_older_model_stops_only_those_who_ask_for_a_depth(exp: Path, wav: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(exp, own)
    plan_of("iterative", 4, ITERATIVE, "0" * 64, metric="wer", dev_set="dev").write(plan_path(own, "iterative"))
    asr = Recognizer.load(own)
    assert asr.transcribe(wav) == Recognizer.load(exp).transcribe(wav)
    with pytest.raises(UserError, match=r"this plan was made for another model; run stage 7"):
        asr.transcribe(wav, depth=3)
    with pytest.raises(UserError, match=r"this plan was made for another model; run stage 7"):
        Recognizer.load(own, "iterative")


def test_a_plan_has_no_effect_with_layers(exp: Path, wav: Path) -> None:
    """It does not ask for a depth, which would be refused next."""
    done = run_command("transcribe", wav, "--exp", exp, "--plan", "lowest", "--layers", "1,2")
    refused(done, "transcribe", "--plan has no effect with --layers; remove it, or use --depth instead")


@pytest.mark.parametrize("values", [{"thresholds": ()}, {"exits": (1, 99)}, {"exits": (1, 2), "thresholds": (0.5,)}])
def test_thresholds_of_other_exits_are_refused(values: dict[str, Any], exp: Path, wav: Path, tmp_path: Path) -> None:
    own = with_thresholds(exp, tmp_path, **values)
    done = run_command("transcribe", wav, "--exp", own, "--early-exit")
    refused(done, "transcribe", "early_exit.json: has ", "but the model has the exits 1,2,4", "run `asrprune early-exit` again")


def with_thresholds(exp: Path, folder: Path, **values: Any) -> Path:
    """A copy of an experiment with thresholds of early exit, which greedy decoding chose."""
    own = Path(shutil.copytree(exp, folder / "own"))
    made: dict[str, Any] = {"exits": (1, 2, 4), "thresholds": (0.5, 0.5), "set": "dev", "margin": 0.5, "curves": {}, **values}
    sha = experiment.load(own).record.model_sha256
    EarlyExit(format=1, model_sha256=sha, decoder="greedy", **made).write(own / "early_exit.json")
    return own


def test_thresholds_of_another_decoder_are_told_once(
    exp: Path, wav: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = with_thresholds(exp, tmp_path)
    Recognizer.load(own).transcribe(wav, depth="auto")
    assert "the thresholds were chosen with" not in caplog.text
    beam = Recognizer.load(own, decoder={"type": "beam"})
    for _ in range(2):
        beam.transcribe(wav, depth="auto")
    assert caplog.text.count("the thresholds were chosen with the decoder greedy, not with beam") == 1


def test_early_exit_runs_the_layers_that_it_needs(exp: Path, asr: Recognizer, tiny_data: Path, wav: Path) -> None:
    with pytest.raises(UserError, match=r"early_exit\.json: is missing; run `asrprune early-exit` on a dev set, or give"):
        asr.transcribe(wav, depth="auto")
    for threshold, layers in ((0.0, (1,)), (1.1, (1, 2, 3, 4))):
        assert asr.transcribe(wav, depth="auto", exit_threshold=threshold) == asr.transcribe(wav, layers=layers)
    assert run_command("early-exit", "--exp", exp, "--dev", tiny_data / "dev").code == 0
    made = EarlyExit.read(exp / "early_exit.json")
    made.model_copy(update={"thresholds": (0.0, 0.0)}).write(exp / "early_exit.json")
    assert asr.transcribe(wav, depth="auto") == asr.transcribe(wav, layers=[1])
    assert asr.transcribe(np.zeros(16000, dtype=np.float32), depth="auto") == Hypothesis("", (), ())
    done = run_command("transcribe", wav, "--exp", exp, "--exit-threshold", 0, "--words")
    assert json.loads(done.out)["layers"] == [1]
    assert "'--exit-threshold': " in run_command("transcribe", wav, "--exp", exp, "--exit-threshold", 80).err, "80 %"
    for option in (("--depth", 2), ("--plan", "lowest")):
        assert "early exit chooses the layers" in run_command("transcribe", wav, "--exp", exp, "--early-exit", *option).err
    with pytest.raises(UserError, match='an exit threshold has no effect without the depth "auto"'):
        asr.transcribe(wav, exit_threshold=0.5)
