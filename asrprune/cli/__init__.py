"""The commands: paths on the command line, numbers in YAML. Heavy imports are inside the functions, so --help is fast."""

from asrprune.cli import data, train, prune, decode, transcribe, export, report, stage  # noqa: F401, I001  # register the commands in this order
from asrprune.cli.app import app
from asrprune.cli.screen import open_closed_streams


def main() -> None:
    """Run the command of the command line."""
    open_closed_streams()
    app()
