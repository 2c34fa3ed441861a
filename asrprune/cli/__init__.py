"""The commands: paths on the command line, numbers in YAML. A thin layer; heavy imports are inside, so --help is instant."""

from asrprune.cli import data, train, prune, decode, report, stage  # noqa: F401, I001  # they register their commands, in this order
from asrprune.cli.app import app


def main() -> None:
    """Run the command of the command line."""
    app()
