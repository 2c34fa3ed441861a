"""The doctor: what it finds broken, and whether the command it names is the right one."""

import contextlib
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from asrprune.runtime import doctor, torch_pair
from asrprune.runtime.doctor import Check, diagnose, doctor_ok, format_report
from asrprune.runtime.errors import UserError
from asrprune.runtime.packages import BASE, EXTRAS, USES
from asrprune.runtime.torch_pair import NOT_INSTALLED, import_torchaudio

ROOT = Path(__file__).resolve().parents[2]


def shadow(module: str, source: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``import module`` run ``source``, as if that were what is installed."""
    (folder / module).mkdir()
    (folder / module / "__init__.py").write_text(source)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, module, raising=False)


def finding(name: str) -> Check:
    return next(check for check in diagnose() if check.name == name)


def declared() -> dict[str, set[str]]:
    """Distribution names by list name in pyproject.toml (by regex: tomllib came with Python 3.11)."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    project = text[text.index("[project]") : text.index("[project.scripts]")]
    lists = re.findall(r"^(\w+) = \[(.*?)\]$", project, re.MULTILINE | re.DOTALL)
    return {name: {item.lower() for item in re.findall(r'"([\w.-]+)', block)} for name, block in lists if name != "dynamic"}


def test_this_environment_is_healthy() -> None:
    checks = diagnose()
    assert doctor_ok(checks), format_report(checks)
    assert finding("soundfile").detail.count(".") == 4, "libsndfile's version stands beside soundfile's"


def test_every_dependency_is_looked_at() -> None:
    lists = declared()
    other = {"editdistance", "rapidfuzz"} - EXTRAS["train"].keys()  # the one that another Python takes
    assert len(other) == 1
    assert lists.pop("dependencies") == BASE.keys()
    assert lists.pop("runtime") == set()
    assert lists.pop("train") == {*EXTRAS["train"], *other}
    assert lists.pop("dev")
    assert lists == {extra: {"asrprune", *EXTRAS[extra]} for extra in USES}


def test_what_runs_exported_models_reaches_no_package_of_training() -> None:
    """By the metadata of the installed packages; `python tools/runtime_install.py` installs it for real."""
    lists = declared()
    assert not reached(lists["dependencies"]) & EXTRAS["train"].keys()
    assert {"torch", "jinja2", "markupsafe"} <= reached(lists["train"]), "what is reached is found"


def reached(names: set[str]) -> set[str]:
    """These packages and all that they need here."""
    found, waiting = set[str](), [*names]
    while waiting:
        if (name := waiting.pop().lower()) not in found:
            found.add(name)
            with contextlib.suppress(metadata.PackageNotFoundError):  # on another Python
                needs = [Requirement(line) for line in metadata.requires(name) or ()]
                waiting += [need.name for need in needs if not need.marker or need.marker.evaluate({"extra": ""})]
    return found


def test_torch_pair_is_the_one_in_constraints() -> None:
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pair = torch_pair.TORCH_PAIR.removeprefix("pip install ").split()
    assert len(pair) == 2
    assert set(pair) <= set(pins)


@pytest.mark.parametrize(
    "breakage",
    [
        "raise OSError('libc10_cuda.so: cannot open shared object file: No such file or directory')",
        "raise ImportError('libc10_cuda.so: undefined symbol')",
        "raise RuntimeError('libc10_cuda.so: compiled with different CUDA versions')",
    ],
)
def test_broken_torchaudio_is_one_sentence(breakage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shadow("torchaudio", breakage, tmp_path, monkeypatch)
    with pytest.raises(UserError) as error:
        import_torchaudio()
    sentence = str(error.value)
    assert "\n" not in sentence
    assert "libc10_cuda.so" in sentence
    assert "pip install torch==2.14.1 torchaudio==2.11.0" in sentence


def test_broken_torchaudio_is_diagnosed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shadow("torchaudio", "raise OSError('libc10_cuda.so: cannot open shared object file')", tmp_path, monkeypatch)
    checks = diagnose()
    assert [check.name for check in checks if check.required and not check.ok] == ["torchaudio"]
    assert not doctor_ok(checks)
    report = format_report(checks)
    assert re.search(r"^FAIL +torchaudio +.*libc10_cuda\.so", report, re.MULTILINE)
    assert re.search(r"-> pip install torch==2\.14\.1 torchaudio==2\.11\.0$", report, re.MULTILINE)


def test_a_local_torch_build_has_to_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """2.14.1+cpu satisfies torch==2.14.1: a plain pip install would change nothing."""
    shadow("torchaudio", "raise OSError('libc10_cuda.so')", tmp_path, monkeypatch)
    info = tmp_path / "torch-2.14.1+cpu.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.14.1+cpu\n")
    assert finding("torchaudio").fix == f"pip uninstall -y torch torchaudio && {torch_pair.TORCH_PAIR}"


def test_missing_and_broken_packages_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shadow("sentencepiece", "import a_library_that_nobody_has", tmp_path, monkeypatch)
    monkeypatch.setitem(sys.modules, "kaldiio", None)  # as if not installed
    assert finding("kaldiio").fix == "pip install kaldiio"
    assert "a_library_that_nobody_has" in finding("sentencepiece").detail


def test_optional_package_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    checks = diagnose()
    espeak = next(check for check in checks if check.name == "espeakng-loader")
    assert not espeak.ok
    assert "egs/mini" in espeak.detail
    assert doctor_ok(checks)
    assert re.search(r"^- +espeakng-loader .*\n +-> pip install espeakng-loader$", format_report(checks), re.MULTILINE)


def test_no_torch_is_reported_not_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    failing = {check.name: check.fix for check in diagnose() if check.required and not check.ok}
    assert failing["torch"].endswith(torch_pair.TORCH_PAIR)


def test_an_installation_for_exported_models_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the packages of training one line says how to install them, and nothing is to repair."""
    version = doctor.installed_version
    absent = EXTRAS["train"].keys()
    monkeypatch.setattr(doctor, "installed_version", lambda name: NOT_INSTALLED if name in absent else version(name))
    checks = diagnose()
    assert doctor_ok(checks)
    assert not {check.name for check in checks} & absent
    assert re.search(r"^- +training .*\n +-> pip install 'asrprune\[train\]'$", format_report(checks), re.MULTILINE)


def test_old_python_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 18, "final", 0))
    check = doctor._python()
    assert not check.ok
    assert "3.10" in check.fix


def test_old_gpu_driver_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    import warnings

    import torch

    def unusable() -> bool:
        warnings.warn("CUDA initialization: The NVIDIA driver on your system is too old\nUpdate it", stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", unusable)
    check = doctor._gpu()
    assert "too old" in check.detail
    assert "driver" in check.fix
    assert not check.required


def test_unwritable_or_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor._disk(tmp_path).ok
    if Path("/proc/self").is_dir():  # not writable even for root
        assert "not writable" in doctor._disk(Path("/proc/self")).detail
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 2**29}))
    assert "0.5 GiB" in doctor._disk(tmp_path).detail
    assert not doctor._disk(tmp_path).ok


def test_other_locales_are_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor._locale().ok
    monkeypatch.setattr("locale.getpreferredencoding", lambda do_setlocale: "ISO-8859-1")
    assert not doctor._locale().ok
    assert doctor._locale().fix == "export PYTHONUTF8=1"


def test_importing_the_doctor_is_light() -> None:
    code = "import sys, asrprune.runtime.doctor; print(sorted({'torch', 'torchaudio', 'numpy', 'rich'} & set(sys.modules)))"
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


def test_runs_as_a_module_without_typer(tmp_path: Path) -> None:
    """`asrprune doctor` itself cannot start without typer; `python -m asrprune.runtime.doctor` says so and exits with 1."""
    (tmp_path / "typer.py").write_text("raise ModuleNotFoundError(\"No module named 'typer'\", name='typer')\n")
    (tmp_path / "torch.py").write_text("raise ImportError('not here')\n")  # which also makes this quick
    environment = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-m", "asrprune.runtime.doctor"], env=environment, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert re.search(r"^FAIL +typer +not installed\n +-> pip install typer$", done.stdout, re.MULTILINE)
