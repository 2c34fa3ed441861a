"""The grid file: its cells, and that all its mistakes are named."""

import json
from pathlib import Path

import pytest

from asrprune.compare.grid import Cell, Grid, cells, read_grid
from asrprune.compare.record import read_records, record_path
from asrprune.config.load import read_config
from asrprune.config.schema import ConformerConfig
from asrprune.runtime.errors import UserError
from asrprune.runtime.files import write_json

ROOT = Path(__file__).resolve().parents[2]
RECIPES = [path.parent for path in ROOT.glob("egs/*/README.md")]  # a copy made as in docs/tutorial.md has none
GRIDS = sorted(grid for recipe in RECIPES for grid in recipe.glob("conf/paper*.yaml"))
TEXT = """
config: train.yaml
numbers: {train.epochs: 3, prune.depths: [8, 4, 2]}
seeds: [1, 2]
methods:
  plain: {model.taps: [], model.stochastic_depth.rate: 0}
  interctc: {model.stochastic_depth.rate: 0}
  both: {}
alone: {methods: [plain, interctc], depths: [4, 2]}
prunable: both
plain: plain
baseline: interctc
"""


def write(folder: Path, text: str = TEXT) -> Path:
    (folder / "train.yaml").write_text("model: {num_layers: 8, taps: [2, 4]}\n")
    (folder / "grid.yaml").write_text(text)
    return folder / "grid.yaml"


def made(folder: Path, text: str = TEXT) -> list[Cell]:
    return cells(read_grid(write(folder, text)), folder)


def test_cells_are_every_method_and_the_models_alone_for_every_seed(tmp_path: Path) -> None:
    names = [cell.name for cell in made(tmp_path)]
    methods = ("plain", "interctc")
    alone = [f"{method}_{depth}l_s{seed}" for depth in (2, 4, 8) for seed in (1, 2) for method in methods]
    assert names == ["both_8l_s1", "both_8l_s2", *alone]


def test_a_cell_has_the_numbers_of_its_method(tmp_path: Path) -> None:
    by_name = {cell.name: cell for cell in made(tmp_path)}
    both, plain, shallow = by_name["both_8l_s2"].config, by_name["plain_8l_s1"].config, by_name["interctc_4l_s1"].config
    assert (both.seed, both.train.epochs, both.model.tap_layers, both.model.stochastic_depth.rate) == (2, 3, (2, 4), 0.3)
    assert both.depths() == (8, 4, 2)
    assert (plain.model.tap_layers, plain.model.stochastic_depth.rate) == ((), 0.0)
    assert (shallow.model.num_layers, shallow.model.tap_layers, shallow.depths()) == (4, (1, 2), (4,))
    assert by_name["plain_2l_s1"].config.model.tap_layers == ()
    assert [by_name[name].alone for name in ("both_8l_s1", "interctc_2l_s1")] == [False, True]


def test_overrides_have_no_blanks_at_which_run_sh_would_split_them(tmp_path: Path) -> None:
    for cell in made(tmp_path):
        assert not any(" " in override for override in cell.overrides)
    assert "prune.depths=[8,4,2]" in made(tmp_path)[0].overrides


def test_a_cell_is_another_one_if_what_is_learnt_differs(tmp_path: Path) -> None:
    first = made(tmp_path)[0]
    assert (
        made(tmp_path, TEXT.replace("epochs: 3", "epochs: 3, bench.repeats: 9, train.num_workers: 0"))[0].learnt == first.learnt
    )
    assert made(tmp_path, TEXT.replace("epochs: 3", "epochs: 4"))[0].learnt != first.learnt
    assert made(tmp_path, TEXT.replace("epochs: 3", "epochs: 3, decode.max_frames: 500"))[0].learnt == first.learnt
    assert made(tmp_path, TEXT.replace("epochs: 3", "epochs: 3, decode.precision: bf16"))[0].learnt != first.learnt
    assert made(tmp_path, TEXT.replace("epochs: 3", "epochs: 3, prune.beam: 4"))[0].learnt != first.learnt
    assert "bench" not in first.learnt


