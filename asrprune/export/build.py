"""`asrprune export`: a model as one ONNX file that runs at any depth, or at one, checked before it is written."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from asrprune.config.schema import BeamConfig, Decoding
from asrprune.data.units import write_tokens
from asrprune.decode.choose import Tuned, tuned_of
from asrprune.decode.windows import WINDOWS
from asrprune.decode.words import WORD_TAIL_S
from asrprune.experiment.paths import ExperimentPaths
from asrprune.experiment.plan import Keep, Plan
from asrprune.experiment.store import Experiment
from asrprune.export.check import Check
from asrprune.export.onnx_file import (
    any_depth,
    default_keep,
    import_onnx,
    metadata,
    one_depth,
    set_default,
    set_metadata,
    write,
)
from asrprune.export.record import FACTS, Exported, ExportedDepth
from asrprune.model.ctc_model import num_params
from asrprune.runtime.errors import UserError
from asrprune.runtime.files import atomic_path
from asrprune.runtime.version import version

if TYPE_CHECKING:
    import onnx

logger = logging.getLogger(__name__)
CHECKED = 50  # utterances of a dev set whose texts are compared


def export(experiment: Experiment, plan: Plan, path: Path, depth: int | None, alone: bool, dev: Path | None) -> Exported:
    """Write ``path``, ``path``.json with its depths, and tokens.txt beside it.

    Args:
        experiment: the model.
        plan: the layers of each depth.
        path: FILE.onnx.
        depth: the depth that runs by default; None: all layers.
        alone: write only the layers of ``depth``.
        dev: a data directory with features, of which some texts are compared, too.

    Raises:
        UserError: the plan lacks the depth, a package is missing, or onnxruntime gives other numbers than torch.
    """
    if path.suffix != ".onnx":
        raise UserError(f"--to {path}: the name of the file must end in .onnx")
    exported = _describe(experiment, plan, depth, alone)
    keep = exported.at(exported.depth).keep
    keeps = [row.keep for row in exported.depths]
    model = experiment.model.cpu().eval()
    with atomic_path(path) as temporary:  # before the tracing, so that a path that cannot be written is told at once
        logger.info("tracing %d layers; this takes a minute", len(keep) if alone else exported.num_layers)
        file = one_depth(model, keep) if alone else any_depth(model)
        if not alone:
            set_default(file, _as_mask(keep, exported.num_layers))
        for_peers = {"vocab_size": exported.vocab_size, "subsampling_factor": exported.factor}
        set_metadata(file, {FACTS: exported.plain(), **for_peers})
        write(file, temporary)
        check = Check(experiment, temporary, keeps, not alone)
        worst = check.numbers()
        logger.info("onnxruntime and torch differ by at most %.1e in log-probabilities, at %d depths", worst, len(keeps))
        if dev is not None:
            count = check.texts(dev, CHECKED)
            logger.info("the texts of %d utterances of %s are equal at every depth", count, dev)
    exported.write(_record_path(path))
    write_tokens(path.with_name("tokens.txt"), experiment.tokenizer)
    return exported


def set_depth(path: Path, depth: int) -> Exported:
    """Rewrite the depth that an any-depth file runs by default, in the file and in its JSON file.

    Raises:
        UserError: this is no any-depth file of asrprune, or it does not have the depth.
    """
    file, exported = read_exported(path)
    if exported.form != "any-depth" or default_keep(file) is None:
        raise UserError(f"{path}: has the layers of one depth only; export it with --form any-depth")
    row = exported.at(depth)
    exported = exported.model_copy(update={"depth": depth})
    set_default(file, _as_mask(row.keep, exported.num_layers))
    set_metadata(file, {FACTS: exported.plain()})
    with atomic_path(path) as temporary:
        write(file, temporary)
    exported.write(_record_path(path))
    return exported


def read_exported(path: Path) -> "tuple[onnx.ModelProto, Exported]":
    """Read an ONNX file that ``export`` wrote; raise a ``UserError`` if it is another one."""
    reader = import_onnx()
    if not path.is_file():
        raise UserError(f"{path}: no such file; `asrprune export` makes it")
    try:
        file = reader.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's DecodeError: a class that depends on its version
        if "DecodeError" not in type(error).__name__:
            raise
        raise UserError(f"{path}: not an ONNX file, or a truncated one; export it again") from None
    return file, Exported.of_metadata(path, metadata(file))


def _describe(experiment: Experiment, plan: Plan, depth: int | None, alone: bool) -> Exported:
    """Make the record of a file, with all layers as a depth, even if the plan does not have it."""
    layers = experiment.num_layers
    steps = {step.depth: (step.keep, step.score) for step in plan.steps}
    steps.setdefault(layers, (tuple(range(1, layers + 1)), None))
    decoder, tuned = _decoder(experiment)
    exported = Exported(
        format=1, form="depth" if alone else "any-depth", depth=depth or layers, num_layers=layers, strategy=plan.strategy,
        depths=tuple(_row(experiment, *steps[at]) for at in sorted(steps, reverse=True)), metric=plan.metric,
        dev_set=plan.dev_set, factor=experiment.config.model.subsampling.factor, frontend=experiment.config.frontend,
        vocab_size=len(experiment.tokenizer), units=tuple(experiment.tokenizer.pieces), windows=WINDOWS,
        word_tail_s=WORD_TAIL_S, decoder=decoder, tuned=tuned, model_sha256=experiment.record.model_sha256, asrprune=version(),
    )  # fmt: skip
    row = exported.at(exported.depth)
    return exported.model_copy(update={"depths": (row,)}) if alone else exported


def _decoder(experiment: Experiment) -> tuple[Decoding, Tuned | None]:
    """Return the decoder of the config, which names the file of its language model only, and the weights tuned for that."""
    options = experiment.config.decode.decoder
    if not isinstance(options, BeamConfig) or options.lm is None:
        return options, None
    own = ExperimentPaths(experiment.path).lang / options.lm
    tuned = tuned_of(experiment, own if own.is_file() else Path(options.lm))
    known = options.model_copy(update={"lm": Path(options.lm).name})
    return known, tuned and tuned.model_copy(update={"tried": ()})


def _row(experiment: Experiment, keep: Keep, score: float | None) -> ExportedDepth:
    return ExportedDepth(depth=len(keep), keep=keep, score=score, params_m=num_params(experiment.model, keep) / 1e6)


def _record_path(path: Path) -> Path:
    """Return FILE.onnx.json; an experiment has a model.json of its own."""
    return path.with_name(f"{path.name}.json")


def _as_mask(keep: Keep, num_layers: int) -> np.ndarray:
    return np.isin(np.arange(1, num_layers + 1), keep)
