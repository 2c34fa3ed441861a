"""Recordings with one fault each, as entries of wav.scp."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

RATE = 16000
NOISE = np.random.default_rng(0).normal(scale=0.1, size=RATE).astype(np.float32)


def good(path: Path, samples: np.ndarray = NOISE, rate: int = RATE, **layout: str) -> Path:
    soundfile.write(path, samples, rate, **layout)
    return path


def _changed(path: Path, change: Callable[[bytes], bytes]) -> Path:
    path.write_bytes(change(path.read_bytes()))
    return path


def _half(path: Path) -> Path:
    return _changed(path, lambda content: content[: len(content) // 2])


def _bytes(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _fifo(path: Path) -> Path:
    os.mkfifo(path)
    return path


def _link(path: Path) -> Path:
    path.symlink_to(path.name)
    return path


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def _float(value: float) -> np.ndarray:
    samples = NOISE.copy()
    samples[-1] = value
    return samples


def _shorten(path: Path) -> Path:
    """A compressed SPHERE file, of which libsndfile reads nothing."""
    fields = b"sample_count -i 9\nsample_n_bytes -i 2\nchannel_count -i 1\nsample_coding -s26 pcm,embedded-shorten-v2.00\n"
    return _bytes(path, (b"NIST_1A\n   1024\n" + fields + b"end_head\n").ljust(1024) + bytes(99))


def _sphere(path: Path) -> Path:
    fields = b"sample_count -i 9999\nsample_n_bytes -i 2\nchannel_count -i 1\nsample_rate -i 16000\nsample_coding -s3 pcm\n"
    return _bytes(path, (b"NIST_1A\n   1024\n" + fields + b"end_head\n").ljust(1024) + bytes(99))


HALVES = {
    f"half of a {name} file": (lambda path, ending=ending, layout=layout: _half(good(path.with_suffix(ending), **layout)))
    for name, ending, layout in (
        ("wav", ".wav", {}),
        ("flac", ".flac", {}),
        ("Ogg Vorbis", ".ogg", {}),
        ("AIFF", ".aiff", {}),
        ("AU", ".au", {}),
        ("W64", ".w64", {}),
        ("RF64", ".rf64", {"format": "RF64"}),
        ("float wav", ".wav", {"subtype": "FLOAT"}),
    )
}
BAD_AUDIO: dict[str, Callable[[Path], object]] = {  # what is wrong: makes it (path without suffix) and returns the entry
    "is not there": lambda path: path.with_suffix(".wav"),
    "is empty": lambda path: _bytes(path.with_suffix(".wav"), b""),
    "is a text": lambda path: _bytes(path.with_suffix(".wav"), b"404 not found\n" * 99),
    "is a web page": lambda path: _bytes(path.with_suffix(".mp3"), b"<!DOCTYPE html><html>" + b" " * 999),
    "is a folder": lambda path: _folder(path.with_suffix(".wav")),
    "is a named pipe": lambda path: _fifo(path.with_suffix(".wav")),
    "is a device": lambda path: "/dev/zero",
    "is a link to itself": lambda path: _link(path.with_suffix(".wav")),
    "is a command": lambda path: "cat a.wav |",
    "begins with ~": lambda path: "~/a.wav",
    "has a blank before its end": lambda path: f"{path}.wav  x",
    **HALVES,
    "half of a SPHERE file": lambda path: _sphere(path.with_suffix(".sph")),
    "is a compressed SPHERE file": lambda path: _shorten(path.with_suffix(".sph")),
    "has a header and no samples": lambda path: good(path.with_suffix(".wav"), np.zeros(0, np.int16)),
    "has two channels": lambda path: good(path.with_suffix(".wav"), np.stack([NOISE, NOISE], 1)),
    "has another sample rate": lambda path: good(path.with_suffix(".wav"), rate=8000),
    "has a sample that is not finite": lambda path: good(path.with_suffix(".wav"), _float(np.nan), subtype="FLOAT"),
    "has no header": lambda path: _bytes(path.with_suffix(".raw"), bytes(3200)),
    "has no header and an odd size": lambda path: f"{_bytes(path.with_suffix('.raw'), bytes(33))}?rate=16000&encoding=s16le",
    "has no header and a wrong rate": lambda path: f"{_bytes(path.with_suffix('.raw'), bytes(32))}?rate=0&encoding=s16le",
    "has no header and a wrong encoding": lambda path: (
        f"{_bytes(path.with_suffix('.raw'), bytes(32))}?rate=16000&encoding=mulaw"
    ),
}
