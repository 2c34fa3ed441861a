"""Text units of sentencepiece (bpe, unigram, char, word); label 0 is the CTC blank, so labels are shifted by one."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import sentencepiece

from asrprune.config.schema import TokenizerConfig
from asrprune.data.units import BLANK_PIECE, WORD_START, Units, is_unit, write_tokens
from asrprune.runtime.errors import UserError
from asrprune.runtime.files import atomic_path
from asrprune.runtime.planted import read_plain

UNKNOWN = "<unk>"


class Tokenizer(Units):
    """The conversion of text to labels and back. Label 0 is the blank, label i + 1 is piece i of sentencepiece (0: unknown)."""

    def __init__(self, model: Path) -> None:
        """Load a sentencepiece model; raise a ``UserError`` if it is missing or broken."""
        if not model.is_file():
            raise UserError(f"{model}: no such sentencepiece model; stage 3 (`asrprune bpe`) makes it")
        try:
            content = read_plain(model)  # not the path: sentencepiece takes none that is not UTF-8
            if not content:  # sentencepiece would load nothing
                raise RuntimeError
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=content)
            pieces = [self._processor.id_to_piece(i) for i in range(self._processor.get_piece_size())]
            if not all(map(is_unit, pieces)):
                raise RuntimeError
        except (RuntimeError, UnicodeDecodeError):
            raise UserError(f"{model}: not a sentencepiece model, or damaged; run stage 3 (`asrprune bpe`) again") from None
        super().__init__([BLANK_PIECE, *pieces])
        self.path = model
        unknown, start = self._processor.unk_id(), self._processor.piece_to_id(WORD_START)
        self._unknown = [unknown] if start == unknown else [start, unknown]  # with word units, <unk> begins a word itself

    def __reduce__(self) -> tuple[type["Tokenizer"], tuple[Path]]:
        """Pickle the path only; the receiving process loads the model."""
        return Tokenizer, (self.path,)

    def encode(self, text: str) -> list[int]:
        """Return the labels of a text. The word ``<unk>`` becomes the unknown piece.

        Words are encoded one by one, because sentencepiece would merge several unknown words in a row.
        """
        encode = self._processor.encode  # with a list it would start threads at each call
        own = (self._unknown if word == UNKNOWN else encode(word) for word in text.split())
        return [piece + 1 for pieces in own for piece in pieces]


def train_tokenizer(texts: Sequence[str], config: TokenizerConfig, directory: Path) -> Tokenizer:
    """Train text units on transcripts; write ``bpe.model`` and ``tokens.txt`` (lines ``token label``, as in sherpa-onnx).

    ``texts`` are read several times, one text at a time. sentencepiece itself keeps all of them in memory.

    Raises:
        UserError: the transcripts are empty, or too small for so many units.
    """
    longest = max((len(text.encode()) for text in _without_unknown(texts)), default=0)
    if longest == 0:
        raise UserError("there are no transcripts to train the text units on; check data/train/text")
    vocab_size = _vocab_size(texts, config)
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_without_unknown(texts),
            model_writer=model,
            model_type=config.type,
            vocab_size=vocab_size,
            max_sentence_length=max(longest, 4192),  # bytes; by default sentencepiece leaves out what is longer than 4192
            character_coverage=1.0,
            bos_id=-1,
            eos_id=-1,
            unk_id=0,
            unk_piece=WORD_START + UNKNOWN if config.type == "word" else UNKNOWN,  # with word units it is a whole word
            normalization_rule_name="identity",
            minloglevel=2,
            num_threads=1,
        )
    except RuntimeError as error:
        reason = str(error).split("] ")[-1].rstrip(".")
        raise UserError(
            f"tokenizer.vocab_size {vocab_size} with type {config.type} is not possible: {reason}; if there are too few"
            " transcripts for that, too, set tokenizer.type=char and tokenizer.vocab_size=null"
        ) from None
    directory.mkdir(parents=True, exist_ok=True)
    with atomic_path(directory / "bpe.model") as temporary:
        temporary.write_bytes(model.getvalue())
    tokenizer = Tokenizer(directory / "bpe.model")
    write_tokens(directory / "tokens.txt", tokenizer)
    return tokenizer


def _without_unknown(texts: Sequence[str]) -> Iterator[str]:
    """Yield the texts without the word ``<unk>``, with single spaces between the words."""
    return (" ".join(word for word in text.split() if word != UNKNOWN) for text in texts)


def _vocab_size(texts: Sequence[str], config: TokenizerConfig) -> int:
    if config.type in ("bpe", "unigram"):
        assert config.vocab_size is not None  # the config checks it
        return config.vocab_size
    units = {WORD_START} if config.type == "char" else set()
    for text in _without_unknown(texts):
        units.update(text.split() if config.type == "word" else text.replace(" ", ""))
    count = len(units) + 1  # with the unknown piece
    return count if config.vocab_size is None else min(count, config.vocab_size)
