"""Fetching from a real server on this machine, cut and killed on the way; unpacking archives, damaged and malicious ones."""

import hashlib
import http.server
import io
import os
import random
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from commands import refusal, tree
from limits import largest_file
from waiting import wait_for

from asrprune.data import download
from asrprune.data.download import Archive, fetch, find, obtain, take
from asrprune.data.unpack import unpack

BODY = random.Random(1).randbytes(3_500_000)
SHA256 = hashlib.sha256(BODY).hexdigest()


@dataclass
class Site:
    """What the server does with its next requests, and what it was asked."""

    url: str = ""
    body: bytes = BODY
    knows_ranges: bool = True
    cuts: list[int] = field(default_factory=list)  # bytes after which the next replies break off
    length: str = ""  # what replies say of it, if not the truth
    statuses: list[int] = field(default_factory=list)  # errors that the next requests get
    hang: bool = False  # do not break off: stay silent
    drops: bytes = b""  # or send this again and again
    ranges: list[str | None] = field(default_factory=list)


def _handler(site: Site) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers["Range"]
            site.ranges.append(asked)
            if site.statuses:
                self.send_error(site.statuses.pop(0))
                return
            start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and site.knows_ranges else 0
            if start >= len(site.body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(site.body)}")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(site.body) - 1}/{len(site.body)}")
            self.send_header("Content-Length", site.length or str(len(site.body) - start))
            self.end_headers()
            rest = site.body[start:]
            self.wfile.write(rest[: site.cuts.pop(0)] if site.cuts else rest)
            while site.hang:
                time.sleep(0.02)
                self.wfile.write(site.drops)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(download, "_PAUSES_S", (0.0, 0.0, 0.0))
    site = Site()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(site)) as server:
        server.daemon_threads = True
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that hang up are the point here
        site.url = f"http://127.0.0.1:{server.server_address[1]}/corpus.tar.gz"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield site
        site.hang = False
        server.shutdown()
        thread.join()


def _names(directory: Path) -> list[str]:
    """What is there but the lock."""
    return sorted(path.name for path in directory.iterdir() if path.suffix != ".lock")


def test_downloads_once(site: Site, tmp_path: Path) -> None:
    target = tmp_path / "downloads" / "corpus.tar.gz"
    for _ in range(2):
        assert fetch(site.url, SHA256, target, target.parent) == target
    assert target.read_bytes() == BODY
    assert _names(target.parent) == ["corpus.tar.gz"]
    assert site.ranges == [None]


def test_goes_on_after_a_broken_connection(site: Site, tmp_path: Path) -> None:
    site.cuts = [1_200_000, 700_000]
    assert fetch(site.url, SHA256, tmp_path / "corpus.tar.gz", tmp_path).read_bytes() == BODY
    assert site.ranges == [None, "bytes=1200000-", "bytes=1900000-"]


