"""The commands: paths on the command line, numbers in YAML. A thin layer; heavy imports are inside, so --help is instant."""

import contextlib
import errno
import json
import logging
import os
import re
import shlex
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from asrprune.runtime.errors import UserError
from asrprune.runtime.progress import is_first

if TYPE_CHECKING:
    from rich.table import Table

    from asrprune.experiment.store import Experiment
    from asrprune.runtime.executor import Executor

_log_only = logging.getLogger("asrprune.log_only")  # to the log file alone: the screen gets it in another form
_log_only.addHandler(logging.NullHandler())


class _LogFile(logging.FileHandler):
    """The log file; that it cannot be written is an error like any other."""

    def handleError(self, record: logging.LogRecord) -> NoReturn:
        """Let the exception out, where logging would print its traceback and go on."""
        raise


class _Commands(TyperGroup):
    """All commands; whatever one of them raises becomes one sentence on stderr and an exit code."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]  # click's Context in old typers
        """Run what the command line asks for."""
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # a stopped job cleans up as an interrupted one does
        if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # as one whose terminal is gone; nohup ignores it
            signal.signal(signal.SIGHUP, signal.default_int_handler)
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            _fail(ctx, "interrupted; nothing is half-written, run the same command again", 130)
        except Exception as error:
            if type(error).__module__.startswith(("click", "typer")):  # wrong usage, which typer explains
                raise
            if sentence := _users_part(error):
                _fail(ctx, sentence, 1)
            _fail(ctx, _our_part(error, ctx.params.get("log")), 70)


app = typer.Typer(
    cls=_Commands,
    name="asrprune",
    help="Train a speech recogniser once, run it at any depth.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

DataDir = Annotated[Path, typer.Argument(help="Kaldi data directory")]
ConfigFile = Annotated[Path, typer.Option("--config", help="YAML file with all numbers")]
Overrides = Annotated[list[str], typer.Option("--set", help="section.key=value, wins over --config; may be repeated")]
ExpDir = Annotated[Path, typer.Option("--exp", help="experiment directory")]
AllowPipes = Annotated[bool, typer.Option("--allow-pipes", help="run `cmd |` entries of wav.scp (arbitrary shell)")]
Jobs = Annotated[int, typer.Option("--nj", min=1, help="processes, or jobs")]
Where = Annotated[str, typer.Option("--executor", help="local: processes of this machine, slurm: jobs of a cluster")]
Sbatch = Annotated[str, typer.Option("--sbatch", help='options for these, as sbatch has them: "--partition=gpu --time=60"')]
Gpus = Annotated[int, typer.Option("--ngpu", min=0, help="1: the GPU, 0: the CPU")]
Depth = Annotated[int | None, typer.Option("--depth", min=1, help="layers to run, chosen by --plan")]
Layers = Annotated[str | None, typer.Option("--layers", help="exactly these layers, e.g. 1,2,5,9")]
GridOutput = Annotated[
    Path | None, typer.Option("--output", help="directory of a grid's records, tables and figures; default: its file's name")
]
PlanName = Annotated[
    str | None, typer.Option("--plan", help="a strategy (exp/.../plans/NAME.json), or a plan file; default: greedy")
]


@app.callback()
def _options(
    log: Annotated[Path | None, typer.Option("--log", help="append the log to this file, too")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="results, warnings and errors only")] = False,
) -> None:
    screen = logging.StreamHandler()
    screen.addFilter(lambda record: record.name != _log_only.name)
    handlers: list[logging.Handler] = [screen]
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(_LogFile(log, encoding="utf-8"))
    told = logging.INFO if is_first() else logging.ERROR  # of several processes one speaks
    level = max(told, logging.WARNING) if quiet else told
    logging.basicConfig(
        level=level, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S", handlers=handlers, force=True
    )
    _log_only.setLevel(told)
    _log_only.info("$ %s", shlex.join(["asrprune", *sys.argv[1:]]))
    for noisy in ("lightning_fabric", "lightning", "matplotlib", "fontTools", "PIL"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


# -- data ------------------------------------------------------------------------------------------------------------


@app.command("check-data")
def check_data(
    directories: Annotated[list[Path], typer.Argument(help="Kaldi data directories")],
    audio: Annotated[bool, typer.Option("--audio/--no-audio", help="open every recording, too")] = True,
    allow_pipes: AllowPipes = False,
) -> None:
    """Check data directories. Every fault is printed as file:line: id: what is wrong; how to fix it."""
    from asrprune.data.check import check_data_dir

    faults = [fault for directory in directories for fault in check_data_dir(directory, audio, allow_pipes)]
    if faults:
        raise UserError("\n".join(faults))
    _say(f"{', '.join(map(str, directories))}: no faults")


@app.command("fix-data")
def fix_data(directory: DataDir) -> None:
    """Sort a data directory and drop what is broken. The files as they were stay in .backup/."""
    from asrprune.data.fix import fix_data_dir

    for sentence in fix_data_dir(directory):
        _say(sentence)


@app.command()
def perturb(
    source: DataDir,
    target: Annotated[Path, typer.Argument(help="data directory to write")],
    config: ConfigFile,
    search: Annotated[bool, typer.Option("--search", help="at each of prune.speeds instead")] = False,
    set_: Overrides = [],  # noqa: B006
) -> None:
    """Copy a data directory at each of augment.speeds."""
    from asrprune.config.load import read_config
    from asrprune.data.kaldi import read_data_dir, speed_copies, write_data_dir

    numbers = read_config(config, set_)
    copies = speed_copies(read_data_dir(source), numbers.prune.speeds if search else numbers.augment.speeds)
    write_data_dir(target, copies)
    _say(f"{target}: {len(copies)} utterances")


@app.command()
def fbank(
    directories: Annotated[list[Path], typer.Argument(help="Kaldi data directories")],
    config: ConfigFile,
    cmvn: Annotated[Path | None, typer.Option("--cmvn", help="write CMVN statistics of the first directory here")] = None,
    executor: Where = "local",
    nj: Jobs = 1,
    sbatch: Sbatch = "",
    allow_pipes: AllowPipes = False,
    set_: Overrides = [],  # noqa: B006
) -> None:
    """Compute features and CMVN statistics. What is there already is kept."""
    from asrprune.config.load import read_config
    from asrprune.data import extract as features

    options = read_config(config, set_).frontend
    with _executor(executor, nj, sbatch, directories[0].parent) as workers:
        for directory in directories:
            computed = features.extract(directory, options, workers, allow_pipes)
            _say(f"{directory}: {computed} archives computed" if computed else f"{directory}: features were there")
    if cmvn is not None:
        features.write_cmvn(cmvn, features.compute_cmvn(directories[0]))


@app.command()
def bpe(
    directory: DataDir,
    output: Annotated[Path, typer.Argument(help="directory for bpe.model and tokens.txt")],
    config: ConfigFile,
    set_: Overrides = [],  # noqa: B006
) -> None:
    """Train text units on the transcripts of a data directory."""
    from asrprune.config.load import read_config
    from asrprune.data.tables import read_table
    from asrprune.data.tokenizer import train_tokenizer

    texts = list(read_table(directory / "text").values())
    tokenizer = train_tokenizer(texts, read_config(config, set_).tokenizer, output)
    _say(f"{output}: {len(tokenizer)} text units, the blank included")


# -- training --------------------------------------------------------------------------------------------------------


@app.command()
def train(
    config: ConfigFile,
    exp: ExpDir,
    train_dir: Annotated[Path, typer.Option("--train", help="training data directory, with features")],
    dev_dir: Annotated[Path, typer.Option("--dev", help="development data directory, with features")],
    bpe_model: Annotated[Path, typer.Option("--bpe", help="bpe.model")],
    cmvn: Annotated[Path, typer.Option("--cmvn", help="CMVN statistics")],
    ngpu: Annotated[int, typer.Option("--ngpu", min=0, help="GPUs of each machine, a process each; 0: the CPU")] = 0,
    nproc: Annotated[int, typer.Option("--nproc", min=1, help="on the CPU: processes of each machine")] = 1,
    num_nodes: Annotated[int, typer.Option("--num-nodes", min=1, help="machines; start this command on each")] = 1,
    set_: Overrides = [],  # noqa: B006
) -> None:
    """Train a model, or go on with a run that was killed."""
    from asrprune.config.load import read_config
    from asrprune.train.start import train as run

    run(read_config(config, set_), exp, train_dir, dev_dir, bpe_model, cmvn, ngpu, nproc, num_nodes)


@app.command()
def average(
    exp: ExpDir,
    count: Annotated[int | None, typer.Option("--count", min=1, help="best epochs to average; default: train.average")] = None,
) -> None:
    """Average the best epochs into model.safetensors."""
    from asrprune.train.average import average_best

    for member in average_best(exp, count):
        _say(f"epoch {member['epoch']}: dev WER {member['wer']:.2f} %")
    _say(f"{exp / 'model.safetensors'}")


# -- layers ----------------------------------------------------------------------------------------------------------


@app.command()
def svcca(
    exp: ExpDir, data: Annotated[Path, typer.Option("--data", help="dev directory, with features")], ngpu: Gpus = 0
) -> None:
    """Measure how similar the layers are. Writes svcca/SET.npz and a heat map."""
    from asrprune.analysis.measure import measure_layers
    from asrprune.report.plots import draw_svcca

    path = measure_layers(_load(exp, ngpu), data)
    _say(f"{path}\n{draw_svcca(path)}")


@app.command()
def search(
    exp: ExpDir,
    dev: Annotated[Path, typer.Option("--dev", help="dev directory, with features: never a test set")],
    strategy: Annotated[
        list[str] | None, typer.Option("--strategy", help="top, every, greedy or svcca; default: prune.strategies")
    ] = None,
    objective: Annotated[str | None, typer.Option("--objective", help="wer or ctc; default: prune.metric")] = None,
    beam: Annotated[int | None, typer.Option("--beam", min=1, help="width of the greedy search; default: prune.beam")] = None,
    rerank: Annotated[
        int | None,
        typer.Option("--rerank", min=1, help="so many of svcca's proposals the dev set ranks; default: prune.rerank"),
    ] = None,
    executor: Where = "local",
    nj: Jobs = 1,
    sbatch: Sbatch = "",
    ngpu: Gpus = 0,
) -> None:
    """Find the layers to remove. Writes plans/STRATEGY.json."""
    from asrprune.config.load import check
    from asrprune.config.schema import PruneConfig
    from asrprune.experiment.plan import plan_path
    from asrprune.prune.propose import propose, read_similarity

    workers, experiment = _executor(executor, nj, sbatch, exp, ngpu), _load(exp)
    asked = {"strategies": strategy, "metric": objective, "beam": beam, "rerank": rerank}
    given = {key: value for key, value in asked.items() if value}
    options = check(PruneConfig, {**experiment.config.prune.model_dump(), **given}, "asrprune search")
    if "svcca" in options.strategies:
        read_similarity(experiment, dev.name)  # now, not after hours of greedy search
    with workers:
        for name in options.strategies:
            plan = propose(experiment, name, dev, options, workers)
            for step in plan.steps:
                score = "" if step.score is None else f", dev {plan.metric} {step.score:.2f}"
                _say(f"{name}: depth {step.depth}: {','.join(map(str, step.keep))}{score}")
            _say(f"{plan_path(exp, name)}")


@app.command()
def prune(
    exp: ExpDir,
    output: Annotated[Path, typer.Argument(help="experiment directory to write")],
    depth: Depth = None,
    layers: Layers = None,
    plan: PlanName = None,
) -> None:
    """Write a standalone experiment of the kept layers."""
    from asrprune.prune import surgery

    experiment = _load(exp)
    keep = _keep(experiment, depth, layers, plan)
    surgery.prune(experiment, keep, output)
    _say(f"{output}: layers {','.join(map(str, keep))} of {exp}")


# -- decoding --------------------------------------------------------------------------------------------------------


@app.command()
def decode(
    exp: ExpDir,
    directories: Annotated[list[Path], typer.Argument(help="data directories, with features")],
    strategy: Annotated[list[str] | None, typer.Option("--strategy", help="plans to decode; default: prune.strategies")] = None,
    depth: Annotated[list[int] | None, typer.Option("--depth", help="depths to decode; default: prune.depths")] = None,
    layers: Layers = None,
    executor: Where = "local",
    nj: Jobs = 1,
    sbatch: Sbatch = "",
    ngpu: Gpus = 0,
) -> None:
    """Decode sets at every depth of every plan. Writes decode/SET/STRATEGY_dDEPTH/text."""
    from asrprune.decode.sweep import SubModel, decode_set, sub_models
    from asrprune.experiment.plan import parse_layers
    from asrprune.prune.find import find_plan

    if layers is not None and (strategy or depth):
        raise UserError("give either --layers, or --strategy and --depth")
    workers, experiment = _executor(executor, nj, sbatch, exp, ngpu), _load(exp)
    if layers is not None:
        wanted = [SubModel("layers_" + layers.replace(",", "_"), parse_layers(layers, experiment.num_layers))]
    else:
        plans = [find_plan(experiment, name) for name in strategy or experiment.config.prune.strategies]
        wanted = sub_models(plans, depth or experiment.config.depths())
    with workers:
        for directory in directories:
            for output in decode_set(experiment, directory, wanted, workers):
                _say(str(output))


@app.command()
def score(
    exp: ExpDir,
    directories: Annotated[list[Path], typer.Argument(help="data directories that were decoded")],
) -> None:
    """Score what is decoded, as sclite does. Writes score.json and result.txt beside each text."""
    from asrprune.data.tables import open_table
    from asrprune.scoring.sclite import write_score

    for directory in directories:
        references, speakers = open_table(directory / "text"), open_table(directory / "utt2spk")
        decoded = sorted((exp / "decode" / directory.name).glob("*/decode.json"))
        if not decoded:
            raise UserError(f"{exp}: nothing is decoded of {directory.name}; stage 8 (`asrprune decode`) does it")
        for record in decoded:
            hypotheses = open_table(record.parent / "text", allow_empty=True)
            result = write_score(record.parent, references, hypotheses, speakers)
            low, high = result.wer_ci95
            _say(f"{record.parent}: WER {result.wer:.2f} % ({low:.2f} to {high:.2f})")


@app.command()
def bench(
    exp: ExpDir,
    data: Annotated[Path, typer.Option("--data", help="data directory whose audio is timed")],
    allow_pipes: AllowPipes = False,
    ngpu: Gpus = 0,
) -> None:
    """Measure real-time factors by depth. Writes bench.json."""
    from asrprune.decode import benchmark

    experiment = _load(exp, ngpu)
    _say(str(benchmark.bench(experiment, data, benchmark.keeps_of(experiment), allow_pipes)))


@app.command()
def report(
    exp: Annotated[Path | None, typer.Option("--exp", help="experiment directory")] = None,
    copy_to: Annotated[Path | None, typer.Option("--copy-to", help="also put RESULTS.md and figures/ here")] = None,
    grid_file: Annotated[Path | None, typer.Option("--grid", help="instead, compare what is recorded of this grid")] = None,
    output: GridOutput = None,
) -> None:
    """Write the report of an experiment, or of a grid of them. Makes the tables, the figures and one file of all numbers."""
    from asrprune.report.build import copy_report, write_report
    from asrprune.report.tables import screen_table
    from asrprune.runtime.files import read_json

    if (exp is None) == (grid_file is None):
        raise UserError("name either an experiment, --exp DIR, or a grid, --grid FILE")
    if exp is None:
        assert grid_file is not None
        if copy_to is not None:
            raise UserError("--copy-to goes with --exp; the comparison of a grid is written to --output")
        _compare(grid_file, output or Path(grid_file.stem))
        return
    if output is not None:
        raise UserError("--output goes with --grid; the report of an experiment is written into it, and --copy-to copies it")
    path = write_report(exp)
    if copy_to is not None:
        copy_report(exp, copy_to)
    _show(screen_table(read_json(exp / "results.json")))
    _say(f"report: {path.resolve()}")


@app.command()
def grid(
    grid_file: Annotated[Path, typer.Argument(help="methods, depths and seeds, e.g. conf/paper.yaml")],
    options: Annotated[list[str] | None, typer.Argument(help="after --, passed on to run.sh")] = None,
    output: GridOutput = None,
    expdir: Annotated[
        Path | None, typer.Option("--expdir", help="directory of the experiments; default: exp/ and the grid file's name")
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="runs at a time; they share the cores and the GPUs")] = 1,
) -> None:
    """Run a grid of models in a recipe's directory and compare them. What is recorded is not run again."""
    from asrprune.compare.run import run_grid

    output = output or Path(grid_file.stem)
    run_grid(grid_file, output, expdir or Path("exp") / grid_file.stem, jobs, options or [])
    _compare(grid_file, output)


