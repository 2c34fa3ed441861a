"""Audio reading: mono float32 samples of a wav.scp entry. No other module reads audio.

An entry is a path that libsndfile can read (wav, flac, NIST SPHERE, ...), a headerless file with its format,
``PATH?rate=16000&encoding=s16be`` (or ``s16le``), a recording in an archive, ``PATH.ark:OFFSET``, as ESPnet writes them, or
Kaldi's ``command |``, which is refused without ``allow_pipes``.
Error messages name the file only; callers add ``file:line: id:`` in front.
"""

import functools
import io
import math
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt
import soundfile

from asrprune.features.ark import read_recording
from asrprune.features.container import CHECKED, check_complete, finished, is_unfinished
from asrprune.runtime.errors import UserError
from asrprune.runtime.planted import open_plain

Stamp = tuple[int, int]  # size and time of change of a file
Samples = npt.NDArray[np.floating[Any]]
# Times are commonly rounded to 10 ms, so a segment may end this much after its recording.
OVERSHOOT_S = 0.01
LOUDEST = 10.0  # times full scale; decoders of mp3 and ogg exceed 1 a little, 16-bit integers stored as floats by far
_RAW = re.compile(r"(?P<path>.+)\?rate=(?P<rate>[1-9]\d{0,6})&encoding=s16(?P<order>[bl])e")
_IN_ARK = re.compile(r"(?P<path>.+):(?P<offset>\d{1,18})")
_WORD = re.compile(r"""'([^']*)'|"([^"]*)"|((?:\\.|[^\s'"<>|;&()])+)""")  # of a shell command
_NO_LENGTH = 1 << 34  # no recording has so many samples; libsndfile says 2^63 - 1 for a flac that was written to a pipe
_COMPRESSED = ("FLAC", "OGG", "MP3")  # silence in them is 20,000 times smaller than in memory
_MOST_UNPACKED = 1 << 28  # samples; 4.7 hours at 16 kHz
_BLOCK = 1 << 20  # samples that are checked at a time


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """The header of a recording; ``num_samples`` is per channel."""

    sample_rate: int
    num_samples: int
    channels: int

    @property
    def duration_s(self) -> float:
        """The length in seconds."""
        return self.num_samples / self.sample_rate


class _Sound(soundfile.SoundFile):
    """A sound file that knows where libsndfile cannot seek.

    In an mp3 it seeks by a table of percentages, and was seen to be 0.4 s wrong. It can also lose frames, whose bits are in
    earlier ones. soundfile itself seeks after each read, if it can.
    """

    def seekable(self) -> bool:
        """Return whether parts can be read."""
        return bool(super().seekable() and self.format != "MP3")


@dataclass
class Recording:
    """An open recording, of which any part can be read."""

    entry: str
    sound: soundfile.SoundFile

    @property
    def info(self) -> AudioInfo:
        """The header."""
        return AudioInfo(self.sound.samplerate, self.sound.frames, self.sound.channels)

    def read(self, start: int, count: int, exact: bool = True) -> npt.NDArray[np.float32]:
        """Read ``count`` samples from ``start``: (N,), or (N, channels) of several channels.

        To read a part of an mp3, the whole mp3 is decoded first, unless the part need not be ``exact``.

        Raises:
            UserError: there are fewer, which libsndfile itself may not tell, or they are damaged.
        """
        if count > _MOST_UNPACKED and self.sound.format in _COMPRESSED:
            raise UserError(
                f"{self.entry}: {count / self.sound.samplerate / 3600:.1f} hours are compressed in one piece, and unpacked may"
                " not fit into memory; divide it with segments, or convert it: ffmpeg -i IN OUT.wav"
            )
        try:
            if exact and not self.sound.seekable() and (start, count) != (0, self.sound.frames):
                self.sound.seek(0)
                self.sound = _as_pcm(self.entry, self.sound)
            self.sound.seek(start)
            samples: npt.NDArray[np.float32] = self.sound.read(count, dtype="float32")
        except soundfile.LibsndfileError as error:
            raise _damaged(self.entry, error) from None
        if len(samples) < count:
            raise UserError(
                f"{self.entry}: is truncated: its header gives {self.sound.frames} samples, but reading stops at"
                f" {start + len(samples)}; copy or unpack it again"
            )
        check_samples(self.entry, samples)
        return samples

    def read_mono(self, start: int, count: int) -> npt.NDArray[np.float32]:
        """Read ``count`` samples (N,) from ``start``; see ``read``. Channels are mixed: the result is their mean."""
        if self.sound.channels == 1:
            return self.read(start, count)
        step, end = _BLOCK // self.sound.channels, start + count  # there may be a thousand channels
        parts = [self.read(at, min(step, end - at)).mean(axis=1) for at in range(start, end, step)]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)


