"""The configuration: one frozen, strict tree of numbers, read from YAML and kept, resolved, with the experiment.

A number that has no effect beside the others is an error: numbers of one alternative are in a section of their own
(``model.layer``), and what else can be idle is named by ``idle`` of its section. docs/config.md is made from this file.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from asrprune.config.lengths import min_frames
from asrprune.config.section import (
    Different,
    NoSwitch,
    Positive,
    Probability,
    Real,
    Section,
    Several,
    Share,
    Whole,
    setting,
    spelt_out,
)
from asrprune.config.strategies import Strategy, strategy_name

Speeds = Different[Annotated[float, Field(ge=0.5, le=2.0), NoSwitch]]


class FrontendConfig(Section):
    """Log-mel filterbank features; the defaults are those of Kaldi and sherpa-onnx."""

    affects = ("features", "learning")
    sample_rate: Positive = setting(16000, "sample rate of the audio", unit="Hz")
    num_mels: Whole = setting(80, "mel filters", ge=4)  # torchaudio makes no fewer
    frame_length_ms: Real = setting(25.0, "length of a frame", unit="ms", gt=0)
    frame_shift_ms: Real = setting(10.0, "from the start of a frame to that of the next", unit="ms", gt=0)
    low_freq: Real = setting(20.0, "lower end of the lowest filter", unit="Hz")
    high_freq: Real = setting(
        -400.0, "upper end of the highest filter; 0 and below count from the Nyquist frequency", unit="Hz"
    )

    def mistakes(self) -> list[str]:
        """Frames overlap or meet; the filters lie below the Nyquist frequency."""
        found = []
        if self.frame_shift_ms > self.frame_length_ms:
            found.append(
                f"frame_shift_ms must not exceed frame_length_ms = {self.frame_length_ms:g}, got {self.frame_shift_ms:g}"
            )
        nyquist = self.sample_rate / 2
        high = self.high_freq if self.high_freq > 0 else nyquist + self.high_freq
        if not 0 <= self.low_freq < high <= nyquist:
            found.append(f"low_freq and high_freq must ascend and lie in 0..{nyquist:g} Hz, got {self.low_freq:g} and {high:g}")
        return found


class TokenizerConfig(Section):
    """Text units of sentencepiece."""

    affects = ("learning",)
    type: Literal["bpe", "unigram", "char", "word"] = setting("bpe", "kind of text units")
    vocab_size: Positive | None = setting(
        500, "text units without the blank, at most; null: as many as there are (char, word)", unit="units"
    )

    def mistakes(self) -> list[str]:
        """Only characters and words can be counted."""
        if self.vocab_size is None and self.type in ("bpe", "unigram"):
            return [f"vocab_size must be a number with type {self.type}"]
        return []


class AugmentConfig(Section):
    """Changes to training utterances, so that they are never twice the same."""

    affects = ("learning",)
    speeds: Speeds = setting((1.0,), "copies of the training set, each at a speed", affects=("features", "learning"))
    volume_db: Real = setting(0.0, "each utterance is made louder or softer by up to this much", unit="dB", ge=0.0)
    vocal_tract: Real = setting(0.0, "frequencies of each utterance are scaled by 1 +- up to this", ge=0.0, le=0.3)
    num_freq_masks: Whole = setting(2, "bands that are masked in each utterance", ge=0)
    max_freq_mask: Whole = setting(27, "widest band", unit="mel bins", ge=0)
    num_time_masks: Whole = setting(5, "spans that are masked in each utterance", ge=0)
    max_time_mask: Real = setting(0.05, "longest span", unit="share of the utterance", ge=0.0, le=1.0)

    def idle(self) -> dict[str, str]:
        """Masks need a number and a width."""
        pairs = (("num_freq_masks", "max_freq_mask"), ("num_time_masks", "max_time_mask"))
        found = {}
        for number, width in pairs:
            if getattr(self, number) == 0:
                found[width] = f"with {number} 0"
            elif getattr(self, width) == 0:
                found[number] = f"with {width} 0"
        return found


class BatchConfig(Section):
    """Batches of utterances in training."""

    affects = ("learning",)
    max_frames: Positive = setting(20000, "longest micro-batch, padding included", unit="feature frames")
    accumulate: Positive = setting(1, "micro-batches in one update")


class StochasticDepthConfig(Section):
    """Layers that are skipped at random in training."""

    affects = ("learning",)
    rate: Probability = setting(0.3, "probability that the last layer is skipped in an update")
    mode: Literal["linear", "uniform"] = setting("linear", "linear: lower layers are skipped less often; uniform: all alike")

    def idle(self) -> dict[str, str]:
        """Without skipping all modes are one."""
        return {"mode": "with rate 0"} if self.rate == 0.0 else {}


class SubsamplingConfig(Section):
    """Numbers of all front ends."""

    affects = ("learning",)
    type: str
    channels: Positive | None = setting(None, "channels of each convolution; null: as many as model.dim")
    factor: Literal[4, 8] = setting(
        4, "feature frames that become one of the encoder: two or three convolutions of stride 2", unit="feature frames"
    )


class Conv2dConfig(SubsamplingConfig):
    """Convolutions over time and frequency, as in the paper. As wide as the model they cost as much as 9 to 14 layers."""

    type: Literal["conv2d"] = setting("conv2d", "type of front end")

    @property
    def min_mels(self) -> int:
        """Fewest mel bins: frequency is subsampled as time is."""
        return min_frames(self.factor)


class Conv1dConfig(SubsamplingConfig):
    """Convolutions over time alone: as wide as the model they cost less than a layer. Few channels are a bottleneck."""

    type: Literal["conv1d"] = setting("conv1d", "type of front end")
    min_mels: ClassVar[int] = 1


Subsampling = Annotated[Conv2dConfig | Conv1dConfig, Field(discriminator="type"), BeforeValidator(spelt_out("type", "conv2d"))]


class LayerConfig(Section):
    """Numbers of all layer types, whose module is ``asrprune/model/<type>.py``."""

    affects = ("learning",)
    type: str


class TransformerConfig(LayerConfig):
    """Self-attention, then a feed-forward network; positions are added to what goes into the first layer."""

    type: Literal["transformer"] = setting("transformer", "type of layer")
    position_scale: Real = setting(1.0, "factor of the sinusoids; more makes neighbours easier to find", gt=0.0)


class ConformerConfig(LayerConfig):
    """Self-attention with relative positions and a convolution between two feed-forward networks."""

    type: Literal["conformer"] = setting("conformer", "type of layer")
    kernel: Positive = setting(31, "frames that a convolution sees; odd", unit="encoder frames")
    norm: Literal["batch", "layer"] = setting("batch", "norm in the convolution module")

    def mistakes(self) -> list[str]:
        """A frame is in the middle of what it sees."""
        return [f"kernel must be odd, got {self.kernel}"] if self.kernel % 2 == 0 else []


class EBranchformerConfig(LayerConfig):
    """Self-attention with relative positions beside a gated branch with a convolution, between two feed-forward networks."""

    type: Literal["ebranchformer"] = setting("ebranchformer", "type of layer")
    kernel: Positive = setting(31, "frames that the convolution of the gate sees; odd", unit="encoder frames")
    merge_kernel: Positive = setting(31, "frames that the convolution over both branches sees; odd", unit="encoder frames")
    cgmlp: Positive | None = setting(None, "hidden units of the gated branch, half of which gate the others; null: 4 * dim")

    def mistakes(self) -> list[str]:
        """A frame is in the middle of what it sees; the gate is as wide as what it gates."""
        kernels = {"kernel": self.kernel, "merge_kernel": self.merge_kernel}
        found = [f"{name} must be odd, got {value}" for name, value in kernels.items() if value % 2 == 0]
        if self.cgmlp is not None and self.cgmlp % 2:
            found.append(f"cgmlp must be even, as half of it gates the other half, got {self.cgmlp}")
        return found


Layer = Annotated[
    TransformerConfig | ConformerConfig | EBranchformerConfig,
    Field(discriminator="type"),
    BeforeValidator(spelt_out("type", "transformer")),
]


class ModelConfig(Section):
    """The encoder, with intermediate CTC."""

    affects = ("learning",)
    layer: Layer = TransformerConfig()
    num_layers: Positive = setting(12, "layers of the full model")
    dim: Positive = setting(256, "width of the model; a multiple of heads")
    heads: Positive = setting(4, "attention heads")
    ffn: Positive = setting(2048, "width of the feed-forward networks within a layer")
    subsampling: Subsampling = Conv2dConfig()
    dropout: Probability = setting(0.1, "dropout on what each branch of a layer adds, within it, and after the front end")
    attention_dropout: Probability = setting(0.0, "dropout on attention weights")
    taps: tuple[Positive, ...] | None = setting(
        None, "layers with a CTC loss of their own; null: after a quarter and half of the layers", unit="layers"
    )
    tap_weight: Share = setting(0.66, "share of the loss of all taps together; the last layer has the rest")
    truncated: dict[Positive, Share] = setting(
        {}, "tap -> share of the updates that run no layer above it; the others run all", unit="share of the updates"
    )
    stochastic_depth: StochasticDepthConfig = StochasticDepthConfig()
    self_conditioning: bool = setting(False, "what a tap recognises is fed to the layers above it")

    def mistakes(self) -> list[str]:
        """Heads share the width; taps and their weights fit the layers."""
        found = []
        if self.dim % self.heads:
            found.append(f"dim must be a multiple of heads, but {self.dim} is not one of {self.heads}")
        taps = list(self.taps or ())
        if taps != sorted(set(taps)) or any(tap > self.num_layers for tap in taps):
            found.append(f"taps must ascend and lie in 1..num_layers = 1..{self.num_layers}, got {taps}")
        return found + self._wrong_shares()

    def idle(self) -> dict[str, str]:
        """The loss of a tap on the last layer is that of the last layer, and nothing is above it."""
        reason = "without a tap below the last layer"
        return {} if self.inner_taps else {"tap_weight": reason, "self_conditioning": reason}

    def _wrong_shares(self) -> list[str]:
        found = []
        if not set(self.truncated) <= set(self.inner_taps):
            below = list(self.inner_taps)
            found.append(f"truncated: updates end at taps below the last layer, {below}, got {self.truncated}")
        if 0.0 in self.truncated.values():
            found.append(f"truncated has no effect with a share of 0; leave that tap out, got {self.truncated}")
        if self.truncated and self.tap_weight == 0.0:  # or an update that ends at a tap would have a loss of 0 / 0
            found.append("truncated: updates end at taps, so tap_weight must be above 0, got 0")
        if sum(self.truncated.values()) >= 1.0:
            found.append(f"truncated must leave some updates to all layers: a sum below 1, got {self.truncated}")
        return found

    @property
    def exits(self) -> tuple[int, ...]:
        """The layers with a loss of their own: the taps, then the last layer (twice, if a tap is on it)."""
        return (*self.tap_layers, self.num_layers)

    @property
    def exit_weights(self) -> tuple[float, ...]:
        """The share of the loss of each of ``exits``; they sum to 1."""
        taps = len(self.tap_layers)
        share = self.tap_weight if taps else 0.0
        return (*(share / taps for _ in range(taps)), 1.0 - share)

    @property
    def tap_layers(self) -> tuple[int, ...]:
        """The tapped layers, 1-based; by default those of the paper's first author, scaled with the depth."""
        if self.taps is not None:
            return self.taps
        return tuple(sorted({tap for tap in (self.num_layers // 4, self.num_layers // 2) if tap >= 1}))

    @property
    def inner_taps(self) -> tuple[int, ...]:
        """The tapped layers below the last one."""
        return tuple(tap for tap in self.tap_layers if tap < self.num_layers)


class ScheduleConfig(Section):
    """Numbers of all schedules of the learning rate."""

    affects = ("learning",)
    name: str
    peak: Real = setting(1e-3, "highest learning rate, at the end of the warm-up", gt=0.0)
    warmup_steps: Positive = setting(1000, "updates in which the rate rises linearly", unit="updates")


class NoamConfig(ScheduleConfig):
    """After the warm-up the learning rate falls with the inverse square root of the update."""

    name: Literal["noam"] = setting("noam", "schedule of the learning rate")


class CosineConfig(ScheduleConfig):
    """After the warm-up the learning rate falls with half a cosine, until the last update."""

    name: Literal["cosine"] = setting("cosine", "schedule of the learning rate")
    final: Real = setting(0.0, "learning rate of the last update", ge=0.0)


Schedule = Annotated[NoamConfig | CosineConfig, Field(discriminator="name"), BeforeValidator(spelt_out("name", "noam"))]


class TrainConfig(Section):
    """Optimisation and bookkeeping."""

    affects = ("learning",)
    epochs: Positive = setting(50, "passes over the training set")
    schedule: Schedule = NoamConfig()
    betas: tuple[Probability, Probability] = setting((0.9, 0.98), "AdamW: decay of the means of gradients and of their squares")
    eps: Real = setting(1e-9, "AdamW: what is added to the root of the mean square", gt=0.0)
    weight_decay: Real = setting(0.0, "AdamW: weight decay, on matrices alone", ge=0.0)
    grad_clip: Real = setting(5.0, "largest norm of a gradient; longer ones are shortened to it", gt=0.0)
    precision: Literal["auto", "float32", "bf16"] = setting("auto", "arithmetic; auto: bf16 where it is native")
    strategy: Literal["ddp", "fsdp"] = setting(
        "ddp", "of several processes each holds the model (ddp) or a part of it (fsdp)", affects=("pace",)
    )
    log_every_steps: Positive = setting(50, "between two lines of train.jsonl", unit="updates", affects=("pace",))
    checkpoint_every_s: Real = setting(120.0, "between two checkpoints to go on from", unit="s", affects=("pace",), gt=0.0)
    keep_best: Positive = setting(5, "epochs with the fewest dev errors whose weights are kept", unit="epochs")
    average: Positive = setting(
        5, "of these, how many are averaged to the model", unit="epochs", affects=("search", "decoding")
    )
    dev_every_epochs: Positive = setting(1, "between two evaluations on the dev set", unit="epochs")
    num_workers: Whole = setting(1, "processes that read features ahead", affects=("pace",), ge=0)

    def mistakes(self) -> list[str]:
        """Refuse to average more epochs than are kept."""
        if self.average > self.keep_best:
            return [f"average must not exceed keep_best = {self.keep_best}, got {self.average}"]
        return []


def _todays_name(value: Any) -> Any:
    return strategy_name(value) if isinstance(value, str) else value


StrategyName = Annotated[Strategy, BeforeValidator(_todays_name)]


class PruneConfig(Section):
    """Depths and strategies that are searched, decoded and reported."""

    affects = ("search",)
    strategies: Different[StrategyName] = setting(
        ("iterative", "svcca", "influence", "lowest", "every"), "how layers are chosen"
    )
    depths: Several[Positive] | None = setting(
        None, "depths that are searched and decoded, beside the full one; null: all from min_depth on", unit="layers"
    )
    min_depth: Positive = setting(1, "least depth, where depths does not say it", unit="layers")
    metric: Literal["wer", "ctc"] = setting("wer", "what decides on the dev set: word errors or the loss")
    beam: Positive = setting(
        3, "iterative goes on from so many sub-models of each depth; above 1 it tries the lowest layers, too"
    )
    rerank: Positive = setting(
        1, "of so many proposals of svcca for each depth the dev set chooses; 1: it is not decoded", unit="proposals"
    )
    speeds: Speeds = setting(
        (1.0,), "copies of the dev set that layers are chosen on: a small set alone is noisy", affects=("features", "search")
    )
    svcca_variance: Real = setting(0.99, "share of a layer's variance that SVCCA compares", gt=0.0, le=1.0)
    svcca_frames: Positive = setting(20000, "frames that SVCCA compares, at most", unit="encoder frames")

    def idle(self) -> dict[str, str]:
        """Some numbers are those of one strategy."""
        iterative, svcca = "iterative" in self.strategies, "svcca" in self.strategies
        found = {} if self.depths is None else {"min_depth": "beside depths"}
        if not iterative:
            found["beam"] = "without the strategy iterative"
        if not svcca:
            found["rerank"] = "without the strategy svcca"
        if not iterative and not (svcca and self.rerank > 1):
            found["metric"] = "without the strategy iterative, or svcca with a rerank above 1"
        return found


class DecoderConfig(Section):
    """Numbers of all decoders."""

    affects = ("search", "decoding", "bench")
    type: str


class GreedyConfig(DecoderConfig):
    """The best label of every frame."""

    type: Literal["greedy"] = setting("greedy", "decoder")


class BeamConfig(DecoderConfig):
    """Prefix beam search, with a language model of words and with phrases that are expected."""

    type: Literal["beam"] = setting("beam", "decoder")
    width: Positive = setting(8, "label sequences that are kept from frame to frame", unit="sequences")
    min_prob: Probability = setting(0.001, "labels that are less probable in a frame are not tried there")
    lm: str | None = setting(None, "ARPA file, plain or gzipped, relative to where the command runs; null: no language model")
    lm_weight: Annotated[Real, Field(ge=0.0, le=10.0)] | None = setting(
        None, "weight of its log-probabilities; null: what `asrprune tune-lm` found, else 0.5"
    )
    word_bonus: Annotated[Real, Field(ge=-20.0, le=20.0)] | None = setting(
        None, "what each word adds to the score; null: what `asrprune tune-lm` found, else 0", unit="nats"
    )
    unknown_penalty: Real = setting(
        0.0, "what a word that the language model lacks costs, beside its probability", unit="nats", ge=0.0, le=100.0
    )
    context: tuple[str, ...] = setting((), "words and phrases that are expected", unit="phrases")
    context_bonus: Real = setting(1.0, "what each letter of a whole one adds to the score", unit="nats", ge=0.0, le=20.0)

    def idle(self) -> dict[str, str]:
        """Some numbers are those of a language model or of phrases."""
        found = {} if self.lm else dict.fromkeys(("lm_weight", "unknown_penalty"), "without lm")
        return found if self.context else {**found, "context_bonus": "without context"}


Decoding = Annotated[GreedyConfig | BeamConfig, Field(discriminator="type"), BeforeValidator(spelt_out("type", "greedy"))]


class DecodeConfig(Section):
    """Running trained models: in search, decoding, transcription and benchmarks."""

    affects = ("search", "decoding", "bench")
    decoder: Decoding = GreedyConfig()
    # Any batch gives the same text, to float32.
    max_frames: Positive = setting(20000, "longest batch, padding included", unit="feature frames", affects=("pace",))
    precision: Literal["auto", "float32", "bf16"] = setting(
        "float32",
        "arithmetic; float32 gives the same text in any batch, auto is bf16 where it is native: see performance.md",
    )


class ScoringConfig(Section):
    """What is counted in the transcripts."""

    affects = ("report",)
    unit: Literal["word", "phone"] = setting(
        "word", "what the blanks of the transcripts separate; phone: results and messages say PER, for phone error rate"
    )

    def in_units(self, text: str) -> str:
        """A text about words and their WER as one about these units.

        >>> ScoringConfig(unit="phone").in_units("Word error rate (WER), in words")
        'Phone error rate (PER), in phones'
        """
        if self.unit == "word":
            return text
        return text.replace("WER", "PER").replace("word", self.unit).replace("Word", self.unit.capitalize())


class BenchConfig(Section):
    """Speed measurements of `asrprune bench`."""

    affects = ("bench",)
    utterances: Positive = setting(100, "utterances that are recognised")
    batch: Positive = setting(1, "utterances at a time")
    threads: Whole = setting(0, "CPU threads; 0: all cores", ge=0)
    repeats: Positive = setting(5, "times that each depth is measured")


class Config(Section):
    """Everything that a recipe chooses; the only path in it is that of a language model."""

    affects = ("learning",)
    seed: Whole = setting(1, "start of all random numbers", ge=0)
    frontend: FrontendConfig = FrontendConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    augment: AugmentConfig = AugmentConfig()
    batch: BatchConfig = BatchConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    prune: PruneConfig = PruneConfig()
    decode: DecodeConfig = DecodeConfig()
    scoring: ScoringConfig = ScoringConfig()
    bench: BenchConfig = BenchConfig()

    def mistakes(self) -> list[str]:
        """The front end has enough filters; depths are those of the model."""
        front_end, found = self.model.subsampling, []
        if self.frontend.num_mels < front_end.min_mels:
            found.append(
                f"frontend.num_mels must be {front_end.min_mels} or more with model.subsampling {front_end.type} of factor"
                f" {front_end.factor}, got {self.frontend.num_mels}"
            )
        most = self.model.num_layers
        if self.prune.min_depth > most:
            found.append(f"prune.min_depth must not exceed model.num_layers = {most}, got {self.prune.min_depth}")
        if wrong := [depth for depth in self.prune.depths or () if depth > most]:
            found.append(f"prune.depths must lie in 1..model.num_layers = 1..{most}, got {wrong}")
        return found

    def depths(self) -> tuple[int, ...]:
        """The depths that are decoded and reported, deepest first; the full depth is always among them."""
        chosen = self.prune.depths or range(self.prune.min_depth, self.model.num_layers + 1)
        return tuple(sorted({*chosen, self.model.num_layers}, reverse=True))
