"""The check of the installation before the first stage."""

import os
from pathlib import Path

import pytest

from asrprune.recipe.installation import check_installation
from asrprune.runtime.errors import UserError


def test_the_error_of_the_doctor_comes_after_its_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "asrprune").write_text("#!/bin/sh\necho list\necho error >&2\nexit 1\n")
    (tmp_path / "asrprune").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    (tmp_path / ".done").mkdir()
    with pytest.raises(UserError, match="correct what is reported above"):
        check_installation(tmp_path, 1)
    assert capfd.readouterr() == ("list\nerror\n", "")
