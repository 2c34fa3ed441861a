"""On a GPU: what is computed there is what is computed on the CPU, and every way to train runs.

`GPU_TESTS_ON=cpu pytest -m gpu` runs the same on the CPU, to see that the tests themselves work.
"""

import copy
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from experiments import killed_after_an_epoch, losses
from torch import Tensor
from torch.nn import functional as F

from asrprune.analysis.activations import activations
from asrprune.config.schema import Config, ModelConfig
from asrprune.data.dataset import Corpus
from asrprune.decode.shards import hypotheses
from asrprune.experiment.plan import Keep
from asrprune.experiment.store import Experiment
from asrprune.infer.runner import Runner
from asrprune.model.ctc_model import CtcModel
from asrprune.model.head import consistency_losses, ctc_losses
from asrprune.prune.dev_scorer import DevScorer
from asrprune.prune.strategies.iterative import iterative
from asrprune.recognizer import Recognizer
from asrprune.runtime.executor import Executor
from asrprune.train import ranks
from asrprune.train.checkpoint import load_state
from asrprune.train.loop import Trainer
from asrprune.train.start import train
from asrprune.train.update import zero_of_unused

DEVICE = torch.device(os.environ.get("GPU_TESTS_ON", "cuda"))
NUM_GPUS = int(DEVICE.type == "cuda")
CPU = torch.device("cpu")
KEEPS: list[Keep] = [(1, 2, 3, 4), (1, 2, 4), (1, 3), (4,)]
CALM = ("model.dropout=0", "augment.num_freq_masks=0", "augment.num_time_masks=0")  # draws differ between devices
MODELS = {
    "transformer": {},
    "conformer, BatchNorm": {"layer": {"type": "conformer", "kernel": 7, "norm": "batch"}},
    "conformer, LayerNorm": {"layer": {"type": "conformer", "kernel": 7, "norm": "layer"}},
    "ebranchformer": {"layer": {"type": "ebranchformer", "kernel": 7, "merge_kernel": 7}},
    "self-conditioned": {"self_conditioning": True},
}
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        DEVICE.type == "cuda" and not torch.cuda.is_available(),
        reason="needs an NVIDIA GPU: torch.cuda.is_available() is False here (asrprune doctor says why)",
    ),
]
needs_cuda = pytest.mark.skipif(not NUM_GPUS, reason="GPU_TESTS_ON=cpu: this is of a GPU's memory")
ConfigWith = Callable[..., Config]
TrainThere = Callable[..., list[float]]


