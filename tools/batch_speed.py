"""Print the time of short recordings in batches as a share of that one by one, and how many texts differ (docs/transcribe.md).

    python tools/batch_speed.py MODEL RECORDINGS

MODEL is an experiment or an exported model, RECORDINGS a folder or files. Both ways take turns; the least processor time of
three rounds counts, with reading, features and decoding.
"""

import sys
import time
from unittest.mock import patch

from asrprune.recognizer import Recognizer
from asrprune.runtime.errors import UserError
from asrprune.runtime.failures import exit_status
from asrprune.transcribe import listener
from asrprune.transcribe.recordings import find_recordings


def main(rounds: int = 3) -> None:
    """Print a line."""
    if len(sys.argv) < 3:
        raise UserError("give a model and recordings: python tools/batch_speed.py MODEL RECORDINGS")
    asr, (found, _) = Recognizer.load(sys.argv[1]), find_recordings(sys.argv[2:])
    entries = [recording.entry for recording in found]
    runs = [(_run(asr, entries, 0.0), _run(asr, entries, listener.BATCH_S)) for _ in range(rounds)]
    alone, together = (min(run[way] for run in runs) for way in (0, 1))  # of pairs of seconds and texts
    differ = sum(text != other for text, other in zip(alone[1], together[1], strict=True))
    share = together[0] / alone[0]
    print(f"{len(entries)} recordings: {alone[0]:.2f} s one by one, {together[0]:.2f} s in batches, {share:.2f}")
    print(f"{differ} texts differ, {sum(map(bool, together[1]))} are not empty")


def _run(asr: Recognizer, entries: list[str], batch_s: float) -> tuple[float, list[str]]:
    """Return the seconds of the processor, and the texts."""
    with patch.object(listener, "BATCH_S", batch_s):
        started = time.process_time()
        found = list(asr.transcribe_many(entries))
    return time.process_time() - started, [str(one) if isinstance(one, UserError) else one.text for one in found]


if __name__ == "__main__":
    sys.exit(exit_status(main))
