"""The benchmark's cases in asrprune."""

import atexit
import itertools
import random
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from serve import VOCAB_SIZE, Work, batch, serve
from torch import Tensor, nn

from asrprune.config.load import read_config
from asrprune.config.schema import BatchConfig, FrontendConfig, ModelConfig, TrainConfig
from asrprune.data.batching import epoch_batches, padding_share, sorted_batches
from asrprune.data.check import check_data_dir
from asrprune.data.dataset import Corpus
from asrprune.data.tables import open_table
from asrprune.decode.decoder import BestPath
from asrprune.decode.greedy import GREEDY
from asrprune.decode.shards import hypotheses
from asrprune.experiment.plan import Keep
from asrprune.experiment.store import load
from asrprune.export.assemble import any_depth
from asrprune.export.onnx_file import write
from asrprune.export.quantise import int8
from asrprune.export.session import Session
from asrprune.features.fbank import compute_fbank
from asrprune.model.ctc_model import CtcModel
from asrprune.model.stochastic_depth import branch_scales, draw_depth, draw_layers, drop_probabilities, grown_depth
from asrprune.prune.dev_score import DevScore
from asrprune.prune.dev_scorer import DevScorer
from asrprune.prune.find import find_plan
from asrprune.prune.strategies.iterative import iterative
from asrprune.runtime.executor import HERE
from asrprune.runtime.hardware import inference
from asrprune.runtime.memory import keep_freed_memory
from asrprune.scoring.sclite import write_score
from asrprune.scoring.wer import score as word_error_rate
from asrprune.train.optim import make_optimizer, set_learning_rate
from asrprune.train.ranks import make_fabric

FrontEnd = dict[str, Any]
Tables = dict[str, Callable[[int], object]]  # file name -> the value of its i-th utterance


def build(layers: int, ffn: int, taps: Sequence[int], rate: float, front_end: FrontEnd | None = None) -> CtcModel:
    """A Transformer of width 256 with 4 heads; ``front_end`` is its ``model.subsampling``, None: ESPnet's."""
    torch.manual_seed(0)
    options = {"num_layers": layers, "dim": 256, "heads": 4, "ffn": ffn, "taps": list(taps), "subsampling": front_end}
    depth = {"rate": rate, "mode": "linear"}
    return CtcModel(ModelConfig.model_validate({**options, "stochastic_depth": depth}), 80, VOCAB_SIZE)


def train(
    layers: int,
    ffn: int,
    taps: Sequence[int],
    rate: float,
    dtype: str,
    utterances: int,
    frames: int,
    labels: int,
    compiled: bool = False,
    front_end: FrontEnd | None = None,
) -> tuple[Work, dict[str, Any]]:
    """An update: forward, backward, clipping, optimiser."""
    fabric = make_fabric(dtype)
    torch.set_flush_denormal(True)
    module = build(layers, ffn, taps, rate, front_end)
    facts = {"matmul_flops": matmul_flops(module, batch(utterances, frames, labels), training=True)}
    if compiled:
        for layer in module.encoder.layers:
            layer.compile()
    update = updater(fabric, module, batch(utterances, frames, labels), rate)
    return update, {**facts, "threads": torch.get_num_threads(), "shares": {} if compiled else where_it_goes(update)}


def updater(
    fabric: Fabric,
    module: CtcModel,
    inputs: tuple[Tensor, ...],
    rate: float,
    depths: Sequence[int] = (),
    consistency: float = 0.0,
) -> Work:
    """An update on a batch, on the device of ``fabric``; ``rate`` is that of stochastic depth.

    With ``depths`` the updates end at these layers, in turn, and the layers above get no gradient. With ``consistency`` an
    update has two views of each utterance.
    """
    model, optimizer = fabric.setup(module, make_optimizer(module, TrainConfig()))
    model.train()
    set_learning_rate(optimizer, 1e-4)
    features, *others = (tensor.to(fabric.device) for tensor in inputs)
    features = features.repeat(2 if consistency else 1, 1, 1)
    probabilities = drop_probabilities(module.config.num_layers, rate, "linear")
    draws, ends_at = typical_draws(probabilities), itertools.cycle(depths or [module.config.num_layers])

    def update() -> None:
        optimizer.zero_grad(set_to_none=bool(depths))
        depth = next(ends_at)
        keep = [layer for layer in next(draws) if layer <= depth]
        losses = model(features, *others, keep, branch_scales(probabilities), depth, consistency)
        fabric.backward(module.total(losses) / len(inputs[0]))
        fabric.clip_gradients(model, optimizer, max_norm=5.0, error_if_nonfinite=False)
        optimizer.step()

    return update


