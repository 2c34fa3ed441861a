"""The packages that asrprune uses, by the extra of pyproject.toml that installs them."""

from __future__ import annotations  # an old Python must be able to import this file and report its version

import sys

# distribution: module
BASE = {
    "numpy": "numpy",
    "soundfile": "soundfile",
    "onnxruntime": "onnxruntime",
    "pydantic": "pydantic",
    "typer": "typer",
    "rich": "rich",
}
EXTRAS = {
    "train": {
        "torch": "torch",
        "torchaudio": "torchaudio",
        "kaldiio": "kaldiio",
        "sentencepiece": "sentencepiece",
        "pyyaml": "yaml",
        **({"editdistance": "editdistance"} if sys.version_info < (3, 13) else {"rapidfuzz": "rapidfuzz"}),
        "matplotlib": "matplotlib",
        "lightning-fabric": "lightning_fabric",
        "tensorboard": "tensorboard",
        "safetensors": "safetensors",
        "jinja2": "jinja2",
    },
    "mini": {"espeakng-loader": "espeakng_loader"},
    "slurm": {"submitit": "submitit"},
    "export": {"onnx": "onnx", "onnxscript": "onnxscript"},
}
USES = {"mini": "egs/mini", "slurm": "--executor slurm", "export": "asrprune export"}  # what needs the optional ones


def missing(module: str | None) -> str | None:
    """Return a sentence about a module that is not installed; None if asrprune does not use it.

    >>> missing("torch.nn")
    "torch is missing; run: pip install 'asrprune[train]'"
    """
    name = (module or "").partition(".")[0]
    extras = [extra for extra, packages in {"runtime": BASE, **EXTRAS}.items() if name in packages.values()]
    return f"{name} is missing; run: pip install 'asrprune[{extras[0]}]'" if extras else None
