"""The benchmark: its workers answer, and the page shows what was measured and says what was not."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from scripts import load_script

ROOT = Path(__file__).resolve().parents[1]
write_page = load_script("tools/bench/show.py").write_page
TURNS = [0.2, 0.21, 0.19]


def test_workers_time_what_they_are_asked_for() -> None:
    model = {"layers": 2, "ffn": 32}
    messages: list[dict[str, Any]] = [
        {"case": "train", **model, "taps": [1], "rate": 0.5, "dtype": "bf16", "utterances": 2, "frames": 60, "labels": 3},
        {"run": 2},
        {"case": "encode", **model, "depth": 1, "dtype": "float32", "utterances": 1, "frames": 60},
        {"run": 1},
        {"case": "matmul", "size": 64, "dtype": "bf16"},
        {"run": 3},
        {"case": "plan", "utterances": 1000},
        {"run": 1},
        {"case": "manifest", "utterances": 1000},
        {"run": 1},
        {"case": "validate", "utterances": 1234},
        {"run": 1},
        {"case": "score", "utterances": 200},
        {"run": 1},
        {"peak": "memory"},
    ]
    lines = "".join(json.dumps(message) + "\n" for message in messages)
    command = [sys.executable, str(ROOT / "tools/bench/ours.py")]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    *answers, memory = map(json.loads, done.stdout.splitlines())
    assert [next(iter(answer)) for answer in answers] == ["ready", "seconds"] * 7
    assert all(0 < answer["seconds"] < 60 for answer in answers[1::2])
    assert answers[4]["ready"]["matmul_flops"] == 2 * 64**3
    assert 0.05 < memory["peak_gb"] < 20


def test_a_part_is_measured_and_the_others_stay(tmp_path: Path) -> None:
    (tmp_path / "performance.json").write_text(json.dumps({"plan_10m_s": 44.0, "raw": {}, "skipped": {}}))
    command = [sys.executable, str(ROOT / "tools/bench/bench.py"), "--parts", "features", "--repeats", "1"]
    done = subprocess.run([*command, "--output", str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    facts = json.loads((tmp_path / "performance.json").read_text())
    assert facts["plan_10m_s"] == 44.0
    taken = facts["raw"]["fbank"]
    assert facts["fbank_x_realtime_per_core"] == round(taken["audio_s"] / taken["seconds"][0], 1)
    page = (tmp_path / "performance.md").read_text()
    assert f"| {facts['fbank_x_realtime_per_core']:g} | features" in page
    assert "## Training" not in page
    failed = subprocess.run([*command[:2], "--parts", "colours", "--output", str(tmp_path)], capture_output=True, text=True)
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].startswith("--parts colours: no such part; there are training,")


def test_the_page_shows_tables_and_figures_and_what_is_missing(tmp_path: Path) -> None:
    train = {"seconds": {"plain": TURNS, "espnet": [2 * t for t in TURNS]}}
    encode = {"seconds": {"fp32": TURNS}, "shares": {"convolutions": 0.6, "other": 0.4}}
    depth = {"depths": {"full": 12, "half": 6}, "seconds": {"full": TURNS, "half": [t / 2 for t in TURNS]}, "channels": 32}
    sizes = {str(10**n): {"seconds": 10**n / 1e6, "peak_gb": 1.0} for n in (4, 5)}
    environment = {"cpu": "a CPU", "cores": 2, "torch": "2", "python": "3", "asrprune": "0"}
    raw = {
        "train_12_fp32": train,
        "encode_12_b1": encode,
        "depth_12_b1_32": depth,
        "plan": sizes,
        "manifest": sizes,
        "validate": sizes,
        "score": sizes,
    }
    skipped = {"search": "no experiment"}
    whole = {"prunable_vs_plain_step": 0.9, "environment": environment, "skipped": skipped, "raw": raw}
    (tmp_path / "performance.json").write_text(json.dumps(whole))
    page = write_page(tmp_path).read_text()
    assert "| 12 layers | fp32 | 0.2 | 0.4 |" in page
    assert "| 12 layers | b1 | 0.2 |" in page
    assert "| 0.9 | update of the prunable model" in page
    assert "Not measured: `search`: no experiment." in page
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == {"training", "depth", "shares", "planning"}
