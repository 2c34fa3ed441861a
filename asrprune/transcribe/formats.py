"""Transcripts as text: plain, JSON lines, subtitles (SRT, WebVTT), CTM of NIST, and tables of words."""

import html
import json
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from asrprune.decode.words import Hypothesis, Word
from asrprune.runtime.errors import COMMANDS, UserError, did_you_mean, printable

SUBTITLES = ("srt", "vtt")  # a file of these belongs to one recording
HEADS = {"vtt": "WEBVTT\n", "tsv": "file\tstart_s\tend_s\tconfidence\tword"}  # the first line of a file
_PAUSE_S = 1.0  # a pause of this length ends a subtitle
_LONGEST_S = 7.0  # of a subtitle
_LINE, _LINES = 42, 2  # letters in a line and lines in a subtitle, as television stations limit them


def check_form(name: str) -> str:
    """Return the name of a format; raise a ``UserError`` if there is no such format."""
    if name not in _FORMATS:
        raise UserError(f"--format {name}: no such format; choose from {', '.join(_FORMATS)}{did_you_mean(name, _FORMATS)}")
    return name


def write_as(form: str, file: str, hypothesis: Hypothesis) -> str:
    """Return the transcript of a recording in a format, without its ``HEADS``, and printable: names may not be UTF-8.

    Args:
        form: text, json, srt, vtt, ctm or tsv.
        file: the name of the recording, which json, ctm and tsv repeat.
        hypothesis: what was recognised.
    """
    return printable(_FORMATS[form](file, hypothesis))


def captions(words: Sequence[Word]) -> list[list[Word]]:
    """Group words into subtitles. A subtitle ends at a pause, or before it gets too long to read at once."""
    groups: list[list[Word]] = []
    for word in words:
        if groups and _joins(groups[-1], word):
            groups[-1].append(word)
        else:
            groups.append([word])
    return groups


def _joins(group: Sequence[Word], word: Word) -> bool:
    short = word.end_s - group[0].start_s <= _LONGEST_S and len(_lines([*group, word])) <= _LINES
    return short and word.start_s - group[-1].end_s < _PAUSE_S


def _lines(words: Sequence[Word]) -> list[str]:
    return textwrap.wrap(" ".join(word.text for word in words), _LINE, break_on_hyphens=False)


def _json(file: str, hypothesis: Hypothesis) -> str:
    line = json.dumps({"file": file, **asdict(hypothesis)}, ensure_ascii=False)
    return COMMANDS.sub(lambda match: f"\\u{ord(match[0]):04x}", line)  # JSON has no escape like \x9b


def _srt(file: str, hypothesis: Hypothesis) -> str:
    rows = (f"{number}\n{_span(group, ',')}\n{_text(group)}\n" for number, group in enumerate(captions(hypothesis.words), 1))
    return "\n".join(rows)


def _vtt(file: str, hypothesis: Hypothesis) -> str:
    rows = (f"{_span(group, '.')}\n{html.escape(_text(group), quote=False)}\n" for group in captions(hypothesis.words))
    return "\n".join(rows)


def ctm_name(name: str | Path) -> str:
    """Return the name of a recording in a CTM file, whose columns are separated by spaces; ``;;`` begins a comment."""
    joined = "_".join(str(name).split())
    return f"_{joined}" if joined.startswith(";;") else joined


def line_name(name: str | Path) -> str:
    """Return the name of a recording on a line of a table or of texts, without tabs and line breaks."""
    return " ".join(str(name).split())


def _ctm(file: str, hypothesis: Hypothesis) -> str:
    rows = (
        f"{ctm_name(file)} 1 {w.start_s:.3f} {w.end_s - w.start_s:.3f} {w.text} {w.confidence:.3f}" for w in hypothesis.words
    )
    return "\n".join(rows)


def _tsv(file: str, hypothesis: Hypothesis) -> str:
    name = line_name(file)
    rows = (f"{name}\t{w.start_s:.3f}\t{w.end_s:.3f}\t{w.confidence:.3f}\t{w.text}" for w in hypothesis.words)
    return "\n".join(rows)


def _text(group: Sequence[Word]) -> str:
    return "\n".join(_lines(group))


def _span(group: Sequence[Word], point: str) -> str:
    return f"{_clock(group[0].start_s, point)} --> {_clock(group[-1].end_s, point)}"


def _clock(seconds: float, point: str) -> str:
    minutes, ms = divmod(round(1000 * seconds), 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{ms // 1000:02d}{point}{ms % 1000:03d}"


_FORMATS: dict[str, Callable[[str, Hypothesis], str]] = {
    "text": lambda file, hypothesis: hypothesis.text,
    "json": _json,
    "srt": _srt,
    "vtt": _vtt,
    "ctm": _ctm,
    "tsv": _tsv,
}
