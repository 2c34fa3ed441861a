"""`asrprune export`: write a model as one ONNX file, for any depth or for one, after a check against torch."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from asrprune.config.schema import BeamConfig, Decoding
from asrprune.data.units import token_list, write_tokens
from asrprune.decode.benchmark import Bench
from asrprune.decode.choose import Tuned, decoder_of, tuned_of
from asrprune.decode.threshold import chosen_thresholds, exits_of
from asrprune.decode.windows import Timing
from asrprune.decode.words import WORD_TAIL_S
from asrprune.experiment.paths import ExperimentPaths
from asrprune.experiment.plan import Keep, Plan
from asrprune.experiment.store import Experiment
from asrprune.export import card, quantise
from asrprune.export.check import Check, Said
from asrprune.export.cost import with_cost, with_ended
from asrprune.export.examples import Example, noise, utterances
from asrprune.export.mixture import smallest_mixture
from asrprune.export.onnx_file import default_keep, import_onnx, metadata, set_default, set_metadata, write
from asrprune.export.record import FACTS, Exported, ExportedDepth, Form, Input, Precision
from asrprune.export.session import THRESHOLDS, as_thresholds
from asrprune.export.speed import UTTERANCES, with_speed
from asrprune.export.waveform import Fbank
from asrprune.model.ctc_model import num_params
from asrprune.runtime.errors import UserError
from asrprune.runtime.files import atomic_path, sha256_of
from asrprune.runtime.planted import read_plain
from asrprune.runtime.version import version

if TYPE_CHECKING:
    import onnx

logger = logging.getLogger(__name__)
TOKENS = "tokens.txt"
CHECKED = 50  # the number of dev utterances whose texts are compared; texts of a float32 file must be equal


@dataclass(frozen=True)
class Options:
    """The choices of an export."""

    form: Form = "any-depth"
    input: Input = "features"
    precision: Precision = "float32"
    depth: int | None = None  # the depth that runs by default (form depth: the only one); None: all layers
    dev: Path | None = None  # a data directory, to compare texts; it needs features (input waveform: audio)
    utterances: int | None = None  # the number of utterances of ``dev``; None: ``CHECKED`` in float32, else all
    max_loss: float | None = None  # points of WER on ``dev`` that int8 may lose; None: any number
    licence: str | None = None


def export(experiment: Experiment, plan: Plan, path: Path, options: Options) -> Exported:
    """Write ``path``, ``path``.json with its depths, and beside it tokens.txt and a model card.

    Args:
        experiment: the model.
        plan: the layers of each depth.
        path: FILE.onnx.
        options: what to write.

    Raises:
        UserError: the plan lacks the depth, a package is missing, onnxruntime gives other numbers than torch, or another model
            in the folder has other text units.
    """
    if path.suffix != ".onnx":
        raise UserError(f"--to {path}: the name of the file must end in .onnx")
    _check_tokens(path, experiment)
    exported = _describe(experiment, plan, options)
    if options.dev is not None:
        next(_dev(experiment, options), None)  # a fault of the set is told before the slow tracing
    with atomic_path(path) as temporary:  # opened before the slow tracing, to report at once if it cannot be written
        file = _trace(experiment, exported)
        write(file, temporary)
        check = _check(experiment, temporary, exported.model_copy(update={"precision": "float32"}))
        worst = check.numbers(noise(experiment, options.input == "waveform"))
        logger.info("onnxruntime and torch differ by at most %.1e in log-probabilities, at each depth", worst)
        if exported.exits:
            check.early_exit(noise(experiment, options.input == "waveform"), exported.exits, exported.thresholds)
        if options.precision != "float32":
            file, exported = _lowered(experiment, file, temporary, exported, options)
            write(file, temporary)
            check = _check(experiment, temporary, exported)
            check.numbers(noise(experiment, options.input == "waveform"))
        exported = _texts(check, exported, options)
        for_peers = {"vocab_size": exported.vocab_size, "subsampling_factor": exported.factor}
        set_metadata(file, {FACTS: exported.plain(), **for_peers})
        write(file, temporary)
    exported.write(record_path(path))
    write_tokens(path.with_name(TOKENS), experiment.tokenizer)
    card.write(path, exported)
    return exported


def set_depth(path: Path, depth: int) -> Exported:
    """Rewrite the depth that an any-depth file runs by default, in the file, its JSON file and its card.

    Raises:
        UserError: this is no any-depth file of asrprune, or it does not have the depth.
    """
    file, exported = read_exported(path)
    if exported.form in ("required-keep", "early-exit"):
        why = "its input keep is required" if exported.form == "required-keep" else "each utterance has a depth of its own"
        raise UserError(f"{path}: has no default depth, {why}; export it with --form any-depth")
    default = default_keep(file)
    if exported.form != "any-depth" or default is None:
        raise UserError(f"{path}: has the layers of one depth only; export it with --form any-depth")
    row = exported.at(depth)
    exported = exported.model_copy(update={"depth": depth})
    set_default(file, _as_mask(row.keep, len(default)))
    set_metadata(file, {FACTS: exported.plain()})
    with atomic_path(path) as temporary:
        write(file, temporary)
    exported.write(record_path(path))
    card.write(path, exported)
    return exported


def read_exported(path: Path) -> "tuple[onnx.ModelProto, Exported]":
    """Read an ONNX file that ``export`` wrote; raise a ``UserError`` if it is another one."""
    reader = import_onnx()
    if not path.is_file():
        raise UserError(f"{path}: no such file; `asrprune export` makes it")
    try:
        file = reader.load(str(path), format="protobuf", load_external_data=False)  # not by the ending of the name
    except Exception as error:  # protobuf's DecodeError: a class that depends on its version
        if "DecodeError" not in type(error).__name__:
            raise
        raise UserError(f"{path}: not an ONNX file, or a truncated one; export it again") from None
    return file, Exported.of_metadata(path, metadata(file))


def _check_tokens(path: Path, experiment: Experiment) -> None:
    """Raise a ``UserError`` if tokens.txt would be replaced by other text units, although another model needs it."""
    tokens, others = path.with_name(TOKENS), sorted(file.name for file in path.parent.glob("*.onnx") if file.name != path.name)
    if others and tokens.exists() and read_plain(tokens) != token_list(experiment.tokenizer).encode():
        raise UserError(f"{tokens}: has the text units of {', '.join(others)}, which are others; export into another folder")


def _decoder(experiment: Experiment) -> tuple[Decoding, str | None, Tuned | None]:
    """Return the decoder of the config, with the language model as a file name without folder, its hash and tuned weights.

    If the config has no language model, the weights are for the one that is given when the file is run.
    """
    options = experiment.config.decode.decoder
    if not isinstance(options, BeamConfig) or options.lm is None:
        return options, None, _without_trials(tuned_of(experiment, None))
    own = ExperimentPaths(experiment.path).lang / options.lm
    lm = own if own.is_file() else Path(options.lm)
    known = options.model_copy(update={"lm": lm.name})
    return known, sha256_of(lm) if lm.is_file() else None, _without_trials(tuned_of(experiment, lm))


def _without_trials(tuned: Tuned | None) -> Tuned | None:
    return tuned and tuned.model_copy(update={"tried": ()})


def record_path(path: Path) -> Path:
    """Return FILE.onnx.json, which cannot be mistaken for the model.json of an experiment."""
    return path.with_name(f"{path.name}.json")


def _describe(experiment: Experiment, plan: Plan, options: Options) -> Exported:
    """Make the record of a file. Its depths are those of the plan, and all layers."""
    layers = experiment.num_layers
    steps = {step.depth: (step.keep, step.score) for step in plan.steps}
    steps.setdefault(layers, (tuple(range(1, layers + 1)), None))
    rtf, (decoder, lm_sha256, tuned) = _rtf(experiment), _decoder(experiment)
    depths = [
        ExportedDepth(
            depth=at, keep=keep, score=score, params_m=num_params(experiment.model, keep) / 1e6, rtf=rtf.get(at)
        )
        for at, (keep, score) in sorted(steps.items(), reverse=True)
    ]  # fmt: skip
    exits, thresholds, chosen_with = _exits(experiment) if options.form == "early-exit" else ((), (), None)
    exported = Exported(
        format=1, form=options.form, exits=exits, thresholds=thresholds, chosen_with=chosen_with,
        input=options.input, precision=options.precision, depth=options.depth or layers,
        depths=tuple(depths), num_layers=layers, strategy=plan.strategy, metric=plan.metric, dev_set=plan.dev_set,
        licence=options.licence, data_licence=experiment.record.data_licence,
        factor=experiment.config.model.subsampling.factor, frontend=experiment.config.frontend,
        vocab_size=len(experiment.tokenizer), units=tuple(experiment.tokenizer.pieces), windows=Timing.of(experiment).windows,
        word_tail_s=WORD_TAIL_S, decoder=decoder, lm_sha256=lm_sha256, tuned=tuned,
        scoring=experiment.config.scoring, model_sha256=experiment.record.model_sha256, asrprune=version(),
    )  # fmt: skip
    row = exported.at(exported.depth)
    return exported.model_copy(update={"depths": (row,)}) if options.form == "depth" else exported


def _exits(experiment: Experiment) -> tuple[tuple[int, ...], tuple[float, ...], str]:
    """Return the exits of the model, how sure each but the last one must be, and the decoder with which that was chosen.

    Raises:
        UserError: it is not known how sure they must be.
    """
    exits_of(experiment)  # raises if there is one only
    path = ExperimentPaths(experiment.path).early_exit
    if not path.exists():
        raise UserError(f"{path}: is missing; run `asrprune early-exit` on a dev set before --form early-exit")
    chosen = chosen_thresholds(experiment, decoder_of(experiment).identity)
    return chosen.exits, chosen.thresholds, chosen.decoder


def _rtf(experiment: Experiment) -> dict[int, float]:
    """Return the real-time factor of each depth that `asrprune bench` measured for this model, on a CPU, as the file runs."""
    path = ExperimentPaths(experiment.path).bench
    found = Bench.read(path) if path.exists() else None
    fits = found is not None and (found.model_sha256, found.device) == (experiment.record.model_sha256, "cpu")
    return {row.depth: row.rtf for row in found.rows} if found and fits else {}


def _trace(experiment: Experiment, exported: Exported) -> "onnx.ModelProto":
    """Make the graph of a form."""
    import_onnx()
    from asrprune.export.assemble import any_depth, early_exit, one_depth

    model, keep = experiment.model.cpu().eval(), exported.at(exported.depth).keep
    fbank = Fbank(exported.frontend) if exported.input == "waveform" else None
    logger.info("tracing the model; this takes half a minute")
    if exported.form == "depth":
        return one_depth(model, keep, fbank)
    file = early_exit(model, exported.exits, fbank) if exported.form == "early-exit" else any_depth(model, fbank)
    if exported.form != "required-keep":
        set_default(file, _as_mask(keep, exported.num_layers))
    if exported.form == "early-exit":
        set_default(file, as_thresholds(exported.thresholds), THRESHOLDS)
    return file


def _check(experiment: Experiment, path: Path, exported: Exported, said: Said | None = None) -> Check:
    keeps, choice = [row.keep for row in exported.depths], exported.form != "depth"
    return Check(experiment, path, keeps, choice, exported.precision, said)


def _lowered(
    experiment: Experiment, file: "onnx.ModelProto", path: Path, exported: Exported, options: Options
) -> "tuple[onnx.ModelProto, Exported]":
    """Return the file in a lower precision, and its record. Trial files of ``max_loss`` are written to ``path``."""
    if options.precision == "fp16":
        return quantise.fp16(file), exported

    said: Said = {}

    @lru_cache(maxsize=1)
    def check_of(layers: Keep) -> Check:
        write(quantise.int8(file, layers), path)
        return _check(experiment, path, exported, said)

    def loss(layers: Keep, keep: Keep) -> float:
        return check_of(layers).texts(_dev(experiment, options), [keep]).loss()

    keeps = [row.keep for row in exported.depths]
    chosen = () if options.max_loss is None else smallest_mixture(exported.num_layers, keeps, loss, options.max_loss)
    return quantise.int8(file, chosen), exported.model_copy(update={"float32_layers": chosen})


def _dev(experiment: Experiment, options: Options) -> Iterator[Example]:
    """Yield the utterances whose texts are compared."""
    assert options.dev is not None
    count = options.utterances or (CHECKED if options.precision == "float32" else None)
    return utterances(options.dev, count, experiment, options.input == "waveform")


def _texts(check: Check, exported: Exported, options: Options) -> Exported:
    """Compare texts on the dev set: in float32 they must be equal; what a lower precision costs is added to the record.

    What early exit does, and the speed of the file, are measured there, too.
    """
    exact, dev = options.precision == "float32", options.dev
    if dev is None:
        if not exact:
            logger.warning("what %s costs is not known; give a dev set: --dev DIR", options.precision)
        return exported
    examples = _dev(check.experiment, options)
    if exact:
        logger.info("the texts of %d utterances of %s are equal at every depth", check.same_texts(examples), dev)
    else:
        exported = with_cost(exported, check.texts(examples), dev)
    if exported.exits:
        if exact:
            check.early_exit(_dev(check.experiment, options), exported.exits, exported.thresholds)
        exported = with_ended(exported, check.ended(_dev(check.experiment, options), exported, dev))
    few = utterances(dev, min(UTTERANCES, options.utterances or UTTERANCES), check.experiment, options.input == "waveform")
    return with_speed(exported, check.session, few, dev)


def _as_mask(keep: Keep, num_layers: int) -> np.ndarray:
    return np.isin(np.arange(1, num_layers + 1), keep)
