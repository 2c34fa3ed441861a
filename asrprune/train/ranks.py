"""Training in several processes: each one computes a share of every batch, so the batch size does not depend on their number.

Only dropout and augmentation are drawn by each process for its share.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from lightning_fabric.strategies import ModelParallelStrategy, Strategy
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from asrprune.model.ctc_model import CtcModel
from asrprune.runtime.errors import UserError
from asrprune.runtime.hardware import autocast_type, check_gpus, pick_device

logger = logging.getLogger(__name__)
LOST_PEER = "another process of this training died or cannot be reached; run the same command again to continue"
_LAUNCHER = "lightning_fabric.strategies.launchers.subprocess_script"


def make_fabric(precision: str, num_gpus: int = 0, num_procs: int = 1, num_nodes: int = 1, strategy: str = "ddp") -> Fabric:
    """Set up the devices and the precision of a run.

    Args:
        precision: auto, float32 or bf16.
        num_gpus: GPUs of each machine, with one process per GPU; 0: the CPU.
        num_procs: processes of each machine, if there are no GPUs.
        num_nodes: machines. (Under torchrun its settings are used instead.)
        strategy: "ddp": each process holds the model; "fsdp": each process holds a part of it.

    Raises:
        UserError: this machine has fewer GPUs, or the addresses of the other machines are not set.
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # the import of lightning_fabric sets it to INFO
    logging.getLogger(_LAUNCHER).setLevel(logging.INFO)
    logging.getLogger(_LAUNCHER).addFilter(_as_lost_peer)
    check_gpus(num_gpus)
    device = pick_device(num_gpus)
    _check_rendezvous(num_nodes)
    count = int(os.environ.get("LOCAL_WORLD_SIZE", num_gpus or num_procs))
    num_nodes = int(os.environ.get("GROUP_WORLD_SIZE", num_nodes))
    bf16 = autocast_type(precision, device) == torch.bfloat16
    # By default fabric expects one Slurm task per process in a Slurm job, and refuses `--ngpu 4` in one task.
    launcher = TorchElasticEnvironment() if TorchElasticEnvironment.detect() else LightningEnvironment()
    return Fabric(
        accelerator=device.type,
        devices=count,
        num_nodes=num_nodes,
        strategy=_strategy(strategy, count * num_nodes),
        precision="bf16-mixed" if bf16 else "32-true",
        plugins=[launcher],
    )


def _as_lost_peer(record: logging.LogRecord) -> bool:
    """Replace the message of fabric's launcher about a process that died."""
    record.msg, record.args, record.levelno, record.levelname = LOST_PEER, (), logging.ERROR, "ERROR"
    return True


def end_with_launcher() -> None:
    """End this process when the process that started it has ended; otherwise it would wait forever on a GPU."""
    if os.environ.get("LOCAL_RANK", "0") == "0":  # started by the user, whose shell may end
        return
    launcher = os.getppid()

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(1.0)
        logger.error(LOST_PEER)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _check_rendezvous(num_nodes: int) -> None:
    """Raise a ``UserError`` unless the environment has the address of the first machine."""
    if num_nodes == 1 or TorchElasticEnvironment.detect():
        return
    rank, port = os.environ.get("NODE_RANK", ""), os.environ.get("MASTER_PORT", "")
    right = {
        "MASTER_ADDR": bool(os.environ.get("MASTER_ADDR")),
        "MASTER_PORT": port.isdecimal() and 0 < int(port) < 65536,
        "NODE_RANK": rank.isdecimal() and int(rank) < num_nodes,
    }
    if wrong := [name for name, fine in right.items() if not fine]:
        raise UserError(
            f"--num-nodes {num_nodes}: set {', '.join(wrong)} on each machine: MASTER_ADDR, the address of the first machine;"
            f" MASTER_PORT, a free port there; NODE_RANK, 0 on the first to {num_nodes - 1} on the last machine; or"
            " start it with torchrun"
        )


@contextmanager
def signals_end_it() -> Iterator[None]:
    """Let signals end the process in this block, where it waits in C++ and Python's signal handlers do not run."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _strategy(name: str, world: int) -> Strategy | str:
    if world == 1:
        return "auto"
    if name == "ddp":
        return "ddp"
    return ModelParallelStrategy(_split, data_parallel_size=world, tensor_parallel_size=1)


def _split(model: CtcModel, mesh: DeviceMesh) -> CtcModel:
    """Split the model by FSDP2: each process holds a part of each tensor; a layer is gathered while it runs."""
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method  # takes a second; only FSDP needs it

    for part in (*model.encoder.layers, model):
        fully_shard(part, mesh=mesh["data_parallel"])
    # FSDP gathers the weights for calls of modules, but a runner also calls this method.
    register_fsdp_forward_method(model, CtcModel.embed.__name__)
    return model


def share(batch: np.ndarray, rank: int, world: int) -> np.ndarray:
    """Return the utterances of a batch for this process; if there are none, a placeholder that does not count."""
    own = batch[rank::world]
    return own if len(own) else batch[:1]


def add_up(value: Tensor, fabric: Fabric) -> Tensor:
    """Return the sum of ``value`` over all processes."""
    total = fabric.all_reduce(value, reduce_op="sum")
    assert isinstance(total, Tensor)
    return total


def part(fabric: Fabric) -> None:
    """End the communication between the processes of a run after their last common operation.

    Otherwise the threads of gloo may be in the way when Python ends, and then a training that is done ends with SIGABRT.
    """
    if fabric.world_size > 1:
        torch.distributed.destroy_process_group()


def is_lost_peer(error: Exception) -> bool:
    """Return whether the error means that another process of the run has ended."""
    return isinstance(error, torch.distributed.DistError) or "gloo/transport" in str(error)
