"""Sentences for the errors that the user can fix, and the exit status of a script."""

import errno
import os
import re
import sys
from collections.abc import Callable

from asrprune.runtime.errors import UserError, printable
from asrprune.runtime.packages import missing
from asrprune.runtime.signals import raise_interrupts, status_of

INTERRUPTED = "interrupted; no file is incomplete, run the same command again"
_LIMITS = {  # of the machine; a library may raise an error of its own after one of these
    errno.ENOSPC: "free some disk space",
    errno.EDQUOT: "free some of your disk quota",
    errno.EFBIG: "raise the limit on the size of files, `ulimit -f`",
    errno.EMFILE: "raise the limit on open files, `ulimit -n`, or lower train.num_workers or --nj",
    errno.ENFILE: "this machine has too many files open; close some programs",
    errno.ENOMEM: "lower batch.max_frames (training) or decode.max_frames",
}
_OS_FIXES = {
    **_LIMITS,
    errno.EAGAIN: "raise the limit on processes, `ulimit -u`, or lower train.num_workers or --nj",
    errno.EACCES: "choose a directory that you may write to",
    errno.EPERM: "choose a directory that you may write to",
    errno.EROFS: "choose a directory that can be written",
    errno.ENOTDIR: "a part of the path is a file; choose another path",
    errno.EEXIST: "a file is in the place of a directory; choose another path",
    errno.EISDIR: "this is a directory, a file is needed here",
    errno.ENOENT: "correct the path, or make it",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "this link leads back to itself; remove it",
    errno.EIO: "the disk, or the file system of the network, fails; the log of the system has the reason",
    errno.ESTALE: "the file system of the network has replaced it",
    errno.EPIPE: "the program that read the output has ended",
}
_KNOWN = (  # errors of libraries: pattern, sentence
    (
        r"OutOfMemoryError|MemoryError|can't allocate memory",
        "out of memory; lower batch.max_frames (training) or decode.max_frames",
    ),
    (
        r"ImportError: .*(failed to map segment|cannot allocate memory)",
        "a library does not fit into memory; raise the limit on memory, `ulimit -v`",
    ),
    (
        r"BrokenProcessPool|DataLoader worker .* (killed|exited)",
        "a worker process was killed, perhaps for lack of memory; lower --nj, or set train.num_workers=0",
    ),
    (
        r"DataLoader timed out",
        "the processes that read features have sent nothing for ten minutes; see whether the disk of the features answers, or"
        " set train.num_workers=0",
    ),
    (
        r"Too many open files|received 0 items of ancdata",
        f"too many files are open; {_LIMITS[errno.EMFILE]}",
    ),
    (
        r"No space left|Disk quota|File too large|PytorchStreamWriter failed writing",
        "a file cannot be written; free some disk space or quota",
    ),
)
_FROM_WORKER = re.compile(r"\ACaught \w+ in DataLoader worker.*^[\w.]*UserError: ", re.DOTALL | re.MULTILINE)


def user_message(error: Exception) -> str | None:
    """Return a sentence with the fix if the user can fix the error; None if it is a bug."""
    if isinstance(error, UserError):
        return _FROM_WORKER.sub("", str(error)).rstrip()  # torch puts the whole traceback of a worker into the message
    if isinstance(error, ModuleNotFoundError) and (sentence := missing(error.name)):
        return sentence
    if isinstance(error, UnicodeEncodeError) and error.reason == "surrogates not allowed":
        return f"{_word_at(error.object, error.start)}: is not UTF-8, and other names cannot be written into files; rename it"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in (_OS_FIXES if cause is error else _LIMITS):
            where = f"{cause.filename}: " if cause.filename else ""
            return f"{where}{os.strerror(cause.errno).lower()}; {_OS_FIXES[cause.errno]}, then run the command again"
        cause = cause.__cause__ or cause.__context__  # torch.save raises another error after that of a full disk
    said = f"{type(error).__name__}: {error}"
    fixes = (sentence for form, sentence in _KNOWN if re.search(form, said))
    return next((f"{sentence}, then run the command again ({said.splitlines()[0]})" for sentence in fixes), None)


def _word_at(text: str, place: int) -> str:
    """Return what lies around a place, up to blanks and quotes."""
    return re.split(r"[\s\"']", text[:place])[-1] + re.split(r"[\s\"']", text[place:])[0]


def exit_status(work: Callable[[], object]) -> int:
    """Run ``work``, the whole of a script, and return its exit status; print a sentence on stderr if it fails.

    Signals end it like Ctrl-C. A bug keeps its traceback.
    """
    raise_interrupts()
    try:
        work()
    except KeyboardInterrupt as error:
        sentence, status = INTERRUPTED, status_of(error)
    except Exception as error:
        sentence, status = user_message(error) or "", 1
        if not sentence:
            raise
    else:
        return 0
    print(printable(sentence), file=sys.stderr)
    return status
