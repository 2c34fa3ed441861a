"""The experiment directory: what may change between two starts, and how a model is averaged, written and loaded."""

import json
import pickle
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from experiments import untrained
from records import changed

from asrprune.config.load import read_yaml
from asrprune.config.schema import Config
from asrprune.data.archive import Contents
from asrprune.data.dataset import Corpus
from asrprune.data.tables import read_table, write_table
from asrprune.data.tokenizer import Tokenizer
from asrprune.experiment.provenance import check_data, check_frontend, start
from asrprune.experiment.store import ModelRecord, build_model, load, read_experiment_config, save_model
from asrprune.experiment.weights import load_weights, save_weights
from asrprune.features.ark import read_matrix, write_ark
from asrprune.model.ctc_model import CtcModel
from asrprune.runtime.errors import UserError
from asrprune.runtime.files import sha256_of
from asrprune.train.average import average_best
from asrprune.train.checkpoint import epoch_file, load_state, save_state

ConfigWith = Callable[..., Config]
Begin = Callable[..., Path]


@pytest.fixture
def begin(tiny_config_with: ConfigWith, tiny_data: Path, tmp_path: Path) -> Begin:
    """``begin("seed=2", ...)`` starts a run of the tiny config with these numbers in the same directory, again and again."""

    def begin(*numbers: str) -> Path:
        start(tmp_path / "exp", tiny_config_with(*numbers), tiny_data / "lang" / "bpe.model", tiny_data / "cmvn")
        return tmp_path / "exp"

    return begin


# -- starting ---------------------------------------------------------------------------------------------------------


def test_experiment_holds_all_that_a_model_needs(begin: Begin, tiny_config: Config, tiny_data: Path) -> None:
    exp = begin()
    assert sorted(path.name for path in exp.iterdir()) == ["bpe.model", "cmvn", "config.yaml", "tokens.txt"]
    assert read_experiment_config(exp).model == tiny_config.model
    assert (exp / "bpe.model").read_bytes() == (tiny_data / "lang" / "bpe.model").read_bytes()
    assert read_yaml(exp / "config.yaml")["prune"]["depths"] == [4, 3, 2, 1]  # derived values are filled in


def test_another_config_is_refused_with_all_differences(begin: Begin) -> None:
    exp = begin()
    with pytest.raises(UserError) as caught:
        begin("seed=2", "model.taps=[2]", "train.schedule.peak=1e-2", "train.epochs=1", "decode.max_frames=100")
    message = str(caught.value).splitlines()
    fix = "give a new experiment (--exp; run.sh: --exp_tag), or remove this one:"
    assert message[0] == f"{exp}: was trained with other numbers; {fix}"
    assert sorted(message[1:]) == [
        "  model.taps: was [1, 2], is [2]",
        "  seed: was 1, is 2",
        "  train.epochs: was 2, is 1",
        "  train.schedule.peak: was 0.003, is 0.01",
    ]
    assert read_experiment_config(exp).seed == 1


def test_a_damaged_copy_is_copied_again(exp: Path, tiny_config: Config, tiny_data: Path) -> None:
    whole = {name: (exp / name).read_bytes() for name in ("bpe.model", "cmvn")}
    for name in whole:
        (exp / name).write_bytes(b"damaged")
    start(exp, tiny_config, tiny_data / "lang" / "bpe.model", tiny_data / "cmvn")
    assert {name: (exp / name).read_bytes() for name in whole} == whole


@pytest.mark.parametrize(
    ("number", "said"),
    [
        ("model.truncated={1: 0.5}", "model.truncated.1: was null, is 0.5"),
        ("model.layer=conformer", "model.layer.type: was transformer, is conformer"),
    ],
)
def test_another_section_is_a_difference(number: str, said: str, begin: Begin) -> None:
    begin()
    with pytest.raises(UserError, match=said):
        begin(number)


