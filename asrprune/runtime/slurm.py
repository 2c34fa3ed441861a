"""The executor that runs shards as jobs of a Slurm cluster. submitit submits the jobs; each result is returned as a file."""

import contextlib
import io
import logging
import os
import pickle
import shlex
import shutil
import signal
import subprocess
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asrprune.runtime.errors import UserError
from asrprune.runtime.executor import Executor, Result, Shard, unpacked
from asrprune.runtime.files import atomic_path, temporary_directory
from asrprune.runtime.memory import keep_freed_memory

logger = logging.getLogger(__name__)
_POLL_S = 1.0
_ASK_S = 10.0  # interval between two calls of squeue
_SILENT_S = 60.0  # interval between warnings while Slurm does not answer
_CANCEL_S = 20.0  # the longest time to wait for a cancelled job
_ANSWER_S = 60.0  # Slurm's own programs wait for the controller for 10 s, several times
_FORGOTTEN = "UNKNOWN"  # the state of a job that Slurm no longer knows, some minutes after its end
_ENDED = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT"),
    _FORGOTTEN,
}
_ENDS = {  # state -> message with the fix
    "CANCELLED": "was cancelled",
    "OUT_OF_MEMORY": "was killed for lack of memory; ask for more, --sbatch '--mem=16G'",
    "TIMEOUT": "was killed at its time limit; ask for more, --sbatch '--time=8:00:00'",
}


class JobError(RuntimeError):
    """A failure of a job that is not a mistake of the user."""


@dataclass(frozen=True)
class _Failure:
    """The error of a shard, written instead of its result."""

    message: str
    of_the_user: bool  # whether it was a ``UserError``


