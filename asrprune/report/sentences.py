"""The sentences of the report, from `results.json` alone."""

from collections.abc import Callable

from asrprune.config.schema import ModelConfig
from asrprune.experiment.plan import Search
from asrprune.prune.strategies.table import STRATEGIES, rank
from asrprune.report.result_table import compact, search_sets, seen, set_names, two_digits
from asrprune.report.results import Results

_SILENT = (
    " The model puts out nothing, as every CTC model does at first: train for more updates, and let"
    " `train.schedule.warmup_steps` be a small part of them."
)


def headlines(results: Results) -> list[str]:
    """Return a sentence for each set that had no part in the search: its WER with all layers and with about half of them.

    The strategy is the first in the order of the tables: the WERs of a test set must not choose it.
    """
    unseen = [name for name in set_names(results) if not seen(name, search_sets(results.search))]
    return [_headline(results, name) for name in unseen]


def how_made(results: Results) -> list[tuple[str, str]]:
    """Return pairs of a term and its sentences: model, training, data, search, decoding, speed, environment."""
    tell: dict[str, Callable[[Results], str]] = {
        "Model": _model,
        "Averaged checkpoints": _averaged,
        "Training": _training,
        "Data": _data,
        "Search": _search,
        "Decoding and scoring": _decoding,
        "Speed": _speed,
    }
    found = [(term, text) for term, tell_it in tell.items() if (text := tell_it(results))]
    environment = ", ".join(f"{key} {value}" for key, value in results.environment.items() if value is not None)
    return [*found, ("Report made on", f"{environment}.")]


def _headline(results: Results, name: str) -> str:
    num_layers = results.model.num_layers
    rows = [row for row in results.rows if row.set == name]
    full = next((row for row in rows if row.depth == num_layers), None)
    pruned = [row for row in rows if row.depth < num_layers]
    parts = [f"{full.wer:.1f} % {results.in_units('WER')} with all {num_layers} layers"] if full else []
    if pruned:
        half = min(pruned, key=lambda row: (abs(row.depth - num_layers / 2), rank(row.strategy)))
        faster = f", {half.speedup:.1f} times as fast" if half.speedup else ""
        parts.append(f"{half.wer:.1f} % with {half.depth} of {num_layers} (`{half.strategy}`{faster})")
    silent = full is not None and full.del_ == full.ref_words > 0
    return f"`{name}`: {'; '.join(parts)}.{_SILENT if silent else ''}"


def _model(results: Results) -> str:
    model, config = results.model, results.config.model
    shape = f"width {config.dim}", f"{config.heads} heads", f"feed-forward {config.ffn}"
    parts = [f"{model.num_layers} layers", *shape, *_exits(config), f"{model.params_m:.2f} M parameters"]
    return ", ".join(parts) + f"; SHA-256 of the weights `{model.model_sha256[:16]}`."


def _exits(config: ModelConfig) -> list[str]:
    """Name the layers with an intermediate CTC loss, and the share of the updates that ended at each."""
    parts = []
    if config.tap_layers:
        parts.append(f"intermediate CTC after layers {compact(config.tap_layers)}, tap weight {config.tap_weight}")
    if config.truncated:
        shares = ", ".join(f"{100 * share:.0f} % after layer {tap}" for tap, share in config.truncated.items())
        parts.append(f"truncated updates ({shares})")
    if config.grow:
        steps = ", ".join(f"no layer above {tap} in the first {until} updates" for tap, until in config.grow.items())
        parts.append(f"growth ({steps})")
    return parts


def _averaged(results: Results) -> str:
    epochs = [member.epoch for member in results.model.members]
    if len(epochs) == 1:
        return results.in_units(f"Epoch {epochs[0]}, chosen by its dev WER.")
    return results.in_units(f"Epochs {compact(epochs)}, chosen by their dev WER.")


def _training(results: Results) -> str:
    training, model = results.training, results.model
    made = f"seed {model.seed}, asrprune {model.asrprune}"
    if training is None:
        return f"{made}."
    best = results.in_units(f"best dev WER of one checkpoint {training.best_dev_wer:.2f} % (epoch {training.best_epoch})")
    steps = f"{training.steps:,} steps" + (f" in {training.precision}" if training.precision else "")
    if results.config.train.views > 1:
        steps += f", two views of each utterance (consistency {results.config.train.consistency})"
    return f"{training.epochs} epochs, {steps}, {_duration(training.seconds)}; {best}; {made}."


def _data(results: Results) -> str:
    sets = [
        f"`{name}` {data.utterances:,} utterances, {data.hours:.2f} h, SHA-256 of its text `{data.text_sha256[:16]}`"
        for name, data in results.data.items()
    ]
    return "; ".join(sets) + "."


def _search(results: Results) -> str:
    if not results.search:
        return ""
    used = sorted(search_sets(results.search))
    told = [_plan(results, strategy, plan) for strategy, plan in results.search.items()]
    sets = f"; layers were chosen on {', '.join(f'`{name}`' for name in used)} and on no other set" if used else ""
    return "; ".join(told) + sets + "."


def _plan(results: Results, strategy: str, plan: Search) -> str:
    how = STRATEGIES[strategy].label if strategy in STRATEGIES else ""
    cost = [f"by dev {results.in_units(plan.metric.upper())}"] if plan.metric else []
    if (plan.beam or 1) > 1:
        cost.append(f"beam {plan.beam}")
    if plan.clear:
        cost.append(f"the lowest layers unless others are better by more than {plan.clear:g} standard errors")
    if plan.rerank:
        cost.append(f"the best of {plan.rerank} proposals for each depth")
    if plan.layer_forwards:
        naive = f" instead of {plan.naive_layer_forwards:,}" if plan.naive_layer_forwards else ""
        cost.append(f"{plan.layer_forwards:,.0f} layer passes{naive}")
    cost += [_duration(plan.seconds)] if plan.layer_forwards and plan.seconds else []
    return f"`{strategy}` {how}" + (f" ({', '.join(cost)})" if cost else "")


def _decoding(results: Results) -> str:
    decoders = sorted({row.decoder for row in results.rows})
    counted = results.in_units("WER = (substitutions + deletions + insertions) / reference words of the whole set")
    return (
        f"Decoder: {', '.join(decoders)}. Every row runs the same weights. {counted}; intervals: 95 %, by bootstrap over"
        " utterances."
    )


def _speed(results: Results) -> str:
    bench = results.bench
    if bench is None:
        return ""
    machine = bench.environment
    device = machine.get("gpu") if bench.device == "cuda" else machine.get("cpu")
    where = f" on {device}" if device else ""
    threads = "1 thread" if bench.threads == 1 else f"{bench.threads} threads"
    decoder = f"decoder ({bench.decoder or 'greedy'})"
    if (own := bench.rows[0].decoder_rtf) is not None:
        decoder += f", which takes {two_digits(own)} with {bench.rows[0].depth} layers"
    return (
        f"RTF = seconds of computing / seconds of audio for encoder, CTC head and {decoder}; the features add "
        f"{two_digits(bench.features_rtf)} at every depth. Measured{where} with {bench.utterances} utterances "
        f"({bench.audio_s:.0f} s) of `{bench.set}`: {threads}, batch {bench.batch}, "
        f"{bench.dtype}, {bench.repeats} repeats."
    )


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} h"
