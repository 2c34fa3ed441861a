"""Whatever is accepted counts: a change of one number is seen in what is recorded and, for a training, in what is computed."""

import json
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, reject, settings
from hypothesis import strategies as st

from asrprune.config.load import parse_config, resolved
from asrprune.config.names import numbers
from asrprune.config.schema import Config
from asrprune.features.augment import change_vocal_tract, change_volume, spec_augment
from asrprune.model.ctc_model import CtcModel
from asrprune.model.stochastic_depth import draw_depth, drop_probabilities, grown_depth
from asrprune.runtime.errors import UserError
from asrprune.train.optim import learning_rate

NUM_MELS, FRAMES, VOCAB = 20, 150, 5
LAYERS = st.integers(2, 4)  # with one layer, which stochastic depth treats alike in both modes, there is little to choose
TAPS = st.sampled_from([[], [4], [1], [2], [1, 3], [2, 4]])  # of 4 layers
SHARES = st.sampled_from([0.0, 0.2, 0.4])
# A handful of values for each number: coarse ones, so that a change is no matter of rounding.
TRAINING: dict[str, st.SearchStrategy[Any]] = {
    "augment.volume_db": st.sampled_from([0, 3, 6]),
    "augment.vocal_tract": st.sampled_from([0, 0.1, 0.2]),
    "augment.num_freq_masks": st.integers(0, 3),
    "augment.max_freq_mask": st.sampled_from([0, 5, 12, 27]),
    "augment.num_time_masks": st.integers(0, 3),
    "augment.max_time_mask": st.sampled_from([0, 0.05, 0.2, 0.5]),
    "model.layer.type": st.sampled_from(["transformer", "conformer", "ebranchformer"]),
    "model.layer.position_scale": st.sampled_from([1, 2, 4]),
    "model.layer.kernel": st.sampled_from([3, 7, 31]),
    "model.layer.merge_kernel": st.sampled_from([3, 7]),
    "model.layer.cgmlp": st.sampled_from([None, 6, 24]),  # None: 32, of width 8
    "model.layer.norm": st.sampled_from(["batch", "layer"]),
    "model.num_layers": LAYERS,
    "model.dim": st.sampled_from([8, 16]),
    "model.heads": st.sampled_from([1, 2, 4]),
    "model.ffn": st.sampled_from([8, 12]),
    "model.subsampling.type": st.sampled_from(["conv1d", "conv2d"]),
    "model.subsampling.channels": st.sampled_from([2, 3]),
    "model.subsampling.factor": st.sampled_from([4, 8]),
    "model.dropout": st.sampled_from([0, 0.1, 0.5]),
    "model.attention_dropout": st.sampled_from([0, 0.1, 0.5]),
    "model.taps": TAPS,
    "model.tap_weight": SHARES,
    "model.truncated": st.dictionaries(st.integers(1, 3), SHARES, max_size=2),
    "model.grow": st.dictionaries(st.integers(1, 3), st.integers(20, 40), max_size=2),
    "model.self_conditioning": st.booleans(),
    "model.stochastic_depth.rate": st.sampled_from([0, 0.2, 0.5]),
    "model.stochastic_depth.mode": st.sampled_from(["linear", "uniform"]),
    "train.schedule.name": st.sampled_from(["noam", "cosine"]),
    "train.schedule.peak": st.sampled_from([1e-3, 2e-3]),
    "train.schedule.warmup_steps": st.sampled_from([10, 20]),
    "train.schedule.final": st.sampled_from([0, 1e-4]),
}
SEARCH: dict[str, st.SearchStrategy[Any]] = {
    "prune.strategies": st.lists(st.sampled_from(["top", "every", "greedy", "svcca"]), min_size=1, unique=True),
    "prune.depths": st.none() | st.lists(LAYERS, min_size=1, max_size=3, unique=True),
    "prune.min_depth": LAYERS,
    "prune.metric": st.sampled_from(["wer", "ctc"]),
    "prune.beam": st.integers(1, 3),
    "prune.rerank": st.integers(1, 3),
    "prune.speeds": st.lists(st.sampled_from([0.9, 1.0, 1.1]), min_size=1, unique=True),
    "prune.svcca_variance": st.sampled_from([0.9, 0.99]),
    "prune.svcca_frames": st.integers(1, 9),
}
# What can make other numbers idle.
SWITCHES = (
    "augment.num_freq_masks", "augment.max_freq_mask", "augment.num_time_masks", "augment.max_time_mask",
    "model.layer.type", "model.taps", "model.tap_weight", "model.stochastic_depth.rate",
    "train.schedule.name",
    "prune.strategies", "prune.depths", "prune.rerank",
)  # fmt: skip
SIZES = {"model.num_layers": 4, "model.dim": 8, "model.heads": 2, "model.ffn": 8, "model.subsampling.channels": 2}
SMALL = SIZES | {"frontend.num_mels": NUM_MELS, "train.schedule.warmup_steps": 10}
OFTEN = settings(
    max_examples=20,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],  # a failure names the number, so there is nothing to shrink
)


