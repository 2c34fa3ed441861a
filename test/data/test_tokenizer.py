"""Text units: what goes in comes out, on real and on made-up transcripts; label 0 stays the blank's."""

import gzip
import re
from itertools import product
from pathlib import Path

import pytest

from asrprune.config.schema import TokenizerConfig
from asrprune.data.tokenizer import Tokenizer, train_tokenizer
from asrprune.data.units import UNKNOWN_LABEL
from asrprune.runtime.errors import UserError

SHARED = Path(__file__).resolve().parents[2] / "../shared/data"
MADE_UP = (
    "ÜBER DIE BRÜCKE GEHT'S NACH KÖLN",
    "ŽLUŤOUČKÝ KŮŇ ÚPĚL ĎÁBELSKÉ ÓDY",
    "Съешь же ещё этих мягких французских булок",
    "我 能 吞下 玻璃 而 不 伤 身体",
    "नमस्ते दुनिया",
    "IT'S O'CLOCK ROCK-N-ROLL 100% @ A.B.C.",
    "a b c d e f g",
)


def librispeech(count: int) -> list[str]:
    path = SHARED / "librispeech/train-clean-100.text.gz"
    if not path.exists():
        pytest.skip(f"{path} is absent: real transcripts are not shipped with the code")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [line.strip().partition(" ")[2] for _, line in zip(range(count), lines, strict=False)]


def train(texts: list[str] | tuple[str, ...], folder: Path, kind: str, size: int | None) -> Tokenizer:
    return train_tokenizer(texts, TokenizerConfig.model_validate({"type": kind, "vocab_size": size}), folder)


def assert_round_trip(tokenizer: Tokenizer, texts: list[str] | tuple[str, ...]) -> None:
    for text in texts:
        labels = tokenizer.encode(text)
        assert labels
        assert min(labels) >= 2, f"blank or unknown in {text}"
        assert tokenizer.decode(labels) == text


@pytest.mark.parametrize(("kind", "size"), [("bpe", 500), ("unigram", 500), ("char", None), ("char", 1000), ("word", None)])
def test_librispeech_comes_back(tmp_path: Path, kind: str, size: int | None) -> None:
    texts = librispeech(1000)
    tokenizer = train(texts, tmp_path, kind, size)
    assert_round_trip(tokenizer, texts)
    if size == 500:
        assert len(tokenizer) == 501


@pytest.mark.parametrize(("kind", "size"), [("bpe", 120), ("unigram", 100), ("char", None), ("word", None)])
def test_any_script_comes_back(tmp_path: Path, kind: str, size: int | None) -> None:
    assert_round_trip(train(MADE_UP, tmp_path, kind, size), MADE_UP)


def test_sizes_count_blank_and_unknown(tmp_path: Path) -> None:
    texts = ["a b", "b c c"]
    assert train(texts, tmp_path / "word", "word", None).pieces == ["<blk>", "▁<unk>", "▁b", "▁c", "▁a"]
    assert sorted(train(texts, tmp_path / "char", "char", None).pieces[2:]) == ["a", "b", "c", "▁"]
    assert len(train(texts, tmp_path / "few", "word", 2)) == 3


@pytest.mark.parametrize(("kind", "size"), [("bpe", 40), ("unigram", 20), ("char", None), ("word", None)])
def test_tokens_txt_is_token_and_label_from_the_blank_on(tmp_path: Path, kind: str, size: int | None) -> None:
    tokenizer = train(["over the hills and far away", "far over the away hills"] * 3, tmp_path, kind, size)
    lines = (tmp_path / "tokens.txt").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "<blk> 0"
    assert [line.rsplit(" ", 1) for line in lines] == [[piece, str(label)] for label, piece in enumerate(tokenizer.pieces)]


@pytest.mark.parametrize(("kind", "size"), [("bpe", 60), ("unigram", 36), ("char", None), ("word", None)])
def test_training_again_gives_the_same_labels(tmp_path: Path, kind: str, size: int | None) -> None:
    texts = list(MADE_UP[:2]) * 3
    first, again = (train(texts, tmp_path / name, kind, size) for name in ("first", "again"))
    assert first.pieces == again.pieces
    loaded = Tokenizer(tmp_path / "first/bpe.model")
    assert [loaded.encode(text) for text in texts] == [again.encode(text) for text in texts]


def test_of_ten_words_the_proposed_type_works(tmp_path: Path) -> None:
    texts = ["one two three four five six seven eight nine ten"]
    with pytest.raises(UserError, match=r"set tokenizer\.type=char and tokenizer\.vocab_size=null"):
        train(texts, tmp_path, "unigram", 500)
    assert len(train(texts, tmp_path, "char", None)) > 10


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_too_many_units_name_the_most_that_there_can_be(tmp_path: Path, kind: str) -> None:
    texts = ["red green blue", "blue and red", "green and blue"] * 5
    with pytest.raises(UserError, match=rf"tokenizer.vocab_size 5000 with type {kind} is not possible") as caught:
        train(texts, tmp_path, kind, 5000)
    found = re.search(r"<= (\d+)", str(caught.value))
    assert found, caught.value
    assert not (tmp_path / "bpe.model").exists()
    assert len(train(texts, tmp_path, kind, int(found[1]))) == int(found[1]) + 1


