"""docs/bad-input.md: kinds of bad input, and what asrprune says to each. WRITE=1 writes the page anew."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from bad_audio import BAD_AUDIO, good
from bad_configs import BAD_CONFIGS
from bad_directories import bad_directories
from commands import asrprune, refused, unchanged

from asrprune.config.load import read_config
from asrprune.data.check import check_data_dir
from asrprune.data.tables import read_table, write_table
from asrprune.decode.choose import Tuned
from asrprune.experiment.plan import read_plan
from asrprune.experiment.store import load
from asrprune.features.ark import checksum, read_matrix, write_ark
from asrprune.features.cmvn import read_cmvn
from asrprune.lm.arpa import ArpaModel
from asrprune.runtime.errors import UserError
from asrprune.train.checkpoint import load_state
from asrprune.train.journal import read_journal

PAGE = Path(__file__).resolve().parents[1] / "docs/bad-input.md"
Rows = list[tuple[str, str]]  # what is wrong, what asrprune says


def sentence(work: Callable[[], object]) -> str:
    """The first line of the error of ``work``."""
    with pytest.raises(UserError) as caught:
        work()
    return str(caught.value).splitlines()[0]


def directories(folder: Path) -> Rows:
    """Of each kind of damage, one table; other tables only if something else is said about them."""
    rows, seen = [], set()
    for place, (name, bad) in enumerate(bad_directories().items()):
        faults = check_data_dir(bad.write(folder / str(place)), audio=False, features=False).faults
        if faults:
            said = faults[0].replace(str(folder / str(place)), "data")
            general = re.sub(rf"{re.escape(bad.file)}|:\d+|\b\d+ of|byte \d+|`[^`]*`|\b(al|bo|ra|rb|zz)(-\d)?\b", "", said)
            if general not in seen:
                rows.append((name, said))
            seen.add(general)
    return rows


def audio(folder: Path) -> Rows:
    rows = []
    for place, (name, make) in enumerate(BAD_AUDIO.items()):
        data = folder / str(place)
        data.mkdir()
        entries = {f"a-{i}": str(good(data / f"a{i}.wav")) for i in range(2)} | {"a-2": str(make(data / "bad"))}
        same = {"utt2spk": dict.fromkeys(entries, "a"), "text": dict.fromkeys(entries, "go"), "spk2utt": {"a": "a-0 a-1 a-2"}}
        for file, lines in ({"wav.scp": entries} | same).items():
            write_table(data / file, lines)
        said = check_data_dir(data).faults
        rows.append((name, said[0].replace(str(data), "data") if said else "(accepted by check-data)"))
    return rows


def features(folder: Path, dev: Path) -> Rows:
    """Of an utterance's features, and of what the tables say of them."""

    def with_number(value: float) -> Callable[[np.ndarray], np.ndarray]:
        return lambda matrix: np.concatenate([matrix[:-1], np.full_like(matrix[:1], value)])

    damage: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "a number that is none": with_number(np.nan),
        "a number that is far too large": with_number(1e20),
        "another number of features in a frame": lambda matrix: matrix[:, :40],
        "another number of frames": lambda matrix: matrix[:-1],
        "other numbers": lambda matrix: matrix + 1,
    }
    rows = []
    for place, (name, change) in enumerate(damage.items()):
        data = Path(shutil.copytree(dev, folder / str(place)))
        matrices = {key: read_matrix(entry) for key, entry in read_table(data / "feats.scp").items()}
        if name == "other numbers":
            write_table(data / "utt2crc", {key: f"{checksum(matrix):08x}" for key, matrix in matrices.items()})
        key = list(matrices)[1]
        changed = write_ark(data / "new.ark", data / "new.ark", [(key, change(matrices[key]))])
        write_table(data / "feats.scp", read_table(data / "feats.scp") | changed)
        (said,) = check_data_dir(data, audio=False).faults
        rows.append((name, said.replace(str(data), "data")))
    return rows


def configs(folder: Path) -> Rows:
    path = folder / "train.yaml"
    rows = []
    for name, text in BAD_CONFIGS.items():
        path.write_text(text)
        rows.append(
            (f"{name}: `{text}`".replace("\n", "⏎ "), sentence(lambda: read_config(path)).replace(str(path), "train.yaml"))
        )
    return rows


