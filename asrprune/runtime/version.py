"""The version of asrprune."""

__version__ = "0.1.0"


def version() -> str:
    """Return ``0.1.0+<git commit>`` in a checkout, plus ``.dirty`` if it has uncommitted changes; else ``0.1.0``."""
    import subprocess  # not when asrprune is imported, which is done before Ctrl-C can be handled
    from pathlib import Path

    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return __version__
    command = ["git", "-C", str(root), "describe", "--always", "--dirty=.dirty", "--abbrev=10", "--exclude=*"]
    try:
        return f"{__version__}+{subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()}"
    except (OSError, subprocess.CalledProcessError):
        return __version__
