"""The readers of files, each with small seeds. Whatever the bytes, only a ``UserError`` may come out."""

import io
import json
import random
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sentencepiece
import soundfile
import torch

from asrprune.analysis.matrices import read_matrices
from asrprune.compare.grid import read_grid
from asrprune.config.load import read_config
from asrprune.data.fix import fix_data_dir
from asrprune.data.kaldi import read_data_dir
from asrprune.data.tables import read_table, stream_table
from asrprune.data.tokenizer import Tokenizer
from asrprune.experiment.plan import parse_layers, read_plan
from asrprune.experiment.store import ModelRecord
from asrprune.export.record import Exported
from asrprune.features.ark import read_matrix
from asrprune.features.audio import check_audio, read_audio
from asrprune.features.cmvn import read_statistics
from asrprune.lm.arpa import ArpaModel
from asrprune.runtime.errors import UserError
from asrprune.scoring.sclite import write_score
from asrprune.train.checkpoint import load_state
from asrprune.train.journal import read_journal

ARPA = (
    b"\\data\\\nngram 1=4\nngram 2=2\n\n\\1-grams:\n-1\t<s>\t-0.3\n-1\t</s>\n-0.5\tgo\t-0.1\n-0.7\tstop\n\n\\2-grams:\n"
    b"-0.2\t<s> go\n-0.3\tgo </s>\n\n\\end\\\n"
)
STEP = {"depth": 1, "keep": [1], "score": 2.5, "without": {"2": 3.0}}
EXPORTED = {
    "format": 1,
    "form": "any-depth",
    "depth": 2,
    "depths": [{"depth": 2, "keep": [1, 2], "score": 2.5, "params_m": 0.1}],
    "num_layers": 2,
    "strategy": "every",
    "metric": "wer",
    "dev_set": "dev",
    "factor": 4,
    "frontend": {},
    "vocab_size": 2,
    "units": ["<blk>", "a"],
    "windows": {"one_piece_s": 60.0, "window_s": 30.0, "overlap_s": 4.0},
    "word_tail_s": 0.25,
    "decoder": {"type": "greedy"},
    "model_sha256": "0",
    "asrprune": "0.1.0",
}
PLAN = {
    "metric": "wer",
    "dev_set": "dev",
    "steps": [STEP],
    "format": 1,
    "num_layers": 2,
    "strategy": "every",
    "model_sha256": "0",
}
MODEL = {"format": 1, "model_sha256": "0", "num_layers": 2, "params_m": 0.1, "asrprune": "0.1.0", "seed": 1, "members": []}
EPOCH = {
    "kind": "epoch",
    "epoch": 1,
    "step": 9,
    "train_loss": 1.0,
    "dev_loss": {"2": 1.0},
    "dev_wer": {"2": 9.0},
    "seconds": 3.0,
}
GRID = (
    b"config: c.yaml\nmethods: {a: {train.epochs: 2}, b: {}}\nalone: {methods: [b], depths: [1]}\n"
    b"prunable: a\nplain: b\nbaseline: b\n"
)
DIRECTORY = {
    "wav.scp": "ra a.wav\nrb b.wav\n",
    "segments": "a-1 ra 0 1.5\na-2 ra 1.5 2\nb-1 rb 0.25 3\n",
    "text": "a-1 go\na-2 stop now\nb-1 left\n",
    "utt2spk": "a-1 a\na-2 a\nb-1 b\n",
    "spk2utt": "a a-1 a-2\nb b-1\n",
}


@dataclass(frozen=True)
class Parser:
    """A reader of one file, and files that it reads."""

    read: Callable[[Path], object]
    seeds: tuple[bytes, ...]

    def survives(self, content: bytes, folder: Path) -> bool:
        """Read a file with this content in an empty folder; return whether it was accepted, raise what is no ``UserError``."""
        shutil.rmtree(folder)
        folder.mkdir()
        path = folder / "file"
        path.write_bytes(content)
        try:
            self.read(path)
        except UserError:
            return False
        return True


def _in_directory(name: str, read: Callable[[Path], object]) -> Parser:
    def read_with(path: Path) -> object:
        for other, text in DIRECTORY.items():
            (path.parent / other).write_text(text)
        (path.parent / name).write_bytes(path.read_bytes())
        return read(path.parent)

    return Parser(read_with, (DIRECTORY[name].encode(),))


def _layers(path: Path) -> object:
    return parse_layers(path.read_bytes().decode("utf-8", "replace"), 12)


def _scored(path: Path) -> object:
    """Score a table against itself, backwards."""
    texts = read_table(path)
    hypotheses = {key: " ".join(reversed(text.split())) for key, text in texts.items()}
    return write_score(path.parent, *(sorted(rows.items()) for rows in (texts, hypotheses, dict.fromkeys(texts, "s"))))


