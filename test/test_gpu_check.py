"""The script that checks a GPU: one bad part does not stop the others, and the page says what each found."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from scripts import ROOT, load_script
from waiting import alive, wait_for

sys.modules["gpu_check"] = check = load_script("tools/gpu_check/check.py")  # its dataclasses look themselves up
missing = load_script("tools/gpu_check/missing.py")


@pytest.fixture
def options(tmp_path: Path) -> Any:
    return check.Options(tmp_path, "cpu", True, check.commands(tmp_path / "bin"))


def part(work: Any, ends_in_s: float = 60.0) -> Any:
    return check.run_part(work, "depth", 1.0, time.time() + ends_in_s)


def raising(error: Exception) -> Any:
    def work(limit_s: float) -> None:
        raise error

    return work


def test_how_a_part_ends() -> None:
    assert part(lambda limit_s: {"limit": limit_s}, 1000).found == {"limit": check.LIMITS_S["depth"]}
    assert part(lambda limit_s: {"limit": limit_s}, 30).found["limit"] == pytest.approx(30, abs=1), "what is left of the whole"
    late = part(lambda limit_s: {}, 2)
    assert (late.status, late.why) == ("failed", "no time left of 480 s")
    failed = part(raising(check.Failed("lost", {"some": 1})))
    assert (failed.status, failed.why, failed.found) == ("failed", "lost", {"some": 1})
    assert part(raising(check.Skipped("no data"))).status == "skipped"
    mistake = part(raising(KeyError("rows")))
    assert (mistake.status, mistake.why) == ("failed", "KeyError: 'rows'")


def test_a_process_is_stopped_at_its_limit_with_its_children(options: Any, tmp_path: Path) -> None:
    command = ["sh", "-c", f"sleep 300 & echo $! > {tmp_path}/child; echo begun; wait"]
    assert check.run("sleeper", command, options, 1.0) == "stopped after 1 s; see sleeper.log"
    assert (tmp_path / "sleeper.log").read_text() == "begun\n"
    child = int((tmp_path / "child").read_text())
    wait_for(lambda: not alive(child))


def test_what_a_process_said_last_is_told(options: Any) -> None:
    assert check.run("fine", ["true"], options, 9.0) == ""
    said = check.run("bad", ["sh", "-c", "echo one; echo two >&2; exit 3"], options, 9.0)
    assert said == "exit status 3: two; see bad.log"


def test_commands_are_those_of_this_python(options: Any) -> None:
    check.run("which", ["python", "-c", "import sys, asrprune, ours; print(sys.executable)"], options, 120.0)
    assert (options.out / "which.log").read_text().splitlines()[-1] == sys.executable


def test_what_an4_reached_is_read_though_it_was_stopped(tmp_path: Path) -> None:
    assert check.reached(tmp_path) == {"test_wer": {}}
    records = [
        {"kind": "step", "frames_per_s": 50.0},
        {"kind": "epoch", "dev_wer": {"1": 90.0, "2": 80.0}},
        {"kind": "step", "frames_per_s": 70.0},
    ]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, records)) + '\n{"kind": "st')
    score = tmp_path / "decode/test/iterative_d6/score.json"
    score.parent.mkdir(parents=True)
    score.write_text(json.dumps({"wer": 12.5, "wer_ci95": [10.0, 15.0], "cer": 4.0}))
    found = check.reached(tmp_path)
    assert found["epochs"] == 1
    assert found["dev_wer"] == {"1": 90.0, "2": 80.0}
    assert found["frames_per_s"] == 70.0
    assert found["test_wer"] == {"iterative_d6": {"wer": 12.5, "ci95": [10.0, 15.0]}}


def test_numbers_of_the_recipe_are_keys_of_the_config() -> None:
    from asrprune.config.load import read_config

    for numbers in (check.AN4_NUMBERS, check.AN4_TINY):
        config = read_config(ROOT / "egs/an4/conf/train.yaml", [f"{key}={value}" for key, value in numbers.items()])
        assert config.train.epochs == numbers["train.epochs"]


def test_page(options: Any) -> None:
    row = {"utterances": 1, "precision": "bf16", "depth": 6, "params_m": 1.5, "rtf": 0.00123, "speed_up": 2.5}
    sizes = {
        "layers": 24,
        "ffn": 2048,
        "frames": 1000,
        "repeats": 15,
        "warm_up": 3,
        "depths": [6],
        "taps": [6],
        "utterances": 2,
    }
    update = {
        "model": "plain",
        "precision": "float32",
        "tf32": "no TF32",
        "update_s": 0.25,
        "frames_per_s": 1e5,
        "peak_gb": 1.234,
    }
    parts = {
        "tests": check.Part("failed", "1 tests failed", 9.0, {"passed": 40, "failed": ["test_bad"], "skipped": ["test_left"]}),
        "depth": check.Part("passed", "", 3.0, {"sizes": sizes, "tf32": "TF32 in convolutions", "rows": [row]}),
        "training": check.Part("passed", "", 3.0, {"sizes": sizes, "peak": "allocated by torch", "rows": [update]}),
        "an4": check.Part("skipped", "there is no data"),
    }
    check.write(options, {"gpu": "a GPU"}, parts)
    said = (options.out / "gpu.md").read_text()
    assert "**On cpu, with tiny models: a test of the script, no result.**" in said
    assert "| an4      | skipped | 0       | there is no data |" in said
    assert "- failed: `test_bad`\n- skipped: `test_left`" in said
    assert "| 6     | 1.5        | 0.00123 (2.50) |" in said
    assert "| plain | float32   | no TF32          | 0.25                 | 1e+05           | 1.23      |" in said
    assert "## AN4" not in said
    assert json.loads((options.out / "gpu.json").read_text())["parts"]["depth"]["found"]["rows"] == [row]
    check.write(check.Options(options.out, "cuda", False, options.python), {}, parts)
    assert "no result" not in (options.out / "gpu.md").read_text()


def test_missing_packages_are_those_of_pyproject(tmp_path: Path) -> None:
    required = missing.requirements((ROOT / "pyproject.toml").read_text())
    assert "torch>=2.6" in required
    assert "jinja2>=3.1" in required
    assert not any(missing.is_missing(requirement) for requirement in required)
    assert missing.is_missing("no-such-package>=1.0")


def test_mistakes_in_the_options(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "tools/gpu_check/check.py"), "--parts", "depth,colours"]
    done = subprocess.run([*command, "--out", str(tmp_path / "out")], capture_output=True, text=True)
    assert done.returncode == 2
    assert "--parts colours: no such part; there are tests, depth, training, an4" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_whole_script_on_the_cpu(tmp_path: Path) -> None:
    command = [str(ROOT / "tools/gpu_check.sh"), "--device", "cpu", "--tiny", "--out", str(tmp_path)]
    environment = {key: value for key, value in os.environ.items() if key != "GPU_CHECK_STARTED"} | {"PYTHON": sys.executable}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    facts = json.loads((tmp_path / "gpu.json").read_text())
    expected = "passed" if check.AN4.is_dir() else "skipped"
    statuses = {name: part["status"] for name, part in facts["parts"].items()}
    assert statuses == {"machine": "passed", "tests": "passed", "depth": "passed", "training": "passed", "an4": expected}
    assert len(facts["parts"]["depth"]["found"]["rows"]) == 12, "two batches, two precisions, three depths"
    assert all(row["frames_per_s"] > 0 for row in facts["parts"]["training"]["found"]["rows"])
    if expected == "passed":
        assert set(facts["parts"]["an4"]["found"]["test_wer"]) == {"lowest_d1", "lowest_d2"}
    page = (tmp_path / "gpu.md").read_text()
    assert "a test of the script, no result" in page
    assert page.count("\n## ") == 4 - (expected == "skipped")