def audio_info(entry: str, allow_pipes: bool = False) -> AudioInfo:
    """Read only the header of ``entry``; raise a ``UserError`` if it cannot be read."""
    with _open(entry, allow_pipes) as sound:
        return Recording(entry, sound).info


def stamp_of(entry: str) -> Stamp | tuple[Stamp, ...] | None:
    """Return size and time of change of the file of a wav.scp entry, to notice a replaced recording; None without a file.

    A command has a stamp for each file that it names.
    """
    if is_pipe(entry):
        stamps = map(_stamp, _words_of(entry))
        return tuple(stamp for stamp in stamps if stamp) or None
    try:
        return _stamp(match["path"] if (match := _in_archive(entry)) else _split_entry(entry)[0])
    except UserError:  # headerless, without its format
        return None


def is_pipe(entry: str) -> bool:
    """Return whether a wav.scp entry is a command, ``command |``."""
    return entry.rstrip().endswith("|")


def read_audio(
    entry: str, sample_rate: int, start_s: float = 0.0, end_s: float | None = None, allow_pipes: bool = False
) -> npt.NDArray[np.float32]:
    """Read samples (N,) of ``entry`` from ``start_s`` to ``end_s`` seconds (None: to the end), float32 in [-1, 1).

    Only the segment is read; a pipe is run once for all its segments in a row.

    Raises:
        UserError: see ``open_audio``; or the segment lies beyond the end of the file.
    """
    with open_audio(entry, sample_rate, allow_pipes) as recording:
        start, stop = _sample_range(entry, recording.info, start_s, end_s)
        return recording.read(start, stop - start)


@contextmanager
def open_audio(entry: str, sample_rate: int | None, allow_pipes: bool = False, streams: bool = False) -> Iterator[Recording]:
    """Open a recording, to read parts of it.

    Args:
        entry: the recording.
        sample_rate: the sample rate that it must have, in Hz; it must be mono, too. None: any rate, any number of channels.
        allow_pipes: run ``command |``.
        streams: read a named pipe, and standard input for ``-``, to the end first.

    Raises:
        UserError: the file is missing, truncated, not audio, not mono or not at ``sample_rate`` Hz; the entry is a pipe,
            without ``allow_pipes``. Reading raises it, too, if samples are damaged, not finite or far outside of [-1, 1).
    """
    with _open(entry, allow_pipes, streams) as sound:
        recording = Recording(entry, sound)
        if sample_rate is not None:
            check_format(entry, recording.info, sample_rate)
        yield recording


def check_audio(entry: str, allow_pipes: bool = False) -> AudioInfo:
    """Read the header and the last sample, which a truncated flac lacks; raise a ``UserError`` like ``read_audio``.

    A file of floating-point samples, which can have any value, is read completely.
    """
    with _open(entry, allow_pipes) as sound:
        recording = Recording(entry, sound)
        floats = sound.subtype in ("FLOAT", "DOUBLE") and sound.channels == 1
        for start in range(0 if floats else sound.frames - 1, sound.frames, _BLOCK):
            recording.read(start, min(_BLOCK, sound.frames - start), exact=False)
        return recording.info