def test_numbers_that_do_not_change_what_is_learnt_may_change(begin: Begin, tiny_config_with: ConfigWith) -> None:
    begin()
    free = ("log_every_steps=7", "checkpoint_every_s=5", "num_workers=2", "average=1")
    numbers = (*(f"train.{key}" for key in free), "decode.max_frames=99", "prune.metric=ctc", "bench.batch=2")
    now, changed = read_experiment_config(begin(*numbers)), tiny_config_with(*numbers)
    assert (now.train, now.decode, now.bench, now.prune.metric) == (changed.train, changed.decode, changed.bench, "ctc")


def test_defaults_that_are_written_out_are_no_difference(begin: Begin) -> None:
    """Taps 1 and 2 are what 4 layers get by default."""
    begin("model.taps=null")
    begin("model.taps=[1,2]")


@pytest.mark.parametrize("name", ["lang/bpe.model", "cmvn"])
def test_another_tokenizer_or_other_statistics_are_refused(
    begin: Begin, tiny_config: Config, tiny_data: Path, tmp_path: Path, name: str
) -> None:
    from asrprune.config.schema import TokenizerConfig
    from asrprune.data.tokenizer import train_tokenizer

    begin()
    train_tokenizer(["other words"], TokenizerConfig(type="word", vocab_size=None), tmp_path / "lang")
    (tmp_path / "cmvn").write_bytes(b"other")
    paths = {key: tiny_data / key for key in ("lang/bpe.model", "cmvn")} | {name: tmp_path / name}
    with pytest.raises(
        UserError,
        match=r"is not the file that .* was copied from; give a new experiment \(--exp; run.sh: --exp_tag\), or remove",
    ):
        start(tmp_path / "exp", tiny_config, *paths.values())


