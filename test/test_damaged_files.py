"""Every file of an experiment, damaged in every place: what reads it works, or refuses it in one sentence."""

import copy
import io
import json
import os
import random
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from commands import asrprune

from asrprune.data.tables import write_table

pytestmark = pytest.mark.slow
HUGE = 10**30
WRONG = (None, [], {}, [{}], "x", -1, 0, 1e308, 2**62, HUGE, True, float("nan"), {"a": {"b": []}}, [[[[]]]])
TEXTS = {
    "empty": b"",
    "a blank": b" ",
    "null": b"null",
    "a list": b"[]",
    "a number": b"7",
    "a text": b'"x"',
    "no fields": b"{}",
    "deep": b"[" * 5000,
    "deep fields": b'{"a":' * 5000,
    "not UTF-8": b'{"a": "\xff"}',
    "zeros": bytes(100),
    "digits": b'{"format": ' + b"9" * 400 + b"}",
}
JSON = {  # file: the commands that read it
    "model.json": ("transcribe", "report"),
    "data.json": ("train",),
    "decoder.json": ("transcribe beam",),
    "bench.json": ("report",),
    "plans/iterative.json": ("transcribe", "prune", "report"),
    "plans/scores/iterative.json": ("search",),
    "decode/dev/lowest_d4/decode.json": ("decode", "report"),
    "decode/dev/lowest_d4/score.json": ("report",),
}
COMMANDS: dict[str, tuple[str, ...]] = {
    "transcribe": ("transcribe", "WAV", "--exp", "EXP", "--depth", "2"),
    "transcribe beam": ("transcribe", "WAV", "--exp", "EXP", "--lm", "3gram.arpa"),
    "train": ("train", "--config", "CONFIG", "--exp", "EXP", "--train", "TRAIN", "--dev", "DEV", "--bpe", "BPE",
              "--cmvn", "CMVN"),
    "average": ("average", "--exp", "EXP"),
    "svcca": ("svcca", "--exp", "EXP", "--data", "TRAIN"),
    "search": ("search", "--exp", "EXP", "--dev", "DEV", "--strategy", "iterative"),
    "search train": ("search", "--exp", "EXP", "--dev", "TRAIN", "--strategy", "svcca", "--strategy", "influence"),
    "prune": ("prune", "OUT", "--exp", "EXP", "--depth", "2"),
    "decode": ("decode", "DEV", "--exp", "EXP", "--strategy", "lowest", "--depth", "4"),
    "score": ("score", "DEV", "--exp", "EXP"),
    "bench": ("bench", "--exp", "EXP", "--data", "DEV"),
    "report": ("report", "--exp", "EXP"),
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tiny_experiment: Path, tiny_data: Path, tiny_config_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a copy of the tiny data and experiment, and all that the stages make of it, but for the report."""
    root = tmp_path_factory.mktemp("whole")
    shutil.copytree(tiny_data, root / "data")
    shutil.copytree(tiny_experiment, root / "exp")
    shutil.copy(tiny_config_file, root / "config.yaml")
    lm = ("lm", root / "data/train/text", root / "exp/lang/3gram.arpa")
    tune = ("tune-lm", "--exp", root / "exp", "--dev", root / "data/dev", "--lm", "3gram.arpa")
    lowest = ("search", "--exp", root / "exp", "--dev", root / "data/dev", "--strategy", "lowest")
    for arguments in (lm, tune, lowest, *(words_of(root, name) for name in ("search", "svcca", "decode", "score", "bench"))):
        done = asrprune(*arguments)
        assert done.code == 0, (arguments, done.err)
    return root


def words_of(root: Path, command: str) -> list[object]:
    """The arguments of a command on a directory such as ``whole``."""
    data = root / "data"
    paths = {
        "EXP": root / "exp", "OUT": root / "out", "CONFIG": root / "config.yaml", "TRAIN": data / "train", "DEV": data / "dev",
        "BPE": data / "lang/bpe.model", "CMVN": data / "cmvn", "WAV": next((data / "dev/audio").glob("*.wav")),
    }  # fmt: skip
    return [paths.get(word, word) for word in COMMANDS[command]]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values in a document; of a list, those in its first item."""
    items = value.items() if isinstance(value, dict) else list(enumerate(value))[:1] if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def with_value(document: Any, place: tuple[Any, ...], *values: Any) -> Any:
    """A copy with another value at a place; without a value, the place is removed."""
    changed = copy.deepcopy(document)
    holder = changed
    for key in place[:-1]:
        holder = holder[key]
    if values:
        holder[place[-1]] = values[0]
    else:
        del holder[place[-1]]
    return changed


def damaged(document: Any, write: Callable[[Any], bytes]) -> Iterator[tuple[str, bytes]]:
    """Ways to damage a JSON or YAML document, each with a name."""
    yield from TEXTS.items()
    text = write(document)
    yield "truncated", text[: len(text) // 2]
    yield "last byte gone", text.rstrip()[:-1]
    for place in places(document):
        name = ".".join(map(str, place))
        yield f"without {name}", write(with_value(document, place))
        for value in WRONG:
            yield f"{name}: {str(value)[:9]}", write(with_value(document, place, value))
        if isinstance(place[-1], str):
            yield f"{name} twice", write(with_value(document, (*place[:-1], f"{place[-1]} "), 1))


def fine(root: Path, command: str, what: str) -> int:
    """Run a command; it ends well, or with one sentence. Returns its status."""
    done = asrprune("--quiet", *words_of(root, command))
    said = [line for line in done.err.splitlines() if not re.match(r"\d\d:\d\d:\d\d (WARNING|ERROR) ", line)]
    assert done.code in (0, 1), (what, done)
    assert "Traceback" not in done.err + done.out, (what, done)
    if done.code:
        assert said[0].startswith(f"asrprune {command.split()[0]}: error:"), (what, done)
        assert all("File " not in line for line in said), (what, done)
    return done.code


def chosen(items: list[Any], name: str, most: int) -> list[Any]:
    """Some of the items, other ones for each name; DAMAGE=20 tries 20 times as many."""
    return random.Random(name).sample(items, min(most * int(os.environ.get("DAMAGE", "1")), len(items)))


@pytest.fixture
def room(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy that may be damaged."""
    monkeypatch.setattr("asrprune.report.plots.DPI", 20)
    return Path(shutil.copytree(whole, tmp_path / "room"))


def try_all(room: Path, file: str, commands: tuple[str, ...], ways: list[tuple[str, bytes]], most: int) -> None:
    path = room / file
    before, refused = path.read_bytes(), 0
    for command in commands:
        for what, content in chosen(ways, command + file, most):
            path.write_bytes(content)
            refused += fine(room, command, f"{file}: {what}")
            shutil.rmtree(room / "out", ignore_errors=True)
            path.write_bytes(before)
    mended = file == "exp/cmvn"  # it is copied again
    assert refused or mended or file.endswith(".ark"), "not one of them was noticed"


def as_json(document: Any) -> bytes:
    return json.dumps(document).encode()


@pytest.mark.parametrize("file", JSON)
def test_json(file: str, room: Path) -> None:
    document = json.loads((room / "exp" / file).read_text())
    try_all(room, f"exp/{file}", JSON[file], list(damaged(document, as_json)), most=4)


def test_config(room: Path) -> None:
    document = yaml.safe_load((room / "exp/config.yaml").read_text())
    ways = list(damaged(document, lambda value: yaml.safe_dump(value).encode()))
    try_all(room, "exp/config.yaml", ("transcribe", "report"), ways, most=5)


def test_log(room: Path) -> None:
    lines = (room / "exp/train.jsonl").read_bytes().splitlines(keepends=True)
    step, epoch = (next(line for line in lines if f'"kind": "{kind}"'.encode() in line) for kind in ("step", "epoch"))
    ways = []
    for line in (step, epoch):
        rest = b"".join(other for other in lines if other != line)
        ways += [(what, made + b"\n" + rest) for what, made in damaged(json.loads(line), as_json)]
    try_all(room, "exp/train.jsonl", ("report",), ways, most=8)


def npz(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def damaged_arrays(arrays: dict[str, np.ndarray]) -> Iterator[tuple[str, bytes]]:
    wrong = {
        "none": np.zeros(0), "a number": np.array(3.0), "text": np.array("x"), "one more": np.zeros((9, 9)),
        "nan": np.array(np.nan), "negative": np.array([-5]), "three axes": np.zeros((2, 2, 2)), "bytes": np.array([b"x"]),
        "complex": np.zeros((5, 5), complex), "dates": np.array(["2020-01-01"], "M8[D]"),
        "fields": np.zeros(5, [("a", "f4")]), "huge": np.full((5, 5), 1e308),
    }  # fmt: skip
    whole = npz(arrays)
    yield from {"empty": b"", "half": whole[: len(whole) // 2], "text": b"x" * 99, "no arrays": npz({})}.items()
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        names = archive.namelist()
    assert len(names) == len(arrays)
    for name in arrays:
        yield f"without {name}", npz({key: value for key, value in arrays.items() if key != name})
        for what, value in wrong.items():
            yield f"{name}: {what}", npz({**arrays, name: value})
        yield f"{name}: nan everywhere", npz({**arrays, name: np.full_like(arrays[name], np.nan, dtype=float)})


def test_similarities(room: Path) -> None:
    file = "exp/svcca/train.npz"
    with np.load(room / file) as stored:
        ways = list(damaged_arrays(dict(stored)))
    try_all(room, file, ("search train", "report"), ways, most=4)


def saved(state: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def test_state(room: Path) -> None:
    file = "exp/checkpoints/last.pt"
    (room / "exp/checkpoints/previous.pt").unlink()
    state = torch.load(room / file, weights_only=True)
    ways = list(TEXTS.items())
    ways += [("a list", saved([])), ("half", saved(state)[:5000]), ("a tensor", saved(torch.zeros(3)))]
    small = {key: state[key] for key in ("format", "progress", "window")}
    weight = next(iter(state["optimizer"]["state"]))
    moments = [("optimizer", "state", weight, key) for key in ("step", "exp_avg", "exp_avg_sq")]
    for place in [("model",), ("optimizer",), *places(small), *moments]:
        ways.append((f"without {place}", saved(with_value(state, place))))
        ways += [(f"{place}: {value}", saved(with_value(state, place, value))) for value in WRONG]
    for group in ("model", "optimizer"):
        for key in list(state[group])[:2]:
            ways += [(f"{group}: {key}: {value}", saved(with_value(state, (group, key), value))) for value in WRONG]
    for place in [("model", weight), ("window", "losses"), ("window", "reached"), *moments]:
        tensors = (
            torch.zeros(3),
            torch.zeros(1).expand(9, 9),
            torch.zeros(2, dtype=torch.complex64),
            torch.zeros(2).to_sparse(),
        )
        ways += [(f"{place}: {value}", saved(with_value(state, place, value))) for value in tensors]
    try_all(room, file, ("train", "average"), ways, most=6)


BINARY = {
    "exp/bpe.model": ("transcribe", "decode"),
    "exp/model.safetensors": ("transcribe",),
    "exp/checkpoints/epoch0001.safetensors": ("average",),
    "exp/lang/3gram.arpa": ("transcribe beam",),
    "data/cmvn": ("train",),
    "exp/cmvn": ("train",),
    "data/lang/bpe.model": ("train",),
    "data/dev/fbank/feats.ark": ("search", "decode"),
    "data/dev/feats.scp": ("search", "decode"),
    "data/dev/utt2num_frames": ("search", "decode"),
    "data/dev/text": ("search", "score"),
    "data/dev/utt2spk": ("score", "bench"),
    "data/dev/wav.scp": ("bench",),
    "exp/decode/dev/lowest_d4/text": ("score",),
}


def flipped(content: bytes) -> Iterator[tuple[str, bytes]]:
    yield from TEXTS.items()
    draw = random.Random(len(content))
    for _ in range(40):
        place = draw.randrange(len(content))
        length = draw.choice((1, 4, 100))
        kind = draw.choice(("gone", "other", "again", "cut"))
        other = {"gone": b"", "other": draw.randbytes(length), "again": content[place : place + length] * 3, "cut": b""}[kind]
        yield f"{kind} at {place}", content[:place] + other + (b"" if kind == "cut" else content[place + length :])


@pytest.mark.parametrize("file", BINARY)
def test_other_files(file: str, room: Path) -> None:
    try_all(room, file, BINARY[file], list(flipped((room / file).read_bytes())), most=5)


def test_shards_of_a_set_that_was_being_decoded(room: Path) -> None:
    from asrprune.decode import sweep

    folder = room / "exp/decode/dev/lowest_d4"
    (folder / "decode.json").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep, "write_ascending", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert asrprune(*words_of(room, "decode")).code == 130
    (path,) = folder.parent.glob("shards/*.jsonl")
    for what, content in chosen(list(flipped(path.read_bytes())), "shards", 12):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        fine(room, "decode", what)
        (folder / "decode.json").unlink(missing_ok=True)


def test_lengths_of_an_archive(room: Path) -> None:
    data = room / "data/dev"
    for name in ("feats.scp", "utt2num_frames", "utt2dur"):
        (data / name).unlink()
    shutil.rmtree(data / "fbank")
    write_table(data / "wav.scp", {path.stem: str(path) for path in (data / "audio").glob("*.wav")})
    command = ("fbank", data, "--config", room / "config.yaml", "--cmvn", room / "cmvn")
    assert asrprune(*command).code == 0
    for file in ("*.json", "*.scp", "*.cmvn"):
        (path,) = (data / "fbank").glob(file)
        before = path.read_bytes()
        ways = damaged(json.loads(before), as_json) if file == "*.json" else flipped(before)
        for what, content in chosen(list(ways), file, 12):
            path.write_bytes(content)
            done = asrprune(*command)
            assert done.code in (0, 1), (file, what, done)
            assert "Traceback" not in done.err, (file, what, done)
            path.write_bytes(before)