@pytest.fixture(autouse=True)
def exact_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions take TF32 otherwise, which keeps 3 digits."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def near(found: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    """Equal but for rounding: ``tolerance`` of the largest value, as sums of many terms may cancel."""
    found, expected = found.detach().cpu(), expected.detach()
    largest = float(expected.abs().max()) if expected.numel() else 0.0
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance * max(largest, 1e-3))


# -- the model ---------------------------------------------------------------------------------------------------------


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> CtcModel:
    torch.manual_seed(0)
    sizes = {"num_layers": 4, "dim": 64, "heads": 4, "ffn": 128, "subsampling": {"channels": 16}, "taps": [1, 2]}
    return CtcModel(ModelConfig.model_validate({**sizes, "dropout": 0.0, **MODELS[request.param]}), 80, 30)


def batch(padded: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    lens = torch.tensor([120, 90, 47, 5] if padded else [120] * 4)  # 5 frames are too few for the front end
    units = torch.randint(1, 30, (4, 6), generator=generator)
    return torch.randn(4, 120, 80, generator=generator), lens, units, torch.tensor([6, 3, 1, 0])


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("keep", [None, (1, 3)])
def test_losses_and_gradients(model: CtcModel, padded: bool, keep: tuple[int, ...] | None) -> None:
    there, found = copy.deepcopy(model).to(DEVICE), {}
    for each, device in ((model, CPU), (there, DEVICE)):
        losses = each(*(x.to(device) for x in batch(padded)), keep, [1.0, 1.2, 1.4, 1.6])
        losses = losses + zero_of_unused(each, keep or ())  # layers that are left out have a gradient, of 0
        each.total(losses).backward()
        found[each] = losses
    near(found[there], found[model])
    gradients = dict(there.named_parameters())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert gradients[name].grad is not None
        near(gradients[name].grad, parameter.grad, 2e-3)  # type: ignore[arg-type]


@pytest.mark.parametrize("padded", [True, False])
def test_emissions(model: CtcModel, padded: bool) -> None:
    features, lens, *_ = batch(padded)
    there = copy.deepcopy(model).to(DEVICE).eval()
    keeps = [(1,), (1, 2), (1, 2, 3, 4)]
    expected = list(Runner(model, CPU, "float32").emissions(features, lens, keeps))
    for precision, tolerance in (("float32", 1e-4), ("bf16", 5e-2)):
        found = Runner(there, DEVICE, precision).emissions(features, lens, keeps)
        for (_, own), (_, other) in zip(found, expected, strict=True):
            assert torch.equal(own.lens.cpu(), other.lens)
            assert own.log_probs.dtype == torch.float32
            for row, length in enumerate(other.lens.tolist()):
                near(own.log_probs[row, :length], other.log_probs[row, :length], tolerance)


@pytest.mark.parametrize("label_lens", [[4, 2, 0, 1, 3], [0, 0, 0, 0, 0]])
def test_ctc_losses(label_lens: list[int]) -> None:
    """Empty transcripts, no frames (row 3), too few frames (row 4), two sets of emissions at once."""
    lens, units = torch.tensor([9, 6, 5, 0, 2]), torch.randint(1, 5, (5, max(label_lens)))
    logits = {}
    found = {}
    for device in (CPU, DEVICE):
        logits[device] = torch.randn(10, 9, 5, generator=torch.Generator().manual_seed(2)).to(device).requires_grad_()
        inputs = [x.to(device) for x in (lens, units, torch.tensor(label_lens))]
        found[device] = ctc_losses(logits[device].log_softmax(-1), *inputs)
        found[device].sum().backward()
    near(found[DEVICE], found[CPU])
    near(logits[DEVICE].grad, logits[CPU].grad)  # type: ignore[arg-type]


def test_consistency_losses() -> None:
    lens, found = torch.tensor([9, 4]), {}
    log_probs = torch.randn(8, 9, 5, generator=torch.Generator().manual_seed(2)).log_softmax(-1)
    for device in (CPU, DEVICE):
        found[device] = consistency_losses(log_probs.to(device), lens.to(device))
    near(found[DEVICE], found[CPU])


def test_dropout_and_masks_are_drawn_from_the_seed_alone() -> None:
    x, found = torch.ones(1000, device=DEVICE), []
    for _ in range(2):
        torch.manual_seed(5)
        found.append(F.dropout(x, 0.5) + torch.rand(1000, device=DEVICE))
    assert torch.equal(*found)


# -- a trained model ---------------------------------------------------------------------------------------------------


def test_texts(experiment: Experiment, corpus: Corpus) -> None:
    batches = np.array_split(np.arange(len(corpus)), 2)
    expected = hypotheses(experiment, corpus, KEEPS, batches, 0)
    assert any(expected[KEEPS[0]].values())
    assert hypotheses(experiment, corpus, KEEPS, batches, NUM_GPUS) == expected


@pytest.mark.parametrize("metric", ["wer", "ctc"])
def test_search(experiment: Experiment, corpus: Corpus, metric: str) -> None:
    here, there = (
        iterative(experiment.num_layers, DevScorer(experiment, corpus, metric, Executor(num_gpus)), 1)
        for num_gpus in (0, NUM_GPUS)
    )
    assert [step.keep for step in there] == [step.keep for step in here]
    assert [step.score for step in there] == pytest.approx([step.score for step in here], rel=1e-4)


def test_activations(experiment: Experiment, corpus: Corpus) -> None:
    expected = activations(Runner(experiment.model, CPU, "float32"), corpus, 50, 200, seed=1)
    found = activations(Runner(experiment.model.to(DEVICE), DEVICE, "float32"), corpus, 50, 200, seed=1)
    for own, other in zip(found, expected, strict=True):
        near(torch.from_numpy(own), torch.from_numpy(other))


def test_transcription(tiny_experiment: Path) -> None:
    samples = np.random.default_rng(0).normal(scale=0.1, size=16000).astype(np.float32)
    here, there = (
        Recognizer.load(tiny_experiment, device=str(device)).transcribe(samples, depth=2) for device in (CPU, DEVICE)
    )
    assert there.text == here.text


# -- training ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def train_there(tiny_data: Path, tmp_path: Path) -> TrainThere:
    """``train_there(config, name, num_gpus)``: losses of all updates and of dev after each epoch."""

    def run(config: Config, name: str, num_gpus: int = NUM_GPUS) -> list[float]:
        exp, paths = tmp_path / name, ("train", "dev", "lang/bpe.model", "cmvn")
        train(config, exp, *(tiny_data / path for path in paths), num_gpus=num_gpus)
        return losses(exp)

    return run


@pytest.mark.parametrize("layer", ["transformer", "conformer", "ebranchformer"])
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-3), ("bf16", 0.05)])
def test_training(layer: str, precision: str, tolerance: float, tiny_config_with: ConfigWith, train_there: TrainThere) -> None:
    numbers = (*CALM, f"model.layer={layer}", "train.num_workers=1")
    expected = train_there(tiny_config_with(*numbers), "here", 0)
    found = train_there(tiny_config_with(*numbers, f"train.precision={precision}"), "there")
    assert found == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_killed_run_goes_on(precision: str, tiny_config_with: ConfigWith, train_there: TrainThere) -> None:
    """With dropout and masks. Sums in CTC's gradient come in any order on CUDA, so not bit for bit."""
    config = tiny_config_with(f"train.precision={precision}")
    expected = train_there(config, "whole")
    with killed_after_an_epoch():
        train_there(config, "killed")
    assert train_there(config, "killed") == pytest.approx(expected, rel=1e-3 if precision == "float32" else 0.02)