def test_missing_parts_name_their_stage(tiny_config: Config, tiny_data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cmvn: no such CMVN statistics; stage 2"):
        start(tmp_path / "exp", tiny_config, tiny_data / "lang" / "bpe.model", tmp_path / "cmvn")
    shutil.copy(tiny_data / "lang" / "bpe.model", tmp_path)
    with pytest.raises(UserError, match=r"tokens\.txt: no such file; stage 3"):
        start(tmp_path / "exp", tiny_config, tmp_path / "bpe.model", tiny_data / "cmvn")
    with pytest.raises(UserError, match=r"not an experiment \(it has no config.yaml\); stage 4"):
        read_experiment_config(tmp_path / "exp")
    assert not (tmp_path / "exp").exists()


# -- data -------------------------------------------------------------------------------------------------------------


def change_text(directory: Path) -> None:
    text = read_table(directory / "text")
    write_table(directory / "text", {**text, next(iter(text)): "five five"})


def change_frames(directory: Path) -> None:
    frames = read_table(directory / "utt2num_frames")
    first, second, *_ = frames
    write_table(
        directory / "utt2num_frames", {**frames, first: str(int(frames[first]) - 1), second: str(int(frames[second]) + 1)}
    )


def drop_one(directory: Path) -> None:
    for name in ("text", "feats.scp", "utt2num_frames"):
        write_table(directory / name, dict(list(read_table(directory / name).items())[1:]))


def rename_one(directory: Path) -> None:
    for name in ("text", "feats.scp", "utt2num_frames"):
        (_, value), *rest = read_table(directory / name).items()
        write_table(directory / name, {"a": value, **dict(rest)})


def change_features(directory: Path) -> None:
    """As Kaldi may do it: without checksums."""
    ark, feats = directory / "new.ark", read_table(directory / "feats.scp").items()
    write_table(directory / "feats.scp", write_ark(ark, ark, [(key, read_matrix(entry) + 1) for key, entry in feats]))


@pytest.mark.parametrize("part", ["train", "dev"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (change_text, "(texts "),
        (change_frames, "(lengths "),
        (drop_one, " was "),
        (rename_one, "(ids "),
        (change_features, "(features "),
    ],
)
def test_run_does_not_go_on_with_other_data(
    tiny_data: Path, tmp_path: Path, part: str, change: Callable[[Path], None], said: str
) -> None:
    tokenizer = Tokenizer(tiny_data / "lang" / "bpe.model")
    check_data(tmp_path, Config(), Corpus(tiny_data / "train", tokenizer), Corpus(tiny_data / "dev", tokenizer))
    noted = (tmp_path / "data.json").read_bytes()
    shutil.copytree(tiny_data, tmp_path / "moved")
    moved = [Corpus(tmp_path / "moved" / name, tokenizer) for name in ("train", "dev")]
    check_data(tmp_path, Config(), *moved)  # a copy at another path is the same data
    change(tmp_path / "moved" / part)
    changed = [Corpus(tmp_path / "moved" / name, tokenizer) for name in ("train", "dev")]
    with pytest.raises(UserError, match=f"moved/{part} is not the {part} data of .*") as caught:
        check_data(tmp_path, Config(), *changed)
    assert said in str(caught.value)
    assert "give a new experiment (--exp; run.sh: --exp_tag), or remove" in str(caught.value)
    assert (tmp_path / "data.json").read_bytes() == noted


def test_a_dev_set_that_is_the_training_set_gets_a_warning(
    tiny_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = Tokenizer(tiny_data / "lang" / "bpe.model")
    train, dev = (Corpus(tiny_data / name, tokenizer) for name in ("train", "dev"))
    check_data(tmp_path / "usual", Config(), train, dev)
    assert not caplog.records
    copy = Corpus(Path(shutil.copytree(tiny_data / "train", tmp_path / "copy")), tokenizer)
    check_data(tmp_path / "same", Config(), train, copy)
    assert "copy: is the training set, too, so dev results" in caplog.text


def test_size_of_the_data_is_noted(tiny_experiment: Path, tiny_data: Path) -> None:
    data = json.loads((tiny_experiment / "data.json").read_text())
    frames = read_table(tiny_data / "train" / "utt2num_frames").values()
    assert (data["train"]["utterances"], data["train"]["frames"]) == (24, sum(map(int, frames)))
    assert data["dev"]["utterances"] == 6


# -- models -----------------------------------------------------------------------------------------------------------


def test_new_model_is_drawn_from_the_seed_and_has_the_statistics(begin: Begin, tiny_config: Config, tiny_data: Path) -> None:
    exp = begin()
    first, second = build_model(tiny_config, exp), build_model(tiny_config, exp)
    other = build_model(tiny_config.model_copy(update={"seed": 2}), exp)
    assert torch.equal(first.head.project.weight, second.head.project.weight)
    assert not torch.equal(first.head.project.weight, other.head.project.weight)
    corpus = Corpus(tiny_data / "train", None)
    frames = torch.cat([torch.tensor(corpus[i][1]) for i in range(len(corpus))])
    normalised = first.normalise(frames)
    torch.testing.assert_close(normalised.mean(0), torch.zeros(80), atol=1e-4, rtol=0.0)
    torch.testing.assert_close(normalised.std(0, correction=0), torch.ones(80), atol=1e-4, rtol=0.0)


def test_average_is_of_the_best_epochs_and_names_them(exp: Path) -> None:
    state = load_state(exp / "checkpoints")
    assert state is not None
    records = state["progress"]["records"]
    assert [epoch.plain() for epoch in average_best(exp, 2)] == records
    weights = [load_weights(epoch_file(exp / "checkpoints", epoch)) for epoch in (1, 2)]
    mean = load_weights(exp / "model.safetensors")
    torch.testing.assert_close(
        mean["head.project.weight"], (weights[0]["head.project.weight"] + weights[1]["head.project.weight"]) / 2
    )
    info = json.loads((exp / "model.json").read_text())
    assert info["members"] == records
    assert info["model_sha256"] == sha256_of(exp / "model.safetensors")
    assert info["seed"] == 1

    best = min(records, key=lambda record: (record["mean_wer"], record["mean_loss"]))
    assert [epoch.plain() for epoch in average_best(exp, 1)] == [best]
    name = "head.project.weight"
    assert torch.equal(load_weights(exp / "model.safetensors")[name], weights[best["epoch"] - 1][name])


def test_the_layers_of_the_model_are_those_of_the_config(exp: Path) -> None:
    changed(ModelRecord.read(exp / "model.json"), num_layers=3).write(exp / "model.json")
    with pytest.raises(UserError, match=r"model\.json: num_layers is 3, but .* is 4; copy the experiment again"):
        load(exp)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(("spoil", "said"), [(flip, "damaged"), (Path.unlink, "missing")])  # of a stage they are not
def test_weights_of_an_epoch_that_are_damaged_or_lost_are_told(exp: Path, spoil: Callable[[Path], None], said: str) -> None:
    spoil(epoch_file(exp / "checkpoints", 2))
    with pytest.raises(UserError, match=rf"epoch0002\.safetensors: is {said}; copy it again, or remove .*exp and train again"):
        average_best(exp, 2)


def test_other_text_units_than_those_of_the_model_are_refused(exp: Path) -> None:
    average_best(exp)
    flip(exp / "bpe.model")
    with pytest.raises(UserError, match=r"bpe\.model: (does not have the SHA-256 of model\.json|not a sentencepiece model)"):
        load(exp)


def test_unfinished_training_is_not_averaged(exp: Path) -> None:
    state = load_state(exp / "checkpoints")
    assert state is not None
    state["progress"]["records"] = state["progress"]["records"][:1]
    save_state(exp / "checkpoints", state)
    with pytest.raises(UserError, match="only 1 of 2 epochs are trained; run stage 4"):
        average_best(exp)
    state["progress"]["records"] = []
    save_state(exp / "checkpoints", state)
    with pytest.raises(UserError, match=r"checkpoints: no finished epoch; run stage 4"):
        average_best(exp)


def test_facts_never_lie_beside_the_weights_of_another_model(exp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between the two files, an experiment has no facts, not the old ones."""

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("asrprune.experiment.store.ModelRecord.write", killed)
    with pytest.raises(KeyboardInterrupt):
        save_model(exp, read_experiment_config(exp), load_weights(epoch_file(exp / "checkpoints", 1)), ())
    with pytest.raises(UserError, match=r"model\.json: no such file; stage 5 \(`asrprune average`\) makes it"):
        load(exp)


def test_loaded_model_is_the_averaged_one_ready_to_decode(tiny_experiment: Path) -> None:
    experiment = load(tiny_experiment)
    assert experiment.num_layers == 4
    assert not experiment.model.training
    assert len(experiment.tokenizer) == experiment.model.head.project.out_features
    expected = load_weights(tiny_experiment / "model.safetensors")
    torch.testing.assert_close(dict(experiment.model.state_dict()), expected, rtol=0.0, atol=0.0)
    assert bool((experiment.model.cmvn_scale != 1.0).all())


def test_loaded_weights_have_the_types_of_the_model(tiny_config_with: ConfigWith, tiny_data: Path, tmp_path: Path) -> None:
    """BatchNorm counts its batches in whole numbers; weights may be stored as 16-bit numbers."""
    exp, config = tmp_path / "exp", tiny_config_with("model.layer={type: conformer, kernel: 3, norm: batch}")
    loaded = untrained(exp, config, tiny_data)
    weights = loaded.model.state_dict()
    expected = types_of(CtcModel(config.model, 80, len(loaded.tokenizer)).state_dict())
    assert types_of(weights) == expected
    assert torch.int64 in expected.values()
    save_weights(exp / "model.safetensors", {name: tensor.half() for name, tensor in weights.items()})
    loaded.record.model_copy(update={"model_sha256": sha256_of(exp / "model.safetensors")}).write(exp / "model.json")
    assert types_of(load(exp).model.state_dict()) == expected


def types_of(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.dtype]:
    return {name: tensor.dtype for name, tensor in weights.items()}


def test_a_config_with_other_numbers_than_those_of_the_training_is_refused(
    exp: Path, run_training: Callable[[Config, Path], None], tiny_config_with: ConfigWith
) -> None:
    """Two heads or four: the weights have the same shapes."""
    config = exp / "config.yaml"
    config.write_text(config.read_text().replace("heads: 2", "heads: 4"))
    goes_on = lambda exp: run_training(tiny_config_with("model.heads=4"), exp)  # noqa: E731
    for what, use in (("model.json", load), ("checkpoints", average_best), ("checkpoints", goes_on)):
        with pytest.raises(UserError, match=rf"{what}: was trained with model\.heads = 2, but .* has 4; set it back"):
            use(exp)


def test_weights_that_do_not_fit_are_refused_in_one_line(exp: Path) -> None:
    record = ModelRecord.read(exp / "model.json")
    record.model_copy(update={"config": None}).write(exp / "model.json")  # as in earlier versions
    config = (exp / "config.yaml").read_text()
    (exp / "config.yaml").write_text(config.replace("ffn: 32", "ffn: 48"))
    with pytest.raises(
        UserError, match=r"model\.safetensors: does not fit .*config\.yaml: size mismatch for encoder"
    ) as caught:
        load(exp)
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_finite_are_refused(exp: Path) -> None:
    weights = load_weights(exp / "model.safetensors")
    weights["head.project.bias"][1] = torch.nan
    save_weights(exp / "model.safetensors", weights)
    with pytest.raises(UserError, match=r"model\.safetensors: head\.project\.bias contains numbers that are not finite"):
        load(exp)


def test_weights_of_another_model_are_refused(exp: Path) -> None:
    weights = load_weights(exp / "model.safetensors")
    save_weights(exp / "model.safetensors", {name: tensor + 1.0 for name, tensor in weights.items()})
    with pytest.raises(UserError, match=r"model\.safetensors: does not have the SHA-256 of model\.json"):
        load(exp)


def test_weights_of_an_earlier_version_are_read(tiny_experiment: Path, tmp_path: Path) -> None:
    """They called the head's parts encoder.final_norm and ctc."""
    weights = load_weights(tiny_experiment / "model.safetensors")
    moved = {"head.norm.": "encoder.final_norm.", "head.project.": "ctc."}
    old = {next((o + n.removeprefix(w) for w, o in moved.items() if n.startswith(w)), n): x for n, x in weights.items()}
    assert len(old.keys() - weights.keys()) == 4
    save_weights(tmp_path / "old.safetensors", old)
    found = load_weights(tmp_path / "old.safetensors")
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], weights[name]) for name in weights)


