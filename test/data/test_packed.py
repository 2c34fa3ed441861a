"""Packed strings are the list that they were made of."""

import pytest

from asrprune.data.packed import Packed

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
