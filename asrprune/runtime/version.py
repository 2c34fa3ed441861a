"""The version of asrprune."""

from pathlib import Path

__version__ = "0.1.0"


def version() -> str:
    """Return ``0.1.0+<git commit>`` in a checkout, plus ``.dirty`` if it has uncommitted changes; else ``0.1.0``."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return __version__
    import subprocess  # slow to import, and rarely needed

    command = ["git", "-C", str(root), "describe", "--always", "--dirty=.dirty", "--abbrev=10", "--exclude=*"]
    try:
        return f"{__version__}+{subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()}"
    except (OSError, subprocess.CalledProcessError):
        return __version__
