"""Data directories: what is written is read again, each fault is named once with its line, fixing leaves a valid directory."""

import contextlib
import dataclasses
import locale
import os
import random
import re
import sys
import time
import unicodedata
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
from bad_directories import lay

from asrprune.data import kaldi
from asrprune.data.check import check_data_dir
from asrprune.data.fix import fix_data_dir
from asrprune.data.kaldi import Utterance, describe, read_data_dir, spread_evenly, write_data_dir
from asrprune.data.tables import open_table, read_table, stream_table, write_table
from asrprune.features import audio as audio_module
from asrprune.runtime.errors import UserError

FIX = "`asrprune fix-data` does it"
ADD = f"add one or remove the utterance, {FIX}"
ANEW = f"write spk2utt again, {FIX}"
STAGE_2 = "run stage 2 (`asrprune fbank`) again"

# format characters that are seen, of Arabic, Syriac, Kaithi and Egyptian, and the two joiners
SEEN = {
    *"\u06dd\u070f\u0890\u0891\u08e2\u200c\u200d\U000110bd\U000110cd",
    *map(chr, (*range(0x600, 0x606), *range(0x13430, 0x13440))),
}

PLAIN = {
    "wav.scp": "al-1 /a/1.wav\nal-2 /a/2.wav\nbo-1 /b/1.wav\n",
    "text": "al-1 ONE\nal-2 TWO WORDS\nbo-1 ÜBER\n",
    "utt2spk": "al-1 al\nal-2 al\nbo-1 bo\n",
    "spk2utt": "al al-1 al-2\nbo bo-1\n",
}
SEGMENTED = PLAIN | {
    "wav.scp": "ra /a.wav\nrb /b.wav\n",
    "segments": "al-1 ra 0 1.5\nal-2 ra 1.5 2\nbo-1 rb 0.25 3\n",
}


def contents(path: Path) -> dict[str, str]:
    return {file.name: file.read_text(encoding="utf-8") for file in path.iterdir() if file.is_file()}


def faults(path: Path) -> list[str]:
    """Structural faults with the directory's own path left out."""
    return [fault.removeprefix(f"{path}/") for fault in check_data_dir(path, audio=False, features=False).faults]


# ---- reading and writing


def test_utterances_of_a_directory(tmp_path: Path) -> None:
    assert read_data_dir(lay(tmp_path, PLAIN | {"utt2speed": "al-2 1.1\n"})) == [
        Utterance("al-1", "/a/1.wav", 0.0, None, "al", "ONE", 1.0, "al-1"),
        Utterance("al-2", "/a/2.wav", 0.0, None, "al", "TWO WORDS", 1.1, "al-2"),
        Utterance("bo-1", "/b/1.wav", 0.0, None, "bo", "ÜBER", 1.0, "bo-1"),
    ]


def test_utterances_of_a_segmented_directory(tmp_path: Path) -> None:
    assert read_data_dir(lay(tmp_path, SEGMENTED))[1:] == [
        Utterance("al-2", "/a.wav", 1.5, 2.0, "al", "TWO WORDS", 1.0, "ra"),
        Utterance("bo-1", "/b.wav", 0.25, 3.0, "bo", "ÜBER", 1.0, "rb"),
    ]


def test_what_is_written_is_read_again_in_bytewise_order(tmp_path: Path) -> None:
    names = ["a", "B", "é", "Z", "ab", "日本", "𝄞", "\uffee"]
    utts = [Utterance(f"{s}_{i}", f"/x/{s} {i}.wav", 0.0, None, s, f"{s} SAID {i}") for s in names for i in range(3)]
    random.Random(0).shuffle(utts)
    write_data_dir(tmp_path / "d", utts)
    assert check_data_dir(tmp_path / "d", audio=False, features=False).faults == []
    assert read_data_dir(tmp_path / "d") == sorted(utts, key=lambda utt: utt.id.encode())
    assert set(contents(tmp_path / "d")) == {"wav.scp", "text", "utt2spk", "spk2utt"}


def test_the_locale_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = locale.setlocale(locale.LC_ALL)
    for name in ("en_US.UTF-8", "de_DE.UTF-8", "C.UTF-8"):
        monkeypatch.setenv("LC_ALL", name)
        try:
            locale.setlocale(locale.LC_ALL, name)
        except locale.Error:
            continue
        write_table(tmp_path / "t", {"a": "1", "B": "2", "_": "3", "é": "4"})
        assert (tmp_path / "t").read_bytes() == "B 2\n_ 3\na 1\né 4\n".encode()
    locale.setlocale(locale.LC_ALL, before)


