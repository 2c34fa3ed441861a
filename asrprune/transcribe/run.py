"""Transcribe many recordings, to the screen or to a file for each. If one cannot be read, the others are still transcribed."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile

from asrprune.decode.words import Hypothesis
from asrprune.runtime.errors import UserError
from asrprune.runtime.executor import processes
from asrprune.runtime.files import write_text
from asrprune.runtime.progress import track
from asrprune.transcribe import listener
from asrprune.transcribe.formats import HEADS, SUBTITLES, ctm_name, line_name, write_as
from asrprune.transcribe.recordings import STDIN, RecordingFile, check_names

_LARGEST_PART = 32  # recordings that a process transcribes at a time


def transcribe_all(
    transcribe: Callable[[Sequence[str]], Iterable[Hypothesis | UserError]],
    recordings: Sequence[RecordingFile],
    form: str,
    output_dir: Path | None,
    say: Callable[[str], object],
    num_jobs: int = 1,
    num_gpus: int = 0,
) -> list[str]:
    """Transcribe recordings; return a sentence for each one that cannot be read.

    Args:
        transcribe: ``Recognizer.transcribe_many``, with a choice of layers; several processes pickle it.
        recordings: what to transcribe.
        form: the format; see ``formats``.
        output_dir: the directory to write transcripts to; None: ``say`` prints them.
        say: prints a transcript, or the path of one.
        num_jobs: processes that share the recordings; the transcripts keep their order.
        num_gpus: the GPUs that the processes share; 0: the CPU.

    Raises:
        UserError: two results would have the same name, or a result would replace a file beside its recording, or subtitles of
            several recordings would be printed as one, or several processes would read standard input.
    """
    if output_dir is not None:
        check_names(recordings, _folded if _ignores_case(output_dir) else None)
        _keep_what_is_there(recordings, form, output_dir)
    elif form in SUBTITLES and len(recordings) > 1:
        raise UserError(f"--format {form}: subtitles of {len(recordings)} recordings need a file each; add --output-dir DIR")
    elif form == "ctm":
        check_names(recordings, lambda recording: ctm_name(recording.name))
    elif form in ("text", "tsv"):
        check_names(recordings, lambda recording: line_name(recording.entry))
    if output_dir is None and form in HEADS:
        say(HEADS[form])
    if num_jobs > 1 and any(recording.entry == STDIN for recording in recordings):
        raise UserError(f"--nj {num_jobs}: only one process can read standard input; remove --nj")
    alone = len(recordings) == 1 or (output_dir is None and sys.stdout.isatty())  # the transcripts show the progress
    faults = []
    entries = [recording.entry for recording in recordings]
    with processes(min(num_jobs, len(entries)), num_gpus) as executor:
        work, parts = partial(_listed, transcribe), _parts(entries, num_jobs)
        results = transcribe(entries) if num_jobs == 1 else _told(executor.map(work, parts))
        shown = results if alone else track(results, "recordings", len(recordings))
        for recording, found in zip(recordings, shown, strict=True):
            if isinstance(found, UserError):
                faults.append(str(found))
            else:
                _write(recording, found, form, output_dir, say)
    return faults


def _folded(recording: RecordingFile) -> str:
    return str(recording.name).casefold()


def _ignores_case(folder: Path) -> bool:
    """Return whether the file system takes A.txt and a.txt for the same file, as that of macOS does."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=folder, prefix=".CASE_") as probe:
            return os.path.exists(os.path.join(folder, os.path.basename(probe.name).lower()))
    except OSError:  # it cannot be written to; the first result says so
        return False


def _parts(entries: Sequence[str], num_jobs: int) -> Iterator[Sequence[str]]:
    """Yield what a process transcribes at a time: several parts for each, so that all end at about the same time."""
    size = min(_LARGEST_PART, max(1, len(entries) // (4 * num_jobs)))
    return (entries[start : start + size] for start in range(0, len(entries), size))


def _listed(
    transcribe: Callable[[Sequence[str]], Iterable[Hypothesis | UserError]], entries: Sequence[str]
) -> tuple[list[Hypothesis | UserError], set[tuple[int, int, int]]]:
    """Transcribe in another process; return the kinds of its recordings, too."""
    return list(transcribe(entries)), listener.told


def _told(
    parts: Iterable[tuple[list[Hypothesis | UserError], set[tuple[int, int, int]]]],
) -> Iterator[Hypothesis | UserError]:
    """Yield the results of other processes, and log here what they could not."""
    for results, kinds in parts:
        for kind in sorted(kinds):
            listener.tell(*kind)
        yield from results


def _result_path(recording: RecordingFile, form: str, output_dir: Path) -> Path:
    return output_dir / recording.name.parent / f"{recording.name.name}.{'txt' if form == 'text' else form}"


def _keep_what_is_there(recordings: Sequence[RecordingFile], form: str, output_dir: Path) -> None:
    """Raise a ``UserError`` if a result would replace a recording, or a file beside its recording, such as its reference."""
    for recording in recordings:
        path = _result_path(recording, form, output_dir)
        folder = os.path.dirname(recording.entry) or "."
        if recording.entry != STDIN and path.exists() and os.path.isdir(folder) and path.parent.samefile(folder):
            raise UserError(
                f"{path}: is there already, beside its recording, and may be its reference; remove it, or give another"
                " --output-dir"
            )


def _write(
    recording: RecordingFile, hypothesis: Hypothesis, form: str, output_dir: Path | None, say: Callable[[str], object]
) -> None:
    """Write the transcript of a recording, or print it with ``say``."""
    transcript = write_as(form, str(recording.name) if form == "ctm" else recording.entry, hypothesis)
    if output_dir is not None:
        path = _result_path(recording, form, output_dir)
        rows = [row for row in (HEADS.get(form), transcript) if row]
        write_text(path, "".join(f"{row}\n" for row in rows))
        say(str(path))
    elif form == "text":
        say(f"{line_name(recording.entry)} {transcript}".rstrip())
    elif transcript:
        say(transcript)
