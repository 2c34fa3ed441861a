"""The experiment directory: everything about one model, so that no later command needs an architecture flag."""

import hashlib
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from asrprune.config import PACE, Config, parse_config, read_yaml, resolved, without, write_config
from asrprune.data.dataset import Corpus
from asrprune.data.fbank import read_cmvn
from asrprune.data.tokenizer import Tokenizer
from asrprune.errors import UserError
from asrprune.files import atomic_path, read_json, sha256_of, write_json
from asrprune.hardware import keep_freed_memory, version
from asrprune.nn.model import CtcModel, num_params
from asrprune.train.checkpoint import average, best_epochs, epoch_file, load_state, load_weights, save_weights

# May change between two starts of one training run: they do not change what is learnt.
FREE_TO_CHANGE = ("prune", "decode", "bench", *PACE, "train.average")


@dataclass(frozen=True)
class Experiment:
    """A trained model and what belongs to it. It is pickled as its path, and loaded, to the CPU, where it arrives."""

    path: Path
    config: Config
    tokenizer: Tokenizer
    model: CtcModel
    info: dict[str, Any]  # model.json

    @property
    def num_layers(self) -> int:
        """Depth of the full model."""
        return self.config.model.num_layers

    def __reduce__(self) -> tuple[Callable[[Path], "Experiment"], tuple[Path]]:
        return load, (self.path,)


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
    if (exp / "config.yaml").exists():
        _check_same(exp / "config.yaml", resolved(config))
        _check_same_file(exp / "bpe.model", bpe_model)
        _check_same_file(exp / "cmvn", cmvn)
    if (width := len(read_cmvn(cmvn)[0])) != config.frontend.num_mels:
        raise UserError(
            f"{cmvn}: is of {width} filters, but frontend.num_mels is {config.frontend.num_mels}; run stage 2 (fbank) with"
            " this config, or set frontend.num_mels back"
        )
    for source, name in ((bpe_model, "bpe.model"), (tokens, "tokens.txt"), (cmvn, "cmvn")):
        with atomic_path(exp / name) as temporary:
            shutil.copyfile(source, temporary)
    write_config(config, exp / "config.yaml")


def check_data(exp: Path, train: Corpus, dev: Corpus) -> None:
    """Note in ``data.json`` what the run is trained on, or check that it is what the run began with.

    Paths may change; ids, lengths and texts may not, as the batches are drawn from them.

    Raises:
        UserError: they did.
    """
    path, corpora = exp / "data.json", {"train": train, "dev": dev}
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
    """What a corpus is, whatever its path: its size, and hashes of its ids, lengths and texts."""
    columns = {"ids": corpus.ids, "lengths": map(str, corpus.lengths), "texts": corpus.texts}
    hashes = {name: _hash_of_lines(column) for name, column in columns.items()}
    return {"utterances": len(corpus), "frames": int(corpus.lengths.sum()), **hashes}


def _hash_of_lines(lines: Iterable[str]) -> str:
    """Of the lines with line feeds between them, one after the other: there may be millions."""
    digest = hashlib.sha256()
    for number, line in enumerate(lines):
        digest.update(f"\n{line}".encode() if number else line.encode())
    return digest.hexdigest()[:16]


def build_model(config: Config, exp: Path) -> CtcModel:
    """A freshly initialised model of an experiment, drawn from the config's seed, with its CMVN."""
    torch.manual_seed(config.seed)
    model = CtcModel(config.model, config.frontend.num_mels, len(Tokenizer(exp / "bpe.model")))
    mean, scale = read_cmvn(exp / "cmvn")
    model.set_cmvn(torch.from_numpy(mean), torch.from_numpy(scale))
    return model


