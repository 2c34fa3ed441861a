"""Collect the files of an experiment into `results.json`, the only source of tables and figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from asrprune.analysis.matrices import read_matrices
from asrprune.config.load import RecordedConfig
from asrprune.data.tables import open_table, sha256_of_rows
from asrprune.decode.benchmark import Bench, Timed
from asrprune.decode.decoder import without_precision
from asrprune.decode.sweep import Decoded
from asrprune.experiment.paths import ExperimentPaths
from asrprune.experiment.plan import Keep, Plan, Search, StrategyLabel, file_of
from asrprune.experiment.store import Epoch, ModelRecord, read_experiment_config, read_model_record
from asrprune.prune.strategies.table import rank
from asrprune.runtime.errors import UserError
from asrprune.runtime.hardware import Environment, environment
from asrprune.runtime.records import Record
from asrprune.scoring.wer import Score
from asrprune.train.journal import read_journal

LogLine = dict[str, Any]
_OPTIONAL = (
    ("svcca/*.npz", "similarity of the layers", "stage 6 (`asrprune svcca`)"),
    ("plans/*.json", "layers kept at each depth and cost of the search", Plan.made_by),
    ("bench.json", "real-time factors and speed-ups", Bench.made_by),
)

_DTYPES = {"float32": "float32", "bf16": "bfloat16"}  # of decode.precision; auto depends on the machine


class SetData(Record):
    """A decoded set, and whether letter case was ignored when it was scored."""

    utterances: int
    hours: float
    text_sha256: str
    ignore_case: bool = False


class Row(Record):
    """A sub-model on a set: rates in percent, real-time factor in seconds of computing per second of audio."""

    set: str
    strategy: StrategyLabel
    depth: int
    keep: Keep
    params_m: float
    wer: float
    wer_ci95: tuple[float, float]
    cer: float
    sub: int
    del_: int = Field(alias="del")
    ins: int
    ref_words: int
    rtf: float | None
    decoder: str
    speedup: float | None  # RTF of the full model / RTF of this row
    model_sha256: str
    utterances: int


class Training(Record):
    """A training run; ``best_dev_wer`` is of the full model."""

    epochs: int
    steps: int
    best_dev_wer: float
    best_epoch: int
    seconds: float
    precision: str | None = None  # float32, bf16, or both if it went on on another machine; earlier versions did not log it


class Results(Record):
    """The content of results.json."""

    made_by: ClassVar[str] = "stage 11 (`asrprune report`)"
    format: Literal[1]
    exp: str
    environment: Environment
    data: dict[str, SetData]
    rows: tuple[Row, ...]
    model: ModelRecord
    training: Training | None
    search: dict[StrategyLabel, Search]
    bench: Bench | None
    config: RecordedConfig
    missing: tuple[str, ...]  # a sentence for each part that is left out or old

    def in_units(self, text: str) -> str:
        """Replace words and WER in ``text`` by the unit that was counted."""
        return self.config.scoring.in_units(text)


def collect(exp: Path) -> Results:
    """Collect the content of the report of the experiment directory ``exp``.

    Raises:
        UserError: nothing is decoded or scored, a necessary file is missing, or two files disagree.
    """
    config = read_experiment_config(exp)
    decodes = sorted(exp.glob("decode/*/*/decode.json"))
    if not decodes:
        raise UserError(f"{exp}/decode: nothing is decoded yet, so there is nothing to report; run stage 8 (`asrprune decode`)")
    model = read_model_record(exp, config)
    plans, old_plans = _read_plans(exp, model.model_sha256)
    usable, old_decodes = _usable(decodes, model.model_sha256, plans)
    bench, old_bench = _read_bench(ExperimentPaths(exp).bench, model.model_sha256)
    untimed = _untimed(usable, bench)
    training, unlogged = _training(ExperimentPaths(exp).log, config.train.epochs, model.members)
    _, old_matrices = similarities(exp, model.model_sha256)
    return Results(
        format=1, exp=_title(exp.resolve()), environment=environment(), data=_data(usable),
        rows=_rows(usable, bench, model.num_layers), model=model.model_copy(update={"config": None}),
        training=training, search=plans, bench=bench, config=config,
        missing=(*unlogged, *_missing(exp), *old_decodes, *old_plans, *old_bench, *untimed, *old_matrices, *_edited(usable)),
    )  # fmt: skip


def read_log(path: Path) -> tuple[list[LogLine], list[LogLine]]:
    """Return the lines of steps and the lines of epochs of a ``train.jsonl``, in order."""
    lines = read_journal(path)
    return [line for line in lines if line["kind"] == "step"], [line for line in lines if line["kind"] == "epoch"]


def similarities(exp: Path, model_sha256: str) -> tuple[list[Path], list[str]]:
    """Return the ``svcca/<set>.npz`` files of this model, and a sentence about each file of another model."""
    current, old = [], []
    for path in sorted(exp.glob("svcca/*.npz")):
        if str(read_matrices(path)["model_sha256"]) == model_sha256:
            current.append(path)
        else:
            old.append(_of_another_model(f"svcca/{path.name}", "stage 6 (`asrprune svcca`)"))
    return current, old


def _title(exp: Path) -> str:
    """Return ``an4/exp/train`` if the experiment is in the directory of a recipe, else the name of the experiment."""
    return "/".join(exp.parts[-3:]) if exp.parent.name == "exp" else exp.name


def _usable(
    decodes: Sequence[Path], model_sha256: str, plans: Mapping[str, Search]
) -> tuple[list[tuple[Decoded, Score]], list[str]]:
    """Return the scored decodes of this model and its plans, and a sentence about each decode that is left out."""
    usable, set_aside = [], []
    for path in decodes:
        decode, name = Decoded.read(path), "/".join(path.parts[-4:-1])
        if path.parent != file_of(path.parents[2] / decode.set, decode.strategy, f"_d{decode.depth}"):
            set_aside.append(f"Left out: {name}; it is a copy of decode/{decode.set}/{decode.strategy}_d{decode.depth}.")
        elif decode.model_sha256 != model_sha256:
            set_aside.append(_of_another_model(name, Decoded.made_by))
        elif _replanned(decode, plans.get(decode.strategy)):
            set_aside.append(f"Left out: {name}; it has the layers of an earlier plan, run {Decoded.made_by} again.")
        elif not path.with_name("score.json").exists():
            set_aside.append(f"Left out: {name}; it is not scored yet, {Score.made_by} does it.")
        else:
            usable.append((decode, _read_score(path.with_name("score.json"), decode)))
    if not usable:
        raise UserError(f"{decodes[0].parents[2]}: nothing in it can be reported; the first reason: {set_aside[0]}")
    return usable, set_aside


def _replanned(decode: Decoded, plan: Search | None) -> bool:
    """Return whether the plan of the strategy has other layers at this depth."""
    return any(step.depth == decode.depth and step.keep != decode.keep for step in (plan.steps if plan else ()))


def _of_another_model(name: str, stage: str) -> str:
    return f"Left out: {name}; it belongs to another model, run {stage} again."


def _read_score(path: Path, decode: Decoded) -> Score:
    score = Score.read(path)
    low, high = score.wer_ci95
    again = f"run {Score.made_by} again"
    if not low <= score.wer <= high:
        raise UserError(f"{path}: WER {score.wer} lies outside its 95 % interval [{low}, {high}]; {again}")
    if score.utterances != decode.utterances:
        raise UserError(f"{path}: {score.utterances} utterances are scored, but {decode.utterances} are decoded; {again}")
    if None not in (score.output_sha256, decode.output_sha256) and score.output_sha256 != decode.output_sha256:
        raise UserError(f"{path}: is the score of another text than the one that decode.json records; {again}")
    return score


def _data(usable: Sequence[tuple[Decoded, Score]]) -> dict[str, SetData]:
    """Describe the decoded sets; all results of a set must have the same utterances, features, transcripts and rule of case.

    The transcripts are those of the score: they may have been corrected since the decoding.
    """
    first: dict[str, tuple[str, SetData]] = {}
    features: dict[str, str] = {}
    for decode, score in usable:
        text = score.text_sha256 or decode.text_sha256
        seen = SetData(utterances=decode.utterances, hours=decode.hours, text_sha256=text, ignore_case=score.ignore_case)
        name = f"decode/{decode.set}/{decode.strategy}_d{decode.depth}"
        other, expected = first.setdefault(decode.set, (name, seen))
        if seen != expected or (decode.features and features.setdefault(decode.set, decode.features) != decode.features):
            raise UserError(
                f"{name}: its utterances, features, transcripts or rule of letter case are not those of {other}; run stages 8"
                " and 9 (`asrprune decode`, `asrprune score`) again, and remove the directories of this set that they do not"
                " write"
            )
    return {name: seen for name, (_, seen) in first.items()}


def _edited(usable: Sequence[tuple[Decoded, Score]]) -> list[str]:
    """Return a sentence about each set whose transcripts were edited since they were scored."""
    scored = {(d.set, Path(d.directory) / "text"): s.text_sha256 for d, s in usable if d.directory and s.text_sha256}
    return [
        f"Old: the error rates of {name}; {path} was edited since, run {Score.made_by} again."
        for (name, path), text_sha256 in scored.items()
        if path.exists() and sha256_of_rows(open_table(path)) != text_sha256
    ]


def _rows(usable: Sequence[tuple[Decoded, Score]], bench: Bench | None, num_layers: int) -> tuple[Row, ...]:
    def row(decode: Decoded, score: Score) -> Row:
        measured = bench.rows if bench and _same_decoder(decode, bench) else ()
        return _row(decode, score, _rtf(measured, decode.keep), _rtf(measured, tuple(range(1, num_layers + 1))))

    return tuple(sorted((row(*each) for each in usable), key=lambda row: (row.set, rank(row.strategy), -row.depth)))


def _same_decoder(decode: Decoded, bench: Bench) -> bool:
    """Return whether the decoder and the arithmetic of a text, such as 'greedy, float32', are those that were timed."""
    decoder, precision = without_precision(decode.decoder)
    return bench.decoder in (None, decoder) and bench.dtype == _DTYPES.get(precision, bench.dtype)


def _untimed(usable: Sequence[tuple[Decoded, Score]], bench: Bench | None) -> list[str]:
    """Return a sentence about the decoders that were not timed, if another one was."""
    others = sorted({decode.decoder for decode, _ in usable if bench and not _same_decoder(decode, bench)})
    if bench is None or not others:
        return []
    return [
        f"Left out: real-time factors with the decoder {'; '.join(others)}. bench.json was measured with {bench.decoder},"
        f" {bench.dtype}; run stage 10 (`asrprune bench`) with the same decoder and decode.precision."
    ]


def _row(decode: Decoded, score: Score, rtf: float | None, full_rtf: float | None) -> Row:
    return Row(
        set=decode.set, strategy=decode.strategy, depth=decode.depth, keep=decode.keep, params_m=decode.params_m,
        wer=score.wer, wer_ci95=score.wer_ci95, cer=score.cer, sub=score.sub, del_=score.del_, ins=score.ins,
        ref_words=score.ref_words, rtf=rtf, decoder=decode.decoder, speedup=full_rtf / rtf if rtf and full_rtf else None,
        model_sha256=decode.model_sha256, utterances=score.utterances,
    )  # fmt: skip


def _rtf(measured: Sequence[Timed], keep: Keep) -> float | None:
    """Return the RTF of these layers, or else of other layers of the same depth, which cost almost the same."""
    of_depth = [timed for timed in measured if timed.depth == len(keep)]
    exact = [timed for timed in of_depth if timed.keep == keep]
    return next((timed.rtf for timed in exact + of_depth), None)


def _training(path: Path, last: int, members: Sequence[Epoch]) -> tuple[Training | None, list[str]]:
    """Summarise the log of a training of ``last`` epochs.

    Return a sentence instead if the log does not reach its end, or is not that of the training with these epochs.
    """
    epochs = read_log(path)[1] if path.exists() else []
    reached = epochs[-1]["epoch"] if epochs else 0
    if reached < last:
        state = f"ends after epoch {reached} of {last}" if path.exists() else "is missing"
        again = "copy it again, because stage 4 (`asrprune train`) writes it only while it trains"
        return None, [f"Left out: training curves; {path.name} {state}; {again}."]
    wers = {epoch["epoch"]: _full_dev_wer(epoch) for epoch in epochs}
    if any(wers.get(member.epoch) != member.wer for member in members):
        return None, [
            f"Left out: training curves; {path.name} is the log of another training than model.json; copy both again."
        ]
    best = min(epochs, key=_full_dev_wer)
    training = Training(
        epochs=len(epochs), steps=epochs[-1]["step"], best_dev_wer=_full_dev_wer(best), best_epoch=best["epoch"],
        seconds=epochs[-1]["seconds"],  # since the start of the run
        precision=" and ".join(sorted({epoch["precision"] for epoch in epochs if "precision" in epoch})) or None,
    )  # fmt: skip
    return training, []


def _full_dev_wer(epoch: LogLine) -> float:
    dev_wer: dict[str, float] = epoch["dev_wer"]
    return dev_wer[max(dev_wer, key=int)]


def _read_plans(exp: Path, model_sha256: str) -> tuple[dict[str, Search], list[str]]:
    """Return the plans of this model by strategy, and a sentence about each plan of another model."""
    plans, set_aside = list[Plan](), []
    for path in sorted(exp.glob("plans/*.json")):
        plan = Plan.read(path)
        if plan.model_sha256 == model_sha256:
            plans.append(plan)
        else:
            set_aside.append(_of_another_model(f"plans/{path.name}", Plan.made_by))
    return {plan.strategy: plan for plan in sorted(plans, key=lambda plan: rank(plan.strategy))}, set_aside


def _read_bench(path: Path, model_sha256: str) -> tuple[Bench | None, list[str]]:
    """Return ``bench.json`` if it is of this model, and a sentence if it is of another model."""
    bench = Bench.read(path) if path.exists() else None
    if bench and bench.model_sha256 != model_sha256:
        return None, [_of_another_model("bench.json", Bench.made_by)]
    return bench, []


def _missing(exp: Path) -> list[str]:
    absent = [part for part in _OPTIONAL if not any(exp.glob(part[0]))]
    return [f"Left out: {what}; there is no `{pattern}` yet, {stage} makes it." for pattern, what, stage in absent]