def _compare(grid_file: Path, output: Path) -> None:
    from asrprune.compare.build import write_comparison
    from asrprune.compare.tables import screen_table

    for table in write_comparison(grid_file, output):
        _show(screen_table(table))
    _say(f"report: {(output / 'RESULTS.md').resolve()}")


@app.command()
def transcribe(
    files: Annotated[list[Path], typer.Argument(help="audio files: wav, flac, SPHERE")],
    exp: ExpDir,
    depth: Depth = None,
    layers: Layers = None,
    plan: Annotated[
        str | None, typer.Option("--plan", help="a strategy or a plan file; default: greedy's if it was made")
    ] = None,
    words: Annotated[bool, typer.Option("--words", help="JSON lines with start, end and confidence of each word")] = False,
    ngpu: Gpus = 0,
) -> None:
    """Transcribe audio files at any depth."""
    from dataclasses import asdict

    from asrprune.experiment.plan import parse_layers
    from asrprune.recognizer import Recognizer
    from asrprune.runtime.hardware import pick_device

    if plan is not None and depth is None:
        raise UserError("--plan says which layers a depth has; give --depth, too")
    recognizer = Recognizer.load(exp, plan, str(pick_device(ngpu)))
    keep = None if layers is None else parse_layers(layers, recognizer.experiment.num_layers)
    for file in files:
        hypothesis = recognizer.transcribe(file, depth, keep)
        _say(
            json.dumps({"file": str(file), **asdict(hypothesis)}, ensure_ascii=False)
            if words
            else f"{file} {hypothesis.text}".rstrip()
        )