def test_a_server_that_drips_does_not_hang_it(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_SLOWEST_S", 0.1)
    site.body, site.length, site.hang, site.drops = b"x", str(1 << 30), True, b"."
    said = refusal(lambda: fetch(site.url, None, tmp_path / "corpus.tar.gz", tmp_path))
    assert f"{site.url}: cannot be downloaded (it sends less than 1048576 bytes in 0.1 s); run this again to continue" in said


def test_a_length_that_is_no_number_is_not_believed(site: Site, tmp_path: Path) -> None:
    site.length = "many"
    assert fetch(site.url, SHA256, tmp_path / "corpus.tar.gz", tmp_path).read_bytes() == BODY


def test_goes_on_after_a_kill(site: Site, tmp_path: Path) -> None:
    target = tmp_path / "corpus.tar.gz"
    part = tmp_path / "corpus.tar.gz.part"
    site.cuts, site.hang = [2_500_000], True
    script = (
        "import sys, pathlib as p; from asrprune.data.download import fetch; fetch(*sys.argv[1:3], *map(p.Path, sys.argv[3:]))"
    )
    child = subprocess.Popen([sys.executable, "-c", script, site.url, SHA256, str(target), str(tmp_path)])
    try:
        wait_for(lambda: part.exists() and part.stat().st_size >= 2 << 20)
        assert "corpus.tar.gz: another process is using it" in refusal(lambda: fetch(site.url, SHA256, target, tmp_path))
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    site.hang = False
    assert _names(tmp_path) == ["corpus.tar.gz.part"]
    kept = part.stat().st_size
    assert kept >= 2 << 20
    assert fetch(site.url, SHA256, target, tmp_path).read_bytes() == BODY
    assert site.ranges == [None, f"bytes={kept}-"]


def test_killed_right_before_the_renaming(site: Site, tmp_path: Path) -> None:
    (tmp_path / "corpus.tar.gz.part").write_bytes(BODY)
    assert fetch(site.url, SHA256, tmp_path / "corpus.tar.gz", tmp_path).read_bytes() == BODY
    assert site.ranges == [f"bytes={len(BODY)}-"]


def test_the_file_became_shorter_at_its_source(site: Site, tmp_path: Path) -> None:
    (tmp_path / "corpus.tar.gz.part").write_bytes(BODY + b"more")
    assert fetch(site.url, SHA256, tmp_path / "corpus.tar.gz", tmp_path).read_bytes() == BODY
    assert site.ranges == [f"bytes={len(BODY) + 4}-", None]


def test_server_without_ranges_sends_all_again(site: Site, tmp_path: Path) -> None:
    site.knows_ranges, site.cuts = False, [1_200_000]
    assert fetch(site.url, SHA256, tmp_path / "corpus.tar.gz", tmp_path).read_bytes() == BODY


def test_wrong_checksum(site: Site, tmp_path: Path) -> None:
    said = refusal(lambda: fetch(site.url, "0" * 64, tmp_path / "corpus.tar.gz", tmp_path))
    assert site.url in said
    assert SHA256 in said
    assert "--download_dir" in said
    assert _names(tmp_path) == []


def test_no_checksum_known(site: Site, tmp_path: Path) -> None:
    assert fetch(site.url, None, tmp_path / "corpus.tar.gz", tmp_path).read_bytes() == BODY


def test_missing_at_the_server(site: Site, tmp_path: Path) -> None:
    (tmp_path / "corpus.tar.gz.part").write_bytes(BODY[:100])
    site.statuses = [404]
    said = refusal(lambda: fetch(site.url, SHA256, tmp_path / "corpus.tar.gz", tmp_path))
    assert f"{site.url}: the server answers 404" in said
    assert "--download_dir" in said
    assert len(site.ranges) == 1
    assert (tmp_path / "corpus.tar.gz.part").read_bytes() == BODY[:100], "what is there must survive"


def test_busy_server_is_asked_again(site: Site, tmp_path: Path) -> None:
    site.statuses = [503, 500]
    assert fetch(site.url, SHA256, tmp_path / "corpus.tar.gz", tmp_path).read_bytes() == BODY
    site.statuses = [503] * 9
    said = refusal(lambda: fetch(site.url, SHA256, tmp_path / "again.tar.gz", tmp_path))
    assert "503" in said
    assert len(site.statuses) == 5


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_PAUSES_S", (0.0,))
    url = "http://127.0.0.1:1/corpus.tar.gz"
    said = refusal(lambda: fetch(url, SHA256, tmp_path / "corpus.tar.gz", tmp_path))
    assert f"{url}: cannot be downloaded" in said
    assert "refused" in said
    assert "--download_dir" in said


def test_full_disk(site: Site, tmp_path: Path) -> None:
    with largest_file(1_000_000):
        said = refusal(lambda: fetch(site.url, SHA256, tmp_path / "corpus.tar.gz", tmp_path))
    assert "File too large" in said
    assert str(tmp_path) in said
    assert len(site.ranges) == 1, "a full disk is no reason to ask again"


def test_no_directory_can_be_made(site: Site, tmp_path: Path) -> None:
    (tmp_path / "downloads").write_text("a file")
    assert "downloads" in refusal(lambda: fetch(site.url, SHA256, tmp_path / "downloads" / "corpus.tar.gz", tmp_path))


def test_local_file_is_used_where_it_is(site: Site, tmp_path: Path) -> None:
    local, target = tmp_path / "local", tmp_path / "downloads" / "corpus.tar.gz"
    local.mkdir()
    (local / "corpus.tar.gz").write_bytes(BODY)
    before = (local / "corpus.tar.gz").stat()
    assert fetch(site.url, SHA256, target, local) == local / "corpus.tar.gz"
    after = (local / "corpus.tar.gz").stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)
    assert os.listdir(local) == ["corpus.tar.gz"]
    assert not target.parent.exists()
    assert site.ranges == []


