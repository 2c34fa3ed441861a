"""What the machine can do: devices, arithmetic, versions."""

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import asrprune
from asrprune.runtime import hardware
from asrprune.runtime import version as version_module
from asrprune.runtime.errors import UserError
from asrprune.runtime.hardware import autocast_type, check_gpus, cpu_flags, decided, environment, has_fast_bf16, pick_device
from asrprune.runtime.version import version

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("precision", "native", "expected"),
    [
        ("float32", True, torch.float32),
        ("bf16", False, torch.bfloat16),
        ("auto", True, torch.bfloat16),
        ("auto", False, torch.float32),
    ],
)
def test_arithmetic_is_asked_for_or_native(
    precision: str, native: bool, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "has_fast_bf16", lambda device: native)
    assert autocast_type(precision, CPU) == expected
    assert decided(precision, 0) == {torch.float32: "float32", torch.bfloat16: "bf16"}[expected]


@pytest.mark.parametrize(
    ("line", "fast"),
    [
        ("flags\t\t: fpu sse2 avx512f avx512_bf16", True),
        ("flags\t\t: fpu amx_bf16", True),
        ("Features\t: fp asimd bf16", True),
        ("flags\t\t: fpu sse2 avx512f", False),
        ("model name\t: bf16", False),
        ("", False),
    ],
)
def test_native_bfloat16_is_read_from_the_cpu_flags(line: str, fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: f"processor\t: 0\n{line}\n")
    assert has_fast_bf16(CPU) == fast


def test_no_cpuinfo_means_no_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object, **__: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", absent)
    assert cpu_flags() == set()


def test_devices_that_cannot_be_had_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pick_device(0) == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert pick_device(1) == torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="--ngpu 1: torch finds no GPU; use --ngpu 0"):
        pick_device(1)


def git(*arguments: object) -> str:
    identity = ("-c", "user.name=A", "-c", "user.email=a@b.c")
    return subprocess.run(["git", *identity, *map(str, arguments)], check=True, capture_output=True, text=True).stdout.strip()


def test_fewer_gpus_than_asked_for_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_gpus(2)
    with pytest.raises(UserError, match=r"--ngpu 4: torch finds only 2; use --ngpu 2"):
        check_gpus(4)


def test_version_says_commit_and_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "asrprune"
    package.mkdir()
    (package / "__init__.py").write_text("x = 1\n")
    monkeypatch.setattr(version_module, "__file__", str(package / "runtime/version.py"))
    assert version() == asrprune.__version__
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    git("init", "-q", tmp_path)
    git("-C", tmp_path, "add", ".")
    git("-C", tmp_path, "commit", "-q", "-m", "first")
    git("-C", tmp_path, "tag", "-a", "v1", "-m", "a tag is not wanted")
    commit = git("-C", tmp_path, "rev-parse", "HEAD")
    assert version() == f"{asrprune.__version__}+{commit[:10]}"
    (package / "__init__.py").write_text("x = 2\n")
    assert version() == f"{asrprune.__version__}+{commit[:10]}.dirty"
    shutil.copytree(package, tmp_path / "venv" / "asrprune")  # installed inside somebody's repository, which says nothing
    monkeypatch.setattr(version_module, "__file__", str(tmp_path / "venv/asrprune/runtime/version.py"))
    assert version() == asrprune.__version__


def test_version_without_git_is_the_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    monkeypatch.setattr(version_module, "__file__", str(tmp_path / "asrprune/runtime/version.py"))
    assert version() == asrprune.__version__  # not a repository that git can read
    monkeypatch.setenv("PATH", str(tmp_path))
    assert version() == asrprune.__version__


def test_environment_names_what_matters() -> None:
    facts = environment()
    assert facts["python"] == ".".join(map(str, sys.version_info[:3]))
    assert facts["torch"] == torch.__version__
    assert set(facts) == {"asrprune", "python", "torch", "torchaudio", "platform", "cpu", "cores", "gpu"}
    assert facts["cpu"]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only GNU's C library can be told to keep freed memory")
def test_freed_memory_is_used_again_without_new_pages() -> None:
    script = (
        "import resource, sys, torch; from asrprune.runtime.memory import keep_freed_memory\n"
        "if sys.argv[1] == 'kept': keep_freed_memory()\n"
        "for i in range(40):\n"
        "    torch.ones(12_000_000)\n"  # 48 MB, 11,719 pages of 4 kB
        "    if i == 19: before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n"
    )
    faults = {how: int(subprocess.check_output([sys.executable, "-c", script, how])) for how in ("kept", "given back")}
    assert faults["kept"] < 20_000
    assert faults["given back"] > 100_000
