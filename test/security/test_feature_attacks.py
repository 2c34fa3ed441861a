"""Feature archives and CMVN files of a stranger: they are read as numbers or refused in a sentence, and never run."""

import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from attacks import Canary
from commands import asrprune, refused

from asrprune.data.tables import read_table, write_table
from asrprune.features.ark import read_matrix, read_plain_matrix, write_matrix
from asrprune.features.audio import read_audio
from asrprune.features.cmvn import read_cmvn
from asrprune.runtime.errors import UserError


def _npy_of_objects(canary: Canary) -> bytes:
    import io

    buffer = io.BytesIO()
    np.save(buffer, np.array([canary], dtype=object), allow_pickle=True)
    return b"NPY" + bytes([4]) + len(buffer.getvalue()).to_bytes(4, "little") + buffer.getvalue()


def _header(kind: bytes, rows: int, cols: int, marks: tuple[int, int] = (4, 4)) -> bytes:
    return b"\0B" + kind + b" " + struct.pack("<bibi", marks[0], rows, marks[1], cols)


def _compressed(kind: bytes, rows: int, cols: int) -> bytes:
    return b"\0B" + kind + b" " + struct.pack("<ffii", 0.0, 1.0, rows, cols)


HUGE = 2**31 - 1
CONTENTS: dict[str, Callable[[Canary], bytes]] = {
    "pickle": lambda canary: b"PKL" + pickle.dumps(canary),
    "bare pickle": pickle.dumps,
    "numpy objects": _npy_of_objects,
    "audio": lambda _: b"AUDIO" + bytes(100),
    "wav": lambda _: b"RIFF" + bytes(100),
    "text": lambda _: b" [\n 1 2\n 3 4 ]\n",
    "endless text": lambda _: b" [ " + b"1 " * 100_000,
    "vector": lambda _: b"\0BFV " + struct.pack("<bi", 4, 2) + bytes(8),
    "integers": lambda _: b"\0B\4" + struct.pack("<i", HUGE) + bytes(100),
    "unknown kind": lambda _: _header(b"XM", 2, 2) + bytes(32),
    "spliced kind": lambda _: _header(b"FMPKL", 2, 2) + bytes(32),
    "rows that are not there": lambda _: _header(b"FM", HUGE, 80) + bytes(320),
    "columns that are not there": lambda _: _header(b"DM", 2, HUGE) + bytes(320),
    "both": lambda _: _header(b"FM", HUGE, HUGE) + bytes(320),
    "negative rows": lambda _: _header(b"FM", -1, 80) + bytes(320),
    "negative both": lambda _: _header(b"FM", -2, -2) + bytes(320),
    "rows of no columns": lambda _: _header(b"FM", HUGE, 0),
    "columns of no rows": lambda _: _header(b"FM", 0, HUGE),
    "other sizes of integers": lambda _: _header(b"FM", 2, 2, marks=(8, 8)) + bytes(32),
    "compressed rows that are not there": lambda _: _compressed(b"CM", HUGE, 80) + bytes(1000),
    "compressed columns that are not there": lambda _: _compressed(b"CM", 2, HUGE) + bytes(1000),
    "compressed negative columns": lambda _: _compressed(b"CM", 100, -2) + bytes(1000),
    "compressed 16 bits": lambda _: _compressed(b"CM2", HUGE, 2) + bytes(1000),
    "compressed 8 bits": lambda _: _compressed(b"CM3", 2, HUGE) + bytes(1000),
    "half a header": lambda _: _header(b"FM", 2, 2)[:9],
    "nothing": lambda _: b"",
}


@pytest.mark.parametrize("content", CONTENTS)
def test_only_binary_matrices_are_read(content: str, tmp_path: Path, canary: Canary) -> None:
    path = tmp_path / "evil"
    path.write_bytes(b"id " + CONTENTS[content](canary))
    with pytest.raises(UserError, match="cannot read the feature matrix"):
        read_matrix(f"{path}:3")
    path.write_bytes(CONTENTS[content](canary))
    with pytest.raises(UserError, match="cannot read the matrix"):
        read_cmvn(path)
    assert canary.is_alive()


@pytest.mark.parametrize(
    "entry",
    [
        "|touch CANARY; echo :5",
        "touch CANARY |:5",
        "touch CANARY |",
        " | touch CANARY:5",
        "EVIL:99999999999999999999",
        "EVIL:-5",
        "EVIL:9223372036854775807",
        "EVIL:٣",
        "EVIL:3[touch CANARY]",
        "/dev/zero:0",
        "/dev/stdin:0",
        "FOLDER:0",
        "PIPE:0",
        "E\0VIL:3",
        "/proc/self/mem:1",
        "x" * 5000 + ":3",
    ],
)
def test_only_offsets_of_plain_files_are_entries(entry: str, tmp_path: Path, canary: Canary) -> None:
    write_matrix(tmp_path / "EVIL", np.zeros((2, 3), dtype=np.float32))
    os.mkfifo(tmp_path / "PIPE")
    (tmp_path / "FOLDER").mkdir()
    for name in ("EVIL", "PIPE", "FOLDER"):
        entry = entry.replace(name, str(tmp_path / name))
    with pytest.raises(UserError) as caught:
        read_matrix(entry.replace("CANARY", str(canary.path)))
    assert "\n" not in str(caught.value)
    assert canary.is_alive()


