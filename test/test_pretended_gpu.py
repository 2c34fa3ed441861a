"""Every command that can run on a GPU does so, on one that is not there, and finds what it finds on the CPU."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from emissions import emit
from experiments import killed_after_an_epoch, losses, with_numbers
from lightning_fabric import Fabric
from lightning_fabric.accelerators import CPUAccelerator
from lightning_fabric.strategies import SingleDeviceStrategy
from pretended_gpu import GPU, OnGpu, pretended_gpu

from asrprune.analysis.activations import activations
from asrprune.config.schema import AugmentConfig, Config, FrontendConfig, ModelConfig
from asrprune.data.dataset import Corpus
from asrprune.decode import shards
from asrprune.decode.benchmark import bench
from asrprune.experiment.plan import Keep
from asrprune.experiment.store import Experiment, load
from asrprune.features.augment import change_vocal_tract, change_volume, spec_augment
from asrprune.infer import runner
from asrprune.infer.runner import Runner
from asrprune.model import relative_attention
from asrprune.model.ctc_model import CtcModel
from asrprune.prune.dev_scorer import DevScorer
from asrprune.prune.strategies.iterative import iterative
from asrprune.recognizer import Recognizer
from asrprune.runtime import hardware
from asrprune.runtime.executor import Executor
from asrprune.train import start
from asrprune.train.checkpoint import load_state
from asrprune.train.update import zero_of_unused

KEEPS: list[Keep] = [(1, 2, 3, 4), (1, 2, 4), (1, 3), (4,)]

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def no_tables_of_another_device() -> Iterator[None]:
    relative_attention.distances.cache_clear()
    yield
    relative_attention.distances.cache_clear()


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    for module in (hardware, runner):
        monkeypatch.setattr(module, "pick_device", lambda num_gpus: GPU if num_gpus else torch.device("cpu"))
    with pretended_gpu() as device:
        yield device


# -- the pretence ------------------------------------------------------------------------------------------------------


def test_mixing_devices_fails_as_on_cuda(gpu: torch.device) -> None:
    there, here = torch.ones(2, device=gpu), torch.ones(2)
    assert isinstance(there, OnGpu)
    assert (there * 2 + torch.tensor(1.0)).tolist() == [3.0, 3.0], "a CPU number is allowed"
    for mix in (lambda: there + here, lambda: torch.cat([here, there]), lambda: there.add_(here), lambda: there[here > 0]):
        with pytest.raises(RuntimeError, match=r"on cuda:0 and on the CPU"):
            mix()
    with pytest.raises(RuntimeError, match="numpy"):
        there.numpy()
    assert there.cpu().numpy().tolist() == [1.0, 1.0]
    assert there.add_(here.to(gpu)) is there
    assert there.tolist() == [2.0, 2.0]


@pytest.mark.parametrize("layer", ["transformer", "conformer", "ebranchformer"])
def test_bfloat16_stays_near_float32_under_the_rules_of_cuda(layer: str, gpu: torch.device) -> None:
    model = make_model({"layer": layer, "self_conditioning": True}).to(gpu)
    features, lens = torch.randn(3, 60, 80, device=gpu), torch.tensor([60, 33, 5], device=gpu)
    found = {}
    for precision in ("float32", "bf16"):
        with hardware.inference(precision, gpu):
            found[precision] = emit(model, features, lens).log_probs
            assert model.encoder.subsampling(model.normalise(features)).dtype == hardware.autocast_type(precision, gpu)
    assert found["bf16"].dtype == torch.float32
    assert not torch.equal(found["bf16"].cpu(), found["float32"].cpu())
    torch.testing.assert_close(found["bf16"].cpu(), found["float32"].cpu(), atol=0.1, rtol=0.05)


MODELS = {
    "transformer": {},
    "conformer": {"layer": {"type": "conformer", "kernel": 3, "norm": "batch"}},
    "conformer, LayerNorm": {"layer": {"type": "conformer", "kernel": 3, "norm": "layer"}},
    "ebranchformer": {"layer": {"type": "ebranchformer", "kernel": 3, "merge_kernel": 5, "cgmlp": 24}},
    "conditioned": {"self_conditioning": True},
}


def make_model(options: dict[str, object]) -> CtcModel:
    torch.manual_seed(0)
    sizes = {"num_layers": 4, "dim": 16, "heads": 2, "ffn": 32, "subsampling": {"channels": 4}, "taps": [1, 2]}
    return CtcModel(ModelConfig.model_validate({**sizes, **options}), 80, 7).eval()


# -- what runs on it ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [None, (1, 3), ()])
@pytest.mark.parametrize("options", MODELS.values(), ids=MODELS)
def test_losses(options: dict[str, object], keep: Keep | None, gpu: torch.device) -> None:
    """Also of layers that are left out but take part, as several processes need it."""
    model, scales = make_model(options), [1.5] * 4
    batch = torch.randn(3, 60, 80), torch.tensor([60, 33, 5]), torch.ones(3, 5, dtype=torch.int64), torch.tensor([5, 4, 0])
    with torch.inference_mode():
        expected = model(*batch, keep, scales)
    there = model.to(gpu)
    with torch.inference_mode():
        found = there(*(x.to(gpu) for x in batch), keep, scales) + zero_of_unused(there, keep or ())
    assert found.device == gpu
    torch.testing.assert_close(found.cpu(), expected)


def test_augmentation(gpu: torch.device) -> None:
    options = AugmentConfig(volume_db=8.0, vocal_tract=0.1)
    features, scale = torch.randn(3, 60, 80), torch.rand(80)

    def augmented(device: torch.device) -> torch.Tensor:
        torch.manual_seed(1)
        x = change_vocal_tract(features.to(device), FrontendConfig(), options)
        return spec_augment(change_volume(x, scale.to(device), options), options)

    there = augmented(gpu)
    assert there.device == gpu
    torch.testing.assert_close(there.cpu(), augmented(torch.device("cpu")))


@pytest.mark.parametrize("metric", ["wer", "ctc"])
def test_search(experiment: Experiment, corpus: Corpus, metric: str, gpu: torch.device) -> None:
    found = []
    for num_gpus in (0, 1):
        scorer = DevScorer(experiment, corpus, metric, Executor(num_gpus))
        steps = iterative(experiment.num_layers, scorer, 1)
        found.append(([step.keep for step in steps], [step.score for step in steps]))
        assert next(experiment.model.parameters()).device.type == ("cuda" if num_gpus else "cpu")
    assert found[0][0] == found[1][0]
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-5)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_decoding(experiment: Experiment, corpus: Corpus, precision: str, gpu: torch.device) -> None:
    experiment = with_numbers(experiment, "decode", precision=precision)
    batches = np.array_split(np.arange(len(corpus)), 2)
    here, there = (shards.hypotheses(experiment, corpus, KEEPS, batches, num_gpus) for num_gpus in (0, 1))
    assert next(experiment.model.parameters()).device == gpu
    assert any(here[KEEPS[0]].values())
    if precision == "float32":  # in bfloat16 the operations that CUDA does in float32 are others than the CPU's
        assert there == here


def test_activations(experiment: Experiment, corpus: Corpus, gpu: torch.device) -> None:
    here = activations(Runner(experiment.model, CPU, "float32"), corpus, 50, 200, seed=1)
    there = activations(Runner(experiment.model.to(gpu), gpu, "float32"), corpus, 50, 200, seed=1)
    for expected, found in zip(here, there, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_transcription(tiny_experiment: Path, gpu: torch.device) -> None:
    samples = np.random.default_rng(0).normal(scale=0.1, size=16000).astype(np.float32)
    here, there = (Recognizer.load(tiny_experiment, device=str(device)) for device in ("cpu", gpu))
    assert there.transcribe(samples, depth=2) == here.transcribe(samples, depth=2)


def test_benchmark(tiny_experiment: Path, tiny_data: Path, tmp_path: Path, gpu: torch.device) -> None:
    experiment = replace(load(tiny_experiment, gpu), path=tmp_path)
    text = bench(experiment, tiny_data / "dev", KEEPS).read_text()
    assert '"device": "cuda"' in text


# -- training ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def train_there(
    monkeypatch: pytest.MonkeyPatch, run_training: Callable[[Config, Path], None]
) -> Callable[[Config, Path], None]:
    """``run_training`` on the GPU."""

    class Accelerator(CPUAccelerator):
        def setup_device(self, device: torch.device) -> None:
            assert device == GPU

    def fabric(*_: object) -> Fabric:
        made = Fabric(accelerator="cpu", devices=1)
        made._accelerator = Accelerator()
        made._strategy = SingleDeviceStrategy(GPU, made._accelerator, precision=made._precision)
        return made

    def run(config: Config, exp: Path) -> None:
        with monkeypatch.context() as patch, pretended_gpu(backward=True):
            patch.setattr(start, "make_fabric", fabric)
            run_training(config, exp)

    return run


@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true but no accelerator is found")
@pytest.mark.parametrize("layer", ["transformer", "conformer", "ebranchformer"])
def test_training(
    layer: str,
    tiny_config_with: Callable[..., Config],
    train_there: Callable[[Config, Path], None],
    run_training: Callable[[Config, Path], None],
    tmp_path: Path,
) -> None:
    """It learns what it learns on the CPU. (Dropout, of which there is none, draws other numbers.)"""
    config = tiny_config_with(f"model.layer={layer}", "model.dropout=0", "augment.volume_db=3", "augment.vocal_tract=0.1")
    run_training(config, tmp_path / "here")
    train_there(config, tmp_path / "there")
    assert losses(tmp_path / "there") == pytest.approx(losses(tmp_path / "here"), rel=1e-3)
    state = load_state(tmp_path / "there" / "checkpoints")
    assert state is not None
    assert {value.device.type for value in state["model"].values()} == {"cpu"}


@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true but no accelerator is found")
def test_training_with_dropout_goes_on_where_it_was_killed(
    tiny_config: Config, train_there: Callable[[Config, Path], None], tmp_path: Path
) -> None:
    train_there(tiny_config, tmp_path / "whole")
    with killed_after_an_epoch():
        train_there(tiny_config, tmp_path / "killed")
    train_there(tiny_config, tmp_path / "killed")
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
