"""The commands: which there are, what they say, and the paths through them that the recipes do not take."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from commands import asrprune, refused
from records import changed

from asrprune.data.tables import open_table, read_table, write_table
from asrprune.decode.sweep import Decoded
from asrprune.experiment.plan import read_plan
from asrprune.experiment.store import ModelRecord, read_experiment_config, save_model
from asrprune.experiment.weights import load_weights
from asrprune.runtime.files import sha256_of

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = (
    *("doctor", "check-data", "fix-data", "perturb", "fbank", "bpe", "lm", "train", "average"),
    *("svcca", "search", "prune", "decode", "tune-lm", "score", "bench", "report", "compare", "transcribe", "stage", "number"),
    *("early-exit", "export", "set-depth"),
)
HEAVY = ("torch", "torchaudio", "numpy", "matplotlib", "lightning_fabric", "sentencepiece", "yaml")
# Runs the help of every command in one fresh interpreter; prints what was imported and the CPU seconds of the first.
HELP = f"""
import sys, time
started = time.process_time()
from asrprune.cli import main
def say(*arguments):
    sys.argv = ["asrprune", *arguments]
    try:
        main()
    except SystemExit as end:
        assert not end.code, (arguments, end.code)
say("--help")
seconds = time.process_time() - started
for command in {COMMANDS}:
    print("----")
    say(command, "--help")
print("====", seconds, [name for name in {HEAVY} if name in sys.modules])
"""


@pytest.fixture
def exp(tiny_experiment: Path, tmp_path: Path) -> Path:
    """A copy that may be changed, whose model prefers words to the blank: it would say nothing about noise."""
    exp = Path(shutil.copytree(tiny_experiment, tmp_path / "exp"))
    weights = load_weights(exp / "model.safetensors")
    weights["head.project.bias"][0] -= 3.0
    save_model(exp, read_experiment_config(exp), weights, ())
    return exp


@pytest.fixture(scope="module")
def helps() -> list[str]:
    """The help of asrprune, then of each command, then the facts."""
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=True)
    return re.split(r"^-{4}\n|^={4} ", done.stdout, flags=re.MULTILINE)


def test_the_commands_are_those_that_recipes_rely_on(helps: list[str]) -> None:
    listed = re.findall(r"^  ([a-z-]+)  +\S", helps[0].split("Commands:")[1], re.MULTILINE)
    assert sorted(listed) == sorted(COMMANDS)
    assert "..." not in helps[0].split("Commands:")[1], "a summary is cut short"


def test_every_option_of_every_command_is_explained(helps: list[str]) -> None:
    for text in helps[:-1]:
        options = re.findall(r"^  (--?[a-z].*)$", text, re.MULTILINE)
        assert options, text
        for option in options:
            assert re.search(r"\S  +\S", option), f"{option!r} has no explanation in {text}"


def test_help_is_instant(helps: list[str]) -> None:
    seconds, imported = helps[-1].split(maxsplit=1)
    assert float(seconds) < 1.0
    assert imported.strip() == "[]"


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["number", "seed", "--help"]])
def test_help_on_a_full_disk_is_one_sentence(arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "asrprune.cli", *arguments]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert re.fullmatch(r"asrprune( number)?: error: no space left on device; free some disk space.*\n", done.stderr)


@pytest.mark.parametrize(("handler", "status"), [("default_int_handler", -signal.SIGINT), ("SIG_IGN", 0)])
def test_ctrl_c_while_modules_are_imported_prints_nothing(handler: str, status: int) -> None:
    code = f"""
import builtins, signal, sys

def find(name, *rest):
    if name == "typer":
        signal.raise_signal(signal.SIGINT)
    return original(name, *rest)

signal.signal(signal.SIGINT, signal.{handler})
original, builtins.__import__ = builtins.__import__, find
sys.argv = ["asrprune", "--help"]
from asrprune.cli import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (status, "")


