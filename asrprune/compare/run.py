"""Run the missing cells of a grid with the run.sh of the recipe. Finished cells are kept, killed ones continue."""

import contextlib
import logging
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from asrprune.compare.grid import Cell, Grid, as_overrides, cells, read_grid
from asrprune.compare.record import CellRecord, make_record, read_records, record_path
from asrprune.experiment.paths import ExperimentPaths
from asrprune.experiment.provenance import TrainedOn
from asrprune.experiment.store import read_experiment_config
from asrprune.runtime.cores import usable_cores
from asrprune.runtime.errors import UserError
from asrprune.runtime.files import held
from asrprune.runtime.hardware import visible_gpus
from asrprune.runtime.planted import no_link
from asrprune.runtime.signals import ended_with_parent

logger = logging.getLogger(__name__)
_POLL_S = 1.0
_LOG_EVERY_S = 300.0  # how often the running cells are logged
_TAIL = 15  # lines of a failed run that are shown
_SET_BY_GRID = ("--config", "--config_opts", "--expdir", "--exp_tag", "--stage", "--stop_stage")  # options of run.sh


def run_grid(
    grid_file: Path, output: Path, expdir: Path, jobs: int, options: Sequence[str], only: Sequence[str] = ("*",)
) -> None:
    """Train, prune, decode and record every cell without a record, then measure speed. Run it in the directory of a recipe.

    Args:
        grid_file: the grid.
        output: the directory of the records, ``cells/<cell>.json``.
        expdir: the directory of the experiments.
        jobs: the number of runs at a time; they share the cores and the GPUs.
        options: options for run.sh, except those that the grid decides.
        only: the cells to run: names, or shell patterns such as ``prunable_*``.

    Raises:
        UserError: there is no run.sh here, the grid decides an option, no cell has a name of ``only``, another process uses
            ``expdir``, an experiment was trained with other numbers, or runs failed (the other runs are done nevertheless).
    """
    if not Path("run.sh").is_file():
        raise UserError(f"{Path.cwd()}: no run.sh here; run this in a recipe's directory, such as egs/mini")
    if taken := [option for option in map(_name, options) if option in _SET_BY_GRID]:
        raise UserError(f"{', '.join(taken)}: the grid decides this for each run; set it in {grid_file} instead")
    grid = read_grid(grid_file)
    wanted = cells(grid)
    for pattern in only:
        if not any(fnmatchcase(cell.name, pattern) for cell in wanted):
            raise UserError(f"--only {pattern}: no such cell; {grid_file} has {', '.join(cell.name for cell in wanted)}")
    chosen = [cell for cell in wanted if any(fnmatchcase(cell.name, pattern) for pattern in only)]
    with held(expdir):
        recorded = read_records(output, wanted)
        missing = [cell for cell in chosen if cell.name not in recorded]
        logger.info("%d of %d cells are recorded in %s", len(recorded), len(wanted), output / "cells")
        _check_experiments(missing, expdir)
        runner = Runner(grid, output, expdir, options, recorded)
        if missing:
            runner.prepare()
            runner.run(missing, 3, 9, jobs)
        if (timed := next(cell for cell in wanted if cell.method == grid.prunable and not cell.alone)) in chosen:
            runner.measure_speed(timed)


def _name(option: str) -> str:
    """Return the name of an option in the spelling of run.sh: ``--exp-tag=x`` is ``--exp_tag``."""
    name = option.partition("=")[0]
    return f"--{name[2:].replace('-', '_')}" if name.startswith("--") else option


def _check_experiments(missing: Sequence[Cell], expdir: Path) -> None:
    """Raise a ``UserError`` before training if an existing experiment of a missing cell was trained with other numbers."""
    existing = [cell for cell in missing if ExperimentPaths(expdir / cell.name).config.exists()]
    changed = [cell.name for cell in existing if cell.learnt_in(read_experiment_config(expdir / cell.name)) != cell.learnt]
    if changed:
        raise UserError(
            f"{expdir}: {', '.join(changed)}: trained with other numbers than the grid has now; remove these experiments, or"
            " keep them and give --expdir and --output another place"
        )


@dataclass(frozen=True)
class Run:
    """A run.sh that is running."""

    process: subprocess.Popen[bytes]
    started: float
    slot: int  # the share of the machine that it uses: 0 ... jobs - 1


def _gpus(slot: int, jobs: int) -> dict[str, str]:
    """Return the environment variable that shows a run its share of the GPUs; empty without GPUs."""
    if not (gpus := visible_gpus()):
        return {}
    return {"CUDA_VISIBLE_DEVICES": ",".join(gpus[slot::jobs] or [gpus[slot % len(gpus)]])}


