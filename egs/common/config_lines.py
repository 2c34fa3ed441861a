#!/usr/bin/env python3
"""Print a config, complete, as `section.key=value` lines: the driver compares them to know which stages are out of date."""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

try:
    from asrprune.config.load import read_config, resolved
    from asrprune.runtime.errors import exit_status
except ImportError as error:
    sys.exit(f"{sys.executable}: {error}; activate the environment that asrprune is installed in, or run `make demo` once")


def lines(values: Any, name: str = "") -> Iterator[str]:
    """``{"train": {"epochs": 2}}`` -> ``train.epochs=2``."""
    if isinstance(values, dict):
        for key, value in values.items():
            yield from lines(value, f"{name}.{key}".lstrip("."))
    else:
        yield f"{name}={json.dumps(values)}"


def main() -> int:
    """The command line is that of the commands: --config FILE [--set section.key=value ...]; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    args = parser.parse_args()
    return exit_status(lambda: print("\n".join(lines(resolved(read_config(args.config, args.overrides))))))


if __name__ == "__main__":
    sys.exit(main())
