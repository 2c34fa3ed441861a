"""Training in several processes: each takes its share of every batch, so what is learnt is the same for any number of them.

Only what is drawn for each frame or unit, dropout and augmentation, is drawn by each process for its own share.
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
LOST_PEER = "another process of this training died, or is not to be found; run the same command again: it goes on"
_LAUNCHER = "lightning_fabric.strategies.launchers.subprocess_script"


def make_fabric(precision: str, num_gpus: int = 0, num_procs: int = 1, num_nodes: int = 1, strategy: str = "ddp") -> Fabric:
    """The devices and arithmetic of a run.

    Args:
        precision: auto, float32 or bf16.
        num_gpus: GPUs of each machine, a process each; 0: the CPU.
        num_procs: without GPUs, processes of each machine.
        num_nodes: machines. Under torchrun its own numbers count.
        strategy: what each of several processes holds: with "ddp" the model, with "fsdp" a part of it.

    Raises:
        UserError: there are fewer GPUs here, or nothing says where the other machines are.
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # its import has set it to INFO
    logging.getLogger(_LAUNCHER).setLevel(logging.INFO)
    logging.getLogger(_LAUNCHER).addFilter(_in_our_words)
    check_gpus(num_gpus)
    device = pick_device(num_gpus)
    _check_rendezvous(num_nodes)
    count = int(os.environ.get("LOCAL_WORLD_SIZE", num_gpus or num_procs))
    num_nodes = int(os.environ.get("GROUP_WORLD_SIZE", num_nodes))
    bf16 = autocast_type(precision, device) == torch.bfloat16
    # Left to itself, fabric takes any Slurm job for one whose tasks are the processes, and refuses `--ngpu 4` in one task.
    launcher = TorchElasticEnvironment() if TorchElasticEnvironment.detect() else LightningEnvironment()
    return Fabric(
        accelerator=device.type,
        devices=count,
        num_nodes=num_nodes,
        strategy=_strategy(strategy, count * num_nodes),
        precision="bf16-mixed" if bf16 else "32-true",
        plugins=[launcher],
    )


def _in_our_words(record: logging.LogRecord) -> bool:
    """Put our sentence in the place of what fabric's launcher says of a process that died, before it kills the others."""
    record.msg, record.args, record.levelno, record.levelname = LOST_PEER, (), logging.ERROR, "ERROR"
    return True


def end_with_launcher() -> None:
    """Have a process that another one of its machine started end when that one is gone: GPUs would wait for it."""
    if os.environ.get("LOCAL_RANK", "0") == "0":  # started by the user, who may log out
        return
    launcher = os.getppid()

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(1.0)
        logger.error(LOST_PEER)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _check_rendezvous(num_nodes: int) -> None:
    """Raise ``UserError`` unless the environment says where several machines meet."""
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
            f"--num-nodes {num_nodes}: set {', '.join(wrong)} on each machine: MASTER_ADDR, the first one's address;"
            f" MASTER_PORT, a port that is free there; NODE_RANK, 0 on the first, up to {num_nodes - 1} on the last; or"
            " start it by torchrun"
        )


@contextmanager
def signals_end_it() -> Iterator[None]:
    """While processes wait for one another in C++, where Python's handlers of signals never run: have them end it."""
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
    """FSDP2: every process holds its part of each tensor; those of a layer are put together while it runs."""
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method  # a second, which others need not spend

    for part in (*model.encoder.layers, model):
        fully_shard(part, mesh=mesh["data_parallel"])
    register_fsdp_forward_method(model, CtcModel.embed.__name__)  # where a runner begins; its other steps are modules
    return model


def share(batch: np.ndarray, rank: int, world: int) -> np.ndarray:
    """The utterances of a batch that fall to a process; where there are none, one that stands in and counts nothing."""
    own = batch[rank::world]
    return own if len(own) else batch[:1]


def add_up(value: Tensor, fabric: Fabric) -> Tensor:
    """The sum of what all processes have."""
    total = fabric.all_reduce(value, reduce_op="sum")
    assert isinstance(total, Tensor)
    return total


def is_lost_peer(error: Exception) -> bool:
    """Tell whether an exception says that another process of the run has gone."""
    return isinstance(error, torch.distributed.DistError) or "gloo/transport" in str(error)
