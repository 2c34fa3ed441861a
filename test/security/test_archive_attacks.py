"""Archives of a stranger: headers that lie, point in circles or name places outside, and ones made to fill disk or memory."""

import gzip
import io
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from attacks import Canary

from asrprune.data.unpack import unpack
from asrprune.runtime.errors import UserError

BLOCK = 512
END = bytes(2 * BLOCK)


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, size: int | None = None, **records: str) -> bytes:
    """A member as it stands in an archive; its header may claim another ``size``."""
    info = tarfile.TarInfo(name)
    info.type, info.size, info.pax_headers = kind, len(content), records
    head = bytearray(info.tobuf(tarfile.PAX_FORMAT if records else tarfile.GNU_FORMAT))
    if size is not None:
        sign = b"\x80" if size >= 0 else b"\xff"
        head[-BLOCK + 124 : -BLOCK + 136] = sign + size.to_bytes(11, "big", signed=True)
        head[-BLOCK + 148 : -BLOCK + 156] = b" " * 8
        head[-BLOCK + 148 : -BLOCK + 156] = b"%06o\0 " % sum(head[-BLOCK:])
    return bytes(head) + content + bytes(-len(content) % BLOCK)


def pax(record: bytes) -> bytes:
    """A header with a record for the member after it."""
    length = next(n for n in range(len(record), len(record) + 9) if n == len(f"{n} ") + len(record) + 1)
    return member("pax", b"%d %s\n" % (length, record), tarfile.XHDTYPE)


def old_sparse(size: int) -> bytes:
    """A member of one byte that is said to be much longer, as old GNU tars write it."""
    head = bytearray(member("c/sparse", kind=tarfile.GNUTYPE_SPARSE))
    head[386:410] = b"%011o\0%011o\0" % (size - 1, 1)
    head[483:495] = b"%011o\0" % size
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + bytes(BLOCK)


