"""A data directory as batches: what is missing is named, padding is zero, and CTC's feasibility rule is exact."""

import itertools
import pickle
import resource
from pathlib import Path

import numpy as np
import pytest
import torch

from asrprune.data.batching import sorted_batches
from asrprune.data.check import check_data_dir
from asrprune.data.dataset import Corpus, feasible, needed_frames, write_dropped
from asrprune.data.tables import read_table, write_table
from asrprune.data.tokenizer import Tokenizer
from asrprune.features.ark import read_matrix, write_ark
from asrprune.runtime.errors import UserError


@pytest.fixture(scope="module")
def tokenizer(tiny_data: Path) -> Tokenizer:
    return Tokenizer(tiny_data / "lang/bpe.model")


# ---- what is read


def test_items_are_features_and_labels(tiny_data: Path, tokenizer: Tokenizer) -> None:
    corpus = Corpus(tiny_data / "train", tokenizer)
    texts, entries = read_table(tiny_data / "train/text"), read_table(tiny_data / "train/feats.scp")
    assert list(corpus.ids) == list(texts)
    assert len(corpus) == 24
    for position, key in enumerate(corpus.ids):
        index, features, labels = corpus[position]
        assert index == position
        np.testing.assert_array_equal(features, read_matrix(entries[key]))
        assert labels == tokenizer.encode(texts[key])
        assert corpus.lengths[position] == len(features)
        assert corpus.texts[position] == texts[key]


def test_a_directory_may_be_moved(tiny_data: Path, dev: Path) -> None:
    """feats.scp has absolute paths."""
    (dev / "feats.scp").write_text((dev / "feats.scp").read_text().replace(f"{tiny_data}/", "/gone/"))
    before, after = Corpus(tiny_data / "dev", None), Corpus(dev, None)
    np.testing.assert_array_equal(after[1][1], before[1][1])
    assert not check_data_dir(dev, audio=False).faults
    (dev / "fbank/feats.ark").unlink()
    with pytest.raises(UserError, match=r"feats\.ark:\d+: there is no such archive; run stage 2 \(fbank\) again"):
        after[1]


def test_without_a_tokenizer_there_are_no_labels_and_text_is_optional(dev: Path) -> None:
    corpus = Corpus(dev, None)
    assert list(corpus.texts) == list(read_table(dev / "text").values())
    assert all(corpus.labels(i) == [] for i in range(len(corpus)))
    (dev / "text").unlink()
    assert list(Corpus(dev, None).texts) == [""] * 6


@pytest.mark.parametrize("name", ["feats.scp", "utt2num_frames"])
def test_missing_features_name_stage_2(dev: Path, tokenizer: Tokenizer, name: str) -> None:
    (dev / name).unlink()
    with pytest.raises(UserError, match=rf"{name}: no such file; stage 2 \(`asrprune fbank .*dev`\) makes it"):
        Corpus(dev, tokenizer)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tset: no such data directory; stage 1 \(data\) and stage 2 \(fbank\) make it"):
        Corpus(tmp_path / "tset", None)


def test_missing_transcripts_name_stage_1(dev: Path, tokenizer: Tokenizer) -> None:
    (dev / "text").unlink()
    with pytest.raises(UserError, match=r"dev/text: does not exist; stage 1"):
        Corpus(dev, tokenizer)


@pytest.mark.parametrize("name", ["feats.scp", "utt2num_frames", "text"])
@pytest.mark.parametrize("with_tokenizer", [True, False])
def test_tables_of_other_utterances_are_refused(dev: Path, tokenizer: Tokenizer, name: str, with_tokenizer: bool) -> None:
    rows = read_table(dev / name)
    rows.popitem()
    write_table(dev / name, rows)
    with pytest.raises(UserError, match=r"dev: feats\.scp, utt2num_frames and text have different utterances; run stage 2"):
        Corpus(dev, tokenizer if with_tokenizer else None)


# ---- batches


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_loader_gives_the_batches_in_order_padded_with_zeros(
    tiny_data: Path, tokenizer: Tokenizer, num_workers: int
) -> None:
    corpus = Corpus(tiny_data / "train", tokenizer)
    order = np.random.default_rng(0).permutation(24)
    plan = [order[:5], order[5:6], order[6:17], order[17:]]
    batches = list(corpus.loader(plan, num_workers))
    assert [batch.index.tolist() for batch in batches] == [part.tolist() for part in plan]
    for batch in batches:
        assert batch.features.shape[1] == int(batch.lens.max())
        assert batch.labels.shape[1] == int(batch.label_lens.max())
        for row, position in enumerate(batch.index):
            _, features, labels = corpus[position]
            frames, units = int(batch.lens[row]), int(batch.label_lens[row])
            np.testing.assert_array_equal(batch.features[row, :frames].numpy(), features)
            assert not bool(batch.features[row, frames:].any())
            assert batch.labels[row, :units].tolist() == labels
            assert not bool(batch.labels[row, units:].any())