def check_samples(name: str, samples: Samples) -> None:
    """Raise a ``UserError`` unless all samples are finite, and none is far outside of [-1, 1)."""
    peak = float(np.abs(samples).max(initial=0.0))
    if not math.isfinite(peak):
        raise UserError(f"{name}: contains samples that are not finite numbers; convert it again to 16-bit PCM")
    if peak > LOUDEST:
        raise UserError(
            f"{name}: its largest sample is {peak:g}, but samples lie in [-1, 1); divide 16-bit integers by 32768, or if the"
            " file is damaged, convert it again to 16-bit PCM"
        )


def check_format(entry: str, info: AudioInfo, sample_rate: int) -> None:
    """Raise a ``UserError`` unless the recording is mono and at ``sample_rate`` Hz."""
    if info.channels != 1:
        raise UserError(
            f"{entry}: has {info.channels} channels, but recordings must be mono; mix them: ffmpeg -i IN -ac 1 OUT.wav,"
            " or keep one: ffmpeg -i IN -af 'pan=mono|c0=c0' OUT.wav"
        )
    if info.sample_rate != sample_rate:
        raise UserError(
            f"{entry}: is sampled at {info.sample_rate} Hz, but must be at {sample_rate} Hz; convert it:"
            f" ffmpeg -i IN -ar {sample_rate} OUT.wav"
        )


def _sample_range(entry: str, info: AudioInfo, start_s: float, end_s: float | None) -> tuple[int, int]:
    """Return the first sample of a segment, and the one after its last."""
    rate, total, duration_s = info.sample_rate, info.num_samples, info.duration_s
    end = duration_s if end_s is None else end_s
    if end > duration_s + OVERSHOOT_S:
        raise UserError(
            f"{entry}: the segment ends at {end:g} s, but the recording ends at {duration_s:.3f} s; correct segments"
        )
    start, stop = (round(start_s * rate), min(round(end * rate), total)) if 0 <= start_s < end else (0, 0)
    if start >= stop:
        raise UserError(
            f"{entry}: the segment from {start_s:g} s to {end:g} s is empty, the recording ends at {duration_s:.3f} s;"
            " correct segments"
        )
    return start, stop


def _open(entry: str, allow_pipes: bool, streams: bool = False) -> soundfile.SoundFile:
    """Open an entry of any kind."""
    if is_pipe(entry):
        return _open_pipe(entry.rstrip()[:-1].strip(), allow_pipes)
    try:
        if streams and (entry == "-" or Path(entry).is_fifo()):
            return _open_whole(entry, _spooled(entry))
        if match := _in_archive(entry):
            return _open_whole(entry, io.BytesIO(read_recording(match["path"], int(match["offset"]))))
        path, layout = _split_entry(entry)
        if layout:
            with open_plain(path) as handle:
                _check_whole_samples(path, os.fstat(handle.fileno()).st_size)
        elif _is_unfinished(path, _stamp(path)):
            return _open_whole(entry, _spooled(entry))
    except OSError as error:
        path = error.filename or entry
        raise UserError(f"{path}: cannot be read ({error.strerror}); correct the path, or download the file again") from None
    return _open_sound(path, os.fsencode(path), layout)


@functools.lru_cache(maxsize=1)  # the segments of a recording follow each other, and some kinds are searched to their end
def _is_unfinished(path: str, stamp: Stamp | None) -> bool:
    """Check a file as ``check_complete`` does, again if its stamp changes; return whether its header gives no length."""
    with open_plain(path) as handle:
        check_complete(path, handle)
        return is_unfinished(handle)


def _open_whole(name: str, content: BinaryIO) -> soundfile.SoundFile:
    """Open the content of an audio file that has been read already."""
    check_complete(name, content)
    if is_unfinished(content):
        content = finished(content)
    content.seek(0)
    return _open_sound(name, content, {})


def _open_sound(name: str, source: bytes | BinaryIO, layout: dict[str, Any]) -> soundfile.SoundFile:
    try:
        sound = _Sound(source, **layout)
    except soundfile.LibsndfileError as error:
        why = error.error_string.rstrip(".")
        raise UserError(f"{name}: is not audio that libsndfile reads ({why}); convert it: ffmpeg -i IN OUT.wav") from None
    if not layout and sound.format not in CHECKED:
        kind = sound.format_info
        sound.close()
        raise UserError(f"{name}: is of a kind ({kind}) of which half a file looks whole; convert it: ffmpeg -i IN OUT.wav")
    if 0 < sound.frames < _NO_LENGTH:
        return sound if sound.seekable() or sound.format == "MP3" else _as_pcm(name, sound)
    what = "its header does not give its length" if sound.frames else "contains no samples"
    sound.close()
    raise UserError(f"{name}: {what}; create it again, or if it can be played, convert it: ffmpeg -i IN OUT.wav")