def test_times_speeds_and_recordings_are_written_only_if_needed(tmp_path: Path) -> None:
    utts = [
        Utterance("al-1", "/a.wav", 0.0, 1.123456, "al", "ONE", 0.9, "ra"),
        Utterance("al-2", "/a.wav", 1.5, 2.0, "al", "TWO", 1.0, "ra"),
    ]
    write_data_dir(tmp_path, utts)
    assert contents(tmp_path) == {
        "wav.scp": "ra /a.wav\n",
        "segments": "al-1 ra 0 1.123456\nal-2 ra 1.5 2\n",
        "text": "al-1 ONE\nal-2 TWO\n",
        "utt2spk": "al-1 al\nal-2 al\n",
        "spk2utt": "al al-1 al-2\n",
        "utt2speed": "al-1 0.9\nal-2 1\n",
    }
    assert read_data_dir(tmp_path) == utts


def test_a_whole_recording_among_segments_gets_its_length_as_end(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "b.wav", np.zeros(20000, np.int16), 16000)
    whole = Utterance("b", str(tmp_path / "b.wav"), 0.0, None, "b", "B")
    write_data_dir(tmp_path / "d", [Utterance("a", "/a.wav", 0.5, 1.0, "a", "A", recording="ra"), whole])
    assert read_data_dir(tmp_path / "d")[1] == dataclasses.replace(whole, end_s=1.25)
    (tmp_path / "b.wav").unlink()
    with pytest.raises(UserError, match=r"wav\.scp: b: .* cannot be read"):
        write_data_dir(tmp_path / "d", [Utterance("a", "/a.wav", 0.5, 1.0, "a", "A", recording="ra"), whole])


def test_texts_may_be_left_out(tmp_path: Path) -> None:
    write_data_dir(tmp_path, [Utterance("a", "/a.wav", 0.0, None, "a", "")])
    assert not (tmp_path / "text").exists()
    assert faults(tmp_path) == ["text: does not exist; stage 1 (data preparation) makes it"]
    assert read_data_dir(tmp_path, need_text=False)[0].text == ""
    with pytest.raises(UserError, match="text: does not exist"):
        read_data_dir(tmp_path)


def test_writing_again_leaves_nothing_of_what_was_there(tmp_path: Path) -> None:
    lay(tmp_path, SEGMENTED | {"utt2dur": "x 1\n", "feats.scp": "x f:1\n", "utt2num_frames": "x 9\n", "utt2speed": "x 1\n"})
    lay(tmp_path, {"notes": "keep me"})
    write_data_dir(tmp_path, [Utterance("a", "/a.wav", 0.0, None, "a", "A")])
    assert set(contents(tmp_path)) == {"wav.scp", "text", "utt2spk", "spk2utt", "notes"}


def test_a_killed_run_leaves_nothing_that_looks_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    utts = read_data_dir(lay(tmp_path, PLAIN))
    written: list[Path] = []

    def killed(path: Path, rows: dict[str, str]) -> None:
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path)
        write_table(path, rows)

    monkeypatch.setattr(kaldi, "write_table", killed)
    with pytest.raises(KeyboardInterrupt):
        write_data_dir(tmp_path, utts)
    with pytest.raises(UserError, match=r"wav\.scp: does not exist; stage 1"):
        read_data_dir(tmp_path)


BAD_UTTERANCES: list[tuple[list[Utterance], str]] = [
    ([Utterance("a", "/a", 0.0, None, "a", "A")] * 2, ": a: several utterances have this id; give each utterance its own id"),
    ([Utterance("a b", "/a", 0.0, None, "s", "A")], ": utterance `a b`: its id `a b` is not one word; replace the blanks"),
    ([Utterance("a", "/a", 0.0, None, "John Smith", "A")], "its speaker `John Smith` is not one word; replace the blanks"),
    ([Utterance("a", "/a", 0.0, None, "", "A")], ": utterance `a`: its speaker `` is not one word; "),
    ([Utterance("", "/a", 0.0, None, "s", "A")], ": utterance ``: its id `` is not one word; "),
    (
        [Utterance("a", "/a", 0.0, None, "s", "A\nB")],
        r": utterance `a`: its text holds '\n', but only plain spaces separate words; ",
    ),
    ([Utterance("a", "/a", 0.0, None, "s", "\ufeffA")], r"its text holds '\ufeff', but only plain spaces"),
    ([Utterance("a", "/a\n", 0.0, None, "s", "A")], r"its audio holds '\n', but only plain spaces"),
    ([Utterance("a", "/a\udcff", 0.0, None, "s", "A")], "wav.scp: a: byte 5 of the line is not UTF-8; "),
    ([Utterance("a", "/a", 2.0, 1.0, "s", "A")], "segments: a: runs from 2 s to 1 s, but 0 <= start < end; correct the times"),
    (
        [Utterance("a", "/a", 0.0, None, "z", "A"), Utterance("b", "/b", 0.0, None, "y", "B")],
        "utt2spk: b: speaker y sorts before the speaker of the line above; begin utterance ids with the speaker id",
    ),
    (
        [Utterance("a", "/a", 0.0, 1.0, "s", "A", recording="r"), Utterance("b", "/b", 0.0, 1.0, "s", "B", recording="r")],
        "b: recording r is /b here, but /a for another utterance; give each recording its own id",
    ),
    ([], ": there are no utterances to write; check the paths and patterns that find them"),
]


