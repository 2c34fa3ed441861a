"""The features of a data directory, compared with what its tables say of them."""

from collections.abc import Iterator
from itertools import repeat

import numpy as np

from asrprune.data.archive import entry_now
from asrprune.data.tables import Row, Table, Tables, joined
from asrprune.features.ark import checksum, read_matrix
from asrprune.runtime.errors import UserError
from asrprune.runtime.progress import track


def contradiction(entry: str, matrix: np.ndarray, frames: int | None, crc: int | None) -> tuple[str, str] | None:
    """Return the table that contradicts a feature matrix, and a sentence about it; None if no table does.

    Args:
        entry: the scp entry of the matrix.
        matrix: (T, F).
        frames, crc: what utt2num_frames and utt2crc say; None: nothing.
    """
    if frames is not None and len(matrix) != frames:  # batches are planned by these lengths
        return "utt2num_frames", f"{frames} frames, but its features have {len(matrix)}; run stage 2 (fbank) again"
    if crc is not None and checksum(matrix) != crc:
        archive = entry.rpartition(":")[0]
        return "utt2crc", (
            f"the features in {entry} do not have this checksum: they are damaged, or another program made them; delete"
            f" {archive} and run stage 2 (fbank) again, or remove utt2crc"
        )
    return None


def feature_faults(tables: Tables) -> list[str]:
    """Read the features of a directory, one utterance after the other, and return all faults.

    Features can be broken, not finite or far too large, contradict a table, or have another width than most others.
    """
    feats, faults = tables["feats.scp"], list[str]()
    widths = np.zeros(len(feats), dtype=np.int32)  # 0: they cannot be read
    lengths, sums = (_rows_of(feats, tables.get(name)) for name in ("utt2num_frames", "utt2crc"))
    rows = track(zip(feats.numbered(), lengths, sums, strict=False), f"features of {feats.path.parent.name}", len(feats))
    for place, (row, length, crc) in enumerate(rows):
        try:
            matrix = read_matrix(entry_now(feats.path.parent, row[1]))
        except UserError as error:
            faults.append(feats.fault(row, str(error)))
            continue
        widths[place] = matrix.shape[1]
        if wrong := contradiction(row[1], matrix, _number(length, 10), _number(crc, 16)):
            name, what = wrong
            of_table = {"utt2num_frames": length, "utt2crc": crc}[name]
            assert of_table is not None
            faults.append(tables[name].fault(of_table, what))
    usual = np.bincount(widths[widths > 0]).argmax() if widths.any() else 0
    for row, width in zip(feats.numbered(), widths, strict=True):
        if width not in (0, usual):
            what = f"has {width} features in a frame, but most utterances have {usual}; run stage 2 (fbank) again"
            faults.append(feats.fault(row, what))
    return faults


def _rows_of(feats: Table, table: Table | None) -> Iterator[Row | None]:
    """Yield the row of each utterance of feats.scp in another table."""
    if table is None:
        return repeat(None)
    return (row for utterance, row in joined(feats.numbered(), table.numbered()) if utterance)


def _number(row: Row | None, base: int) -> int | None:
    """Return the number in a row; None if there is none, which is another fault."""
    try:
        return None if row is None else int(row[1], base)
    except ValueError:
        return None
