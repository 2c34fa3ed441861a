"""What an experiment holds, without what a clock measured: equal contents are equal results."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

CLOCK = {"seconds", "elapsed_s", "frames_per_s", "rtf", "rtf_min", "rtf_max", "decoder_rtf", "features_rtf", "speedup"}
VERSION = {"asrprune"}  # of the code, which has the commit's hash
MARKS = {"after", "result", "made", "recordings"}  # hashes of files that hold measured times
DRAWN = (".html", ".md", ".png")  # of measured times
LOGS = {"log", "tensorboard", "scores"}  # the last digits of scores depend on the batches, which differ after a kill
LOCKS = {".lock", "lock"}
TEMPORARY = re.compile(r"\..*\.tmp(\.[^.]*)?|\.fixed")


def differences(one: Path, other: Path) -> list[str]:
    """Return the paths of the files that only one of two folders has, or whose contents differ."""
    names = _files(one) | _files(other)
    return sorted(name for name in names if not _equal(one / name, other / name))


def _files(folder: Path) -> set[str]:
    found = set()
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if (
            path.name not in LOCKS
            and not LOGS.intersection(name.parts)
            and not TEMPORARY.fullmatch(path.name)
            and path.is_file()
        ):
            found.add(str(name))
    return found


def _equal(one: Path, other: Path) -> bool:
    if not (one.is_file() and other.is_file()):
        return False
    if one.read_bytes() == other.read_bytes():
        return True
    try:
        return _timeless(one) == _timeless(other)
    except Exception:  # a damaged file, which is equal to nothing
        return False


def temporaries(folder: Path) -> list[Path]:
    """Return what a killed process has left."""
    return [path for path in folder.rglob(".*") if TEMPORARY.fullmatch(path.name)]


def _timeless(path: Path) -> bytes:
    if path.suffix in DRAWN and path.parent.name != "svcca":
        return str(path.stat().st_size > 0).encode()
    if path.suffix == ".pt":
        return _state(path)
    if path.parent.name == ".done" and path.name.isdecimal():
        return _json(path.read_text(), MARKS)
    if path.suffix == ".json":
        return _json(path.read_text(), CLOCK | VERSION)
    if path.suffix == ".onnx":
        return _graph(path)
    if path.suffix == ".jsonl":
        return b"\n".join(_json(line, CLOCK) for line in path.read_text().splitlines())
    return path.read_bytes()


def _json(text: str, without: set[str]) -> bytes:
    return json.dumps(_strip(json.loads(text), without), sort_keys=True).encode()


def _strip(value: Any, without: set[str]) -> Any:
    if isinstance(value, dict):
        return {str(key): _strip(item, without) for key, item in value.items() if key not in without}
    return [_strip(item, without) for item in value] if isinstance(value, list | tuple) else value


def _graph(path: Path) -> bytes:
    import onnx

    file = onnx.load(path)
    for entry in file.metadata_props:
        if entry.key == "asrprune":  # what the JSON file beside it holds
            entry.value = _json(entry.value, CLOCK | VERSION).decode()
    return file.SerializeToString(deterministic=True)


def _state(path: Path) -> bytes:
    import torch

    if path.name == "previous.pt":
        return b"any state before the last"
    state = torch.load(path, weights_only=True)

    def plain(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest()
        if isinstance(value, dict):
            return {str(key): plain(item) for key, item in value.items() if key not in CLOCK}
        return [plain(item) for item in value] if isinstance(value, list | tuple) else value

    return json.dumps(plain({name: state[name] for name in ("model", "optimizer", "progress")}), sort_keys=True).encode()
