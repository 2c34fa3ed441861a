"""The plan file: for every depth, which layers are kept, and the dev scores that chose them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asrprune.config.strategies import spellings, strategy_name
from asrprune.runtime.errors import UserError
from asrprune.runtime.files import read_json, write_json
from asrprune.runtime.planted import file_name, inside

Keep = tuple[int, ...]  # ascending layers of a sub-model, as the full model numbers them


@dataclass(frozen=True)
class Step:
    """One depth of a plan."""

    keep: Keep
    score: float | None = None  # dev score, in the plan's metric
    without: Mapping[int, float] = field(default_factory=dict, compare=False)  # layer -> dev score if it went next, where known

    @property
    def depth(self) -> int:
        """The number of layers that are kept."""
        return len(self.keep)


@dataclass(frozen=True)
class Plan:
    """The proposal of a strategy for one model."""

    strategy: str
    num_layers: int
    steps: tuple[Step, ...]  # deepest first
    model_sha256: str
    metric: str | None = None  # of the scores; None: nothing was scored
    dev_set: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)  # cost of the search, version

    def keep(self, depth: int) -> tuple[int, ...]:
        """The layers of a depth; a ``UserError`` lists the depths that there are."""
        for step in self.steps:
            if step.depth == depth:
                return step.keep
        depths = ", ".join(str(step.depth) for step in self.steps)
        raise UserError(f"plan {self.strategy} has no depth {depth}; it has {depths}")


def write_plan(path: Path, plan: Plan) -> None:
    """Write a plan as JSON."""
    steps = [_record(step) for step in plan.steps]
    head = {
        "format": 1,
        "num_layers": plan.num_layers,
        "strategy": plan.strategy,
        "metric": plan.metric,
        "dev_set": plan.dev_set,
    }
    write_json(path, {**head, "model_sha256": plan.model_sha256, **plan.facts, "steps": steps})


def read_plan(path: Path, num_layers: int, model_sha256: str) -> Plan:
    """Read a plan and check that it is one for this model.

    Raises:
        UserError: it is missing (stage 7 makes it), broken, or was made for another model.
    """
    values = read_json(path, "asrprune search, stage 7,")
    try:
        steps = tuple(
            Step(tuple(map(int, step["keep"])), step["score"], {int(n): s for n, s in step.get("without", {}).items()})
            for step in values["steps"]
        )
        name = strategy_name(values["strategy"])
        plan = Plan(name, values["num_layers"], steps, values["model_sha256"], values["metric"], values["dev_set"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: not a plan file ({error!r} is missing or wrong); stage 7 (`asrprune search`) makes it"
        ) from None
    if plan.num_layers != num_layers or plan.model_sha256 != model_sha256:
        raise UserError(f"{path}: this plan was made for another model; run stage 7 (`asrprune search`) again")
    file_name(str(plan.strategy), f"{path}: the strategy")  # results are called after it
    for step in steps:
        check_layers(step.keep, num_layers, str(path))
    return plan


def _record(step: Step) -> dict[str, Any]:
    record = {"depth": step.depth, "keep": list(step.keep), "score": step.score}
    return {**record, "without": {str(layer): score for layer, score in step.without.items()}} if step.without else record


def check_layers(keep: Sequence[int], num_layers: int, where: str) -> None:
    """Layers must ascend and exist."""
    if not keep or list(keep) != sorted(set(keep)) or keep[0] < 1 or keep[-1] > num_layers:
        raise UserError(f"{where}: layers must ascend and lie in 1..{num_layers}, got {list(keep)}")


def parse_layers(text: str, num_layers: int) -> tuple[int, ...]:
    """``1,2,5-7`` -> (1, 2, 5, 6, 7)."""
    try:
        layers = [n for part in text.split(",") for n in _numbers(part, num_layers)]
    except ValueError:
        raise UserError(f"--layers {text}: write layer numbers, e.g. 1,2,5-7") from None
    check_layers(layers, num_layers, f"--layers {text}")
    return tuple(layers)


def _numbers(part: str, num_layers: int) -> range:
    """The layers of ``5`` or ``5-7``; of those beyond the last that there is only the first, which is enough to be refused."""
    first, dash, last = part.partition("-")
    begin, end = int(first), int(last if dash else first)
    if begin > end:
        raise ValueError(f"{part} descends")
    return range(begin, min(end, max(begin, num_layers + 1)) + 1)


def plan_path(exp: Path, strategy: str) -> Path:
    """Return the path of the plan of a strategy."""
    return file_of(inside(exp, "plans"), strategy, ".json")


def file_of(folder: Path, strategy: str, ending: str) -> Path:
    """``folder/<strategy><ending>``; it keeps the older name of the strategy if it was made under that."""
    paths = [inside(folder, f"{name}{ending}") for name in spellings(strategy)]
    return next((path for path in paths if path.exists()), paths[0])
