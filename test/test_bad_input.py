"""Bad input through the real commands: one clear sentence on stderr, exit code 1, no traceback, nothing half-written."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from bad_audio import BAD_AUDIO
from bad_directories import DAMAGE
from commands import Done, asrprune, refused, tree, unchanged
from limits import largest_file
from waiting import group_runs, wait_for

from asrprune.data.tables import read_table, write_table
from asrprune.features.ark import read_matrix, write_ark

FS = 16000


@pytest.fixture
def data(tiny_data: Path, tmp_path: Path) -> Path:
    """A copy of dev, its audio included, without features."""
    folder = Path(
        shutil.copytree(tiny_data / "dev", tmp_path / "dev", ignore=shutil.ignore_patterns("f*", "utt2*m*", "utt2d*"))
    )
    wav = {key: str(folder / "audio" / Path(entry).name) for key, entry in read_table(folder / "wav.scp").items()}
    write_table(folder / "wav.scp", wav)
    return folder


def audio_of(data: Path, number: int = 2) -> tuple[str, Path]:
    """Id and file of one utterance."""
    key, entry = list(read_table(data / "wav.scp").items())[number]
    return key, Path(entry)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


# -- audio and data directories ---------------------------------------------------------------------------------------


def _beyond_its_end(data: Path, bad: str, entry: str) -> str:
    """The recording itself, and a segment of it that is too long."""
    ends = {key: 1e6 if key == bad else 0.2 for key in read_table(data / "wav.scp")}
    write_table(data / "segments", {key: f"{key} 0 {end:g}" for key, end in ends.items()})
    return entry


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("is not there", "cannot be read (No such file or directory)"),
        ("half of a wav file", "is truncated"),
        ("half of a flac file", "truncated"),
        ("has another sample rate", "is sampled at 8000 Hz, but must be at 16000 Hz"),
        ("is a text", "is not audio that libsndfile reads"),
        ("is a command", "is a shell command"),
        ("has a segment beyond its end", "the segment ends at 1e+06 s, but the recording ends at"),
    ],
)
def test_fbank_on_bad_audio(what: str, why: str, data: Path, tiny_config_file: Path, tmp_path: Path) -> None:
    key, path = audio_of(data)
    entry = BAD_AUDIO[what](tmp_path / "bad") if what in BAD_AUDIO else _beyond_its_end(data, key, str(path))
    write_table(data / "wav.scp", read_table(data / "wav.scp") | {key: str(entry)})
    with unchanged(data):
        refused(asrprune("fbank", data, "--config", tiny_config_file, "--cmvn", data / "cmvn"), "fbank", key, why)


@pytest.mark.parametrize(
    ("what", "line", "why"),
    [
        ("has an id without a value", 1, "nothing follows the id"),
        ("is Latin-1", 1, "is not UTF-8; convert the file"),
        ("is not sorted", 2, "ids are sorted bytewise"),
        ("has a line twice", 2, "has another line above, 1"),
        ("ends without a line feed", 6, "the last line has no newline"),
    ],
)
@pytest.mark.parametrize("command", ["check-data", "perturb", "bpe"])
def test_bad_transcripts(
    command: str, what: str, line: int, why: str, data: Path, tiny_config_file: Path, tmp_path: Path
) -> None:
    text = data / "text"
    text.write_bytes(DAMAGE[what](text.read_text()).encode("utf-8", "surrogateescape"))
    options = [] if command == "check-data" else [tmp_path / "out", "--config", tiny_config_file]
    with unchanged(tmp_path):
        done = asrprune(command, data, *options)
    refused(done, command, f"{text}:{line}: ", why)


def test_every_fault_is_named_at_once(data: Path) -> None:
    """A fault a line, under a heading, so that an editor can jump to each."""
    text = data / "text"
    text.write_text(DAMAGE["has an id without a value"](DAMAGE["has an id twice"](text.read_text())))
    audio_of(data, 4)[1].unlink()
    done = asrprune("check-data", data)
    refused(done, "check-data", faults=3)
    assert all(line.startswith(f"{data}/") for line in done.err.splitlines()[1:])


# -- configs and what stages need -------------------------------------------------------------------------------------


def train_command(tiny_data: Path, config: Path, exp: Path) -> list[object]:
    inputs = {"--train": "train", "--dev": "dev", "--bpe": "lang/bpe.model", "--cmvn": "cmvn"}
    paths = [word for option, path in inputs.items() for word in (option, tiny_data / path)]
    return ["train", "--config", config, "--exp", exp, *paths]


def test_another_config_in_the_same_experiment(exp: Path, tiny_data: Path, tiny_config_file: Path) -> None:
    with unchanged(exp):
        done = asrprune(*train_command(tiny_data, tiny_config_file, exp), "--set", "model.ffn=64", "--set", "seed=2")
    told = "was trained with other numbers; give a new experiment (--exp; run.sh: --exp_tag)"
    refused(done, "train", told, "model.ffn: was 32, is 64", "seed: was 1, is 2", faults=3)


def test_other_data_in_the_same_experiment(exp: Path, tiny_data: Path, tiny_config_file: Path) -> None:
    command = train_command(tiny_data, tiny_config_file, exp)
    command[command.index("--dev") + 1] = tiny_data / "train"
    with unchanged(exp):
        refused(asrprune(*command), "train", "is not the dev data of", "give a new experiment (--exp; run.sh: --exp_tag)")


COMMANDS_OF_AN_EXPERIMENT = {
    "average": [],
    "svcca": ["--data", "DEV"],
    "search": ["--dev", "DEV"],
    "prune": ["OUT", "--depth", "2"],
    "decode": ["DEV"],
    "tune-lm": ["--dev", "DEV", "--lm", "LM"],
    "score": ["DEV"],
    "bench": ["--data", "DEV"],
    "report": [],
    "transcribe": ["WAV"],
}


def on_experiment(command: str, exp: Path, dev: Path, out: Path) -> Done:
    words = {"DEV": dev, "OUT": out, "WAV": next(dev.glob("audio/*.wav"))}
    return asrprune(command, "--exp", exp, *(words.get(word, word) for word in COMMANDS_OF_AN_EXPERIMENT[command]))


@pytest.mark.parametrize("command", COMMANDS_OF_AN_EXPERIMENT)
@pytest.mark.parametrize("there", [True, False])
def test_no_experiment(command: str, there: bool, tiny_data: Path, tmp_path: Path) -> None:
    exp = tmp_path / "no exp"
    if there:
        exp.mkdir()
    with unchanged(tmp_path):
        done = on_experiment(command, exp, tiny_data / "dev", tmp_path / "out")
    refused(done, command, str(exp), "stage 8" if command == "score" else "stage 4")
    assert exp.exists() == there


@pytest.mark.parametrize(
    ("command", "gone", "stage"),
    [
        ("average", "exp/checkpoints", "stage 4"),
        ("svcca", "exp/model.safetensors", "stage 5"),
        ("svcca", "exp/model.json", "asrprune average"),
        ("svcca", "dev/feats.scp", "stage 2"),
        ("search", "exp/svcca", "stage 6"),
        ("decode", "exp/plans", "stage 7"),
        ("decode", "exp/bpe.model", "stage 3"),
        ("svcca", "dev/utt2num_frames", "stage 2"),
        ("score", "exp/decode", "stage 8"),
        ("score", "dev/text", "stage 1"),
        ("report", "exp/decode", "stage 8"),
        ("report", "exp/decode/dev/lowest_d4/score.json", "stage 9"),
        ("bench", "dev/wav.scp", "stage 1"),
    ],
)
def test_what_is_missing_names_the_stage_that_makes_it(
    command: str, gone: str, stage: str, exp: Path, tmp_path: Path, dev: Path
) -> None:
    if command == "score" or "score.json" in gone:
        asrprune("search", "--exp", exp, "--dev", dev, "--strategy", "lowest")
        asrprune("decode", "--exp", exp, dev, "--strategy", "lowest", "--depth", 4)
        asrprune("score", "--exp", exp, dev)
    path = tmp_path / gone
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    done = on_experiment(command, exp, dev, tmp_path / "out")
    assert stage in done.err, done
    refused(done, command)


@pytest.mark.parametrize(("option", "name"), [("--bpe", "stage 3"), ("--cmvn", "stage 2"), ("--train", "stage 2")])
def test_training_without_its_inputs(option: str, name: str, tiny_data: Path, tiny_config_file: Path, tmp_path: Path) -> None:
    command = train_command(tiny_data, tiny_config_file, tmp_path / "exp")
    command[command.index(option) + 1] = tmp_path / "none"
    refused(asrprune(*command), "train", str(tmp_path / "none"), name)
    assert not (tmp_path / "exp/checkpoints").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("command", ["svcca", "search", "decode", "bench", "transcribe"])
def test_no_gpu(command: str, exp: Path, tiny_data: Path, tmp_path: Path) -> None:
    words = {"DEV": tiny_data / "dev", "WAV": audio_of(tiny_data / "dev")[1]}
    options = (words.get(word, word) for word in COMMANDS_OF_AN_EXPERIMENT[command])
    refused(asrprune(command, "--exp", exp, *options, "--ngpu", 1), command, "torch finds no GPU", "--ngpu 0")


# -- experiments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["transcribe", "prune", "decode"])
def test_a_depth_that_the_plan_lacks(command: str, exp: Path, tiny_data: Path, tmp_path: Path) -> None:
    assert asrprune("search", "--exp", exp, "--dev", tiny_data / "dev", "--strategy", "iterative").code == 0
    options = {"prune": [tmp_path / "out"], "decode": [tiny_data / "dev", "--strategy", "iterative"]}
    arguments = options.get(command, [audio_of(tiny_data / "dev")[1]])
    with unchanged(tmp_path):
        done = asrprune(command, "--exp", exp, *arguments, "--depth", 7)
    refused(done, command, "plan iterative has no depth 7; it has 4, 3, 2, 1")


def test_search_says_what_is_wrong_before_it_begins(exp: Path, tiny_data: Path) -> None:
    options = ["--dev", tiny_data / "dev", "--strategy", "iterative"]
    with unchanged(exp):
        for strategy, why in (
            ("foo", "strategies.1: input should be 'iterative', 'svcca', 'influence', 'every' or 'lowest', got 'foo'"),
            ("svcca", "svcca/dev.npz: no such file; stage 6"),
        ):
            refused(asrprune("search", "--exp", exp, *options, "--strategy", strategy), "search", why)


def test_features_of_other_filters(tiny_data: Path, tiny_config_file: Path, tmp_path: Path) -> None:
    """Nothing is written, so the corrected command is taken."""
    done = asrprune(*train_command(tiny_data, tiny_config_file, tmp_path / "exp"), "--set", "frontend.num_mels=11")
    refused(done, "train", "filters, but frontend.num_mels is 11; run stage 2")
    assert not (tmp_path / "exp/config.yaml").exists()


def test_prune_does_not_write_over_what_is_there(exp: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.tex").write_text("years of work")
    with unchanged(tmp_path):
        refused(asrprune("prune", "--exp", exp, tmp_path / "out", "--layers", "1"), "prune", "exists already")


def _truncate(path: Path) -> None:
    cut(path)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _scribble(path: Path) -> None:
    path.write_bytes(b"garbage " * 1000)


def _of_another_depth(path: Path) -> None:
    config = yaml.safe_load((path.parent / "config.yaml").read_text())
    config["model"]["num_layers"] = 5
    (path.parent / "config.yaml").write_text(yaml.safe_dump(config))


@pytest.mark.parametrize(
    ("break_it", "named"),
    [
        (_truncate, "model.safetensors"),
        (_empty, "model.safetensors"),
        (_scribble, "model.safetensors"),
        (_of_another_depth, "model.json: num_layers is 4, but model.num_layers in config.yaml is 5"),
    ],
)
def test_a_corrupted_model(break_it: Callable[[Path], None], named: str, exp: Path, tiny_data: Path) -> None:
    break_it(exp / "model.safetensors")
    with unchanged(exp):
        done = asrprune("transcribe", audio_of(tiny_data / "dev")[1], "--exp", exp)
    refused(done, "transcribe", str(exp / named))


def test_features_of_another_width(exp: Path, tmp_path: Path, dev: Path) -> None:
    narrow = {key: read_matrix(entry)[:, :7] for key, entry in read_table(dev / "feats.scp").items()}
    ark = tmp_path / "narrow.ark"
    write_table(dev / "feats.scp", write_ark(ark, ark, narrow.items()))
    iterative = ("search", "--dev", dev, "--strategy", "iterative")
    for command, *options in (("decode", dev, "--layers", "1,2"), iterative, ("svcca", "--data", dev)):
        done = asrprune(command, "--exp", exp, *options)
        refused(done, command, "the features have 7 filters, but the model was trained with")


def test_features_of_other_numbers(exp: Path, tiny_config_file: Path, dev: Path) -> None:
    """Another shift of frames fits the model, which then hears another pace. What the message says to do helps."""
    asrprune("search", "--exp", exp, "--dev", dev, "--strategy", "lowest")
    decode = ("decode", "--exp", exp, dev, "--strategy", "lowest", "--depth", 2)
    assert asrprune("fbank", dev, "--config", tiny_config_file, "--set", "frontend.frame_shift_ms=15").code == 0
    advice = f"run `asrprune fbank {dev} --config {exp}/config.yaml`"
    refused(asrprune(*decode), "decode", f"{dev}: its features were", "frontend.frame_shift_ms = 15", "have 10", advice)
    refused(asrprune("svcca", "--exp", exp, "--data", dev), "svcca", advice)
    assert asrprune(*advice.strip("`").split()[2:]).code == 0
    assert asrprune(*decode).code == 0


def test_lengths_that_are_no_numbers(exp: Path, dev: Path) -> None:
    write_table(dev / "utt2num_frames", {key: f"{value}.0" for key, value in read_table(dev / "utt2num_frames").items()})
    refused(asrprune("decode", "--exp", exp, dev, "--layers", "1,2"), "decode", "utt2num_frames: `", "is not a whole number")


def test_a_decode_of_what_the_set_was_before(exp: Path, dev: Path) -> None:
    assert asrprune("decode", "--exp", exp, dev, "--layers", "1,2").code == 0
    write_table(dev / "text", {f"{key}x": text for key, text in read_table(dev / "text").items()})
    done = asrprune("score", "--exp", exp, dev)
    refused(done, "score", f"{exp}/decode/dev/", "references without a hypothesis", "or remove this directory")


def test_a_pipe_in_feats_scp_is_not_run(exp: Path, tmp_path: Path, dev: Path) -> None:
    rows = read_table(dev / "feats.scp")
    write_table(dev / "feats.scp", dict.fromkeys(rows, f"touch {tmp_path / 'run'} |"))
    done = asrprune("decode", "--exp", exp, dev, "--layers", "1,2")
    refused(done, "decode", "not an scp entry PATH:OFFSET (pipes are not run)")
    assert not (tmp_path / "run").exists()
    assert tree(exp / "decode") == {}


# -- workers, machines, interruptions ---------------------------------------------------------------------------------


def test_a_reading_process_of_training_says_one_sentence(tiny_data: Path, tiny_config_file: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(tiny_data, tmp_path / "data"))
    frames = read_table(data / "train/utt2num_frames")
    shortest = min(frames, key=lambda key: int(frames[key]))  # not in the largest batch, which the first process reads itself
    rows = read_table(data / "train/feats.scp")
    write_table(data / "train/feats.scp", {**rows, shortest: f"{tmp_path / 'gone.ark'}:17"})
    done = asrprune(*train_command(data, tiny_config_file, tmp_path / "exp"), "--set", "train.num_workers=1")
    refused(done, "train", f"{tmp_path / 'gone.ark'}:17: there is no such archive", "stage 2")


@pytest.mark.parametrize(
    "command", ["perturb", "fbank", "bpe", "average", "search", "decode", "prune", "svcca", "bench", "report"]
)
def test_a_full_disk(command: str, exp: Path, data: Path, tiny_data: Path, tiny_config_file: Path, tmp_path: Path) -> None:
    dev, out = tiny_data / "dev", tmp_path / "out"
    for name in ("lowest", "every"):
        asrprune("search", "--exp", exp, "--dev", dev, "--strategy", name)
    asrprune("decode", "--exp", exp, dev, "--strategy", "lowest", "--depth", 1)
    asrprune("score", "--exp", exp, dev)
    commands: dict[str, list[object]] = {
        "perturb": [data, out, "--config", tiny_config_file],
        "fbank": [data, "--config", tiny_config_file, "--cmvn", out / "cmvn"],
        "bpe": [data, out, "--config", tiny_config_file],
        "average": ["--exp", exp],
        "search": ["--exp", exp, "--dev", dev, "--strategy", "iterative"],
        "decode": ["--exp", exp, dev, "--strategy", "every"],
        "prune": ["--exp", exp, out, "--layers", "1,2"],
        "svcca": ["--exp", exp, "--data", tiny_data / "train"],  # dev has too few frames
        "bench": ["--exp", exp, "--data", dev],
        "report": ["--exp", exp],
    }
    with largest_file(64):
        done = asrprune(command, *commands[command])
    refused(done, command, "file too large; ")
    left = list(tmp_path.rglob(".*.tmp*"))
    assert left == []
    assert asrprune(command, *commands[command]).code == 0, "and it can be run again"


def test_a_full_disk_in_training(tiny_data: Path, tiny_config_file: Path, tmp_path: Path) -> None:
    command = train_command(tiny_data, tiny_config_file, tmp_path / "exp")
    with largest_file(20_000):  # config and log fit, weights do not
        done = asrprune(*command)
    refused(done, "train", "file too large; ")
    assert f"error: {tmp_path / 'exp/checkpoints'}/" in done.err
    assert list(tmp_path.rglob(".*.tmp*")) == []
    assert asrprune(*command).code == 0
    assert asrprune("average", "--exp", tmp_path / "exp").code == 0


def test_a_full_disk_under_the_log(tiny_data: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    done = asrprune("--log", "/dev/full", "check-data", tiny_data / "dev")
    assert done.code == 1
    assert "no space left on device; free some disk space" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("command", ["bpe", "perturb", "prune", "train", "report", "fbank"])
def test_a_file_in_the_place_of_a_directory(
    command: str, exp: Path, tiny_data: Path, tiny_config_file: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "a file"
    out.touch()
    asrprune("search", "--exp", exp, "--dev", tiny_data / "dev", "--strategy", "lowest")
    asrprune("decode", "--exp", exp, tiny_data / "dev", "--strategy", "lowest")
    asrprune("score", "--exp", exp, tiny_data / "dev")
    commands: dict[str, list[object]] = {
        "bpe": [data, out / "lang", "--config", tiny_config_file],
        "perturb": [data, out / "sp", "--config", tiny_config_file],
        "prune": ["--exp", exp, out / "pruned", "--layers", "1"],
        "train": train_command(tiny_data, tiny_config_file, out / "exp")[1:],
        "report": ["--exp", exp, "--copy-to", out / "results"],
        "fbank": [data, "--config", tiny_config_file, "--cmvn", out / "cmvn"],
    }
    refused(asrprune(command, *commands[command]), command, str(out), "choose another path")
    assert out.read_bytes() == b""


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")
def test_a_directory_that_may_not_be_written(tiny_data: Path, tiny_config_file: Path, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o555)
    done = asrprune("bpe", tiny_data / "train", tmp_path / "closed/lang", "--config", tiny_config_file)
    refused(done, "bpe", "permission denied; choose a directory that you may write to")


def test_a_torchaudio_that_does_not_fit(
    data: Path, tiny_config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "site/torchaudio"
    fake.mkdir(parents=True)
    (fake / "__init__.py").write_text("raise OSError('libc10_cuda.so: cannot open shared object file')\n")
    for name in [name for name in sys.modules if name.split(".")[0] == "torchaudio"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(fake.parent)
    with unchanged(data):
        done = asrprune("fbank", data, "--config", tiny_config_file)
    refused(done, "fbank", "libc10_cuda.so", "pip install torch==", "torchaudio==")
    done = asrprune("doctor")
    assert done.code == 1
    assert re.search(r"^FAIL +torchaudio .*libc10_cuda.so", done.out, re.MULTILINE)
    assert "-> pip" in done.out


def test_our_own_mistake_keeps_its_traceback(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("who would have thought")

    monkeypatch.setattr("asrprune.data.check.check_data_dir", broken)
    log = tmp_path / "log"
    done = asrprune("--log", log, "check-data", data)
    assert done.code == 70
    sentence = "asrprune check-data: error: ZeroDivisionError: who would have thought; this is a bug of asrprune"
    assert done.err.startswith(sentence)
    assert done.err.count("\n") == 1
    assert str(log) in done.err
    assert "Traceback" in log.read_text()
    done = asrprune("check-data", data)
    assert done.code == 70
    assert "Traceback" in done.err
    assert done.err.splitlines()[-1].startswith(sentence)


def _after(first: Exception, second: Exception) -> Exception:
    second.__context__ = first
    return second


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "out of memory; lower batch.max_frames"),
        (
            ImportError("libx.so: failed to map segment from shared object"),
            "a library does not fit into memory; raise the limit",
        ),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "a worker process was killed"),
        (OSError(28, "No space left on device", "x.ark"), "x.ark: no space left on device; free some disk space"),
        (OSError(24, "Too many open files", "x.ark"), "x.ark: too many open files; raise the limit on open files, `ulimit -n`"),
        (RuntimeError("unable to open shared memory object: Too many open files (24)"), "too many files are open; raise"),
        (RuntimeError("received 0 items of ancdata"), "too many files are open; raise the limit on open files, `ulimit -n`"),
        (FileNotFoundError(2, "No such file or directory", "x.ark"), "x.ark: no such file or directory; correct the path"),
        (OSError(36, "File name too long", "x"), "x: file name too long; choose a shorter name"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "free some disk space"),
        (_after(OSError(28, "torch.save was writing"), RuntimeError("unexpected pos 7 vs 5")), "no space left on device; free"),
    ],
)
def test_what_libraries_say_is_put_in_words(error: Exception, said: str, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr("asrprune.data.check.check_data_dir", broken)
    refused(asrprune("check-data", data), "check-data", said)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_is_one_sentence(number: signal.Signals, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asrprune.data.check.check_data_dir", lambda *_: signal.raise_signal(number))
    done = asrprune("check-data", data)
    assert done.code == 128 + number
    assert done.err == "asrprune check-data: error: interrupted; no file is incomplete, run the same command again\n"


def test_a_signal_that_comes_twice_does_not_cut_the_cleaning_up_short(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped recipe: once to the whole process group, and passed on by `asrprune stage`."""
    cleaned: list[str] = []

    def interrupted(*_: object) -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)
            cleaned.append("up")

    monkeypatch.setattr("asrprune.data.check.check_data_dir", interrupted)
    assert asrprune("check-data", data).code == 128 + signal.SIGTERM
    assert cleaned == ["up"]


