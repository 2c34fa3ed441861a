"""The edit distance of two sequences of words, by editdistance, or by rapidfuzz for Python 3.13."""

import sys
from collections.abc import Sequence

if sys.version_info < (3, 13):
    from editdistance import distance as _distance
else:
    from rapidfuzz.distance.Levenshtein import distance as _distance


def edit_distance(hypothesis: Sequence[str], reference: Sequence[str]) -> int:
    """Return the smallest number of substitutions, deletions and insertions that turn one sequence into the other.

    >>> edit_distance("go stop left".split(), "go left right".split())
    2
    """
    return int(_distance(hypothesis, reference))
