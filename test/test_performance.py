"""The benchmark: its workers answer, and the page shows what was measured and says what was not."""

import json
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from scripts import load_script

from asrprune.runtime.cores import usable_cores

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools/bench"))  # its files import each other
bench = load_script("tools/bench/bench.py")
write_page = load_script("tools/bench/show.py").write_page
TURNS = [0.2, 0.21, 0.19]


def test_workers_time_what_they_are_asked_for(tmp_path: Path) -> None:
    tiny = tmp_path / "tiny.yaml"
    tiny.write_text(
        "model: {num_layers: 2, dim: 8, heads: 2, ffn: 8, taps: [1], truncated: {1: 0.3}, stochastic_depth: {rate: 0}}\n"
    )
    size = {"layers": 2, "ffn": 32}
    encode = {"case": "encode", **size, "depth": 1, "dtype": "float32", "utterances": 1, "frames": 60, "profiled": True}
    cases: list[dict[str, Any]] = [
        {"case": "train", **size, "taps": [1], "rate": 0.5, "dtype": "bf16", "utterances": 2, "frames": 60, "labels": 3},
        encode,
        {**encode, "front_end": {"type": "conv1d", "factor": 8}},
        {"case": "exported", **size, "depth": 1, "precision": "int8", "utterances": 1, "frames": 60, "folder": str(tmp_path)},
        {"case": "greedy", **size, "utterances": 2, "frames": 60},
        {"case": "matmul", "size": 64, "dtype": "bf16"},
        {
            "case": "recipe_updates",
            "config": str(tiny),
            "truncated": True,
            "updates": 1000,
            "utterances": 2,
            "frames": 60,
            "labels": 3,
        },
        {"case": "plan", "utterances": 1000},
        {"case": "manifest", "utterances": 1000},
        {"case": "validate", "utterances": 1234},
        {"case": "score", "utterances": 200},
    ]
    deep = [{"run": 2, "depth": 2} if case["case"] == "exported" else {"run": 2} for case in cases]
    messages = [*chain.from_iterable(zip(cases, deep, strict=True)), {"found": "last"}, {"peak": "memory"}]
    lines = "".join(json.dumps(message) + "\n" for message in messages)
    command = [sys.executable, str(ROOT / "tools/bench/ours.py")]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    *answers, found, memory = map(json.loads, done.stdout.splitlines())
    assert [next(iter(answer)) for answer in answers] == ["ready", "seconds"] * 11
    assert all(0 < answer["seconds"] < 60 for answer in answers[1::2])
    assert answers[10]["ready"]["matmul_flops"] == 2 * 64**3
    assert 0 < answers[4]["ready"]["matmul_flops"] < answers[2]["ready"]["matmul_flops"] / 10
    assert answers[12]["ready"]["depths"] == [1] * 6 + [2] * 14
    assert found == {"found": None}
    assert 0.05 < memory["peak_gb"] < 20


