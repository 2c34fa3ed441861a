"""Files that several tests of export share; tracing one takes most of the time."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from experiments import untrained
from samples import first_members

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
    plan = find_plan(experiment, None)
    steps = tuple(step.model_copy(update={"score": 50.0 - 10 * step.depth}) for step in plan.steps)  # for the curve
    scored = plan.model_copy(update={"metric": "wer", "dev_set": "dev", "steps": steps})
    export_page(experiment, scored, root / "page", Options(dev=tiny_data / "dev"))
    return root / "page", experiment.path


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three recordings of AN4 as wav files. Read them only."""
    folder = tmp_path_factory.mktemp("clips")
    paths = [folder / f"{number}.wav" for number in range(3)]
    for path, content in zip(paths, first_members("an4/an4_raw.bigendian.tar.gz", ".raw", 3), strict=True):
        soundfile.write(path, np.frombuffer(content, ">i2").astype(np.int16), 16000)
    return paths
