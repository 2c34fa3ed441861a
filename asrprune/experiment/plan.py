"""The plan file: the layers to keep at every depth, and the dev scores by which they were chosen."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from asrprune.config.strategies import spellings, strategy_name
from asrprune.runtime.errors import UserError
from asrprune.runtime.planted import file_name, inside
from asrprune.runtime.records import Record

Keep = tuple[int, ...]  # the layers of a sub-model, ascending, numbered as in the full model
StrategyLabel = Annotated[str, AfterValidator(strategy_name)]  # in records: the name of a strategy, or of given layers


class Step(Record):
    """One depth of a plan."""

    depth: int
    keep: Keep
    score: float | None  # score on the dev set, in the metric of the plan
    without: Mapping[int, float] = Field({})  # layer -> dev score without this layer, if known

    @model_validator(mode="after")
    def _is_whole(self) -> "Step":
        if len(self.keep) != self.depth:
            raise ValueError(f"depth {self.depth} has {len(self.keep)} layers")
        return self

    @classmethod
    def of(cls, keep: Keep, score: float | None = None, without: Mapping[int, float] | None = None) -> "Step":
        """Make the step that keeps these layers."""
        return cls(depth=len(keep), keep=keep, score=score, without=without or {})


class Search(Record):
    """The result of a strategy and its cost. None: nothing was scored, or an earlier version did not record it."""

    metric: str | None  # the metric of the scores
    dev_set: str | None  # None: the strategy does not need one
    beam: int | None = None
    clear: float | None = None  # standard errors by which a sub-model must be better than the lowest layers
    rerank: int | None = None
    decoder: str | None = None
    layer_forwards: float | None = None  # layer passes over the dev set
    naive_layer_forwards: int | None = None  # layer passes if every sub-model were run separately
    seconds: float | None = None
    asrprune: str | None = None
    steps: tuple[Step, ...]  # deepest first

    @model_validator(mode="after")
    def _has_each_depth_once(self) -> "Search":
        depths = [step.depth for step in self.steps]
        if again := next((depth for place, depth in enumerate(depths) if depth in depths[:place]), None):
            raise ValueError(f"steps: has depth {again} twice")
        return self


class _OfModel(Record):
    format: Literal[1]
    num_layers: int
    strategy: StrategyLabel
    model_sha256: str


class Plan(Search, _OfModel):
    """plans/STRATEGY.json: the plan of a strategy for one model."""

    made_by: ClassVar[str] = "stage 7 (`asrprune search`)"

    def keep(self, depth: int) -> Keep:
        """Return the layers of a depth; raise a ``UserError`` if the plan does not have this depth."""
        for step in self.steps:
            if step.depth == depth:
                return step.keep
        depths = ", ".join(str(step.depth) for step in self.steps)
        raise UserError(f"plan {self.strategy} has no depth {depth}; it has {depths}")


def read_plan(path: Path, num_layers: int, model_sha256: str) -> Plan:
    """Read a plan for this model.

    Raises:
        UserError: the plan is missing or broken, or was made for another model.
    """
    plan = Plan.read(path)
    if plan.num_layers != num_layers or plan.model_sha256 != model_sha256:
        raise UserError(f"{path}: this plan was made for another model; run stage 7 (`asrprune search`) again")
    file_name(plan.strategy, f"{path}: the strategy")  # results are named after it
    for step in plan.steps:
        check_layers(step.keep, num_layers, str(path))
    return plan


def check_layers(keep: Sequence[int], num_layers: int, where: str) -> None:
    """Raise a ``UserError`` unless the layers ascend and lie in 1..``num_layers``."""
    if not keep or list(keep) != sorted(set(keep)) or keep[0] < 1 or keep[-1] > num_layers:
        raise UserError(f"{where}: layers must ascend and lie in 1..{num_layers}, got {list(keep)}")


def parse_layers(text: str, num_layers: int) -> tuple[int, ...]:
    """Parse ``1,2,5-7`` to (1, 2, 5, 6, 7)."""
    try:
        layers = [n for part in text.split(",") for n in _numbers(part, num_layers)]
    except ValueError:
        raise UserError(f"--layers {text}: write layer numbers, e.g. 1,2,5-7") from None
    check_layers(layers, num_layers, f"--layers {text}")
    return tuple(layers)


def _numbers(part: str, num_layers: int) -> range:
    """Return the layers of ``5`` or ``5-7``; a long range ends at ``num_layers`` + 1, which ``check_layers`` refuses."""
    if "_" in part:  # Python takes 1_2 for 12
        raise ValueError(f"{part} has a _")
    first, dash, last = part.partition("-")
    begin, end = int(first), int(last if dash else first)
    if begin > end:
        raise ValueError(f"{part} descends")
    return range(begin, min(end, max(begin, num_layers + 1)) + 1)


def plan_path(exp: Path, strategy: str) -> Path:
    """Return the path of the plan of a strategy."""
    return file_of(inside(exp, "plans"), strategy, ".json")


def file_of(folder: Path, strategy: str, ending: str) -> Path:
    """Return ``folder/<strategy><ending>``, or the file with an older name of the strategy if there is one."""
    paths = [inside(folder, f"{name}{ending}") for name in spellings(strategy)]
    return next((path for path in paths if path.exists()), paths[0])
