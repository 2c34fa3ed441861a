"""Starting a run: what is refused, and that two processes never share an experiment."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from waiting import locked_elsewhere

from asrprune.config.schema import Config
from asrprune.runtime.errors import UserError
from asrprune.runtime.files import held
from asrprune.train.journal import read_journal
from asrprune.train.ranks import make_fabric
from asrprune.train.start import train

RunTraining = Callable[[Config, Path], None]


def test_second_process_is_refused_while_the_first_one_trains(
    tiny_config: Config, run_training: RunTraining, tmp_path: Path
) -> None:
    refused = pytest.raises(UserError, match="another process is using it; wait until it ends, or stop it")
    with locked_elsewhere(tmp_path), refused:
        run_training(tiny_config, tmp_path)
    with held(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_missing_inputs_name_the_stage_that_makes_them(tiny_config: Config, tiny_data: Path, tmp_path: Path) -> None:
    paths = [tmp_path / "exp", tiny_data / "train", tiny_data / "dev", tiny_data / "lang" / "bpe.model", tiny_data / "cmvn"]
    stages = {1: "stage 2", 2: "stage 2", 3: "stage 3", 4: "stage 2"}
    for position, stage in stages.items():
        wrong = [*paths[:position], tmp_path / "absent", *paths[position + 1 :]]
        with pytest.raises(UserError, match=stage):
            train(tiny_config, *wrong)
    assert not (tmp_path / "exp" / "checkpoints").exists()


def test_other_data_are_refused_before_anything_is_trained(
    tiny_config: Config, tiny_data: Path, run_training: RunTraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asrprune.train.start.Trainer.run", lambda trainer: trainer.journal.close())
    run_training(tiny_config, tmp_path)
    inputs = tiny_data / "lang" / "bpe.model", tiny_data / "cmvn"
    with pytest.raises(UserError, match=r"train is not the dev data of .*"):
        train(tiny_config, tmp_path, tiny_data / "train", tiny_data / "train", *inputs)
    with pytest.raises(UserError, match=r"dev is not the train data of .*"):
        train(tiny_config, tmp_path, tiny_data / "dev", tiny_data / "dev", *inputs)


@pytest.mark.parametrize("follow_load", [True, False])
def test_the_load_is_looked_at_before_each_update_unless_the_user_sets_the_threads(
    follow_load: bool, tiny_config: Config, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[object] = []
    monkeypatch.setattr("asrprune.train.start.FollowLoad", lambda set_threads: lambda: looks.append(set_threads))
    inputs = tiny_data / "train", tiny_data / "dev", tiny_data / "lang" / "bpe.model", tiny_data / "cmvn"
    train(tiny_config, tmp_path, *inputs, follow_load=follow_load)
    updates = read_journal(tmp_path / "train.jsonl")[-1]["step"]
    assert looks == [torch.set_num_threads] * (updates if follow_load else 0)


def test_gpus_that_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="--ngpu 1: torch finds no GPU"):
        make_fabric("auto", 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="--ngpu 2: torch finds only 1"):
        make_fabric("auto", 2)


def test_a_slurm_job_of_one_task_starts_its_processes_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "train", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}.items():
        monkeypatch.setenv(name, value)
    fabric = make_fabric("float32", num_procs=2)
    assert not fabric._strategy.cluster_environment.creates_processes_externally
    assert fabric.world_size == 2


def test_arithmetic_is_the_configs() -> None:
    assert make_fabric("float32", 0)._precision.precision == "32-true"
    assert make_fabric("bf16", 0)._precision.precision == "bf16-mixed"


def test_bfloat16_training_ends_near_float32(
    tiny_experiment: Path, tiny_config_with: Callable[..., Config], run_training: RunTraining, tmp_path: Path
) -> None:
    run_training(tiny_config_with("train.precision=bf16"), tmp_path / "exp")
    ours, expected = (read_journal(exp / "train.jsonl")[-1]["dev_loss"]["4"] for exp in (tmp_path / "exp", tiny_experiment))
    assert ours == pytest.approx(expected, rel=0.05)
