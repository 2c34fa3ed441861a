"""Starting or resuming a training run from paths and a config."""

import logging
import os
from contextlib import nullcontext
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import nn

from asrprune.config.schema import Config
from asrprune.data.dataset import Corpus
from asrprune.data.tokenizer import Tokenizer
from asrprune.experiment import provenance
from asrprune.experiment.paths import ExperimentPaths
from asrprune.experiment.store import build_model
from asrprune.model.ctc_model import num_params
from asrprune.runtime.errors import UserError
from asrprune.runtime.files import held, remove_temporaries
from asrprune.runtime.progress import is_first
from asrprune.runtime.threads import FollowLoad
from asrprune.train.loop import Trainer
from asrprune.train.ranks import LOST_PEER, end_with_launcher, is_lost_peer, make_fabric, signals_end_it

logger = logging.getLogger(__name__)


def train(
    config: Config,
    exp: Path,
    train_dir: Path,
    dev_dir: Path,
    bpe_model: Path,
    cmvn: Path,
    num_gpus: int = 0,
    num_procs: int = 1,
    num_nodes: int = 1,
    follow_load: bool = False,
) -> None:
    """Train a model in the directory ``exp``; continue a run that was killed.

    Args:
        config: all numbers; batch sizes are for all processes together.
        exp: the experiment directory.
        train_dir, dev_dir: data directories with features.
        bpe_model: sentencepiece model, with ``tokens.txt`` in the same directory.
        cmvn: CMVN statistics of the training set.
        num_gpus, num_procs, num_nodes: see ``make_fabric``. This process starts the other processes of its machine.
        follow_load: change the number of threads when other programs keep cores busy; one process without GPUs can do so.

    Raises:
        UserError: config or data differ from those of the run in ``exp``; another run trains there; another process of
            this run died.
    """
    fabric = make_fabric(config.train.precision, num_gpus, num_procs, num_nodes, config.train.strategy)
    torch.set_flush_denormal(True)  # denormal probabilities of a confident model cost 4 % of a step on the CPU
    corpora = None
    with held(exp) if is_first() else nullcontext():
        if is_first():
            for directory in (exp, ExperimentPaths(exp).checkpoints):
                remove_temporaries(directory)
            provenance.start(exp, config, bpe_model, cmvn)
            corpora = _corpora(exp, train_dir, dev_dir)
            provenance.check_data(exp, config, *corpora)
            provenance.check_frontend(exp, config, *corpora)
        try:
            end_with_launcher()
            if num_nodes > 1 and is_first():
                logger.info("waiting for the other machines at %s:%s", *map(os.environ.get, ("MASTER_ADDR", "MASTER_PORT")))
            with signals_end_it() if num_nodes > 1 else nullcontext():
                fabric.launch()
                fabric.barrier()
            trainer = _trainer(config, exp, *(corpora or _corpora(exp, train_dir, dev_dir)), fabric)
            if follow_load and fabric.world_size == 1 and fabric.device.type == "cpu":
                trainer.before_update = FollowLoad(torch.set_num_threads)
            trainer.run()
        except RuntimeError as error:
            if fabric.world_size > 1 and is_lost_peer(error):
                raise UserError(LOST_PEER) from None
            raise


def _trainer(config: Config, exp: Path, train_corpus: Corpus, dev_corpus: Corpus, fabric: Fabric) -> Trainer:
    model = build_model(config, exp)
    logger.info(
        "%.2f M parameters, %d layers, %d text units; %s%s, %s; curves: tensorboard --logdir %s",
        num_params(model) / 1e6, config.model.num_layers, model.head.project.out_features, fabric.device,
        f" x {fabric.world_size}, {config.train.strategy}" if fabric.world_size > 1 else "", fabric._precision.precision, exp,
    )  # fmt: skip
    if fabric.world_size > 1 and any(isinstance(module, nn.BatchNorm1d) for module in model.modules()):
        logger.warning("model.layer.norm: batch uses statistics of each process's share of a batch; norm: layer avoids this")
    return Trainer(config, exp, model, train_corpus, dev_corpus, fabric)


def _corpora(exp: Path, train_dir: Path, dev_dir: Path) -> tuple[Corpus, Corpus]:
    tokenizer = Tokenizer(ExperimentPaths(exp).tokenizer)
    return Corpus(train_dir, tokenizer), Corpus(dev_dir, tokenizer)
