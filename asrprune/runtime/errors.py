"""The exception for mistakes of the user, and parts of messages."""

import re
from collections.abc import Callable, Iterable

# control characters except line feed and tab; marks that change the direction of writing; surrogates, from names not in UTF-8
COMMANDS = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class UserError(ValueError):
    """A mistake of the user, described in one sentence: where (``file:line: id:``), what is wrong, the rule, the fix.

    The command line prints the sentence and exits with 1. Any other exception is a bug and keeps its traceback.
    """


def first_line(error: object) -> str:
    """Return the first line of the message of an error, or its type if the message is empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def did_you_mean(name: str, known: Iterable[str], current: Callable[[str], str] = str) -> str:
    """Return the end of a sentence that proposes the most similar of the ``known`` names; empty if none is similar.

    ``current`` replaces an old name by the current one.

    >>> did_you_mean("itertive", ["iterative", "every"])
    '; did you mean iterative?'
    """
    from difflib import get_close_matches  # only for an error

    return "".join(f"; did you mean {current(close)}?" for close in get_close_matches(name, list(known), 1, 0.65))


def printable(text: str) -> str:
    """Escape characters that control a terminal or cannot be printed; names and transcripts may come from strangers.

    >>> print(printable("a\x1b[2Jb"))
    a\\x1b[2Jb
    """
    return COMMANDS.sub(lambda match: ascii(match[0])[1:-1], text)
