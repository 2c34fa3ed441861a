"""The grid file: the methods, depths and seeds to compare. Each cell of the grid is one run of the recipe."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from asrprune.config.load import read_config, read_yaml, resolved
from asrprune.config.mistakes import check
from asrprune.config.names import names_affecting, only, sections
from asrprune.config.schema import Config, ModelConfig, PruneConfig, StrategyName
from asrprune.config.section import Positive, Section
from asrprune.config.strategies import PREFERRED, Strategy
from asrprune.runtime.errors import UserError
from asrprune.runtime.planted import file_name

Role = Literal["plain", "baseline"]  # fields of the grid that name methods of individually trained models
Numbers = dict[str, Any]  # section.key -> value, as with --set
_SHARED = ("model.num_layers", *names_affecting("features", "report"))  # numbers that all models share
_MOST_CELLS = 10_000
_NO_SEARCH = {f"prune.{key}": PruneConfig.default(key) for key in ("min_depth", "metric", "beam", "rerank")}


class Alone(Section):
    """Models that are each trained for one depth; pruned models are compared with them."""

    methods: tuple[str, ...]
    depths: tuple[Positive, ...]
    unpruned: tuple[str, ...] = ()  # methods whose model of all layers is not pruned


class Published(Section):
    """Figures that others have published. They are a row in the table of the set; nothing is computed from them."""

    model: str
    source: str  # authors and publication
    set: str
    wer: dict[Positive, float | None]  # depth -> percent; None: the figure is not available to us


class Grid(Section):
    """The content of a grid file."""

    config: str  # the config of all methods; the path is relative to the recipe
    numbers: Numbers = Field(default_factory=dict)  # numbers that replace those of the config, for all methods
    seeds: tuple[int, ...] = Field((1,), min_length=1)
    methods: dict[str, Numbers] = Field(min_length=1)  # method -> its own numbers
    alone: Alone
    prunable: str  # the method whose model is pruned to all depths and tested
    plain: str  # the method without intermediate CTC and stochastic depth
    baseline: str  # a method of individual training; pruned models must not be worse than its models
    pruned_by: dict[str, StrategyName] = Field(default_factory=dict)  # method -> its strategy, if not iterative
    published: tuple[Published, ...] = ()

    @property
    def roles(self) -> list[Role]:
        """The kinds of individually trained models with which pruned ones are compared."""
        return ["plain", "baseline"] if self.plain != self.baseline else ["baseline"]

    @property
    def strategy(self) -> Strategy:
        """The strategy by which the prunable model is pruned when it is compared."""
        return self.pruned_by.get(self.prunable, PREFERRED)

    @model_validator(mode="after")
    def _check(self) -> "Grid":
        named = {self.prunable, self.plain, self.baseline, *self.alone.methods, *self.pruned_by}
        if unknown := sorted(named - set(self.methods)):
            raise ValueError(f"no such method: {', '.join(unknown)}; methods has {', '.join(self.methods)}")
        for name in self.methods:  # the names become names of directories
            file_name(name, "methods:")
        if wanting := sorted({self.plain, self.baseline} - set(self.alone.methods)):
            raise ValueError(f"plain and baseline must be among alone.methods, which lacks {', '.join(wanting)}")
        if other := sorted(set(self.alone.unpruned) - (set(self.alone.methods) - {self.prunable, *self.pruned_by})):
            raise ValueError(f"alone.unpruned may have only methods of alone.methods that are not pruned: {', '.join(other)}")
        for name, values in (("seeds", self.seeds), ("alone.depths", self.alone.depths), ("alone.methods", self.alone.methods)):
            if len(set(values)) < len(values):
                raise ValueError(f"{name} has a value twice: {', '.join(map(str, values))}")
        count = len(self.seeds) * (len(self.methods) + len(self.alone.methods) * len(self.alone.depths))
        if count > _MOST_CELLS:
            raise ValueError(f"has {count} models, but {_MOST_CELLS} are the most; compare fewer seeds, methods or depths")
        for place, numbers in [("numbers", self.numbers), *((f"methods.{name}", own) for name, own in self.methods.items())]:
            if whole := [key for key, value in numbers.items() if isinstance(value, dict) and sections(key)]:
                raise ValueError(f"{place}: {whole[0]}: a whole section; write `{whole[0]}.KEY: value` for what changes")
            if "seed" in numbers:
                raise ValueError(f"{place}: seed: write it under seeds")
            if place != "numbers" and (shared := [key for key in numbers if key in _SHARED]):
                raise ValueError(f"{place}: {shared[0]}: all methods share it; write it under numbers, or compare in two grids")
        return self


@dataclass(frozen=True, eq=False)  # without eq a cell can be the key of a dict
class Cell:
    """One model of the grid."""

    method: str
    depth: int
    seed: int
    alone: bool  # trained for this depth, and decoded at no other
    overrides: tuple[str, ...]  # section.key=value
    config: Config

    @property
    def name(self) -> str:
        """The name of the experiment, such as ``prunable_12l_s1``."""
        return f"{self.method}_{self.depth}l_s{self.seed}"

    @property
    def learnt(self) -> dict[str, Any]:
        """The numbers on which training and the choice of layers depend; a run with other numbers is another run."""
        return self.learnt_in(self.config)

    def learnt_in(self, config: Config) -> dict[str, Any]:
        """Return the same numbers of another config, such as a recorded one; a model trained alone has none of the search."""
        return only(resolved(config), "learning", "decoding", *(() if self.alone else ("search",)))


def read_grid(path: Path) -> Grid:
    """Read a grid file; an error names all its mistakes."""
    return check(Grid, read_yaml(path), str(path))


def cells(grid: Grid, root: Path = Path()) -> list[Cell]:
    """Return all models of the grid in the order of training: the prunable method, then the others; shallow ones first.

    Args:
        grid: the grid.
        root: the directory of the recipe, to which ``grid.config`` is relative.

    Raises:
        UserError: a number does not exist or is out of range.
    """
    path = root / grid.config
    config = read_config(path, as_overrides(grid.numbers))
    depth = config.model.num_layers
    if too_deep := [shallow for shallow in grid.alone.depths if shallow >= depth]:
        raise UserError(f"alone.depths must lie below model.num_layers = {depth}, got {too_deep[0]}")
    made = []
    for seed in grid.seeds:
        for method in grid.methods:
            made.append(_cell(grid, path, method, depth, seed, alone=method in grid.alone.unpruned))
        for method in grid.alone.methods:
            made += [_cell(grid, path, method, shallow, seed, alone=True, shallow=True) for shallow in grid.alone.depths]
    _check_pruned(grid, {cell.method: cell.config for cell in made if not cell.alone})
    return sorted(made, key=lambda cell: (cell.method != grid.prunable, cell.depth))


def _check_pruned(grid: Grid, configs: Mapping[str, Config]) -> None:
    """Raise a ``UserError`` if a pruned model that is compared or drawn would not be made; ``configs``: of the methods."""
    if wanting := sorted(set(grid.alone.depths) - set(configs[grid.prunable].depths())):
        raise UserError(
            f"alone.depths: {wanting[0]} is not in prune.depths, so no pruned model is compared with it; add it there"
        )
    for method, strategy in {**grid.pruned_by, grid.prunable: grid.strategy}.items():
        if strategy not in configs[method].prune.strategies:
            raise UserError(
                f"{method}: is compared as pruned by the strategy {strategy}, which prune.strategies lacks; add it there, or"
                " name another one under pruned_by"
            )


def _cell(grid: Grid, path: Path, method: str, depth: int, seed: int, alone: bool = False, shallow: bool = False) -> Cell:
    taps: Numbers = {"model.taps": None, "model.truncated": {}, "model.grow": {}} if shallow else {}  # full depth has others
    if depth == 1:  # a model of one layer has no tap
        taps["model.tap_weight"] = ModelConfig.default("tap_weight")
    numbers = {**grid.numbers, **taps, **grid.methods[method], "seed": seed}
    if alone:
        numbers |= {"model.num_layers": depth, "prune.depths": [depth], "prune.strategies": ["lowest"], **_NO_SEARCH}
    overrides = as_overrides(numbers)
    return Cell(method, depth, seed, alone, overrides, read_config(path, overrides))


def as_overrides(numbers: Numbers) -> tuple[str, ...]:
    """Write numbers as values of --set, without blanks, because run.sh splits its argument at blanks."""
    written = tuple(f"{name}={json.dumps(value, separators=(',', ':'))}" for name, value in numbers.items())
    if blank := [override for override in written if " " in override]:
        raise UserError(f"{blank[0]}: has a blank, at which run.sh would split it; write it without blanks")
    return written
