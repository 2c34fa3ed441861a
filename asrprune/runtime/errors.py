"""A user's mistake: the one exception that stands for it, and how a script ends with it."""

import sys
from collections.abc import Callable


class UserError(ValueError):
    """Bad input, said in one sentence: what is wrong, where (``file:line: id:``), the rule, the fix.

    The command line prints the sentence and exits with 1; any other exception is our own bug and keeps its traceback.
    """


def exit_status(work: Callable[[], object]) -> int:
    """Do a script's work: 0 if it ends well, 1 if the user must mend something, which is said on stderr."""
    try:
        work()
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0
