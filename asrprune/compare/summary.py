"""summary.json: the content of all tables and figures of a comparison."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator

from asrprune.compare.grid import Role
from asrprune.config.schema import ScoringConfig
from asrprune.experiment.plan import Keep
from asrprune.report.result_table import FULL
from asrprune.report.results import SetData
from asrprune.runtime.hardware import Environment
from asrprune.runtime.records import Record

ALL: Literal["all"] = "all"  # in place of a seed: a system with all its seeds
ALONE = "alone"  # in place of a strategy, like FULL: a model that was trained for this depth

Seed = int | Literal["all"]
Outcome = Literal["passes", "worse", "undecided"]
Rounded = Annotated[float, AfterValidator(lambda value: round(value, 4))]


class Margin(Record):
    """The loss of accuracy up to which a pruned model counts as not worse."""

    points: float
    share: float  # of the error rate of the model trained alone


class System(Record):
    """A sub-model of a method on a set, with one seed or with all; rates in percent."""

    set: str
    method: str
    strategy: str
    depth: int
    seed: Seed
    wer: Rounded
    wer_ci95: tuple[Rounded, Rounded]
    seeds: tuple[int, ...]
    keep: Keep | None  # None: not the same for all seeds
    params_m: Rounded


class Comparison(Record):
    """The test of whether the prunable model, with all seeds, is not worse than models that were trained for the depth."""

    set: str
    depth: int
    role: Role
    seeds: int
    alone_seeds: int
    wer: Rounded
    alone_wer: Rounded
    difference: Rounded  # points
    ci90: tuple[Rounded, Rounded]  # the upper end is the one-sided 95 % bound
    margin: Rounded
    outcome: Outcome  # passes: not worse; worse: the interval lies above 0; undecided: neither
    power: Rounded
    seeds_80: int | None  # the number of seeds that gives a power of 80 %
    seeds_90: int | None

    @property
    def one_seed(self) -> bool:
        """True if one of the models has a single seed, so that the spread between seeds is not known."""
        return min(self.seeds, self.alone_seeds) < 2


class Speed(Record):
    """The cost of running the prunable model."""

    depth: int
    rtf: float
    speedup: float | None
    params_m: float


class Cost(Record):
    """The cost of one training run."""

    method: str
    depth: int
    seed: int
    alone: bool
    updates: int
    views: int = 1  # of each utterance in an update
    layer_passes: int
    seconds: float
    precision: str | None = None  # see Training


class Removals(Record):
    """The dev WER with all layers, and without each single layer."""

    full: float
    without: dict[int, float]
    dev_set: str | None


class Summary(Record):
    """summary.json: the content of all tables and figures."""

    made_by: ClassVar[str] = "`asrprune compare`"
    format: Literal[2]
    margin: Margin
    grid: dict[str, Any]  # the content of the grid file, for readers
    data: dict[str, SetData]
    search_sets: tuple[str, ...]
    speakers: dict[str, int | None]  # the number of speakers of each set; None: no record names them, or there is one
    rows: tuple[System, ...]
    tests: tuple[Comparison, ...]
    speed: tuple[Speed, ...]
    cost: tuple[Cost, ...]
    update_overhead: float | None  # f of ``update_overhead`` in summarise.py
    removals: dict[str, Removals | None]  # of the plain and the prunable model, like the next two
    similarity: dict[str, list[list[float]] | None]
    influence: dict[str, list[float] | None]
    runs: dict[str, Environment]
    scoring: ScoringConfig = ScoringConfig()

    def in_units(self, text: str) -> str:
        """Replace words and WER in ``text`` by the unit that was counted."""
        return self.scoring.in_units(text)


def shown(summary: Summary, name: str) -> list[System]:
    """Return the rows of a set that tables and figures show: those of all seeds together, which come last."""
    rows = [row for row in summary.rows if row.set == name]
    return [row for row in rows if row.seed == rows[-1].seed]


def of_system(rows: Sequence[System], method: str, strategy: str) -> list[System]:
    """Return the rows of a method by one strategy (or ``ALONE``), and of its full model."""
    return [row for row in rows if row.method == method and row.strategy in (FULL, strategy)]
