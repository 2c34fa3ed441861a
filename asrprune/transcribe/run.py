"""Transcribe many recordings, to the screen or to a file for each. If one cannot be read, the others are still transcribed."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from asrprune.decode.words import Hypothesis
from asrprune.runtime.errors import UserError
from asrprune.runtime.files import write_text
from asrprune.runtime.progress import track
from asrprune.transcribe.formats import HEADS, SUBTITLES, write_as
from asrprune.transcribe.recordings import RecordingFile, check_names


def transcribe_all(
    transcribe: Callable[[str], Hypothesis],
    recordings: Sequence[RecordingFile],
    form: str,
    output_dir: Path | None,
    say: Callable[[str], object],
) -> list[str]:
    """Transcribe recordings; return a sentence for each one that cannot be read.

    Args:
        transcribe: ``Recognizer.transcribe``, with a choice of layers.
        recordings: what to transcribe.
        form: the format; see ``formats``.
        output_dir: the directory to write transcripts to; None: ``say`` prints them.
        say: prints a transcript, or the path of one.

    Raises:
        UserError: two results would have the same name, or subtitles of several recordings would be printed as one.
    """
    if output_dir is not None:
        check_names(recordings)
    elif form in SUBTITLES and len(recordings) > 1:
        raise UserError(f"--format {form}: subtitles of {len(recordings)} recordings need a file each; add --output-dir DIR")
    elif form in HEADS:
        say(HEADS[form])
    alone = len(recordings) == 1 or (output_dir is None and sys.stdout.isatty())  # the transcripts show the progress
    faults = []
    for recording in recordings if alone else track(recordings, "recordings"):
        try:
            hypothesis = transcribe(recording.entry)
        except UserError as error:
            faults.append(str(error))
            continue
        transcript = write_as(form, str(recording.name) if form == "ctm" else recording.entry, hypothesis)
        if output_dir is not None:
            path = output_dir / recording.name.parent / f"{recording.name.name}.{'txt' if form == 'text' else form}"
            rows = [row for row in (HEADS.get(form), transcript) if row]
            write_text(path, "".join(f"{row}\n" for row in rows))
            say(str(path))
        elif form == "text":
            say(f"{recording.entry} {transcript}".rstrip())
        elif transcript:
            say(transcript)
    return faults