def average_best(exp: Path, count: int | None = None) -> list[dict[str, Any]]:
    """Average the best epochs' weights into ``model.safetensors`` and say in ``model.json`` which they were."""
    config = read_experiment_config(exp)
    state = load_state(exp / "checkpoints")
    if state is None or not state["progress"]["records"]:
        raise UserError(f"{exp / 'checkpoints'}: no finished epoch; stage 4 (`asrprune train`) makes them")
    records = state["progress"]["records"]
    if records[-1]["epoch"] < config.train.epochs:
        raise UserError(
            f"{exp}: only {records[-1]['epoch']} of {config.train.epochs} epochs are trained; run stage 4 (train) to its end"
        )
    if (count or 0) > config.train.keep_best:
        raise UserError(f"{exp}: --count {count}: only the best {config.train.keep_best} epochs are kept (train.keep_best)")
    epochs = best_epochs(records, count or config.train.average)
    weights = average([epoch_file(exp / "checkpoints", epoch) for epoch in epochs])
    members = [record for record in records if record["epoch"] in epochs]
    save_model(exp, config, weights, {"members": members})
    return members


def save_model(exp: Path, config: Config, weights: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
    """Write ``model.safetensors`` and, after it, ``model.json``, which is never there beside weights of another model."""
    (exp / "model.json").unlink(missing_ok=True)
    save_weights(exp / "model.safetensors", weights)
    model = CtcModel(config.model, config.frontend.num_mels, len(Tokenizer(exp / "bpe.model")))
    info = {
        "format": 1,
        "model_sha256": sha256_of(exp / "model.safetensors"),
        "num_layers": config.model.num_layers,
        "params_m": num_params(model) / 1e6,
        "asrprune": version(),
        "seed": config.seed,
        **facts,
    }
    write_json(exp / "model.json", info)


def load(exp: Path, device: str | torch.device = "cpu") -> Experiment:
    """Load a trained experiment, its model in eval mode.

    Raises:
        UserError: a part is missing (the stage that makes it is named) or the weights do not fit the config.
    """
    keep_freed_memory()
    config = read_experiment_config(exp)
    info = read_json(exp / "model.json", "asrprune average")
    tokenizer = Tokenizer(exp / "bpe.model")
    model = CtcModel(config.model, config.frontend.num_mels, len(tokenizer))
    weights = load_weights(exp / "model.safetensors")
    if sha256_of(exp / "model.safetensors") != info["model_sha256"]:
        raise UserError(
            f"{exp / 'model.safetensors'}: is not the file that model.json was written for (other SHA-256); copy the experiment"
            " anew, or run stage 5 (`asrprune average`) again"
        )
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(
            f"{exp / 'model.safetensors'}: does not fit {exp / 'config.yaml'}: {str(error).splitlines()[1].strip()}"
        ) from None
    return Experiment(exp, config, tokenizer, model.to(device).eval(), info)


def read_experiment_config(exp: Path) -> Config:
    """The config of an experiment; a missing one names the stage that makes it."""
    path = exp / "config.yaml"
    if not path.is_file():
        raise UserError(f"{exp}: not an experiment (it has no config.yaml); stage 4 (`asrprune train`) makes it")
    values = read_yaml(path)
    if missing := [name for name in Config.model_fields if name not in values]:  # a file cut short may still be valid YAML
        raise UserError(f"{path}: lacks {', '.join(missing)}; it was cut short, so copy the experiment anew or train it again")
    return parse_config(values, str(path))


def _check_same(path: Path, new: dict[str, Any]) -> None:
    old = resolved(parse_config(read_yaml(path), str(path)))
    differences = list(_differences(_fixed(old), _fixed(new)))
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


def _fixed(values: dict[str, Any]) -> dict[str, Any]:
    return without(values, FREE_TO_CHANGE)


def _differences(old: Any, new: Any, name: str = "") -> Sequence[tuple[str, str, str]]:
    if isinstance(old, dict) and isinstance(new, dict):
        return [item for key in old for item in _differences(old[key], new.get(key), f"{name}.{key}".lstrip("."))]
    return [] if old == new else [(name, _short(old), _short(new))]


def _short(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("\n...\n").strip()
