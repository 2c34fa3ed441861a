"""The check of the installation before the first stage."""

import shutil
import subprocess
from pathlib import Path

from asrprune.runtime.errors import UserError
from asrprune.runtime.files import write_text


def check_installation(exp: Path, num_gpus: int) -> None:
    """Run ``asrprune doctor``, once for each experiment, installation and number of GPUs.

    Raises:
        UserError: something is missing; the output of doctor names it.
    """
    mark, log = exp / ".done" / "doctor", exp / "log" / "doctor.log"
    now = f"{shutil.which('asrprune')}, {num_gpus} GPUs\n"
    if mark.exists() and mark.read_text(encoding="utf-8") == now:
        return
    command = ["asrprune", "--log", str(log), "doctor", "--ngpu", str(num_gpus)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, encoding="utf-8", errors="replace")
    write_text(log.with_suffix(".out"), done.stdout)
    if done.returncode:
        print(done.stdout, end="", flush=True)
        raise UserError("install what is missing (FAIL above) and run the same command again")
    write_text(mark, now)
