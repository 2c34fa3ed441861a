"""The configuration: one frozen, strict tree of numbers, read from YAML and kept, resolved, with the experiment."""

from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from asrprune.config.lengths import min_frames


def _no_switch(value: Any) -> Any:
    if isinstance(value, bool):  # which Python takes for 1 or 0
        raise ValueError(f"must be no true or false, got {str(value).lower()}")
    return value


Probability = Annotated[float, Field(ge=0.0, lt=1.0)]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[int, BeforeValidator(_no_switch), Field(ge=1)]
Item = TypeVar("Item")


def _some(values: tuple[Item, ...]) -> tuple[Item, ...]:
    if not values:
        raise ValueError("is empty; give a value, or leave the key out")
    return values


def _no_repeats(values: tuple[Item, ...]) -> tuple[Item, ...]:
    if len(set(values)) < len(values):
        raise ValueError(f"has a value twice: {', '.join(map(str, values))}")
    return values


Several = Annotated[tuple[Item, ...], AfterValidator(_some)]
Different = Annotated[Several[Item], AfterValidator(_no_repeats)]
Speeds = Different[Annotated[float, Field(ge=0.5, le=2.0)]]


class Section(BaseModel):
    """Base of all sections: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _empty_is_default(cls, values: Any) -> Any:
        return {} if values is None else values  # YAML's value of `train:` with all its keys commented out

    @field_validator("*", mode="before")
    @classmethod
    def _check_switch(cls, value: Any, info: ValidationInfo) -> Any:
        assert info.field_name is not None
        return value if cls.model_fields[info.field_name].annotation is bool else _no_switch(value)


AnySection = TypeVar("AnySection", bound=Section)


class FrontendConfig(Section):
    """Log-mel filterbank features; the defaults are those of Kaldi and sherpa-onnx."""

    sample_rate: Positive = 16000  # Hz
    num_mels: int = Field(80, ge=4)  # torchaudio makes no fewer
    frame_length_ms: float = Field(25.0, gt=0)
    frame_shift_ms: float = Field(10.0, gt=0)
    low_freq: float = 20.0  # Hz
    high_freq: float = -400.0  # Hz; <= 0 counts down from the Nyquist frequency

    @model_validator(mode="after")
    def _check(self) -> "FrontendConfig":
        if self.frame_shift_ms > self.frame_length_ms:
            raise ValueError(
                f"frame_shift_ms must not exceed frame_length_ms = {self.frame_length_ms:g}, got {self.frame_shift_ms:g}"
            )
        nyquist = self.sample_rate / 2
        high = self.high_freq if self.high_freq > 0 else nyquist + self.high_freq
        if not 0 <= self.low_freq < high <= nyquist:
            raise ValueError(
                f"low_freq and high_freq must ascend and lie in 0..{nyquist:g} Hz, got {self.low_freq:g} and {high:g}"
            )
        return self


class TokenizerConfig(Section):
    """Text units of sentencepiece."""

    type: Literal["bpe", "unigram", "char", "word"] = "bpe"
    vocab_size: Positive | None = 500  # without the blank; None: as many as there are (char, word)

    @model_validator(mode="after")
    def _check(self) -> "TokenizerConfig":
        if self.vocab_size is None and self.type in ("bpe", "unigram"):
            raise ValueError(f"vocab_size must be a number with type {self.type}")
        return self


class AugmentConfig(Section):
    """Training-time augmentation."""

    speeds: Speeds = (1.0,)  # copies of the training set
    volume_db: float = Field(0.0, ge=0.0)  # each utterance is made louder or softer by up to this much
    vocal_tract: float = Field(0.0, ge=0.0, le=0.3)  # frequencies of each utterance are scaled by 1 +- up to this
    num_freq_masks: int = Field(2, ge=0)
    max_freq_mask: int = Field(27, ge=0)  # mel bins
    num_time_masks: int = Field(5, ge=0)
    max_time_mask: float = Field(0.05, ge=0.0, le=1.0)  # share of the utterance, each


class BatchConfig(Section):
    """How utterances are put together."""

    max_frames: Positive = 20000  # padded feature frames in one micro-batch
    accumulate: Positive = 1  # micro-batches in one update


class StochasticDepthConfig(Section):
    """Layers that are skipped at random in training."""

    rate: Probability = 0.3
    mode: Literal["linear", "uniform"] = "linear"


class SubsamplingConfig(Section):
    """What all front ends have."""

    type: str
    channels: Positive | None = None  # of each convolution; None: as many as dim
    factor: Literal[4, 8] = 4  # feature frames in an encoder frame: two or three convolutions of stride 2


class Conv2dConfig(SubsamplingConfig):
    """Convolutions over time and frequency, as in the paper. As wide as the model they cost as much as 9 to 14 layers."""

    type: Literal["conv2d"] = "conv2d"

    @property
    def min_mels(self) -> int:
        """Fewest mel bins: frequency is subsampled as time is."""
        return min_frames(self.factor)


class Conv1dConfig(SubsamplingConfig):
    """Convolutions over time alone: as wide as the model they cost less than a layer. Few channels are a bottleneck."""

    type: Literal["conv1d"] = "conv1d"
    min_mels: ClassVar[int] = 1


def _subsampling_type(value: Any) -> str:
    return str(value.get("type", "conv2d") if isinstance(value, dict) else getattr(value, "type", "conv2d"))


Subsampling = Annotated[
    Annotated[Conv2dConfig, Tag("conv2d")] | Annotated[Conv1dConfig, Tag("conv1d")], Discriminator(_subsampling_type)
]


KINDS_OF_VALUE = ("number", "mapping")
TapWeight = Annotated[
    Annotated[Share, Tag("number")] | Annotated[dict[Positive, Share], Tag("mapping")],
    Discriminator(lambda value: "mapping" if isinstance(value, dict) else "number"),
]


class ModelConfig(Section):
    """Transformer-CTC or Conformer-CTC encoder with intermediate CTC."""

    layer: Literal["transformer", "conformer"] = "transformer"
    num_layers: Positive = 12
    dim: Positive = 256
    heads: Positive = 4
    ffn: Positive = 2048
    subsampling: Subsampling = Conv2dConfig()
    position_scale: float = Field(1.0, gt=0.0)  # factor of a transformer's sinusoids; more makes neighbours easier to find
    conv_kernel: Positive = 31  # frames that a conformer's convolution sees; odd
    conv_norm: Literal["batch", "layer"] = "batch"  # in it
    dropout: Probability = 0.1
    attention_dropout: Probability = 0.0
    taps: tuple[Positive, ...] | None = None  # None: num_layers // 4 and num_layers // 2
    tap_weight: TapWeight = 0.66  # share of the loss of all taps together, or of each; the last layer has the rest
    truncated: dict[Positive, Share] = Field({})  # tap -> share of the updates that run no layer above it; others run all
    stochastic_depth: StochasticDepthConfig = StochasticDepthConfig()
    self_conditioning: bool = False

    @model_validator(mode="before")
    @classmethod
    def _read_conv_channels(cls, values: Any) -> Any:
        """Take the name that earlier versions had for ``subsampling.channels``."""
        if not isinstance(values, dict) or "conv_channels" not in values:
            return values
        if "subsampling" in values:
            raise ValueError("conv_channels is the old name of subsampling.channels; give subsampling alone")
        others = {key: value for key, value in values.items() if key != "conv_channels"}
        return {**others, "subsampling": {"channels": values["conv_channels"]}}

    @model_validator(mode="after")
    def _check(self) -> "ModelConfig":
        mistakes = []
        if self.dim % self.heads:
            mistakes.append(f"dim must be a multiple of heads, but {self.dim} is not one of {self.heads}")
        if self.conv_kernel % 2 == 0:
            mistakes.append(f"conv_kernel must be odd, got {self.conv_kernel}")
        taps = list(self.taps or ())
        if taps != sorted(set(taps)) or any(tap > self.num_layers for tap in taps):
            mistakes.append(f"taps must ascend and lie in 1..num_layers = 1..{self.num_layers}, got {taps}")
        mistakes += self._wrong_shares()
        if mistakes:
            raise ValueError("; ".join(mistakes))
        return self

    def _wrong_shares(self) -> list[str]:
        taps, mistakes = self.tap_layers, []
        if isinstance(self.tap_weight, dict):
            if set(self.tap_weight) != set(taps):
                mistakes.append(f"tap_weight must be a number, or have one for each tap {list(taps)}, got {self.tap_weight}")
            elif sum(self.tap_weight.values()) >= 1.0:
                mistakes.append(f"tap_weight must leave something to the last layer: a sum below 1, got {self.tap_weight}")
        below = [tap for tap in taps if tap < self.num_layers]
        if not set(self.truncated) <= set(below):
            mistakes.append(f"truncated: updates end at taps below the last layer, {below}, got {self.truncated}")
        if self.truncated and self.tap_weight == 0.0:  # or an update that ends at a tap would have a loss of 0 / 0
            mistakes.append("truncated: updates end at taps, so tap_weight must be above 0, got 0")
        if sum(self.truncated.values()) >= 1.0:
            mistakes.append(f"truncated must leave some updates to all layers: a sum below 1, got {self.truncated}")
        return mistakes

    @property
    def exits(self) -> tuple[int, ...]:
        """The layers with a loss of their own: the taps, then the last layer (twice, if a tap is on it)."""
        return (*self.tap_layers, self.num_layers)

    @property
    def exit_weights(self) -> tuple[float, ...]:
        """The share of the loss of each of ``exits``; they sum to 1."""
        taps = self.tap_layers
        if isinstance(self.tap_weight, dict):
            shares = [self.tap_weight[tap] for tap in taps]
        else:
            shares = [self.tap_weight / max(1, len(taps))] * len(taps)
        return (*shares, 1.0 - sum(shares))

    @property
    def tap_layers(self) -> tuple[int, ...]:
        """The tapped layers, 1-based; by default those of the paper's first author, scaled with the depth."""
        if self.taps is not None:
            return self.taps
        return tuple(sorted({tap for tap in (self.num_layers // 4, self.num_layers // 2) if tap >= 1}))


class ScheduleConfig(Section):
    """Learning rate over updates."""

    name: Literal["noam", "cosine"] = "noam"
    peak: float = Field(1e-3, gt=0.0)
    warmup_steps: Positive = 1000
    final: float = Field(0.0, ge=0.0)  # cosine only: the rate at the last update


class TrainConfig(Section):
    """Optimisation and bookkeeping."""

    epochs: Positive = 50
    schedule: ScheduleConfig = ScheduleConfig()
    betas: tuple[Probability, Probability] = (0.9, 0.98)
    eps: float = Field(1e-9, gt=0.0)
    weight_decay: float = Field(0.0, ge=0.0)
    grad_clip: float = Field(5.0, gt=0.0)
    precision: Literal["auto", "float32", "bf16"] = "auto"
    strategy: Literal["ddp", "fsdp"] = "ddp"  # each of several processes holds the model, or a part of it
    log_every_steps: Positive = 50
    checkpoint_every_s: float = Field(120.0, gt=0.0)
    keep_best: Positive = 5
    average: Positive = 5  # best checkpoints that `asrprune average` takes
    dev_every_epochs: Positive = 1
    num_workers: int = Field(1, ge=0)  # processes that read features ahead

    @model_validator(mode="after")
    def _check(self) -> "TrainConfig":
        if self.average > self.keep_best:
            raise ValueError(f"average must not exceed keep_best = {self.keep_best}, got {self.average}")
        return self


Strategy = Literal["top", "every", "greedy", "svcca"]


class PruneConfig(Section):
    """Depths and strategies that are searched, decoded and reported."""

    strategies: Different[Strategy] = ("greedy", "svcca", "top", "every")
    depths: Several[Positive] | None = None  # None: every depth from num_layers to 1 is searched and decoded
    min_depth: Positive = 1
    metric: Literal["wer", "ctc"] = "wer"  # what decides on the dev set: word errors or the loss
    beam: Positive = 3  # greedy goes on from this many sub-models of each depth; above 1 it tries the lowest layers, too
    rerank: Positive = 1  # of so many proposals of svcca for each depth the dev set chooses; 1: it is not decoded
    speeds: Speeds = (1.0,)  # copies of the dev set that layers are chosen on: a small set alone is noisy
    svcca_variance: float = Field(0.99, gt=0.0, le=1.0)
    svcca_frames: Positive = 20000


class GreedyConfig(Section):
    """The best label of every frame."""

    type: Literal["greedy"] = "greedy"


class BeamConfig(Section):
    """Prefix beam search with a language model and expected phrases. Probabilities are weighed as natural logarithms."""

    type: Literal["beam"] = "beam"
    width: Positive = 8  # label sequences that are kept from frame to frame
    min_prob: Probability = 0.001  # labels that are less probable in a frame are not tried there
    lm: str | None = None  # ARPA file, plain or gzipped, relative to where the command runs
    lm_weight: float | None = Field(None, ge=0.0, le=10.0)  # None: what `asrprune tune-lm` found on the dev set, else 0.5
    word_bonus: float | None = Field(None, ge=-20.0, le=20.0)  # for each word; None: as lm_weight, else 0
    unknown_penalty: float = Field(0.0, ge=0.0, le=100.0)  # for each word that the model lacks, beside what it says of <unk>
    context: tuple[str, ...] = ()  # words and phrases that are expected
    context_bonus: float = Field(1.0, ge=0.0, le=20.0)  # for each letter of these, if it is spelled out


DECODERS = ("greedy", "beam")
Decoding = Annotated[
    Annotated[GreedyConfig, Tag("greedy")] | Annotated[BeamConfig, Tag("beam")],
    Discriminator(lambda value: str(value.get("type", "greedy") if isinstance(value, dict) else getattr(value, "type", "greedy"))),
]


class DecodeConfig(Section):
    """How trained models are run: in search, decoding, transcription and benchmarks."""

    decoder: Decoding = GreedyConfig()

    max_frames: Positive = 20000  # padded feature frames in one batch
    # float32: the same text in any batch. auto: bfloat16 where it is native; docs/performance.md has what it saves, and costs.
    precision: Literal["auto", "float32", "bf16"] = "float32"


class BenchConfig(Section):
    """What `asrprune bench` measures."""

    utterances: Positive = 100
    batch: Positive = 1
    threads: int = Field(0, ge=0)  # 0: all cores
    repeats: Positive = 5


class Config(Section):
    """Everything that a recipe chooses; the only path in it is that of a language model."""

    seed: int = Field(1, ge=0)
    frontend: FrontendConfig = FrontendConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    augment: AugmentConfig = AugmentConfig()
    batch: BatchConfig = BatchConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    prune: PruneConfig = PruneConfig()
    decode: DecodeConfig = DecodeConfig()
    bench: BenchConfig = BenchConfig()

    @model_validator(mode="after")
    def _check(self) -> "Config":
        front_end = self.model.subsampling
        if self.frontend.num_mels < front_end.min_mels:
            raise ValueError(
                f"frontend.num_mels must be {front_end.min_mels} or more with model.subsampling {front_end.type} of factor"
                f" {front_end.factor}, got {self.frontend.num_mels}"
            )
        least, most = self.prune.min_depth, self.model.num_layers
        if least > most:
            raise ValueError(f"prune.min_depth must not exceed model.num_layers = {most}, got {least}")
        wrong = [depth for depth in self.prune.depths or () if not least <= depth <= most]
        if wrong:
            raise ValueError(f"prune.depths must lie in prune.min_depth..model.num_layers = {least}..{most}, got {wrong}")
        return self

    def depths(self) -> tuple[int, ...]:
        """The depths that are decoded and reported, deepest first; the full depth is always among them."""
        chosen = self.prune.depths or range(self.prune.min_depth, self.model.num_layers + 1)
        return tuple(sorted({*chosen, self.model.num_layers}, reverse=True))
