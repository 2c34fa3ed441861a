"""Running the stages of a recipe that are not done."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asrprune.data.tables import some
from asrprune.recipe.command import run_command
from asrprune.recipe.needs import ALL, contents_of, numbers_of, recordings_of
from asrprune.recipe.products import are_there, damaged, products_of
from asrprune.recipe.record import Needs, Record
from asrprune.recipe.stage import Stage, marks
from asrprune.runtime.errors import UserError
from asrprune.runtime.files import locked

_OUR_MISTAKE = 70  # exit status of asrprune after a bug, whose traceback is only in the log
_KILLED = 128  # the exit status of a killed command is this plus the number of the signal
_TAIL = 20  # lines of the log that are shown after a bug


@dataclass(frozen=True)
class Recipe:
    """The stages of a recipe, in order, and the resolved config."""

    stages: Sequence[Stage]
    config: Mapping[str, Any]
    say: Callable[[str], None] = print

    def run(self, first: int, last: int, prepare: Callable[[], None]) -> None:
        """Run the stages ``first`` to ``last`` that are not done; call ``prepare`` before the first of them.

        Raises:
            UserError: a stage failed, its input belongs to another experiment or has other numbers, or another experiment is
                using what it makes.
            KeyboardInterrupt: a signal ended the command of a stage; the stage is not done.
        """
        self.check_numbers(first)
        prepared = False
        for stage in (stage for stage in self.stages if first <= stage.number <= last):
            if self.is_done(stage):
                self.say(f"{stage}: done before; to run it again: rm '{stage.mark}'")
                continue
            if not prepared:
                prepare()
                prepared = True
            with self._lock(stage):
                self.check_shared(stage)
                self.run_stage(stage)

    def needs(self, stage: Stage) -> Needs:
        """Return the current needs of a stage."""
        before = Record.read(self._previous(stage).mark) if stage.follows else None
        return Needs(
            before.result if before else "",
            {**numbers_of(stage.needs, self.config), **contents_of(stage.reads), "options": list(stage.given)},
            {**numbers_of(stage.also_needs, self.config), **contents_of(stage.also_reads)},
            recordings_of(stage.also_reads_audio),
        )

    def is_done(self, stage: Stage) -> bool:
        """Return whether a stage was done with its current needs, and its output is there as it was made."""
        done = Record.read(stage.mark)
        return done is not None and not self.changes(stage, done) and are_there(stage)

    def changes(self, stage: Stage, done: Record) -> list[str]:
        """Return what has changed since a stage was done: its needs, its output."""
        return [*self.needs(stage).differences(done), *damaged(stage, done.made)]

    def check_shared(self, stage: Stage) -> None:
        """Check that the shared stages before ``stage`` were done with the needs of this recipe.

        Raises:
            UserError: another experiment has replaced their output.
        """
        while stage.follows:
            stage = self._previous(stage)
            if not stage.shared or not stage.mark.exists():
                continue
            done = Record.read(stage.mark)
            if done is None or self.needs(stage).differences(done):
                raise UserError(
                    f"the {stage.shared} in {stage.home} belong to another config or other data; run stage {stage.number},"
                    " or use another --datadir"
                )

    def check_numbers(self, first: int) -> None:
        """Check that the stage which writes the config of the experiment was done with this config, if it is not run now.

        Later stages read that config, so they would not see numbers that have changed since.

        Raises:
            UserError: it was done with other numbers.
        """
        for stage in self.stages:
            done = Record.read(stage.mark) if stage.number < first and ALL in stage.also_needs else None
            if done is None:
                continue
            numbers = numbers_of((ALL,), self.config)
            before = {name: value for name, value in {**done.also, **done.needs}.items() if name in numbers}
            if changed := Needs("", {}, numbers).differences(Needs("", {}, before)):
                raise UserError(
                    f"{stage.home} has other numbers: {some(changed, 3, '; ')}; start with --stage {stage.number}, which"
                    " changes them and runs again what depends on them"
                )

    def run_stage(self, stage: Stage) -> None:
        """Run the commands of a stage and mark it as done.

        Raises:
            UserError: a command failed.
        """
        started, needs, before = time.monotonic(), self.needs(stage), Record.read(stage.mark)
        stage.mark.unlink(missing_ok=True)  # a killed stage must not look done
        if before and (changed := self.changes(stage, before)):
            self.say(f"{stage}: runs again, changed: {some(changed, 3, '; ')}")
        self.say(f"{stage}: {stage.purpose}; log: {stage.log}")
        for command in stage.commands:
            if status := run_command(command, stage.log):
                self._fail(stage, status)
        Record.of(needs, products_of(stage), stage.repeatable).write(stage.mark)
        self.say(f"{stage}: took {time.monotonic() - started:.0f} s")

    def _lock(self, stage: Stage) -> AbstractContextManager[None]:
        """Lock what experiments share: nobody may change it while a stage uses it, or use it while a stage makes it."""
        home = next((other.home for other in self.stages if other.shared), None)
        if home is None or not os.access(marks(home), os.W_OK):  # the data directory of another user is only read
            return nullcontext()
        return locked(marks(home) / "lock", home, shared=stage.home != home)

    def _fail(self, stage: Stage, status: int) -> None:
        if status == _OUR_MISTAKE:
            self.say("\n".join(_lines(stage.log)[-_TAIL:]))
        if stage.blames_previous and status < _KILLED:  # a kill is nobody's fault
            self._previous(stage).mark.unlink(missing_ok=True)
        raise UserError(f"{stage} failed ({status}); log: {stage.log}; fix the cause and run the same command again")

    def _previous(self, stage: Stage) -> Stage:
        return self.stages[self.stages.index(stage) - 1]


def make_homes(stages: Sequence[Stage]) -> None:
    """Create the directories for marks and logs.

    Raises:
        UserError: a directory cannot be created.
    """
    for folder in {folder for stage in stages for folder in (stage.mark.parent, stage.log.parent)}:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder}: {(error.strerror or '').lower()}; choose another --datadir or --expdir") from None


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines()
