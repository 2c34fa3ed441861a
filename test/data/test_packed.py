"""Packed strings are the list that they were made of."""

import pytest

from asrprune.data.packed import Ascending, Packed

STRINGS = ["one", "", "zwölf Boxkämpfer", "三", "a b"]


def test_it_is_the_list() -> None:
    packed = Packed(STRINGS)
    assert list(packed) == STRINGS
    assert len(packed) == 5
    assert [packed[i] for i in range(-5, 5)] == STRINGS * 2
    assert packed[1:4] == STRINGS[1:4]
    assert packed[::-2] == STRINGS[::-2]
    assert packed.index("三") == 3
    assert "four" not in packed
    for index in (5, -6):
        with pytest.raises(IndexError):
            packed[index]


def test_it_grows() -> None:
    packed = Packed()
    assert list(packed) == []
    for string in STRINGS:
        packed.append(string)
    assert list(packed) == STRINGS


def test_any_of_ascending_strings_is_found() -> None:
    strings = sorted(STRINGS)
    packed = Ascending(strings)
    for first in [*strings, "!", "b", "四"]:  # what was found before must not matter
        for string in [*strings, "!", "b", "四"]:
            packed.find(first)
            assert packed.find(string) == (strings.index(string) if string in strings else -1)
    assert Ascending().find("") == -1