def test_an_experiment_that_was_pickled_keeps_the_config_that_it_had(tiny_experiment: Path) -> None:
    """A worker must compute as its parent would."""
    here = load(tiny_experiment)
    decode = here.config.decode.model_copy(update={"precision": "bf16"})
    there = pickle.loads(pickle.dumps(replace(here, config=here.config.model_copy(update={"decode": decode}))))
    assert there.config.decode.precision == "bf16"
    assert there.path == here.path


def test_features_of_other_numbers_are_told_in_any_archive(tiny_experiment: Path, dev: Path, tmp_path: Path) -> None:
    """A set that was combined from two others, whose features fit the model, but only those of the first are right."""
    config = read_experiment_config(tiny_experiment)
    entries = read_table(dev / "feats.scp")
    for name, key, shift in (("a", min(entries), 10.0), ("b", max(entries), 15.0)):
        ark = tmp_path / f"{name}.ark"
        entries |= write_ark(ark, ark, [(key, read_matrix(entries[key]))])
        Contents(frames={}, crc={}, files={}, frontend={"frame_shift_ms": shift}).write(ark.with_suffix(".json"))
    write_table(dev / "feats.scp", entries)
    with pytest.raises(UserError, match=r"its features were computed with frontend\.frame_shift_ms = 15\.0, but those of"):
        check_frontend(tiny_experiment, config, Corpus(dev, None))


def test_another_process_refuses_a_model_that_has_replaced_that_of_its_parent(exp: Path) -> None:
    """What it computes would be recorded under the hash of the first one."""
    sent = pickle.dumps(load(exp))
    average_best(exp, 1)
    with pytest.raises(UserError, match=r"model\.safetensors: was changed while this command used it; run the same"):
        pickle.loads(sent)
