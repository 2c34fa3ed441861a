"""The executor that a command line asks for."""

from pathlib import Path

from asrprune.runtime.errors import UserError
from asrprune.runtime.executor import Executor, processes


def choose(name: str, num_jobs: int, num_gpus: int, sbatch: str, logs: Path) -> Executor:
    """The executor that a command line asks for.

    Args:
        name: local or slurm.
        num_jobs: processes or jobs.
        num_gpus: as ``Executor``.
        sbatch, logs: as ``Slurm``.

    Raises:
        UserError: there is no such executor, or not here, or no GPU; ``sbatch`` is given where there are no jobs.
    """
    if name == "slurm":
        from asrprune.runtime.slurm import Slurm

        return Slurm(num_jobs, sbatch, logs, num_gpus)
    if name != "local":
        raise UserError(f"--executor {name}: no such executor; choose from local and slurm")
    if sbatch:
        raise UserError(f"--sbatch '{sbatch}' is for jobs of a cluster; give --executor slurm, too")
    if num_gpus:
        from asrprune.runtime.hardware import check_gpus

        check_gpus(num_gpus)  # what this machine lacks is said at once
    return processes(num_jobs, num_gpus)