class Slurm(Executor):
    """The executor that runs shards in jobs of a cluster: one job array for each call of ``map``."""

    restarts = True

    def __init__(self, num_jobs: int, sbatch: str, logs: Path, num_gpus: int = 0) -> None:
        """Check that Slurm and submitit are available.

        Args:
            num_jobs: the largest number of jobs.
            sbatch: options of sbatch, as on its command line; they override the options set here.
            logs: directory of the logs and results of the jobs; it must have the same path on every machine.
            num_gpus: see ``Executor``; the GPU itself must be requested in ``sbatch``.

        Raises:
            UserError: sbatch or submitit is missing on this machine, or the options cannot be parsed.
        """
        super().__init__(num_gpus)
        if shutil.which("sbatch") is None:
            raise UserError(
                "--executor slurm: this machine has no sbatch; run this on a machine of the cluster, or use --executor local"
            )
        if not str(logs.absolute()).isprintable():  # it becomes a line of a script, and what follows a line feed would be run
            raise UserError(f"{logs}: holds a character that is not printed, so no job can be given this path; rename it")
        try:
            import submitit  # noqa: F401
        except ModuleNotFoundError:
            raise UserError("--executor slurm needs submitit; install it with `pip install submitit`") from None
        try:
            self.options = shlex.split(sbatch)
        except ValueError as error:
            raise UserError(f"--sbatch {sbatch}: cannot be parsed ({error}); write options as for sbatch") from None
        self.num_jobs, self.logs = num_jobs, logs.resolve()
        self._open = contextlib.ExitStack()

    def map(self, work: Callable[[Shard], Result], shards: Iterable[Shard]) -> Iterator[Result]:
        """Yield the results in the order in which they are ready. All shards are taken at once and divided among the jobs."""
        results = self._results(pickle.dumps(work), dict(enumerate(shards)))
        self._open.callback(results.close)
        return results

    def split(self, items: Sequence[Shard]) -> list[Sequence[Shard]]:
        """Split ``items`` into one shard per job, because the start of a job takes seconds."""
        return [items[i :: self.num_jobs] for i in range(min(self.num_jobs, len(items)))]

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Cancel the jobs that still run."""
        self._open.close()

    def _results(self, work: bytes, shards: Mapping[int, Any]) -> Generator[Any, None, None]:
        if not shards:
            return
        self.logs.mkdir(parents=True, exist_ok=True)
        with temporary_directory(self.logs, "jobs") as folder:
            shares = self.split(list(shards))
            jobs = self._submit(work, [{number: shards[number] for number in share} for share in shares], folder)
            array = jobs[0].partition("_")[0]
            waiting = {number: job for job, share in zip(jobs, shares, strict=True) for number in share}
            logger.info("Slurm job array %s of %d jobs; logs: %s*", array, len(jobs), self._log(array).with_suffix(""))
            try:
                yield from self._collect(array, waiting, folder)
            finally:
                if waiting:
                    _cancel(array, set(waiting.values()))

    def _submit(self, work: bytes, shares: Sequence[Mapping[int, Any]], folder: Path) -> list[str]:
        """Submit one job per share and return the job ids: ``12_0``, ``12_1``, or ``12`` for a single job."""
        import submitit
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        sender, said = submitit.SlurmExecutor(folder), io.StringIO()
        sender.update_parameters(
            job_name="asrprune",
            array_parallelism=len(shares),  # the default of submitit is 256
            time=None,  # the default of submitit is five minutes
            wckey=None,
            use_srun=False,  # with srun the work would get one core only
            stderr_to_stdout=True,
            additional_parameters={"output": self._log("%A_%a" if len(shares) > 1 else "%j")},
            setup=[f"#SBATCH {shlex.join(self.options)}", "export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$SLURM_CPUS_ON_NODE}"],
        )
        try:
            with contextlib.redirect_stderr(said):  # the exception repeats the messages of sbatch
                jobs = sender.map_array(_do_all, [work] * len(shares), shares, [folder] * len(shares))
        except (FailedJobError, FailedSubmissionError) as error:
            raise UserError(f"sbatch {shlex.join(self.options)}: {_flat(str(error))}; no job was started") from None
        return [job.job_id for job in jobs]

    def _collect(self, array: str, waiting: dict[int, str], folder: Path) -> Iterator[Any]:
        """Yield results as they arrive, and remove their shards from ``waiting`` (shard number -> job id)."""
        queue, asked, gone = _Queue(array), time.monotonic(), dict[str, str]()
        while waiting:
            time.sleep(_POLL_S)
            os.utime(folder)  # makes a network file system refresh the directory, and shows that it is in use
            for number in sorted(waiting.keys() & {int(path.stem) for path in folder.glob("[0-9]*.result")}):
                yield self._read(_result(folder, number), waiting.pop(number))
            if time.monotonic() - asked > _ASK_S:
                asked, before, gone = time.monotonic(), gone, queue.gone(set(waiting.values()))
                for job in sorted(gone.keys() & before.keys()):  # gone at two checks, so its results would be here
                    raise UserError(self._lost(job, gone[job]))

    def _read(self, path: Path, job: str) -> Any:
        result = pickle.loads(path.read_bytes())
        if isinstance(result, _Failure):
            if result.of_the_user:
                raise UserError(result.message)
            raise JobError(f"job {job}: {result.message}; its log: {self._log(job)}")
        return result

    def _lost(self, job: str, state: str) -> str:
        log = self._log(job)
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
        why = _ENDS.get(state, f"ended as {state}" + (f"; last log line: '{lines[-1]}'" if lines else ""))
        return f"job {job} {why}; run the same command again, finished results are kept; log of the job: {log}"

    def _log(self, job: str) -> Path:
        return self.logs / f"{job}.log"


def _do_all(work: bytes, shards: Mapping[int, Any], folder: Path) -> None:
    """Run in a job: write the result of each shard, or its error, into ``folder``."""
    keep_freed_memory()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # sent by scancel; submitit makes the process ignore it
    for number, shard in shards.items():
        result = _attempt(work, shard)
        with atomic_path(_result(folder, number)) as temporary:
            temporary.write_bytes(pickle.dumps(result))
        if isinstance(result, _Failure):
            break


def _attempt(work: bytes, shard: Any) -> Any:
    try:
        return unpacked(work)(shard)
    except UserError as error:
        return _Failure(str(error), of_the_user=True)
    except Exception as error:  # the waiting process reports it
        traceback.print_exc()
        return _Failure(f"{type(error).__name__}: {error}", of_the_user=False)


def _result(folder: Path, number: int) -> Path:
    return folder / f"{number}.result"


class _Queue:
    """What squeue says of a job array. (sacct knows more, but many clusters do not have it.)"""

    def __init__(self, array: str) -> None:
        self.array = array
        self._last = time.monotonic()  # time of the last answer or warning

    def gone(self, jobs: set[str]) -> dict[str, str]:
        """Return the jobs that have ended, and their states; none while Slurm does not answer, as jobs continue."""
        done = _ask("squeue", "--noheader", "--array", "--states=all", f"--jobs={self.array}", "--format=%i %T")
        if done.returncode and "Invalid job id" not in done.stderr:
            self._warn(jobs, _flat(done.stderr))
            return {}
        self._last = time.monotonic()
        states = dict(line.split() for line in done.stdout.splitlines())
        return {job: states.get(job, _FORGOTTEN) for job in jobs if states.get(job, _FORGOTTEN) in _ENDED}

    def _warn(self, jobs: set[str], why: str) -> None:
        """Warn once in ``_SILENT_S``."""
        if time.monotonic() - self._last < _SILENT_S:
            return
        self._last = time.monotonic()
        logger.warning(
            "squeue does not answer (%s); waiting for the results of %d jobs of array %s, which may still run;"
            " Ctrl-C cancels them",
            *(why, len(jobs), self.array),
        )


def _cancel(array: str, jobs: set[str]) -> None:
    """Cancel an array and wait until its jobs end; a running job would write into the folder that is removed next."""
    _ask("scancel", array)
    queue, until = _Queue(array), time.monotonic() + _CANCEL_S
    while queue.gone(jobs).keys() != jobs and time.monotonic() < until:
        time.sleep(_POLL_S)


def _ask(*command: str) -> "subprocess.CompletedProcess[str]":
    """Ask Slurm. A controller that hangs counts as one that does not answer."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_ANSWER_S)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, returncode=1, stdout="", stderr=f"no answer in {_ANSWER_S:.0f} s")


def _flat(text: str) -> str:
    """Join the output lines of a command of Slurm into one line."""
    return ", ".join(line.removeprefix("sbatch: ").removeprefix("error: ") for line in text.splitlines())