def test_how_layers_are_searched_makes_no_other_cell_of_a_model_that_is_trained_alone(tmp_path: Path) -> None:
    before = {cell.name: cell for cell in made(tmp_path)}
    after = {cell.name: cell for cell in made(tmp_path, TEXT.replace("epochs: 3", "epochs: 3, prune.beam: 3, prune.rerank: 5"))}
    same = {name for name, cell in before.items() if cell.learnt == after[name].learnt}
    assert same == {name for name, cell in before.items() if cell.alone}
    plain = before["plain_2l_s1"]
    assert plain.learnt_in(read_config(tmp_path / "train.yaml", [*plain.overrides, "prune.svcca_frames=9"])) == plain.learnt
    assert plain.learnt_in(read_config(tmp_path / "train.yaml", [*plain.overrides, "train.epochs=2"])) != plain.learnt


def test_a_grid_may_vary_the_layer_in_both_spellings(tmp_path: Path) -> None:
    old = TEXT.replace("both: {}", "both: {model.conv_kernel: 7, model.layer: conformer}")
    new = TEXT.replace("both: {}", "both: {model.layer.type: conformer, model.layer.kernel: 7}")
    layers = [[cell.config.model.layer for cell in made(tmp_path, text) if cell.method == "both"] for text in (old, new)]
    assert layers == [[ConformerConfig(kernel=7)] * 2] * 2


def test_a_model_of_one_layer_has_no_tap_whose_weight_matters(tmp_path: Path) -> None:
    text = TEXT.replace("epochs: 3", "epochs: 3, model.tap_weight: 0.5").replace("plain: {", "plain: {model.tap_weight: 0.66, ")
    by_name = {cell.name: cell.config.model for cell in made(tmp_path, text.replace("4, 2]", "4, 1]"))}
    assert (by_name["interctc_4l_s1"].exit_weights[-1], by_name["interctc_1l_s1"].exit_weights) == (0.5, (1.0,))


def recorded(recipe: str, name: str) -> tuple[set[str], set[str]]:
    """Cells of a grid, and those of them whose records are of the grid's numbers."""
    root = ROOT / "egs" / recipe
    wanted = cells(read_grid(root / f"conf/{name}.yaml"), root)
    return {cell.name for cell in wanted}, set(read_records(root / name, wanted))


def test_records_of_earlier_versions_are_still_of_their_cells() -> None:
    """They hold resolved configs in old spellings, with numbers that have no effect; three grids, on two recipes."""
    for recipe, name in (("mini", "paper"), ("mini", "depths"), ("an4", "paper")):
        there = {path.stem for path in (ROOT / "egs" / recipe / name / "cells").glob("*.json")}
        wanted, found = recorded(recipe, name)
        assert found == there & wanted, recipe
        assert found


def test_a_record_of_other_numbers_is_none_of_the_cells(tmp_path: Path) -> None:
    root = ROOT / "egs/an4"
    wanted = cells(read_grid(root / "conf/paper.yaml"), root)
    path = record_path(tmp_path, wanted[0])
    record = json.loads(record_path(root / "paper", wanted[0]).read_text())
    for kernel, found in ((record["config"]["model"]["conv_kernel"], [wanted[0].name]), (9, [])):
        record["config"]["model"]["conv_kernel"] = kernel
        write_json(path, record)
        assert list(read_records(tmp_path, wanted)) == found


CHEAP = TEXT.replace("  both: {}", "  both: {}\n  cheap: {train.epochs: 2, model.taps: []}")


