"""The file of similarity matrices."""

from pathlib import Path

import numpy as np
import pytest
from records import measures

from asrprune.analysis.matrices import read_matrices
from asrprune.runtime.errors import UserError


def test_a_missing_or_broken_file_names_the_stage_that_makes_it(tmp_path: Path) -> None:
    path = tmp_path / "v.npz"
    with pytest.raises(UserError, match=r"v\.npz: no such file; stage 6 \(`asrprune svcca`\) makes it"):
        read_matrices(path)
    np.savez(path, **measures("0", 50))
    assert (read_matrices(path)["similarity"] == np.eye(50)).all()
    whole = path.read_bytes()
    for content in (b"", whole[:100], whole[:-50], whole[:300] + b"0" * 100 + whole[400:], b"garbage"):
        path.write_bytes(content)
        with pytest.raises(
            UserError, match=r"v\.npz: not a complete \.npz file .*; stage 6 \(`asrprune svcca`\) makes it again"
        ):
            read_matrices(path)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"cka": np.eye(3)}, "cka is no array of numbers of the shape"),
        ({"influence": np.ones(5)}, "influence is no array of numbers of the shape"),
        ({"similarity": np.full((5, 5), "x")}, "similarity is no array of numbers"),
        ({"layers": np.array(4)}, "layers is no array of numbers of the shape"),
    ],
)
def test_arrays_that_do_not_fit_together(wrong: dict[str, np.ndarray], said: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "v.npz", **measures("0", 5, **wrong))
    with pytest.raises(UserError, match=said):
        read_matrices(tmp_path / "v.npz")


@pytest.mark.parametrize("name", ["similarity", "cka", "layers", "frames", "model_sha256"])
def test_an_array_that_is_not_there(name: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "v.npz", **{key: array for key, array in measures("0", 5).items() if key != name})
    with pytest.raises(UserError, match=f"v.npz: not a complete .npz file .*{name}.*; stage 6"):
        read_matrices(tmp_path / "v.npz")