@pytest.mark.parametrize(("utterances", "message"), BAD_UTTERANCES)
def test_nothing_is_written_of_a_directory_with_faults(tmp_path: Path, utterances: list[Utterance], message: str) -> None:
    lay(tmp_path, PLAIN)
    with pytest.raises(UserError) as caught:
        write_data_dir(tmp_path, utterances)
    assert message in str(caught.value)
    assert "fix-data" not in str(caught.value), "there is nothing to fix yet"
    assert contents(tmp_path) == PLAIN


# ---- tables


def test_a_file_that_is_not_sorted_is_one_fault(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_bytes(b"b 1\na 2\nd 3\nc 4\na 5\n")
    with pytest.raises(UserError) as caught:
        read_table(path)
    assert str(caught.value).replace(str(path), "t").splitlines() == [
        f"t:2: a: stands after b, but ids are sorted bytewise; sort with LC_ALL=C, {FIX}",
        "t:5: a: has another line above, 2; keep one of the two",
    ]


def test_all_faults_of_a_table_at_once(tmp_path: Path) -> None:
    path = tmp_path / "table"
    path.write_bytes(
        b"b 1\na 2\n\nb 3\nc\nd\t4\ne caf\xe9\nf 5 \ng  6\n h 7\ni a\xc2\xa0b\nj \xef\xbf\xbd\nk 8\r\nl \xe2\x80\x8bx"
    )
    with pytest.raises(UserError) as caught:
        read_table(path)
    assert str(caught.value).replace(str(path), "t").splitlines() == [
        "t:14: the last line has no newline, the file may be truncated; stage 1 (data preparation) makes it",
        f"t:2: a: stands after b, but ids are sorted bytewise; sort with LC_ALL=C, {FIX}",
        f"t:3: : the line is empty; delete it, {FIX}",
        "t:4: b: has another line above, 1; keep one of the two",
        "t:5: c: nothing follows the id; complete the line or remove the utterance",
        rf"t:6: d: holds '\t', but only plain spaces separate words; replace it, {FIX}",
        "t:7: e: byte 6 of the line is not UTF-8; convert the file, for example: iconv -f ISO-8859-1 -t UTF-8",
        f"t:8: f: has extra spaces at an end or after the id; remove them, {FIX}",
        f"t:9: g: has extra spaces at an end or after the id; remove them, {FIX}",
        f"t:10: h: has extra spaces at an end or after the id; remove them, {FIX}",
        rf"t:11: i: holds '\xa0', but only plain spaces separate words; replace it, {FIX}",
        rf"t:13: k: holds '\r', but only plain spaces separate words; replace it, {FIX}",
        rf"t:14: l: holds '\u200b', but only plain spaces separate words; replace it, {FIX}",
    ]


def test_marks_that_nobody_sees_are_refused_and_fixed(tmp_path: Path) -> None:
    """Also sentencepiece's mark of the start of a word. Joiners belong to the spelling of Persian and Hindi."""
    marks = ["\xad", "\u200e", "\u200f", "\u061c", "\u2060", "\u2581"]
    lay(tmp_path, PLAIN | {"text": f"al-1 {''.join(marks[:5])}yes\nal-2 yes\u2581no\nbo-1 می\u200cخواهم क्\u200dष\n"})
    faults = check_data_dir(tmp_path, audio=False, features=False).faults
    assert [fault.removeprefix(f"{tmp_path}/") for fault in faults] == [
        rf"text:1: al-1: holds '\xad', which is not visible, but makes another word; remove it, {FIX}",
        rf"text:2: al-2: holds '\u2581', but only plain spaces separate words; replace it, {FIX}",
    ]
    others = ["\u2800", "\u3164", "\u034f", "\u17b4", "\u115f", "\ufe0f", "\u180e", "\U000e0101"]
    formats = [char for char in map(chr, range(sys.maxunicode)) if unicodedata.category(char) == "Cf" and char not in SEEN]
    for mark in [*marks, *others, *formats]:
        with pytest.raises(UserError, match="text:1: x: holds"):
            list(stream_table(lay(tmp_path / "d", {"text": f"x no{mark}\n"}) / "text"))
    fix_data_dir(tmp_path)
    assert list(read_table(tmp_path / "text").values()) == ["yes", "yes no", "می\u200cخواهم क्\u200dष"]


@pytest.mark.parametrize("word", ["\u182e\u180e\u1820", "\u1820\u180b", "\u845b\U000e0100", "\u2764\ufe0f", "\u1000\ufe00"])
def test_selectors_after_letters_that_have_several_shapes_are_spelling(tmp_path: Path, word: str) -> None:
    assert read_table(lay(tmp_path, {"text": f"x no {word}\n"}) / "text") == {"x": f"no {word}"}


def test_a_table_of_many_faults_shows_twenty(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("".join(f"{i:03d}\n" for i in range(100)))
    with pytest.raises(UserError) as caught:
        read_table(tmp_path / "t")
    lines = str(caught.value).splitlines()
    assert (len(lines), lines[-1]) == (21, "... and 80 more")
    (tmp_path / "t20").write_text("".join(f"{i:03d}\n" for i in range(20)))
    with pytest.raises(UserError) as caught:
        read_table(tmp_path / "t20")
    assert len(str(caught.value).splitlines()) == 20
    assert dict(open_table(tmp_path / "t", allow_empty=True)) == dict.fromkeys((f"{i:03d}" for i in range(100)), "")


def test_tables_keep_spaces_within_values_and_line_separators_of_unicode_are_no_line_ends(tmp_path: Path) -> None:
    rows = {"a": "sox  x.wav -t wav - |", "b": ""}
    write_table(tmp_path / "t", rows)
    assert dict(open_table(tmp_path / "t", allow_empty=True)) == rows
    (tmp_path / "t").write_bytes("a x\u2028y\n".encode())
    with pytest.raises(UserError, match=r"t:1: a: holds '\\u2028'"):
        read_table(tmp_path / "t")
    with pytest.raises(UserError, match=r"none: does not exist; stage 1 \(data preparation\) makes it"):
        read_table(tmp_path / "none")


# ---- checking


def test_a_missing_directory_or_file_names_the_stage_that_makes_it(tmp_path: Path) -> None:
    assert check_data_dir(tmp_path / "no").faults == [f"{tmp_path / 'no'}: does not exist; stage 1 (data preparation) makes it"]
    for read in (read_data_dir, fix_data_dir):
        with pytest.raises(UserError, match=r"does not exist; stage 1 \(data preparation\) makes it"):
            read(tmp_path / "no")
    path = lay(tmp_path / "whole", PLAIN)
    assert check_data_dir(path / "text").faults == [f"{path / 'text'}: is a file, not a data directory; correct the path"]
    with pytest.raises(UserError, match="whole: is a directory, not a table; correct the path"):
        read_table(path)
    for name in PLAIN:
        path = lay(tmp_path / f"without_{name}", {key: value for key, value in PLAIN.items() if key != name})
        made = "`asrprune fix-data` makes it" if name == "spk2utt" else "stage 1 (data preparation) makes it"
        assert faults(path) == [f"{name}: does not exist; {made}"]


RULES: list[tuple[dict[str, str], dict[str, str], list[str]]] = [
    (PLAIN, {}, []),
    (SEGMENTED, {}, []),
    (PLAIN, {"text": ""}, ["text: is empty; stage 1 (data preparation) makes it"]
     + [f"utt2spk:{i}: {utt}: has no line in text; {ADD}" for i, utt in ((1, "al-1"), (2, "al-2"), (3, "bo-1"))]),
    (PLAIN, {"text": "al-1 ONE\nal-2 <s> TWO\nbo-1\n"},
     ["text:3: bo-1: nothing follows the id; complete the line or remove the utterance",
      "text:2: al-2: the text contains <s>, which is reserved for language models; remove it"]),
    (PLAIN, {"text": "al-1 ONE\nal-2 T\udcffO\nbo-1 B\n"},
     ["text:2: al-2: byte 7 of the line is not UTF-8; convert the file, for example: iconv -f ISO-8859-1 -t UTF-8"]),
    (PLAIN, {"text": "al-1 ONE\nbo-1 B\nbo-2 C\n"},
     [f"utt2spk:2: al-2: has no line in text; {ADD}",
      f"text:3: bo-2: has no line in utt2spk; add one or remove this line, {FIX}"]),
    (PLAIN, {"wav.scp": "al-1 ~/1.wav\nal-2 /2.wav\n"},
     ["wav.scp:1: al-1: begins with ~, which only a shell expands; write the whole path",
      f"utt2spk:3: bo-1: has no line in wav.scp; {ADD}"]),
    (PLAIN, {"utt2spk": "al-1 al\nal-2 al x\nbo-1 bo\n", "spk2utt": "al al-1\nal x al-2\nbo bo-1\n"},
     ["spk2utt:2: al: has another line above, 1; keep one of the two",
      "utt2spk:2: al-2: the speaker id `al x` contains a space; remove it",
      f"utt2spk:2: al-2: its speaker al x has no line in spk2utt; {ANEW}"]),
    (PLAIN, {"utt2spk": "al-1 z\nal-2 z\nbo-1 b\n", "spk2utt": "b bo-1\nz al-1 al-2\n"},
     ["utt2spk:3: bo-1: speaker b sorts before the speaker of the line above; begin utterance ids with the speaker id,"
      f" {FIX}"]),
    (PLAIN, {"utt2spk": "al-1 al\nbo-1 bo\nal-2 al\n"},
     [f"utt2spk:3: al-2: stands after bo-1, but ids are sorted bytewise; sort with LC_ALL=C, {FIX}"]),
    (PLAIN, {"spk2utt": "al al-2 al-1\ncy bo-1\n"},
     [f"spk2utt:1: al: its utterances are repeated or not in the order of utt2spk; {ANEW}",
      f"spk2utt:2: cy: this speaker is not in utt2spk; {ANEW}",
      f"utt2spk:3: bo-1: its speaker bo has no line in spk2utt; {ANEW}"]),
    (PLAIN, {"spk2utt": "al al-1\nbo al-2 bo-1\n"},
     [f"spk2utt:1: al: lacks al-2, which utt2spk gives this speaker; {ANEW}",
      f"spk2utt:2: bo: lists al-2, which utt2spk does not give this speaker; {ANEW}"]),
    (PLAIN, {"utt2dur": "al-1 1.5\nal-2 0\nbo-1 nan\n"},
     ["utt2dur:2: al-2: `0` is not a number above 0; correct it",
      "utt2dur:3: bo-1: `nan` is not a number above 0; correct it"]),
    (PLAIN, {"utt2dur": "al-1 1.5\nal-2 2\n"}, [f"utt2spk:3: bo-1: has no line in utt2dur; {STAGE_2}"]),
    (PLAIN, {"utt2speed": "al-1 0.9\nal-2 fast\n"},
     ["utt2speed:2: al-2: `fast` is not a number above 0.1 and below 10; correct it"]),
    (PLAIN, {"feats.scp": "al-1 f.ark:5\nal-2 f.ark:9\n", "utt2num_frames": "al-1 100\nbo-1 9\n"},
     [f"utt2spk:3: bo-1: has no line in feats.scp; {STAGE_2}", f"utt2spk:2: al-2: has no line in utt2num_frames; {STAGE_2}"]),
    (PLAIN, {"feats.scp": "al-1 f:5\nal-2 f:9\nbo-1 f:13\nzz f:17\n",
             "utt2num_frames": "al-1 0\nal-2 1.5\nbo-1 9\n"},
     ["utt2num_frames:1: al-1: `0` is not a whole number above 0; correct it",
      "utt2num_frames:2: al-2: `1.5` is not a whole number above 0; correct it",
      f"feats.scp:4: zz: has no line in utt2spk; add one or remove this line, {FIX}"]),
    (SEGMENTED, {"segments": "al-1 ra 0\nal-2 ra 1.5 1.5\nbo-1 rb -1 x\n"},
     ["segments:1: al-1: a line of segments is `utterance recording start end`; correct it",
      "segments:2: al-2: runs from 1.5 s to 1.5 s, but 0 <= start < end; correct the times",
      "segments:3: bo-1: runs from -1 s to x s, but 0 <= start < end; correct the times"]),
    (SEGMENTED, {"segments": "al-1 ra 0 1_0\nal-2 ra 1.5 2\nbo-1 rb 0.25 3\n"},
     ["segments:1: al-1: runs from 0 s to 1_0 s, but 0 <= start < end; correct the times"]),
    (SEGMENTED, {"wav.scp": "ra /a.wav\nrc /c.wav\n"},
     [f"segments:3: bo-1: its recording rb has no line in wav.scp; add one or remove the segment, {FIX}",
      f"wav.scp:2: rc: no segment uses this recording; remove the line, {FIX}"]),
    (SEGMENTED, {"segments": "al-1 ra 0 1\nbo-1 rb 0 1\nbo-2 rb 0 1\n"},
     [f"utt2spk:2: al-2: has no line in segments; {ADD}",
      f"segments:3: bo-2: has no line in utt2spk; add one or remove this line, {FIX}"]),
]  # fmt: skip


@pytest.mark.parametrize(("files", "changed", "expected"), RULES)
def test_each_rule_names_line_id_rule_and_fix(
    tmp_path: Path, files: dict[str, str], changed: dict[str, str], expected: list[str]
) -> None:
    path = lay(tmp_path, files | changed)
    assert faults(path) == expected
    stops = [f"{path}/{fault}" for fault in expected if not re.search("utt2dur|feats.scp|utt2num_frames", fault)]
    if stops:
        with pytest.raises(UserError) as caught:
            read_data_dir(path)
        assert str(caught.value).splitlines() == stops
    else:
        assert len(read_data_dir(path)) == 3


def test_faults_of_the_recordings(tmp_path: Path) -> None:
    for name, rate, channels in (("a", 16000, 1), ("b", 8000, 1), ("c", 16000, 2), ("e", 16000, 1), ("f", 16000, 1)):
        soundfile.write(tmp_path / f"{name}.wav", np.zeros((16000, channels), np.int16), rate)
    (tmp_path / "e.wav").write_bytes((tmp_path / "e.wav").read_bytes()[:-2])
    names, at = "abcdefg", str(tmp_path)
    entries = {name: f"{at}/{name}.wav" for name in names} | {"g": f"cat {at}/a.wav |"}
    utts = [
        Utterance(name, entries[name], 0.0, 1.01 if name != "f" else 1.02, name, "X", recording=f"r{name}") for name in names
    ]
    write_data_dir(tmp_path / "d", utts)
    d = tmp_path / "d"
    scp = f"{d}/wav.scp"
    expected = [
        f"{scp}:4: rd: {at}/d.wav: cannot be read (No such file or directory); correct the path, or download the file again",
        f"{scp}:5: re: {at}/e.wav: is truncated: its header gives 32044 bytes, but the file has 32042; copy or unpack it again",
        f"{scp}:7: rg: `cat {at}/a.wav |`: is a shell command, which is run only with --allow-pipes;"
        " add this option, or write the output to a file",
        f"{scp}:2: rb: {at}/b.wav: is sampled at 8000 Hz, but must be at 16000 Hz; convert it: ffmpeg -i IN -ar 16000 OUT.wav",
        f"{scp}:3: rc: {at}/c.wav: has 2 channels, but recordings must be mono; mix them: ffmpeg -i IN -ac 1 OUT.wav,"
        " or keep one: ffmpeg -i IN -af 'pan=mono|c0=c0' OUT.wav",
        f"{d}/segments:6: f: ends at 1.02 s, but rf ends at 1.000 s; correct the times",
    ]
    assert check_data_dir(d).faults == expected
    assert check_data_dir(d, allow_pipes=True).faults == [fault for fault in expected if "shell" not in fault]
    assert check_data_dir(d, audio=False, features=False).faults == []


def test_each_recording_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(160000, np.int16), 16000)
    audio = str(tmp_path / "a.wav")
    write_data_dir(tmp_path / "d", [Utterance(f"a-{i}", audio, i, i + 1.0, "a", "X", recording="r") for i in range(10)])
    opened: list[bytes] = []
    real: Callable[..., soundfile.SoundFile] = audio_module._Sound
    monkeypatch.setattr(audio_module, "_Sound", lambda source, **layout: opened.append(source) or real(source, **layout))
    assert check_data_dir(tmp_path / "d").faults == []
    assert opened == [audio.encode()]


def test_time_grows_with_the_number_of_utterances(tmp_path: Path) -> None:
    """Comparing every utterance with every other would take minutes here."""
    count = 30_000
    utts = [Utterance(f"s{i // 3000}-{i:06d}", "/r.wav", i, i + 1.0, f"s{i // 3000}", "X", recording="r") for i in range(count)]
    start = time.process_time()
    write_data_dir(tmp_path, utts)
    assert check_data_dir(tmp_path, audio=False, features=False).faults == []
    lay(tmp_path, {"spk2utt": "s0 s0-000000\n", "text": "".join(f"x{i:06d} X\n" for i in range(count))})
    assert len(check_data_dir(tmp_path, audio=False, features=False).faults) == 2 * count + 10
    assert time.process_time() - start < 20


# ---- what recipes say and choose


def test_the_size_of_a_set() -> None:
    utts = [Utterance("al-1", "/a", 1.0, 1801.0, "al", "ONE"), Utterance("al-2", "/a", 7.0, 907.0, "al", "TWO  WORDS")]
    assert describe(utts) == "2 utterances, 1 speakers, 3 words, 0.7500 hours"
    assert describe([*utts, Utterance("bo-1", "/b", 0.0, None, "bo", "")]) == "3 utterances, 2 speakers, 3 words"


def test_items_spread_evenly() -> None:
    assert spread_evenly(range(10), 3) == [1, 5, 8]
    assert spread_evenly("abc", 7) == ["a", "b", "c"]
    assert spread_evenly(range(5), 0) == []
    for count in range(1, 50):
        chosen = spread_evenly(range(49), count)
        gaps = np.diff(chosen)
        assert len(chosen) == count
        assert count == 1 or gaps.max() - gaps.min() <= 1


# ---- fixing


def test_fixing_says_what_it_changed_and_leaves_a_valid_directory(tmp_path: Path) -> None:
    broken = {
        "wav.scp": "bo-1 /b/1.wav\nal-1 /a 1.wav \nal-2 /a/2.wav\nal-3 /a/3.wav\nzz /z.wav\nal-4 ~/4.wav\n",
        "text": "al-1\tONE  MORE\r\nal-2 caf\udce9\n\nbo-1 B\nbo-1 B\nbo-1 C\nal-3\nal-4 D",
        "utt2spk": "al-1 al\nal-2 al\nal-3 al\nbo-1 bo\nal-4 al\n",
        "spk2utt": "al al-1\n",
        "utt2dur": "al-1 1\n",
        "feats.scp": "al-1 f:1\nzz f:2\n",
    }
    path = lay(tmp_path, broken)
    assert fix_data_dir(path) == [
        "wav.scp: dropped al-4 (line 6): begins with ~, which only a shell expands",
        "text: dropped al-2 (line 2): not UTF-8",
        "text: dropped bo-1 (line 5): the id has a line above",
        "text: dropped bo-1 (line 6): the id has a line above, with another value",
        "text: dropped al-3 (line 7): nothing follows the id",
        "dropped zz: no line in utt2spk",
        "dropped al-2, al-3: no line in text",
        "dropped al-4: no line in wav.scp",
        "utt2dur: removed, as it lacks bo-1; stage 2 (fbank) writes it again",
        "feats.scp: dropped zz: no remaining utterance needs it",
        "feats.scp: removed, as it lacks bo-1; stage 2 (fbank) writes it again",
        *(f"{name}: rewritten; the original file is in .backup" for name in ("utt2spk", "spk2utt", "wav.scp", "text")),
        "utt2dur: removed; the original file is in .backup",
        "feats.scp: removed; the original file is in .backup",
    ]
    assert contents(path) == {
        "wav.scp": "al-1 /a 1.wav\nbo-1 /b/1.wav\n",
        "text": "al-1 ONE MORE\nbo-1 B\n",
        "utt2spk": "al-1 al\nbo-1 bo\n",
        "spk2utt": "al al-1\nbo bo-1\n",
    }
    for name, content in broken.items():
        assert (path / ".backup" / name).read_bytes() == content.encode("utf-8", "surrogateescape")
    assert faults(path) == []
    assert fix_data_dir(path) == []


def test_fixing_twice_keeps_both_originals(tmp_path: Path) -> None:
    path = lay(tmp_path, PLAIN | {"text": "bo-1 B\nal-1 ONE\nal-2 TWO\n"})
    assert fix_data_dir(path) == ["text: rewritten; the original file is in .backup"]
    (path / "text").write_text("bo-1 X\nal-1 ONE\nal-2 TWO\n")
    assert fix_data_dir(path) == ["text: rewritten; the original file is in .backup2"]
    assert [(path / name / "text").read_text()[:6] for name in (".backup", ".backup2")] == ["bo-1 B", "bo-1 X"]


@pytest.mark.parametrize("last", range(15))
def test_fixing_that_is_killed_is_finished_by_the_next_run(last: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at each of the changes of names, of which ids with a prefix need all or none."""
    broken = PLAIN | {"utt2spk": "al-1 z\nal-2 z\nbo-1 b\n"}
    path, whole = lay(tmp_path / "killed", broken), lay(tmp_path / "whole", broken)
    fix_data_dir(whole)
    left = last

    def killed_after(change: Callable[..., None], *arguments: object) -> None:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        change(*arguments)

    with monkeypatch.context() as patch:
        for name in ("replace", "rename"):
            patch.setattr(os, name, partial(killed_after, getattr(os, name)))
        with contextlib.suppress(KeyboardInterrupt):
            fix_data_dir(path)
    fix_data_dir(path)
    assert contents(path) == contents(whole)
    assert sorted(entry.name for entry in path.iterdir()) == sorted(entry.name for entry in whole.iterdir())
    for name in broken:
        original = path / ".backup" / name
        assert original.read_text() == broken[name] if original.exists() else (path / name).read_text() == broken[name]


@pytest.mark.parametrize("stage", ["prepared", "saved", "partly replaced"])
def test_what_somebody_writes_after_a_kill_is_kept(stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The changes of the killed run need all files, so they are made; the file that was written since is set aside."""
    path = lay(tmp_path / "killed", PLAIN | {"text": "bo-1 B\nal-1 ONE\nal-2 TWO\n", "utt2spk": "bo-1 bo\nal-1 al\nal-2 al\n"})
    prepared = path / ".fixed"
    with monkeypatch.context() as patch:
        patch.setattr("asrprune.data.fix._put_in_place", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
        with contextlib.suppress(KeyboardInterrupt):
            fix_data_dir(path)
    if stage != "prepared":  # the originals are in the backup already
        (prepared / "old").rename(path / ".backup")
    if stage == "partly replaced":
        (prepared / "new/utt2spk").replace(path / "utt2spk")
    (path / "text").write_text("al-1 ONE\nal-2 TWO\nbo-1 CORRECTED\n")
    told = fix_data_dir(path)
    assert told[:2] == [
        "text: was changed since an earlier run was killed; kept as text.changed",
        "an earlier run was killed; its changes are made now, the original files are in .backup",
    ]
    assert (path / "text.changed").read_text() == "al-1 ONE\nal-2 TWO\nbo-1 CORRECTED\n"
    assert (path / ".backup/text").read_text() == "bo-1 B\nal-1 ONE\nal-2 TWO\n"
    assert sorted(entry.name for entry in path.glob("*.changed")) == ["text.changed"]
    assert faults(path) == []


def test_fixing_segments_drops_bad_times_and_unused_recordings(tmp_path: Path) -> None:
    path = lay(tmp_path, SEGMENTED | {"segments": "al-1 ra 0 1.5\nal-2 rx 1.5 2\nbo-1 rb 3 1\n"})
    assert fix_data_dir(path) == [
        "segments: dropped bo-1 (line 3): runs from 3 s to 1 s, but 0 <= start < end",
        "dropped bo-1: no line in segments",
        "dropped al-2: no line in wav.scp",
        "wav.scp: dropped rb: no remaining utterance needs it",
        *(
            f"{name}: rewritten; the original file is in .backup"
            for name in ("utt2spk", "spk2utt", "wav.scp", "text", "segments")
        ),
    ]
    assert faults(path) == []


@pytest.mark.parametrize("files", [PLAIN, SEGMENTED])
def test_fixing_puts_speakers_first_where_orders_differ(tmp_path: Path, files: dict[str, str]) -> None:
    path = lay(tmp_path, files | {"utt2spk": "al-1 z\nal-2 z\nbo-1 b\n", "utt2speed": "al-1 0.9\n"})
    assert "every utterance id now begins with the speaker id, because their orders differed" in fix_data_dir(path)
    assert faults(path) == []
    assert [(utt.id, utt.speaker, utt.text, utt.speed) for utt in read_data_dir(path)] == [
        ("b-bo-1", "b", "ÜBER", 1.0),
        ("z-al-1", "z", "ONE", 0.9),
        ("z-al-2", "z", "TWO WORDS", 1.0),
    ]
    assert (path / "spk2utt").read_text() == "b b-bo-1\nz z-al-1 z-al-2\n"


def test_fixing_makes_one_speaker_file_from_the_other(tmp_path: Path) -> None:
    for name, said in (("utt2spk", ["utt2spk: made from spk2utt"]), ("spk2utt", [])):
        path = lay(tmp_path / name, {key: value for key, value in PLAIN.items() if key != name})
        assert fix_data_dir(path) == said
        assert contents(path) == PLAIN


def test_fixing_keeps_whole_files_and_shortens_lists(tmp_path: Path) -> None:
    dur = {"utt2dur": "al-1 1\nal-2 2\nbo-1 3\n"}
    extra = {name: "".join(f"x-{i} 9\n" for i in range(count)) for name, count in (("feats.scp", 5), ("utt2num_frames", 7))}
    ours = "al-1 8\nal-2 8\nbo-1 8\n"
    path = lay(tmp_path, PLAIN | dur | {name: ours + lines for name, lines in extra.items()})
    assert fix_data_dir(path)[:2] == [
        "feats.scp: dropped x-0, x-1, x-2, x-3, x-4: no remaining utterance needs it",
        "utt2num_frames: dropped x-0, x-1, x-2, x-3, x-4 and 2 more: no remaining utterance needs it",
    ]
    assert contents(path) == PLAIN | dur | {"feats.scp": ours, "utt2num_frames": ours}


def test_fixing_refuses_to_make_two_utterances_one(tmp_path: Path) -> None:
    ids = {"b-c": "a", "c": "a-b", "a": "z"}
    files = {name: "".join(f"{key} {ids[key]}\n" for key in sorted(ids)) for name in ("utt2spk", "text", "wav.scp")}
    with pytest.raises(UserError, match="if utterance ids get the speaker id as a prefix, two ids become equal"):
        fix_data_dir(lay(tmp_path, files))
    assert contents(tmp_path) == files


def test_fixing_refuses_to_leave_nothing(tmp_path: Path) -> None:
    files = PLAIN | {"text": "x ONE\ny TWO\n"}
    path = lay(tmp_path, files)
    with pytest.raises(UserError, match=r"no utterance has a line in each of utt2spk, text, wav\.scp; stage 1"):
        fix_data_dir(path)
    assert contents(path) == files


def test_fixing_any_shuffled_and_damaged_directory_leaves_no_fault(tmp_path: Path) -> None:
    draw = random.Random(7)
    fixed, junk = 0, ("", "q\n", "al-1 x y\n", "\t\n", "bo-1 \udcff\n", "aa 1 2 3\n")
    for trial in range(60):
        files = dict(draw.choice((PLAIN, SEGMENTED)))
        for name in draw.sample(sorted(files), 2):
            lines = files[name].splitlines(keepends=True)
            draw.shuffle(lines)
            lines[draw.randrange(3) % len(lines)] += draw.choice(junk)
            files[name] = "".join(lines[draw.randrange(2) :])
        path = lay(tmp_path / f"{trial}", files)
        try:
            fix_data_dir(path)
        except UserError:
            continue  # no utterance was complete
        fixed += 1
        assert faults(path) == []
    assert fixed > 40


def test_fixing_keeps_what_only_kaldi_reads_in_step_and_removes_what_it_cannot_complete(tmp_path: Path) -> None:
    kaldis = {"spk2gender": "al m\nbo f\nzz f\n", "utt2lang": "al-1 en\nal-2 en\nbo-1 en\n", "spk2warp": "al 1.0\n"}
    path = lay(tmp_path, PLAIN | kaldis | {"text": "al-1 ONE\nal-2 TWO\n"})
    changes = fix_data_dir(path)
    assert "spk2gender: dropped bo, zz: no remaining utterance needs it" in changes
    left = contents(path)
    assert (left["spk2gender"], left["utt2lang"], left["spk2warp"]) == ("al m\n", "al-1 en\nal-2 en\n", "al 1.0\n")
    lay(path, {"spk2warp": "cy 1.0\n"})
    assert "spk2warp: removed, as it lacks al" in fix_data_dir(path)
    assert faults(path) == []
    write_data_dir(path, [Utterance("a", "/a.wav", 0.0, None, "a", "A")])
    assert contents(path).keys() == {"wav.scp", "text", "utt2spk", "spk2utt"}, "they were of other utterances"
