"""All commands, registered in the order of --help."""

from asrprune.cli import data, train, prune, decode, transcribe, export, report, stage  # noqa: F401, I001  # in this order
from asrprune.cli.app import app

__all__ = ["app"]
