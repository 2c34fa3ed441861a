"""The benchmark's cases in ESPnet2; runs in an environment of its own (tools/bench/README.md says how to make it)."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from serve import VOCAB_SIZE, Work, batch, serve


def build(layers: int, ffn: int, taps: Sequence[int]) -> tuple[Any, Any]:
    """The encoder of ESPnet's recipes in the sizes of ours, and its CTC."""
    from espnet2.asr.ctc import CTC  # type: ignore[import-not-found]  # here, as its import prints, which ``serve`` catches
    from espnet2.asr.encoder.transformer_encoder import TransformerEncoder  # type: ignore[import-not-found]

    torch.manual_seed(0)
    encoder = TransformerEncoder(
        80, 256, attention_heads=4, linear_units=ffn, num_blocks=layers, dropout_rate=0.1, positional_dropout_rate=0.1,
        attention_dropout_rate=0.0, input_layer="conv2d", normalize_before=True, interctc_layer_idx=list(taps),
    )  # fmt: skip
    return encoder, CTC(VOCAB_SIZE, 256)


def train(
    layers: int, ffn: int, taps: Sequence[int], dtype: str, utterances: int, frames: int, labels: int
) -> tuple[Work, dict[str, Any]]:
    """An update: forward, backward, clipping, optimiser."""
    encoder, ctc = build(layers, ffn, taps)
    encoder.train()
    parameters = [*encoder.parameters(), *ctc.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-4)
    features, lens, units, unit_lens = batch(utterances, frames, labels)

    def update() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16"):
            out, out_lens, _ = encoder(features, lens, ctc=ctc)
            final, inner = out if isinstance(out, tuple) else (out, [])
            loss = ctc(final, out_lens, units, unit_lens)
            if inner:
                loss = 0.34 * loss + 0.66 * sum(ctc(x, out_lens, units, unit_lens) for _, x in inner) / len(inner)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()

    return update, {"threads": torch.get_num_threads()}


def encode(layers: int, ffn: int, dtype: str, utterances: int, frames: int) -> tuple[Work, dict[str, Any]]:
    """Features to the output of the encoder."""
    encoder, _ = build(layers, ffn, ())
    encoder.eval()
    features, lens, *_ = batch(utterances, frames, 1)

    def work() -> None:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16"):
            encoder(features, lens)

    return work, {}


def greedy(layers: int, ffn: int, utterances: int, frames: int) -> tuple[Work, dict[str, Any]]:
    """Features to text units. Not by its own decoder, which is a beam search of one utterance at a time."""
    encoder, ctc = build(layers, ffn, ())
    encoder.eval()
    features, lens, *_ = batch(utterances, frames, 1)

    def work() -> list[list[int]]:
        with torch.inference_mode():
            out, out_lens, _ = encoder(features, lens)
            paths = zip(ctc.argmax(out).tolist(), out_lens.tolist(), strict=True)
            return [[label for label, _ in groupby(path[:length]) if label != 0] for path, length in paths]

    return work, {}


def fbank(seconds: float, utterances: int) -> tuple[Work, dict[str, Any]]:
    """Log-mel features of noise on one core, by the front end of its recipes."""
    from espnet2.asr.frontend.default import DefaultFrontend  # type: ignore[import-not-found]

    torch.set_num_threads(1)
    frontend = DefaultFrontend(fs=16000, n_fft=512, win_length=400, hop_length=160, n_mels=80)
    signals = torch.rand(utterances, int(seconds * 16000)) - 0.5
    lengths = torch.full((1,), signals.shape[1])

    def work() -> None:
        with torch.inference_mode():
            for signal in signals:
                frontend(signal.unsqueeze(0), lengths)

    return work, {}


if __name__ == "__main__":
    serve({"train": train, "encode": encode, "greedy": greedy, "fbank": fbank})
