"""A number that changes nothing is an error, or cannot be written; files of earlier versions are read nevertheless."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from asrprune.config.load import parse_config, read_config, resolved, write_config
from asrprune.config.mistakes import changed
from asrprune.config.names import numbers
from asrprune.config.schema import Config, ConformerConfig, CosineConfig, NoamConfig, PruneConfig, TransformerConfig
from asrprune.runtime.errors import UserError

NO_TAPS = "without a tap below the last layer; leave it out"
CASES = [
    ("model: {layer: {type: transformer, kernel: 7}}", "model.layer.kernel: has no effect with type: transformer; known keys"),
    (
        "model: {layer: {norm: layer}}",
        "model.layer.norm: has no effect with type: transformer; known keys here: type, position_",
    ),
    ("model: {conv_kernel: 15}", "model.layer.kernel: has no effect with type: transformer"),
    ("model: {layer: transformer, conv_norm: layer}", "model.layer.norm: has no effect with type: transformer"),
    ("model: {layer: {type: conformer, position_scale: 1}}", "model.layer.position_scale: has no effect with type: conformer"),
    ("model: {layer: conformer, position_scale: 4}", "model.layer.position_scale: has no effect with type: conformer"),
    (
        "train: {schedule: {name: noam, final: 1e-5}}",
        "train.schedule.final: has no effect with name: noam; known keys here: name",
    ),
    ("train: {schedule: {final: 1e-5}}", "train.schedule.final: has no effect with name: noam"),
    ("prune: {strategies: [greedy], rerank: 5}", "prune: rerank has no effect without the strategy svcca; leave it out"),
    ("prune: {strategies: [svcca], beam: 2}", "prune: beam has no effect without the strategy iterative; leave it out"),
    (
        "prune: {strategies: [svcca, top], metric: ctc}",
        "prune: metric has no effect without the strategy iterative, or svcca with a rerank above 1; leave it out",
    ),
    (
        "decode: {decoder: {type: beam, context: [an4], context_bonus: 0}}",
        "decode.decoder: context has no effect with context_bonus 0; leave it out",
    ),
    ("prune: {depths: [12, 6], min_depth: 3}", "prune: min_depth has no effect beside depths; leave it out"),
    ("model: {taps: [], self_conditioning: true}", f"model: self_conditioning has no effect {NO_TAPS}"),
    ("model: {taps: [12], self_conditioning: true}", f"model: self_conditioning has no effect {NO_TAPS}"),
    ("model: {taps: [], tap_weight: 0.5}", f"model: tap_weight has no effect {NO_TAPS}"),
    ("model: {num_layers: 1, tap_weight: 0.5}", f"model: tap_weight has no effect {NO_TAPS}"),
    ("model: {truncated: {3: 0}}", "model: truncated has no effect with a share of 0; leave that tap out, got {3: 0.0}"),
    (
        "model: {stochastic_depth: {rate: 0, mode: uniform}}",
        "model.stochastic_depth: mode has no effect with rate 0; leave it out",
    ),
    (
        "augment: {num_freq_masks: 0, max_freq_mask: 9}",
        "augment: max_freq_mask has no effect with num_freq_masks 0",
    ),
    (
        "augment: {num_freq_masks: 1, max_freq_mask: 0}",
        "augment: num_freq_masks has no effect with max_freq_mask 0",
    ),
    ("augment: {num_time_masks: 0, max_time_mask: 0.1}", "augment: max_time_mask has no effect with num_time_masks 0"),
    ("augment: {num_time_masks: 1, max_time_mask: 0}", "augment: num_time_masks has no effect with max_time_mask 0"),
]


def read(folder: Path, text: str, *overrides: str) -> Config:
    (folder / "train.yaml").write_text(text)
    return read_config(folder / "train.yaml", overrides)


@pytest.mark.parametrize(("text", "sentence"), CASES, ids=[text for text, _ in CASES])
def test_a_number_without_effect_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path}/train.yaml: {sentence}")
    assert "\n" not in str(caught.value), "one sentence"


@pytest.mark.parametrize(
    "text",
    [
        "model: {layer: {type: transformer, position_scale: 4}}",
        "model: {layer: {type: conformer, kernel: 15, norm: layer}}",
        "train: {schedule: {name: cosine, final: 1e-5}}",
        "prune: {strategies: [svcca], rerank: 5, metric: ctc}",
        "prune: {strategies: [greedy], beam: 1, metric: ctc}",
        "prune: {strategies: [top], svcca_frames: 10, svcca_variance: 0.9}",  # numbers of `asrprune svcca`, too
        "prune: {min_depth: 3}",
        "model: {taps: [3, 12], self_conditioning: true, tap_weight: 0.5}",
        "model: {layer: conformer, attention_dropout: 0.1}",
        "augment: {num_freq_masks: 0, num_time_masks: 0}",
        "augment: {num_freq_masks: 0, max_freq_mask: 27}",  # the default says nothing
        "model: {taps: [], tap_weight: 0.66}",
        "model: {stochastic_depth: {rate: 0, mode: linear}}",
    ],
)
def test_what_has_an_effect_or_the_default_is_taken(tmp_path: Path, text: str) -> None:
    assert parse_config(resolved(read(tmp_path, text)), "again") is not None


def test_no_number_is_a_switch() -> None:
    """Python takes true for 1."""
    for number in numbers():
        *path, key = number.name.split(".")
        tags = {tag: field.default for tag, field in number.section.model_fields.items() if tag in ("type", "name")}
        values: dict[str, Any] = {**tags, key: True}
        for section in reversed(path):
            values = {section: values}
        if number.field.annotation is bool:
            continue
        with pytest.raises(UserError, match=number.name.replace(".", r"\.")):
            parse_config(values, "test")


# ---- old spellings


@pytest.mark.parametrize(
    ("model", "layer"),
    [
        ("", TransformerConfig()),
        ("layer: transformer", TransformerConfig()),
        ("layer: transformer, position_scale: 4", TransformerConfig(position_scale=4)),
        ("position_scale: 4", TransformerConfig(position_scale=4)),
        ("layer: transformer, conv_kernel: 31, conv_norm: batch", TransformerConfig()),
        ("layer: conformer", ConformerConfig()),
        ("layer: conformer, conv_kernel: 15, conv_norm: layer", ConformerConfig(kernel=15, norm="layer")),
        ("layer: conformer, conv_kernel: 15, position_scale: 1", ConformerConfig(kernel=15)),
        ("layer: {type: conformer}", ConformerConfig()),
        ("layer:", TransformerConfig()),
    ],
)
def test_layers_are_read_in_both_spellings(tmp_path: Path, model: str, layer: object) -> None:
    found = read(tmp_path, f"model: {{{model}}}").model.layer
    assert found == layer
    assert type(found) is type(layer)


def test_both_spellings_at_once_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"model\.conv_kernel: is the old name of model\.layer\.kernel; both are given, remove the old one"
    ):
        read(tmp_path, "model: {layer: {type: conformer}, conv_kernel: 15}")


def test_schedules_are_read_in_both_spellings(tmp_path: Path) -> None:
    assert read(tmp_path, "train: {schedule: {name: noam, final: 0.0, peak: 1}}").train.schedule == NoamConfig(peak=1)
    assert read(tmp_path, "train: {schedule: cosine}").train.schedule == CosineConfig()


def written(**changes: Any) -> dict[str, Any]:
    """A config.yaml as earlier versions wrote it: all keys, flat; ``changes``: section__key=value."""
    values = resolved(Config())
    model = values["model"]
    model |= {"layer": "transformer", "position_scale": 1.0, "conv_kernel": 31, "conv_norm": "batch"}
    values["train"]["schedule"]["final"] = 0.0
    for name, value in changes.items():
        *path, key = name.split("__")
        holder = values
        for section in path:
            holder = holder[section]
        holder[key] = value
    return values


@pytest.mark.parametrize(
    "changes",
    [
        {"model__conv_kernel": 15, "model__conv_norm": "layer"},
        {"model__layer": "conformer", "model__position_scale": 4.0},
        {"train__schedule__final": 1e-5},
        {"prune__strategies": ["top"], "prune__beam": 7, "prune__rerank": 5, "prune__metric": "ctc"},
        {"prune__min_depth": 4},
        {"model__taps": [], "model__tap_weight": 0.5},
        {"model__taps": [], "model__self_conditioning": True},
        {"model__stochastic_depth": {"rate": 0.0, "mode": "uniform"}},
        {"augment__num_time_masks": 0, "augment__max_time_mask": 0.2},
    ],
)
def test_a_whole_file_of_an_earlier_version_is_read_without_what_had_no_effect(tmp_path: Path, changes: dict[str, Any]) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(written(**changes)))
    config = read_config(tmp_path / "config.yaml")
    kept = resolved(config)
    assert kept == resolved(parse_config(written(**changes), "record"))
    assert parse_config(kept, "again") == config, "what is written today has no idle number"
    assert {"conv_kernel", "conv_norm", "position_scale", "conv_channels"}.isdisjoint(kept["model"])
    with pytest.raises(UserError, match="has no effect"):  # as it would be in a recipe
        parse_config({key: value for key, value in written(**changes).items() if key != "bench"}, "recipe")
    for section in ("tokenizer", "batch", "bench"):  # a person writes all sections, but not each of their numbers
        with pytest.raises(UserError, match="has no effect"):
            parse_config({**written(**changes), section: {}}, "recipe")


def test_an_earlier_version_without_self_conditioning_layers_still_has_its_weights() -> None:
    """A model that was cut above its taps kept the weights of its self-conditioning."""
    config = parse_config(written(model__taps=[], model__self_conditioning=True), "config.yaml")
    assert config.model.self_conditioning is True
    assert resolved(config)["model"]["self_conditioning"] is False


# ---- --set


@pytest.mark.parametrize(
    ("text", "overrides", "layer"),
    [
        ("", ["model.layer=conformer"], ConformerConfig()),
        ("", ["model.layer.type=conformer"], ConformerConfig()),
        ("model: {layer: {type: transformer, position_scale: 4}}", ["model.layer=conformer"], ConformerConfig()),
        ("model: {layer: {type: transformer, position_scale: 4}}", ["model.layer.type=conformer"], ConformerConfig()),
        ("model: {layer: transformer, position_scale: 4}", ["model.layer=conformer"], ConformerConfig()),
        ("model: {layer: {type: conformer, kernel: 7}}", ["model.layer=conformer"], ConformerConfig(kernel=7)),
        ("model: {layer: conformer}", ["model.layer.kernel=7"], ConformerConfig(kernel=7)),
        ("model: {layer: conformer, conv_kernel: 9}", ["model.layer.kernel=7"], ConformerConfig(kernel=7)),
        ("model: {layer: {type: conformer}}", ["model.conv_kernel=7"], ConformerConfig(kernel=7)),
        ("", ["model.conv_kernel=7", "model.layer=conformer"], ConformerConfig(kernel=7)),
        ("model: {layer: {type: conformer, kernel: 7}}", ["model.layer=transformer"], TransformerConfig()),
        ("", ["model.layer={type: conformer, kernel: 7}"], ConformerConfig(kernel=7)),
    ],
)
def test_layers_can_be_chosen_by_set(tmp_path: Path, text: str, overrides: list[str], layer: object) -> None:
    assert read(tmp_path, text, *overrides).model.layer == layer


def test_a_number_that_is_set_itself_is_never_dropped(tmp_path: Path) -> None:
    for overrides in (["model.layer.position_scale=4", "model.layer=conformer"], ["model.layer.kernel=7"]):
        with pytest.raises(UserError, match="has no effect with type"):
            read(tmp_path, "", *overrides)


def test_another_schedule_takes_the_numbers_that_it_has(tmp_path: Path) -> None:
    text = "train: {schedule: {name: cosine, peak: 2, warmup_steps: 3, final: 1}}"
    assert read(tmp_path, text, "train.schedule.name=noam").train.schedule == NoamConfig(peak=2, warmup_steps=3)


def test_a_file_of_an_earlier_version_can_be_overridden(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(written(model__conv_kernel=15, prune__min_depth=4)))
    config = read_config(tmp_path / "config.yaml", ["model.layer=conformer", "train.epochs=3"])
    assert (config.model.layer, config.train.epochs) == (ConformerConfig(), 3)
    with pytest.raises(UserError, match="rerank has no effect"):
        read_config(tmp_path / "config.yaml", ["prune.strategies=[top]", "prune.rerank=3"])


# ---- one command's options


def test_options_may_leave_numbers_without_effect_but_must_not_be_without() -> None:
    options = PruneConfig(beam=5, rerank=2)
    assert changed(options, {"strategies": ["top"]}, "search").beam == 5
    with pytest.raises(UserError, match="search: beam has no effect without the strategy iterative"):
        changed(options, {"strategies": ["top"], "beam": 4}, "search")


def test_what_is_written_has_defaults_for_what_has_no_effect(
    tiny_config: Config, tmp_path: Path, tiny_config_with: Callable[..., Config]
) -> None:
    """A pruned model's config is made of one that had an effect."""
    model = tiny_config.model.model_copy(update={"taps": (), "tap_weight": 0.3})
    write_config(tiny_config.model_copy(update={"model": model}), tmp_path / "config.yaml")
    assert read_config(tmp_path / "config.yaml").model.tap_weight == 0.66
