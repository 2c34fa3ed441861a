"""Starting, or going on with, a training run from paths and a config."""

import logging
from pathlib import Path

import torch
from lightning_fabric import Fabric

from asrprune import experiment
from asrprune.config import Config
from asrprune.data.dataset import Corpus
from asrprune.data.tokenizer import Tokenizer
from asrprune.files import held, remove_temporaries
from asrprune.hardware import autocast_type, pick_device
from asrprune.nn.model import num_params
from asrprune.train.loop import Trainer

logger = logging.getLogger(__name__)


def train(config: Config, exp: Path, train_dir: Path, dev_dir: Path, bpe_model: Path, cmvn: Path, num_gpus: int = 0) -> None:
    """Train ``config`` on ``train_dir`` into ``exp``, from the start or from where an earlier run was killed.

    Args:
        config: all numbers.
        exp: the experiment directory.
        train_dir, dev_dir: data directories with features.
        bpe_model: sentencepiece model, with ``tokens.txt`` beside it.
        cmvn: CMVN statistics of the training set.
        num_gpus: 0: the CPU.

    Raises:
        UserError: the paths, the config or the data are not those that ``exp`` began with, or another process trains there.
    """
    fabric = make_fabric(config.train.precision, num_gpus)
    torch.set_flush_denormal(True)  # as a model grows sure of itself, 4 % of a step on the CPU goes into tiny probabilities
    with held(exp):
        for directory in (exp, exp / "checkpoints"):
            remove_temporaries(directory)
        experiment.start(exp, config, bpe_model, cmvn)
        tokenizer = Tokenizer(exp / "bpe.model")
        corpora = Corpus(train_dir, tokenizer), Corpus(dev_dir, tokenizer)
        experiment.check_data(exp, *corpora)
        model = experiment.build_model(config, exp)
        logger.info(
            "%.2f M parameters, %d layers, %d text units; %s, %s; curves: tensorboard --logdir %s",
            num_params(model) / 1e6, config.model.num_layers, len(tokenizer), fabric.device, fabric._precision.precision, exp,
        )  # fmt: skip
        Trainer(config, exp, model, *corpora, fabric).run()


def make_fabric(precision: str, num_gpus: int) -> Fabric:
    """The device and arithmetic of a run."""
    device = pick_device(num_gpus)
    bf16 = autocast_type(precision, device) == torch.bfloat16
    return Fabric(accelerator=device.type, devices=1, precision="bf16-mixed" if bf16 else "32-true")