def tree(flat: dict[str, Any]) -> dict[str, Any]:
    """``{"model.dim": 8}`` -> ``{"model": {"dim": 8}}``."""
    values: dict[str, Any] = {}
    for name, value in flat.items():
        *path, key = name.split(".")
        holder = values
        for section in path:
            holder = holder.setdefault(section, {})
        holder[key] = value
    return values


def accepted(flat: dict[str, Any]) -> Config:
    """A config; a case that is refused is drawn anew."""
    try:
        return parse_config(tree(flat), "drawn")
    except UserError:
        reject()


def two_configs(data: st.DataObject, name: str) -> tuple[Config, Config]:
    """Two configs that differ in one number, both of which are accepted; some switches of its section are on or off."""
    choices = TRAINING | SEARCH
    near = [switch for switch in SWITCHES if switch.split(".")[0] == name.split(".")[0] and switch != name]
    flat = SMALL | {switch: data.draw(choices[switch], switch) for switch in near if data.draw(st.booleans())}
    if name in ("model.layer.kernel", "model.layer.norm"):
        flat["model.layer.type"] = "conformer"
    if name in ("model.layer.merge_kernel", "model.layer.cgmlp"):
        flat["model.layer.type"] = "ebranchformer"
    if name == "train.schedule.final":
        flat["train.schedule.name"] = "cosine"
    first, second = (accepted(flat | {name: data.draw(choices[name], which)}) for which in ("one", "two"))
    if value_of(first, name) == value_of(second, name):
        reject()
    return first, second


def value_of(config: Config, name: str) -> Any:
    """The value of a number, such that two spellings of the same are equal."""
    if name == "model.tap_weight":
        return config.model.exit_weights
    value: Any = config
    for key in name.split("."):
        value = getattr(value, key)
    return set(value) if name in ("prune.strategies", "prune.speeds", "prune.depths") and value else value


@pytest.mark.parametrize("name", [*TRAINING, *SEARCH])
@OFTEN
@given(data=st.data())
def test_what_is_recorded_changes_with_every_number_that_is_accepted(name: str, data: st.DataObject) -> None:
    first, second = two_configs(data, name)
    if name == "prune.depths" and first.depths() == second.depths():  # the full depth is always among them
        reject()
    assert resolved(first) != resolved(second)


@pytest.mark.parametrize("name", TRAINING)
@OFTEN
@given(data=st.data())
def test_what_is_computed_changes_with_every_number_of_a_training(name: str, data: st.DataObject) -> None:
    """Seen from outside: masks, layers that are skipped, learning rates and losses, not from what the config says of itself."""
    first, second = two_configs(data, name)
    assert computed(first, name) != computed(second, name)


def computed(config: Config, name: str) -> tuple[object, ...]:
    """A fingerprint of all that is made with the section of a number."""
    if name.startswith("augment."):
        return _augmented(config)
    return _updates(config) if name.startswith("train.") else (*_updates(config), *_losses(config.model.model_dump_json()))


def _augmented(config: Config) -> tuple[object, ...]:
    """Sums of features after each kind of augmentation; the masks' are of several draws, as some are empty."""
    features = torch.randn(2, 200, NUM_MELS, generator=torch.Generator().manual_seed(1))
    made = []
    for change in (
        lambda: change_volume(features, torch.ones(NUM_MELS), config.augment),
        lambda: change_vocal_tract(features, config.frontend, config.augment),
        lambda: torch.stack([spec_augment(features, config.augment) for _ in range(8)]),
    ):
        torch.manual_seed(2)
        made.append(round(float(change().abs().sum()), 2))
    return tuple(made)


def _updates(config: Config) -> tuple[object, ...]:
    model, schedule = config.model, config.train.schedule
    skipped = drop_probabilities(model.num_layers, model.stochastic_depth.rate, model.stochastic_depth.mode)
    ends = [draw_depth(model.truncated, model.num_layers, config.seed, step) for step in range(1, 60)]
    tops = [grown_depth(model.grow, model.num_layers, step) for step in range(2, 60)]
    rates = [round(learning_rate(step, 100, schedule), 9) for step in (1, 10, 15, 50, 100)]
    return tuple(skipped), tuple(ends), tuple(tops), tuple(rates)


@cache
def _losses(model: str) -> tuple[object, ...]:
    """Of a training step of a tiny model: the loss of every exit, the whole loss, and the size of the model."""
    config = parse_config({"model": json.loads(model)}, "drawn").model
    torch.manual_seed(3)
    made = CtcModel(config, NUM_MELS, VOCAB).train()
    features, lens = torch.randn(2, FRAMES, NUM_MELS), torch.tensor([FRAMES, FRAMES - 20])
    labels = torch.tensor([[1, 2, 3], [2, 1, 0]])
    torch.manual_seed(4)  # of dropout
    losses = made(features, lens, labels, torch.tensor([3, 2]))
    shapes = tuple(tuple(weight.shape) for weight in made.state_dict().values())
    return (*(round(loss.item(), 3) for loss in losses), round(made.total(losses).item(), 4), shapes)


def test_every_number_of_the_sections_that_can_be_idle_is_drawn() -> None:
    sections = ("augment.", "model.", "train.schedule.", "prune.")
    there = {number.name for number in numbers() if number.name.startswith(sections)}
    assert there - {"augment.speeds"} == TRAINING.keys() | SEARCH.keys()