def test_a_part_is_measured_and_the_others_stay(tmp_path: Path) -> None:
    machine = {"cpu": "an abacus", "cores": 1, "torch": "1", "python": "2", "asrprune": "0"}
    old = {"environment": machine, "skipped": {}}
    parts = {
        "planning": {**old, "keys": ["plan_10m_s"], "raw": ["plan"]},
        "features": {**old, "keys": ["gone"], "raw": ["gone"]},
    }
    parts["features"]["skipped"] = {"fbank_x": "no ears"}
    raw = {"plan": {"10": {"seconds": 44.0, "peak_gb": 1.0}}, "gone": {}}
    (tmp_path / "performance.json").write_text(json.dumps({"plan_10m_s": 44.0, "gone": 1, "parts": parts, "raw": raw}))
    command = [sys.executable, str(ROOT / "tools/bench/bench.py"), "--parts", "features", "--repeats", "1"]
    done = subprocess.run([*command, "--output", str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    facts = json.loads((tmp_path / "performance.json").read_text())
    assert facts["plan_10m_s"] == 44.0
    assert facts["parts"]["planning"] == parts["planning"], "with the machine that it was measured on"
    assert facts["parts"]["features"]["environment"]["cores"] == usable_cores()
    assert "gone" not in facts
    assert "gone" not in facts["raw"], "what the part had measured before"
    taken = facts["raw"]["fbank"]
    assert facts["fbank_x_realtime_per_core"] == round(taken["audio_s"] / taken["seconds"]["fbank"][0], 1)
    page = (tmp_path / "performance.md").read_text()
    speed = facts["fbank_x_realtime_per_core"]
    assert f"| {speed:g} | >= 400{'' if speed >= 400 else ': **missed**'} | features" in page
    assert "## Training" not in page
    assert "- planning: an abacus, 1 cores" in page
    assert "no ears" not in page
    assert "Not measured: `fbank_vs_espnet`: ESPnet2 is not installed" in page


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--parts", "features,colours"], "--parts colours: no such part; there are training,"),
        (["--repeats", "0"], "--repeats 0: at least 1"),
        (["--exp", "nowhere"], "--exp and --dev belong together"),
        (["--exp", "nowhere", "--dev", "nowhere"], "nowhere"),
        (["--espnet", sys.executable], f"--espnet {sys.executable}: is no Python with ESPnet2; tools/bench/README.md says"),
        (["--espnet", "nowhere"], "--espnet nowhere: is no Python with ESPnet2"),
    ],
)
def test_mistakes_are_told_before_anything_is_measured(tmp_path: Path, options: list[str], said: str) -> None:
    command = [sys.executable, str(ROOT / "tools/bench/bench.py"), "--parts", "features", "--output", str(tmp_path)]
    failed = subprocess.run([*command, *options], capture_output=True, text=True)
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].startswith(said)
    assert not (tmp_path / "performance.json").exists()


class Clock:
    """A worker that takes as long as it is told to, and less with fewer layers; nothing runs."""

    def __init__(self, seconds: float, layers: int = 0, layer_s: float = 0.0) -> None:
        self.facts = {"matmul_flops": 2 * 2048**3, "shares": {}}
        self.taken, self.layers, self.layer_s = seconds, layers, layer_s
        self.starts = 1
        self.running = True

    def start(self) -> None:
        assert not self.running
        self.starts, self.running = self.starts + 1, True

    def seconds(self, count: int, depth: int | None = None) -> float:
        assert self.running
        return self.taken - self.layer_s * (self.layers - (self.layers if depth is None else depth))

    def close(self) -> None:
        self.running = False


def test_each_turn_has_processes_of_its_own_if_it_is_asked_for() -> None:
    one, other = Clock(2.0), Clock(1.0)
    assert bench.take_turns({"one": one, "other": other}, 3) == {"one": [2.0] * 3, "other": [1.0] * 3}
    assert (one.starts, other.starts, one.running) == (1, 1, False)
    one, deep = Clock(2.0), Clock(2.0, layers=12, layer_s=0.1)
    assert bench.take_turns({"one": one}, 3, fresh=True) == {"one": [2.0] * 3}
    assert bench.by_depth(deep, {"full": 12, "half": 6}, 3) == {"full": [2.0] * 3, "half": pytest.approx([1.4] * 3)}
    assert (one.starts, deep.starts, one.running, deep.running) == (3, 3, False, False)


