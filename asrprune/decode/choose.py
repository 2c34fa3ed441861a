"""Making the decoder of the config section `decode.decoder`."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from asrprune.config.mistakes import check
from asrprune.config.schema import BeamConfig, DecodeConfig, Decoding, GreedyConfig
from asrprune.data.tables import some
from asrprune.data.units import Units
from asrprune.decode.decoder import Decoder
from asrprune.decode.greedy import GREEDY
from asrprune.decode.prefix_beam import PrefixBeam
from asrprune.experiment.paths import ExperimentPaths
from asrprune.lm.arpa import ArpaModel
from asrprune.lm.language_model import END, START, UNKNOWN
from asrprune.runtime.errors import UserError
from asrprune.runtime.files import sha256_of
from asrprune.runtime.records import Record

if TYPE_CHECKING:
    from asrprune.experiment.store import Experiment

logger = logging.getLogger(__name__)
LM_WEIGHT, WORD_BONUS = 0.5, 0.0  # defaults, if neither the config nor `asrprune tune-lm` sets them


class Weights(Record):
    """Weights that were tried on a dev set, and the WER in percent."""

    lm_weight: float
    word_bonus: float
    wer: float


class Tuned(Record):
    """decoder.json: the best weights of a language model, and all weights that were tried."""

    made_by: ClassVar[str] = "`asrprune tune-lm`"
    format: Literal[1]
    lm_weight: float
    word_bonus: float
    wer: float
    model_sha256: str
    lm_sha256: str
    set: str
    width: int
    tried: tuple[Weights, ...]

    def fits(self, lm: Path) -> bool:
        """Return whether the weights were tuned for this language model; True if it is missing, which is reported elsewhere."""
        return not lm.is_file() or self.lm_sha256 == sha256_of(lm)


def decoder_of(experiment: "Experiment", given: Mapping[str, Any] | None = None) -> Decoder:
    """Make the decoder of an experiment.

    Args:
        experiment: its config selects the decoder; its decoder.json has the weights that the config leaves open.
        given: see ``decoder_options``.

    Raises:
        UserError: see ``decoder_options`` and ``make_decoder``.
    """
    options = decoder_options(experiment, given or {})
    if isinstance(options, BeamConfig) and options.lm is not None and None in (options.lm_weight, options.word_bonus):
        options = with_weights(options, tuned_of(experiment, Path(options.lm)))
    return make_decoder(options, experiment.tokenizer)


def decoder_options(experiment: "Experiment", given: Mapping[str, Any]) -> Decoding:
    """Return ``decode.decoder`` of the config; values in ``given`` replace its own, see ``replaced``."""
    return replaced(experiment.config.decode.decoder, given, ExperimentPaths(experiment.path).lang)


def replaced(configured: Decoding, given: Mapping[str, Any], folder: Path) -> Decoding:
    """Return the configured values of a decoder; those in ``given`` replace them.

    If ``given`` has another ``type``, no configured value is used. The language model is first looked for in ``folder``.

    Raises:
        UserError: the values do not fit together.
    """
    same = given.get("type", configured.type) == configured.type
    values = {**(configured.model_dump() if same else {}), **given}
    options = check(DecodeConfig, {"decoder": values}, "decode").decoder
    if not isinstance(options, BeamConfig) or options.lm is None:
        return options
    own = folder / options.lm
    return options.model_copy(update={"lm": str(own)}) if own.is_file() else options


def make_decoder(options: Decoding, units: Units) -> Decoder:
    """Make a decoder.

    Raises:
        UserError: there is no such language model, or an expected phrase cannot be written in the text units.
    """
    if isinstance(options, GreedyConfig):
        return GREEDY
    if options.lm is None:
        return make_beam(options, units, None)
    return make_beam(with_weights(options, None), units, ArpaModel(Path(options.lm)))


def make_beam(options: BeamConfig, units: Units, lm: ArpaModel | None) -> PrefixBeam:
    """Make a beam search with a loaded language model.

    Raises:
        UserError: the text units cannot write a phrase, or none of the words of the language model.
    """
    if lm and not any(map(units.can_write, _words(lm))):  # the first one decides, but for a wrong file
        raise UserError(
            f"{lm.path}: none of its words ({some(list(_words(lm)))}) can be written in the text units, so it knows no word"
            " that the model says; give one with the letters (a or A) of the transcripts"
        )
    for phrase in options.context:
        if not phrase.split() or not units.can_write(phrase):
            others = [other for other in (phrase.upper(), phrase.lower()) if other.strip() and units.can_write(other)]
            fix = f"write {others[0]!r}" if others else "remove it"
            raise UserError(f"decode.decoder.context: {phrase!r} cannot be written in the text units; {fix}")
    return PrefixBeam(units.pieces, options, lm, lm.sha256 if lm else "")


def _words(lm: ArpaModel) -> Iterator[str]:
    return (word for word in lm.words if word not in (START, END, UNKNOWN))


def tuned_of(experiment: "Experiment", lm: Path | None) -> Tuned | None:
    """Return the weights that were tuned for this model and ``lm`` (None: for any language model); None if there are none."""
    path = ExperimentPaths(experiment.path).decoder
    if not path.exists():
        return None
    tuned = Tuned.read(path)
    if tuned.model_sha256 != experiment.record.model_sha256 or not (lm is None or tuned.fits(lm)):
        logger.warning("%s: belongs to another model or language model and is ignored; run `asrprune tune-lm` again", path)
        return None
    return tuned


def with_weights(options: BeamConfig, tuned: Tuned | None) -> BeamConfig:
    """Return the options; weights that they leave open get the tuned or the default values."""
    weights = {
        "lm_weight": tuned.lm_weight if tuned else LM_WEIGHT,
        "word_bonus": tuned.word_bonus if tuned else WORD_BONUS,
    }
    return options.model_copy(update={name: value for name, value in weights.items() if getattr(options, name) is None})