def test_module_and_script_are_the_same() -> None:
    done = subprocess.run([sys.executable, "-m", "asrprune.cli", "--help"], capture_output=True, text=True, check=True)
    assert "transcribe" in done.stdout


def test_transcribe_says_words_times_and_layers(exp: Path, tiny_data: Path) -> None:
    files = [Path(entry) for entry in list(read_table(tiny_data / "dev/wav.scp").values())[:2]]
    plain = asrprune("transcribe", *files, "--exp", exp, "--depth", 2)
    assert plain.code == 0, plain.err
    told = asrprune("transcribe", *files, "--exp", exp, "--depth", 2, "--words")
    records = [json.loads(line) for line in told.out.splitlines()]
    assert [record["file"] for record in records] == list(map(str, files))
    assert plain.out.splitlines() == [f"{record['file']} {record['text']}".rstrip() for record in records]
    assert any(record["words"] for record in records)
    for record in records:
        assert record["layers"] == [1, 2]
        assert record["text"] == " ".join(word["text"] for word in record["words"])
        for word in record["words"]:
            assert 0 <= word["start_s"] < word["end_s"]
            assert 0 < word["confidence"] <= 1


def test_transcribe_goes_on_after_a_bad_file_and_names_it_at_the_end(exp: Path, tiny_data: Path, tmp_path: Path) -> None:
    good = [Path(entry) for entry in list(read_table(tiny_data / "dev/wav.scp").values())[:2]]
    bad = [tmp_path / "page.wav", tmp_path / "none.wav"]
    bad[0].write_text("<html>" * 100)
    done = asrprune("transcribe", good[0], *bad, good[1], "--exp", exp)
    assert done.code == 1
    assert done.out == asrprune("transcribe", *good, "--exp", exp).out
    assert [line.partition(": ")[0] for line in done.err.splitlines()] == ["asrprune transcribe", *map(str, bad)]
    done = asrprune("transcribe", *good, "--exp", exp, "--depth", 99)
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1), "a mistake that is not a file's is said once"


def test_transcribe_reads_standard_input_and_names_that_are_not_utf8(
    exp: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Path(next(iter(read_table(tiny_data / "dev/wav.scp").values())))
    expected = asrprune("transcribe", file, "--exp", exp).out.removeprefix(str(file))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(file.read_bytes())))
    assert asrprune("transcribe", "-", "--exp", exp).out == f"-{expected}"
    name = os.path.join(os.fsencode(tmp_path), b"caf\xe9.wav")
    shutil.copy(file, name)
    assert asrprune("transcribe", os.fsdecode(name), "--exp", exp).out == f"{tmp_path}/caf\\udce9.wav{expected}"


@pytest.mark.parametrize("form", ["text", "json", "ctm", "tsv", "srt"])
def test_a_name_that_is_not_utf8_is_written_as_on_the_screen(form: str, exp: Path, tiny_data: Path, tmp_path: Path) -> None:
    wav, folder = next(iter(read_table(tiny_data / "dev/wav.scp").values())), os.fsencode(tmp_path)
    name = os.fsdecode(shutil.copy(os.fsencode(wav), os.path.join(folder, b"caf\xe9\xc2\x9b\x7f.wav")))
    done = asrprune("transcribe", name, wav, "--exp", exp, "--format", form, "--output-dir", tmp_path / "out")
    assert done.code == 0, done.err
    assert len(done.out.splitlines()) == 2
    (written,) = (tmp_path / "out").glob("caf*")
    if form == "json":
        assert json.loads(written.read_text())["file"] == name
        assert json.loads(asrprune("transcribe", name, "--exp", exp, "--format", form).out)["file"] == name