def test_a_batch_moves_as_a_whole(tiny_data: Path, tokenizer: Tokenizer) -> None:
    batch = next(Corpus(tiny_data / "dev", tokenizer).loader([np.arange(3)]))
    moved = batch.to(torch.device("meta"))
    tensors = (moved.features, moved.lens, moved.labels, moved.label_lens)
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert moved.features.shape == batch.features.shape
    assert moved.label_lens.shape == batch.label_lens.shape
    assert moved.index is batch.index


# ---- which utterances CTC can learn from


@pytest.mark.parametrize(
    ("labels", "frames"), [([], 0), ([5], 1), ([1, 2], 2), ([1, 1, 2], 4), ([1, 1, 1, 1], 7), ([1, 2, 1], 3)]
)
def test_needed_frames_by_hand(labels: list[int], frames: int) -> None:
    assert needed_frames(labels) == frames


def test_ctc_is_feasible_exactly_where_torchs_loss_is_finite() -> None:
    """All 30 label sequences of up to 4 labels out of 2, at 1 to 9 frames."""
    log_probs = torch.zeros(9, 1, 3).log_softmax(-1)
    for length in range(1, 5):
        for labels in itertools.product((1, 2), repeat=length):
            for frames in range(1, 10):
                loss = torch.nn.functional.ctc_loss(log_probs[:frames], torch.tensor([labels]), [frames], [length])
                assert bool(loss.isfinite()) == (frames >= needed_frames(labels)), (labels, frames)


def shorten(directory: Path, lengths: dict[str, int]) -> None:
    frames = read_table(directory / "utt2num_frames")
    write_table(directory / "utt2num_frames", {**frames, **{key: str(length) for key, length in lengths.items()}})


@pytest.mark.parametrize(
    ("factor", "frames"),
    [(4, (15, 19, 6)), (8, (38, 39, 14))],  # 3, 4 and 0 encoder frames; 4, 4 and 1 are needed
)
def test_dropped_utterances_are_listed_with_both_counts(
    dev: Path, tokenizer: Tokenizer, tmp_path: Path, factor: int, frames: tuple[int, int, int]
) -> None:
    ids = list(read_table(dev / "text"))
    short = ids[1], ids[2], ids[4]
    write_table(dev / "text", read_table(dev / "text") | dict(zip(short, ("one one two", "one one two", "three"), strict=True)))
    shorten(dev, dict(zip(short, frames, strict=True)))
    corpus = Corpus(dev, tokenizer)
    assert factor == 4 or feasible(corpus, 4).all(), "twice the frames"
    kept = feasible(corpus, factor)
    assert kept.tolist() == [True, False, True, True, False, True]
    write_dropped(tmp_path / "dropped.tsv", corpus, kept, factor)
    assert (tmp_path / "dropped.tsv").read_text() == (
        f"utterance\tencoder_frames\tneeded_frames\n{ids[1]}\t3\t4\n{ids[4]}\t0\t1\n"
    )


