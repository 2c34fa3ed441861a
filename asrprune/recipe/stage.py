"""A stage of a recipe, and the syntax of the stage list in egs/common/run.sh."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asrprune.runtime.errors import UserError

_COMMAND, _NEXT_COMMAND = "--", "--then"


@dataclass(frozen=True)
class Stage:
    """A stage of a recipe: what it depends on, what it makes, and its commands, which run in order.

    A change of ``needs``, ``reads`` or ``given`` also reruns later stages; one of ``also_needs`` or ``also_reads...`` does not.
    """

    number: int
    name: str
    purpose: str  # for the user
    home: Path  # directory of .done/ (marks) and log/
    commands: tuple[tuple[str, ...], ...]
    after: int | None = None  # the stage whose result this stage uses
    needs: tuple[str, ...] = ()  # sections and numbers of the config
    reads: tuple[Path, ...] = ()  # input files and data directories
    given: tuple[str, ...] = ()  # other options
    also_needs: tuple[str, ...] = ()
    also_reads: tuple[Path, ...] = ()
    also_reads_audio: tuple[Path, ...] = ()  # data directories whose recordings count
    makes: tuple[Path, ...] = ()  # output files and directories; a name may be a pattern: plans/*.json
    editable: bool = False  # people may change the output files
    repeatable: bool = False  # equal needs give equal results, so later stages stay done when it runs again
    shared: str = ""  # name of output that other experiments use and may replace: "features"
    on_failure_redo: int | None = None  # the stage to run again if this one fails

    @property
    def mark(self) -> Path:
        """The file that records the needs with which the stage was done."""
        return self.home / ".done" / str(self.number)

    @property
    def log(self) -> Path:
        """The log file of the commands."""
        return self.home / "log" / f"{self.name}.log"

    def __str__(self) -> str:
        """Return the name of the stage for messages."""
        return f"stage {self.number} ({self.name})"


def read_stages(words: Sequence[str]) -> list[Stage]:
    """Read a list of stages. Each stage is given as the number of its words, followed by these words.

    Raises:
        UserError: a stage is not valid, or is ``--after`` a stage that is not above it in the list.
    """
    stages: list[Stage] = []
    for description in _split_by_counts(words):
        stage = read_stage(description)
        if stage.after is not None and stage.after not in [earlier.number for earlier in stages]:
            raise UserError(f"{stage}: --after {stage.after}: there is no such stage above it")
        stages.append(stage)
    return stages


def read_stage(words: Sequence[str]) -> Stage:
    """Read one stage: ``NUMBER NAME PURPOSE OPTION VALUE... -- COMMAND [--then COMMAND]...``.

    Raises:
        UserError: a part is missing or is not a number.
    """
    at = words.index(_COMMAND) if _COMMAND in words else len(words)
    head, commands = words[:at], _commands(words[at + 1 :])
    options: dict[str, list[str]] = {"": []}
    values = options[""]
    for word in head:
        if word in _OPTIONS:
            values = options.setdefault(word, [])
        else:
            values.append(word)
    start = options.pop("")
    if len(start) != 3 or not start[0].isdecimal() or not options.get("--in") or not all(commands):
        raise UserError(f"{' '.join(words)}: write stage NUMBER NAME PURPOSE --in DIR ... -- COMMAND ...")
    fields = dict(_field(option, values) for option, values in options.items())
    return Stage(int(start[0]), start[1], start[2], commands=commands, **fields)


def _split_by_counts(words: Sequence[str]) -> Iterator[Sequence[str]]:
    while words:
        count = int(words[0]) if words[0].isdecimal() else 0
        if not 0 < count < len(words):
            raise UserError(f"{words[0]}: each stage must begin with the number of its words, as in egs/common/run.sh")
        yield words[1 : count + 1]
        words = words[count + 1 :]


def _commands(words: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    commands: list[list[str]] = [[]]
    for word in words:
        if word == _NEXT_COMMAND:
            commands.append([])
        else:
            commands[-1].append(word)
    return tuple(map(tuple, commands))


def _field(option: str, values: list[str]) -> tuple[str, Any]:
    field, read = _OPTIONS[option]
    try:
        return field, read(values)
    except (IndexError, ValueError):
        raise UserError(f"{option} {' '.join(values)}: must be followed by a number") from None


def _paths(values: list[str]) -> tuple[Path, ...]:
    return tuple(map(Path, values))


# option: (field of Stage, function that makes its value of the words after the option)
_OPTIONS: dict[str, tuple[str, Callable[[list[str]], Any]]] = {
    "--in": ("home", lambda values: Path(values[0])),
    "--after": ("after", lambda values: int(values[0])),
    "--needs": ("needs", tuple),
    "--reads": ("reads", _paths),
    "--given": ("given", tuple),
    "--also-needs": ("also_needs", tuple),
    "--also-reads": ("also_reads", _paths),
    "--also-reads-audio": ("also_reads_audio", _paths),
    "--makes": ("makes", _paths),
    "--editable": ("editable", lambda values: True),
    "--repeatable": ("repeatable", lambda values: True),
    "--shared": ("shared", " ".join),
    "--on-failure-redo": ("on_failure_redo", lambda values: int(values[0])),
}
