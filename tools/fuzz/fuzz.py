#!/usr/bin/env python3
"""Feed a reader of files with damaged files; see README.md in this folder."""

import argparse
import random
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parent))
try:
    import atheris
except ImportError:  # optional
    atheris = None


def mutate(name: str, seconds: float, folder: Path, seed: int = 0) -> str:
    """Read mutations of the seeds for some seconds of computing; return a sentence. What is found is kept as found_NAME."""
    from parsers import PARSERS, mutated

    parser, draw = PARSERS[name], random.Random(seed)
    count, accepted, before = 0, 0, time.process_time()
    while time.process_time() < before + seconds:
        content = mutated(draw.choice(parser.seeds), draw)
        try:
            accepted += parser.survives(content, folder)
        except BaseException:
            Path(f"found_{name.replace(' ', '_')}").write_bytes(content)
            raise
        count += 1
    used = time.process_time() - before
    return f"{name}: {count} files, {accepted} accepted, no other error than UserError; {used:.0f} s of computing"


def guided(name: str, seconds: float, folder: Path) -> None:
    """Let atheris look for new paths through the reader."""
    with atheris.instrument_imports(include=["asrprune"]):
        from parsers import PARSERS
    parser, corpus = PARSERS[name], folder / "corpus"
    corpus.mkdir()
    for place, seed in enumerate(parser.seeds):
        (corpus / str(place)).write_bytes(seed)
    work = folder / "work"
    work.mkdir()
    atheris.Setup(
        [sys.argv[0], f"-max_total_time={seconds:g}", "-max_len=4096", str(corpus)], lambda data: parser.survives(data, work)
    )
    atheris.Fuzz()


def main() -> None:
    """Fuzz one reader with atheris, or all of them, one after the other, with random mutations."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("name", nargs="?", help="a reader of parsers.py; default: each in turn, without atheris")
    options.add_argument("--seconds", type=float, default=60.0, help="for each reader")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--plain", action="store_true", help="random mutations, also if atheris is installed")
    given = options.parse_args()
    with TemporaryDirectory() as scratch:
        if given.name and atheris and not given.plain:
            guided(given.name, given.seconds, Path(scratch))
            return
        from parsers import PARSERS

        for name in [given.name] if given.name else PARSERS:
            print(mutate(name, given.seconds, Path(scratch), given.seed), flush=True)


if __name__ == "__main__":
    main()
