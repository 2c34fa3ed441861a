"""Files that several tests of export share; tracing one takes most of the time."""

from pathlib import Path

import pytest
from experiments import untrained

from asrprune.config.schema import Config


@pytest.fixture(scope="session")
def page(tiny_config: Config, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folder of `asrprune export --web` and its experiment, which says something else at every depth. Read them only."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'asrprune[export]'")
    from asrprune.export.build import Options
    from asrprune.export.page import export_page
    from asrprune.prune.find import find_plan

    root = tmp_path_factory.mktemp("web")
    experiment = untrained(root / "exp", tiny_config.model_copy(update={"seed": 1}), tiny_data)
    export_page(experiment, find_plan(experiment, None), root / "page", Options(dev=tiny_data / "dev"))
    return root / "page", experiment.path