def test_an_experiment_in_a_directory_that_is_not_utf8(exp: Path, tiny_data: Path, tmp_path: Path) -> None:
    """What cannot be done there says why."""
    wav, odd = (
        next(iter(read_table(tiny_data / "dev/wav.scp").values())),
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")),
    )
    shutil.copytree(exp, odd / "exp")
    data = shutil.copytree(tiny_data / "dev", odd / "dev")
    refused(asrprune("transcribe", wav, "--exp", odd / "exp"), "transcribe", "caf\\udce9", "is not valid UTF-8")
    (odd / "model.onnx").touch()
    refused(asrprune("transcribe", wav, "--model", odd / "model.onnx"), "transcribe", "whose path is not UTF-8; rename it")
    done = asrprune("fbank", data, "--config", odd / "exp/config.yaml")
    refused(done, "fbank", f"{tmp_path}/caf\\udce9/dev/fbank/", "is not UTF-8, and other names cannot be written into files")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_standard_streams_may_be_closed(closed: str, tiny_data: Path) -> None:
    command = f"{sys.executable} -m asrprune.cli check-data --no-audio {tiny_data}/dev {closed}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0, done
    assert ("no faults" in done.stdout) == (not re.search(r"(?<!2)>&-", closed))
    assert "Error" not in done.stderr + done.stdout


def test_transcribe_writes_a_file_for_each_recording(exp: Path, tiny_data: Path, tmp_path: Path) -> None:
    """A folder of any rates and channels; a broken file is told at the end."""
    wav = Path(next(iter(read_table(tiny_data / "dev/wav.scp").values())))
    (tmp_path / "in/more").mkdir(parents=True)
    shutil.copy(wav, tmp_path / "in/a.wav")
    samples, rate = soundfile.read(wav)
    soundfile.write(tmp_path / "in/more/b.flac", np.stack([samples, samples], axis=1), rate)
    soundfile.write(tmp_path / "in/quiet.wav", np.zeros(44100), 44100)
    (tmp_path / "in/broken.mp3").write_text("no audio")
    text = asrprune("transcribe", wav, "--exp", exp).out.removeprefix(f"{wav} ")
    assert text.strip()
    out = tmp_path / "out"
    done = asrprune("transcribe", tmp_path / "in", "--exp", exp, "--output-dir", out)
    assert (done.code, done.out.splitlines()) == (1, [str(out / name) for name in ("a.txt", "more/b.txt", "quiet.txt")])
    assert f"error: {tmp_path}/in/broken.mp3: is not audio" in done.err
    assert [(out / name).read_text() for name in ("a.txt", "more/b.txt", "quiet.txt")] == [text, text, ""]
    asrprune("transcribe", tmp_path / "in", "--exp", exp, "--output-dir", out, "--format", "vtt")
    assert (out / "quiet.vtt").read_text() == "WEBVTT\n\n"
    assert (out / "a.vtt").read_text().startswith("WEBVTT\n\n00:00:0")
    both = [tmp_path / "in/a.wav", tmp_path / "in/more/b.flac"]
    table = asrprune("transcribe", *both, "--exp", exp, "--format", "tsv").out.splitlines()
    assert table[0] == "file\tstart_s\tend_s\tconfidence\tword"
    assert len(table) == 1 + 2 * len(text.split())
    assert asrprune("transcribe", both[1], "--exp", exp, "--format", "ctm").out.startswith("b 1 0.")


def test_transcribe_refuses_what_does_not_fit_together(exp: Path, tiny_data: Path, tmp_path: Path) -> None:
    files = list(read_table(tiny_data / "dev/wav.scp").values())[:2]
    for options, sentence in (
        ([], "give either --exp DIR, an experiment, or --model FILE.onnx, an exported model"),
        (["--exp", exp, "--model", "x.onnx"], "give either --exp DIR"),
        (["--model", exp], "the name of an exported model ends in .onnx; an experiment is given with --exp"),
        (["--model", tmp_path / "x.onnx"], "x.onnx: no such file; `asrprune export` makes it"),
        (["--exp", exp, "--format", "srt"], "subtitles of 2 recordings need a file each; add --output-dir DIR"),
        (["--exp", exp, "--words", "--format", "srt"], "--words means --format json"),
        (["--exp", exp, "--low-memory"], "--low-memory is a mode of exported models; give one with --model"),
    ):
        done = asrprune("transcribe", *files, *options)
        assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
        assert sentence in done.err