class Runner:
    """Runs of run.sh. Each has its own process group, so that it can be stopped with all its children."""

    def __init__(
        self, grid: Grid, output: Path, expdir: Path, options: Sequence[str], recorded: Mapping[str, CellRecord]
    ) -> None:
        """Take the arguments of ``run_grid``, and the records that are there at its start."""
        self.grid, self.output, self.expdir, self.options, self.recorded = grid, output, expdir, options, recorded
        self.running: dict[Cell, Run] = {}
        self.checked: set[Cell] = set()  # whose data are those of the recorded cells
        self.failed: list[str] = []

    def prepare(self) -> None:
        """Run stages 0 to 2, data and features, once for all cells."""
        command = self._command("data", as_overrides(self.grid.numbers), "--stop_stage", "2")
        if subprocess.run(command, preexec_fn=ended_with_parent()).returncode:
            raise UserError("./run.sh stopped in stages 0 to 2, see above; nothing was trained")

    def run(self, missing: Sequence[Cell], first: int, last: int, jobs: int) -> None:
        """Run stages ``first`` to ``last`` of each cell, ``jobs`` cells at a time, and record each cell at its end.

        Raises:
            UserError: a cell trains on other data than the recorded cells did (raised at once), or some runs failed (raised
                after the last run).
        """
        waiting, logged = list(missing), time.monotonic()
        try:
            while waiting or self.running:
                for slot in sorted(set(range(jobs)) - {run.slot for run in self.running.values()})[: len(waiting)]:
                    self._start(waiting.pop(0), first, last, slot, jobs)
                self._check_data()
                for cell, seconds in self._finished():
                    done = len(missing) - len(waiting) - len(self.running)
                    logger.info("%s: took %.0f min; %d of %d", cell.name, seconds / 60, done, len(missing))
                if time.monotonic() - logged > _LOG_EVERY_S:
                    logged = time.monotonic()
                    logger.info("running: %s", ", ".join(map(self._progress, self.running)))
                time.sleep(_POLL_S)
        finally:
            self._stop()
        if self.failed:
            raise UserError(
                f"{len(self.failed)} of {len(missing)} runs failed, see above: {', '.join(self.failed)}; the same command goes"
                " on with them"
            )

    def measure_speed(self, cell: Cell) -> None:
        """Run stage 10 of one cell, while nothing else runs, if its record has no speed and its experiment exists."""
        record = CellRecord.read(record_path(self.output, cell))
        if all(row.rtf is not None for row in record.rows):
            return
        if not ExperimentPaths(self.expdir / cell.name).model.exists():
            logger.warning("%s does not exist, so its speed is not measured", self.expdir / cell.name)
            return
        self.run([cell], 10, 10, jobs=1)

    def log_path(self, cell: Cell) -> Path:
        """Return the path of the output of run.sh."""
        return self.expdir / cell.name / "log" / "run.log"

    def _command(self, name: str, overrides: Sequence[str], *stages: str) -> list[str]:
        numbers = " ".join(f"--set {override}" for override in overrides)
        where = ["--expdir", str(self.expdir), "--exp_tag", name]
        return ["./run.sh", "--config", self.grid.config, "--config_opts", numbers, *where, *stages, *self.options]

    def _start(self, cell: Cell, first: int, last: int, slot: int, jobs: int) -> None:
        threads = max(1, usable_cores() // jobs)
        stages = ("--nj", str(threads), "--stage", str(first), "--stop_stage", str(last))
        command = self._command(cell.name, cell.overrides, *stages)
        output = self.log_path(cell)
        logger.info("%s: stages %d to %d; output: %s", cell.name, first, last, output)
        output.parent.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), **_gpus(slot, jobs)}
        with open(output, "ab", opener=no_link) as sink:
            process = subprocess.Popen(
                command, stdout=sink, stderr=subprocess.STDOUT, env=environment, start_new_session=True,
                preexec_fn=ended_with_parent(),
            )  # fmt: skip
        self.running[cell] = Run(process, time.monotonic(), slot)

    def _check_data(self) -> None:
        """Raise a ``UserError`` if a running cell trains on other data than the recorded cells did: they cannot be compared."""
        for cell in self.running.keys() - self.checked:
            path = ExperimentPaths(self.expdir / cell.name).data
            if not path.exists():
                continue
            own = TrainedOn.read(path).on_any_machine()
            for name, record in self.recorded.items():
                if own != record.trained_on.on_any_machine():
                    raise UserError(
                        f"{path.parent}: is trained on other data than the recorded {name}; use its data again, or give"
                        " --output and --expdir another place, where all cells are trained on the new data"
                    )
            self.checked.add(cell)

    def _finished(self) -> Iterator[tuple[Cell, float]]:
        """Record the cells that have ended without error since the last call; yield them with their seconds."""
        for cell, run in list(self.running.items()):
            if run.process.poll() is None:
                continue
            del self.running[cell]
            try:
                if run.process.returncode:
                    raise UserError(self._failure(cell, run.process.returncode))
                make_record(self.expdir / cell.name, cell).write(record_path(self.output, cell))
            except UserError as error:
                self.failed.append(cell.name)
                logger.error("%s", error)
                continue
            yield cell, time.monotonic() - run.started

    def _stop(self) -> None:
        for run in self.running.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(run.process.pid, signal.SIGTERM)
        for run in self.running.values():
            run.process.wait()

    def _failure(self, cell: Cell, status: int) -> str:
        shown = "\n".join(f"  {line}" for line in self._lines(cell)[-_TAIL:])
        return f"{cell.name}: run.sh ended with exit code {status}; the end of {self.log_path(cell)}:\n{shown}"

    def _progress(self, cell: Cell) -> str:
        lines = self._lines(cell)
        return f"{cell.name} ({lines[-1].strip()[-60:]})" if lines else cell.name

    def _lines(self, cell: Cell) -> list[str]:
        return self.log_path(cell).read_text(encoding="utf-8", errors="replace").replace("\r", "\n").splitlines()
