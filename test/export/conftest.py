"""Files that several tests of export share; tracing one takes most of the time."""

import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from experiments import untrained

from asrprune.config.schema import Config

AN4 = Path(__file__).resolve().parents[2] / "../shared/data/an4/an4_raw.bigendian.tar.gz"


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
    if not AN4.is_file():
        pytest.skip(f"{AN4} is not there")
    folder, paths = tmp_path_factory.mktemp("clips"), []
    with tarfile.open(AN4) as archive:
        for entry in archive:
            if entry.name.endswith(".raw") and len(paths) < 3:
                content = archive.extractfile(entry)
                assert content is not None
                samples = np.frombuffer(content.read(), ">i2").astype(np.int16)
                paths.append(folder / f"{len(paths)}.wav")
                soundfile.write(paths[-1], samples, 16000)
            if len(paths) == 3:
                break
    return paths
