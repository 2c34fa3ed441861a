"""Speech from espeak-ng: a pure function of a voice and what it says.

The library that the wheel `espeakng-loader` carries is called through ctypes. It keeps state between utterances (the phase of
the pitch flutter), which even espeak_Terminate does not reset, so each call loads it anew. Its two sources of random numbers
(breath noise) start from the clock and the process id, so both are seeded here.
"""

import _ctypes
import ctypes
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from asrprune.runtime.errors import UserError
from asrprune.runtime.signals import deferred

SAMPLE_RATE = 22050  # Hz, of espeak-ng's formant voices
_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS: samples go to the callback, espeak_Synth returns when all are there
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4  # espeak_PARAMETER
_HALF_VOLUME = 50  # at the default, 100, espeak-ng's limiter squashes the louder variants
_UTF8 = 1  # espeakCHARS_UTF8
_WORD = 1  # espeak_EVENT_TYPE; 0 ends a list of events


class _Event(ctypes.Structure):
    _fields_ = (  # espeak_EVENT of speak_lib.h
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


@dataclass(frozen=True)
class Voice:
    """An accent (a file of espeak-ng's lang/gmw), a variant (of voices/!v), words a minute, pitch and its range in 0..100."""

    accent: str
    variant: str
    words_per_minute: int
    pitch: int
    pitch_range: int


def installed_version() -> str:
    """Version of the wheel, or a ``UserError`` that says how to get it."""
    try:
        return version("espeakng-loader")
    except PackageNotFoundError:
        raise UserError("espeakng-loader, which speaks this corpus, is missing; run: pip install 'asrprune[mini]'") from None


def check_voice(voice: Voice) -> None:
    """Raise ``UserError`` unless espeak-ng has the accent and the variant; an unknown variant it would ignore in silence."""
    import espeakng_loader

    data = Path(espeakng_loader.get_data_path())
    for kind, path in (("accent", data / "lang" / "gmw" / voice.accent), ("variant", data / "voices" / "!v" / voice.variant)):
        if not path.is_file():
            known = sorted(other.name for other in path.parent.iterdir() if other.is_file())
            raise UserError(f"{kind} {path.name}: espeak-ng does not have it; it has {', '.join(known)}")


def say(voice: Voice, texts: Sequence[str]) -> list[npt.NDArray[np.int16]]:
    """Samples (N,) at ``SAMPLE_RATE`` of each text; the voice must be one that ``check_voice`` lets pass.

    The first text costs a few milliseconds more than the others (loading, looking for the voice).
    """
    return [samples for samples, _ in say_with_times(voice, texts)]


def say_with_times(voice: Voice, texts: Sequence[str]) -> list[tuple[npt.NDArray[np.int16], list[int]]]:
    """Return samples (N,) of each text, and the sample at which each of its words begins; see ``say``."""
    library = _load()
    try:
        _set_voice(library, voice)
        return [_say(library, text) for text in texts]
    finally:
        library.espeak_Terminate()
        _ctypes.dlclose(library._handle)


def _load() -> ctypes.CDLL:
    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), 0)
    assert rate == SAMPLE_RATE, f"espeak_Initialize returned {rate}"
    library.espeak_ng_SetRandSeed(ctypes.c_long(1))
    ctypes.CDLL(None).srand(1)
    return library


def _set_voice(library: ctypes.CDLL, voice: Voice) -> None:
    failed = library.espeak_SetVoiceByName(f"gmw/{voice.accent}+{voice.variant}".encode())
    assert failed == 0, f"espeak_SetVoiceByName returned {failed} for {voice}"
    parameters = {_RATE: voice.words_per_minute, _VOLUME: _HALF_VOLUME, _PITCH: voice.pitch, _RANGE: voice.pitch_range}
    for parameter, value in parameters.items():
        library.espeak_SetParameter(parameter, value, 0)


def _say(library: ctypes.CDLL, text: str) -> tuple[npt.NDArray[np.int16], list[int]]:
    pieces: list[npt.NDArray[np.int16]] = []
    words: list[int] = []

    def collect(samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        listed = itertools.takewhile(lambda event: event.type != 0, (events[i] for i in itertools.count()))
        words.extend(event.sample for event in listed if event.type == _WORD)
        return 0

    callback = _CALLBACK(collect)  # must live until espeak_Synth returns
    library.espeak_SetSynthCallback(callback)
    encoded = text.encode()
    with deferred():  # ctypes would swallow the error that a signal raises in the callback, and a piece would be missing
        failed = library.espeak_Synth(encoded, len(encoded) + 1, 0, 1, 0, _UTF8, None, None)
    assert failed == 0, f"espeak_Synth returned {failed}"
    return np.concatenate(pieces), words
