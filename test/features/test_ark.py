"""Archives are Kaldi's, byte for byte, and whatever is wrong with one is a sentence that says what to do."""

import struct
from pathlib import Path

import kaldiio
import numpy as np
import pytest

from asrprune.features.ark import read_matrix, read_plain_matrix, write_ark, write_matrix
from asrprune.runtime.errors import UserError


@pytest.fixture
def matrices() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    sizes = {"s1-a": 5, "s1-b": 1, "s1-empty": 0, "sé-ü": 3}
    return {key: rng.normal(size=(rows, 7)).astype(np.float32) for key, rows in sizes.items()}


def test_entries_point_into_the_archive_under_its_final_name(tmp_path: Path, matrices: dict[str, np.ndarray]) -> None:
    entries = write_ark(tmp_path / "temporary.ark", tmp_path / "final.ark", matrices.items())
    (tmp_path / "temporary.ark").rename(tmp_path / "final.ark")
    assert list(entries) == list(matrices)
    for key, matrix in matrices.items():
        read = read_matrix(entries[key])
        assert (read.dtype, read.shape) == (np.float32, matrix.shape)
        np.testing.assert_array_equal(read, matrix)


def test_archive_is_in_kaldis_binary_format(tmp_path: Path, matrices: dict[str, np.ndarray]) -> None:
    write_ark(tmp_path / "a.ark", tmp_path / "a.ark", matrices.items())
    expected = b""
    for key, matrix in matrices.items():
        header = b"\0BFM " + struct.pack("<bibi", 4, matrix.shape[0], 4, matrix.shape[1])
        expected += key.encode() + b" " + header + matrix.astype("<f4").tobytes()
    assert (tmp_path / "a.ark").read_bytes() == expected


@pytest.mark.parametrize("method", range(1, 8))
@pytest.mark.parametrize("rows", [1, 2, 5, 9, 300])
def test_compressed_matrices_are_read_as_kaldiio_reads_them(tmp_path: Path, method: int, rows: int) -> None:
    """Methods 1 to 7 are those of Kaldi's CompressedMatrix, in its three formats."""
    matrix = (5 * np.random.default_rng(method).normal(size=(rows, 7))).astype(np.float32)
    ark, scp = str(tmp_path / "c.ark"), tmp_path / "c.scp"
    kaldiio.save_ark(ark, {"a": matrix, "b": matrix + 1}, str(scp), compression_method=method)
    for line in scp.read_text().splitlines():
        read, expected = read_matrix(line.split()[1]), kaldiio.load_mat(line.split()[1])
        assert (read.dtype, read.shape) == (np.float32, expected.shape)
        np.testing.assert_allclose(read, expected, rtol=1e-5, atol=1e-5)


def test_statistics_are_a_double_matrix_without_an_id(tmp_path: Path) -> None:
    stats = np.random.default_rng(1).normal(size=(2, 81))
    write_matrix(tmp_path / "cmvn", stats)
    assert (tmp_path / "cmvn").read_bytes() == b"\0BDM " + struct.pack("<bibi", 4, 2, 4, 81) + stats.astype("<f8").tobytes()
    read = read_plain_matrix(tmp_path / "cmvn")
    assert read.dtype == np.float64
    np.testing.assert_array_equal(read, stats)


@pytest.mark.parametrize("entry", ["cat x.ark |", "x.ark", "x.ark:", "x.ark:12[0:3]", ":12"])
def test_only_a_path_with_an_offset_is_an_entry(entry: str) -> None:
    with pytest.raises(UserError, match="not an scp entry PATH:OFFSET"):
        read_matrix(entry)


def test_a_broken_archive_says_what_to_delete(tmp_path: Path, matrices: dict[str, np.ndarray]) -> None:
    entries = write_ark(tmp_path / "a.ark", tmp_path / "a.ark", matrices.items())
    whole = (tmp_path / "a.ark").read_bytes()
    (tmp_path / "a.ark").write_bytes(whole[:-3])
    np.testing.assert_array_equal(read_matrix(entries["s1-a"]), matrices["s1-a"])
    for entry in (entries["sé-ü"], f"{tmp_path}/a.ark:1", f"{tmp_path}/a.ark:99999"):
        with pytest.raises(UserError, match=r"cannot read the feature matrix \(.+\); delete .+\.ark and run stage 2") as caught:
            read_matrix(entry)
        assert str(caught.value).startswith(entry)
    with pytest.raises(UserError, match=r"none\.ark:5: there is no such archive; run stage 2 \(fbank\) again"):
        read_matrix(f"{tmp_path}/none.ark:5")


@pytest.mark.parametrize("content", [b"", b"garbage\n", b"\0BDM \4\2\0\0\0\4\3\0\0\0abc", None])
def test_broken_statistics_are_named(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "cmvn").write_bytes(content)
    with pytest.raises(UserError, match=r"cmvn: cannot read the matrix \(.+\)$"):
        read_plain_matrix(tmp_path / "cmvn")
