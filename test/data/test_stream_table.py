"""A table read line by line is the table read at once, and is refused with the same words."""

from pathlib import Path

import pytest

from asrprune.data.tables import read_table, stream_table
from asrprune.runtime.errors import UserError

GOOD = "a-1 one\na-2 two words\nb-1 ünï\n"
FAULTS = {
    "missing": None,
    "empty": b"",
    "no end": b"a one\nb two",
    "unsorted": b"b one\na two\n",
    "twice": b"a one\na two\n",
    "no value": b"a one\nb\n",
    "empty line": b"a one\n\nb two\n",
    "a space too many": b"a  one\n",
    "not UTF-8": b"a one\nb \xff\n",
    "carriage return": b"a one\r\nb two\r\n",
    "byte order mark": "\ufeffa one\n".encode(),
}


def test_rows_are_those_of_the_whole_table(tmp_path: Path) -> None:
    (tmp_path / "text").write_text(GOOD)
    assert dict(stream_table(tmp_path / "text")) == read_table(tmp_path / "text") != {}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_those_of_the_whole_table(name: str, tmp_path: Path) -> None:
    content = FAULTS[name]
    if content is not None:
        (tmp_path / "text").write_bytes(content)
    with pytest.raises(UserError) as whole:
        read_table(tmp_path / "text")
    with pytest.raises(UserError) as streamed:
        list(stream_table(tmp_path / "text"))
    assert str(streamed.value) == str(whole.value)
