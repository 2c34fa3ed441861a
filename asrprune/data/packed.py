"""Millions of strings in one block of memory. A list needs 57 bytes more per string."""

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import overload


class Packed(Sequence[str]):
    """A sequence of strings, stored as one block of UTF-8 bytes and the end position of each string."""

    def __init__(self, strings: Iterable[str] = ()) -> None:
        self._bytes, self._ends = bytearray(), array("q")
        for string in strings:
            self.append(string)

    def append(self, string: str) -> None:
        """Add a string at the end."""
        self._bytes += string.encode()
        self._ends.append(len(self._bytes))

    def __len__(self) -> int:
        return len(self._ends)

    @property
    def content(self) -> "tuple[bytearray, array[int]]":
        """The bytes of all strings, and where each ends."""
        return self._bytes, self._ends

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]  # supports negative indices; raises IndexError
        return self._bytes[self._ends[index - 1] if index else 0 : self._ends[index]].decode()

    def __iter__(self) -> Iterator[str]:
        start = 0
        for end in self._ends:
            yield self._bytes[start:end].decode()
            start = end


class Ascending(Packed):
    """Packed strings in ascending order, with a search."""

    _last = 0

    def find(self, string: str) -> int:
        """Return the index of a string, or -1. The string found last and the one after it are compared first."""
        for place in range(self._last, min(self._last + 2, len(self))):
            if self[place] == string:
                self._last = place
                return place
        place = bisect_left(self, string)
        if place == len(self) or self[place] != string:
            return -1
        self._last = place
        return place
