"""The commands: paths on the command line, numbers in YAML. Heavy imports are inside the functions, so --help is fast."""

import signal


def main() -> None:
    """Run the command of the command line."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports ends the program without a traceback
    from asrprune.cli.commands import app
    from asrprune.cli.failures import fail
    from asrprune.runtime.failures import user_message

    try:
        app()
    except OSError as error:  # of help or --version, which are printed before a command begins
        if not (sentence := user_message(error)):
            raise
        fail("asrprune", sentence, 1)