PLAIN = ("model.taps=[]", "model.truncated={}", "model.grow={}", "train.consistency=0")


def recipe_updates(
    config: str, truncated: bool, updates: int, utterances: int, frames: int, labels: int
) -> tuple[Work, dict[str, Any]]:
    """Twenty updates in float32, typical of a recipe's training of ``updates``, or those of the same model without taps."""
    options = read_config(Path(config), () if truncated else PLAIN)
    torch.manual_seed(0)
    torch.set_flush_denormal(True)
    depths = ends(options.model, updates)
    module = CtcModel(options.model, 80, VOCAB_SIZE)
    consistency = options.train.consistency
    update = updater(make_fabric("float32"), module, batch(utterances, frames, labels), 0.0, depths, consistency)
    return lambda: [update() for _ in depths], {"depths": depths, "warm_up": 1}


def ends(model: ModelConfig, updates: int, count: int = 20) -> list[int]:
    """The depths at which ``count`` updates end, ascending: evenly spread quantiles of those of a training."""
    drawn = [draw_depth(model.truncated, model.num_layers, 1, step) for step in range(1, updates + 1)]
    all_ends = sorted(min(depth, grown_depth(model.grow, model.num_layers, step)) for step, depth in enumerate(drawn, start=1))
    return [all_ends[(2 * number + 1) * updates // (2 * count)] for number in range(count)]


def typical_draws(probabilities: list[float]) -> Iterator[list[int]]:
    """The draws with as many layers as there are on average: a turn is too short for all of them to come."""
    average = round(sum(1.0 - p for p in probabilities))
    draws = (draw_layers(probabilities, 1, step) for step in itertools.count(1))
    return (draw for draw in draws if len(draw) == average)


def encode(
    layers: int,
    ffn: int,
    depth: int,
    dtype: str,
    utterances: int,
    frames: int,
    front_end: FrontEnd | None = None,
    profiled: bool = False,
) -> tuple[Work, dict[str, Any]]:
    """Features to the stream of the first ``depth`` layers; ``profiled``: say what it computes, which takes seconds."""
    model = build(layers, ffn, (), 0.0, front_end).eval()
    features, lens, *_ = batch(utterances, frames, 1)

    def work(depth: int = depth) -> None:
        with inference(dtype, features.device):
            model.encode(features, lens, range(1, depth + 1))

    if not profiled:
        return work, {}
    flops = matmul_flops(model, (features, lens), keep=range(1, depth + 1))
    return work, {"matmul_flops": flops, "shares": where_it_goes(work)}


def exported(
    layers: int,
    ffn: int,
    depth: int,
    precision: str,
    utterances: int,
    frames: int,
    folder: str,
    front_end: FrontEnd | None = None,
) -> tuple[Work, dict[str, Any]]:
    """The same model, with its head, as an any-depth ONNX file in onnxruntime. The file is kept in ``folder``."""
    path = Path(folder) / f"{layers}_{precision}.onnx"
    if not path.exists():
        file = any_depth(build(layers, ffn, (), 0.0, front_end).eval())
        write(int8(file) if precision == "int8" else file, path)
    session, (features, lens, *_) = Session(path), batch(utterances, frames, 1)

    def work(depth: int = depth) -> object:
        return session.run(features.numpy(), lens.numpy(), tuple(range(1, depth + 1)))

    return work, {"file_mb": round(path.stat().st_size / 1e6, 1)}


def greedy(layers: int, ffn: int, utterances: int, frames: int) -> tuple[Work, dict[str, Any]]:
    """Features to text units, all layers, in float32."""
    model = build(layers, ffn, (), 0.0).eval()
    features, lens, *_ = batch(utterances, frames, 1)

    def work() -> list[BestPath]:
        with inference("float32", features.device):
            encoded = model.encode(features, lens)
            return GREEDY.decode(model.head(encoded.x), encoded.lens)

    return work, {}


def decode(exp: str, dev: str, dtype: str) -> tuple[Work, dict[str, Any]]:
    """Decode a set at every depth of an experiment's iterative plan; WER by depth."""
    experiment = load(Path(exp))
    options = experiment.config.decode.model_copy(update={"precision": dtype})
    experiment = replace(experiment, config=experiment.config.model_copy(update={"decode": options}))
    corpus, plan = Corpus(Path(dev), None), find_plan(experiment, "iterative")
    batches = sorted_batches(corpus.lengths, options.max_frames)
    references = dict(zip(corpus.ids, corpus.texts, strict=True))
    texts = hypotheses(experiment, corpus, [step.keep for step in plan.steps], batches)
    wer = {str(len(keep)): round(word_error_rate(references, said).wer, 4) for keep, said in texts.items()}
    return lambda: hypotheses(experiment, corpus, [plan.steps[0].keep], batches), {"wer": wer}


def naive_search(exp: str, dev: str) -> tuple[Work, dict[str, Any]]:
    """The iterative search in which every sub-model decodes the whole dev set by itself."""
    experiment = load(Path(exp))
    score = DevScorer(experiment, Corpus(Path(dev), experiment.tokenizer), experiment.config.prune.metric, HERE)

    def each(keeps: Sequence[Keep], best: int | None) -> dict[Keep, DevScore]:
        return {keep: score([keep])[keep] for keep in keeps}

    def work() -> list[Keep]:
        return [step.keep for step in iterative(experiment.num_layers, each, min(experiment.config.depths()))]

    return work, {"warm_up": 0}


def matmul(size: int, dtype: str) -> tuple[Work, dict[str, Any]]:
    """A product of square matrices: the machine's peak."""
    kind = torch.bfloat16 if dtype == "bf16" else torch.float32
    a, b = torch.randn(size, size).to(kind), torch.randn(size, size).to(kind)
    return lambda: a @ b, {"matmul_flops": 2 * size**3}


def fbank(seconds: float, utterances: int) -> tuple[Work, dict[str, Any]]:
    """Features of noise on one core."""
    torch.set_num_threads(1)
    options = FrontendConfig()
    rng = np.random.default_rng(0)
    signals = rng.uniform(-0.5, 0.5, size=(utterances, int(seconds * options.sample_rate))).astype(np.float32)
    return lambda: [compute_fbank(signal, options) for signal in signals], {"audio_s": seconds * utterances}


def plan(utterances: int) -> tuple[Work, dict[str, Any]]:
    """The batches of an epoch; lengths as in LibriSpeech, 2 to 17 s."""
    lengths = np.random.default_rng(0).integers(200, 1700, size=utterances)
    options = BatchConfig(max_frames=40000)
    some = lengths[:100_000]
    padding = padding_share(some, epoch_batches(some, options, 1, 1))
    return lambda: epoch_batches(lengths, options, 1, 1), {"warm_up": 0, "padding": padding}


def manifest(utterances: int) -> tuple[Work, dict[str, Any]]:
    """Read a data directory of so many utterances, of which nothing exists but the tables."""
    tables: Tables = {
        "feats.scp": lambda i: f"/data/train_sp/fbank/{i // 200:07d}.ark:{57000 * (i % 200)}",
        "utt2num_frames": lambda i: 200 + 7919 * i % 1500,
        "text": lambda i: "THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG AND SO ON "[: 20 + i % 35].strip(),
    }
    directory = write_tables(utterances, tables)
    return lambda: Corpus(directory, None), {"warm_up": 0}


def validate(utterances: int) -> tuple[Work, dict[str, Any]]:
    """Check a data directory; ten utterances are segments of a recording, a thousand are one speaker's."""
    tables: Tables = {
        "text": lambda i: "THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG AND SO ON "[: 20 + i % 35].strip(),
        "utt2spk": speaker,
        "segments": lambda i: f"recording{i // 10:07d} {i % 10 * 10} {i % 10 * 10 + 9.75}",
    }
    directory = write_tables(utterances, tables)
    with open(directory / "wav.scp", "w") as wav, open(directory / "spk2utt", "w") as spk2utt:
        for i in range(0, utterances, 10):
            wav.write(f"recording{i // 10:07d} /data/audio/recording{i // 10:07d}.flac\n")
        for i in range(0, utterances, 1000):
            spk2utt.write(f"{speaker(i)} {' '.join(map(key, range(i, min(i + 1000, utterances))))}\n")

    def work() -> None:
        assert check_data_dir(directory, audio=False, features=False).faults == []

    return work, {"warm_up": 0}


def score(utterances: int) -> tuple[Work, dict[str, Any]]:
    """Score sentences of about ten words, one word in ten wrong, and write all files."""
    rng = random.Random(0)
    words = ["".join(rng.choices("ETAOINSHRDLU", k=rng.randrange(1, 10))) for _ in range(5000)]
    refs = [" ".join(rng.choices(words, k=rng.randrange(5, 16))) for _ in range(9973)]
    hyps = [" ".join(misheard(ref.split(), words, rng)) for ref in refs]
    tables: Tables = {"text": lambda i: refs[i % len(refs)], "hyp": lambda i: hyps[i % len(refs)], "utt2spk": speaker}
    directory = write_tables(utterances, tables)

    def work() -> None:
        write_score(directory, *(open_table(directory / name, allow_empty=True) for name in ("text", "hyp", "utt2spk")))

    return work, {"warm_up": 0}


def misheard(ref: Sequence[str], words: Sequence[str], rng: random.Random) -> Iterator[str]:
    """Six words in a hundred substituted, two deleted, two inserted."""
    for word in ref:
        draw = rng.random()
        if draw >= 0.02:
            yield rng.choice(words) if draw < 0.08 else word
        if draw >= 0.98:
            yield rng.choice(words)


def key(i: int) -> str:
    """Of an utterance."""
    return f"{speaker(i)}-{i:08d}"


def speaker(i: int) -> str:
    """Of an utterance."""
    return f"speaker{i // 1000:05d}"


def write_tables(utterances: int, tables: Tables) -> Path:
    """A directory, gone when the worker ends, with the files of which the values are given."""
    directory = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, directory)
    for name, value in tables.items():
        with open(directory / name, "w") as handle:
            handle.writelines(f"{key(i)} {value(i)}".rstrip() + "\n" for i in range(utterances))
    return directory


KINDS = {  # of torch's operations, by their names; the first that fits
    "convolutions": r"convolution",
    "matrix products": r"^aten::(mm|addmm|bmm|baddbmm)$",
    "attention": r"attention|::_softmax",
    "dropout's draws": r"random_|^aten::(ge|bernoulli_)$",
    "CTC": r"ctc_loss|log_softmax",
    "copies": r"^aten::(copy_|cat|fill_|zero_)$",
    "optimiser": r"adam|vector_norm|foreach",
}


def where_it_goes(work: Work) -> dict[str, float]:
    """Share of each kind of operation in the time of one run, by torch's profiler."""
    from torch.profiler import ProfilerActivity, profile

    work()
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        work()
    taken: dict[str, float] = dict.fromkeys([*KINDS, "other"], 0.0)
    for operation in profiled.key_averages():
        kind = next((kind for kind, pattern in KINDS.items() if re.search(pattern, operation.key)), "other")
        taken[kind] += operation.self_cpu_time_total
    return {kind: round(time / sum(taken.values()), 4) for kind, time in taken.items()}


def matmul_flops(model: CtcModel, inputs: tuple[Tensor, ...], training: bool = False, keep: Sequence[int] | None = None) -> int:
    """Floating-point operations of the matrix products and convolutions of one forward (and backward) pass of all layers."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        if training:
            model.total(model(*inputs)).backward()
            nn.Module.zero_grad(model)
        else:
            with torch.no_grad():
                model.encode(inputs[0], inputs[1], keep)
    return counter.get_total_flops()


if __name__ == "__main__":
    keep_freed_memory()
    cases = (
        train,
        recipe_updates,
        encode,
        exported,
        greedy,
        decode,
        naive_search,
        matmul,
        fbank,
        plan,
        manifest,
        validate,
        score,
    )
    serve({case.__name__: case for case in cases})