def _as_pcm(name: str, sound: soundfile.SoundFile) -> soundfile.SoundFile:
    """Decode a recording in which libsndfile cannot seek (GSM, G.721, mp3) to a temporary file, and open that."""
    content = _temporary()
    layout = (sound.samplerate, sound.channels, "FLOAT")
    try:
        with sound, soundfile.SoundFile(content, "w", *layout, format="W64") as copy:
            while len(block := sound.read(_BLOCK, dtype="float32")):
                copy.write(block)
    except soundfile.LibsndfileError as error:
        raise _damaged(name, error) from None
    content.seek(0)
    return soundfile.SoundFile(content)


def _damaged(name: str, error: soundfile.LibsndfileError) -> UserError:
    return UserError(f"{name}: is damaged or truncated ({error.error_string}); copy or unpack it again")


def _open_pipe(command: str, allow_pipes: bool) -> soundfile.SoundFile:
    """Run a shell command and open its output as audio."""
    name = f"`{command} |`"
    if not allow_pipes:
        raise UserError(
            f"{name}: is a shell command, which is run only with --allow-pipes; add this option, or write the output to a file"
        )
    return _open_whole(name, io.BytesIO(_output_of(command)))


@functools.lru_cache(maxsize=1)  # the segments of a recording follow each other
def _output_of(command: str) -> bytes:
    done = subprocess.run(command, shell=True, capture_output=True, check=False)
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["it printed no message"]
        raise UserError(f"`{command} |`: failed with exit status {done.returncode}: {said[-1]}; run it by hand to see why")
    return done.stdout


def _spooled(path: str) -> BinaryIO:
    """Copy a named pipe, or standard input for ``-``, to an unnamed temporary file, in which libsndfile can seek."""
    content = _temporary()
    with nullcontext(sys.stdin.buffer) if path == "-" else open(path, "rb") as source:
        shutil.copyfileobj(source, content)
    return content


def _temporary() -> BinaryIO:
    """Return an unnamed temporary file. The sound file that reads it keeps it open."""
    return cast(BinaryIO, tempfile.TemporaryFile())


def _stamp(path: str) -> Stamp | None:
    """Return the stamp of a regular file; None if there is none."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None


def _words_of(command: str) -> Iterator[str]:
    """Yield the words of a shell command, without quotation marks. The module shlex is 20 times slower."""
    return ("".join(word).replace("\\ ", " ") for word in _WORD.findall(command))


def _in_archive(entry: str) -> re.Match[str] | None:
    """Return path and offset of a recording in an archive; None for other entries."""
    return None if os.path.lexists(entry) else _IN_ARK.fullmatch(entry)


def _split_entry(entry: str) -> tuple[str, dict[str, Any]]:
    """Return the path, and the arguments of soundfile for a headerless file."""
    if match := _RAW.fullmatch(entry):
        endian = "BIG" if match["order"] == "b" else "LITTLE"
        layout = {"samplerate": int(match["rate"]), "channels": 1, "format": "RAW", "subtype": "PCM_16", "endian": endian}
        return match["path"], layout
    if re.search(r"\.raw(\?.*)?$|\?rate=", entry, re.IGNORECASE):
        raise UserError(f"{entry}: has no header; write it as PATH?rate=16000&encoding=s16be (or s16le)")
    return entry, {}


def _check_whole_samples(path: str, size: int) -> None:
    """Check the size of a headerless file."""
    if size == 0:
        raise UserError(f"{path}: is empty; copy or unpack it again")
    if size % 2:
        raise UserError(
            f"{path}: has {size} bytes, an odd number, but 16-bit samples are 2 bytes each; copy or unpack it again"
        )
