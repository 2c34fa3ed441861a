"""Files are whole or absent, whatever happens while they are written; directories are held by one process at a time."""

import errno
import fcntl
import hashlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from limits import largest_file

from asrprune.runtime.errors import UserError
from asrprune.runtime.files import (
    atomic_directory,
    atomic_path,
    held,
    read_json,
    remove_temporaries,
    sha256_of,
    temporary_directory,
    write_json,
    write_text,
)


def no_locks(*_: object) -> None:
    raise OSError(errno.ENOSYS, "Function not implemented")


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.txt"
    with atomic_path(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.suffix == ".txt"
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert names(path.parent) == ["c.txt"]


def test_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "c.txt"
    write_text(path, "old")

    def fail_half_way() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["c.txt"]


def test_content_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Renaming first could leave an empty file after a loss of power."""
    events, replace = [], os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: events.append(("fsync", os.fstat(fd).st_size)))
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append(("rename", b)), replace(a, b)))
    write_text(tmp_path / "c.txt", "12345")
    assert events == [("fsync", 5), ("rename", tmp_path / "c.txt")]


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    with atomic_path(tmp_path / "ours") as temporary:
        temporary.touch(mode=0o600)
    assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_killed_writer_leaves_what_the_next_one_removes(tmp_path: Path) -> None:
    write_text(tmp_path / "model.pt", "old")
    write_text(tmp_path / ".hidden", "kept")
    steps = ("import os, pathlib, asrprune.runtime.files as f", "c = f.atomic_path(pathlib.Path('model.pt'))")
    code = "; ".join((*steps, "c.__enter__().write_text('half')", "os.kill(os.getpid(), 9)"))
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False)
    assert len(names(tmp_path)) == 3
    remove_temporaries(tmp_path)
    assert names(tmp_path) == [".hidden", "model.pt"]
    assert (tmp_path / "model.pt").read_text() == "old"
    remove_temporaries(tmp_path / "absent")


def test_a_temporary_directory_goes_and_takes_those_of_killed_processes_of_its_name_along(tmp_path: Path) -> None:
    for name in (".jobs.12345678.tmp", ".other.12345678.tmp", "jobs"):
        (tmp_path / name).mkdir()
    with temporary_directory(tmp_path, "jobs") as made, temporary_directory(tmp_path, "jobs") as second:
        assert len(names(tmp_path)) == 4
        assert stat.S_IMODE(made.stat().st_mode) == 0o700
        (second / "file").touch()
    assert names(tmp_path) == [".other.12345678.tmp", "jobs"]


@pytest.mark.usefixtures("handlers")
def test_a_signal_while_the_file_is_made_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = tempfile.mkstemp
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def make_and_interrupt(*arguments: Any) -> tuple[int, str]:
        made = make(*arguments)
        signal.raise_signal(signal.SIGINT)
        return made

    monkeypatch.setattr(tempfile, "mkstemp", make_and_interrupt)
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / "file"):
        raise AssertionError("the block has begun")
    assert list(tmp_path.iterdir()) == []


def test_what_another_process_is_writing_is_left_alone(tmp_path: Path) -> None:
    code = "import pathlib, asrprune.runtime.files as f; c = f.atomic_path(pathlib.Path('model.pt'))"
    code += "; print(c.__enter__().name, flush=True); input()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        name = writer.stdout.readline().strip()
        remove_temporaries(tmp_path)
        assert names(tmp_path) == [name]
        writer.kill()
    remove_temporaries(tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize("moment", ["mkstemp", "flock"])
def test_a_temporary_that_another_process_deletes_before_it_is_locked(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks left over until it is locked: another one is made."""
    module, deleted = (tempfile if moment == "mkstemp" else fcntl), []
    real = getattr(module, moment)

    def with_another_process(*arguments: object) -> object:
        result = real(*arguments) if moment == "mkstemp" else None
        if not deleted:
            deleted.extend(tmp_path.iterdir())
            for path in deleted:
                path.unlink()
        return result if moment == "mkstemp" else real(*arguments)

    monkeypatch.setattr(module, moment, with_another_process)
    with atomic_path(tmp_path / "c.txt") as temporary:
        temporary.write_text("new")
    assert len(deleted) == 1
    assert names(tmp_path) == ["c.txt"]
    assert (tmp_path / "c.txt").read_text() == "new"


def test_without_locks_age_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", no_locks)
    for name, age_s in ((".a.abcd1234.tmp", 7200), (".b.abcd1234.tmp", 0)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - age_s,) * 2)
    write_text(tmp_path / "c", "")
    assert names(tmp_path) == [".b.abcd1234.tmp", "c"]


def test_a_directory_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new"
    with atomic_directory(path) as temporary:
        (temporary / "file").touch()
        assert not path.exists()
    assert names(path) == ["file"]
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(_made(tmp_path / "plain").stat().st_mode)


def test_failure_leaves_no_directory(tmp_path: Path) -> None:
    def fail_half_way() -> None:
        with atomic_directory(tmp_path / "new") as temporary:
            (temporary / "file").touch()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert names(tmp_path) == []


def _made(path: Path) -> Path:
    path.mkdir()
    return path


def test_text_is_utf8_with_unix_line_ends(tmp_path: Path) -> None:
    write_text(tmp_path / "t", "né\n▁x\n")
    assert (tmp_path / "t").read_bytes() == "né\n▁x\n".encode()


def test_json_comes_back(tmp_path: Path) -> None:
    value = {"a": [1, 2.5, None], "b": "né"}
    write_json(tmp_path / "v.json", value)
    assert read_json(tmp_path / "v.json") == value
    assert (tmp_path / "v.json").read_text(encoding="utf-8").startswith('{\n  "a": [')


def test_missing_or_broken_json_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"v\.json: no such file; `asrprune average` makes it"):
        read_json(tmp_path / "v.json", "`asrprune average`")
    for content in (b'{"a": ', b"\xff\xfe"):
        (tmp_path / "v.json").write_bytes(content)
        with pytest.raises(UserError, match=r"v\.json: not valid JSON .*; `asrprune average` makes it"):
            read_json(tmp_path / "v.json", "`asrprune average`")


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 7])
def test_hash_is_sha256(tmp_path: Path, size: int) -> None:
    content = bytes(i % 251 for i in range(256)) * (size // 256 + 1)
    (tmp_path / "f").write_bytes(content[:size])
    assert sha256_of(tmp_path / "f") == hashlib.sha256(content[:size]).hexdigest()


def test_file_system_without_locks_is_used_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fcntl, "lockf", no_locks)
    with held(tmp_path / "new"):
        assert (tmp_path / "new").is_dir()
    assert "this file system has no locks (Function not implemented)" in caplog.text


def test_a_full_disk_names_the_file_that_does_not_fit(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(bytes(100_000))
    for work in (
        lambda temporary: temporary.write_bytes(bytes(100_000)),
        lambda temporary: shutil.copyfile(tmp_path / "source", temporary),
    ):
        full = pytest.raises(OSError, match="File too large")
        with largest_file(20_000), full as caught, atomic_path(tmp_path / "made") as temporary:
            work(temporary)
        assert caught.value.filename == str(tmp_path / "made")
    elsewhere = OSError(errno.ENOSPC, "No space left on device", "/other/file")
    with pytest.raises(OSError, match="No space") as caught, atomic_path(tmp_path / "made"):
        raise elsewhere
    assert caught.value.filename == "/other/file"
