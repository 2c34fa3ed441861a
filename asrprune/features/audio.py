"""Audio reading: mono float32 samples of a wav.scp entry. No other module reads audio.

An entry is a path that libsndfile can read (wav, flac, NIST SPHERE, ...), a headerless file with its format,
``PATH?rate=16000&encoding=s16be`` (or ``s16le``), or Kaldi's ``command |``, which is refused without ``allow_pipes``.
Error messages name the file only; callers add ``file:line: id:`` in front.
"""

import functools
import io
import os
import re
import struct
import subprocess
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import soundfile

from asrprune.runtime.errors import UserError
from asrprune.runtime.planted import open_plain

# Times are commonly rounded to 10 ms, so a segment may end this much after its recording.
OVERSHOOT_S = 0.01
_RAW = re.compile(r"(?P<path>.+)\?rate=(?P<rate>[1-9]\d{0,6})&encoding=s16(?P<order>[bl])e")
_NO_LENGTH = 1 << 34  # no recording has so many samples; libsndfile says 2^63 - 1 for a flac that was written to a pipe
_UNKNOWN_SIZE = 0xFFFFFFFF  # what a program that writes a wav to a pipe puts where the size belongs


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


def audio_info(entry: str, allow_pipes: bool = False) -> AudioInfo:
    """Read only the header of ``entry``; raise a ``UserError`` if it cannot be read."""
    with _open(entry, allow_pipes) as sound:
        return AudioInfo(sound.samplerate, sound.frames, sound.channels)


def stamp_of(entry: str) -> tuple[int, int] | None:
    """Return size and time of change of the file of a wav.scp entry, which tell a replaced recording; None without a file."""
    try:
        status = os.stat(_split_entry(entry)[0])
    except (OSError, ValueError):  # it is a pipe, or no path at all
        return None
    return status.st_size, status.st_mtime_ns


def read_audio(
    entry: str, sample_rate: int, start_s: float = 0.0, end_s: float | None = None, allow_pipes: bool = False
) -> npt.NDArray[np.float32]:
    """Read samples (N,) of ``entry`` from ``start_s`` to ``end_s`` seconds (None: to the end), float32 in [-1, 1).

    Only the segment is read; a pipe is run once for all its segments in a row.

    Raises:
        UserError: the file is missing, truncated, not audio, not mono or not at ``sample_rate`` Hz; the segment lies beyond
            the end of the file; the entry is a pipe, without ``allow_pipes``.
    """
    with _open(entry, allow_pipes) as sound:
        check_format(entry, AudioInfo(sound.samplerate, sound.frames, sound.channels), sample_rate)
        start, stop = _sample_range(entry, sound, start_s, end_s)
        return _read(entry, sound, start, stop - start)


def check_audio(entry: str, allow_pipes: bool = False) -> AudioInfo:
    """Read the header and the last sample, which a truncated flac lacks; raise a ``UserError`` like ``read_audio``."""
    with _open(entry, allow_pipes) as sound:
        _read(entry, sound, sound.frames - 1, 1)
        return AudioInfo(sound.samplerate, sound.frames, sound.channels)


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


def _sample_range(entry: str, sound: soundfile.SoundFile, start_s: float, end_s: float | None) -> tuple[int, int]:
    """Return the first sample of a segment, and the one after its last."""
    rate, total = sound.samplerate, sound.frames
    duration_s = total / rate
    end = duration_s if end_s is None else end_s
    start, stop = round(start_s * rate), min(round(end * rate), total)
    if end > duration_s + OVERSHOOT_S:
        raise UserError(
            f"{entry}: the segment ends at {end:g} s, but the recording ends at {duration_s:.3f} s; correct segments"
        )
    if not 0 <= start < stop:
        raise UserError(
            f"{entry}: the segment from {start_s:g} s to {end:g} s is empty, the recording ends at {duration_s:.3f} s;"
            " correct segments"
        )
    return start, stop


def _read(entry: str, sound: soundfile.SoundFile, start: int, count: int) -> npt.NDArray[np.float32]:
    """Read ``count`` samples from ``start``; raise an error if there are fewer, as libsndfile itself may not."""
    try:
        sound.seek(start)
        samples: npt.NDArray[np.float32] = sound.read(count, dtype="float32")
    except soundfile.LibsndfileError as error:
        raise UserError(f"{entry}: is damaged or truncated ({error.error_string}); copy or unpack it again") from None
    if len(samples) < count:
        raise UserError(
            f"{entry}: is truncated: its header gives {sound.frames} samples, but reading stops at {start + len(samples)};"
            " copy or unpack it again"
        )
    if not np.isfinite(samples).all():
        raise UserError(f"{entry}: contains samples that are not finite numbers; convert it again to 16-bit PCM")
    return samples


