"""The exception for mistakes of the user, and the exit status of a script."""

import re
import sys
from collections.abc import Callable

# all but line feeds and tabs; what turns the direction of writing; halves of characters, from names that are not UTF-8
_COMMANDS = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class UserError(ValueError):
    """A mistake of the user, described in one sentence: where (``file:line: id:``), what is wrong, the rule, the fix.

    The command line prints the sentence and exits with 1. Any other exception is a bug and keeps its traceback.
    """


def first_line(error: object) -> str:
    """Return the first line of the message of an error, or its type if the message is empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def exit_status(work: Callable[[], object]) -> int:
    """Run ``work`` and return the exit status of a script: 0, or 1 after a ``UserError``, which is printed on stderr."""
    try:
        work()
    except UserError as error:
        print(printable(str(error)), file=sys.stderr)
        return 1
    return 0


def printable(text: str) -> str:
    """Spell out what a terminal would obey or cannot print: a name or a transcript may be a stranger's.

    >>> print(printable("a\x1b[2Jb"))
    a\\x1b[2Jb
    """
    return _COMMANDS.sub(lambda match: ascii(match[0])[1:-1], text)
