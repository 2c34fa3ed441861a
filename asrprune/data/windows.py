"""The windows of long recordings. A model hears speech best in pieces as long as the utterances that it was trained on."""

import numpy as np
from pydantic import Field

from asrprune.runtime.records import Record

_HOUR = 3600.0  # far more than fits into memory


class Windows(Record):
    """The division of long recordings into windows."""

    one_piece_s: float = Field(ge=0, le=_HOUR)  # a recording up to this length is not divided
    window_s: float = Field(gt=0, le=_HOUR)
    overlap_s: float = Field(ge=0, le=_HOUR)
    pause_db: float | None = Field(default=None, ge=0, le=100)  # a pause is so much quieter than the loudest part of its window


# the longest, as attention needs memory for pairs of frames
WINDOWS = Windows(one_piece_s=60.0, window_s=30.0, overlap_s=4.0, pause_db=20.0)
_SHORTEST_S = 2.0


def fitting(lengths_s: np.ndarray) -> Windows:
    """Return the windows for a model that is trained on utterances of these lengths (U,), in seconds.

    A recording is divided if it is longer than the longest utterance. A window is as long as all but the longest 5 % of the
    utterances, and shares a third with the next one if it has no pause to end in.

    >>> fitting(np.linspace(1.0, 5.0, 101))
    Windows(one_piece_s=5.0, window_s=4.8, overlap_s=1.6, pause_db=20.0)
    """
    window = float(np.clip(round(float(np.percentile(lengths_s, 95)), 2), _SHORTEST_S, WINDOWS.window_s))
    return Windows(
        one_piece_s=round(float(np.clip(lengths_s.max(), window, WINDOWS.one_piece_s)), 2),
        window_s=window,
        overlap_s=round(min(window / 3, WINDOWS.overlap_s), 2),
        pause_db=WINDOWS.pause_db,
    )
