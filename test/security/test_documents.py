"""Documents of a stranger: JSON, YAML, .npz, checkpoints, weights, text units; and what is made of the names in them."""

import gzip
import io
import json
import logging
import os
import pickle
import re
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from attacks import Canary
from commands import asrprune, refusal, refused
from records import measures

from asrprune.analysis.matrices import read_matrices
from asrprune.cli.screen import say
from asrprune.config.load import read_config, read_yaml
from asrprune.data.fix import fix_data_dir
from asrprune.data.tables import open_table, stream_table
from asrprune.data.tokenizer import Tokenizer
from asrprune.experiment.store import load
from asrprune.experiment.weights import load_weights
from asrprune.lm.arpa import ArpaModel
from asrprune.lm.kneser_ney import read_sentences
from asrprune.runtime.files import parse_json, read_json, write_json
from asrprune.train.checkpoint import load_state
from asrprune.train.journal import read_journal


def sentence(call: Callable[[], object], *parts: str) -> None:
    said = refusal(call)
    assert all(part in said for part in parts), said


# -- JSON and YAML -----------------------------------------------------------------------------------------------------

JSON = {
    "deep list": b"[" * 100_000,
    "deep object": b'{"a":' * 100_000,
    "more than 64 bits": b'{"format": 9223372036854775808}',
    "5,000 digits": b'{"format": ' + b"9" * 5000 + b"}",
    "more than a figure can show": b'{"wer": 1e300}',
    "more than a float can hold": b'{"wer": -1e999}',
    "minus 5,000 digits": b'{"format": -' + b"9" * 5000 + b"}",
    "UTF-16": '{"format": 1}'.encode("utf-16"),
    "not UTF-8": b'{"format": "\xff"}',
    "pickle": pickle.dumps({"format": 1}),
    "half a character": rb'{"format": "\ud83d"}',
    "half a character in a key": rb'{"\uDC00\ud83d": 1}',
    "nothing": b"",
}


