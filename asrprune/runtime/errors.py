"""The exception for mistakes of the user, and the exit status of a script."""

import sys
from collections.abc import Callable


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
        print(error, file=sys.stderr)
        return 1
    return 0
