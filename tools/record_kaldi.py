#!/usr/bin/env python3
"""Record which of the damaged data directories of test/bad_directories.py Kaldi's validate_data_dir.sh accepts.

python tools/record_kaldi.py KALDI/egs/wsj/s5     writes test/fixtures/kaldi/accepted.json; needs bash, awk and perl
"""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from asrprune.runtime.files import write_json

TEST = Path(__file__).resolve().parents[1] / "test"
sys.path.insert(0, str(TEST))
from bad_directories import bad_directories  # noqa: E402


def accepted(recipe: Path, directory: Path, programs: Path) -> bool:
    """Tell whether Kaldi accepts a directory. It may also exit with 0 after an error, so its last line counts."""
    command = ["bash", "utils/validate_data_dir.sh", str(directory)]
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=recipe, capture_output=True, text=True, errors="replace", env={"PATH": path}, check=False
    )
    return "Successfully validated" in done.stdout


def main() -> None:
    """Write the verdicts."""
    with TemporaryDirectory() as scratch:
        made = {name: bad.write(Path(scratch) / str(place)) for place, (name, bad) in enumerate(bad_directories().items())}
        locale = (
            Path(scratch) / "locale"
        )  # Debian says C.utf8, which the script does not know; it would refuse all that is not ASCII
        locale.write_text("#!/bin/sh\necho C.UTF-8\n")
        locale.chmod(0o755)
        verdicts = {name: accepted(Path(sys.argv[1]), path, locale.parent) for name, path in made.items()}
    write_json(TEST / "fixtures/kaldi/accepted.json", [name for name, good in verdicts.items() if good])


if __name__ == "__main__":
    main()
