"""A user's mistake: the one exception that stands for it, how a script ends with it, and how text gets to a terminal."""

import re
import sys
from collections.abc import Callable

# all but line feeds and tabs; what turns the direction of writing; halves of characters, from names that are not UTF-8
_COMMANDS = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class UserError(ValueError):
    """Bad input, said in one sentence: what is wrong, where (``file:line: id:``), the rule, the fix.

    The command line prints the sentence and exits with 1; any other exception is our own bug and keeps its traceback.
    """


def exit_status(work: Callable[[], object]) -> int:
    """Do a script's work: 0 if it ends well, 1 if the user must mend something, which is said on stderr."""
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