def test_a_run_goes_on_on_the_other_device(tiny_config_with: ConfigWith, train_there: TrainThere, tmp_path: Path) -> None:
    config = tiny_config_with(*CALM)
    expected = train_there(config, "whole", 0)
    for name, first, then in (("there", NUM_GPUS, 0), ("here", 0, NUM_GPUS)):
        with killed_after_an_epoch():
            train_there(config, name, first)
        state = load_state(tmp_path / name / "checkpoints")
        assert state is not None
        assert {value.device for value in state["model"].values()} == {CPU}
        assert train_there(config, name, then) == pytest.approx(expected, rel=1e-3)


@pytest.fixture
def one_of_several(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """``one_of_several("ddp")``: this process is one of a group, nccl's on a GPU, though alone in it."""
    strategy = ranks._strategy
    with patch.dict(os.environ):  # fabric writes ranks and a port there
        yield lambda name: monkeypatch.setattr(
            ranks, "_strategy", lambda *_: strategy(name, 2) if name == "ddp" else _fsdp_alone()
        )
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _fsdp_alone() -> object:
    return ranks.ModelParallelStrategy(ranks._split, data_parallel_size=1, tensor_parallel_size=1)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_process_group(
    strategy: str,
    tiny_config_with: ConfigWith,
    train_there: TrainThere,
    one_of_several: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = tiny_config_with(*CALM)
    expected = train_there(config, "alone")
    backends = []
    run = Trainer.run
    monkeypatch.setattr(Trainer, "run", lambda self: (backends.append(torch.distributed.get_backend()), run(self)))
    one_of_several(strategy)
    assert train_there(config, "group") == pytest.approx(expected, rel=1e-3)
    assert "nccl" in backends[0] if NUM_GPUS else "gloo" in backends[0]


@needs_cuda
def test_batches_are_pinned_and_arrive_whole(corpus: Corpus) -> None:
    parts = [np.arange(3), np.arange(3, 6)]
    for pinned, plain in zip(corpus.loader(parts, num_workers=1, pin_memory=True), corpus.loader(parts), strict=True):
        assert pinned.features.is_pinned()
        assert torch.equal(pinned.to(DEVICE).features.cpu(), plain.features)


@needs_cuda
def test_memory_does_not_grow_from_epoch_to_epoch(
    tiny_config_with: ConfigWith, train_there: TrainThere, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[int] = []
    finish = Trainer._finish_epoch

    def finish_and_note(trainer: Trainer) -> None:
        finish(trainer)
        used.append(torch.cuda.memory_allocated())

    monkeypatch.setattr(Trainer, "_finish_epoch", finish_and_note)
    train_there(tiny_config_with("train.epochs=4", "model.layer=conformer"), "grown")
    assert used[-1] <= used[1] + 2**20, "tables of positions that are kept are smaller, activations larger"
