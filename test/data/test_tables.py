"""Tables are read in bytewise order, whatever the order of the file, and side by side; memory does not grow with them."""

import random
import re
import tracemalloc
from pathlib import Path

import pytest
from bad_directories import lay

from asrprune.data.check import check_data_dir
from asrprune.data.tables import Table, joined, read_table
from asrprune.runtime.errors import UserError

DIRECTORY = {
    "wav.scp": "ra /a.wav\nrb /b.wav\nrc /c.wav\n",
    "segments": "al-1 rb 0 1.5\nal-2 ra 1.5 2\nbo-1 rx 0.25 3\ncy-1 rb 0 1\n",
    "text": "al-1 ONE\nal-3 TWO\nbo-1 <s>\ncy-1 X\n",
    "utt2spk": "al-1 al\nal-2 al\nbo-1 al\ncy-1 cy\n",
    "spk2utt": "al al-2 al-1 bo-1\nbo bo-2\n",
}


def test_rows_come_in_order_with_their_lines_as_often_as_they_are_read(tmp_path: Path) -> None:
    (tmp_path / "sorted").write_text("a 1\na 2\n\nb 3\né 4\n")
    (tmp_path / "not").write_text("é 4\na 1\nb 3\na 2\n\n")
    ordered, other = Table(tmp_path / "sorted"), Table(tmp_path / "not")
    for _ in range(2):
        assert list(ordered.numbered()) == [("a", "1", 1), ("b", "3", 4), ("é", "4", 5)]
        assert list(other.numbered()) == [("a", "1", 2), ("b", "3", 3), ("é", "4", 1)]
        assert list(ordered) == list(other) == [("a", "1"), ("b", "3"), ("é", "4")]
    assert len(ordered) == len(other) == 3


def test_joining_is_looking_up() -> None:
    draw = random.Random(1)
    for _ in range(300):
        left, right = ({key: key.upper() for key in draw.sample("abcdef", draw.randrange(7))} for _ in range(2))
        keys = sorted(left.keys() | right.keys())
        expected = [tuple((key, side[key]) if key in side else None for side in (left, right)) for key in keys]
        assert list(joined(sorted(left.items()), sorted(right.items()))) == expected


@pytest.mark.parametrize("name", DIRECTORY)
def test_what_is_wrong_between_files_does_not_depend_on_their_order(name: str, tmp_path: Path) -> None:
    def faults(files: dict[str, str]) -> list[str]:
        found = check_data_dir(lay(tmp_path, files), audio=False, features=False).faults
        return sorted(re.sub(r":\d+:", ":", fault) for fault in found if "stands after" not in fault)

    expected = faults(DIRECTORY)
    assert len(expected) == 8
    backwards = "".join(DIRECTORY[name].splitlines(keepends=True)[::-1])
    assert faults(DIRECTORY | {name: backwards}) == expected


def test_memory_does_not_grow_with_a_directory(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        ids = [f"s{i // 100:03d}-{i:05d}" for i in range(count)]
        groups = (ids[i : i + 100] for i in range(0, count, 100))
        files = {name: "".join(f"{utt} {utt[:4]}\n" for utt in ids) for name in ("wav.scp", "text", "utt2spk")}
        files["spk2utt"] = "".join(f"{utts[0][:4]} {' '.join(utts)}\n" for utts in groups)
        lay(tmp_path, files)
        tracemalloc.start()
        assert check_data_dir(tmp_path, audio=False, features=False).faults == []
        return [tracemalloc.get_traced_memory()[1], tracemalloc.stop()][0]

    peak(100)  # imports and caches
    assert peak(20_000) < peak(2_000) + 50_000  # 25 bytes a row of one file would be more


def test_the_faults_of_a_file_do_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asrprune.data.tables._MOST_FOUND", 50)
    (tmp_path / "text").write_text("\n" * 10_000)
    with pytest.raises(UserError, match=r"text:1: : the line is empty(.*\n)+\.\.\. and 31 more$"):
        read_table(tmp_path / "text")
