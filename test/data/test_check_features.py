"""check-data reads the features, too: every fault of every kind is told at once, with its line."""

import re
from pathlib import Path

import kaldiio
import numpy as np
import pytest

from asrprune.data.check import check_data_dir
from asrprune.data.tables import read_table, write_table
from asrprune.features.ark import checksum, read_matrix, write_ark


@pytest.fixture
def dev(dev: Path) -> Path:
    """A data directory with features and their checksums, which may be changed."""
    write_table(dev / "utt2crc", {key: f"{checksum(matrix):08x}" for key, matrix in matrices(dev).items()})
    return dev


def matrices(dev: Path) -> dict[str, np.ndarray]:
    return {key: read_matrix(entry).copy() for key, entry in read_table(dev / "feats.scp").items()}


def faults(dev: Path) -> list[str]:
    return [fault.removeprefix(f"{dev}/") for fault in check_data_dir(dev, audio=False).faults]


def test_every_fault_of_every_kind_is_told_at_once(dev: Path) -> None:
    assert faults(dev) == []
    of = matrices(dev)
    ids = list(of)
    of[ids[0]] = of[ids[0]][:, :40]
    of[ids[1]][3, 3] = np.nan
    of[ids[2]][3, 3] = -1e20
    of[ids[3]] = of[ids[3]][:-1]
    of[ids[4]][3, 3] += 0.5
    ark = dev / "new.ark"
    write_table(dev / "feats.scp", write_ark(ark, ark, of.items()) | {ids[5]: f"{dev}/none.ark:5"})
    frames = read_table(dev / "utt2num_frames")[ids[3]]
    expected = [
        rf"utt2crc:1: {ids[0]}: the features in {ark}:\d+ do not have this checksum: .* delete {ark} and run stage 2 .*",
        rf"feats.scp:2: {ids[1]}: {ark}:\d+: contains features that are not finite; delete {ark} and run stage 2 .*",
        rf"feats.scp:3: {ids[2]}: {ark}:\d+: contains features as large as 1e\+20; delete {ark} and run stage 2 .*",
        rf"utt2num_frames:4: {ids[3]}: {frames} frames, but its features have {int(frames) - 1}; run stage 2 .*",
        rf"utt2crc:5: {ids[4]}: the features in .*",
        rf"feats.scp:6: {ids[5]}: .*none.ark:5: there is no such archive; run stage 2 .*",
        rf"feats.scp:1: {ids[0]}: has 40 features in a frame, but most utterances have 80; run stage 2 .*",
    ]
    found = faults(dev)
    assert len(found) == len(expected), found
    for fault, pattern in zip(found, expected, strict=True):
        assert re.fullmatch(pattern, fault), (fault, pattern)
    assert check_data_dir(dev, audio=False, features=False).faults == []


@pytest.mark.parametrize("method", [2, 3, 5])
def test_compressed_archives_and_features_of_other_programs_are_read(dev: Path, method: int) -> None:
    of = matrices(dev)
    kaldiio.save_ark(str(dev / "new.ark"), of, scp=str(dev / "feats.scp"), compression_method=method)
    (dev / "utt2crc").unlink()
    (dev / "utt2num_frames").unlink()
    assert faults(dev) == []
    with open(dev / "new.ark", "r+b") as handle:
        handle.truncate((dev / "new.ark").stat().st_size - 1)
    (fault,) = faults(dev)
    assert fault.startswith(f"feats.scp:6: {list(of)[5]}: ")
    assert "but the file is shorter" in fault
