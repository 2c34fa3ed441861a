"""The dependencies of the stages of run.sh: of the right names, numbers and files."""

import re
from pathlib import Path
from typing import Any

import pytest

from asrprune.config.load import read_config, resolved
from asrprune.config.strategies import NEEDS, STRATEGY_NAMES
from asrprune.recipe.dependencies import Places, dependencies
from asrprune.recipe.needs import numbers_of

ROOT = Path(__file__).parents[2]
PLACES = Places(Path("data"), Path("exp/train"), "train", "dev", ("test", "other"))


@pytest.fixture
def numbers(tmp_path: Path) -> Any:
    """``numbers("section.key=value")`` is a resolved config."""
    (tmp_path / "config.yaml").write_text("{}\n")
    return lambda *overrides: resolved(read_config(tmp_path / "config.yaml", overrides))


def test_every_stage_of_run_sh_has_dependencies_on_numbers_that_exist(numbers: Any) -> None:
    listed = re.findall(r"^ *stage \d+ (\w+) ", (ROOT / "egs/common/run.sh").read_text(), re.MULTILINE)
    config = numbers("prune.speeds=[0.9,1.0]", "decode.decoder={type: beam, lm: 3gram.arpa}")
    known = dependencies(PLACES, config)
    assert [*known] == listed
    for stage in known.values():
        assert stage.makes or stage is known["download"]
        numbers_of((*stage.needs, *stage.also_needs), config)


def test_layers_are_chosen_on_dev_or_on_its_copies_at_other_speeds(numbers: Any) -> None:
    alone, copied = (dependencies(PLACES, numbers(f"prune.speeds={speeds}")) for speeds in ("[1.0]", "[0.9,1.0]"))
    for known, name in ((alone, "dev"), (copied, "dev_sp")):
        assert known["svcca"].reads == known["search"].reads == (Path(f"data/{name}/utt2crc"),)
        assert Path(f"data/{name}/feats.scp") in known["fbank"].makes
    assert Path("data/dev_sp/feats.scp") not in alone["fbank"].makes


@pytest.mark.parametrize("name", STRATEGY_NAMES)
def test_layers_are_measured_for_the_strategies_that_say_so(name: str, numbers: Any) -> None:
    known = dependencies(PLACES, numbers(f"prune.strategies=[{name}]"))
    assert known["svcca"].needed is (NEEDS[name].measure is not None)
    assert all(stage.needed for stage in known.values() if stage is not known["svcca"])


def test_a_language_model_is_made_in_lang_unless_it_is_a_file(numbers: Any, tmp_path: Path) -> None:
    made, own = Path("exp/train/lang/3gram.arpa"), tmp_path / "own.arpa"
    own.touch()
    without, trained, given = (
        dependencies(PLACES, numbers(*lm))
        for lm in ((), *([f"decode.decoder={{type: beam, lm: {lm}}}"] for lm in ("3gram.arpa", own)))
    )
    assert [made in known["bpe"].makes for known in (without, trained, given)] == [False, True, False]
    assert [path for known in (without, trained, given) for path in known["search"].reads[1:]] == [made, own]
