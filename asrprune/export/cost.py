"""The cost of a lower precision: changed texts and WER at each depth, beside those of float32."""

import logging
from pathlib import Path

from asrprune.export.check import Comparison
from asrprune.export.record import Compared, Ended, Exported, ExportedDepth

logger = logging.getLogger(__name__)


def with_cost(exported: Exported, found: Comparison, dev: Path) -> Exported:
    """Return the record with what the comparison on a dev set found, which is also logged."""
    depths = tuple(_compared(row, found) for row in exported.depths)
    rate = exported.scoring.in_units("WER")
    for row in depths:
        wer = "" if row.wer is None else f"; {rate} {row.wer:.2f} % instead of {row.wer_float32:.2f} %"
        logger.info("%d layers: %s changes %d of %d texts%s", row.depth, exported.precision, row.changed, found.utterances, wer)
    compared = Compared(set=dev.resolve().name, utterances=found.utterances)
    return exported.model_copy(update={"depths": depths, "compared": compared})


def with_ended(exported: Exported, ended: Ended) -> Exported:
    """Return the record with what early exit does, which is also logged."""
    logger.info("%s", exported.scoring.in_units(said_of(ended)))
    return exported.model_copy(update={"ended": ended})


def said_of(ended: Ended) -> str:
    """Return a sentence about early exit."""
    wer = "" if ended.wer is None else f", WER {ended.wer:.2f} % (torch: {ended.wer_float32:.2f} %)"
    rtf = "" if ended.rtf is None else f", RTF {ended.rtf:.4f}"
    return (
        f"Early exit on {ended.utterances} utterances of {ended.set}: {ended.layers:.2f} layers on average (torch in float32:"
        f" {ended.layers_float32:.2f}){wer}{rtf}; {ended.changed} texts differ."
    )


def _compared(row: ExportedDepth, found: Comparison) -> ExportedDepth:
    texts = found.texts[row.keep]
    wer, wer_float32 = texts.wer(found.words)
    return row.model_copy(update={"changed": len(texts.changed), "wer": wer, "wer_float32": wer_float32})
