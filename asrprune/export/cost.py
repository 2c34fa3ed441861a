"""The cost of a lower precision: changed texts and WER at each depth, beside those of float32."""

import logging
from pathlib import Path

from asrprune.export.check import Comparison
from asrprune.export.record import Compared, Exported, ExportedDepth

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


def _compared(row: ExportedDepth, found: Comparison) -> ExportedDepth:
    wer, wer_float32 = found.wer(row.keep) or (None, None)
    changed = len(found.texts[row.keep].changed)
    return row.model_copy(update={"changed": changed, "wer": wer, "wer_float32": wer_float32})
