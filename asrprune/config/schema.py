"""The configuration: one frozen, strict tree of numbers, read from YAML and saved, with all defaults, in the experiment.

A number that has no effect is an error. The numbers of an alternative are in a separate section (``model.layer``). If another
number can have no effect, the method ``idle`` of its section names it. docs/config.md is generated from this file.
"""

from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BeforeValidator, Field

from asrprune.config.lengths import min_frames
from asrprune.config.section import (
    Bounded,
    Different,
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
from asrprune.config.strategies import NEEDS, Effort, Strategy, strategy_name

MOST_LAYERS = 1000
RATES = range(4000, 192_001)  # Hz, of models and of recordings
Speeds = Different[Annotated[float, Field(ge=0.5, le=2.0), Bounded]]


class FrontendConfig(Section):
    """Log-mel filterbank features; the defaults are those of Kaldi and sherpa-onnx."""

    affects = ("features", "learning")
    sample_rate: Whole = setting(16000, "sample rate of the audio", unit="Hz", ge=RATES[0], le=RATES[-1])
    num_mels: Whole = setting(80, "number of mel filters", ge=4, le=1000)  # the minimum of torchaudio
    frame_length_ms: Real = setting(25.0, "length of a frame", unit="ms", gt=0, le=1000)
    frame_shift_ms: Real = setting(10.0, "time between the starts of two frames", unit="ms", gt=0)
    low_freq: Real = setting(20.0, "lower end of the lowest filter", unit="Hz")
    high_freq: Real = setting(
        -400.0, "upper end of the highest filter; a value of 0 or below is added to the Nyquist frequency", unit="Hz"
    )

    @property
    def shift(self) -> int:
        """The samples between the starts of two frames."""
        return int(self.sample_rate * self.frame_shift_ms / 1000)

    @property
    def shift_ms(self) -> float:
        """The time that these samples last: at 22,050 Hz 9.977 ms, if ``frame_shift_ms`` is 10."""
        return 1000 * self.shift / self.sample_rate

    def mistakes(self) -> list[str]:
        """Check that frames leave no gaps, and that the filters lie below the Nyquist frequency."""
        found = []
        if self.frame_shift_ms > self.frame_length_ms:
            found.append(
                f"frame_shift_ms must not exceed frame_length_ms = {self.frame_length_ms:g}, got {self.frame_shift_ms:g}"
            )
        if self.frame_shift_ms * self.sample_rate < 1000:
            found.append(f"frame_shift_ms must not be shorter than a sample, got {self.frame_shift_ms:g}")
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
        500, "largest number of text units, without the blank; null: no limit (char and word only)", unit="units"
    )

    def mistakes(self) -> list[str]:
        """Check that BPE and unigram have a size."""
        if self.vocab_size is None and self.type in ("bpe", "unigram"):
            return [f"vocab_size must be a number with type {self.type}"]
        return []


class AugmentConfig(Section):
    """Random changes of training utterances."""

    affects = ("learning",)
    speeds: Speeds = setting((1.0,), "speed factors; the training set has one copy per speed", affects=("features", "learning"))
    volume_db: Real = setting(0.0, "largest random change of the level of an utterance, up or down", unit="dB", ge=0.0)
    vocal_tract: Real = setting(
        0.0, "frequencies of each utterance are scaled by a random factor from 1 - this to 1 + this", ge=0.0, le=0.3
    )
    num_freq_masks: Whole = setting(2, "frequency bands masked in each utterance", ge=0)
    max_freq_mask: Whole = setting(27, "largest width of a band", unit="mel bins", ge=0)
    num_time_masks: Whole = setting(5, "time spans masked in each utterance", ge=0)
    max_time_mask: Real = setting(0.05, "largest length of a span", unit="share of the utterance", ge=0.0, le=1.0)

    def idle(self) -> dict[str, str]:
        """Masks have no effect if their number or their width is 0."""
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
    max_frames: Positive = setting(20000, "largest micro-batch, padding included", unit="feature frames")
    accumulate: Positive = setting(1, "number of micro-batches in an update")


