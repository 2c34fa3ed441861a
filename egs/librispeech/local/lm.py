#!/usr/bin/env python3
"""LibriSpeech: the pruned 3-gram models that belong to the corpus, https://www.openslr.org/11/."""

import argparse
import hashlib
import logging
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from asrprune.data.download import fetch
from asrprune.runtime.errors import UserError
from asrprune.runtime.failures import exit_status
from asrprune.runtime.files import atomic_path

MD5_SUMS = {  # as OpenSLR publishes them
    "3-gram.pruned.1e-7.arpa.gz": "9a0f1325bcaf3a0f7b7be4be10823c2a",
    "3-gram.pruned.3e-7.arpa.gz": "8f67ec741827742eee05799ab7605b50",
}


def obtain(target: Path, work_dir: Path, download_dir: Path) -> None:
    """Copy the model of the name of ``target`` there, fetched to ``work_dir`` if ``download_dir`` does not hold it."""
    if target.name not in MD5_SUMS:
        raise UserError(f"decode.decoder.lm: no file, and {target.name} is not published; known: {', '.join(MD5_SUMS)}")
    url = f"https://www.openslr.org/resources/11/{target.name}"
    file = fetch(url, None, work_dir / target.name, download_dir)
    if (found := hashlib.md5(file.read_bytes()).hexdigest()) != MD5_SUMS[target.name]:
        raise UserError(f"{file}: is not the file at {url}: its MD5 sum is {found}; delete it and run this again")
    with atomic_path(target) as temporary:
        shutil.copyfile(file, temporary)


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", type=Path, help=f"file to write; its name is one of {', '.join(MD5_SUMS)}")
    parser.add_argument("--download_dir", type=Path, required=True, help="may hold the model; is only read")
    parser.add_argument("--work_dir", type=Path, required=True, help="where it is fetched to")
    given = parser.parse_args(arguments)
    return exit_status(lambda: obtain(given.target, given.work_dir, given.download_dir))


if __name__ == "__main__":
    sys.exit(main())
