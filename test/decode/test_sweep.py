"""Decoding at many depths: what is decoded is not decoded again, and a text is never beside another model's record."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from emissions import emit
from experiments import config_with, untrained, with_numbers
from records import plan_of
from waiting import locked_elsewhere

from asrprune.config.schema import Config
from asrprune.data.dataset import Corpus
from asrprune.data.tables import open_table, read_table, write_table
from asrprune.decode import shards, sweep
from asrprune.decode.greedy import GREEDY
from asrprune.decode.sweep import SubModel, check_decoded, decode_set, features_now, sub_models
from asrprune.experiment.plan import Step
from asrprune.experiment.store import Experiment
from asrprune.features.ark import checksum, read_matrix, write_ark
from asrprune.model.ctc_model import num_params
from asrprune.runtime import hardware
from asrprune.runtime.errors import UserError
from asrprune.runtime.executor import HERE, processes
from asrprune.runtime.files import sha256_of

LOWEST = plan_of("lowest", 4, (Step.of((1, 2, 3, 4)), Step.of((1, 2)), Step.of((1,))), "sha")
ODD = plan_of("odd", 4, (Step.of((1, 2, 3, 4)), Step.of((2, 4)), Step.of((1,))), "sha")


@pytest.fixture
def own(tiny_config: Config, tiny_data: Path, tmp_path: Path) -> Experiment:
    """An untrained experiment that may be written to: it says something other at every depth."""
    return untrained(tmp_path / "exp", tiny_config, tiny_data)


@pytest.fixture
def other(tiny_config: Config, tiny_data: Path, tmp_path: Path) -> Experiment:
    """Another one."""
    return untrained(tmp_path / "other", tiny_config.model_copy(update={"seed": 2}), tiny_data)


@pytest.fixture
def in_batches(tiny_config: Config, tiny_data: Path, tmp_path: Path) -> Experiment:
    """An experiment that decodes the tiny dev set in several batches."""
    return untrained(tmp_path / "in_batches", config_with(tiny_config, "decode", max_frames=150), tiny_data)


def texts_of(output: Path) -> dict[str, str]:
    return dict(open_table(output / "text", allow_empty=True))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The sub-models that are really run."""
    runs: list[tuple[int, ...]] = []
    real = shards.hypotheses

    def watched(exp: Experiment, corpus, sets, *rest: object):
        runs.extend(sets)
        return real(exp, corpus, sets, *rest)

    monkeypatch.setattr(shards, "hypotheses", watched)
    return runs


def alone(exp: Experiment, directory: Path, keep: tuple[int, ...]) -> dict[str, str]:
    """Each utterance decoded on its own, without padding, by a decoder of the test's own."""
    corpus = Corpus(directory, None)
    texts = {}
    for index, key in enumerate(corpus.ids):
        features = torch.from_numpy(corpus[index][1].copy()).unsqueeze(0)
        with torch.inference_mode():
            emissions = emit(exp.model, features, torch.tensor([features.shape[1]]), keep)
        best = emissions.log_probs[0, : int(emissions.lens[0])].argmax(-1).tolist()
        labels = [now for before, now in zip([0, *best], best, strict=False) if now not in (0, before)]
        texts[key] = exp.tokenizer.decode(labels)
    return texts


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def test_every_depth_of_every_plan_or_the_one_that_lacks_it_is_named() -> None:
    found = [model.output(Path("here")) for model in sub_models([LOWEST, ODD], [4, 2])]
    assert found == [Path("here") / name for name in ("lowest_d4", "lowest_d2", "odd_d4", "odd_d2")]
    with pytest.raises(UserError, match=r"plan odd has no depth 3; it has 4, 2, 1"):
        sub_models([ODD], [4, 3])


