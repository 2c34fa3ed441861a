"""Run what is missing of a grid: each cell is the recipe's own run.sh; what is done is kept, what was killed goes on."""

import contextlib
import logging
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from asrprune.errors import UserError
from asrprune.files import write_json
from asrprune.paper.grid import Cell, cells, read_grid
from asrprune.paper.record import is_recorded, make_record, record_path

logger = logging.getLogger(__name__)
_POLL_S = 1.0
_TOLD_EVERY_S = 300.0
_TAIL = 15  # lines of a failed run that are shown


@dataclass
class _Runs:
    """What is running: processes in groups of their own, so that a whole run.sh with its children can be stopped."""

    options: Sequence[str]
    expdir: Path
    threads: int
    processes: dict[str, tuple[Cell, subprocess.Popen[bytes], float]] = field(default_factory=dict)

    def start(self, cell: Cell, grid_config: str) -> None:
        numbers = " ".join(f"--set {override}" for override in cell.overrides)
        command = ["./run.sh", *self.options, "--config", grid_config, "--config_opts", numbers]
        command += ["--expdir", str(self.expdir), "--exp_tag", cell.name, "--stage", "3", "--stop_stage", "9"]
        output = log_path(self.expdir, cell)
        output.parent.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.threads)}
        with open(output, "ab") as sink:
            process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, env=environment, start_new_session=True)
        self.processes[cell.name] = (cell, process, time.monotonic())

    def finished(self) -> Iterator[tuple[Cell, int, float]]:
        """Those that have ended since the last call, with exit code and seconds."""
        for name, (cell, process, started) in list(self.processes.items()):
            if process.poll() is not None:
                del self.processes[name]
                yield cell, process.returncode, time.monotonic() - started

    def stop(self) -> None:
        for _, process, _ in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for _, process, _ in self.processes.values():
            process.wait()


def run_grid(grid_file: Path, output: Path, expdir: Path, jobs: int, options: Sequence[str]) -> None:
    """Train, prune, decode and record every cell that is not recorded yet, ``jobs`` at a time; run in a recipe's directory.

    Args:
        grid_file: the grid.
        output: where records go: ``cells/<cell>.json``.
        expdir: where the experiments go.
        jobs: runs at a time; they share the cores.
        options: passed on to run.sh.

    Raises:
        UserError: this is no recipe, or a run failed; those beside it are stopped, and go on at the next start.
    """
    if not Path("run.sh").is_file():
        raise UserError(f"{Path.cwd()}: no run.sh here; run this in a recipe's directory, such as egs/mini")
    grid = read_grid(grid_file)
    wanted = cells(grid)
    waiting = [cell for cell in wanted if not is_recorded(output, cell)]
    logger.info("%d of %d cells are recorded in %s", len(wanted) - len(waiting), len(wanted), output / "cells")
    if not waiting:
        return
    _prepare(grid.config, expdir, options)
    runs, total, told = _Runs(options, expdir, max(1, (os.cpu_count() or 1) // jobs)), len(waiting), time.monotonic()
    try:
        while waiting or runs.processes:
            while waiting and len(runs.processes) < jobs:
                cell = waiting.pop(0)
                logger.info("%s: started; output: %s", cell.name, log_path(expdir, cell))
                runs.start(cell, grid.config)
            for cell, status, seconds in runs.finished():
                if status:
                    raise UserError(_failure(log_path(expdir, cell), cell, status))
                write_json(record_path(output, cell), make_record(expdir / cell.name, cell))
                done = total - len(waiting) - len(runs.processes)
                logger.info("%s: took %.0f min; %d of %d", cell.name, seconds / 60, done, total)
            if time.monotonic() - told > _TOLD_EVERY_S:
                told = time.monotonic()
                logger.info(
                    "running: %s", ", ".join(_progress(log_path(expdir, cell), cell) for cell, _, _ in runs.processes.values())
                )
            time.sleep(_POLL_S)
    finally:
        runs.stop()


def log_path(expdir: Path, cell: Cell) -> Path:
    """What its run.sh says."""
    return expdir / cell.name / "log" / "run.log"


def _prepare(config: str, expdir: Path, options: Sequence[str]) -> None:
    """Data and features, once for all: cells share them."""
    command = ["./run.sh", *options, "--config", config, "--expdir", str(expdir), "--exp_tag", "data", "--stop_stage", "2"]
    if subprocess.run(command).returncode:
        raise UserError("./run.sh stopped in stages 0 to 2, see above; nothing was trained")


def _failure(log: Path, cell: Cell, status: int) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL:]
    shown = "\n".join(f"  {line}" for line in lines)
    return f"{cell.name}: run.sh ended with exit code {status}; the end of {log}:\n{shown}"


def _progress(log: Path, cell: Cell) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n").splitlines()
    return f"{cell.name} ({lines[-1].strip()[-60:]})" if lines else cell.name
