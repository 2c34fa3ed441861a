"""The origin of an experiment: a run that goes on must have the same config, text units and data."""

import hashlib
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from asrprune.config.load import resolved, write_config
from asrprune.config.names import only
from asrprune.config.schema import Config
from asrprune.data.dataset import Corpus
from asrprune.data.tokenizer import Tokenizer
from asrprune.experiment.paths import ExperimentPaths
from asrprune.experiment.store import read_experiment_config
from asrprune.features.cmvn import read_cmvn
from asrprune.runtime.errors import UserError
from asrprune.runtime.files import atomic_path, read_json, sha256_of, write_json


def start(exp: Path, config: Config, bpe_model: Path, cmvn: Path) -> None:
    """Make an experiment directory, or check that the one that is there is of the same config.

    Raises:
        UserError: ``exp`` holds a run with another config (all differences are named), or a file is missing or unfit.
    """
    Tokenizer(bpe_model)  # raises if it is missing
    tokens = bpe_model.with_name("tokens.txt")
    if not tokens.is_file():
        raise UserError(f"{tokens}: no such file; stage 3 (`asrprune bpe`) makes it beside {bpe_model.name}")
    if not cmvn.is_file():
        raise UserError(f"{cmvn}: no such CMVN statistics; stage 2 (`asrprune fbank --cmvn`) makes them")
    paths = ExperimentPaths(exp)
    if paths.config.exists():
        _check_same(paths.config, resolved(config))
        _check_same_file(paths.tokenizer, bpe_model)
        _check_same_file(paths.cmvn, cmvn)
    if (width := len(read_cmvn(cmvn)[0])) != config.frontend.num_mels:
        raise UserError(
            f"{cmvn}: is of {width} filters, but frontend.num_mels is {config.frontend.num_mels}; run stage 2 (fbank) with"
            " this config, or set frontend.num_mels back"
        )
    for source, name in ((bpe_model, "bpe.model"), (tokens, "tokens.txt"), (cmvn, "cmvn")):
        with atomic_path(exp / name) as temporary:
            shutil.copyfile(source, temporary)
    write_config(config, paths.config)


def check_data(exp: Path, train: Corpus, dev: Corpus) -> None:
    """Note in ``data.json`` what the run is trained on, or check that it is what the run began with.

    Paths may change; ids, lengths and texts may not, as the batches are drawn from them.

    Raises:
        UserError: they did.
    """
    path, corpora = ExperimentPaths(exp).data, {"train": train, "dev": dev}
    now = {name: fingerprint(corpus) for name, corpus in corpora.items()}
    if not path.exists():
        return write_json(path, {"format": 1, **now})
    before = read_json(path)
    for name, corpus in corpora.items():
        changed = [
            f"{key} {before[name][key]} there, {value} now" for key, value in now[name].items() if before[name][key] != value
        ]
        if changed:
            raise UserError(
                f"{corpus.directory} is not the {name} data that {exp} began with ({'; '.join(changed)}); "
                f"use another --exp, in run.sh --exp_tag, or remove {exp}"
            )
    return None


def fingerprint(corpus: Corpus) -> dict[str, Any]:
    """Identify a corpus, whatever its path: its size, and hashes of its ids, lengths and texts."""
    columns = {"ids": corpus.ids, "lengths": map(str, corpus.lengths), "texts": corpus.texts}
    hashes = {name: _hash_of_lines(column) for name, column in columns.items()}
    return {"utterances": len(corpus), "frames": int(corpus.lengths.sum()), **hashes}


def _hash_of_lines(lines: Iterable[str]) -> str:
    """Hash lines with line feeds between them, one after the other: there may be millions."""
    digest = hashlib.sha256()
    for number, line in enumerate(lines):
        digest.update(f"\n{line}".encode() if number else line.encode())
    return digest.hexdigest()[:16]


def _check_same(path: Path, new: dict[str, Any]) -> None:
    old = resolved(read_experiment_config(path.parent))
    differences = list(_differences(only(old, "learning"), only(new, "learning")))  # the rest may change between two starts
    if differences:
        listed = "\n".join(f"  {name}: {before} there, {now} now" for name, before, now in differences)
        raise UserError(
            f"{path.parent} holds a run with another config; use another --exp, in run.sh --exp_tag, or remove it:\n{listed}"
        )


def _check_same_file(old: Path, new: Path) -> None:
    if old.exists() and sha256_of(old) != sha256_of(new):
        raise UserError(
            f"{new} is not the file that {old} was copied from; use another --exp, in run.sh --exp_tag, or remove {old.parent}"
        )


def _differences(old: Any, new: Any, name: str = "") -> Sequence[tuple[str, str, str]]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = {**old, **new}
        return [item for key in keys for item in _differences(old.get(key), new.get(key), f"{name}.{key}".lstrip("."))]
    return [] if old == new else [(name, _short(old), _short(new))]


def _short(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("\n...\n").strip()