def test_nothing_dropped_is_a_header(tiny_data: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    corpus = Corpus(tiny_data / "dev", tokenizer)
    write_dropped(tmp_path / "dropped.tsv", corpus, feasible(corpus, 4), 4)
    assert (tmp_path / "dropped.tsv").read_text() == "utterance\tencoder_frames\tneeded_frames\n"


def test_an_evaluation_set_keeps_its_infeasible_utterances(dev: Path, tokenizer: Tokenizer) -> None:
    """Corpus and decoding batches hold all of them; only training asks ``feasible``."""
    ids = list(read_table(dev / "text"))
    empty = write_ark(dev / "empty.ark", dev / "empty.ark", [(key, np.zeros((0, 80), dtype=np.float32)) for key in ids[:2]])
    write_table(dev / "feats.scp", read_table(dev / "feats.scp") | empty)
    shorten(dev, dict.fromkeys(ids[:2], 0))
    corpus = Corpus(dev, tokenizer)
    assert not feasible(corpus, 4)[:2].any()
    batches = list(corpus.loader(sorted_batches(corpus.lengths, 500)))
    assert sorted(np.concatenate([batch.index for batch in batches]).tolist()) == list(range(6))
    lens = {corpus.ids[i]: int(length) for batch in batches for i, length in zip(batch.index, batch.lens, strict=True)}
    assert [lens[key] for key in ids[:2]] == [0, 0]


# ---- processes that read in advance


def test_processes_that_cannot_send_are_told(dev: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the training waits for ever."""
    corpus = Corpus(dev, None)
    with monkeypatch.context() as patch:
        patch.setattr("asrprune.data.dataset.arbitrary_address", lambda family: "/tmp/" + "x" * 100)
        with pytest.raises(UserError, match=r"path is too long for the sockets .* set TMPDIR to a shorter one, or read"):
            corpus.loader([np.arange(2)], num_workers=1)
        assert len(next(corpus.loader([np.arange(2)])).lens) == 2

    def full(tensor: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("unable to allocate shared memory(shm)")

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    with pytest.raises(UserError, match=r"/dev/shm: has no room for the batches .*unable to allocate.*num_workers=0"):
        next(corpus.loader([np.arange(2)], num_workers=1))


def test_too_few_open_files_are_told_before_the_processes_start(tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = Corpus(tiny_data / "dev", None)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (40, 40))
    with pytest.raises(UserError, match=r"^train\.num_workers=4: these processes need 1\d\d open files, but the limit is 40; "):
        corpus.loader([np.arange(2)], num_workers=4)
    assert len(list(corpus.loader([np.arange(2)]))) == 1
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert len(list(corpus.loader([np.arange(2)], num_workers=1))) == 1


# ---- what is not silently wrong


def test_features_that_are_not_finite_name_their_utterance(dev: Path, tokenizer: Tokenizer) -> None:
    entries = read_table(dev / "feats.scp")
    matrices = {key: read_matrix(entry).copy() for key, entry in entries.items()}
    bad = list(entries)[3]
    matrices[bad][5, 7] = np.inf
    ark = dev / "bad.ark"
    write_table(dev / "feats.scp", write_ark(ark, ark, matrices.items()))
    corpus = Corpus(dev, tokenizer)
    assert len(list(corpus.loader([np.array([0, 1, 2, 4, 5])]))) == 1
    with pytest.raises(UserError, match=rf"feats\.scp:4: {bad}: {ark}:\d+: contains features that are not finite; "):
        corpus[3]


def test_an_utterance_of_other_width_is_named(dev: Path) -> None:
    entries = read_table(dev / "feats.scp")
    first, _, third, *_ = entries
    ark = dev / "narrow.ark"
    write_table(dev / "feats.scp", {**entries, **write_ark(ark, ark, [(third, read_matrix(entries[third])[:, :40])])})
    corpus = Corpus(dev, None)
    corpus[1]
    with pytest.raises(UserError, match=rf"feats\.scp:3: {third}: has 40 features in a frame, but {first} has 80; run stage 2"):
        corpus[2]


def test_transcripts_in_other_letters_than_the_text_units_are_refused(dev: Path, tokenizer: Tokenizer) -> None:
    texts = read_table(dev / "text")
    write_table(dev / "text", {key: text.upper() for key, text in texts.items()})
    total, first = sum(len(text.split()) for text in texts.values()), next(iter(texts.values())).split()[0].upper()
    with pytest.raises(UserError, match=rf"text: {total} of {total} words, such as `{first}`, cannot be written in the text"):
        Corpus(dev, tokenizer)
    assert len(Corpus(dev, None)) == 6
    write_table(dev / "text", {**texts, next(iter(texts)): "SOME NEW WORDS"})
    assert len(Corpus(dev, tokenizer)) == 6


@pytest.mark.parametrize(("name", "other"), [("text", "two"), ("utt2num_frames", "1")])
def test_another_process_refuses_tables_that_have_changed(dev: Path, tokenizer: Tokenizer, name: str, other: str) -> None:
    """Features that are computed anew while a set is decoded, or transcripts that are corrected."""
    corpus = Corpus(dev, tokenizer)
    sent = pickle.dumps(corpus)
    assert pickle.loads(sent).texts[:] == corpus.texts[:]
    write_table(dev / name, {**read_table(dev / name), corpus.ids[0]: other})
    with pytest.raises(UserError, match=f"{dev}: was changed while this command used it"):
        pickle.loads(sent)
