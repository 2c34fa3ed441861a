"""The one exception that stands for a user's mistake."""


class UserError(ValueError):
    """Bad input, said in one sentence: what is wrong, where (``file:line: id:``), the rule, the fix.

    The command line prints the sentence and exits with 1; any other exception is our own bug and keeps its traceback.
    """