@pytest.mark.parametrize("content", JSON)
def test_json(content: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(JSON[content])
    sentence(lambda: read_json(tmp_path / "a.json"), "a.json: not valid JSON")


@pytest.mark.parametrize("content", ["deep list", "5,000 digits", "not UTF-8"])
def test_json_in_an_experiment(content: str, tiny_experiment: Path, tiny_data: Path, copy: Callable[[Path], Path]) -> None:
    exp = copy(tiny_experiment)
    (exp / "model.json").write_bytes(JSON[content])
    refused(asrprune("svcca", "--exp", exp, "--data", tiny_data / "dev"), "svcca", "model.json: not valid JSON")
    (exp / "train.jsonl").write_bytes(JSON[content] + b"\n{}\n")
    sentence(lambda: read_journal(exp / "train.jsonl"), "train.jsonl:1: not a JSON record")


def test_numbers_of_any_usual_length_are_read() -> None:
    assert parse_json("[9223372036854775807, -9223372036854775807, 1e5]") == [2**63 - 1, 1 - 2**63, 1e5]
    assert parse_json(rb'["\ud83d\ude00", "\\ud83d"]'.decode()) == ["\U0001f600", r"\ud83d"]


YAML = {
    "command": '!!python/object/apply:os.system ["rm CANARY"]',
    "command as a value": 'a: !!python/object/new:os.system ["rm CANARY"]',
    "module": "a: !!python/module:subprocess",
    "name": "a: !!python/name:os.system",
    "other tag": "a: !unknown b",
    "deep list": "a: " + "[" * 90_000,
    "deep mapping": "{a: " * 3_000,
    "deep blocks": "a: \n  " + "- " * 3_000,
    "5,000 digits": "a: " + "9" * 5000,
    "laughs": "\n".join(["a0: &a0 [1, 2]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))]),
    "merged laughs": "\n".join(["a0: &a0 {b: 1}", *(f"a{n}: &a{n} {{<<: [{f'*a{n - 1},' * 9}]}}" for n in range(1, 12))]),
    "holds itself": "a: &a [*a]",
    "mapping that holds itself": "a: &a {b: *a}",
    "100,000 values": "a: [" + "1," * 100_000 + "]",
    "no date": "a: !!timestamp x",
    "no number": "a: !!int ''",
    "no switch": "a: !!bool maybe",
    "list as a key": "? [1]\n: 2",
    "list in a tuple as a key": "? !!python/tuple [[1]]\n: 2",
    "date that is none": "a: 2001-99-99",
    "control character": "a: \x1b[2J",
}  # fmt: skip


@pytest.mark.parametrize("content", YAML)
def test_yaml(content: str, tmp_path: Path, canary: Canary) -> None:
    (tmp_path / "a.yaml").write_text(YAML[content].replace("CANARY", str(canary.path)))
    sentence(lambda: read_yaml(tmp_path / "a.yaml"), "a.yaml", "not valid YAML")
    assert canary.is_alive()


@pytest.mark.parametrize("content", ["command", "deep list", "5,000 digits", "no number"])
def test_yaml_of_an_option(content: str, tiny_config_file: Path, canary: Canary) -> None:
    value = YAML[content].removeprefix("a: ").replace("CANARY", str(canary.path))
    sentence(lambda: read_config(tiny_config_file, [f"seed={value}"]), "is not a YAML value")
    assert canary.is_alive()


@pytest.mark.parametrize("number", ["frame_length_ms=1e8", "sample_rate=1000000000", "num_mels=1000000"])
def test_sizes_that_no_machine_has(number: str, tiny_config_file: Path) -> None:
    sentence(lambda: read_config(tiny_config_file, [f"frontend.{number}"]), "less than or equal to")


def test_a_rate_of_few_samples_which_resampling_would_need_gigabytes_for(tiny_config_file: Path) -> None:
    sentence(lambda: read_config(tiny_config_file, ["frontend.sample_rate=7"]), "greater than or equal to 4000")


def test_a_model_that_its_config_makes_larger_than_memory(tiny_experiment: Path, copy: Callable[[Path], Path]) -> None:
    exp, wide = copy(tiny_experiment), 4 * 10**5  # a square of this width has 640 GB
    record = read_json(exp / "model.json")
    write_json(exp / "model.json", {key: value for key, value in record.items() if key != "config"})  # an earlier version's
    config = (exp / "config.yaml").read_text()
    (exp / "config.yaml").write_text(re.sub(r"^  (dim|ffn): \d+", rf"  \1: {wide}", config, flags=re.MULTILINE))
    sentence(lambda: load(exp), "model.safetensors: does not fit", "config.yaml: size mismatch")


@pytest.mark.parametrize("layer", ["os", "../../evil", "transformer.__init__", "asrprune.cli", "ctc_model"])
def test_layers_are_not_modules_of_any_name(layer: str, tiny_config_file: Path) -> None:
    sentence(lambda: read_config(tiny_config_file, [f"model.layer={layer}"]), "input should be one of")


def test_a_pipe_in_the_place_of_documents(tiny_experiment: Path, copy: Callable[[Path], Path], tmp_path: Path) -> None:
    exp = copy(tiny_experiment)
    readers: dict[str, Callable[[Path], object]] = {
        "model.json": read_json, "train.jsonl": read_journal, "dev.npz": read_matrices, "model.safetensors": load_weights,
        "bpe.model": Tokenizer, "last.pt": lambda path: load_state(path.parent), "config.yaml": read_yaml,
    }  # fmt: skip
    for name, read in readers.items():
        (exp / name).unlink(missing_ok=True)
        os.mkfifo(exp / name)
        sentence(lambda read=read, name=name: read(exp / name), name)


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("config.yaml", read_yaml),
        ("model.json", read_json),
        ("train.jsonl", read_journal),
        ("bpe.model", Tokenizer),
        ("text", open_table),
        ("utt2spk", lambda path: list(stream_table(path))),
        ("wav.scp", lambda path: fix_data_dir(path.parent)),
        ("sentences", lambda path: list(read_sentences([path], plain=True))),
    ],
)
def test_holes_are_not_read_into_memory(name: str, read: Callable[[Path], object], tmp_path: Path) -> None:
    """A file without content takes no room on a disk, but 1 TB in memory."""
    with open(tmp_path / name, "wb") as handle:
        handle.truncate(1 << 40)
    sentence(lambda: read(tmp_path / name), name, "MB", "replace it")


@pytest.mark.parametrize("read", [ArpaModel, lambda path: list(read_sentences([path], plain=True))])
def test_gzipped_texts_that_are_damaged_or_made_to_fill_the_memory(
    read: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asrprune.runtime.files._ALWAYS_ALLOWED", 0)
    head = b"\\data\\\nngram 1=99999999\n\n\\1-grams:\n"
    (tmp_path / "lm.gz").write_bytes(gzip.compress(head + b"-1 a\n" * 10**6))
    sentence(lambda: read(tmp_path / "lm.gz"), "lm.gz: unpacks to more than 100 times its size")
    (tmp_path / "lm.gz").write_bytes(gzip.compress(head)[:-9])
    sentence(lambda: read(tmp_path / "lm.gz"), "lm.gz: the gzipped file is truncated or damaged")


# -- arrays, weights, checkpoints, text units ------------------------------------------------------------------------


def npz(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def npy_claims(description: str) -> bytes:
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(description)) + description.encode() + bytes(64)


FORM = "{'descr': '<f8', 'fortran_order': False, 'shape': (%s)}"
SHA = npy(np.array("0" * 64))
NPZ: dict[str, Callable[[Canary], bytes]] = {
    "objects": lambda canary: npz(model_sha256=SHA, similarity=npy(np.array([canary], dtype=object))),
    "objects alone": lambda canary: npy(np.array([canary], dtype=object)),
    "pickle": pickle.dumps,
    "one array": lambda _: npy(np.eye(3)),
    "zeros": lambda _: npz(model_sha256=SHA, similarity=npy(np.zeros((600, 600)))),
    "a formula of numbers": lambda _: npz(cka=npy_claims(FORM % "10**12,")),
    "2^40 numbers": lambda _: npz(cka=npy_claims(FORM % "1099511627776,")),
    "2^31 numbers": lambda _: npz(cka=npy_claims(FORM % "2147483648,")),
    "negative numbers": lambda _: npz(cka=npy_claims(FORM % "-3,")),
    "header that is code": lambda canary: npz(cka=npy_claims(f"__import__('os').system('rm {canary.path}')")),
    "deep header": lambda _: npz(cka=npy_claims("(" * 5000)),
    "no hash": lambda _: npz(similarity=npy(np.eye(3))),
    "letters": lambda _: npz(model_sha256=SHA, similarity=npy(np.array([["a"]]))),
    "hashes": lambda _: npz(model_sha256=npy(np.array(["a", "b"]))),
    "half": lambda _: npz(model_sha256=SHA)[:50],
}  # fmt: skip


@pytest.mark.parametrize("content", NPZ)
def test_npz(content: str, tmp_path: Path, canary: Canary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asrprune.analysis.matrices._MOST_BYTES", 1 << 20)
    (tmp_path / "dev.npz").write_bytes(NPZ[content](canary))
    sentence(lambda: read_matrices(tmp_path / "dev.npz"), "dev.npz: not a complete .npz file", "stage 6")
    assert canary.is_alive()


def test_measures_of_another_number_of_layers(tiny_experiment: Path, tiny_data: Path, copy: Callable[[Path], Path]) -> None:
    exp = copy(tiny_experiment)
    (exp / "svcca").mkdir()
    sha = json.loads((exp / "model.json").read_text())["model_sha256"]
    np.savez(exp / "svcca" / "dev.npz", **measures(sha, 9, influence=np.ones(8)))
    for strategy in ("svcca", "influence"):
        done = asrprune("search", "--exp", exp, "--dev", tiny_data / "dev", "--strategy", strategy)
        refused(done, "search", "is not that of 4 layers")


def _saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "make", [_saved, partial(pickle.dumps, protocol=2), lambda canary: _saved({"format": 4, "progress": canary})]
)
def test_checkpoints(make: Callable[[Canary], bytes], tmp_path: Path, canary: Canary) -> None:
    (tmp_path / "exp").mkdir()
    (tmp_path / "exp" / "last.pt").write_bytes(make(canary))
    sentence(lambda: load_state(tmp_path / "exp"), "no readable training state")
    assert canary.is_alive()


@pytest.mark.parametrize("state", [[], "a", {"format": 4}, torch.zeros(3)])
def test_checkpoints_of_another_shape(state: object, tmp_path: Path) -> None:
    (tmp_path / "last.pt").write_bytes(_saved(state))
    sentence(lambda: load_state(tmp_path), "no readable training state")


def deflated(content: bytes) -> bytes:
    """A zip file with the same entries, which are compressed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as before, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as after:
        for name in before.namelist():
            after.writestr(name, before.read(name))
    return buffer.getvalue()


def overlapping(content: bytes) -> bytes:
    """A zip file whose index names one stored entry a thousand times."""
    buffer = io.BytesIO(content)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("zeros", bytes(10_000))
        archive.filelist += archive.filelist[-1:] * 1000
    return buffer.getvalue()


@pytest.mark.parametrize("make", [deflated, overlapping])
def test_checkpoints_that_unpack_to_more_than_they_are(
    make: Callable[[bytes], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(zipfile.ZipFile, "testzip", lambda _: pytest.fail("it is unpacked"))
    (tmp_path / "last.pt").write_bytes(make(_saved({"format": 4, "model": {"w": torch.zeros(9999)}})))
    sentence(lambda: load_state(tmp_path), "no readable training state")
    assert "its parts are compressed or overlap" in caplog.text


def _safetensors(header: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + bytes(16)


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps({}),
        struct.pack("<Q", 1 << 60) + b"{}",
        _safetensors(b"[" * 90_000),
        _safetensors(b'{"w": {"dtype": "F32", "shape": [4294967296, 4294967296], "data_offsets": [0, 16]}}'),
        _safetensors(b'{"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 1600]}}'),
        _safetensors(b'{"w": {"dtype": "F32", "shape": [4], "data_offsets": [-16, 0]}}'),
        _safetensors(b'{"w": {"dtype": "O", "shape": [4], "data_offsets": [0, 16]}}'),
    ],
)
def test_weights(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(content)
    sentence(lambda: load_weights(tmp_path / "w.safetensors"), "not a readable safetensors file")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda whole: whole[: len(whole) // 2],
        lambda whole: b"PKL" + whole,
        lambda whole: b"\xff" * 99,
        lambda whole: whole.replace(b"three", b"thr\xffe"),
    ],
)
def test_text_units(spoil: Callable[[bytes], bytes], tiny_data: Path, tmp_path: Path) -> None:
    (tmp_path / "bpe.model").write_bytes(spoil((tiny_data / "lang" / "bpe.model").read_bytes()))
    sentence(lambda: Tokenizer(tmp_path / "bpe.model"), "bpe.model: not a sentencepiece model")


def test_lines_of_a_language_model_hold_no_more_than_they_say(tmp_path: Path) -> None:
    """300 kB unpack to 16 million fields; only those of an n-gram are split."""
    path = tmp_path / "lm.arpa.gz"
    path.write_bytes(gzip.compress(b"\\data\\\nngram 1=2000\n\n\\1-grams:\n" + (b"a " * 8000 + b"\n") * 2000))
    tracemalloc.start()
    try:
        sentence(lambda: ArpaModel(path), "lm.arpa.gz:5: a number, a word and perhaps a number must stand here")
        assert tracemalloc.get_traced_memory()[1] < 1e8
    finally:
        tracemalloc.stop()


# -- what names are made into ------------------------------------------------------------------------------------------


def test_names_are_neither_html_nor_mathematics(tiny_experiment: Path, tiny_data: Path, copy: Callable[[Path], Path]) -> None:
    exp, name = copy(tiny_experiment), "`<img src=x onerror=alert(1)>$a_{$&|"
    (exp.parent / name).symlink_to(tiny_data / "train")
    assert asrprune("svcca", "--exp", exp, "--data", exp.parent / name).code == 0
    assert asrprune("search", "--exp", exp, "--dev", exp.parent / name, "--strategy", "lowest").code == 0
    for command in (["decode", "--strategy", "lowest"], ["score"]):
        assert asrprune(*command, "--exp", exp, exp.parent / name).code == 0
    done = asrprune("report", "--exp", exp)
    assert done.code == 0, done.err
    for page in ("report.html", "RESULTS.md"):
        assert "onerror=alert(1)" in (exp / page).read_text()
        assert "<img src=x" not in (exp / page).read_text()


ORDERS = "\x1b]0;owned\x07 \x1b[2J \x9b2J \r \x08 \x7f \u202e \udcff"


def test_text_gives_a_terminal_no_orders(capsys: pytest.CaptureFixture[str], tiny_data: Path) -> None:
    say(f"a{ORDERS}b")
    done = asrprune("check-data", tiny_data / f"no{ORDERS}")
    said = capsys.readouterr().out + done.out + done.err
    assert r"a\x1b]0;owned\x07 \x1b[2J \x9b2J \r \x08 \x7f \u202e \udcffb" in said
    assert all(character.isprintable() or character == "\n" for character in said)


def test_tables_and_logs_give_none_either(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.table import Table

    from asrprune.cli.screen import Lines, show

    table = Table(title=ORDERS)
    table.add_column(ORDERS)
    table.add_row(ORDERS)
    show(table)
    record = logging.LogRecord("x", logging.INFO, "x", 1, "%s", (ORDERS,), None)
    said = capsys.readouterr().out + Lines().format(record)
    assert "owned" in said
    assert all(character.isprintable() or character == "\n" for character in said)


def test_latex_is_text() -> None:
    from asrprune.report.table import Table, escaped, latex

    assert escaped(r"\input{x}$^~%&_#") == r"\textbackslash{}input\{x\}\$\^{}\~{}\%\&\_\#"
    assert r"\label{tab:wer-a-input-b-}" in latex(Table("wer_a}\\input{b}", "", ("a",), ()))
    assert escaped("> * 3* – ✓✗") == r"$>$ $\times$ 3$^*$ -- $\checkmark$$\times$"
