"""Damaged data directories: what Kaldi's validator refuses is refused here, too; more is refused only on purpose."""

import json
import re
from pathlib import Path

import pytest
from bad_directories import TABLES, WITH_SEGMENTS, bad_directories, lay

from asrprune.data.check import check_data_dir
from asrprune.data.fix import fix_data_dir
from asrprune.runtime.errors import UserError

BAD = bad_directories()
# recorded by tools/record_kaldi.py
ACCEPTED = set(json.loads((Path(__file__).parents[1] / "fixtures/kaldi/accepted.json").read_text(encoding="utf-8")))
STRICTER = {  # what only asrprune refuses: a pattern of names, and why
    r"has a tab|has two blanks|has a blank ": "a line has one form, so that equal tables are equal files; fix-data mends it",
    r"has carriage returns": "the last field of each line would end with one; fix-data removes them",
    r"has a NUL": "no path or word holds one; fix-data removes it",
    r"is Latin-1": "without its encoding a file cannot be read as characters; the message names iconv",
    r"has an id without a value": "an empty path, number or transcript is of no use, and hides a mistake",
    r": `(x|nan|inf|1,5|1e3|99999999999|ra 0 x|ra 0 inf)`": "awk compares what is not a number as text",
    r"utt2speed": "Kaldi does not know this file",
    r"segments: `ra -0.5 1.0`": "a recording has no samples before its start",
    r"segments: `ra 1.0 1.004`": "an utterance below 5 ms has no frame; fix-data drops it",
    r"text: `go (\u200b |\u2581)left`": "one is not seen, one is sentencepiece's mark of a word; both make other words",
}


def test_all_kinds_of_damage_are_there() -> None:
    assert len(BAD) > 450
    assert BAD.keys() > ACCEPTED


@pytest.mark.parametrize("tables", [TABLES, WITH_SEGMENTS])
def test_the_undamaged_directories_are_right(tables: dict[str, str], tmp_path: Path) -> None:
    assert check_data_dir(lay(tmp_path / "d", tables), audio=False, features=False).faults == []


def test_the_verdicts_are_those_of_kaldi_or_stricter_on_purpose(tmp_path: Path) -> None:
    used = set()
    for place, (name, bad) in enumerate(BAD.items()):
        path = bad.write(tmp_path / str(place))
        faults = check_data_dir(path, audio=False, features=False).faults
        if name not in ACCEPTED:
            assert faults, f"Kaldi refuses it: {name}"
        elif faults:
            why = [pattern for pattern in STRICTER if re.search(pattern, name)]
            assert why, (name, faults)
            used.add(why[0])
        assert all(re.match(rf"{path}/\S+?(:\d+: .*)?: .+", fault) for fault in faults), faults
        assert not faults or bad.file in " ".join(faults) or "is not there" in name, (name, faults)
    assert used == STRICTER.keys()


def test_fixing_leaves_a_right_directory_or_says_why_not(tmp_path: Path) -> None:
    refused = []
    for place, (name, bad) in enumerate(BAD.items()):
        path = bad.write(tmp_path / str(place))
        try:
            fix_data_dir(path)
        except UserError as error:
            refused.append((name, str(error)))
            assert {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()} == {
                file: text.encode("utf-8", "surrogateescape") for file, text in bad.tables.items()
            }
        else:
            left = check_data_dir(path, audio=False, features=False).faults
            assert left == [] or name.startswith("text is not there"), (name, left)
    assert len(refused) < 20, refused
