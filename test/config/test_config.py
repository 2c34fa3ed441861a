"""The config: every mistake is named at once, where it stands, and what is written with an experiment reads back the same."""

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from asrprune.config.load import parse_config, read_config, read_yaml, resolved, write_config
from asrprune.config.schema import Config, Conv1dConfig, Conv2dConfig
from asrprune.runtime.errors import UserError


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "train.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def complaint(folder: Path, text: str | bytes, *overrides: str) -> str:
    """The message about a bad config, without the folder."""
    with pytest.raises(UserError) as caught:
        read_config(write(folder, text), overrides)
    return str(caught.value).replace(f"{folder}/", "")


# ---- mistakes


def test_three_mistakes_are_three_lines_of_one_error(tmp_path: Path) -> None:
    lines = complaint(tmp_path, "model:\n  heads: 3\nbatch:\n  max_frame: 9\ntrain:\n  epochs: many\n").splitlines()
    assert sorted(lines) == [
        "train.yaml: batch.max_frame: unknown key; known keys here: max_frames, accumulate; did you mean max_frames?",
        "train.yaml: model: dim must be a multiple of heads, but 256 is not one of 3",
        "train.yaml: train.epochs: input should be a valid integer, unable to parse string as an integer, got 'many'",
    ]


def test_unknown_key_lists_the_known_ones_at_every_level(tmp_path: Path) -> None:
    assert complaint(tmp_path, "sead: 1") == (
        "train.yaml: sead: unknown key; known keys here: seed, frontend, tokenizer, augment, batch, model, train, prune,"
        " decode, scoring, bench; did you mean seed?"
    )
    assert complaint(tmp_path, "model: {stochastic_depth: {p: 0.1}}") == (
        "train.yaml: model.stochastic_depth.p: unknown key; known keys here: rate, mode"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {stochastic_depth: {rate: 1.0}}", "model.stochastic_depth.rate: input should be less than 1, got 1.0"),
        ("train: {weight_decay: .inf}", "train.weight_decay: input should be a finite number, got inf"),
        ("train: {schedule: {peak: .inf}}", "train.schedule.peak: input should be a finite number, got inf"),
        ("train: {schedule: {peak: .nan}}", "train.schedule.peak: input should be a finite number, got nan"),
        ("frontend: {low_freq: .nan}", "frontend.low_freq: input should be a finite number, got nan"),
        ("model: {num_layers: 4, taps: [2, 1]}", "model: taps must ascend and lie in 1..num_layers = 1..4, got [2, 1]"),
        ("model: {num_layers: 4, taps: [2, 2]}", "model: taps must ascend and lie in 1..num_layers = 1..4, got [2, 2]"),
        (
            "model: {num_layers: 4, taps: [1, 4], truncated: {4: 0.5}}",
            "model: truncated: updates end at taps below the last layer, [1], got {4: 0.5}",
        ),
        (
            "model: {num_layers: 4, taps: [1, 2], tap_weight: 0, truncated: {1: 0.5}}",
            "model: truncated: updates end at taps, so tap_weight must be above 0, got 0",
        ),
        (
            "model: {num_layers: 4, taps: [1, 2], truncated: {1: 0.5, 2: 0.5}}",
            "model: truncated must leave some updates to all layers: a sum below 1, got {1: 0.5, 2: 0.5}",
        ),
        (
            "model: {num_layers: 4, taps: [1, 2], grow: {3: 50}}",
            "model: grow: updates end at taps below the last layer, [1, 2], got {3: 50}",
        ),
        (
            "model: {num_layers: 4, taps: [1, 2], grow: {1: 50, 2: 50}}",
            "model: grow: each tap needs more updates than the tap below it, and at least 2, got {1: 50, 2: 50}",
        ),
        (
            "model: {num_layers: 4, taps: [1, 2], tap_weight: 0, grow: {1: 50}}",
            "model: grow: updates end at taps, so tap_weight must be above 0, got 0",
        ),
        ("model: {num_layers: 4, taps: [5]}", "model: taps must ascend and lie in 1..num_layers = 1..4, got [5]"),
        ("model: {layer: {type: conformer, kernel: 4}}", "model.layer: kernel must be odd, got 4"),
        ("model: {layer: conformer, conv_kernel: 4}", "model.layer: kernel must be odd, got 4"),
        ("model: {layer: {type: ebranchformer, merge_kernel: 4}}", "model.layer: merge_kernel must be odd, got 4"),
        (
            "model: {layer: {type: ebranchformer, cgmlp: 33}}",
            "model.layer: cgmlp must be even, as half of it gates the other half, got 33",
        ),
        (
            "model: {layer: rnn}",
            "model.layer.type: input should be one of 'transformer', 'conformer', 'ebranchformer', got 'rnn'",
        ),
        ("model: {layer: 3}", "model.layer: must be a section of `key: value` lines, got 3"),
        ("train: {schedule: linear}", "train.schedule.name: input should be one of 'noam', 'cosine', got 'linear'"),
        ("prune: {depths: [12, 13]}", "prune.depths must lie in 1..model.num_layers = 1..12, got [13]"),
        ("prune: {min_depth: 13}", "prune.min_depth must not exceed model.num_layers = 12, got 13"),
        ("prune: {depths: [0]}", "prune.depths.0: input should be greater than or equal to 1, got 0"),
        (
            "prune: {strategies: [best]}",
            "prune.strategies.0: input should be 'iterative', 'svcca', 'influence', 'every' or 'lowest', got 'best'",
        ),
        ("prune: {strategies: []}", "prune.strategies: is empty; give a value, or leave the key out"),
        ("prune: {strategies: [lowest, every, lowest]}", "prune.strategies: has a value twice: lowest, every, lowest"),
        ("prune: {depths: []}", "prune.depths: is empty; give a value, or leave the key out"),
        ("augment: {speeds: []}", "augment.speeds: is empty; give a value, or leave the key out"),
        ("prune: {speeds: [1.0, 1]}", "prune.speeds: has a value twice: 1.0, 1.0"),
        ("seed: -1", "seed: input should be greater than or equal to 0, got -1"),
        ("seed: 1000000001", "seed: must lie between -1e9 and 1e9, got 1000000001"),
        ("model: {num_layers: 1001}", "model.num_layers: input should be less than or equal to 1000, got 1001"),
        ("frontend: {frame_shift_ms: 0.06}", "frontend: frame_shift_ms must not be shorter than a sample, got 0.06"),
        ("frontend: {frame_shift_ms: 30}", "frontend: frame_shift_ms must not exceed frame_length_ms = 25, got 30"),
        ("tokenizer: {vocab_size: null}", "tokenizer: vocab_size must be a number with type bpe"),
        ("frontend: {num_mels: 3}", "frontend.num_mels: input should be greater than or equal to 4, got 3"),
        (
            "frontend: {num_mels: 6}",
            "frontend.num_mels must be 7 or more with model.subsampling conv2d of factor 4, got 6",
        ),
        (
            "{frontend: {num_mels: 14}, model: {subsampling: {factor: 8}}}",
            "frontend.num_mels must be 15 or more with model.subsampling conv2d of factor 8, got 14",
        ),
        ("model: {subsampling: {factor: 6}}", "model.subsampling.factor: input should be 4 or 8, got 6"),
        (
            "model: {subsampling: {type: conv1d, channels: 0}}",
            "model.subsampling.channels: input should be greater than or equal to 1, got 0",
        ),
        (
            "model: {subsampling: {type: conv3d}}",
            "model.subsampling.type: input should be one of 'conv2d', 'conv1d', got 'conv3d'; did you mean conv2d?",
        ),
        ("model: {subsampling: {type: }}", "model.subsampling.type: input should be one of 'conv2d', 'conv1d', got 'None'"),
        (
            "model: {subsampling: conv3d}",
            "model.subsampling.type: input should be one of 'conv2d', 'conv1d', got 'conv3d'; did you mean conv2d?",
        ),
        (
            "model: {subsampling: {kernel: 3}}",
            "model.subsampling.kernel: unknown key; known keys here: type, channels, factor; did you mean model.layer.kernel?",
        ),
        (
            "model: {conv_channels: 32, subsampling: {channels: 32}}",
            "model.conv_channels: is the old name of model.subsampling.channels; both are given, remove the old one",
        ),
        ("model: {conv_channels: 0}", "model.subsampling.channels: input should be greater than or equal to 1, got 0"),
        (
            "frontend: {sample_rate: 8000, high_freq: 7600}",
            "frontend: low_freq and high_freq must ascend and lie in 0..4000 Hz, got 20 and 7600",
        ),
        ("frontend: {low_freq: 7600}", "frontend: low_freq and high_freq must ascend and lie in 0..8000 Hz, got 7600 and 7600"),
        ("train: {epochs: true}", "train.epochs: must be a number, got true"),
        ("model: {taps: [3, true]}", "model.taps.1: must be a number, got true"),
        ("train: 5", "train: must be a section of `key: value` lines, got 5"),
    ],
)
def test_a_bad_value_is_named_with_the_rule(tmp_path: Path, text: str, message: str) -> None:
    assert complaint(tmp_path, text) == f"train.yaml: {message}"


