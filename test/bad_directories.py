"""Data directories with one fault each: every table damaged in every way, and wrong values."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

TABLES = {  # a valid directory, with all that Kaldi knows
    "utt2spk": "al-1 al\nal-2 al\nbo-1 bo\n",
    "spk2utt": "al al-1 al-2\nbo bo-1\n",
    "wav.scp": "al-1 a1.wav\nal-2 a2.wav\nbo-1 b1.wav\n",
    "text": "al-1 go left\nal-2 stop now\nbo-1 turn back\n",
    "feats.scp": "al-1 f.ark:5\nal-2 f.ark:99\nbo-1 f.ark:999\n",
    "utt2num_frames": "al-1 100\nal-2 200\nbo-1 300\n",
    "utt2dur": "al-1 1.0\nal-2 2.0\nbo-1 3.0\n",
    "utt2lang": "al-1 en\nal-2 en\nbo-1 fr\n",
    "utt2uniq": "al-1 al-1\nal-2 al-1\nbo-1 bo-1\n",
    "utt2warp": "al-1 1.0\nal-2 0.9\nbo-1 1.1\n",
    "vad.scp": "al-1 v.ark:5\nal-2 v.ark:9\nbo-1 v.ark:99\n",
    "spk2gender": "al m\nbo f\n",
    "spk2warp": "al 1.0\nbo 0.9\n",
    "cmvn.scp": "al c.ark:5\nbo c.ark:9\n",
    "reco2dur": "al-1 1.0\nal-2 2.0\nbo-1 3.0\n",
    "reco2file_and_channel": "al-1 a1 A\nal-2 a2 A\nbo-1 b1 B\n",
}
WITH_SEGMENTS = TABLES | {
    "wav.scp": "ra a.wav\nrb b.wav\n",
    "segments": "al-1 ra 0.0 1.0\nal-2 ra 1.0 3.0\nbo-1 rb 0.5 3.5\n",
    "reco2dur": "ra 3.0\nrb 4.0\n",
    "reco2file_and_channel": "ra a A\nrb b A\n",
}
NEEDED = ("utt2spk", "spk2utt", "wav.scp", "text")


@dataclass(frozen=True)
class Bad:
    """A directory with one fault: its files, of which one is damaged."""

    name: str
    file: str
    tables: dict[str, str]  # lone surrogates stand for bytes that are not UTF-8

    def write(self, path: Path) -> Path:
        return lay(path, self.tables)


def lay(path: Path, files: dict[str, str]) -> Path:
    """Write a directory of these files."""
    path.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (path / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    return path


def _first(change: Callable[[str], str]) -> Callable[[str], str]:
    """Change the first line of a table."""

    def damage(table: str) -> str:
        line, rest = table.split("\n", 1)
        return f"{change(line)}\n{rest}"

    return damage


def _lines(change: Callable[[list[str]], list[str]]) -> Callable[[str], str]:
    return lambda table: "".join(f"{line}\n" for line in change(table.splitlines()))


def _like_the_first(line: str, key: str) -> str:
    return f"{key} {line.split(' ', 1)[1]}"


DAMAGE: dict[str, Callable[[str], str]] = {
    "is empty": lambda table: "",
    "lacks a line": _lines(lambda lines: lines[:-1]),
    "lacks the first line": _lines(lambda lines: lines[1:]),
    "has a line twice": _lines(lambda lines: [lines[0], *lines]),
    "has an id twice": _lines(lambda lines: [lines[0], _like_the_first(lines[1], lines[0].split()[0]), *lines[1:]]),
    "has another id": _lines(lambda lines: [*lines, _like_the_first(lines[-1], "zz-9")]),
    "is not sorted": _lines(lambda lines: lines[::-1]),
    "is Latin-1": _first(lambda line: line + "\udce9"),
    "has a tab for a blank": _first(lambda line: line.replace(" ", "\t", 1)),
    "has two blanks": _first(lambda line: line.replace(" ", "  ", 1)),
    "has a blank at the end of a line": _first(lambda line: line + " "),
    "has a blank before a line": _first(lambda line: " " + line),
    "has carriage returns": lambda table: table.replace("\n", "\r\n"),
    "has a byte order mark": lambda table: "\ufeff" + table,
    "has a no-break space": _first(lambda line: line.replace(" ", "\u00a0")),
    "has a NUL": _first(lambda line: line + "\0"),
    "has an empty line": _first(lambda line: line + "\n"),
    "ends without a line feed": lambda table: table[:-1],
    "has an id without a value": _first(lambda line: line.split()[0]),
    "has one field more": _first(lambda line: line + " 7"),
}
VALUES = {  # file: values that are put into the first line
    "text": ("<s> go", "go </s>", "go #0", "go #0.5", "go a#0", "go x<s>", "go <s>x", "go \u200b left", "go \u2581left"),
    "wav.scp": ("~/a1.wav", "a 1.wav", "a1.wav |"),
    "utt2dur": ("0", "-1", "x", "nan", "inf", "1e-3", "1,5"),
    "reco2dur": ("0", "-1", "x"),
    "utt2num_frames": ("0", "-5", "1.5", "1e3", "x", "99999999999"),
    "utt2speed": ("0", "-1", "x", "1e-9", "1000"),
    "utt2warp": ("0.5", "1.6", "x"),
    "spk2warp": ("0.5", "1.6", "x"),
    "spk2gender": ("M", "male", "x"),
    "reco2file_and_channel": ("a1 1", "a1 C", "a1"),
    "utt2spk": ("al x", "bo", "zz"),
    "spk2utt": ("al-2 al-1", "al-1", "al-1 al-1 al-2", "al-1 al-2 bo-1"),
}
SEGMENTS = (
    "ra -0.5 1.0",
    "ra 1.0 0.5",
    "ra 1.0 1.0",
    "ra 1.0 1.004",
    "ra 0 -1",
    "ra 0 x",
    "ra nan 1",
    "ra 0 inf",
    "ra 0",
    "rz 0 1",
    "ra 0 1 2",
    "rb 0 1",
)


def _with_first(table: str, value: str) -> str:
    return _first(lambda line: f"{line.split()[0]} {value}")(table)


def bad_directories() -> dict[str, Bad]:
    """All directories, by what is wrong with them."""
    found: list[Bad] = []
    for whole, extra, names in (
        (TABLES, "", TABLES),
        (WITH_SEGMENTS, ", with segments", ("segments", "wav.scp", "reco2dur", "reco2file_and_channel")),
    ):
        for file in names:
            if file in (*NEEDED, "segments"):
                found.append(
                    Bad(f"{file} is not there{extra}", file, {name: text for name, text in whole.items() if name != file})
                )
            for what, damage in DAMAGE.items():
                found.append(Bad(f"{file} {what}{extra}", file, whole | {file: damage(whole[file])}))
    for file, values in VALUES.items():
        whole = TABLES | {"utt2speed": "al-1 1.0\nal-2 1.1\n"} if file == "utt2speed" else TABLES
        found += [Bad(f"{file}: `{value}`", file, whole | {file: _with_first(whole[file], value)}) for value in values]
    table = WITH_SEGMENTS["segments"]
    found += [
        Bad(f"segments: `{value}`", "segments", WITH_SEGMENTS | {"segments": _with_first(table, value)}) for value in SEGMENTS
    ]
    return {bad.name: bad for bad in found}