def test_transcribe_with_layers_is_transcribe_at_their_depth(exp: Path, tiny_data: Path) -> None:
    file = next(iter(read_table(tiny_data / "dev/wav.scp").values()))
    assert asrprune("search", "--exp", exp, "--dev", tiny_data / "dev", "--strategy", "every").code == 0
    keep = read_plan(exp / "plans/every.json", 4, json.loads((exp / "model.json").read_text())["model_sha256"]).keep(2)
    chosen = ",".join(map(str, keep))
    by_layers = asrprune("transcribe", file, "--exp", exp, "--layers", chosen, "--words")
    by_depth = asrprune("transcribe", file, "--exp", exp, "--depth", 2, "--plan", "every", "--words")
    assert json.loads(by_layers.out)["layers"] == list(keep)
    assert by_layers == by_depth


def test_results_on_the_directory_one_is_in_have_its_name(exp: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny_data / "train")
    assert asrprune("svcca", "--exp", exp, "--data", ".").out.split() == [f"{exp}/svcca/train.npz", f"{exp}/svcca/train.png"]
    done = asrprune("search", "--exp", exp, "--dev", ".", "--strategy", "svcca")
    assert json.loads((exp / "plans/svcca.json").read_text())["dev_set"] == "train", done.err


def test_search_takes_the_strategies_it_is_told(exp: Path, tiny_data: Path) -> None:
    done = asrprune("search", "--exp", exp, "--dev", tiny_data / "dev", "--strategy", "lowest", "--strategy", "iterative")
    assert done.code == 0, done.err
    assert sorted(path.name for path in (exp / "plans").glob("*.json")) == ["iterative.json", "lowest.json"]
    assert "lowest: depth 2: 1,2\n" in done.out
    assert re.search(r"^iterative: depth 3: [\d,]+, dev wer \d+\.\d\d$", done.out, re.MULTILINE)


def test_search_takes_a_metric_and_a_beam(exp: Path, tiny_data: Path) -> None:
    command = ["search", "--exp", exp, "--dev", tiny_data / "dev", "--strategy", "iterative"]
    done = asrprune(*command, "--metric", "ctc", "--beam", "2")
    assert done.code == 0, done.err
    plan = json.loads((exp / "plans/iterative.json").read_text())
    assert (plan["metric"], plan["beam"]) == ("ctc", 2)
    assert "dev ctc" in done.out
    failed = asrprune(*command, "--objective", "bleu")  # an earlier name
    assert (failed.code, failed.out) == (1, "")
    assert "asrprune search: error: prune: metric: input should be 'wer' or 'ctc', got 'bleu'" in failed.err


def test_search_refuses_a_decoder_that_nothing_uses(exp: Path, tiny_data: Path) -> None:
    failed = asrprune("search", "--exp", exp, "--dev", tiny_data / "dev", "--strategy", "every", "--decoder", "beam")
    assert failed.code == 1
    assert "--decoder, --lm and --context have no effect without the strategy iterative, or svcca with a rerank" in failed.err


def test_decode_and_score_of_chosen_layers(exp: Path, tiny_data: Path) -> None:
    done = asrprune("decode", "--exp", exp, tiny_data / "dev", "--layers", "1,3-4")
    assert done.code == 0, done.err
    output = Path(done.out.strip())
    assert output == exp / "decode/dev/layers_1_3-4_d3"
    assert json.loads((output / "decode.json").read_text())["keep"] == [1, 3, 4]
    assert [key for key, _ in open_table(output / "text", allow_empty=True)] == list(read_table(tiny_data / "dev/text"))
    scored = asrprune("score", "--exp", exp, tiny_data / "dev")
    wer = json.loads((output / "score.json").read_text())["wer"]
    assert f"{output}: WER {wer:.2f} % (" in scored.out
    noisy = Path(shutil.copytree(tiny_data / "dev", exp.parent / "noisy/dev"))  # the same ids and transcripts
    (noisy / "utt2num_frames").write_text((noisy / "utt2num_frames").read_text().replace("1", "2"))
    other = asrprune("score", "--exp", exp, noisy)
    assert other.code == 1
    assert f"decode/dev: has results of {tiny_data / 'dev'}, and {noisy} has the same name" in other.err


