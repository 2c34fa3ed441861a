"""What an exported file says of itself: FILE.onnx.json. Other programs read it."""

from typing import ClassVar, Literal

from asrprune.config.schema import FrontendConfig
from asrprune.experiment.plan import Keep
from asrprune.runtime.errors import UserError
from asrprune.runtime.records import Record

FACTS = "asrprune"  # key of the metadata that holds the record
Form = Literal["any-depth", "required-keep", "depth"]
Input = Literal["features", "waveform"]
Precision = Literal["float32", "int8", "fp16"]


class ExportedDepth(Record):
    """One depth of an exported model."""

    depth: int
    keep: Keep
    score: float | None  # of the plan, on the dev set
    params_m: float
    rtf: float | None = None  # as `asrprune bench` measured it in torch
    changed: int | None = None  # utterances of the compared set whose text differs from that of float32
    wer: float | None = None  # of the file, on the compared set, in percent
    wer_float32: float | None = None


class Compared(Record):
    """The data on which a file of a lower precision was compared with float32."""

    set: str
    utterances: int


class Exported(Record):
    """FILE.onnx.json, and the metadata of the ONNX file."""

    made_by: ClassVar[str] = "`asrprune export`"
    format: Literal[1]
    form: Form
    input: Input = "features"
    precision: Precision = "float32"
    float32_layers: Keep = ()  # of a file with int8, those that stay in float32
    depth: int  # the depth that runs by default
    depths: tuple[ExportedDepth, ...]  # deepest first
    num_layers: int
    strategy: str
    metric: str | None
    dev_set: str | None
    compared: Compared | None = None
    licence: str | None = None  # of the model, in the words of the one who exports it
    factor: int  # feature frames per frame of the output
    frontend: FrontendConfig  # how features are computed from samples in [-1, 1)
    vocab_size: int
    model_sha256: str
    asrprune: str

    def at(self, depth: int) -> ExportedDepth:
        """Return a depth; raise a ``UserError`` if the file does not have it."""
        for row in self.depths:
            if row.depth == depth:
                return row
        known = ", ".join(str(row.depth) for row in self.depths)
        raise UserError(f"--depth {depth}: the model has no such depth; it has {known}")
