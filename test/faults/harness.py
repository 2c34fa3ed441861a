"""Kill the stages of a small recipe, and the other commands that write files, in every way, and run them again.

``python harness.py FOLDER N [STAGE...]``: N faults for each stage, into FOLDER, which must not exist; prints a table. If N is
``every``, each stage is killed once at every point where it is about to change a file. ``WAYS``: the kinds of faults, separated
by commas, instead of all. Several of these programs, with a folder and stages each, use several cores. A folder in memory is
fastest.
This process only imports and forks: a fork has torch at once, whose import takes longer than a stage.
"""

import contextlib
import errno
import gc
import importlib
import os
import pkgutil
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import contents
import points

import asrprune
import asrprune.recipe.installation
import asrprune.recipe.run
from asrprune.cli import main
from asrprune.recipe.command import run_command
from asrprune.runtime.signals import deferred

ROOT = Path(__file__).resolve().parents[2]
CORPUS = {"train": (24, "[f1, linda]", "[m1, m2]"), "dev": (8, "[f4]", "[m5]"), "test": (6, "[f3]", "[m8]")}  # and their voices
EDITABLE = ("text", "wav.scp", "utt2spk")
# Only a new training would make these, and the weights of epochs, again. Their damage is told where they are read.
ONCE = ("train.jsonl", "data.json", "last.pt", "previous.pt")
STAGES = "download data fbank bpe train average svcca search decode score bench report"
COMMANDS = {  # each after the one before it
    "prune": "prune --exp exp/tiny --depth 2 pruned",
    "lm": "lm data/train/text 3gram.arpa",
    "tune-lm": "tune-lm --exp exp/tiny --dev data/dev --lm 3gram.arpa",
    "early-exit": "early-exit data/test --exp exp/tiny --dev data/dev",
    "transcribe": "transcribe data/audio/test --exp exp/tiny --output-dir transcripts",
    "export": "export --exp exp/tiny --to model.onnx",
    "set-depth": "set-depth model.onnx 2",
}
# The stages that compare runs are tried by themselves: here run.sh does nothing, and both experiments are finished.
GRID = """config: conf/tiny.yaml
numbers: {{{}}}
methods: {{pruned: {{}}, alone: {{}}}}
alone: {{methods: [alone], depths: [], unpruned: [alone]}}
prunable: pruned
plain: alone
baseline: alone
"""
NUMBERS = (
    "batch.max_frames=1500 train.log_every_steps=3 train.checkpoint_every_s=0.001 prune.svcca_frames=400 bench.utterances=2"
)
WAYS = ("killed at a point", "killed", "SIGTERM", "disk full at a point", "read-only at a point", "files limited", "damaged")
FAULTS = ("cannot go on", "other results", "looks done", "orphans", "temporaries")
for module in pkgutil.walk_packages(asrprune.__path__, "asrprune."):  # before the first fork
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
gc.freeze()  # a fork that collects garbage would copy all memory


@dataclass
class Step:
    """A stage of the recipe or another command, and the folder before and after it."""

    name: str
    run: Callable[[], int]
    looks_done: Callable[[], bool]
    before: Path
    after: Path
    points: int = 0
    seconds: float = 0.0
    products: list[str] = field(default_factory=list)

    @property
    def redone(self) -> bool:
        """Whether the step makes its output again where it is lost; `prune` refuses, `fix-data` has replaced its input."""
        return bool(self.products) and self.name in STAGES.split()


