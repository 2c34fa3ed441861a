"""`asrprune export --web`: a folder with a page that recognises speech in the browser, and the model that it runs."""

import logging
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

from asrprune.experiment.plan import Plan
from asrprune.experiment.store import Experiment
from asrprune.export.build import Options, export
from asrprune.export.record import Exported
from asrprune.runtime.errors import UserError
from asrprune.runtime.files import write_text
from asrprune.runtime.planted import read_plain

logger = logging.getLogger(__name__)
MODEL = "model.onnx"


def export_page(experiment: Experiment, plan: Plan, directory: Path, options: Options) -> Exported:
    """Write the page, and the model in the only form that onnxruntime-web runs at any depth: with a required ``keep``.

    Raises:
        UserError: the directory has an index.html of something else; or as ``export``. Files of the page that were changed
            are kept, with a warning.
    """
    sources = [source for source in files("asrprune.export").joinpath("web").iterdir() if source.is_file()]
    if (directory / "index.html").exists() and not (directory / MODEL).exists():
        raise UserError(f"--web {directory}: has an index.html of something else; name a new directory")
    exported = export(experiment, plan, directory / MODEL, replace(options, form="required-keep", input="waveform"))
    for source in sources:
        path, text = directory / source.name, source.read_text(encoding="utf-8")
        if path.exists() and read_plain(path) != text.encode():
            logger.warning("%s: was changed, or is of another version; it is kept; remove it to get the current one", path)
        else:
            write_text(path, text)
    return exported