def artefacts(exp: Path, data: Path) -> Rows:
    """Files of an experiment and of features that are damaged."""
    archive = next((data / "dev/fbank").glob("*.ark"))
    readers: dict[Path, Callable[[Path], object]] = {
        exp / "config.yaml": lambda path: load(exp),
        exp / "model.json": lambda path: load(exp),
        exp / "model.safetensors": lambda path: load(exp),
        exp / "bpe.model": lambda path: load(exp),
        exp / "plan.json": lambda path: read_plan(path, 4, "0"),
        exp / "decoder.json": Tuned.read,
        exp / "train.jsonl": read_journal,
        exp / "checkpoints/last.pt": lambda path: load_state(path.parent),
        exp / "cmvn": read_cmvn,
        exp / "3gram.arpa": ArpaModel,
        archive: lambda path: read_matrix(f"{path}:0"),
    }
    damage = {
        "is not there": None,
        "is empty": b"",
        "is a text": b"hello\nworld\n",
        "has no fields": b"{}\n",
        "is zeros": bytes(99),
    }
    rows = []
    for path, read in readers.items():
        before = path.read_bytes() if path.exists() else None
        for what, content in damage.items():
            path.unlink(missing_ok=True)
            if content is not None:
                path.write_bytes(content)
            elif path.name in ("last.pt", "train.jsonl"):  # a training begins, a report leaves it out
                continue
            try:
                read(path)
            except UserError as error:
                rows.append((f"{path.name} {what}", str(error).splitlines()[0]))
        if before is not None:
            path.write_bytes(before)
    return [(name, said.replace(str(exp), "exp").replace(str(data), "data")) for name, said in rows]


def command_lines(exp: Path, data: Path, folder: Path) -> Rows:
    """Options that do not fit."""
    dev, wav, test = data / "dev", next((data / "dev/audio").glob("*.wav")), folder / "test"
    shutil.copytree(dev, test)
    config = folder / "train.yaml"
    config.write_text("{}")
    (folder / "upper.arpa").write_text("\\data\\\nngram 1=3\n\n\\1-grams:\n-9\t<s>\n-1\t</s>\n-1\tONE\n\n\\end\\\n")
    tried: list[tuple[str, list[object]]] = [
        ("an unknown command", ["decoed"]),
        ("an unknown option", ["decode", "--stratgy", "lowest"]),
        ("no experiment", ["decode", "--exp", folder / "none", dev]),
        ("an unknown strategy", ["search", "--exp", exp, "--dev", dev, "--strategy", "itertive"]),
        ("an unknown plan", ["transcribe", "--exp", exp, wav, "--plan", "greddy", "--depth", 2]),
        ("a plan without a depth", ["transcribe", "--exp", exp, wav, "--plan", "lowest"]),
        ("layers that descend", ["decode", "--exp", exp, dev, "--layers", "2,1"]),
        ("a layer above the last", ["decode", "--exp", exp, dev, "--layers", "1,5"]),
        ("words for layers", ["decode", "--exp", exp, dev, "--layers", "one"]),
        ("layers and a depth", ["decode", "--exp", exp, dev, "--layers", "1,2", "--depth", 2]),
        ("neither layers nor a depth", ["prune", "--exp", exp, folder / "out"]),
        ("a plan with layers", ["prune", "--exp", exp, folder / "out", "--layers", "1,2", "--plan", "every"]),
        ("layers chosen on a test set", ["search", "--exp", exp, "--dev", test, "--strategy", "iterative"]),
        ("an unknown executor", ["decode", "--exp", exp, dev, "--executor", "slrum"]),
        ("options of a cluster without one", ["decode", "--exp", exp, dev, "--sbatch", "--time=9"]),
        ("a language model for greedy decoding", ["transcribe", "--exp", exp, wav, "--decoder", "greedy", "--lm", "x.arpa"]),
        ("no such language model", ["transcribe", "--exp", exp, wav, "--lm", "x.arpa"]),
        ("a language model in other letters", ["transcribe", "--exp", exp, wav, "--lm", folder / "upper.arpa"]),
        ("a phrase outside the text units", ["transcribe", "--exp", exp, wav, "--context", "six"]),
        ("too many epochs to average", ["average", "--exp", exp, "--count", 9]),
        ("similarities that were not measured", ["search", "--exp", exp, "--dev", dev, "--strategy", "svcca"]),
        ("too few frames to measure similarities", ["svcca", "--exp", exp, "--data", dev]),
        ("nothing decoded", ["score", "--exp", exp, dev]),
        ("nothing to report", ["report", "--exp", exp]),
        ("an unknown number", ["number", "train.epoch", "--config", config]),
        ("a section for a number", ["number", "train.schedule", "--config", config]),
        ("an order of n-grams that is not known", ["lm", dev / "text", folder / "model.arpa"]),
        ("a setting without a value", ["fbank", dev, "--config", config, "--set", "seed"]),
        ("a setting that is not YAML", ["fbank", dev, "--config", config, "--set", "seed=["]),
        ("text units for ten words", ["bpe", dev, folder / "lang", "--config", config]),
    ]
    names = {str(exp): "exp", str(data): "data", str(folder): "", str(dev): "data/dev"}
    rows = []
    for what, words in tried:
        with unchanged(exp):
            done = asrprune(*words)
        if done.code != 2:  # click says what its usage is
            refused(done, str(words[0]))
        said = next(line for line in done.err.splitlines() if "rror: " in line).partition("rror: ")[2]
        for long, short in names.items():
            said = said.replace(long, short)
        rows.append((what, said))
    return rows


