"""A stage of a recipe, and the list of stages of egs/common/run.sh."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from asrprune.runtime.errors import UserError, did_you_mean
from asrprune.runtime.planted import inside


@dataclass(frozen=True)
class Dependencies:
    """The input and the output of a stage.

    A change of ``needs`` or ``reads`` also reruns later stages; one of ``also_needs`` or ``also_reads...`` does not.
    """

    home: Path  # directory of .done/ (marks) and log/
    follows: bool = True  # it uses the result of the previous stage
    needs: tuple[str, ...] = ()  # sections and numbers of the config
    reads: tuple[Path, ...] = ()  # input files and data directories
    also_needs: tuple[str, ...] = ()
    also_reads: tuple[Path, ...] = ()
    also_reads_audio: tuple[Path, ...] = ()  # data directories whose recordings count
    makes: tuple[Path, ...] = ()  # output files and directories; a name may be a pattern: plans/*.json
    makes_audio: tuple[Path, ...] = ()  # data directories whose recordings are made, or fetched
    editable: bool = False  # people may change the output files
    huge: bool = False  # output of too many GB to be hashed, so only the size of files above 1 MB counts
    repeatable: bool = False  # equal needs give equal results, so later stages stay done when it runs again
    shared: str = ""  # name of output that other experiments use and may replace: "features"
    blames_previous: bool = False  # if it fails, the previous stage is run again, too
    needed: bool = True  # if not, run.sh may list it, but it is left out


@dataclass(frozen=True, kw_only=True)
class Stage(Dependencies):
    """A stage of a recipe, with its commands, which run in order."""

    number: int
    name: str
    purpose: str  # for the user
    given: tuple[str, ...] = ()  # options of run.sh; a change reruns later stages, too
    commands: tuple[tuple[str, ...], ...] = ()

    @property
    def mark(self) -> Path:
        """The file that records the needs with which the stage was done."""
        return marks(self.home) / str(self.number)

    @property
    def log(self) -> Path:
        """The log file of the commands."""
        return self.home / "log" / f"{self.name}.log"

    def __str__(self) -> str:
        """Return the name of the stage for messages."""
        return f"stage {self.number} ({self.name})"


def marks(home: Path) -> Path:
    """Return the directory of the marks in a home.

    Raises:
        UserError: it is a link, which may lead anywhere.
    """
    return inside(home, ".done")


def read_stages(words: Sequence[str], known: Mapping[str, Dependencies]) -> list[Stage]:
    """Read the list of run.sh: entries ``stage NUMBER NAME PURPOSE [OPTION]...``, each followed by entries ``run COMMAND``.

    Args:
        words: for each entry the number of words after the first, and its words.
        known: the dependencies of each stage by name.

    Raises:
        UserError: an entry is not valid, or a stage is not known.
    """
    stages: list[Stage] = []
    for kind, *rest in _split_by_counts(words):
        if kind == "stage":
            stages.append(_stage(rest, known))
        elif kind == "run" and stages and rest:
            stages[-1] = replace(stages[-1], commands=(*stages[-1].commands, tuple(rest)))
        else:
            raise UserError(f"{' '.join([kind, *rest])}: write run COMMAND below its stage")
    if stages and (stages[0].follows or stages[0].blames_previous):
        raise UserError(f"{stages[0]}: must not be the first stage, because it uses the previous one")
    return [stage for stage in stages if stage.needed]


def _stage(words: Sequence[str], known: Mapping[str, Dependencies]) -> Stage:
    if len(words) < 3 or not words[0].isdecimal():
        raise UserError(f"stage {' '.join(words)}: write stage NUMBER NAME PURPOSE")
    number, name, purpose, *given = words
    if name not in known:
        raise UserError(f"stage {name}: has no dependencies in asrprune/recipe/dependencies.py{did_you_mean(name, [*known])}")
    return Stage(**vars(known[name]), number=int(number), name=name, purpose=purpose, given=tuple(given))


def _split_by_counts(words: Sequence[str]) -> Iterator[Sequence[str]]:
    while words:
        count = int(words[0]) if words[0].isdecimal() else -1
        if not 0 <= count < len(words) - 1:
            raise UserError(f"{words[0]}: each entry must begin with the number of its words, as in egs/common/run.sh")
        yield words[1 : count + 2]
        words = words[count + 2 :]
