"""What lies between a mouth and a recording: room, noise, level; pure functions of samples and a generator."""

import math

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float64]
_PRE_DELAY_S = 0.003  # before the first reflection
_SLOPES = {"white": 0.0, "pink": 0.5, "brown": 1.0}  # amplitude falls as frequency ** -slope
COLOURS = tuple(_SLOPES)


def resample(samples: Samples, rate: int, new_rate: int) -> Samples:
    """Band-limited: the spectrum is cut or extended, after padding with silence to a whole number of periods of both rates."""
    step = 8 * rate // math.gcd(rate, new_rate)  # 8: lengths with small factors only, whose transforms are fast
    padded = -(-len(samples) // step) * step
    length = padded * new_rate // rate
    spectrum = np.fft.rfft(samples, padded)
    return np.fft.irfft(spectrum[: length // 2 + 1], length) * (new_rate / rate)


def trim(samples: Samples, floor_db: float = -50.0) -> Samples:
    """Without the silence at both ends: what is weaker than ``floor_db`` below the peak."""
    loud = np.flatnonzero(np.abs(samples) > np.abs(samples).max() * 10 ** (floor_db / 20))
    return samples[loud[0] : loud[-1] + 1]


def reverberate(speech: Samples, rate: int, decay_s: float, direct_db: float, rng: np.random.Generator) -> Samples:
    """``speech`` in a room: noise that decays by 60 dB in ``decay_s``, its energy ``direct_db`` below the direct sound.

    The same length as ``speech``; the model is Polack's (1988): exponentially decaying Gaussian noise.
    """
    time_s = np.arange(round(decay_s * rate)) / rate
    tail = rng.standard_normal(len(time_s)) * 10.0 ** (-3 * time_s / decay_s) * (time_s >= _PRE_DELAY_S)
    tail *= 10 ** (-direct_db / 20) / np.sqrt(np.sum(tail**2))
    tail[0] = 1.0
    length = _fast_length(len(speech) + len(tail) - 1)
    return np.fft.irfft(np.fft.rfft(speech, length) * np.fft.rfft(tail, length), length)[: len(speech)]


def coloured_noise(colour: str, length: int, rate: int, rng: np.random.Generator) -> Samples:
    """Gaussian noise (length,) whose amplitude spectrum falls with frequency from 50 Hz on as its colour says."""
    padded = _fast_length(length)
    spectrum = np.fft.rfft(rng.standard_normal(padded))
    frequency = np.maximum(np.fft.rfftfreq(padded, 1 / rate), 50.0)
    return np.fft.irfft(spectrum * frequency ** -_SLOPES[colour], padded)[:length]


def babble(clips: list[Samples], length: int, voices: int, rng: np.random.Generator) -> Samples:
    """``voices`` random ``clips`` (length,) at once, each at equal power, repeated and started anywhere."""
    chosen = [clips[i] for i in rng.choice(len(clips), voices, replace=False)]
    starts = [int(rng.integers(len(clip))) for clip in chosen]
    return sum(
        (np.resize(np.roll(clip, -start), length) / _rms(clip) for clip, start in zip(chosen, starts, strict=True)),
        start=np.zeros(length),
    )


def add_noise(signal: Samples, noise: Samples, speech: slice, snr_db: float) -> Samples:
    """``signal`` with ``noise`` at ``snr_db``: mean power of ``signal[speech]`` against that of all of the noise."""
    return signal + noise * (_rms(signal[speech]) / _rms(noise) * 10 ** (-snr_db / 20))


def to_peak(samples: Samples, peak_db: float) -> Samples:
    """Scaled so that the largest sample is ``peak_db`` relative to full scale."""
    return samples * (10 ** (peak_db / 20) / np.abs(samples).max())


def _fast_length(length: int) -> int:
    """The next multiple of 2048: Fourier transforms of lengths with large prime factors take up to ten times longer."""
    return -(-length // 2048) * 2048


def _rms(samples: Samples) -> float:
    return float(np.sqrt(np.mean(samples**2)))