def test_two_mistakes_within_the_model_are_both_named(tmp_path: Path) -> None:
    message = complaint(tmp_path, "model: {heads: 3, taps: [99]}")
    assert "dim must be a multiple of heads" in message
    assert "taps must ascend" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1\ntrain:\n  epochs: 3\n  epochs: 4\n", "train.yaml:4: not valid YAML: key 'epochs' is given twice"),
        ("seed: 1\nseed: 1\n", "train.yaml:2: not valid YAML: key 'seed' is given twice"),
        ("seed: 1\ntrain:\n\tepochs: 3\n", "train.yaml:3: not valid YAML: found character '\\t' that cannot start any token"),
        ("seed: *x\n", "train.yaml:1: not valid YAML: found undefined alias 'x'"),
        ("a\x00: 1", "train.yaml: not valid YAML: unacceptable character #x0000: special characters are not allowed"),
        (b"seed: \xff", "train.yaml: a config file must be UTF-8 text"),
        ("seed: 9223372036854775808", "train.yaml:1: not valid YAML: a whole number of more than 64 bits"),
        ("- 1\n", "train.yaml: a config file must hold `key: value` lines, this one holds a list"),
    ],
)
def test_broken_yaml_is_shown_by_its_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    assert complaint(tmp_path, text) == message


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing\.yaml: no such config file"):
        read_config(tmp_path / "nothing.yaml")


