"""The benchmark's cases in asrprune."""

import atexit
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from serve import VOCAB_SIZE, Work, batch, serve
from torch import Tensor, nn

from asrprune.config import BatchConfig, FrontendConfig, ModelConfig, TrainConfig
from asrprune.data.batching import epoch_batches
from asrprune.data.dataset import Corpus
from asrprune.data.fbank import compute_fbank
from asrprune.hardware import keep_freed_memory
from asrprune.nn.model import CtcModel
from asrprune.nn.stochastic_depth import branch_scales, draw_layers, drop_probabilities
from asrprune.train.optim import make_optimizer, set_learning_rate
from asrprune.train.ranks import make_fabric


def build(layers: int, ffn: int, taps: Sequence[int], rate: float) -> CtcModel:
    """A Transformer of width 256 with 4 heads."""
    torch.manual_seed(0)
    depth = {"rate": rate, "mode": "linear"}
    options = {"num_layers": layers, "dim": 256, "heads": 4, "ffn": ffn, "taps": list(taps), "stochastic_depth": depth}
    return CtcModel(ModelConfig.model_validate(options), 80, VOCAB_SIZE)


def train(
    layers: int, ffn: int, taps: Sequence[int], rate: float, dtype: str, utterances: int, frames: int, labels: int
) -> tuple[Work, dict[str, Any]]:
    """An update: forward, backward, clipping, optimiser."""
    fabric = make_fabric(dtype)
    torch.set_flush_denormal(True)
    module = build(layers, ffn, taps, rate)
    model, optimizer = fabric.setup(module, make_optimizer(module, TrainConfig()))
    model.train()
    set_learning_rate(optimizer, 1e-4)
    inputs = batch(utterances, frames, labels)
    probabilities = drop_probabilities(layers, rate, "linear")
    step = 0

    def update() -> None:
        nonlocal step
        step += 1
        optimizer.zero_grad(set_to_none=False)
        losses = model(*inputs, draw_layers(probabilities, 1, step), branch_scales(probabilities))
        fabric.backward(module.total(losses) / utterances)
        fabric.clip_gradients(model, optimizer, max_norm=5.0, error_if_nonfinite=False)
        optimizer.step()

    facts = {"matmul_flops": matmul_flops(module, inputs, training=True), "threads": torch.get_num_threads()}
    return update, facts


def encode(layers: int, ffn: int, depth: int, dtype: str, utterances: int, frames: int) -> tuple[Work, dict[str, Any]]:
    """Features to the stream of the first ``depth`` layers."""
    model = build(layers, ffn, (), 0.0).eval()
    features, lens, *_ = batch(utterances, frames, 1)
    keep = range(1, depth + 1)

    def work() -> None:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16"):
            model.encode(features, lens, keep)

    return work, {"matmul_flops": matmul_flops(model, (features, lens), keep=keep)}


def matmul(size: int, dtype: str) -> tuple[Work, dict[str, Any]]:
    """A product of square matrices: the machine's peak."""
    kind = torch.bfloat16 if dtype == "bf16" else torch.float32
    a, b = torch.randn(size, size).to(kind), torch.randn(size, size).to(kind)
    return lambda: a @ b, {"matmul_flops": 2 * size**3}


def fbank(seconds: float, utterances: int) -> tuple[Work, dict[str, Any]]:
    """Features of noise on one core."""
    torch.set_num_threads(1)
    options = FrontendConfig()
    rng = np.random.default_rng(0)
    signals = rng.uniform(-0.5, 0.5, size=(utterances, int(seconds * options.sample_rate))).astype(np.float32)
    return lambda: [compute_fbank(signal, options) for signal in signals], {"audio_s": seconds * utterances}


def plan(utterances: int) -> tuple[Work, dict[str, Any]]:
    """The batches of an epoch; lengths as in LibriSpeech, 2 to 17 s."""
    lengths = np.random.default_rng(0).integers(200, 1700, size=utterances)
    return lambda: epoch_batches(lengths, BatchConfig(max_frames=40000), 1, 1), {"warm_up": 0}


def manifest(utterances: int) -> tuple[Work, dict[str, Any]]:
    """Read a data directory of so many utterances, of which nothing exists but the tables."""
    directory = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, directory)
    with (
        open(directory / "feats.scp", "w") as feats,
        open(directory / "utt2num_frames", "w") as frames,
        open(directory / "text", "w") as text,
    ):
        for i in range(utterances):
            key = f"speaker{i // 1000:05d}-{i:08d}"
            feats.write(f"{key} /data/train_sp/fbank/{i // 200:07d}.ark:{57000 * (i % 200)}\n")
            frames.write(f"{key} {200 + 7919 * i % 1500}\n")
            text.write(f"{key} {'THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG AND SO ON '[: 20 + i % 35].strip()}\n")
    return lambda: Corpus(directory, None), {"warm_up": 0}


def matmul_flops(model: CtcModel, inputs: tuple[Tensor, ...], training: bool = False, keep: Sequence[int] | None = None) -> int:
    """Floating-point operations of the matrix products and convolutions of one forward (and backward) pass of all layers."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        if training:
            model.total(model(*inputs)).backward()
            nn.Module.zero_grad(model)
        else:
            with torch.no_grad():
                model.encode(inputs[0], inputs[1], keep)
    return counter.get_total_flops()


if __name__ == "__main__":
    keep_freed_memory()
    serve({"train": train, "encode": encode, "matmul": matmul, "fbank": fbank, "plan": plan, "manifest": manifest})