def test_fewer_units_than_characters_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"smaller than required_chars\. 5 vs"):
        train(["abcdefgh"], tmp_path, "bpe", 5)


@pytest.mark.parametrize("texts", [[], [""], ["", " "]])
@pytest.mark.parametrize("kind", ["bpe", "word", "char"])
def test_no_transcripts_are_refused(tmp_path: Path, kind: str, texts: list[str]) -> None:
    with pytest.raises(UserError, match="no transcripts to train the text units on"):
        train(texts, tmp_path, kind, 10)


@pytest.mark.parametrize(("kind", "size"), [("bpe", 30), ("unigram", 19), ("char", None), ("word", None)])
def test_a_transcript_of_any_length_counts(tmp_path: Path, kind: str, size: int | None) -> None:
    """sentencepiece leaves out sentences of more than 4192 bytes, unless it is told otherwise."""
    lecture = " ".join(["quiz", "zero", "vex"] * 500)
    texts = ["the one here", "here one", lecture]
    assert len(lecture) > 4192
    assert_round_trip(train(texts, tmp_path, kind, size), texts)
    thai = ["ภาษาไทย" * 300]
    assert len(thai[0].encode()) > 4192
    if kind == "char":
        assert_round_trip(train(thai, tmp_path / "thai", kind, size), thai)


def test_nothing_is_nothing(tmp_path: Path) -> None:
    tokenizer = train(["a b", "c"], tmp_path, "word", None)
    assert tokenizer.encode("") == []
    assert tokenizer.decode([]) == ""


def test_every_unknown_word_is_a_word_of_its_own(tmp_path: Path) -> None:
    tokenizer = train(["yes no", "no yes go"], tmp_path, "word", None)
    assert tokenizer.encode("yes maybe perhaps no never")[1:3] == [1, 1]
    assert tokenizer.decode(tokenizer.encode("yes maybe perhaps no never")) == "yes <unk> <unk> no <unk>"
    assert tokenizer.decode(tokenizer.encode("maybe")) == "<unk>"


def test_an_unknown_character_spoils_its_word_alone(tmp_path: Path) -> None:
    for kind, size in (("bpe", 12), ("char", None)):
        tokenizer = train(["yes no", "no yes go"], tmp_path / kind, kind, size)
        labels = tokenizer.encode("yes yäs no")
        assert labels.count(1) == 1
        assert tokenizer.decode(labels) == "yes y<unk>s no"


@pytest.mark.parametrize(("kind", "size"), [("bpe", 12), ("unigram", 9), ("char", None), ("word", None)])
def test_what_nobody_could_transcribe_is_the_unknown_piece(tmp_path: Path, kind: str, size: int | None) -> None:
    """TED-LIUM's <unk>: a word in references, and so in a perfect hypothesis."""
    tokenizer = train(["yes <unk> no", "<unk> no yes go <unk>"], tmp_path, kind, size)
    labels = tokenizer.encode("<unk> yes <unk> <unk> no")
    assert labels.count(1) == 3
    assert tokenizer.decode(labels) == "<unk> yes <unk> <unk> no"
    assert not any(">" in piece for piece in tokenizer.pieces[2:])


@pytest.mark.parametrize(("kind", "size"), [("bpe", 12), ("unigram", 9), ("char", None), ("word", None)])
def test_what_units_can_write_is_what_sentencepiece_encodes(tmp_path: Path, kind: str, size: int | None) -> None:
    tokenizer = train(["yes no", "no yes go"], tmp_path, kind, size)
    assert tokenizer.can_write("go yes no")
    for word in map("".join, product("yesnogx", repeat=3)):
        for text in (word, f"no {word}"):
            assert tokenizer.can_write(text) == (UNKNOWN_LABEL not in tokenizer.encode(text)), text


def test_word_marks_without_a_word_leave_no_double_space(tmp_path: Path) -> None:
    tokenizer = train(["yes no"], tmp_path, "char", None)
    mark, letter = tokenizer.pieces.index("▁"), tokenizer.pieces.index("y")
    assert tokenizer.decode([mark, mark, letter, mark, mark, letter, mark]) == "y y"


def test_missing_and_broken_models_name_the_stage(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.model: no such sentencepiece model; stage 3"):
        Tokenizer(tmp_path / "none.model")
    for content in (b"", b"not a model"):
        (tmp_path / "bpe.model").write_bytes(content)
        with pytest.raises(UserError, match=r"bpe\.model: not a sentencepiece model, or damaged; run stage 3"):
            Tokenizer(tmp_path / "bpe.model")
