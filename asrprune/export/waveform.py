"""The log-mel front end of ``features.fbank`` as a part of a graph, so that a device needs no code for features."""

import torch
from torch import Tensor, nn

from asrprune.config.schema import FrontendConfig
from asrprune.features.fbank import INT16_SCALE, LEAST_ENERGY, PREEMPHASIS, frame_sizes, num_frames
from asrprune.runtime.torch_pair import import_torchaudio


class Fbank(nn.Module):
    """Log-mel filterbanks (B, T, F) at 16-bit scale, of samples (B, S) in [-1, 1).

    Pre-emphasis, window and Fourier transform of a frame are linear, so they are one matrix. The mean is subtracted first,
    because in float32 a large offset would drown quiet frames.
    """

    dft: Tensor
    mel: Tensor

    def __init__(self, options: FrontendConfig) -> None:
        super().__init__()
        self.options = options
        self.shift, self.window = frame_sizes(options)
        spectrum, mel = _spectrum(self.window), _mel(options, self.window)
        heard = mel.any(dim=1)  # bins that some filter hears
        self.register_buffer("dft", torch.cat([spectrum.real[:, heard], spectrum.imag[:, heard]], dim=1).float())  # (W, 2 K)
        self.register_buffer("mel", mel[heard].float())  # (K, F)

    def forward(self, samples: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """Map samples (B, S) and their counts (B,) to features (B, T, F) and the counts of frames (B,)."""
        frames = self._frames(samples * INT16_SCALE, lens)  # (B, T, W)
        real, imaginary = ((frames - frames.mean(dim=-1, keepdim=True)) @ self.dft).chunk(2, dim=-1)
        energies = (real.square() + imaginary.square()) @ self.mel
        return energies.clamp(min=LEAST_ENERGY).log(), (lens + self.shift // 2) // self.shift

    def _frames(self, samples: Tensor, lens: Tensor) -> Tensor:
        """Return overlapping frames (B, T, W); both ends of each utterance are mirrored, also within a padded batch."""
        count = torch.sym_max(num_frames(samples.shape[1], self.options), 1)
        positions = torch.arange((count - 1) * self.shift + self.window) - (self.window // 2 - self.shift // 2)
        lens = lens.clamp(min=1).unsqueeze(1)
        wrapped = positions % (2 * lens)  # an utterance shorter than a frame is mirrored several times
        padded = samples.gather(1, torch.minimum(wrapped, 2 * lens - 1 - wrapped))  # (B, P)
        return padded[:, self.shift * torch.arange(count).unsqueeze(1) + torch.arange(self.window)]


def _spectrum(window: int) -> Tensor:
    """Return pre-emphasis, Povey's window and the Fourier transform as a complex matrix (W, bins)."""
    frames = torch.eye(window, dtype=torch.float64)
    emphasised = frames - PREEMPHASIS * torch.cat([frames[:, :1], frames[:, :-1]], dim=1)
    povey = torch.hann_window(window, periodic=False, dtype=torch.float64).pow(0.85)
    return torch.fft.rfft(emphasised * povey, _bins(window))


def _mel(options: FrontendConfig, window: int) -> Tensor:
    """Return the filters (bins, F)."""
    banks, _ = import_torchaudio().compliance.kaldi.get_mel_banks(
        options.num_mels, _bins(window), options.sample_rate, options.low_freq, options.high_freq, 100.0, -500.0, 1.0
    )  # the last three numbers are of VTLN, whose factor 1 has no effect
    return nn.functional.pad(banks, (0, 1)).T  # no filter hears the Nyquist frequency


def _bins(window: int) -> int:
    """Return the size of the transform: the next power of two."""
    return 1 << (window - 1).bit_length()