def test_a_method_that_is_not_pruned_is_trained_at_every_depth_and_decoded_at_its_own(tmp_path: Path) -> None:
    text = CHEAP.replace("[plain, interctc], depths: [4, 2]}", "[plain, interctc, cheap], depths: [4, 2], unpruned: [cheap]}")
    by_name = {cell.name: cell for cell in made(tmp_path, text)}
    assert [by_name[f"cheap_{depth}l_s1"].config.depths() for depth in (8, 4, 2)] == [(8,), (4,), (2,)]
    assert {by_name[f"cheap_{depth}l_s1"].config.train.epochs for depth in (8, 4, 2)} == {2}
    assert by_name["plain_8l_s1"].config.depths() == (8, 4, 2)
    taps = text.replace("epochs: 2, model.taps: []", "epochs: 2").replace("numbers: {", "numbers: {model.taps: [3, 7], ")
    by_name = {cell.name: cell for cell in made(tmp_path, taps)}
    assert by_name["cheap_8l_s1"].config.model.tap_layers == (3, 7), "those of all methods"
    assert by_name["cheap_4l_s1"].config.model.tap_layers == (1, 2), "scaled with the depth"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("prunable: both", "prunable: best"), "grid.yaml: no such method: best; methods has plain, interctc, both"),
        (("[plain, interctc]", "[plain]"), "grid.yaml: plain and baseline must be among alone.methods, which lacks interctc"),
        (("seeds: [1, 2]", "sedes: [1]"), "grid.yaml: sedes: unknown key; known keys here: config, numbers, seeds, methods,"),
        (("baseline: ", "# "), "grid.yaml: baseline: is missing"),
        (
            ("depths: [4, 2]}", "depths: [4, 3]}"),
            "alone.depths: 3 is not in prune.depths, so no pruned model is compared with it",
        ),
        (("both: {}", "both: {prune.depths: [8, 4]}"), "alone.depths: 2 is not in prune.depths"),
        (
            ("train.epochs: 3", "prune.strategies: [lowest]"),
            "both: is compared as pruned by the strategy iterative, which prune.strategies lacks",
        ),
        (("depths: [4, 2]}", "depths: [4, 8]}"), "alone.depths must lie below model.num_layers = 8, got 8"),
        (("train.epochs", "train.epoch"), "train.yaml: train.epoch: unknown key"),
        (("both: {}", "both: {model.tap_weight: 2}"), "train.yaml: model.tap_weight: input should be less than 1, got 2"),
        (
            ("plain: {model.taps: []", "plain: {model: {taps: []}"),
            "methods.plain: model: a whole section; write `model.KEY: value`",
        ),
        (
            ("both: {}", "both: {model.stochastic_depth: {rate: 0.1}}"),
            "methods.both: model.stochastic_depth: a whole section; write `model.stochastic_depth.KEY: value`",
        ),
        (("seeds: [1, 2]", "seeds: [1, 1]"), "grid.yaml: seeds has a value twice: 1, 1"),
        (("depths: [4, 2]}", "depths: [4, 4]}"), "grid.yaml: alone.depths has a value twice: 4, 4"),
        (
            ("plain: plain", "plain: plain\npruned_by: {uniform: every}"),
            "grid.yaml: no such method: uniform; methods has plain",
        ),
        (
            ("plain: plain", "plain: plain\npublished: [{modle: CTC}]"),
            "published.0.modle: unknown key; known keys here: model, source",
        ),
        (("seeds: [1, 2]", "seeds: []"), "grid.yaml: seeds: tuple should have at least 1 item"),
        (
            ("plain: plain", "plain: plain\npruned_by: {both: evry}"),
            "grid.yaml: pruned_by.both: input should be 'iterative', 'svcca',",
        ),
        (("both: {}", "both: {seed: 3}"), "methods.both: seed: write it under seeds"),
        (("train.epochs", "seed: 3, train.epochs"), "numbers: seed: write it under seeds"),
        (("both: {}", "both: {model.num_layers: 9}"), "methods.both: model.num_layers: all methods share it; write it under"),
        (
            ("both: {}", "both: {frontend.num_mels: 40}"),
            "methods.both: frontend.num_mels: all methods share it; write it under",
        ),
        (
            ("depths: [4, 2]}", "depths: [4, 2], unpruned: [both]}"),
            "grid.yaml: alone.unpruned may have only methods of alone.methods that are not pruned: both",
        ),
        (("methods:\n", "methods: {}\nunused:\n"), "grid.yaml: methods: dictionary should have at least 1 item"),
    ],
)
def test_a_mistake_is_named_where_it_stands(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        made(tmp_path, TEXT.replace(*change))
    assert message in str(caught.value)


def test_a_number_may_be_a_mapping(tmp_path: Path) -> None:
    made_cells = made(tmp_path, TEXT.replace("both: {}", "both: {model.truncated: {2: 0.2, 4: 0.3}}"))
    assert [cell.config.model.truncated for cell in made_cells if cell.method == "both"] == [{2: 0.2, 4: 0.3}] * 2


@pytest.mark.parametrize("path", GRIDS, ids=[f"{path.parts[-3]}/{path.name}" for path in GRIDS])
def test_the_recipes_grids_are_whole(path: Path) -> None:
    grid: Grid = read_grid(path)
    made = cells(grid, path.parents[1])
    assert len({cell.name for cell in made}) == len(made) > 10
    full = [cell for cell in made if not cell.alone]
    assert len({cell.depth for cell in full}) == 1
    assert full[0].depth == (12 if path.parts[-3] in ("mini", "an4") else 18 if "conformer" in path.name else 24)
    for depth in grid.alone.depths:
        assert all(depth in cell.config.depths() for cell in full), depth