@app.command()
def doctor(ngpu: Gpus = 0) -> None:
    """Say what is missing here, and the command that installs it."""
    from asrprune.runtime.doctor import diagnose, doctor_ok, format_report

    checks = diagnose()
    _say(format_report(checks))
    if not doctor_ok(checks):
        raise typer.Exit(1)
    if ngpu:
        from asrprune.runtime.hardware import check_gpus  # needs torch, which may have been missing until here

        check_gpus(ngpu)


def _executor(name: str, num_jobs: int, sbatch: str, home: Path, num_gpus: int = 0) -> "Executor":
    from asrprune.runtime.choose import choose

    return choose(name, num_jobs, num_gpus, sbatch, home / "log" / "slurm")


def _load(exp: Path, num_gpus: int = 0) -> "Experiment":
    from asrprune.experiment.store import load
    from asrprune.runtime.hardware import pick_device

    return load(exp, pick_device(num_gpus))


def _keep(experiment: "Experiment", depth: int | None, layers: str | None, plan: str | None) -> tuple[int, ...]:
    from asrprune.experiment.plan import parse_layers
    from asrprune.prune.find import find_plan

    if (depth is None) == (layers is None):
        raise UserError("give either --depth N or --layers 1,2,5,9")
    if layers is not None:
        if plan is not None:
            raise UserError("--layers says which layers are kept; --plan goes with --depth")
        return parse_layers(layers, experiment.num_layers)
    assert depth is not None
    return find_plan(experiment, plan or "greedy").keep(depth)


