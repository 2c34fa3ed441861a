"""The check of the installation before the first stage."""

import shutil
import subprocess
from pathlib import Path

from asrprune.recipe.stage import marks
from asrprune.runtime.errors import UserError
from asrprune.runtime.files import write_text
from asrprune.runtime.planted import open_plain


def check_installation(exp: Path, num_gpus: int) -> None:
    """Run ``asrprune doctor``, once for each experiment, installation and number of GPUs.

    Raises:
        UserError: something is missing; the output of doctor names it.
    """
    mark, log = marks(exp) / "doctor", exp / "log" / "doctor.log"
    now = f"{shutil.which('asrprune')}, {num_gpus} GPUs\n"
    if _holds(mark, now):
        return
    command = ["asrprune", "--log", str(log), "doctor", "--ngpu", str(num_gpus)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8", errors="replace"
    )
    write_text(log.with_suffix(".out"), done.stdout)
    if done.returncode:
        print(done.stdout, end="", flush=True)
        raise UserError("correct what is reported above and run the same command again")
    write_text(mark, now)


def _holds(mark: Path, text: str) -> bool:
    try:
        with open_plain(mark) as handle:
            return handle.read() == text.encode()
    except (FileNotFoundError, UserError):
        return False
