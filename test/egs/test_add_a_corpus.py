"""The four steps of egs/README.md, followed to the letter on a corpus of noise."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asrprune.compare.grid import cells, read_grid
from asrprune.data.tables import read_table

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "egs/README.md").read_text()


ADD, COMPARE = re.findall(r"^## (?:Add a corpus|Compare methods).*?(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)


def _blocks(language: str, section: str = ADD) -> list[str]:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    return [block for name, block in blocks if name == language]


def _write_corpus(corpus: Path) -> None:
    rng = np.random.default_rng(1)
    for name, speakers in (("train", ("al", "bo", "cy")), ("dev", ("di",)), ("test", ("ed",))):
        for speaker in speakers:
            (corpus / name / speaker).mkdir(parents=True)
            for number in range(3):
                samples = rng.normal(scale=0.1, size=80000 if name == "dev" else 16000)  # a dev set must let layers be compared
                soundfile.write(corpus / name / speaker / f"{number}.wav", samples, 16000)
                (corpus / name / speaker / f"{number}.txt").write_text(f"open window {speaker}\n")


# Noise has few text units, and whether every stage runs does not depend on the other numbers.
SMALLER = {
    "tokenizer": "{type: char, vocab_size: null}",
    "num_layers": "4", "taps": "[2]", "truncated": "{2: 0.3}", "epochs": "2", "keep_best": "2", "average": "2",
}  # fmt: skip


@pytest.mark.slow
def test_the_four_steps(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "egs/common", tmp_path / "egs/common", ignore=shutil.ignore_patterns("__pycache__"))
    for path in ("mini/run.sh", "an4/conf/train.yaml"):
        (tmp_path / "egs" / path).parent.mkdir(parents=True)
        shutil.copy(ROOT / "egs" / path, tmp_path / "egs" / path)
    _write_corpus(tmp_path / "my corpus")
    folder, run = _blocks("")
    (data_sh,), (data_py,) = _blocks("bash"), _blocks("python")
    shell = {"cwd": tmp_path, "shell": True, "check": True}
    subprocess.run(folder, **shell)  # type: ignore[call-overload]
    (tmp_path / "egs/mycorpus/local/data.sh").write_text(data_sh)
    (tmp_path / "egs/mycorpus/local/data.py").write_text(data_py)
    (copy,) = re.findall(r"^\*\*3\. Numbers\.\*\* `(.*?)`", TEXT, re.MULTILINE)
    subprocess.run(copy, **shell)  # type: ignore[call-overload]
    config = tmp_path / "egs/mycorpus/conf/train.yaml"
    numbers = config.read_text()
    for key, value in SMALLER.items():
        numbers, found = re.subn(f"^( *){key}: .*", rf"\1{key}: {value}", numbers, flags=re.M)
        assert found == 1, key
    config.write_text(numbers)
    commands = run.replace("DIR", "'../../my corpus'")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(commands, env={**os.environ, "PATH": path}, **shell)  # type: ignore[call-overload]
    assert read_table(tmp_path / "egs/mycorpus/data/test/text") == {f"ed-{n}": "open window ed" for n in range(3)}
    assert read_table(tmp_path / "egs/mycorpus/data/train_sp/feats.scp").keys() >= {"al-0", "bo-1", "cy-2"}
    assert (tmp_path / "egs/mycorpus/exp/train/lang/tokens.txt").is_file()
    report = (tmp_path / "egs/mycorpus/exp/train/RESULTS.md").read_text()
    assert "3 utterances" in report
    assert report.count("| iterative ") > 2


def test_a_wrong_download_dir_is_named(tmp_path: Path) -> None:
    (data_py,) = _blocks("python")
    (tmp_path / "data.py").write_text(data_py)
    command = [sys.executable, tmp_path / "data.py", tmp_path / "downloads", tmp_path / "data"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert done.stderr == f"{tmp_path}/downloads/train: no such folder; name the folder of the corpus with --download_dir\n"


def test_the_grid_file_that_is_shown_is_one(tmp_path: Path) -> None:
    (block,) = _blocks("yaml", COMPARE)
    (tmp_path / "paper.yaml").write_text(block)
    assert "mine_12l_s2" in [cell.name for cell in cells(read_grid(tmp_path / "paper.yaml"), ROOT / "egs/mini")]


def test_every_recipe_is_listed() -> None:
    recipes = {path.parent.name for path in ROOT.glob("egs/*/README.md")}  # a copy made by these steps has none
    for text in (TEXT, (ROOT / "README.md").read_text()):
        assert recipes <= set(re.findall(r"\((?:egs/)?(\w+)/README\.md\)", text))
