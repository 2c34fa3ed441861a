"""What a number affects is said once, and other rules follow from it."""

from asrprune.config.load import parse_config, resolved
from asrprune.config.names import names_affecting, numbers, only, sections, tag_of
from asrprune.config.schema import Config, FrontendConfig
from asrprune.config.section import KINDS


def test_every_number_says_what_it_is_and_what_it_affects() -> None:
    for number in numbers():
        assert number.affects, number.name
        assert set(number.affects) <= KINDS.keys(), number.name
        assert number.field.description, number.name


def test_numbers_are_those_of_the_resolved_config() -> None:
    def names(values: dict[str, object], prefix: str = "") -> set[str]:
        nested = {key: value for key, value in values.items() if isinstance(value, dict) and sections(f"{prefix}{key}")}
        flat = {f"{prefix}{key}" for key in values.keys() - nested.keys()}
        return flat.union(*(names(value, f"{prefix}{key}.") for key, value in nested.items()))

    layers = [resolved(parse_config({"model": {"layer": name}}, "test")) for name in ("conformer", "ebranchformer")]
    cosine = resolved(parse_config({"train": {"schedule": "cosine"}}, "test"))
    beam = resolved(parse_config({"decode": {"decoder": "beam"}}, "test"))
    assert set().union(*map(names, [resolved(Config()), cosine, beam, *layers])) == {number.name for number in numbers()}


def test_a_run_may_go_on_with_another_pace_search_or_decoding() -> None:
    """The list that earlier versions kept by hand."""
    free = {number.name for number in numbers()} - set(names_affecting("learning"))
    by_hand = {"train.log_every_steps", "train.checkpoint_every_s", "train.num_workers", "train.strategy", "train.average"}
    assert {name for name in free if not name.startswith(("prune.", "decode.", "scoring.", "bench."))} == by_hand
    assert {name for name in names_affecting("learning") if name.startswith(("prune.", "decode.", "bench."))} == set()


def test_features_are_those_of_the_frontend_and_of_the_speeds() -> None:
    names = names_affecting("features")
    assert {name for name in names if not name.startswith("frontend.")} == {"augment.speeds", "prune.speeds"}
    assert {name for name in names if name.startswith("frontend.")} == {
        f"frontend.{key}" for key in FrontendConfig.model_fields
    }


def test_names_are_in_order_and_each_once() -> None:
    names = names_affecting("learning")
    assert names[:2] == ["seed", "frontend.sample_rate"]
    assert len(names) == len(set(names))
    assert set(names_affecting("pace", "bench")) == {*names_affecting("pace"), *names_affecting("bench")}


def test_a_part_of_a_config_has_the_sections_that_it_needs() -> None:
    values = resolved(parse_config({"model": {"truncated": {3: 0.5}, "layer": "conformer"}}, "test"))
    learnt = only(values, "learning")
    assert "prune" not in learnt
    assert learnt["model"] == values["model"], "with a mapping of taps"
    assert only(values, "pace") == {
        "train": {key: values["train"][key] for key in ("strategy", "log_every_steps", "checkpoint_every_s", "num_workers")},
        "decode": {"max_frames": values["decode"]["max_frames"]},
    }


def test_sections_and_their_tags() -> None:
    assert [kind.__name__ for kind in sections("train.schedule")] == ["NoamConfig", "CosineConfig"]
    assert [kind.__name__ for kind in sections("model.stochastic_depth")] == ["StochasticDepthConfig"]
    assert sections("model.truncated") == sections("model.nothing") == sections("nothing.nothing") == ()
    assert [tag_of(name) for name in ("model.layer", "train.schedule", "model", "model.dim")] == ["type", "name", None, None]