FIRST = member("c/first", b"x" * 1000)
LOOKS_WRONG: dict[str, Callable[[], bytes]] = {
    "points at itself": lambda: FIRST + member("c/a", size=-BLOCK),
    "points at the first": lambda: FIRST + member("c/a", size=-4 * BLOCK),
    "points before the first": lambda: member("c/a", size=-9 * BLOCK),
    "pax size that points at itself": lambda: FIRST + pax(b"size=-1024") + member("c/a"),
    "claims 8 GB": lambda: FIRST + member("c/a", size=8 << 30),
    "claims 2^62 bytes": lambda: FIRST + member("c/a", size=1 << 62),
    "long name of 8 GB": lambda: FIRST + member("././@LongLink", kind=tarfile.GNUTYPE_LONGNAME, size=8 << 30),
    "long name of minus 1": lambda: FIRST + member("././@LongLink", kind=tarfile.GNUTYPE_LONGNAME, size=-1),
    "pax header of 8 GB": lambda: FIRST + member("pax", kind=tarfile.XHDTYPE, size=8 << 30),
    "pax header of minus 1": lambda: FIRST + member("pax", kind=tarfile.XHDTYPE, size=-1),
    "pax headers without end": lambda: member("pax", b"12 a=bcdefg\n", tarfile.XHDTYPE) * 20_000 + FIRST,
    "global headers without end": lambda: member("pax", b"12 a=bcdefg\n", tarfile.XGLTYPE) * 20_000 + FIRST,
    "long names without end": lambda: member("././@LongLink", b"c/a\0", tarfile.GNUTYPE_LONGNAME) * 20_000 + FIRST,
    "pax record of 5,000 digits": lambda: member("pax", b"9" * 5000 + b" a=b\n", tarfile.XHDTYPE) + FIRST,
    "pax record of length 0": lambda: member("pax", b"0 a=b\n", tarfile.XHDTYPE) + FIRST,
    "a million empty files": lambda: member("c/a") * 3_000,
    "file of zeros": lambda: member("c/a", bytes(8 << 20)),
    "zeros after the end": lambda: FIRST + END + bytes(8 << 20),
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sync", lambda: None)


def said(archive: Path, target: Path) -> str:
    """Why it is refused; nothing if it is not."""
    try:
        unpack(archive, target)
    except UserError as error:
        return str(error)
    return ""


def refusal(archive: Path, target: Path) -> str:
    sentence = said(archive, target)
    assert sentence
    assert "\n" not in sentence
    assert [path for path in target.parent.iterdir() if path.suffix != ".lock"] == []
    return sentence


@pytest.mark.parametrize("attack", LOOKS_WRONG)
def test_headers_are_not_believed(attack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asrprune.data.unpack._ALWAYS_ALLOWED", 1 << 20)
    archive = tmp_path / "c.tar.gz"
    archive.write_bytes(gzip.compress(LOOKS_WRONG[attack]() + END))
    assert f"{archive}: is damaged" in refusal(archive, tmp_path / "new" / "out")


@pytest.mark.parametrize("attack", ["points at itself", "claims 8 GB", "long name of 8 GB", "pax header of minus 1"])
def test_nor_in_a_plain_archive(attack: str, tmp_path: Path) -> None:
    archive = tmp_path / "c.tar"
    archive.write_bytes(LOOKS_WRONG[attack]() + END)
    assert f"{archive}: is damaged" in refusal(archive, tmp_path / "new" / "out")


NOT_ALLOWED: dict[str, Callable[[str], bytes]] = {
    "sparse": lambda path: old_sparse(4 << 20),
    "sparse by pax": lambda path: pax(b"GNU.sparse.map=0,1") + member("c/a", b"x"),
    "up by pax": lambda path: member("c/a", b"x", path="c/../../canary"),
    "absolute by pax": lambda path: member("c/a", b"x", path=path),
    "link target by pax": lambda path: member("c/a", kind=tarfile.SYMTYPE, linkpath="../../home/canary"),
    "hard link target by pax": lambda path: member("c/a", kind=tarfile.LNKTYPE, linkpath=path),
    "up by a long name": lambda path: member("long", b"c/../../canary\0", tarfile.GNUTYPE_LONGNAME) + member("c/a"),
    "unknown kind, a path up": lambda path: member("../canary", b"x", kind=b"Z"),
    "contiguous file up": lambda path: member("../canary", b"x", kind=tarfile.CONTTYPE),
    "directory up": lambda path: member("c/..", kind=tarfile.DIRTYPE),
    "link onto a directory": lambda path: member("c", kind=tarfile.DIRTYPE) + member("c", kind=tarfile.SYMTYPE, linkpath=".."),
}  # fmt: skip


@pytest.mark.parametrize("attack", NOT_ALLOWED)
@pytest.mark.usefixtures("each_python")
def test_nothing_is_written_outside(attack: str, tmp_path: Path, canary: Canary) -> None:
    archive = tmp_path / "c.tar"
    archive.write_bytes(FIRST + NOT_ALLOWED[attack](str(canary.path)) + END)
    refusal(archive, tmp_path / "new" / "out")
    assert canary.is_alive()


ODD = {
    "NUL in a name": member("c/a", b"x", path="c/b\0c"),
    "name of 5,000 letters": member("c/a", b"x", path="c/" + "b" * 5000),
    "modified at no time": member("c/a", b"x", mtime="nan"),
    "modified in a far future": member("c/a", b"x", mtime="9" * 400),
    "5,000 digits of size": pax(b"size=" + b"9" * 5000) + member("c/a", b"x"),
    "a file as its own directory": member("c", b"x") + member("c/a", b"x"),
    "no name": member("", b"x"),
    "nameless link": member("", kind=tarfile.SYMTYPE, linkpath=".."),
}


@pytest.mark.parametrize("attack", ODD)
@pytest.mark.usefixtures("each_python")
def test_odd_members_end_in_a_sentence_or_well(attack: str, tmp_path: Path, canary: Canary) -> None:
    archive = tmp_path / "c.tar"
    archive.write_bytes(ODD[attack] + END)
    (tmp_path / "new").mkdir()
    assert "\n" not in said(archive, tmp_path / "new" / "out")
    assert {path.name for path in (tmp_path / "new").iterdir() if path.suffix != ".lock"} <= {"out"}
    assert canary.is_alive()


def test_what_does_not_fit_on_the_disk_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "c.tar"
    archive.write_bytes(FIRST + END)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))
    assert "make room" in refusal(archive, tmp_path / "new" / "out")


@pytest.mark.parametrize("seed", range(2))
def test_bits_flipped_at_random(seed: int, tmp_path: Path, canary: Canary) -> None:
    """150 archives with wrong bytes in their headers: all end in a sentence or well."""
    draw, buffer = random.Random(seed), io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for number, kind in enumerate((tarfile.DIRTYPE, tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.REGTYPE)):
            info = tarfile.TarInfo(f"é{number}")
            info.type, info.linkname = kind, "é1"
            tar.addfile(info)
    whole = buffer.getvalue()[: buffer.tell()]
    for number in range(75):
        content = bytearray(whole)
        for _ in range(draw.randint(1, 3)):
            at = draw.randrange(len(content) - len(END))
            content[at] = draw.randrange(256)
            head = at - at % BLOCK
            content[head + 148 : head + 156] = b" " * 8  # the checksum is made to fit
            content[head + 148 : head + 156] = b"%06o\0 " % sum(content[head : head + BLOCK])
        archive = tmp_path / f"{number}.tar"
        archive.write_bytes(content)
        assert "\n" not in said(archive, tmp_path / "new" / str(number))
    assert canary.is_alive()