def _ark() -> bytes:
    """A Kaldi matrix of 2 x 3 floats."""
    return b"\0BFM " + struct.pack("<bibi6f", 4, 2, 4, 3, *range(6))


def _npz() -> bytes:
    buffer = io.BytesIO()
    arrays = {
        "similarity": np.eye(3),
        "cka": np.eye(3),
        "layers": np.arange(3),
        "frames": np.array(9),
        "model_sha256": np.array("0"),
    }
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _audio(kind: str, subtype: str | None = None) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.sin(np.arange(400)) / 2, 16000, format=kind, subtype=subtype)
    return buffer.getvalue()


def _state_file() -> bytes:
    buffer = io.BytesIO()
    record = {"epoch": 1, "wer": 9.0, "loss": 1.0, "mean_wer": 9.0, "mean_loss": 1.0}
    torch.save({"format": 4, "progress": {"records": [record]}, "model": {"w": torch.ones(2)}}, buffer)
    return buffer.getvalue()


def _units() -> bytes:
    buffer = io.BytesIO()
    words = iter(["go stop", "stop now", "left"])
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=words, model_writer=buffer, model_type="char", vocab_size=12, minloglevel=2, hard_vocab_limit=False
    )
    return buffer.getvalue()


def _tokens(path: Path) -> object:
    units = Tokenizer(path)
    return units.decode([label for label in units.encode("go stop <unk>") if label < len(units)])


def _state(path: Path) -> object:
    path.rename(path.parent / "last.pt")
    return load_state(path.parent)


def _json(*documents: object) -> tuple[bytes, ...]:
    return tuple(json.dumps(document).encode() for document in documents)


AUDIO = {
    "wav": (_audio("WAV"), _audio("WAV", "FLOAT")),
    **{kind.lower(): (_audio(kind),) for kind in ("AIFF", "AU", "W64", "VOC", "NIST", "RF64", "CAF", "FLAC", "OGG")},
}
PACKED = b"AUDIO\x08" + struct.pack("<Q", len(AUDIO["wav"][0])) + AUDIO["wav"][0]
PARSERS = {
    "table": Parser(read_table, (DIRECTORY["text"].encode(), "é1 ünï\n".encode())),
    "streamed table": Parser(lambda path: list(stream_table(path)), (DIRECTORY["text"].encode(),)),
    **{f"directory, {name}": _in_directory(name, read_data_dir) for name in DIRECTORY},
    **{f"fixing, {name}": _in_directory(name, fix_data_dir) for name in DIRECTORY},
    "scoring": Parser(_scored, (DIRECTORY["text"].encode(), b"a x\nb y z\n")),
    "arpa": Parser(ArpaModel, (ARPA,)),
    "config": Parser(read_config, (b"seed: 3\nmodel: {num_layers: 4, taps: [1, 2]}\n", b"train: {schedule: cosine}\n")),
    "grid": Parser(read_grid, (GRID,)),
    "plan": Parser(lambda path: read_plan(path, 2, "0"), _json(PLAN)),
    "model record": Parser(ModelRecord.read, _json(MODEL)),
    "log": Parser(read_journal, (b"\n".join(_json({"kind": "step", "step": 3, "epoch": 1, "lr": 0.1}, EPOCH)),)),
    "layers": Parser(_layers, (b"1,2,5-7", b"3")),
    "ark": Parser(lambda path: read_matrix(f"{path}:0"), (_ark(),)),
    "cmvn": Parser(read_statistics, (_ark(),)),
    "similarities": Parser(read_matrices, (_npz(),)),
    **{
        f"audio, {kind}": Parser(lambda path: (check_audio(str(path)), read_audio(str(path), 16000)), seeds)
        for kind, seeds in AUDIO.items()
    },
    "recording in an archive": Parser(lambda path: read_audio(f"{path}:0", 16000), (AUDIO["wav"][0], PACKED)),
    "text units": Parser(_tokens, (_units(),)),
    "training state": Parser(_state, (_state_file(),)),
    "export record": Parser(
        lambda path: Exported.of_metadata(path, {"asrprune": path.read_bytes().decode("utf-8", "replace")}).plan(),
        _json(EXPORTED),
    ),
}
PIECES = (
    b"\0",
    b"\n",
    b" ",
    b"\t",
    b"-1",
    b"0",
    b"1e999",
    b"nan",
    b"9" * 30,
    b"\xff",
    "\u2028".encode(),
    b"[",
    b"{",
    b'"',
    b"null",
    b"#",
    b"\\",
)


def mutated(content: bytes, draw: random.Random) -> bytes:
    """Change a few places of a file."""
    for _ in range(draw.randint(1, 4)):
        place, length = draw.randrange(len(content) + 1), draw.choice((1, 1, 2, 8))
        piece = draw.choice((*PIECES, b"", draw.randbytes(length), content[place : place + length] * 2))
        content = content[:place] + piece + content[place + draw.choice((0, length)) :]
    return content
