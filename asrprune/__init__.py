"""asrprune: train a speech recogniser once, run it at any depth."""

from asrprune.runtime.version import __version__

__all__ = ["Recognizer", "__version__"]


def __getattr__(name: str) -> object:
    """Import ``Recognizer`` on first use, so that ``asrprune --help`` is fast."""
    if name == "Recognizer":
        from asrprune.recognizer import Recognizer

        return Recognizer
    raise AttributeError(f"module 'asrprune' has no attribute {name!r}")