class Harness:
    """The recipe in ``folder``/work, with copies of it from before and after each stage."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.work, self.counter = folder, folder / "work", folder / "points"
        self.output = folder / "output"
        self.recipe = self.work / "egs/mini"
        ignored = shutil.ignore_patterns("data", "exp", ".remembered")
        for name in ("common", "mini"):
            shutil.copytree(ROOT / "egs" / name, self.work / "egs" / name, ignore=ignored)
        self._write_corpus()
        self.words = self._stage_words()

    def _write_corpus(self) -> None:
        path = self.recipe / "conf/corpus_tiny.yaml"
        head, _, tail = path.read_text().partition("accents:")
        sets = "".join(
            f"  {name}: {{utterances: {count}, female: {women}, male: {men}}}\n" for name, (count, women, men) in CORPUS.items()
        )
        rest = tail.partition("words_per_minute:")[2].replace("babble_voices: 5", "babble_voices: 2")
        path.write_text(f"{head}accents: [en-US]\nsets:\n{sets}words_per_minute:{rest}")

    def _stage_words(self) -> list[str]:
        """Return the arguments with which run.sh calls `asrprune stage`."""
        stub = self.folder / "bin" / "asrprune"
        stub.parent.mkdir()
        note = f'if [ "$1" = stage ]; then printf "%s\\0" "$@" > {self.folder}/words; exit; fi'
        stub.write_text(f'#!/usr/bin/env bash\n{note}\nexec {sys.executable} -m asrprune.cli "$@"\n')
        stub.chmod(0o755)
        os.environ["PATH"] = f"{stub.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        options = " ".join(f"--set {number}" for number in NUMBERS.split())
        tiny = ["--config", "conf/tiny.yaml", "--local_opts", "--config conf/corpus_tiny.yaml", "--config_opts", options]
        subprocess.run([self.recipe / "run.sh", "--nj", "1", *tiny], check=True)
        return (self.folder / "words").read_text().split("\0")[:-1]

    # -- processes -----------------------------------------------------------------------------------------------------

    def stage(self, number: int) -> int:
        """Run a stage; call this in a fork. Its asrprune commands are forks, too, the others are processes."""
        asrprune.recipe.run.run_command = lambda command, log: (
            forked(lambda: command_line(["asrprune", "--log", str(log), *command[1:]]))
            if command[0] == "asrprune"
            else run_command(command, log)
        )
        asrprune.recipe.installation.check_installation = lambda *_: None
        at = self.words.index("--first")
        words = [*self.words[: at + 1], str(number), "--last", str(number), *self.words[at + 4 :]]
        return command_line(["asrprune", *words])

    def start(self, work: Callable[[], int], at: int = 0, error: int = 0, limit: int | None = None) -> int:
        """Start ``work`` in a fork that leads a group of processes; return its id."""
        self.counter.unlink(missing_ok=True)
        if pid := os.fork():
            return pid
        try:
            os.setsid()
            os.chdir(self.recipe)
            with open(self.output, "ab", buffering=0) as output:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
            points.install(self.work, self.counter, at, error)
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            os._exit(work())
        except BaseException:
            traceback.print_exc()
            os._exit(99)

    def run(self, step: Step, **options: int) -> int:
        """Run a step to its end; return its status."""
        return os.waitpid(self.start(step.run, **options), 0)[1]

    def restore(self, copy: Path) -> None:
        """Make the working folder what it was."""
        shutil.rmtree(self.work)
        shutil.copytree(copy, self.work, symlinks=True)

    # -- the undisturbed run -------------------------------------------------------------------------------------------

    def steps(self, wanted: Sequence[str]) -> list[Step]:
        """Run everything once, undisturbed, and keep a copy after each step."""
        made, before = list[Step](), self.folder / "start"
        shutil.copytree(self.work, before)
        for number, name in enumerate(STAGES.split()):
            home = self.recipe / ("data" if number < 3 else "exp/tiny")
            mark = home / ".done" / str(number)
            made.append(self._keep(name, lambda number=number: self.stage(number), mark.exists, before))  # type: ignore[misc]
            before = made[-1].after
        for place, (name, words) in enumerate(COMMANDS.items()):
            if wanted and not {*wanted}.intersection([*COMMANDS][place:]):
                break
            there = self.recipe / words.split()[-1]
            looks_done = there.exists if name == "prune" else lambda: False
            made.append(self._keep(name, lambda words=words: command_line(["asrprune", *words.split()]), looks_done, before))  # type: ignore[misc]
            before = made[-1].after
        if not wanted or "compare" in wanted:
            made.append(self._compare())
        broken = self.recipe / "data/test"
        for name in ("text", "utt2spk", "segments", "wav.scp"):
            lines = (broken / name).read_text().splitlines()
            (broken / name).write_text("\n".join(reversed(lines)) + "\n")
        shutil.copytree(self.work, self.folder / "broken")
        fix = lambda: command_line(["asrprune", "fix-data", str(broken)])  # noqa: E731
        made.append(self._keep("fix-data", fix, lambda: False, self.folder / "broken"))
        return [step for step in made if not wanted or step.name in wanted]

    def _compare(self) -> Step:
        """Compare two copies of the experiment."""
        (self.recipe / "run.sh").write_text("#!/bin/sh\n")
        (self.recipe / "grid.yaml").write_text(GRID.format(NUMBERS.replace("=", ": ").replace(" ", ", ").replace(":,", ":")))
        for name in ("pruned_4l_s1", "alone_4l_s1"):
            shutil.copytree(self.folder / "report/egs/mini/exp/tiny", self.recipe / "exp/grid" / name)
        before = Path(shutil.copytree(self.work, self.folder / "before_compare"))
        compare = lambda: command_line(["asrprune", "compare", "grid.yaml"])  # noqa: E731
        return self._keep("compare", compare, lambda: False, before)

    def _keep(self, name: str, run: Callable[[], int], looks_done: Callable[[], bool], before: Path) -> Step:
        step = Step(name, run, looks_done, before, self.folder / name)
        started = time.monotonic()
        if self.run(step):
            sys.exit(f"{name} failed undisturbed:\n{self.output.read_text(errors='replace')[-3000:]}")
        step.seconds = time.monotonic() - started
        step.points = self.counter.stat().st_size if self.counter.exists() else 0
        new = [
            path for path in contents.differences(self.work, before) if (self.work / path).exists() and "/.done/" not in path
        ]
        step.products = [path for path in new if Path(path).name not in ONCE and "/epoch" not in path]
        if name == "data":  # people may change it, so of it only absence counts
            step.products = [path for path in step.products if Path(path).name in EDITABLE]
        shutil.copytree(self.work, step.after)
        return step

    # -- a fault -------------------------------------------------------------------------------------------------------

    def fault(self, step: Step, way: str, at: int, rng: random.Random) -> list[str]:
        """Disturb a step, at a point or by chance, run it again, and return what went wrong."""
        self.restore(step.after if way == "damaged" else step.before)
        if way == "damaged":
            self._damage(self.work / rng.choice(step.products), rng)
        elif way == "killed at a point":
            self._end(self.start(step.run, at))
            if self.counter.stat().st_size < at:
                return [*FAULTS[:1], f"point {at} was not reached"]
        elif way in ("disk full at a point", "read-only at a point"):
            self._end(self.start(step.run, at, errno.ENOSPC if "full" in way else errno.EROFS))
        elif way == "files limited":
            self._end(self.start(step.run, limit=int(10 ** rng.uniform(1, 6))))
        else:
            pid = self.start(step.run)
            time.sleep(rng.uniform(0, step.seconds))
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL if way == "killed" else signal.SIGTERM)
            self._end(pid)
        wrong = ["orphans"] if self.orphans else []
        done = way != "damaged" and step.looks_done()
        if done and self._differs(step.after):
            wrong.append("looks done")
        if not (done and step.name == "prune") and self.run(step):  # prune refuses to write what is there
            wrong.append("cannot go on")
        elif self._differs(step.after):
            wrong.append("other results")
        if contents.temporaries(self.work):
            wrong.append("temporaries")
        return wrong

    def _end(self, pid: int) -> None:
        """Wait for a process, then see whether others of its group go on."""
        os.waitpid(pid, 0)
        self.orphans, until = True, time.monotonic() + 10  # the processes that read features look every 5 s
        while self.orphans and time.monotonic() < until:
            try:
                os.killpg(pid, 0)
                time.sleep(0.02)
            except ProcessLookupError:
                self.orphans = False
        if self.orphans:
            os.killpg(pid, signal.SIGKILL)

    def _differs(self, after: Path) -> bool:
        if names := contents.differences(self.work, after):
            self._note(f"different: {', '.join(names[:9])}")
        return bool(names)

    def _damage(self, path: Path, rng: random.Random) -> None:
        ways = ["removed", "emptied", "cut", "flipped"]
        content, how = bytearray(path.read_bytes()), "removed" if path.name in EDITABLE else rng.choice(ways)
        self.orphans = False
        self._note(f"{path}: {how}")
        if how == "removed":
            return path.unlink()
        if how == "flipped" and content:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        else:
            del content[0 if how == "emptied" else len(content) // 2 :]
        path.write_bytes(content)
        return None

    def _note(self, text: str) -> None:
        with open(self.output, "a") as output:
            output.write(f"-- {text}\n")

    def table(self, steps: Sequence[Step], count: int | None, seed: int) -> Counter[str]:
        """Disturb every step ``count`` times; print a line for each; return the numbers of what went wrong.

        Without a count every step is killed once at each of its points.
        """
        total: Counter[str] = Counter()
        print(f"{'step':<10}{'faults':>8}" + "".join(f"{name:>15}" for name in FAULTS), flush=True)
        for step in steps:
            rng, wrong = random.Random(f"{seed} {step.name}"), Counter[str]()
            allowed = os.environ.get("WAYS", ",".join(WAYS)).split(",")
            ways = WAYS[:1] if count is None else [way for way in allowed if step.redone or way != "damaged"]
            tried = step.points if count is None else count
            for number in range(tried):
                way = ways[number % len(ways)]
                self._note(f"{step.name} {number}: {way}")
                at = number + 1 if count is None else rng.randint(1, max(1, step.points))
                if found := self.fault(step, way, at, rng):
                    print(f"    {step.name} {number}, {way}: {', '.join(found)}", flush=True)
                    self._note(", ".join(found))
                wrong.update(found)
            print(f"{step.name:<10}{tried:>8}" + "".join(f"{wrong[name]:>15}" for name in FAULTS), flush=True)
            total += wrong
        return total


def command_line(words: list[str]) -> int:
    """Run the command line; return its exit status."""
    sys.argv = words
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def forked(work: Callable[[], int]) -> int:
    """Run ``work`` in a fork; return its exit status as a shell would."""
    with deferred():
        pid = os.fork()
        if not pid:
            try:
                os._exit(work())
            except BaseException:
                traceback.print_exc()
                os._exit(99)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return 128 - status if status < 0 else status


if __name__ == "__main__":
    target, number, *names = sys.argv[1:]
    harness = Harness(Path(target).resolve())
    count = None if number == "every" else int(number)
    sys.exit(bool(harness.table(harness.steps(names), count, seed=int(os.environ.get("SEED", "1")))))
