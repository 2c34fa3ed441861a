"""The file of similarity matrices."""

from pathlib import Path

import numpy as np
import pytest

from asrprune.analysis.matrices import read_matrices
from asrprune.runtime.errors import UserError


def test_a_missing_or_broken_file_names_the_stage_that_makes_it(tmp_path: Path) -> None:
    path = tmp_path / "v.npz"
    with pytest.raises(UserError, match=r"v\.npz: no such file; stage 6 \(`asrprune svcca`\) makes it"):
        read_matrices(path)
    np.savez(path, similarity=np.eye(50), model_sha256=np.array("0"))
    assert (read_matrices(path)["similarity"] == np.eye(50)).all()
    whole = path.read_bytes()
    for content in (b"", whole[:100], whole[:-50], whole[:300] + b"0" * 100 + whole[400:], b"garbage"):
        path.write_bytes(content)
        with pytest.raises(
            UserError, match=r"v\.npz: not a complete \.npz file .*; stage 6 \(`asrprune svcca`\) makes it again"
        ):
            read_matrices(path)