INTRODUCTION = """# Bad input

Written by `WRITE=1 python -m pytest test/test_bad_input_page.py`; do not edit.

asrprune answers a mistake in its input with one sentence on stderr and exit status 1: what is wrong, where, the rule, the fix.
`asrprune check-data` lists all faults of a data directory at once; `asrprune fix-data` corrects those that can be corrected.
This page lists {count} kinds of bad input with the sentence that asrprune prints.

## Differences to Kaldi

`asrprune check-data` refuses what Kaldi's `validate_data_dir.sh` refuses (compared in test/data/test_kaldi_rules.py), and:

- tabs, repeated blanks, and blanks at the ends of a line: a line has one form, so that equal tables are equal files.
  `fix-data` corrects them.
- carriage returns and characters that nobody sees: they make other words, ids and paths. `fix-data` removes them.
- bytes that are not UTF-8: without its encoding, a file cannot be read as characters. The message names `iconv`.
- an id without a value: an empty path, number or transcript hides a mistake.
- numbers that are none (`x`, `nan`, `inf`, `1,5`): Kaldi's awk compares them as text.
- segments that begin before 0 s: a recording has no samples there.
- utterances below 5 ms: they have no frame, so no features. `fix-data` drops them.

Tables that only Kaldi reads, such as `spk2gender`, `utt2lang`, `vad.scp` and `cmvn.scp`, are checked and corrected, too.
"""


def table(title: str, rows: Rows) -> Iterator[str]:
    yield f"\n## {title}\n\n| what is wrong | what asrprune says |\n| --- | --- |\n"
    for cells in rows:
        yield "| " + " | ".join(_cell(cell) for cell in cells) + " |\n"


def _cell(text: str) -> str:
    """Escape a text for a table of Markdown; in `code` only bars are escaped."""
    shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text).replace("|", "\\|")
    parts = shown.split("`")
    return "`".join(part if place % 2 else re.sub(r"([\\<*_])(?!\|)", r"\\\1", part) for place, part in enumerate(parts))


def page(folder: Path, exp: Path, data: Path) -> str:
    for name in ("directories", "audio", "features"):
        (folder / name).mkdir()
    tables = {
        "Data directories": directories(folder / "directories"),
        "Recordings": audio(folder / "audio"),
        "Features": features(folder / "features", data / "dev"),
        "Configs": configs(folder),
        "Command lines": command_lines(exp, data, folder),
        "Files of an experiment": artefacts(exp, data),
    }
    count = sum(map(len, tables.values()))
    return INTRODUCTION.format(count=count) + "".join(line for title, rows in tables.items() for line in table(title, rows))


def without_details(text: str) -> list[str]:
    """The lines without what libraries say, which stands in parentheses and depends on their version."""
    return re.sub(r"\([^()]*(\([^()]*\)[^()]*)*\)", "()", text).splitlines()


def test_the_page_is_up_to_date(tiny_experiment: Path, tiny_data: Path, tmp_path: Path) -> None:
    exp, data = (Path(shutil.copytree(source, tmp_path / source.name)) for source in (tiny_experiment, tiny_data))
    text = page(tmp_path, exp, data)
    if os.environ.get("WRITE"):
        PAGE.write_text(text, encoding="utf-8")
    there = PAGE.read_text(encoding="utf-8")
    assert without_details(there) == without_details(text), "docs/bad-input.md is behind: see its head"
    assert text.count("\n| ") > 200
    assert "Traceback" not in text