# ---- what is read


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("2E-4", 2e-4), (".5e-3", 5e-4), ("1.e-3", 1e-3), ("1e+1", 10.0), ("3", 3.0), ("1.5e-3", 1.5e-3)],
)
def test_numbers_with_an_exponent_are_numbers(tmp_path: Path, text: str, value: float) -> None:
    path = write(tmp_path, f"train: {{schedule: {{peak: {text}}}}}")
    assert type(read_yaml(path)["train"]["schedule"]["peak"]) is not str
    assert read_config(path).train.schedule.peak == value
    assert read_config(write(tmp_path, ""), [f"train.schedule.peak={text}"]).train.schedule.peak == value


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "train:\nmodel:\n  # dim: 3\n"])
def test_nothing_given_is_all_defaults(tmp_path: Path, text: str) -> None:
    assert read_config(write(tmp_path, text)) == Config()


def test_config_is_frozen() -> None:
    config = Config()
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 2  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        config.model.dim = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("num_layers", "taps"), [(1, ()), (2, (1,)), (3, (1,)), (4, (1, 2)), (6, (1, 3)), (12, (3, 6)), (18, (4, 9)), (24, (6, 12))]
)
def test_taps_are_a_quarter_and_a_half_of_the_depth(num_layers: int, taps: tuple[int, ...]) -> None:
    config = parse_config({"model": {"num_layers": num_layers}}, "test")
    assert config.model.tap_layers == taps
    assert parse_config(resolved(config), "test").model.tap_layers == taps


def test_taps_can_be_turned_off() -> None:
    assert parse_config({"model": {"taps": []}}, "test").model.tap_layers == ()


@pytest.mark.parametrize(
    ("prune", "depths"),
    [
        ({}, (6, 5, 4, 3, 2, 1)),
        ({"min_depth": 4}, (6, 5, 4)),
        ({"depths": [2, 4, 2]}, (6, 4, 2)),
        ({"depths": [6]}, (6,)),
    ],
)
def test_depths_are_deepest_first_with_the_full_one(prune: dict[str, object], depths: tuple[int, ...]) -> None:
    assert parse_config({"model": {"num_layers": 6}, "prune": prune}, "test").depths() == depths


# ---- the front end


@pytest.mark.parametrize(
    ("model", "front_end"),
    [
        ("", Conv2dConfig(channels=None, factor=4)),
        ("subsampling:", Conv2dConfig()),
        ("subsampling: {channels: 32}", Conv2dConfig(channels=32)),
        ("subsampling: {factor: 8}", Conv2dConfig(factor=8)),
        ("subsampling: {type: conv1d}", Conv1dConfig()),
        ("subsampling: conv1d", Conv1dConfig()),
        ("subsampling: {type: conv1d, channels: 64, factor: 8}", Conv1dConfig(channels=64, factor=8)),
        ("conv_channels: 32", Conv2dConfig(channels=32, factor=4)),  # before there was a choice
        ("conv_channels:", Conv2dConfig(channels=None, factor=4)),
    ],
)
def test_front_end_is_the_papers_unless_told_otherwise(tmp_path: Path, model: str, front_end: object) -> None:
    config = read_config(write(tmp_path, f"model: {{dim: 32, {model}}}"))
    assert config.model.subsampling == front_end
    assert type(config.model.subsampling) is type(front_end)
    written = resolved(config)["model"]
    assert written["subsampling"] == {**front_end.model_dump(), "channels": config.model.subsampling.channels or 32}
    assert "conv_channels" not in written


