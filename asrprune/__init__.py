"""asrprune: train a speech recogniser once, run it at any depth."""

__version__ = "0.1.0"
__all__ = ["Recognizer", "__version__"]


def __getattr__(name: str) -> object:
    """Import the runtime only when it is asked for, so that ``asrprune --help`` is instant."""
    if name == "Recognizer":
        from asrprune.decode.recognizer import Recognizer

        return Recognizer
    raise AttributeError(f"module 'asrprune' has no attribute {name!r}")