class StochasticDepthConfig(Section):
    """Random skipping of layers in training."""

    affects = ("learning",)
    rate: Probability = setting(0.3, "probability that the last layer is skipped in an update")
    mode: Literal["linear", "uniform"] = setting(
        "linear", "linear: the probability rises with the layer; uniform: it is the same for all layers"
    )

    def idle(self) -> dict[str, str]:
        """Name the mode: it has no effect at rate 0."""
        return {"mode": "with rate 0"} if self.rate == 0.0 else {}


class SubsamplingConfig(Section):
    """Numbers of all front ends."""

    affects = ("learning",)
    type: str
    channels: Positive | None = setting(None, "channels of each convolution; null: as many as model.dim")
    factor: Literal[4, 8] = setting(
        4, "feature frames per encoder frame; two (4) or three (8) convolutions of stride 2", unit="feature frames"
    )


class Conv2dConfig(SubsamplingConfig):
    """Convolutions over time and frequency, as in the paper. With model.dim channels they cost as much as 9 to 14 layers."""

    type: Literal["conv2d"] = setting("conv2d", "type of front end")

    @property
    def min_mels(self) -> int:
        """The smallest number of mel filters: frequency is subsampled in the same way as time."""
        return min_frames(self.factor)


class Conv1dConfig(SubsamplingConfig):
    """Convolutions over time only. With model.dim channels they cost less than a layer; few channels are a bottleneck."""

    type: Literal["conv1d"] = setting("conv1d", "type of front end")
    min_mels: ClassVar[int] = 1


Subsampling = Annotated[Conv2dConfig | Conv1dConfig, Field(discriminator="type"), BeforeValidator(spelt_out("type", "conv2d"))]


class LayerConfig(Section):
    """Numbers of all layer types. The module of a type is ``asrprune/model/<type>.py``."""

    affects = ("learning",)
    type: str


class TransformerConfig(LayerConfig):
    """Self-attention, then a feed-forward network; positions are added to the input of the first layer."""

    type: Literal["transformer"] = setting("transformer", "type of layer")
    position_scale: Real = setting(
        1.0, "factor of the sinusoidal positions; with a large factor the model tells the order of frames more easily", gt=0.0
    )


class ConformerConfig(LayerConfig):
    """Self-attention with relative positions and a convolution between two feed-forward networks."""

    type: Literal["conformer"] = setting("conformer", "type of layer")
    kernel: Positive = setting(31, "kernel of the convolution; odd", unit="encoder frames")
    norm: Literal["batch", "layer"] = setting("batch", "norm in the convolution module")

    def mistakes(self) -> list[str]:
        """Check that the kernel is odd, so that a frame is in its middle."""
        return [f"kernel must be odd, got {self.kernel}"] if self.kernel % 2 == 0 else []