def test_scores_begin_with_the_deepest_sub_model(exp: Path, tiny_data: Path) -> None:
    asrprune("search", "--exp", exp, "--dev", tiny_data / "dev", "--strategy", "lowest")
    decoded = asrprune("decode", "--exp", exp, tiny_data / "dev", "--strategy", "lowest").out.split()
    assert decoded[0].endswith("_d4")
    scored = asrprune("score", "--exp", exp, tiny_data / "dev").out.splitlines()
    assert [line.partition(":")[0] for line in scored if "lowest" in line] == decoded


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("another text", "text: does not have the SHA-256 of decode.json, so it was changed after the decoding; run stage 8"),
        ("another model", "text: was decoded with another model than that of model.json; run stage 8"),
        ("no record", "decode.json: not valid JSON"),
    ],
)
def test_what_the_model_did_not_say_is_not_scored(damage: str, says: str, exp: Path, tiny_data: Path) -> None:
    asrprune("decode", "--exp", exp, tiny_data / "dev", "--layers", "1,2")
    output = exp / "decode/dev/layers_1_2_d2"
    if damage == "another text":
        shutil.copy(tiny_data / "dev/text", output / "text")
    elif damage == "another model":
        changed(Decoded.read(output / "decode.json"), model_sha256="ab" * 32).write(output / "decode.json")
    else:
        (output / "decode.json").write_text("{")
    refused(asrprune("score", "--exp", exp, tiny_data / "dev"), "score", f"{output}/{says}")
    assert not (output / "score.json").exists()


def test_decode_takes_the_depths_it_is_told(exp: Path, tiny_data: Path) -> None:
    asrprune("search", "--exp", exp, "--dev", tiny_data / "dev", "--strategy", "lowest")
    asrprune("decode", "--exp", exp, tiny_data / "dev", "--strategy", "lowest", "--depth", 1, "--depth", 3)
    assert sorted(path.name for path in (exp / "decode/dev").glob("[!.]*")) == ["lowest_d1", "lowest_d3"]


def test_prune_with_layers_makes_an_experiment(exp: Path, tiny_data: Path, tmp_path: Path) -> None:
    done = asrprune("prune", "--exp", exp, "--layers", "2,4", tmp_path / "small")
    assert done.out == f"{tmp_path / 'small'}: layers 2,4 of {exp}\n"
    assert yaml.safe_load((tmp_path / "small/config.yaml").read_text())["model"]["num_layers"] == 2
    file = next(iter(read_table(tiny_data / "dev/wav.scp").values()))
    small = json.loads(asrprune("transcribe", file, "--exp", tmp_path / "small", "--words").out)
    full = json.loads(asrprune("transcribe", file, "--exp", exp, "--layers", "2,4", "--words").out)
    assert small["layers"] == [1, 2]
    assert small["words"] == full["words"] != []


def test_words_that_look_the_same_are_told(exp: Path, dev: Path) -> None:
    text = (dev / "text").read_text()
    (dev / "text").write_text(text.replace(" two", " caf\u00e9", 1).replace(" two", " cafe\u0301"))
    done = asrprune("check-data", "--no-audio", dev)
    assert done.code == 0
    assert f"{dev}: words that look the same, but are written with different characters (1): caf\u00e9; they count" in done.err


