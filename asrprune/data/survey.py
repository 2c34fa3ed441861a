"""The sizes of data directories, what they share, and the words and characters that are not in the training set."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from unicodedata import normalize

from asrprune.data.check import Checked
from asrprune.data.tables import Table, joined, some


def sizes(sets: Sequence[Checked]) -> Iterator[str]:
    """Yield sentences about the size of each set, and its words and characters that the first set (for training) lacks."""
    known = _words(sets[0].tables["text"])
    for one in sets:
        count = sum(len(text.split()) for _, text in one.tables["text"])
        words = known if one is sets[0] else _words(one.tables["text"])
        hours = "" if one.audio_s is None else f", {one.audio_s / 3600:.2f} hours"
        yield (
            f"{one.path}: {len(one.tables['utt2spk'])} utterances, {len(one.tables['spk2utt'])} speakers{hours}, {count} words,"
            f" {len(words)} of them different, {len(set().union(*words))} characters"
        )
        for what, new in (("words", words - known), ("characters", set().union(*words) - set().union(*known))):
            if new:
                yield f"{one.path}: {what} that {sets[0].path} lacks ({len(new)}): {some(sorted(new))}"


def lookalikes(sets: Sequence[Checked]) -> Iterator[str]:
    """Yield a sentence about words that look the same, but have different characters: they count as different words."""
    written_as: dict[str, set[str]] = {}
    for word in set().union(*(_words(one.tables["text"]) for one in sets)):
        if not word.isascii():
            written_as.setdefault(normalize("NFC", word), set()).add(word)
    if several := sorted(word for word, forms in written_as.items() if len(forms) > 1):
        yield (
            f"{', '.join(str(one.path) for one in sets)}: words that look the same, but are written with different characters"
            f" ({len(several)}): {some(several)}; they count as different words; write all transcripts in one form, for"
            " example: uconv -x any-nfc"
        )


def leaks(sets: Sequence[Checked]) -> Iterator[str]:
    """Yield a sentence about the utterances, recordings and speakers that two sets share."""
    for one, other in combinations(sets, 2):
        shared = {
            "utterances": _shared(one.tables["utt2spk"], other.tables["utt2spk"]),
            "recordings": sorted(
                {entry for _, entry in one.tables["wav.scp"]} & {entry for _, entry in other.tables["wav.scp"]}
            ),
            "speakers": _shared(one.tables["spk2utt"], other.tables["spk2utt"]),
        }
        for what, names in shared.items():
            if names:
                yield f"{other.path}: {what} also in {one.path} ({len(names)}): {some(names)}; results on it look too good"


def _words(text: Table) -> set[str]:
    return {word for _, words in text for word in words.split()}


def _shared(one: Table, other: Table) -> list[str]:
    return [a[0] for a, b in joined(one, other) if a and b]
