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
import safetensors.torch
import sentencepiece
import soundfile
import torch
import yaml

from asrprune.analysis.matrices import read_matrices
from asrprune.compare.grid import Cell, Grid, read_grid
from asrprune.compare.record import read_records, read_utterances, record_path
from asrprune.compare.summarise import summarise
from asrprune.config.load import read_config, write_config
from asrprune.config.schema import Config
from asrprune.data.fix import fix_data_dir
from asrprune.data.kaldi import read_data_dir
from asrprune.data.tables import read_table, stream_table
from asrprune.data.tokenizer import Tokenizer
from asrprune.decode.choose import Tuned
from asrprune.decode.threshold import EarlyExit
from asrprune.experiment.plan import parse_layers, read_plan
from asrprune.experiment.provenance import TrainedOn
from asrprune.experiment.store import ModelRecord
from asrprune.experiment.weights import load_weights
from asrprune.export.record import Exported
from asrprune.features.ark import read_matrix
from asrprune.features.audio import check_audio, read_audio
from asrprune.features.cmvn import read_statistics
from asrprune.lm.arpa import ArpaModel
from asrprune.recipe import record as mark
from asrprune.report.markdown import markdown
from asrprune.report.results import Row, collect
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
UTTERANCES = b"id\tref_words\tcor\tsub\tdel\tins\na-1\t2\t1\t0\t1\t3\na-2\t1\t0\t1\t0\t0\n"
ROW = {
    "set": "test",
    "strategy": "every",
    "depth": 2,
    "keep": [1, 2],
    "params_m": 0.1,
    "wer": 166.7,
    "wer_ci95": [100, 200],
    "cer": 9,
    "sub": 1,
    "del": 1,
    "ins": 3,
    "ref_words": 3,
    "utterances": 2,
    "rtf": None,
    "speedup": None,
    "decoder": "greedy, float32",
    "model_sha256": "0",
}
DECODED = {
    "format": 1,
    **{name: ROW[name] for name in ("set", "decoder", "model_sha256", "utterances", "strategy", "depth", "keep", "params_m")},
    "hours": 0.1,
    "text_sha256": "0",
}
SCORE = {
    **{name: ROW[name] for name in ("wer", "wer_ci95", "cer", "sub", "del", "ins", "ref_words", "utterances")},
    "cor": 1,
    "sentence_error": 100.0,
}
BENCH = {
    "format": 1,
    "set": "test",
    "utterances": 2,
    "audio_s": 3.0,
    "threads": 1,
    "batch": 1,
    "dtype": "float32",
    "decoder": "greedy",
    "repeats": 1,
    "device": "cpu",
    "features_rtf": 0.1,
    "model_sha256": "0",
    "environment": {"cpu": "x"},
    "rows": [{"depth": 2, "keep": [1, 2], "params_m": 0.1, "rtf": 0.1, "rtf_min": 0.1, "rtf_max": 0.2, "decoder_rtf": 0.1}],
}
EXPERIMENT = {
    "model.json": MODEL,
    "plans/every.json": PLAN,
    "decode/test/every_d2/decode.json": DECODED,
    "decode/test/every_d2/score.json": SCORE,
    "bench.json": BENCH,
}
TUNED = {
    "format": 1,
    "lm_weight": 0.2,
    "word_bonus": 0.0,
    "wer": 9.0,
    "model_sha256": "0",
    "lm_sha256": "0",
    "set": "dev",
    "width": 8,
    "tried": [{"lm_weight": 0.2, "word_bonus": 0.0, "wer": 9.0}],
}
POINT = {"layers": 1.5, "wer": 9.0}
EARLY_EXIT = {
    "format": 1,
    "model_sha256": "0",
    "decoder": "greedy",
    "exits": [1, 2],
    "set": "dev",
    "margin": 0.5,
    "thresholds": [0.9],
    "curves": {"dev": {"by_price": [POINT], "by_exit": [POINT, POINT], "chosen": POINT}},
}
MARK = {"after": "0", "needs": {"a": 1}, "also": {"b": [2]}, "recordings": {"d": "0"}, "result": "0", "made": {"f": "0"}}
CORPUS = {"utterances": 2, "frames": 9, "ids": "0", "lengths": "0", "texts": "0"}
TRAINED_ON = {"format": 1, "train": CORPUS, "dev": CORPUS}
CELL = {
    "format": 1,
    "method": "a",
    "depth": 2,
    "seed": 1,
    "alone": False,
    "config": {},
    "model": MODEL,
    "environment": {},
    "trained_on": TRAINED_ON,
    "data": {"test": {"utterances": 2, "hours": 0.1, "text_sha256": "0"}},
    "similarity": None,
    "training": {"epochs": 1, "steps": 9, "best_dev_wer": 9.0, "best_epoch": 1, "seconds": 3.0, "layer_passes": 18},
    "search": {"iterative": {"metric": "wer", "dev_set": "dev", "steps": [STEP]}},
    "words": {"test": "2 1"},
    "speakers": {"test": "0 1"},
    "rows": [{**ROW, "errors": "4 1"}],
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


def _in_experiment(name: str) -> Parser:
    def report(path: Path) -> object:
        """Put the file into an experiment of two layers, and make the tables of its report."""
        exp = path.parent / "exp"
        write_config(Config.model_validate({"model": {"num_layers": 2, "taps": [1]}}), exp / "config.yaml")
        for other, content in EXPERIMENT.items():
            (exp / other).parent.mkdir(parents=True, exist_ok=True)
            (exp / other).write_bytes(path.read_bytes() if other == name else json.dumps(content).encode())
        return markdown(collect(exp), [])

    return Parser(report, _json(EXPERIMENT[name]))


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
    moments = {"step": torch.tensor(9.0), "exp_avg": torch.ones(2), "exp_avg_sq": torch.ones(2)}
    window = {"losses": torch.ones(1), "reached": torch.ones(1), "utterances": 2, "frames": 9.0, "layers_run": 2}
    state = {
        "format": 4,
        "progress": {"records": [record]},
        "model": {"w": torch.ones(2)},
        "optimizer": {"state": {"w": moments}},
        "window": {**window, "ended_at": {1: 2}, "grad_norm": 0.5, "seconds": 3.0},
    }
    torch.save(state, buffer)
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


def _utterances(path: Path) -> object:
    return read_utterances(path, Row.model_validate(ROW))


def _cell(path: Path) -> object:
    """Read a cell of a grid, which is used if it has the numbers of the grid, and compare it."""
    cell = Cell("a", 2, 1, False, (), Config())
    record_path(path.parent, cell).parent.mkdir()
    path.rename(record_path(path.parent, cell))
    return summarise(Grid.model_validate(yaml.safe_load(GRID)), read_records(path.parent, [cell]))


def _mark(path: Path) -> object:
    """Compare the mark of a stage with other needs; one that is not valid counts as none."""
    done = mark.Record.read(path)
    return done and mark.Needs("0", {"a": 2}, {}).differences(done)


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
    "cell of a grid": Parser(_cell, _json(CELL)),
    "counts of utterances": Parser(_utterances, (UTTERANCES,)),
    "plan": Parser(lambda path: read_plan(path, 2, "0"), _json(PLAN)),
    "model record": Parser(ModelRecord.read, _json(MODEL)),
    "log": Parser(read_journal, (b"\n".join(_json({"kind": "step", "step": 3, "epoch": 1, "lr": 0.1}, EPOCH)),)),
    **{f"report, {name}": _in_experiment(name) for name in EXPERIMENT},
    "mark of a stage": Parser(_mark, _json(MARK)),
    "data record": Parser(TrainedOn.read, _json(TRAINED_ON)),
    "weights of a language model": Parser(Tuned.read, _json(TUNED)),
    "early exit": Parser(EarlyExit.read, _json(EARLY_EXIT)),
    "weights": Parser(load_weights, (safetensors.torch.save({"w": torch.ones(2, 3), "b": torch.zeros(1)}),)),
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