def _show(table: "Table") -> None:
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _say(text: str) -> None:
    """What a command came to, on stdout and in the log."""
    typer.echo(text)
    _log_only.info("%s", text)


# -- errors ----------------------------------------------------------------------------------------------------------

_DISK_FIXES = {
    errno.ENOSPC: "free some disk space",
    errno.EDQUOT: "free some of your disk quota",
    errno.EFBIG: "raise the limit on the size of files, `ulimit -f`",
}
_OS_FIXES = {
    **_DISK_FIXES,
    errno.EACCES: "choose a directory that you may write to",
    errno.EPERM: "choose a directory that you may write to",
    errno.EROFS: "choose a directory that can be written",
    errno.ENOTDIR: "a part of the path is a file; choose another path",
    errno.EEXIST: "a file is in the place of a directory; choose another path",
    errno.EISDIR: "this is a directory, a file is needed here",
}
_KNOWN = (  # what libraries say in their own way
    (
        r"OutOfMemoryError|MemoryError|can't allocate memory",
        "out of memory; lower batch.max_frames (training) or decode.max_frames",
    ),
    (
        r"BrokenProcessPool|DataLoader worker .* (killed|exited)",
        "a worker process was killed, perhaps for lack of memory; lower --nj, or set train.num_workers=0",
    ),
    (
        r"No space left|Disk quota|File too large|PytorchStreamWriter failed writing",
        "a file cannot be written; free some disk space or quota",
    ),
)
_FROM_WORKER = re.compile(r"Caught \w+ in DataLoader worker.*^[\w.]*UserError: ", re.DOTALL | re.MULTILINE)