def _open(entry: str, allow_pipes: bool) -> soundfile.SoundFile:
    """Open an entry of any kind."""
    if entry.rstrip().endswith("|"):
        return _open_pipe(entry.rstrip()[:-1].strip(), allow_pipes)
    path, layout = _split_entry(entry)
    try:
        with open_plain(path) as handle:
            _check_complete(path, handle, raw=bool(layout))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); correct the path, or download the file again") from None
    return _open_sound(path, path, layout)


def _open_sound(name: str, source: str | BinaryIO, layout: dict[str, Any]) -> soundfile.SoundFile:
    try:
        sound = soundfile.SoundFile(source, **layout)
    except soundfile.LibsndfileError as error:
        why = error.error_string.rstrip(".")
        raise UserError(f"{name}: is not audio that libsndfile reads ({why}); convert it: ffmpeg -i IN OUT.wav") from None
    if 0 < sound.frames < _NO_LENGTH:
        return sound
    what = "its header does not give its length" if sound.frames else "contains no samples"
    sound.close()
    raise UserError(f"{name}: {what}; create it again, or if it can be played, convert it: ffmpeg -i IN OUT.wav")


def _open_pipe(command: str, allow_pipes: bool) -> soundfile.SoundFile:
    """Run a shell command and open its output as audio."""
    name = f"`{command} |`"
    if not allow_pipes:
        raise UserError(
            f"{name}: is a shell command, which is run only with --allow-pipes; add this option, or write the output to a file"
        )
    return _open_sound(name, io.BytesIO(_output_of(command)), {})


@functools.lru_cache(maxsize=1)  # the segments of a recording follow each other
def _output_of(command: str) -> bytes:
    done = subprocess.run(command, shell=True, capture_output=True, check=False)
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["it printed no message"]
        raise UserError(f"`{command} |`: failed with exit status {done.returncode}: {said[-1]}; run it by hand to see why")
    return done.stdout


def _split_entry(entry: str) -> tuple[str, dict[str, Any]]:
    """Return the path, and the arguments of soundfile for a headerless file."""
    if match := _RAW.fullmatch(entry):
        endian = "BIG" if match["order"] == "b" else "LITTLE"
        layout = {"samplerate": int(match["rate"]), "channels": 1, "format": "RAW", "subtype": "PCM_16", "endian": endian}
        return match["path"], layout
    if re.search(r"\.raw(\?.*)?$", entry, re.IGNORECASE):
        raise UserError(f"{entry}: has no header; write it as PATH?rate=16000&encoding=s16be (or s16le)")
    return entry, {}


def _check_complete(path: str, handle: BinaryIO, raw: bool) -> None:
    """Compare the size in the header with the size of the file, as libsndfile silently shortens a truncated wav."""
    size = os.fstat(handle.fileno()).st_size
    if size == 0:
        raise UserError(f"{path}: is empty; copy or unpack it again")
    if raw:
        if size % 2:
            raise UserError(
                f"{path}: has {size} bytes, an odd number, but 16-bit samples are 2 bytes each; copy or unpack it again"
            )
        return
    head = handle.read(1024)
    promised = None
    if head[:4] in (b"RIFF", b"RIFX", b"RF64"):
        promised = _end_of_wav(handle)
    elif head.startswith(b"NIST_1A"):
        promised = _end_of_sphere(path, head)
    if promised is not None and promised > size:
        raise UserError(
            f"{path}: is truncated: its header gives {promised} bytes, but the file has {size}; copy or unpack it again"
        )


def _end_of_wav(handle: BinaryIO) -> int | None:
    """Return the byte at which the data chunk ends according to its header; None if the header has no size."""
    handle.seek(0)
    order = ">" if handle.read(12).startswith(b"RIFX") else "<"
    long_size = _UNKNOWN_SIZE
    while len(header := handle.read(8)) == 8:
        name, size = struct.unpack(f"{order}4sI", header)
        if name == b"data":
            size = long_size if size == _UNKNOWN_SIZE else size
            return None if size == _UNKNOWN_SIZE else handle.tell() + size
        if name == b"ds64":  # RF64: the 64-bit sizes of the file and of the data chunk
            long_size = int.from_bytes(handle.read(16)[8:], "little")
            size -= 16
        handle.seek(size + size % 2, os.SEEK_CUR)
    return None


def _end_of_sphere(path: str, head: bytes) -> int | None:
    """Return the byte at which the samples of a NIST SPHERE file end according to its header; None if it has no size."""
    fields = dict(re.findall(rb"^(\w+) -\w+ (.*?)\s*$", head, re.MULTILINE))
    coding = fields.get(b"sample_coding", b"pcm").decode("ascii", "replace")
    if "embedded" in coding:
        raise UserError(
            f"{path}: is compressed ({coding}), which libsndfile does not read; convert it: sph2pipe -f wav IN OUT.wav,"
            " or ffmpeg -i IN OUT.wav"
        )
    try:
        sample = int(fields[b"sample_n_bytes"]) * int(fields[b"channel_count"])
        return int(head.split()[1]) + int(fields[b"sample_count"]) * sample
    except (KeyError, ValueError, IndexError):
        return None