@pytest.mark.parametrize("text", ["", "model:", "model: {subsampling: {channels: 16}}", "model: {subsampling: {type: conv1d}}"])
def test_front_end_can_be_overridden_key_by_key(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    one = read_config(path, ["model.subsampling.channels=32"]).model.subsampling
    assert (one.type, one.channels) == ("conv1d" if "conv1d" in text else "conv2d", 32)
    other = read_config(path, ["model.subsampling.type=conv1d", "model.subsampling.factor=8"]).model.subsampling
    assert other == Conv1dConfig(channels=16 if "16" in text else None, factor=8)


# ---- overrides


def test_overrides_win_and_the_last_wins_over_the_first(tmp_path: Path) -> None:
    path = write(tmp_path, "seed: 1\nmodel: {num_layers: 6, dim: 64}\ntrain:\n")
    config = read_config(path, ["model.taps=[2, 4]", "seed=3", "seed=4", "train.schedule.name=cosine", "train.epochs=7"])
    assert (config.model.num_layers, config.model.dim, config.model.taps) == (6, 64, (2, 4))
    assert (config.seed, config.train.schedule.name, config.train.epochs) == (4, "cosine", 7)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "--set seed: write section.key=value, for example train.epochs=20"),
        ("=3", "--set =3: write section.key=value, for example train.epochs=20"),
        ("seed=[1", "--set seed=[1: '[1' is not a YAML value"),
        (
            "model.truncated={3:0.2}",
            "--set model.truncated={3:0.2}: '{3:0.2}' is not a YAML value; write a blank after the colon",
        ),
        ("seed.x=3", "--set seed.x=3: seed is a value, not a section"),
        ("train.epoch=3", "train.yaml: train.epoch: unknown key; known keys here: epochs, schedule"),
        ("epochs=3", "train.yaml: epochs: unknown key; known keys here: seed, "),
        ("train.epochs=none", "train.yaml: train.epochs: input should be a valid integer"),
        ("train=3", "train.yaml: train: must be a section of `key: value` lines, got 3"),
    ],
)
def test_bad_overrides(tmp_path: Path, override: str, message: str) -> None:
    assert complaint(tmp_path, "seed: 1", override).startswith(message)


@pytest.mark.parametrize(
    ("text", "proposal"),
    [
        ("train: {epoch: 3}", "epochs"),
        ("epochs: 3", "train.epochs"),
        ("trian: {}", "train"),
        ("prune: {strategies: [itertive]}", "iterative"),
        ("decode: {decoder: beem}", "beam"),
        ("model: {layer: conformr}", "conformer"),
        ("prune: {metric: were}", "wer"),
        ("model: {quux: 1}", ""),
    ],
)
def test_a_name_that_is_nearly_right_is_proposed(tmp_path: Path, text: str, proposal: str) -> None:
    assert complaint(tmp_path, text).partition("; did you mean ")[2] == (f"{proposal}?" if proposal else "")


# ---- what is written


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"model": {"num_layers": 1}},
        {"model": {"num_layers": 24, "taps": [9], "self_conditioning": True}, "prune": {"depths": [12, 6]}},
        {"model": {"num_layers": 24, "taps": []}, "prune": {"min_depth": 3}},
        {"model": {"layer": {"type": "conformer", "kernel": 7}}, "train": {"schedule": "cosine"}},
        {"augment": {"speeds": [0.9, 1.0, 1.1]}, "train": {"schedule": {"name": "cosine", "peak": 2.5e-3}}, "seed": 7},
        {"tokenizer": {"type": "char", "vocab_size": None}, "model": {"subsampling": {"channels": 8}}},
        {"model": {"subsampling": {"type": "conv1d", "factor": 8}}, "frontend": {"num_mels": 10}},
    ],
)
def test_resolved_config_reads_back_the_same(tmp_path: Path, values: dict[str, object]) -> None:
    config = parse_config(values, "test")
    write_config(config, tmp_path / "config.yaml")
    again = read_config(tmp_path / "config.yaml")
    assert resolved(again) == resolved(config)
    assert (again.depths(), again.model.tap_layers) == (config.depths(), config.model.tap_layers)
    assert again.train == config.train
    assert (again.augment, again.tokenizer) == (config.augment, config.tokenizer)


def test_derived_values_are_written_out(tmp_path: Path) -> None:
    write_config(parse_config({"model": {"num_layers": 8, "dim": 32}}, "test"), tmp_path / "config.yaml")
    written = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert written["model"]["taps"] == [2, 4]
    assert written["model"]["subsampling"] == {"type": "conv2d", "channels": 32, "factor": 4}
    assert written["prune"]["depths"] == [8, 7, 6, 5, 4, 3, 2, 1]


def test_strategies_may_have_their_older_names() -> None:
    old, new = (parse_config({"prune": {"strategies": names}}, "x") for names in (["greedy", "top"], ["iterative", "lowest"]))
    assert old == new
    assert old.prune.strategies == ("iterative", "lowest")
    with pytest.raises(UserError, match=r"prune\.strategies: has a value twice: lowest, lowest"):
        parse_config({"prune": {"strategies": ["top", "lowest"]}}, "x")
