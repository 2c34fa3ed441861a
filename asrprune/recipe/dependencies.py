"""The stages of egs/common/run.sh: what each depends on, and what it makes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

from asrprune.config.names import names_affecting
from asrprune.config.section import Kind
from asrprune.config.strategies import NEEDS
from asrprune.recipe.needs import ALL, flat
from asrprune.recipe.stage import Dependencies


@dataclass(frozen=True)
class Places:
    """The directories of a run; sets are given by their names below ``datadir``."""

    datadir: Path
    exp: Path
    train_set: str
    dev_set: str
    test_sets: tuple[str, ...]
    lm_text: Path | None = None

    @property
    def train(self) -> Path:
        """The training set."""
        return self.datadir / self.train_set

    @property
    def train_sp(self) -> Path:
        """The training set at all speeds."""
        return self.datadir / f"{self.train_set}_sp"

    @property
    def dev(self) -> Path:
        """The development set."""
        return self.datadir / self.dev_set

    @property
    def tests(self) -> tuple[Path, ...]:
        """The test sets."""
        return tuple(self.datadir / name for name in self.test_sets)


def dependencies(places: Places, config: Mapping[str, Any]) -> dict[str, Dependencies]:
    """Return the dependencies of each stage by its name; ``config`` is a resolved config."""
    copied = config["prune"]["speeds"] != [1.0]
    searched = places.datadir / f"{places.dev_set}_sp" if copied else places.dev  # layers are chosen on it
    return {**_data(places, searched), **_model(places, searched, config), **_results(places, config)}


def _affecting(config: Mapping[str, Any], *kinds: Kind) -> tuple[str, ...]:
    """Return the names of the numbers of the config that affect any of these kinds."""
    present = flat(config)
    return tuple(name for name in names_affecting(*kinds) if name in present)


def _data(places: Places, searched: Path) -> dict[str, Dependencies]:
    sets = (places.train, places.dev, *places.tests)
    with_features = (places.train_sp, places.dev, *places.tests, searched)
    return {
        "download": Dependencies(places.datadir, follows=False, makes_audio=sets),
        "data": Dependencies(
            places.datadir,
            follows=False,
            reads=(*map(Path, glob("local/*.*")), *map(Path, glob("conf/corpus*"))),
            makes=_files(sets, "text", "wav.scp", "utt2spk"),
            makes_audio=sets,
            editable=True,
            blames_previous=True,
        ),
        "fbank": Dependencies(
            places.datadir,
            follows=False,
            needs=("frontend", "augment.speeds"),
            reads=(places.train, places.dev),
            also_needs=("prune.speeds",) if searched != places.dev else (),
            also_reads=places.tests,
            also_reads_audio=sets,
            makes=(places.train_sp / "cmvn", *_files(with_features, "feats.scp", "utt2[cdn]*", "fbank/feats_*")),
            huge=True,
            repeatable=True,
            shared="features",
        ),
    }


def _model(places: Places, searched: Path, config: Mapping[str, Any]) -> dict[str, Dependencies]:
    exp, lang, lm = places.exp, places.exp / "lang", flat(config).get("decode.decoder.lm") or ""
    own_lm = (Path(lm),) if Path(lm).is_file() else ()
    made_lm = (lang / lm,) if lm and not own_lm else ()
    return {
        "bpe": Dependencies(
            exp,
            needs=("tokenizer",),
            also_needs=("decode.decoder.lm",) if lm else (),
            also_reads=(places.lm_text,) if places.lm_text else (),
            makes=(lang / "bpe.model", lang / "tokens.txt", *made_lm),
            repeatable=True,
        ),
        "train": Dependencies(
            exp,
            needs=(*_affecting(config, "learning"), "train.average"),
            reads=(places.train_sp / "utt2crc", places.dev / "utt2crc"),
            also_needs=(ALL,),
            makes=_files([exp], "config.yaml", "bpe.model", "tokens.txt", "cmvn", "dropped.tsv"),
            repeatable=True,
        ),
        "average": Dependencies(exp, makes=(exp / "model.safetensors", exp / "model.json"), blames_previous=True),
        "svcca": Dependencies(
            exp,
            needs=("decode.precision", "prune.svcca_variance", "prune.svcca_frames", "prune.speeds"),
            reads=(searched / "utt2crc",),
            makes=(exp / "svcca" / f"{searched.name}.npz", exp / "svcca" / f"{searched.name}.png"),
            # A small dev set may be too short to measure, so it is not asked for without need.
            needed=any(NEEDS[name].measure for name in config["prune"]["strategies"]),
        ),
        "search": Dependencies(
            exp,
            needs=_affecting(config, "search"),
            reads=(searched / "utt2crc", *own_lm, *made_lm),
            makes=(exp / "plans/*.json", *([exp / "decoder.json"] if lm else [])),
        ),
    }


def _results(places: Places, config: Mapping[str, Any]) -> dict[str, Dependencies]:
    exp, tests = places.exp, places.tests
    decoded = [exp / "decode" / name / "*" for name in places.test_sets]
    return {
        "decode": Dependencies(
            exp,
            needs=_affecting(config, "decoding"),
            reads=(*tests, *_files(tests, "utt2crc")),
            makes=_files(decoded, "text", "decode.json"),
        ),
        "score": Dependencies(exp, also_needs=("scoring",), makes=_files(decoded, "score.json", "*.t*"), repeatable=True),
        "bench": Dependencies(exp, needs=_affecting(config, "bench"), makes=(exp / "bench.json",)),
        "report": Dependencies(
            exp, needs=("scoring",), makes=_files([exp], "report.html", "results.json", "RESULTS.md", "figures/*.png")
        ),
    }


def _files(directories: Iterable[Path], *names: str) -> tuple[Path, ...]:
    """Return the paths of files of these names in each of the directories."""
    return tuple(directory / name for directory in directories for name in names)