class EBranchformerConfig(LayerConfig):
    """Self-attention with relative positions beside a gated branch with a convolution, between two feed-forward networks."""

    type: Literal["ebranchformer"] = setting("ebranchformer", "type of layer")
    kernel: Positive = setting(31, "kernel of the convolution of the gate; odd", unit="encoder frames")
    merge_kernel: Positive = setting(31, "kernel of the convolution that merges the branches; odd", unit="encoder frames")
    cgmlp: Positive | None = setting(None, "hidden units of the gated branch, one half gates the other; null: 4 * dim")

    def mistakes(self) -> list[str]:
        """Check that kernels are odd, and that the gated branch has two equal halves."""
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
    num_layers: Positive = setting(12, "number of layers of the full model", le=MOST_LAYERS)
    dim: Positive = setting(256, "width of the model; a multiple of heads")
    heads: Positive = setting(4, "number of attention heads")
    ffn: Positive = setting(2048, "width of the feed-forward networks within a layer")
    subsampling: Subsampling = Conv2dConfig()
    dropout: Probability = setting(0.1, "dropout in each branch of a layer, on its output, and after the front end")
    attention_dropout: Probability = setting(0.0, "dropout on attention weights")
    taps: tuple[Positive, ...] | None = setting(
        None, "layers with an intermediate CTC loss; null: a quarter and half of num_layers", unit="layers"
    )
    tap_weight: Share = setting(0.66, "weight of the loss of all taps together; the last layer has the rest")
    truncated: dict[Positive, Share] = setting(
        {}, "tap -> share of the updates that end at it; the other updates run all layers", unit="share of the updates"
    )
    grow: dict[Positive, Positive] = setting(
        {}, "tap -> number of updates from the start in which no layer above it runs", unit="updates"
    )
    stochastic_depth: StochasticDepthConfig = StochasticDepthConfig()
    self_conditioning: bool = setting(False, "the posteriors of each tap are added to the input of the next layer")

    def mistakes(self) -> list[str]:
        """Check that the heads divide the width, and that taps and truncated updates fit the layers."""
        found = []
        if self.dim % self.heads:
            found.append(f"dim must be a multiple of heads, but {self.dim} is not one of {self.heads}")
        taps = list(self.taps or ())
        if taps != sorted(set(taps)) or any(tap > self.num_layers for tap in taps):
            found.append(f"taps must ascend and lie in 1..num_layers = 1..{self.num_layers}, got {taps}")
        return found + self._wrong_ends()

    def idle(self) -> dict[str, str]:
        """Name the numbers of taps: a tap on the last layer has the loss of the last layer, and no layer above it."""
        reason = "without a tap below the last layer"
        return {} if self.inner_taps else {"tap_weight": reason, "self_conditioning": reason}

    def _wrong_ends(self) -> list[str]:
        """Check the two numbers that let updates end at taps."""
        found = []
        for name, given in (("truncated", self.truncated), ("grow", self.grow)):
            if not set(given) <= set(self.inner_taps):
                below = list(self.inner_taps)
                found.append(f"{name}: updates end at taps below the last layer, {below}, got {given}")
            if given and self.tap_weight == 0.0:  # the weights of an update that ends at a tap would be 0 / 0
                found.append(f"{name}: updates end at taps, so tap_weight must be above 0, got 0")
        if 0.0 in self.truncated.values():
            found.append(f"truncated has no effect with a share of 0; leave that tap out, got {self.truncated}")
        if sum(self.truncated.values()) >= 1.0:
            found.append(f"truncated must leave some updates to all layers: a sum below 1, got {self.truncated}")
        lengths = [until for _, until in sorted(self.grow.items())]
        if lengths != sorted(set(lengths)) or 1 in lengths:  # the first update runs all layers
            found.append(f"grow: each tap needs more updates than the tap below it, and at least 2, got {self.grow}")
        return found

    @property
    def exits(self) -> tuple[int, ...]:
        """The layers with a CTC loss: the taps, then the last layer (twice, if a tap is on it)."""
        return (*self.tap_layers, self.num_layers)

    @property
    def exit_weights(self) -> tuple[float, ...]:
        """The weight of the loss of each of ``exits``; the weights sum to 1."""
        taps = len(self.tap_layers)
        share = self.tap_weight if taps else 0.0
        return (*(share / taps for _ in range(taps)), 1.0 - share)

    @property
    def tap_layers(self) -> tuple[int, ...]:
        """The layers with a tap, from 1; the default scales the taps of the paper's first author with the depth."""
        if self.taps is not None:
            return self.taps
        return tuple(sorted({tap for tap in (self.num_layers // 4, self.num_layers // 2) if tap >= 1}))

    @property
    def inner_taps(self) -> tuple[int, ...]:
        """The layers with a tap, without the last layer."""
        return tuple(tap for tap in self.tap_layers if tap < self.num_layers)


class ScheduleConfig(Section):
    """Numbers of all learning-rate schedules."""

    affects = ("learning",)
    name: str
    peak: Real = setting(1e-3, "highest learning rate, at the end of the warm-up", gt=0.0)
    warmup_steps: Positive = setting(1000, "length of the linear warm-up", unit="updates")


class NoamConfig(ScheduleConfig):
    """After the warm-up the learning rate falls with the inverse square root of the number of updates."""

    name: Literal["noam"] = setting("noam", "schedule of the learning rate")


class CosineConfig(ScheduleConfig):
    """After the warm-up the learning rate follows half a cosine down to the last update."""

    name: Literal["cosine"] = setting("cosine", "schedule of the learning rate")
    final: Real = setting(0.0, "learning rate of the last update", ge=0.0)


Schedule = Annotated[NoamConfig | CosineConfig, Field(discriminator="name"), BeforeValidator(spelt_out("name", "noam"))]


class TrainConfig(Section):
    """Optimisation, checkpoints and logs."""

    affects = ("learning",)
    epochs: Positive = setting(50, "passes over the training set")
    schedule: Schedule = NoamConfig()
    betas: tuple[Probability, Probability] = setting(
        (0.9, 0.98), "AdamW: decay rates of the running means of the gradient and of its square"
    )
    eps: Real = setting(1e-9, "AdamW: added to the denominator", gt=0.0)
    weight_decay: Real = setting(0.0, "AdamW: weight decay, on matrices only", ge=0.0)
    grad_clip: Real = setting(5.0, "largest norm of the gradient; a larger gradient is scaled down to it", gt=0.0)
    consistency: Real = setting(
        0.0,
        "weight of the divergence between the outputs for two augmented views of each utterance (CR-CTC); 0: one view;"
        " otherwise an update takes twice the time and memory",
        ge=0.0,
    )
    precision: Literal["auto", "float32", "bf16"] = setting("auto", "arithmetic; auto: bf16 if the hardware supports it")
    strategy: Literal["ddp", "fsdp"] = setting(
        "ddp", "with several processes, each process holds the model (ddp) or a part of it (fsdp)", affects=("pace",)
    )
    log_every_steps: Positive = setting(50, "interval between two lines of train.jsonl", unit="updates", affects=("pace",))
    checkpoint_every_s: Real = setting(
        120.0, "interval between two checkpoints for resuming", unit="s", affects=("pace",), gt=0.0
    )
    keep_best: Positive = setting(5, "number of epochs to keep: those with the fewest dev errors", unit="epochs")
    average: Positive = setting(
        5, "number of kept epochs whose weights are averaged", unit="epochs", affects=("search", "decoding")
    )
    dev_every_epochs: Positive = setting(1, "interval between two evaluations on the dev set", unit="epochs")
    num_workers: Whole = setting(1, "processes that read features in advance", affects=("pace",), ge=0)

    @property
    def views(self) -> int:
        """Augmented views of each utterance in an update."""
        return 2 if self.consistency else 1

    def mistakes(self) -> list[str]:
        """Check that no more epochs are averaged than are kept."""
        if self.average > self.keep_best:
            return [f"average must not exceed keep_best = {self.keep_best}, got {self.average}"]
        return []


def _todays_name(value: Any) -> Any:
    return strategy_name(value) if isinstance(value, str) else value


StrategyName = Annotated[Strategy, BeforeValidator(_todays_name)]


class PruneConfig(Section):
    """Depths and strategies to search, decode and report."""

    affects = ("search",)
    strategies: Different[StrategyName] = setting(
        ("iterative", "svcca", "influence", "lowest", "every"), "strategies that choose layers"
    )
    depths: Several[Positive] | None = setting(
        None, "depths to search and decode, in addition to the full depth; null: all from min_depth", unit="layers"
    )
    min_depth: Positive = setting(1, "smallest depth, if depths is null", unit="layers")
    metric: Literal["wer", "ctc"] = setting("wer", "measure on the dev set that chooses layers: word errors or the CTC loss")
    beam: Positive = setting(
        3,
        "sub-models of each depth that iterative keeps; above 1 it also tries the lowest layers, and prefers them",
        unit="sub-models",
    )
    rerank: Positive = setting(
        1, "proposals of svcca for each depth; the dev set chooses among them; 1: dev is not decoded", unit="proposals"
    )
    speeds: Speeds = setting(
        (1.0,), "speed factors; layers are chosen on one copy of the dev set per speed", affects=("features", "search")
    )
    svcca_variance: Real = setting(0.99, "share of the variance of each layer that SVCCA keeps", gt=0.0, le=1.0)
    svcca_frames: Positive = setting(20000, "largest number of frames for SVCCA", unit="encoder frames")

    def idle(self) -> dict[str, str]:
        """Some numbers belong to a strategy that is not listed."""
        found, listed = {} if self.depths is None else {"min_depth": "beside depths"}, [NEEDS[name] for name in self.strategies]
        for number in get_args(Effort):
            if number not in {needs.effort for needs in listed}:
                users = [name for name, needs in NEEDS.items() if needs.effort == number]
                found[number] = f"without the strategy {' or '.join(users)}"
        if not any(needs.scores or (needs.effort and getattr(self, needs.effort) > 1) for needs in listed):
            users = [name for name, needs in NEEDS.items() if needs.scores]
            users += [f"{name} with a {one.effort} above 1" for name, one in NEEDS.items() if one.effort and not one.scores]
            found["metric"] = f"without the strategy {', or '.join(users)}"
        return found


class DecoderConfig(Section):
    """Numbers of all decoders."""

    affects = ("search", "decoding", "bench")
    type: str


class GreedyConfig(DecoderConfig):
    """The most probable label of every frame."""

    type: Literal["greedy"] = setting("greedy", "decoder")


class BeamConfig(DecoderConfig):
    """Prefix beam search, optionally with a word language model and with expected phrases."""

    type: Literal["beam"] = setting("beam", "decoder")
    width: Positive = setting(8, "label sequences kept after each frame", unit="sequences")
    min_prob: Probability = setting(0.001, "labels with a lower probability in a frame are skipped there")
    lm: str | None = setting(
        None,
        "language model: an ARPA file, or the name of one that a recipe makes, such as `3gram.arpa`; null: none",
    )
    lm_weight: Annotated[Real, Field(ge=0.0, le=10.0)] | None = setting(
        None, "weight of the language model; null: the value found by `asrprune tune-lm`, else 0.5"
    )
    word_bonus: Annotated[Real, Field(ge=-20.0, le=20.0)] | None = setting(
        None, "score added for each word; null: the value found by `asrprune tune-lm`, else 0", unit="nats"
    )
    unknown_penalty: Real = setting(
        0.0, "additional cost of a word that the language model lacks", unit="nats", ge=0.0, le=100.0
    )
    context: tuple[str, ...] = setting((), "expected words and phrases", unit="phrases")
    context_bonus: Real = setting(1.0, "score added for each letter of a complete phrase", unit="nats", ge=0.0, le=20.0)

    def idle(self) -> dict[str, str]:
        """Some numbers belong to a language model or to phrases."""
        found = {} if self.lm else dict.fromkeys(("lm_weight", "unknown_penalty"), "without lm")
        if not self.context:
            return {**found, "context_bonus": "without context"}
        return {**found, "context": "with context_bonus 0"} if self.context_bonus == 0 else found


Decoding = Annotated[GreedyConfig | BeamConfig, Field(discriminator="type"), BeforeValidator(spelt_out("type", "greedy"))]


class DecodeConfig(Section):
    """Running trained models in search, decoding, transcription and benchmarks."""

    affects = ("search", "decoding", "bench")
    decoder: Decoding = GreedyConfig()
    max_frames: Positive = setting(
        20000, "largest batch, padding included; does not change texts in float32", unit="feature frames", affects=("pace",)
    )
    precision: Literal["auto", "float32", "bf16"] = setting(
        "float32",
        "arithmetic; float32: the same text in any batch; auto: bf16 if the hardware supports it, see performance.md",
    )


class ScoringConfig(Section):
    """Counting errors in transcripts."""

    affects = ("report",)
    unit: Literal["word", "phone"] = setting(
        "word", "what the blanks of the transcripts separate; phone: results and messages say PER, for phone error rate"
    )
    ignore_case: bool = setting(
        False, "`asrprune score` ignores letter case, as sclite does without -s; training and search never do"
    )

    def in_units(self, text: str) -> str:
        """Return a text about words and their WER as a text about these units.

        >>> ScoringConfig(unit="phone").in_units("Word error rate (WER), in words")
        'Phone error rate (PER), in phones'
        """
        if self.unit == "word":
            return text
        return text.replace("WER", "PER").replace("word", self.unit).replace("Word", self.unit.capitalize())


class BenchConfig(Section):
    """Speed measurements of `asrprune bench`."""

    affects = ("bench",)
    utterances: Positive = setting(100, "number of utterances to recognise")
    batch: Positive = setting(1, "utterances per batch")
    threads: Whole = setting(0, "CPU threads; 0: all cores", ge=0)
    repeats: Positive = setting(5, "measurements of each depth")


class Config(Section):
    """All numbers of a recipe. It contains no path except that of a language model."""

    affects = ("learning",)
    seed: Whole = setting(1, "seed of all random numbers", ge=0)
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
        """Check that the front end has enough filters, and that the model has the depths."""
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
        """Return the depths to decode and report, deepest first; the full depth is always included."""
        chosen = self.prune.depths or range(self.prune.min_depth, self.model.num_layers + 1)
        return tuple(sorted({*chosen, self.model.num_layers}, reverse=True))