def test_texts_are_those_of_utterances_decoded_alone(own: Experiment, tiny_data: Path) -> None:
    outputs = decode_set(own, tiny_data / "dev", sub_models([LOWEST, ODD], [4, 2]))
    assert [path.relative_to(own.path).as_posix() for path in outputs] == [
        "decode/dev/lowest_d4", "decode/dev/lowest_d2", "decode/dev/odd_d4", "decode/dev/odd_d2"
    ]  # fmt: skip
    for output, keep in zip(outputs, [(1, 2, 3, 4), (1, 2), (1, 2, 3, 4), (2, 4)], strict=True):
        assert texts_of(output) == alone(own, tiny_data / "dev", keep)
        assert any(texts_of(output).values())


def test_no_open_file_is_removed(own: Experiment, tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On NFS it would leave a file behind, and its directory could not be removed."""
    removed: list[str] = []
    remove = shutil.rmtree

    def watched(path: Path) -> None:
        opened = {str(path.resolve()) for path in Path("/proc/self/fd").iterdir()}
        removed.extend(file for file in map(str, Path(path).rglob("*")) if file in opened)
        remove(path)

    monkeypatch.setattr(sweep.shutil, "rmtree", watched)
    decode_set(own, tiny_data / "dev", sub_models([LOWEST], [2]))
    assert removed == []
    assert not (own.path / "decode/dev/shards").exists()


def test_the_record_says_what_was_decoded_by_what(own: Experiment, tiny_data: Path) -> None:
    (output,) = decode_set(own, tiny_data / "dev", [SubModel("odd", (2, 4))])
    record = json.loads((output / "decode.json").read_text())
    frames = sum(int(count) for count in read_table(tiny_data / "dev/utt2num_frames").values())
    assert record.pop("hours") == pytest.approx(frames / 360_000, abs=1e-4)
    assert record.pop("params_m") == pytest.approx(num_params(own.model, (2, 4)) / 1e6)
    assert len(record.pop("text_sha256")) == 64
    assert len(record.pop("features")) == 16
    assert record.pop("output_sha256") == sha256_of(output / "text")
    assert record == {
        "format": 1, "set": "dev", "decoder": "greedy, float32", "model_sha256": own.record.model_sha256, "utterances": 6,
        "strategy": "odd", "depth": 2, "keep": [2, 4], "directory": str((tiny_data / "dev").resolve()),
    }  # fmt: skip


def test_the_record_names_the_precision_that_this_machine_chooses(
    own: Experiment, tiny_data: Path, decoded: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = replace(own, config=config_with(own.config, "decode", precision="auto"))
    made = []
    for native in (False, True, True):
        monkeypatch.setattr(hardware, "has_fast_bf16", lambda device, native=native: native)
        (output,) = decode_set(own, tiny_data / "dev", [SubModel("odd", (2, 4))])
        made.append(json.loads((output / "decode.json").read_text())["decoder"])
    assert made == ["greedy, float32", "greedy, bf16", "greedy, bf16"]
    assert len(decoded) == 2, "a machine of the same kind decodes nothing again"


def test_the_same_layers_are_run_once(own: Experiment, tiny_data: Path, decoded: list[tuple[int, ...]]) -> None:
    outputs = decode_set(own, tiny_data / "dev", sub_models([LOWEST, ODD], [4, 2, 1]))
    assert sorted(decoded) == [(1,), (1, 2), (1, 2, 3, 4), (2, 4)]
    assert (outputs[0] / "text").read_bytes() == (outputs[3] / "text").read_bytes()
    assert json.loads((outputs[3] / "decode.json").read_text())["strategy"] == "odd"


def test_a_second_run_does_nothing(own: Experiment, tiny_data: Path, decoded: list[tuple[int, ...]]) -> None:
    wanted = sub_models([LOWEST], [4, 2])
    decode_set(own, tiny_data / "dev", wanted)
    decoded.clear()
    before = snapshot(own.path)
    assert len(decode_set(own, tiny_data / "dev", wanted)) == 2
    assert decoded == []
    assert snapshot(own.path) == before


@pytest.mark.parametrize("missing", [True, False])
@pytest.mark.parametrize("name", ["text", "decode.json"])
def test_what_is_missing_or_damaged_is_decoded_again(
    own: Experiment, tiny_data: Path, decoded: list[tuple[int, ...]], name: str, missing: bool
) -> None:
    _, second = decode_set(own, tiny_data / "dev", sub_models([LOWEST], [4, 2]))
    text = (second / "text").read_bytes()
    if missing:
        (second / name).unlink()
    else:
        (second / name).write_bytes((second / name).read_bytes()[:-9])
    decoded.clear()
    decode_set(own, tiny_data / "dev", sub_models([LOWEST], [4, 2]))
    assert decoded == [(1, 2)]
    assert (second / "text").read_bytes() == text


@pytest.mark.parametrize("checksums", [True, False])  # Kaldi and ESPnet write none
def test_other_features_of_the_same_length_are_decoded_again(
    own: Experiment, decoded: list[tuple[int, ...]], dev: Path, checksums: bool
) -> None:
    for noise in (0.0, 1.0):
        matrices = [(key, read_matrix(entry) + noise) for key, entry in read_table(dev / "feats.scp").items()]
        write_table(dev / "feats.scp", write_ark(dev / "new.ark", dev / "new.ark", matrices))
        (dev / "utt2crc").unlink(missing_ok=True)
        if checksums:
            write_table(dev / "utt2crc", {key: f"{checksum(matrix):08x}" for key, matrix in matrices})
        decoded.clear()
        for _ in range(2):
            decode_set(own, dev, [SubModel("iterative", (1, 2))])
        assert decoded == [(1, 2)], noise


def test_texts_of_features_that_have_changed_are_scored_with_a_warning(
    own: Experiment, dev: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert features_now(dev) is None, "no checksums"
    found = []
    for noise in (0.0, 1.0):
        matrices = [(key, read_matrix(entry) + noise) for key, entry in read_table(dev / "feats.scp").items()]
        write_table(dev / "feats.scp", write_ark(dev / "new.ark", dev / "new.ark", matrices))
        write_table(dev / "utt2crc", {key: f"{checksum(matrix):08x}" for key, matrix in matrices})
        found.append(features_now(dev))
        if not noise:
            (output,) = decode_set(own, dev, [SubModel("iterative", (1, 2))])
    for features, told in ((None, False), (found[0], False), (found[1], True)):
        check_decoded(output, own.record.model_sha256, features)
        assert ("was decoded from other features than the set has now" in caplog.text) == told


def test_another_model_other_layers_or_other_references_are_decoded_again(
    own: Experiment, other: Experiment, decoded: list[tuple[int, ...]], dev: Path
) -> None:
    (output,) = decode_set(own, dev, [SubModel("iterative", (1, 2))])
    (output / "score.json").write_text("{}")
    decode_set(own, dev, [SubModel("iterative", (1, 2))])
    assert (output / "score.json").exists()
    (same,) = decode_set(own, dev, [SubModel("iterative", (3, 4))])
    assert same == output
    assert not (output / "score.json").exists(), "the score of another text"
    assert decoded == [(1, 2), (3, 4)]
    assert texts_of(output) == alone(own, dev, (3, 4))
    shutil.copytree(own.path / "decode", other.path / "decode")
    decode_set(other, dev, [SubModel("iterative", (3, 4))])
    assert decoded == [(1, 2), (3, 4), (3, 4)]
    texts = read_table(dev / "text")
    write_table(dev / "text", {**texts, next(iter(texts)): "five five"})
    decode_set(own, dev, [SubModel("iterative", (3, 4))])
    assert len(decoded) == 4


def test_another_set_of_the_same_name_does_not_replace_results(
    own: Experiment, tiny_data: Path, tmp_path: Path, decoded: list[tuple[int, ...]]
) -> None:
    wanted, first, second = sub_models([LOWEST], [2]), tmp_path / "a/dev", tmp_path / "b/dev"
    shutil.copytree(tiny_data / "dev", first)
    shutil.copytree(tiny_data / "train", second)
    (output,) = decode_set(own, first, wanted)
    before = snapshot(own.path)
    for strategies in ([LOWEST], [ODD]):  # of which the second one has no result yet
        with pytest.raises(UserError, match=rf"decode/dev: has results of {first}, and {second} has the same name, but other"):
            decode_set(own, second, sub_models(strategies, [2]))
    assert {name: file for name, file in snapshot(own.path).items() if not name.endswith(".lock")} == {
        name: file for name, file in before.items() if not name.endswith(".lock")
    }
    shutil.copytree(first, tmp_path / "copy/dev")
    assert decode_set(own, tmp_path / "copy/dev", wanted) == [output]
    assert decoded == [(1, 2)]
    first.rename(tmp_path / "moved")  # then it is the same set, with other data
    assert decode_set(own, second, wanted) == [output]
    assert decoded == [(1, 2), (1, 2)]
    assert list(texts_of(output)) == list(read_table(second / "text"))


@pytest.mark.parametrize("killed_in", ["write_ascending", "write"])
def test_killed_while_writing_no_text_is_beside_another_models_record(
    own: Experiment, other: Experiment, tiny_data: Path, monkeypatch: pytest.MonkeyPatch, killed_in: str
) -> None:
    (output,) = decode_set(own, tiny_data / "dev", [SubModel("iterative", (1, 2))])
    shutil.copytree(own.path / "decode", other.path / "decode")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep if killed_in == "write_ascending" else sweep.Decoded, killed_in, die)
    with pytest.raises(KeyboardInterrupt):
        decode_set(other, tiny_data / "dev", [SubModel("iterative", (1, 2))])
    assert not (other.path / "decode/dev/iterative_d2/decode.json").exists()
    monkeypatch.undo()
    (again,) = decode_set(other, tiny_data / "dev", [SubModel("iterative", (1, 2))])
    assert texts_of(again) == alone(other, tiny_data / "dev", (1, 2)) != texts_of(output)


def test_processes_write_the_same_bytes(in_batches: Experiment, tiny_data: Path) -> None:
    wanted = sub_models([LOWEST, ODD], [4, 2])
    one = [snapshot(output) for output in decode_set(in_batches, tiny_data / "dev", wanted)]
    shutil.rmtree(in_batches.path / "decode")
    with processes(2) as two:
        outputs = decode_set(in_batches, tiny_data / "dev", wanted, two)
    for output, files in zip(outputs, one, strict=True):
        assert {name: text for name, (_, text) in snapshot(output).items()} == {name: text for name, (_, text) in files.items()}
    made = sorted(path.name for path in (in_batches.path / "decode/dev").glob("[!.]*"))
    assert made == sorted(path.name for path in outputs)


@pytest.mark.parametrize(("again", "kept"), [([4, 2], True), ([2], True), ([2, 1], False)])
def test_what_a_killed_run_has_finished_is_not_decoded_again(
    in_batches: Experiment, tiny_data: Path, monkeypatch: pytest.MonkeyPatch, again: list[int], kept: bool
) -> None:
    decoded: list[int] = []
    real = shards.hypotheses

    def killed_in_the_third(exp: Experiment, corpus, sets, batches, *rest: object):
        if len(decoded) == 2:
            raise KeyboardInterrupt
        decoded.append(sum(map(len, batches)))
        return real(exp, corpus, sets, batches, *rest)

    monkeypatch.setattr(shards, "hypotheses", killed_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        decode_set(in_batches, tiny_data / "dev", sub_models([LOWEST], [4, 2]))
    before, decoded[:] = sum(decoded), [-1, -1, -1]
    assert 0 < before < 6
    outputs = decode_set(in_batches, tiny_data / "dev", sub_models([LOWEST], again))
    assert sum(decoded[3:]) == (6 - before if kept else 6)
    for output, depth in zip(outputs, again, strict=True):
        assert texts_of(output) == alone(in_batches, tiny_data / "dev", LOWEST.keep(depth))
    assert not (in_batches.path / "decode/dev/shards").exists()


def test_a_run_that_was_killed_while_it_removed_them_is_finished(own: Experiment, tiny_data: Path) -> None:
    wanted = sub_models([LOWEST], [2])
    decode_set(own, tiny_data / "dev", wanted)
    folder = own.path / "decode/dev/shards"
    folder.mkdir()
    (folder / "0.jsonl").write_text("")
    decode_set(own, tiny_data / "dev", wanted)
    assert not folder.exists()


def test_another_model_has_no_use_for_them(in_batches: Experiment, other: Experiment, tiny_data: Path, tmp_path: Path) -> None:
    other = with_numbers(other, "decode", max_frames=150)
    corpus, folder = Corpus(tiny_data / "dev", None), tmp_path / "shards"
    shards.decode_in_shards(in_batches, corpus, [(1, 2)], folder, HERE, GREEDY)
    found = shards.decode_in_shards(other, corpus, [(1, 2)], folder, HERE, GREEDY)
    again = shards.decode_in_shards(in_batches, corpus, [(1, 2)], folder, HERE, GREEDY)
    assert dict(found((1, 2))) == alone(other, tiny_data / "dev", (1, 2)) != dict(again((1, 2)))
    for path in folder.glob("*"):  # damaged in two ways: as a whole, and in a text
        path.write_bytes(b"\xff")
    repaired = shards.decode_in_shards(other, corpus, [(1, 2)], folder, HERE, GREEDY)
    assert dict(repaired((1, 2))) == dict(alone(other, tiny_data / "dev", (1, 2)))
    for path in folder.glob("*"):
        path.write_text('1,2\t{"a": 3}\n')
    with pytest.raises(UserError, match=r"jsonl: is damaged; remove it, and stage 8"):
        repaired((1, 2))


def test_two_do_not_decode_a_set_at_once(own: Experiment, tiny_data: Path) -> None:
    with locked_elsewhere(own.path / "decode/dev"), pytest.raises(UserError, match="decode/dev: another process is using it"):
        decode_set(own, tiny_data / "dev", sub_models([LOWEST], [4]))


def test_an_utterance_too_short_for_the_front_end_gets_an_empty_line(own: Experiment, tiny_data: Path, dev: Path) -> None:
    frames, entries = read_table(dev / "utt2num_frames"), read_table(dev / "feats.scp")
    lengths = dict(zip(list(frames)[:3], (1, 3, 6), strict=True))
    ark = dev / "short.ark"
    short = write_ark(ark, ark, [(key, np.ones((count, 80), np.float32)) for key, count in lengths.items()])
    write_table(dev / "feats.scp", {**entries, **short})
    write_table(dev / "utt2num_frames", {**frames, **{key: str(count) for key, count in lengths.items()}})
    (output,) = decode_set(own, dev, [SubModel("lowest", (1, 2, 3, 4))])
    assert (output / "text").read_text().splitlines()[:3] == list(lengths)
    texts = texts_of(output)
    shutil.rmtree(output.parent)
    (without,) = decode_set(own, tiny_data / "dev", [SubModel("lowest", (1, 2, 3, 4))])
    assert texts == {**texts_of(without), **dict.fromkeys(lengths, "")}


def test_what_was_decoded_under_the_older_name_of_a_strategy_is_decoded(
    own: Experiment, tiny_data: Path, decoded: list[tuple[int, ...]]
) -> None:
    (output,) = decode_set(own, tiny_data / "dev", [SubModel("lowest", (1, 2))])
    old = output.rename(output.with_name("top_d2"))
    record = json.loads((old / "decode.json").read_text())
    (old / "decode.json").write_text(json.dumps({**record, "strategy": "top"}))
    assert decode_set(own, tiny_data / "dev", [SubModel("lowest", (1, 2))]) == [old]
    assert decoded == [(1, 2)]
    assert decode_set(own, tiny_data / "dev", [SubModel("lowest", (2, 3))]) == [old]
    assert decoded == [(1, 2), (2, 3)]