def test_damaged_local_file_is_refused_and_kept(site: Site, tmp_path: Path) -> None:
    (tmp_path / "corpus.tar.gz").write_bytes(BODY[:-1])
    said = refusal(lambda: fetch(site.url, SHA256, tmp_path / "elsewhere" / "corpus.tar.gz", tmp_path))
    assert str(tmp_path / "corpus.tar.gz") in said
    assert site.url in said
    assert "download it again" in said
    assert (tmp_path / "corpus.tar.gz").exists()


def test_local_dir_without_the_file(site: Site, tmp_path: Path) -> None:
    local, target = tmp_path / "local", tmp_path / "downloads" / "corpus.tar.gz"
    assert "no such directory" in refusal(lambda: fetch(site.url, SHA256, target, local))
    local.mkdir()
    assert fetch(site.url, SHA256, target, local) == target
    assert os.listdir(local) == []
    fresh = tmp_path / "fresh" / "corpus.tar.gz"  # the default: the directory is the one that is downloaded to
    assert fetch(site.url, SHA256, fresh, fresh.parent) == fresh


# Archives

Member = tuple[str, bytes, bytes | str]  # name, type, content or link target


def _archive(path: Path, *members: Member, mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type, info.uid, info.gid, info.mode = kind, 4321, 4321, 0o7777
            data = content if isinstance(content, bytes) else b""
            info.linkname, info.size = (content, 0) if isinstance(content, str) else ("", len(data))
            tar.addfile(info, io.BytesIO(data))
    return path


FILE, DIRECTORY, SYMLINK, LINK = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
HARMLESS: list[Member] = [
    ("./c", DIRECTORY, b""),
    ("c/a/1.raw", FILE, b"one"),
    ("c/a/2.raw", FILE, b"two" * 90_000),
    ("c/b/1.raw", SYMLINK, "../a/1.raw"),
    ("c/b/all", SYMLINK, "../a"),
    ("c/b/2.raw", LINK, "c/a/2.raw"),
]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.usefixtures("each_python")
def test_unpack(mode: str, tmp_path: Path) -> None:
    archive = _archive(tmp_path / "corpus.tar", *HARMLESS, mode=mode)
    for _ in range(2):
        unpack(archive, tmp_path / "out")
        archive.unlink(missing_ok=True)  # the second time nothing is left to do
    assert (tmp_path / "out/c/a/2.raw").read_bytes() == b"two" * 90_000
    assert (tmp_path / "out/c/b/1.raw").read_bytes() == b"one"
    assert (tmp_path / "out/c/b/all/1.raw").read_bytes() == b"one"
    assert (tmp_path / "out/c/b/2.raw").read_bytes() == b"two" * 90_000
    assert _names(tmp_path) == ["out"]
    status = (tmp_path / "out/c/a/1.raw").stat()
    assert status.st_uid == os.getuid()
    assert status.st_mode & 0o7777 == 0o755


OUTSIDE: dict[str, list[Member]] = {
    "absolute": [("OUTSIDE/evil", FILE, b"x")],
    "up": [("c/../../evil", FILE, b"x")],
    "absolute link": [("c/link", SYMLINK, "/etc")],
    "link up": [("c/link", SYMLINK, "../../up")],
    "top link up": [("link", SYMLINK, "..")],
    "link up through a link": [("d/e/f", DIRECTORY, b""), ("c/g/x", SYMLINK, "../../d"), ("c/g/y", SYMLINK, "x/../..")],
    "file behind a link": [("d", DIRECTORY, b""), ("c", SYMLINK, "d"), ("c/file", FILE, b"x")],
    "file over a link": [("c", SYMLINK, "d"), ("c", FILE, b"x")],
    "hard link out": [("c/link", LINK, "../../etc/passwd")],
    "absolute hard link": [("c/link", LINK, "/etc/passwd")],
    "hard link to a link": [("c/a", SYMLINK, "b"), ("c/link", LINK, "c/a")],
    "character device": [("c/device", tarfile.CHRTYPE, b"")],
    "block device": [("c/device", tarfile.BLKTYPE, b"")],
    "fifo": [("c/fifo", tarfile.FIFOTYPE, b"")],
}


@pytest.mark.parametrize("case", OUTSIDE)
@pytest.mark.usefixtures("each_python")
def test_malicious_members_are_refused(case: str, tmp_path: Path) -> None:
    members = [(name.replace("OUTSIDE", str(tmp_path)), kind, content) for name, kind, content in OUTSIDE[case]]
    archive = _archive(tmp_path / "corpus.tar.gz", ("first", FILE, b"1"), *members)
    said = refusal(lambda: unpack(archive, tmp_path / "deep" / "out"))
    assert str(archive) in said
    assert "nothing was unpacked" in said
    assert _names(tmp_path / "deep") == []
    assert _names(tmp_path) == ["corpus.tar.gz", "deep"]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("share", [0.0, 0.0001, 0.5, 0.97])
def test_truncated_archive(mode: str, share: float, tmp_path: Path) -> None:
    noise = random.Random(2).randbytes(200_000)
    whole = _archive(tmp_path / "corpus.tar", ("c/a", FILE, noise), ("c/b", FILE, noise), mode=mode)
    whole.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
    said = refusal(lambda: unpack(whole, tmp_path / "out"))
    assert f"{whole}: is damaged" in said
    assert _names(tmp_path) == ["corpus.tar"]


def test_archive_cut_between_members(tmp_path: Path) -> None:
    """The end mark is missing: tarfile alone would take what is there for everything."""
    whole = _archive(tmp_path / "corpus.tar", ("c/a", FILE, b"x" * 1000), ("c/b", FILE, b"y" * 1000), mode="w")
    whole.write_bytes(whole.read_bytes()[: 512 + 1024])
    with tarfile.open(whole) as tar:
        assert tar.getnames() == ["c/a"]
    assert "is damaged" in refusal(lambda: unpack(whole, tmp_path / "out"))


def test_archive_with_a_broken_header(tmp_path: Path) -> None:
    whole = _archive(tmp_path / "corpus.tar", ("c/a", FILE, b"x" * 1000), ("c/b", FILE, b"y" * 1000), mode="w")
    content = bytearray(whole.read_bytes())
    content[512 + 1024 + 148] ^= 1  # its checksum
    whole.write_bytes(content)
    assert "is damaged" in refusal(lambda: unpack(whole, tmp_path / "out"))


def test_wrong_bytes_under_gzip(tmp_path: Path) -> None:
    """Only gzip's own checksum, behind the archive's end, shows this."""
    whole = _archive(tmp_path / "corpus.tar.gz", ("c/a", FILE, random.Random(3).randbytes(50_000)))
    content = bytearray(whole.read_bytes())
    content[-8] ^= 1
    whole.write_bytes(content)
    assert "is damaged" in refusal(lambda: unpack(whole, tmp_path / "out"))


def test_not_an_archive(tmp_path: Path) -> None:
    (tmp_path / "corpus.tar.gz").write_text("<html>Sorry</html>" * 100)
    assert "no tar archive" in refusal(lambda: unpack(tmp_path / "corpus.tar.gz", tmp_path / "out"))


def test_failure_while_unpacking(tmp_path: Path) -> None:
    archive = _archive(tmp_path / "corpus.tar.gz", ("c/a/1", FILE, b"x"), ("c/a", FILE, b"a directory is in its place"))
    assert ".tmp/c/a: Is a directory" in refusal(lambda: unpack(archive, tmp_path / "out"))
    assert _names(tmp_path) == ["corpus.tar.gz"]


def test_killed_while_unpacking(tmp_path: Path) -> None:
    members: list[Member] = [(f"c/{number}", FILE, b"x" * 10) for number in range(8_000)]
    archive = _archive(tmp_path / "corpus.tar", *members, mode="w")
    script = "import sys; from pathlib import Path; from asrprune.data.unpack import unpack; unpack(*map(Path, sys.argv[1:]))"
    child = subprocess.Popen([sys.executable, "-c", script, str(archive), str(tmp_path / "out")])
    wait_for(lambda: bool(list(tmp_path.glob(".out.*.tmp/c/50"))))
    child.send_signal(signal.SIGKILL)
    child.wait()
    (left,) = tmp_path.glob(".out.*.tmp")  # it was killed on the way
    assert not (tmp_path / "out").exists()
    (left / "rubbish").touch()
    small = _archive(tmp_path / "small.tar", *members[:10], mode="w")
    unpack(small, tmp_path / "out")
    assert _names(tmp_path) == ["corpus.tar", "out", "small.tar"]
    assert len(list((tmp_path / "out" / "c").iterdir())) == 10
    assert _names(tmp_path / "out") == ["c"]


# A corpus that is there already, whole or as a sample, or is fetched


@pytest.fixture
def corpus(site: Site, tmp_path: Path) -> Archive:
    """An archive on the server whose content is ``c`` with parts a and b; a recipe reads ``c/a``."""
    site.body = _archive(tmp_path / "made.tar.gz", *HARMLESS).read_bytes()
    (tmp_path / "made.tar.gz").unlink()
    return Archive(site.url, hashlib.sha256(site.body).hexdigest(), "c/a")


def test_a_corpus_is_fetched_and_unpacked_once(corpus: Archive, site: Site, tmp_path: Path) -> None:
    """The default of recipes: both directories are one."""
    for _ in range(2):
        found = obtain(corpus, tmp_path / "downloads", tmp_path / "downloads")
        assert found == tmp_path / "downloads/unpacked_corpus/c/a"
        assert (found / "1.raw").read_bytes() == b"one"
        assert find(corpus, tmp_path / "downloads", tmp_path / "downloads") == found
    assert site.ranges == [None]
    (tmp_path / "downloads/corpus.tar.gz").unlink()  # to make room
    assert obtain(corpus, tmp_path / "downloads", tmp_path / "elsewhere") == found


def test_a_corpus_named_as_its_archive(site: Site, tmp_path: Path) -> None:
    """What it is unpacked into must not pass for the corpus, which is one level below."""
    site.body = _archive(tmp_path / "made.tar.gz", ("corpus/1.raw", FILE, b"one")).read_bytes()
    for _ in range(2):
        found = obtain(Archive(site.url, None, "corpus"), tmp_path / "downloads", tmp_path / "downloads")
        assert (found / "1.raw").read_bytes() == b"one"


@pytest.mark.parametrize("given", ["", "c"])
def test_an_unpacked_corpus_is_used_where_it_is(given: str, corpus: Archive, site: Site, tmp_path: Path) -> None:
    (tmp_path / "local/c/a").mkdir(parents=True)
    before = tree(tmp_path)
    for way in (find, obtain, take):
        assert way(corpus, tmp_path / "work", tmp_path / "local" / given) == tmp_path / "local/c/a"
    assert tree(tmp_path) == before
    assert site.ranges == []


def test_an_archive_of_the_users_is_only_read(corpus: Archive, site: Site, tmp_path: Path) -> None:
    (tmp_path / "local").mkdir()
    (tmp_path / "local/corpus.tar.gz").write_bytes(site.body)
    before = tree(tmp_path / "local")
    assert find(corpus, tmp_path / "work", tmp_path / "local") is None
    assert obtain(corpus, tmp_path / "work", tmp_path / "local") == tmp_path / "work/unpacked_corpus/c/a"
    assert tree(tmp_path / "local") == before
    assert _names(tmp_path / "work") == ["unpacked_corpus"]
    assert site.ranges == []


def test_a_sample_under_the_archives_name_is_taken_only_as_one(corpus: Archive, site: Site, tmp_path: Path) -> None:
    (tmp_path / "local").mkdir()
    _archive(tmp_path / "local/corpus.tar.gz", ("c/a/1.raw", FILE, b"another one"))
    assert "SHA-256" in refusal(lambda: obtain(corpus, tmp_path / "work", tmp_path / "local"))
    found = take(corpus, tmp_path / "work", tmp_path / "local")
    assert found is not None
    assert (found / "1.raw").read_bytes() == b"another one"
    assert site.ranges == []


def test_nothing_to_take(corpus: Archive, site: Site, tmp_path: Path) -> None:
    assert take(corpus, tmp_path / "work", tmp_path / "local") is None
    assert site.ranges == []
    assert list(tmp_path.iterdir()) == []


def test_an_archive_of_something_else(corpus: Archive, tmp_path: Path) -> None:
    _archive(tmp_path / "corpus.tar.gz", ("d/a/1.raw", FILE, b"x"))
    said = refusal(lambda: take(corpus, tmp_path / "work", tmp_path))
    assert f"{tmp_path / 'corpus.tar.gz'}: does not contain c/a" in said
    assert corpus.url in said