def test_check_data_then_fix_data(tiny_data: Path, tmp_path: Path) -> None:
    good = Path(shutil.copytree(tiny_data / "dev", tmp_path / "dev"))
    assert asrprune("check-data", good, tiny_data / "train").out.startswith(f"{good}, {tiny_data / 'train'}: no faults\n")
    lines = (good / "text").read_text().splitlines(keepends=True)
    (good / "text").write_text("".join(reversed(lines)))
    assert asrprune("check-data", good).code == 1
    fixed = asrprune("fix-data", good)
    assert fixed.out == "text: rewritten; the original file is in .backup\n"
    assert (good / "text").read_text() == "".join(lines)
    assert asrprune("check-data", "--no-audio", good).code == 0
    assert asrprune("fix-data", good).out == f"{good}: nothing to correct\n"


def test_several_numbers_are_set_over_the_config(tiny_data: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("tokenizer: {type: bpe, vocab_size: 500}\n")
    sets = ["--set", "tokenizer.type=word", "--set", "tokenizer.vocab_size=null"]
    done = asrprune("bpe", tiny_data / "train", tmp_path / "lang", "--config", config, *sets)
    assert done.out == f"{tmp_path / 'lang'}: 7 text units, including the blank\n"  # <blk>, <unk> and five words


def test_perturb_copies_at_every_speed(tiny_data: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("augment: {speeds: [0.9, 1.0]}\n")
    done = asrprune("perturb", tiny_data / "dev", tmp_path / "dev_sp", "--config", config)
    assert done.out == f"{tmp_path / 'dev_sp'}: 12 utterances\n"
    assert set(read_table(tmp_path / "dev_sp/utt2speed").values()) == {"0.9", "1"}


def test_the_doctor_lists_what_is_installed() -> None:
    done = asrprune("doctor")
    assert done.code == 0, done.out
    assert re.search(r"^ok +torch +2\.", done.out, re.MULTILINE)


def test_the_log_has_the_command_and_all_that_it_said(tiny_data: Path, tmp_path: Path) -> None:
    log = tmp_path / "logs/check.log"
    first = asrprune("--log", log, "check-data", tiny_data / "dev")
    assert first.code == 0
    second = asrprune("--log", log, "check-data", tmp_path / "none")
    text = log.read_text()
    assert f"$ asrprune --log {log} check-data {tiny_data / 'dev'}\n" in text
    assert all(line in text for line in first.out.splitlines())
    assert second.err.strip().removeprefix("asrprune check-data: error: ") in text
    assert first.err == ""


def test_quiet_leaves_warnings_and_errors(exp: Path, tiny_data: Path) -> None:
    command = ["search", "--exp", exp, "--dev", tiny_data / "dev", "--strategy", "iterative"]
    assert "INFO" in asrprune(*command).err
    assert asrprune("--quiet", *command).err == ""


def test_of_phones_the_commands_say_per(exp: Path, tiny_data: Path) -> None:
    """Old experiments do not say what they count, and count words."""
    config = (exp / "config.yaml").read_text()
    for section, rate in (("", "WER"), ("scoring:\n  unit: phone\n", "PER")):
        (exp / "config.yaml").write_text(config.replace("scoring:\n  unit: word\n  ignore_case: false\n", section))
        assert re.search(rf"^epoch 1: dev {rate} \d", asrprune("average", "--exp", exp).out, re.MULTILINE)
        found = asrprune("search", "--exp", exp, "--dev", tiny_data / "dev", "--strategy", "iterative")
        assert re.search(rf"^iterative: depth 3: [\d,]+, dev {rate.lower()} \d", found.out, re.MULTILINE)
        asrprune("decode", "--exp", exp, tiny_data / "dev", "--layers", "1,2")
        assert f"layers_1_2_d2: {rate} " in asrprune("score", "--exp", exp, tiny_data / "dev").out


def test_the_licence_of_the_training_data_stays_with_the_model(exp: Path, tmp_path: Path) -> None:
    asrprune("average", "--exp", exp, "--licence", "CC BY 4.0")
    asrprune("prune", "--exp", exp, "--layers", "1,2", tmp_path / "two")
    assert ModelRecord.read(tmp_path / "two/model.json").data_licence == "CC BY 4.0"


def test_check_data_says_the_sizes_and_what_sets_share(tiny_data: Path, tmp_path: Path) -> None:
    """tiny_data's train and dev share speakers; the other set shares recordings, too, and has a word of its own."""
    train, dev, test = tiny_data / "train", tiny_data / "dev", tmp_path / "test"
    done = asrprune("check-data", train, dev)
    frames = sum(map(int, read_table(train / "utt2num_frames").values()))
    words = sum(len(text.split()) for text in read_table(train / "text").values())
    sizes = (
        f"{train}: 24 utterances, 3 speakers, {frames / 360000:.2f} hours, {words} words, 5 of them different, 11 characters"
    )
    assert sizes in done.out.splitlines()
    assert f"{dev}: speakers also in {train} (3): s0, s1, s2; results on it look too good" in done.err
    assert "utterances are also" not in done.err
    shutil.copytree(dev, test)
    (test / "text").write_text((test / "text").read_text().replace("one", "öne", 1))
    done = asrprune("check-data", train, dev, test)
    assert f"{test}: words that {train} lacks (1): öne\n{test}: characters that {train} lacks (1): ö\n" in done.out
    assert f"{test}: utterances also in {dev} (6): s0-dev000, " in done.err
    assert f"{test}: recordings also in {dev} (6): " in done.err


def test_version_and_short_help() -> None:
    assert re.fullmatch(r"asrprune \d+\.\d+\.\d+\S*\n", asrprune("--version").out)
    assert asrprune("-h").out == asrprune("--help").out
    assert "--ignore-case" in asrprune("score", "-h").out


@pytest.mark.parametrize("number", [0, 1001])
def test_the_number_of_processes_has_bounds(number: int) -> None:
    done = asrprune("fbank", "data", "--config", "none.yaml", "--nj", number)
    assert done.code == 2
    assert "'--nj'" in done.err


def test_letter_case_counts_unless_it_is_ignored(exp: Path, dev: Path) -> None:
    asrprune("decode", "--exp", exp, dev, "--layers", "1,2")
    write_table(dev / "text", {key: text.upper() for key, text in read_table(dev / "text").items()})
    (output,) = (exp / "decode/dev").glob("layers*")
    write_table(output / "text", {key: text.lower() for key, text in read_table(dev / "text").items()})
    record = Decoded.read(output / "decode.json")
    changed(record, output_sha256=sha256_of(output / "text")).write(output / "decode.json")
    words = sum(len(text.split()) for text in read_table(dev / "text").values())
    done = asrprune("score", "--exp", exp, dev)
    assert ": WER 100.00 % (" in done.out
    assert f"in {words} errors only the letter case differs; --ignore-case does not count them" in done.err
    done = asrprune("score", "--exp", exp, dev, "--ignore-case")
    assert ": WER 0.00 % (0.00 to 0.00), letter case ignored\n" in done.out
    assert "letter case alone" not in done.err
    assert json.loads((output / "score.json").read_text())["ignore_case"] is True


@pytest.mark.parametrize(("command", "code"), [("check-data", 0), ("transcribe", 141)])
def test_nobody_reads_what_is_said(command: str, code: int, exp: Path, tiny_data: Path) -> None:
    """A command whose results are in files, or that only checks, ends well; one that only says something ends at once."""
    audio = list(read_table(tiny_data / "dev/wav.scp").values())
    words = {"check-data": ["--no-audio", tiny_data / "dev"], "transcribe": [*audio, "--exp", exp]}[command]
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="utf-8") as stdout:
        script = [sys.executable, "-m", "asrprune.cli", command, *map(str, words)]
        done = subprocess.run(script, stdout=stdout, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr.count("rror")) == (code, 0), done.stderr


def test_a_directory_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    refused(asrprune("check-data", tmp_path), "check-data", "the current directory has been deleted; change to another one")