def test_keys_are_ratios_of_what_took_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made-up seconds: theirs are 3 (float32) and 2 (bfloat16), ours 2 and 1, a layer is 0.1, the matrix product 0.5.

    With the recipes' front end ours take 1.2, a layer 0.04; half of it with an eighth of the frames.
    """

    def ours(self: object, case: str, **options: Any) -> Clock:
        if case == "matmul":
            return Clock(0.5)
        if options.get("front_end", {}).get("type") == "conv1d":
            return Clock(0.6 if "factor" in options["front_end"] else 1.2, options["layers"], 0.04)
        if "front_end" in options:
            return Clock(2.0, options["layers"], 0.1)
        return Clock((2.0 if options["dtype"] == "float32" else 1.0) - (0.1 if options.get("rate") else 0.0))

    def theirs(self: object, case: str, name: str = "espnet", **options: Any) -> dict[str, Clock]:
        return {name: Clock(3.0 if options["dtype"] == "float32" else 2.0)}

    monkeypatch.setattr(bench.Bench, "ours", ours)
    monkeypatch.setattr(bench.Bench, "theirs", theirs)
    monkeypatch.setattr(bench, "has_fast_bf16", lambda device: True)
    made = bench.Bench("python", 3, None, None)
    made.training()
    made.encoding()
    made.recipe()
    expected = {
        "train_vs_espnet_fp32": 1.5, "train_vs_espnet_bf16": 2.0, "prunable_vs_plain_step": 0.95,
        "train_vs_espnet_fp32_recipe": 2.5,
        "encode_vs_espnet_b1": 1.5, "encode_vs_espnet_b16": 1.5,
        "encode_vs_espnet_b1_auto": 3.0, "encode_vs_espnet_b16_bf16": 2.0,
        "peak_share_train_fp32": 0.25, "peak_share_train_bf16": 0.5,
        "peak_share_encode_fp32": 0.25, "peak_share_encode_bf16": 0.5,
        "rtf_ratio_half": 0.7, "rtf_ratio_third": 0.6, "rtf_ratio_quarter": 0.55, "rtf_ratio_quarter_32": 0.55,
        "encode_vs_espnet_b1_recipe": 2.5, "encode_vs_espnet_b16_recipe": 2.5, "factor8_vs_factor4": 2.0,
        "rtf_ratio_half_recipe": 0.8, "rtf_ratio_third_recipe": 0.7333, "rtf_ratio_quarter_recipe": 0.7,
    }  # fmt: skip
    assert {key: made.keys[key] for key in expected} == pytest.approx(expected)


def test_the_page_shows_tables_and_figures_and_what_is_missing(tmp_path: Path) -> None:
    train = {"seconds": {"plain": TURNS, "espnet": [2 * t for t in TURNS]}}
    encode = {"seconds": {"fp32": TURNS}, "shares": {"convolutions": 0.6, "other": 0.4}}
    depth = {"depths": {"full": 12, "half": 6}, "seconds": {"full": TURNS, "half": [t / 2 for t in TURNS]}}
    sizes = {str(10**n): {"seconds": 10**n / 1e6, "peak_gb": 1.0} for n in (4, 5)}
    machine = {"cpu": "a CPU", "cores": 2, "torch": "2", "python": "3", "asrprune": "0"}
    raw = {"train_12_fp32": train, "encode_12_b1": encode, "depth_12_b1_32": depth, "depth_12_b1_recipe": depth}
    raw |= dict.fromkeys(("plan", "manifest", "validate", "score"), sizes)
    parts = {part: {"environment": machine, "skipped": {}, "keys": [], "raw": []} for part in ("training", "search")}
    parts["search"]["skipped"] = {"search": "no experiment"}
    search = {"search_same_plan": True, "beam_3_worse_at_depths": [3, 2]}
    whole = {**search, "prunable_vs_plain_step": 0.9, "train_vs_espnet_fp32": 1.4, "parts": parts, "raw": raw}
    (tmp_path / "performance.json").write_text(json.dumps(whole))
    page = write_page(tmp_path).read_text()
    assert "| 12 layers | fp32 | 0.2 | 0.4 |" in page
    assert "| 12 layers | b1 | 0.2 |" in page
    assert "| 0.9 | <= 1.0 | update of the prunable model" in page
    assert "| 1.4 | >= 1.5: **missed** | update, two taps" in page
    assert "- training, search: a CPU, 2 cores; torch 2, Python 3; asrprune 0." in page
    assert "| yes | yes | whether it finds the plan" in page
    assert "| 3, 2 |  | depths at which" in page
    assert "Not measured: `search`: no experiment." in page
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == {"training", "depth", "shares", "planning"}
