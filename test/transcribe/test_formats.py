"""Formats of transcripts, by hand, and with rules that subtitles follow."""

import json
import re
from itertools import pairwise

import numpy as np
import pytest

from asrprune.decode.words import Hypothesis, Word
from asrprune.runtime.errors import UserError
from asrprune.transcribe.formats import captions, check_form, write_as

WORDS = (Word("one", 0.04, 0.16, 0.7), Word("<unk>", 0.16, 0.5, 0.51234), Word("two", 3661.5, 3662.0, 1.0))
SPOKEN = Hypothesis("one <unk> two", WORDS, (1, 3))
SILENT = Hypothesis("", (), (1, 3))


def test_formats_by_hand() -> None:
    assert write_as("text", "a.wav", SPOKEN) == "one <unk> two"
    record = json.loads(write_as("json", "a.wav", SPOKEN))
    assert (record["file"], record["text"], record["layers"]) == ("a.wav", "one <unk> two", [1, 3])
    assert record["words"][0] == {"text": "one", "start_s": 0.04, "end_s": 0.16, "confidence": 0.7}
    assert write_as("srt", "a.wav", SPOKEN) == (
        "1\n00:00:00,040 --> 00:00:00,500\none <unk>\n\n2\n01:01:01,500 --> 01:01:02,000\ntwo\n"
    )
    assert write_as("vtt", "a.wav", SPOKEN) == (
        "00:00:00.040 --> 00:00:00.500\none &lt;unk&gt;\n\n01:01:01.500 --> 01:01:02.000\ntwo\n"
    )
    assert write_as("ctm", "talk one", SPOKEN).splitlines()[1] == "talk_one 1 0.160 0.340 <unk> 0.512"
    assert write_as("ctm", ";;talk", SPOKEN).startswith("_;;talk 1 "), ";; begins a comment"
    assert write_as("tsv", "a\tb.wav", SPOKEN).splitlines()[2] == "a b.wav\t3661.500\t3662.000\t1.000\ttwo"


@pytest.mark.parametrize("form", ["text", "srt", "vtt", "ctm", "tsv"])
def test_silence_is_empty(form: str) -> None:
    assert write_as(form, "a.wav", SILENT) == ""


def test_subtitles_can_be_read() -> None:
    """At most 7 s, two lines of 42 letters, no pause of a second inside; and every word once, in order."""
    rng = np.random.default_rng(0)
    words, time = [], 0.0
    for _ in range(500):
        start = time + float(rng.choice([0.0, 0.3, 1.2], p=[0.6, 0.35, 0.05]))
        time = start + float(rng.uniform(0.05, 0.9))
        words.append(Word("a" * int(rng.integers(1, 20)), round(start, 3), round(time, 3), 0.5))
    groups = captions(words)
    assert [word for group in groups for word in group] == words
    for group in groups:
        assert group[-1].end_s - group[0].start_s <= 7.0
        assert all(after.start_s - before.end_s < 1.0 for before, after in pairwise(group))
    blocks = write_as("srt", "a", Hypothesis("", tuple(words), (1,))).split("\n\n")
    assert len(blocks) == len(groups)
    for number, block in enumerate(blocks, 1):
        head, span, *lines = block.strip().split("\n")
        assert head == str(number)
        assert re.fullmatch(r"\d\d:\d\d:\d\d,\d{3} --> \d\d:\d\d:\d\d,\d{3}", span)
        assert 1 <= len(lines) <= 2
        assert all(len(line) <= 42 for line in lines)
    assert np.mean([len(group) for group in groups]) > 3, "words are not shown one by one"


def test_an_unknown_format_is_refused() -> None:
    assert check_form("srt") == "srt"
    with pytest.raises(
        UserError, match=r"--format vrt: no such format; choose from text, json, srt, vtt, ctm, tsv; did you mean"
    ):
        check_form("vrt")
