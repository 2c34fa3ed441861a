"""The record of an exported file: all that a program needs to run it. Other programs read it as JSON."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, PlainSerializer, ValidationError, model_validator

from asrprune.config.lengths import output_length
from asrprune.config.schema import MOST_LAYERS, Decoding, FrontendConfig, ScoringConfig
from asrprune.config.section import Section
from asrprune.data.units import is_unit
from asrprune.data.windows import Windows
from asrprune.decode.choose import Tuned
from asrprune.decode.windows import Timing
from asrprune.experiment.plan import Keep, Plan, Step, check_layers
from asrprune.runtime.errors import UserError
from asrprune.runtime.files import parse_json
from asrprune.runtime.records import Record, first_fault

FACTS = "asrprune"  # key of the metadata that holds the record
Form = Literal["any-depth", "early-exit", "required-keep", "depth"]
Input = Literal["features", "waveform"]
Precision = Literal["float32", "int8", "fp16"]


def _whole(section: Section) -> dict[str, object]:
    return section.model_dump(mode="json")


Whole = PlainSerializer(_whole)  # with all numbers, because other programs do not know the defaults


class ExportedDepth(Record):
    """One depth of an exported model."""

    depth: int
    keep: Keep
    score: float | None  # of the plan, on the dev set
    params_m: float = Field(gt=0)
    rtf: float | None = None  # of the file, as ``speed`` says; without ``speed``, as `asrprune bench` measured it in torch
    changed: int | None = None  # utterances of the compared set whose text differs from that of float32
    wer: float | None = None  # of the file, on the compared set, in percent
    wer_float32: float | None = None


class Compared(Record):
    """The data on which a file of a lower precision was compared with float32."""

    set: str
    utterances: int


class Ended(Compared):
    """What early exit does on a set, with the file and in torch in float32."""

    layers: float  # mean over the utterances
    layers_float32: float
    changed: int  # utterances whose text differs
    wer: float | None  # in percent; None without transcripts
    wer_float32: float | None
    rtf: float | None = None


class Speed(Compared):
    """How the real-time factors of a file were measured, in onnxruntime, one utterance at a time."""

    cpu: str
    threads: int
    decoder: str


class Exported(Record):
    """FILE.onnx.json, and the metadata of the ONNX file."""

    made_by: ClassVar[str] = "`asrprune export`"
    format: Literal[1]
    form: Form
    input: Input = "features"
    precision: Precision = "float32"
    float32_layers: Keep = ()  # the layers of an int8 file that stay in float32
    exits: tuple[int, ...] = ()  # of the form early-exit
    thresholds: tuple[float, ...] = ()  # how sure each exit but the last one must be by default; above 1: never
    chosen_with: str | None = None  # the decoder with which the thresholds were chosen; earlier versions did not record it
    depth: int  # the depth that runs by default; with early exit, the largest one
    depths: tuple[ExportedDepth, ...] = Field(min_length=1)  # deepest first
    num_layers: int = Field(ge=1, le=MOST_LAYERS)
    strategy: str
    metric: str | None
    dev_set: str | None
    factor: Literal[4, 8]  # feature frames per frame of the output
    frontend: Annotated[FrontendConfig, Whole]  # how features are computed from samples in [-1, 1)
    vocab_size: int
    units: tuple[str, ...]  # the text of each label
    windows: Windows
    word_tail_s: float = Field(ge=0)  # the longest time that a word lasts after its last label
    decoder: Annotated[Decoding, Whole]  # as in the config; the language model lies beside the ONNX file
    lm_sha256: str | None = None  # of the language model of ``decoder``; earlier versions did not record it
    tuned: Tuned | None = None  # the weights of the language model
    scoring: Annotated[ScoringConfig, Whole] = ScoringConfig()  # what error rates count: words or phones
    compared: Compared | None = None
    ended: Ended | None = None
    speed: Speed | None = None
    licence: str | None = None  # of the model: the text of --licence
    data_licence: str | None = None  # of the training data, as the recipe gave it
    model_sha256: str
    asrprune: str

    @classmethod
    def of_metadata(cls, path: Path, metadata: Mapping[str, str]) -> "Exported":
        """Read the metadata of an ONNX file; raise a ``UserError`` if `asrprune export` did not write them."""
        try:
            return cls.model_validate(parse_json(metadata[FACTS]))
        except KeyError:
            what = "it has no facts of asrprune"
        except ValidationError as error:
            what = f"in its facts {first_fault(error)}"
        except ValueError as error:
            what = f"its facts are not valid JSON: {error}"
        raise UserError(f"{path}: not a model that `asrprune export` wrote ({what}); export it again")

    @model_validator(mode="after")
    def _fits_together(self) -> "Exported":
        if not all(map(is_unit, self.units)):
            raise ValueError("a text unit holds a blank")
        for row in self.depths:
            check_layers(row.keep, self.num_layers, f"depth {row.depth}")
            if len(row.keep) != row.depth:
                raise ValueError(f"depth {row.depth} has {len(row.keep)} layers")
        if self.form == "early-exit":
            check_layers(self.exits, self.num_layers, "exits")
        if len(self.thresholds) != max(0, len(self.exits) - 1):
            raise ValueError(f"{len(self.exits)} exits have {len(self.thresholds)} thresholds")
        length, overlap = Timing(self.frontend.shift_ms, self.factor, self.windows).window_frames
        if overlap >= length:
            raise ValueError("the windows are not longer than their overlap")
        if output_length(overlap, self.factor) == 0:
            raise ValueError("the windows do not overlap by a frame of the output")
        return self

    def at(self, depth: int) -> ExportedDepth:
        """Return a depth; raise a ``UserError`` if the file does not have it."""
        for row in self.depths:
            if row.depth == depth:
                return row
        known = ", ".join(str(row.depth) for row in self.depths)
        raise UserError(f"depth {depth}: the model has no such depth; it has {known}")

    def plan(self) -> Plan:
        """Return the layers of each depth."""
        steps = tuple(Step(depth=row.depth, keep=row.keep, score=row.score) for row in self.depths)
        return Plan(
            format=1, num_layers=self.num_layers, strategy=self.strategy, metric=self.metric, dev_set=self.dev_set,
            model_sha256=self.model_sha256, steps=steps,
        )  # fmt: skip