def test_holes_are_not_read_into_memory(tmp_path: Path) -> None:
    """A file without content takes no room on a disk, but 8 TB in memory."""
    for name, head in {
        "matrix": _header(b"FM", HUGE, 1 << 10),
        "audio": b"AUDIO\x08" + struct.pack("<Q", 1 << 42),
        "wav": b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x80\x3e\0\0\0\x7d\0\0\2\0\x10\0data\2\0\0\0\0\0",
    }.items():
        (tmp_path / name).write_bytes(head)
        os.truncate(tmp_path / name, 1 << 43)
    with pytest.raises(UserError, match=r"has 2147483647 x 1024 numbers, which may not fit into memory"):
        read_matrix(f"{tmp_path / 'matrix'}:0")
    with pytest.raises(UserError, match=r"audio:0: has 4398047 MB, more than may fit into memory"):
        read_audio(f"{tmp_path / 'audio'}:0", 16000)
    with pytest.raises(UserError, match=r"its header gives 46 bytes, but the file has 8796093022208"):
        read_audio(str(tmp_path / "wav"), 16000)


@pytest.mark.parametrize(
    "stats", [np.zeros((2, 4)), np.full((2, 4), np.nan), np.ones((3, 4)), np.ones((2, 1)), -np.ones((2, 4))]
)
def test_statistics_that_are_none(stats: np.ndarray, tmp_path: Path) -> None:
    write_matrix(tmp_path / "cmvn", stats)
    with pytest.raises(UserError, match="not CMVN statistics of at least one frame"):
        read_cmvn(tmp_path / "cmvn")


def test_a_pipe_in_the_place_of_statistics(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "cmvn")
    with pytest.raises(UserError, match="only plain files"):
        read_plain_matrix(tmp_path / "cmvn")


@pytest.mark.parametrize("command", ["decode", "svcca", "train", "fbank"])
def test_no_command_runs_a_pickle(
    command: str, tiny_data: Path, tiny_experiment: Path, tiny_config_file: Path, canary: Canary, copy: Callable[[Path], Path]
) -> None:
    data, exp = copy(tiny_data), copy(tiny_experiment)
    evil = exp.parent / "evil.ark"
    evil.write_bytes(b"id PKL" + pickle.dumps(canary))
    entries = read_table(data / "dev" / "feats.scp")
    write_table(data / "dev" / "feats.scp", dict.fromkeys(entries, f"{evil}:3"))
    (data / "cmvn").write_bytes(b"PKL" + pickle.dumps(canary))
    numbers = ["--config", tiny_config_file]
    run = {
        "decode": ["--exp", exp, data / "dev", "--strategy", "lowest", "--depth", 4],
        "svcca": ["--exp", exp, "--data", data / "dev"],
        "train": [*numbers, "--exp", exp.parent / "new", "--train", data / "train", "--dev", data / "dev", "--bpe",
                  data / "lang" / "bpe.model", "--cmvn", data / "cmvn"],
        "fbank": [data / "dev", *numbers, "--cmvn", data / "new"],
    }  # fmt: skip
    if command == "decode":
        assert asrprune("search", "--exp", exp, "--dev", tiny_data / "dev", "--strategy", "lowest").code == 0
    if command == "fbank":  # our own archives, replaced
        assert asrprune("fbank", data / "dev", *numbers).code == 0
        for name in ("*.cmvn", "*.ark"):
            for path in (data / "dev" / "fbank").glob(name):
                path.write_bytes(b"PKL" + pickle.dumps(canary))
    done = asrprune(command, *run[command])
    if command == "fbank":  # archives that are not what it wrote are made again
        assert done.code == 0, done.err
    else:
        refused(done, command, "no binary Kaldi matrix")
    assert canary.is_alive()


def test_commands_in_feats_scp_are_not_run(
    tiny_data: Path, tiny_experiment: Path, canary: Canary, copy: Callable[[Path], Path]
) -> None:
    data = copy(tiny_data)
    entries = read_table(data / "dev" / "feats.scp")
    write_table(data / "dev" / "feats.scp", dict.fromkeys(entries, f"|touch {canary.path}; echo :5"))
    refused(asrprune("svcca", "--exp", copy(tiny_experiment), "--data", data / "dev"), "svcca", "pipes are not run")
    assert canary.is_alive()


def test_features_longer_than_said(tiny_data: Path, tiny_experiment: Path, copy: Callable[[Path], Path]) -> None:
    """Batches are made by what utt2num_frames says, so that memory does."""
    data = copy(tiny_data)
    key = next(iter(read_table(data / "dev" / "feats.scp")))
    write_matrix(data / "long", np.zeros((5_000, 80), dtype=np.float32))
    write_table(data / "dev" / "feats.scp", read_table(data / "dev" / "feats.scp") | {key: f"{data / 'long'}:0"})
    done = asrprune("svcca", "--exp", copy(tiny_experiment), "--data", data / "dev")
    refused(done, "svcca", key, "its features have 5000")


@pytest.mark.parametrize("count", ["9" * 5000, "9" * 20, "²", "٣", "-1", "1e3"])
def test_counts_of_frames_that_are_none(
    count: str, tiny_data: Path, tiny_experiment: Path, copy: Callable[[Path], Path]
) -> None:
    data = copy(tiny_data)
    frames = read_table(data / "dev" / "utt2num_frames")
    write_table(data / "dev" / "utt2num_frames", dict.fromkeys(frames, count))
    refused(asrprune("svcca", "--exp", copy(tiny_experiment), "--data", data / "dev"), "svcca", "is not a whole number")
