"""Options that several commands share, and functions that check them and make objects from them."""

import os
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asrprune.config.strategies import PREFERRED
from asrprune.runtime.errors import UserError
from asrprune.runtime.threads import set_threads

if TYPE_CHECKING:
    from asrprune.experiment.store import Experiment
    from asrprune.runtime.executor import Executor

DataDir = Annotated[Path, typer.Argument(help="Kaldi data directory")]
ConfigFile = Annotated[Path, typer.Option("--config", help="YAML file with all numbers")]
Overrides = Annotated[list[str], typer.Option("--set", help="section.key=value, overrides --config; may be repeated")]
ExpDir = Annotated[Path, typer.Option("--exp", help="experiment directory")]
AllowPipes = Annotated[bool, typer.Option("--allow-pipes", help="run `cmd |` entries of wav.scp (arbitrary shell)")]
Jobs = Annotated[  # also Slurm's default limit for the jobs of an array
    int, typer.Option("--nj", min=1, max=1000, help="number of processes or jobs")
]
Where = Annotated[str, typer.Option("--executor", help="local: processes of this machine, slurm: jobs of a cluster")]
Sbatch = Annotated[str, typer.Option("--sbatch", help='options of sbatch for these jobs: "--partition=gpu --time=60"')]
Threads = Annotated[
    int | None,
    typer.Option("--threads", min=1, help="CPU threads of all processes together; default: the cores that are not busy"),
]
Gpus = Annotated[int, typer.Option("--ngpu", min=0, help="0: the CPU, 1: the GPU")]
Depth = Annotated[int | None, typer.Option("--depth", min=1, help="number of layers to run; --plan gives the layers")]
Layers = Annotated[str | None, typer.Option("--layers", help="exactly these layers, e.g. 1,2,5,9")]
DecoderName = Annotated[
    str | None, typer.Option("--decoder", help="greedy or beam; default: beam with --lm or --context, else that of the config")
]
LmFile = Annotated[
    Path | None,
    typer.Option(
        "--lm", help="language model for beam: an ARPA file, or the name of one in EXP/lang; default: that of the config"
    ),
]
Context = Annotated[list[str] | None, typer.Option("--context", help="an expected word or phrase, for beam; may be repeated")]
IsDev = Annotated[bool, typer.Option("--yes-it-is-a-dev-set", help="the set is a dev set, although its name contains `test`")]
PlanName = Annotated[
    str | None, typer.Option("--plan", help=f"a strategy (exp/.../plans/NAME.json), or a plan file; default: {PREFERRED}")
]


def named(directory: Path) -> Path:
    """Return a data directory as an absolute path, so that ``.`` has a name, too; results are named after it."""
    return Path(os.path.abspath(directory))


def distinct(directories: list[Path]) -> list[Path]:
    """Return data directories as ``named`` does, each once.

    Raises:
        UserError: two have the same name, so the results of one would replace those of the other.
    """
    paths = list(dict.fromkeys(map(named, directories)))
    for name, same in groupby(sorted(paths, key=lambda path: path.name), key=lambda path: path.name):
        if len(group := [*same]) > 1:
            raise UserError(f"{', '.join(map(str, group))}: both are called {name}, as their results would be; rename one")
    return paths


def use_threads(threads: int | None, executor: str = "local", num_processes: int = 1) -> bool:
    """Set the number of threads to that of ``--threads``. Call this before torch is imported, which reads the number.

    Returns:
        whether the number depends on the load of this machine, not on the user.
    """
    local = executor == "local"  # a job of a cluster has the cores of its own machine
    return (local or threads is not None) and set_threads(threads, num_processes)


def workers_of(name: str, num_jobs: int, sbatch: str, home: Path, num_gpus: int = 0) -> "Executor":
    """Return the executor of ``--executor``, ``--nj`` and ``--sbatch``; job logs go to ``home``/log/slurm."""
    from asrprune.runtime.choose import choose

    return choose(name, num_jobs, num_gpus, sbatch, home / "log" / "slurm")


def check_dev(dev: Path, is_dev: bool) -> None:
    """Raise a ``UserError`` if the name of a set says that it is a test set: a choice made on it would spoil its results."""
    name = dev.resolve().name.lower()
    if "test" in name and "dev" not in name and not is_dev:
        raise UserError(
            f"{dev}: its name says that it is a test set, and nothing must be chosen on one; use a dev set, or add"
            " --yes-it-is-a-dev-set (run.sh: --is_dev true) if it is one"
        )


def load_experiment(exp: Path, num_gpus: int = 0) -> "Experiment":
    """Load the experiment of ``--exp`` on the device of ``--ngpu``."""
    from asrprune.experiment.store import load
    from asrprune.runtime.hardware import pick_device

    return load(exp, pick_device(num_gpus))


def decoder_given(name: str | None, lm: Path | None, context: list[str] | None) -> dict[str, object]:
    """Return ``--decoder``, ``--lm`` and ``--context`` as values of ``decode.decoder``."""
    if name == "greedy" and (lm or context):
        raise UserError("--lm and --context have no effect with --decoder greedy; use --decoder beam")
    path = lm and str(lm.absolute() if lm.exists() else lm)  # a plain name may be a file in the experiment
    given = {"type": name or ("beam" if lm or context else None), "lm": path, "context": context}
    return {key: value for key, value in given.items() if value}


def kept_layers(experiment: "Experiment", depth: int | None, layers: str | None, plan: str | None) -> tuple[int, ...]:
    """Return the layers of ``--layers``, or of ``--depth`` and ``--plan``."""
    from asrprune.experiment.plan import parse_layers
    from asrprune.prune.find import find_plan

    if (depth is None) == (layers is None):
        raise UserError("give either --depth N or --layers 1,2,5,9")
    if layers is not None:
        if plan is not None:
            raise UserError("--plan has no effect with --layers; remove it, or use --depth instead of --layers")
        return parse_layers(layers, experiment.num_layers)
    assert depth is not None
    return find_plan(experiment, plan or PREFERRED).keep(depth)