def _users_part(error: Exception) -> str | None:
    """What the user can do about an exception; None: nothing, it is our own mistake."""
    if isinstance(error, UserError):
        return _FROM_WORKER.sub("", str(error)).rstrip()  # torch hands a worker's whole traceback on as the message
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in (_OS_FIXES if cause is error else _DISK_FIXES):
            where = f"{cause.filename}: " if cause.filename else ""
            return f"{where}{os.strerror(cause.errno).lower()}; {_OS_FIXES[cause.errno]}, then run the command again"
        cause = cause.__cause__ or cause.__context__  # torch.save stumbles over what a full disk left
    said = f"{type(error).__name__}: {error}"
    fixes = (sentence for form, sentence in _KNOWN if re.search(form, said))
    return next((f"{sentence}, then run the command again ({said.splitlines()[0]})" for sentence in fixes), None)


def _our_part(error: Exception, log: Path | None) -> str:
    """A mistake of ours keeps its traceback, in the log if there is one."""
    if log:
        _log_only.error("".join(traceback.format_exception(error)))
    else:
        traceback.print_exception(error)
    where = f"in {log}" if log else "above"
    return f"{type(error).__name__}: {error}; a mistake of asrprune's, not yours: please report it, the traceback is {where}"


def _fail(ctx: typer.Context, message: str, code: int) -> NoReturn:
    """One sentence, or a heading and a sentence a line, on stderr and in the log."""
    between = "\n" if "\n" in message else " "
    print(f"asrprune {ctx.invoked_subcommand}: error:{between}{message}", file=sys.stderr)
    with contextlib.suppress(OSError):  # a full disk has been told already
        _log_only.error("%s", message)
    sys.exit(code)


def main() -> None:
    """Run the command of the command line."""
    app()


if __name__ == "__main__":
    main()
