"""The choice of an executor from command-line options."""

from pathlib import Path

from asrprune.runtime.errors import UserError, did_you_mean
from asrprune.runtime.executor import Executor, processes


def choose(name: str, num_jobs: int, num_gpus: int, sbatch: str, logs: Path) -> Executor:
    """Return the executor for these options.

    Args:
        name: local or slurm.
        num_jobs: number of processes or jobs.
        num_gpus: see ``Executor``.
        sbatch, logs: see ``Slurm``.

    Raises:
        UserError: the name is unknown; Slurm or a GPU is missing on this machine; ``sbatch`` is given without slurm.
    """
    if name == "slurm":
        from asrprune.runtime.slurm import Slurm

        return Slurm(num_jobs, sbatch, logs, num_gpus)
    if name != "local":
        close = did_you_mean(name, ("local", "slurm"))
        raise UserError(f"--executor {name}: no such executor; choose from local and slurm{close}")
    if sbatch:
        raise UserError(f"--sbatch '{sbatch}': sbatch options need a cluster; add --executor slurm, or remove --sbatch")
    if num_gpus:
        from asrprune.runtime.hardware import check_gpus

        check_gpus(num_gpus)  # report a missing GPU before the work starts
    return processes(num_jobs, num_gpus)