def test_an_interrupted_fbank_leaves_nothing_behind(tiny_config_file: Path, tmp_path: Path) -> None:
    data = _long_data(tmp_path / "data")
    command = [sys.executable, "-m", "asrprune.cli", "fbank", str(data), "--config", str(tiny_config_file), "--nj", "2"]
    listen = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # background jobs of a shell ignore it
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True, preexec_fn=listen)
    until = time.monotonic() + 120
    while not list((data / "fbank").glob(".*.tmp*")) if (data / "fbank").exists() else True:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # what a terminal does
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    wait_for(lambda: not group_runs(process.pid), 20, "orphans")
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("asrprune fbank: error: interrupted")
    assert not (data / "feats.scp").exists()
    assert [path.name for path in (data / "fbank").glob(".*")] == [".lock"]
    for ark in (data / "fbank").glob("*.ark"):
        assert ark.with_suffix(".scp").exists(), "an archive that is not finished"
    assert asrprune("fbank", data, "--config", tiny_config_file).code == 0
    assert list(read_table(data / "feats.scp")) == list(read_table(data / "text"))


def _long_data(folder: Path) -> Path:
    """Two archives' worth of utterances, some seconds of work."""
    folder.mkdir()
    wav = folder / "noise.wav"
    soundfile.write(wav, np.random.default_rng(0).normal(0, 0.1, 10 * FS), FS)
    ids = [f"utt{number:04d}" for number in range(400)]
    for name, value in (("wav.scp", str(wav)), ("text", "noise"), ("utt2spk", "someone")):
        write_table(folder / name, dict.fromkeys(ids, value))
    write_table(folder / "spk2utt", {"someone": " ".join(ids)})
    return folder
