"""The shared driver: what runs, what is skipped, what is said; `asrprune` is a stub that notes its calls and makes files."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import wait_for

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
STAGES = ["perturb", "fbank", "bpe", "train", "average", "svcca", "search", "decode", "score", "bench", "report"]  # 2 has two
# `asrprune stage` and `asrprune number` are the real ones. Of others $1 $2 are --log FILE.
# Data directories are any arguments that hold a text; the experiment follows --exp.
STUB = r"""#!/usr/bin/env bash
case $1 in stage | number) exec python -m asrprune.cli "$@" ;; esac
log=$2; shift 2
command=$1 line=$*
calls=$([ $command = doctor ] && echo doctors || echo calls)
echo "$*" >> "$STUB/$calls"
echo "log of $command" >> "$log"
trap 'echo "$command interrupted" >> "$STUB/calls"; exit 130' INT TERM
if [ -e "$STUB/fail_$command" ]; then echo "Traceback of $command" >> "$log"; exit "$(cat "$STUB/fail_$command")"; fi
if [ -e "$STUB/hang_$command" ]; then touch "$STUB/hanging"; for _ in $(seq 600); do sleep 0.1; done; fi
while [ $# -gt 0 ]; do
    case $1 in
        --exp) exp=$2 ;;
        --cmvn) [ $command = train ] || touch "$2" ;;
        *_sp) mkdir -p "$1/fbank"; touch "$1/text" ;;
        */lang) mkdir -p "$1"; touch "$1/bpe.model" "$1/tokens.txt" ;;
        *.txt) line="$line $(cat "$1")" ;;
        *.arpa) [ $command != lm ] || echo "$line" > "$1" ;;
    esac
    if [ -f "$1/text" ]; then
        [ $command != fbank ] || { mkdir -p "$1/fbank"; touch "$1"/{feats.scp,utt2dur,utt2crc,fbank/feats_0.ark}; }
        folder=$exp/decode/${1##*/}/iterative_d4
        [ $command != decode ] || { mkdir -p "$folder"; touch "$folder/text" "$folder/decode.json"; }
        [ $command != score ] || touch "$folder"/{score.json,result.txt}
    fi
    shift
done
case $command in
    train) touch "$exp"/{config.yaml,bpe.model,tokens.txt,cmvn,dropped.tsv} ;;
    average) touch "$exp"/model.{safetensors,json} ;;
    svcca) mkdir -p "$exp/svcca"; touch "$exp"/svcca/dev{,_sp}.{npz,png} ;;
    tune-lm) touch "$exp/decoder.json" ;;
    search) mkdir -p "$exp/plans"; touch "$exp/plans/iterative.json" ;;
    bench) touch "$exp/bench.json" ;;
    report) mkdir -p "$exp/figures"; touch "$exp"/{report.html,results.json,RESULTS.md,figures/training.png} ;;
esac
"""
DATA_SH = r"""
echo "local/data.sh $*" >> "$STUB/calls"
for name in train dev test test2; do
    mkdir -p "$2/$name"
    for file in text utt2spk; do echo "$name $4" > "$2/$name/$file"; done
    echo "$name $2/audio" > "$2/$name/wav.scp"
done
[ -e "$2/audio" ] || touch "$2/audio"
"""


class Recipe:
    """A recipe of its own in a folder whose name has a space, over a copy of the driver."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "egs/toy"
        self.environment = {**os.environ, "PATH": f"{root / 'bin'}:{os.environ['PATH']}", "STUB": str(root)}
        if not root.exists():
            self._make()

    def _make(self) -> None:
        root = self.root
        shutil.copytree(ROOT / "egs/common", root / "egs/common", ignore=shutil.ignore_patterns("__pycache__"))
        _script(self.folder / "run.sh", f"{_shebang_and_cd()}exec ../common/run.sh --test_sets 'test test2' \"$@\"")
        _script(self.folder / "local/data.sh", DATA_SH)
        self.config("train: {epochs: 2}")
        _script(root / "bin/asrprune", STUB)
        _script(root / "bin/python", f'exec "{sys.executable}" "$@"')

    def config(self, text: str, name: str = "train") -> None:
        path = self.folder / f"conf/{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text + "\n")

    def start(self, *options: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(self.folder / "run.sh"), *options],
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background jobs of a shell ignore it
        )

    def run(self, *options: str, status: int = 0) -> tuple[str, str]:
        """What the driver prints on stdout and stderr."""
        process = self.start(*options)
        out, err = process.communicate(timeout=60)
        assert process.returncode == status, out + err
        return out, err

    def calls(self, of: str = "calls") -> list[str]:
        """What was called since the last look, the doctor apart."""
        path = self.root / of
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines

    def doctors(self) -> list[str]:
        return self.calls("doctors")

    def commands(self) -> list[str]:
        return [call.split()[0] for call in self.calls()]

    def start_and_hang(self, command: str, *options: str) -> subprocess.Popen[str]:
        """A run that is in the middle of ``command``."""
        (self.root / f"hang_{command}").touch()
        process = self.start(*options)
        wait_for((self.root / "hanging").exists)
        (self.root / f"hang_{command}").unlink()
        (self.root / "hanging").unlink()
        return process


def _script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if text.startswith("#!") else f"#!/usr/bin/env bash\n{text}\n")
    path.chmod(0o755)


def _shebang_and_cd() -> str:
    return '#!/usr/bin/env bash\ncd "$(dirname "${BASH_SOURCE[0]}")" || exit 1\n'


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return Recipe(tmp_path / "a project")


@pytest.fixture(scope="module")
def finished_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = Recipe(tmp_path_factory.mktemp("finished") / "a project")
    recipe.run()
    recipe.calls()
    return recipe.root


@pytest.fixture
def finished(finished_once: Path, tmp_path: Path) -> Recipe:
    """A recipe that has run to its end."""
    return Recipe(Path(shutil.copytree(finished_once, tmp_path / "a project")))


def test_all_stages_run_in_order_and_once(recipe: Recipe) -> None:
    out, _ = recipe.run()
    assert recipe.commands() == ["local/data.sh", "check-data", *STAGES]
    said = re.findall(r"^stage (\d+) \((\w+)\): .*; log: (.+)$", out, re.MULTILINE)
    assert [int(number) for number, _, _ in said] == list(range(12))
    for _, name, log in said:
        assert Path(log).name == f"{name}.log"
    for name in ("fbank", "train", "report"):
        log = next(log for _, stage, log in said if stage == name)
        assert f"log of {name}" in (recipe.folder / log).read_text()
    assert len(re.findall(r"^stage \d+ \(\w+\): took \d+ s$", out, re.MULTILINE)) == 12
    again, _ = recipe.run()
    assert recipe.calls() == []
    assert again.count("done before") == 12


def test_only_the_stages_asked_for(recipe: Recipe) -> None:
    recipe.run("--stop_stage", "7")
    recipe.calls()
    recipe.run("--stage=8", "--stop-stage", "9")
    assert recipe.commands() == ["decode", "score"]


def test_options_reach_the_commands(recipe: Recipe) -> None:
    options = ["--exp_tag", "big model", "--ngpu", "3", "--nj", "5", "--config_opts", "--set seed=2 --set train.epochs=9"]
    recipe.run(*options, "--licence", "CC BY 4.0")
    calls = recipe.calls()
    assert "average --exp exp/big model --licence CC BY 4.0" in calls
    assert all("exp/big model" in call for call in calls if call.startswith(("train", "search", "report")))
    assert all("--ngpu 3" in call for call in calls if call.startswith(("train", "svcca", "search", "decode", "bench")))
    assert all("--set seed=2 --set train.epochs=9" in call for call in calls if call.startswith(("fbank", "bpe", "train")))
    assert any(call.startswith("fbank") and "--nj 5" in call for call in calls)
    assert all("--nj 1 " in call for call in calls if call.startswith(("search", "decode"))), "one GPU"
    assert next(call for call in calls if call.startswith("local")) == "local/data.sh downloads data 5"


def test_threads_and_the_word_for_a_dev_set_reach_the_commands(finished: Recipe) -> None:
    beam(finished, "3gram.arpa")
    finished.run("--threads", "3", "--is_dev", "true", "--stage", "3", "--config_opts", "--set decode.precision=bf16")
    calls = finished.calls()
    assert [call.split()[0] for call in calls if "--threads 3" in call] == ["train", "svcca", "tune-lm", "search", "decode"]
    assert [call.split()[0] for call in calls if "--yes-it-is-a-dev-set" in call] == ["train", "tune-lm", "search"]
    finished.run("--config_opts", "--set decode.precision=bf16")
    assert finished.calls() == [], "neither changes results"


def test_the_cluster_does_what_it_can(recipe: Recipe) -> None:
    sbatch = "--partition=gpu --time=60"
    recipe.run("--executor", "slurm", "--nj", "9", "--ngpu", "1", "--sbatch", sbatch)
    elsewhere = [call.split()[0] for call in recipe.calls() if f"--executor slurm --sbatch {sbatch} --nj 9" in call]
    assert elsewhere == ["fbank", "search", "decode"]
    assert recipe.doctors() == ["doctor --ngpu 0"], "the machine that this runs on may have no GPU"
    recipe.run("--executor", "cluster", status=1)


def test_the_processes_of_this_machine_do_what_they_can(recipe: Recipe) -> None:
    recipe.run("--nj", "9")
    assert [call.split()[0] for call in recipe.calls() if "--executor local --nj 9" in call] == ["fbank", "search", "decode"]


def test_paths_may_be_elsewhere_and_hold_spaces(recipe: Recipe) -> None:
    where = recipe.root / "some where"
    recipe.run("--datadir", str(where / "da ta"), "--expdir", str(where / "ex p"), "--results_dir", str(where / "re sults"))
    assert sorted(path.name for path in recipe.folder.iterdir()) == ["conf", "local", "run.sh"]
    assert (where / "ex p/train/report.html").exists()
    assert any(f"--copy-to {where}/re sults" in call for call in recipe.calls())
    recipe.run("--datadir", str(where / "da ta"), "--expdir", str(where / "ex p"), "--results_dir", str(where / "re sults"))
    assert recipe.calls() == []


def test_the_driver_is_short_enough_to_be_read() -> None:
    assert len((ROOT / "egs/common/run.sh").read_text().splitlines()) <= 90


def test_help_lists_every_option_with_value_and_meaning(recipe: Recipe) -> None:
    out, _ = recipe.run("--exp_tag", "big", "--help")
    header = (ROOT / "egs/common/run.sh").read_text().split("# options\n")[1].split("# end")[0]
    options = re.findall(r"^(\w+)=", header, re.MULTILINE)
    lines = [line for line in out.splitlines() if line.startswith("  --")]
    assert [line.split()[0] for line in lines] == [f"--{name}" for name in options]
    assert "--exp_tag       big " in out
    assert "--test_sets     test test2 " in out, "the recipe's value, not the driver's"
    columns = {re.match(r"  --\w+ +(\S+ ?)+ {2,}", line).end() for line in lines}  # type: ignore[union-attr]
    assert len(columns) == 1, "the meanings stand in one column"
    assert "4 train" in out
    assert "11 report" in out
    assert recipe.calls() == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--stages", "3"], "unknown option --stages"),
        (["--PATH", "/"], "unknown option --PATH"),
        (["--common", "/"], "unknown option --common"),
        (["--stage"], "option --stage needs a value"),
        (["--stage", "train"], "option --stage needs a number, not 'train'"),
        (["3"], "'3' is not an option, write --name value, and a value with blanks in quotes"),
        (["--stage", "5", "--stop_stage", "4"], "--stage 5 comes after --stop_stage 4"),
        (["--expdir", ""], "--expdir: must not be empty"),  # exp would be in the root of the file system
        (["--test_sets", " "], "--test_sets: must not be empty"),
        (["--dev_set", "train"], "--dev_set train: is the training set, too"),
        (["--is_dev", "yes"], "--is_dev yes: must be one of true, false"),
        (["--allow_pipes", "1"], "--allow_pipes 1: must be one of true, false"),
        (["--lm_text", "x.txt"], "--lm_text x.txt: no language model is trained; remove it, or set decode.decoder.lm to"),
    ],
)
def test_wrong_options_are_one_sentence(options: list[str], said: str, recipe: Recipe) -> None:
    _, err = recipe.run(*options, status=1)
    assert err.startswith(f"toy/run.sh: {said}")
    assert "--help" in err
    assert err.count("\n") == 1
    assert not (recipe.folder / "data").exists()


def test_a_wrong_config_is_told_before_anything_runs(recipe: Recipe) -> None:
    recipe.config("train: {epochs: none}\nmodel: {layers: 3}\nbatch: {max_frames: 0}")
    _, err = recipe.run(status=1)
    assert all(mistake in err for mistake in ("train.epochs", "model.layers", "batch.max_frames"))
    assert "Traceback" not in err
    _, err = recipe.run("--config", "conf/none.yaml", status=1)
    assert "conf/none.yaml: no such config file" in err
    assert str(recipe.folder) in err
    assert recipe.calls() == []


def test_names_of_a_strangers_config_do_not_lead_out(recipe: Recipe) -> None:
    recipe.config("")
    shutil.copy(recipe.folder / "conf/train.yaml", recipe.folder / "conf/...yaml")
    _, err = recipe.run("--config", "conf/...yaml", status=1)
    assert "--exp_tag ..: must be the name of a directory below --expdir" in err
    recipe.config("decode: {decoder: {type: beam, lm: ../../../3gram.arpa}}")
    _, err = recipe.run(status=1)
    assert "decode.decoder.lm ../../../3gram.arpa: no such file; one that is made has a name without /" in err
    assert recipe.calls() == []


def test_the_doctor_comes_first(recipe: Recipe) -> None:
    (recipe.root / "fail_doctor").write_text("1")
    _, err = recipe.run("--stage", "4", status=1)
    assert recipe.calls() == []
    assert "correct what is reported above" in err
    (recipe.root / "fail_doctor").unlink()
    recipe.run("--stop_stage", "1")
    recipe.run("--stop_stage", "2")
    recipe.run("--ngpu", "1")
    assert recipe.doctors() == ["doctor --ngpu 0", "doctor --ngpu 0", "doctor --ngpu 1"]


def test_a_failing_stage_stops_and_goes_on_there(recipe: Recipe) -> None:
    (recipe.root / "fail_search").write_text("1")
    out, err = recipe.run(status=1)
    assert recipe.commands()[-1] == "search"
    assert err.startswith("toy/run.sh: stage 7 (search) failed (1); log: exp/train/log/search.log")
    assert "Traceback" not in out, "the error was on the screen already"
    (recipe.root / "fail_search").unlink()
    recipe.run()
    assert recipe.commands() == ["search", "decode", "score", "bench", "report"]


def test_a_failing_local_script_stops(recipe: Recipe) -> None:
    _script(recipe.folder / "local/data.sh", "echo no speech here >&2\nexit 3")
    out, err = recipe.run(status=1)
    assert "no speech here" in out
    assert "no speech here" in (recipe.folder / "data/log/data.log").read_text()
    assert "stage 1 (data) failed (3)" in err
    assert recipe.calls() == []


def test_what_the_download_brought_and_somebody_deleted_is_brought_again(recipe: Recipe) -> None:
    _script(recipe.folder / "local/download.sh", 'echo "local/download.sh" >> "$STUB/calls"; touch "$STUB/corpus"')
    _script(recipe.folder / "local/data.sh", f'[ -e "$STUB/corpus" ] || exit 3\n{DATA_SH}')
    recipe.run("--stop_stage", "1")
    recipe.calls()
    (recipe.root / "corpus").unlink()
    _, err = recipe.run("--stop_stage", "1", "--local_opts", "")  # nothing needs it
    assert err == ""
    shutil.rmtree(recipe.folder / "data/dev")
    _, err = recipe.run("--stop_stage", "1", status=1)
    assert "run the same command again" in err
    recipe.run("--stop_stage", "1")
    assert recipe.commands() == ["local/download.sh", "local/data.sh", "check-data"]


def test_lost_recordings_are_made_again(finished: Recipe) -> None:
    audio = finished.folder / "data/audio"
    audio.unlink()
    out, _ = finished.run()
    assert "stage 1 (data): runs again, changed: recordings of train" in out
    assert finished.commands() == ["local/data.sh", "check-data", "perturb", "fbank"]
    _script(finished.folder / "local/download.sh", 'echo "local/download.sh" >> "$STUB/calls"; touch "$2/audio"')
    finished.run("--stop_stage", "1")
    finished.calls()
    finished.run("--stop_stage", "1")
    assert finished.calls() == []
    audio.unlink()
    finished.run("--stop_stage", "1")
    assert finished.calls() == ["local/download.sh"], "it brings them, so data directories stay as they are"


def test_a_wav_scp_that_somebody_edited_is_not_replaced(finished: Recipe) -> None:
    """Even if a path in it is wrong: it is the user's to correct."""
    wav_scp = finished.folder / "data/train/wav.scp"
    wav_scp.write_text("train no/such/file.wav\n")
    finished.run("--stop_stage", "2")
    assert finished.commands() == ["perturb", "fbank"]
    assert "no/such" in wav_scp.read_text()


def test_where_the_corpus_is_need_not_be_said_again(recipe: Recipe) -> None:
    recipe.run("--download_dir", "/some where", "--local_opts", "--fast", "--stop_stage", "2")
    assert recipe.calls()[0] == "local/data.sh /some where data 2 --fast"
    recipe.run("--stop_stage", "2")
    assert recipe.calls() == []
    recipe.run("--download_dir", "/else where", "--stop_stage", "1")
    assert recipe.calls()[0] == "local/data.sh /else where data 2 --fast"
    recipe.run("--datadir", str(recipe.folder / "data"), "--stop_stage", "1")
    assert recipe.calls() == [], "the same place by another name"
    recipe.run("--datadir", "data2", "--stop_stage", "1")
    assert recipe.calls()[0] == "local/data.sh downloads data2 2"


def test_a_data_directory_gives_no_options(recipe: Recipe) -> None:
    """It may be a stranger's; earlier versions noted the options of the user there."""
    note = recipe.folder / "data/.done/local_opts"
    note.parent.mkdir(parents=True)
    note.write_text("--data_dir /victim")
    _, err = recipe.run(status=1)
    assert err.startswith("toy/run.sh: data/.done/local_opts: is not trusted, because")
    assert err.count("\n") == 1
    assert recipe.calls() == []
    recipe.run("--local_opts", "--fast", "--stop_stage", "1")
    recipe.run("--stop_stage", "1")
    assert recipe.calls() == [
        "local/data.sh downloads data 2 --fast",
        "check-data data/train data/dev data/test data/test2 --no-features",
    ]


def test_options_are_not_noted_through_a_link_in_a_data_directory(recipe: Recipe) -> None:
    victim = recipe.root / "victim"
    victim.write_text("mine")
    (recipe.folder / "data/.done").mkdir(parents=True)
    (recipe.folder / "data/.done/local_opts").symlink_to(victim)
    recipe.run("--local_opts", "--fast", "--stop_stage", "1")
    assert victim.read_text() == "mine"


def test_a_recipe_that_cannot_be_written_is_told(recipe: Recipe) -> None:
    (recipe.folder / ".remembered").touch()
    _, err = recipe.run("--local_opts", "--fast", "--stop_stage", "1")
    note = recipe.folder / ".remembered/data/local_opts"
    assert err == f"toy/run.sh: {note}: cannot be written; give --local_opts in every run\n"
    assert recipe.commands() == ["local/data.sh", "check-data"]


def test_marks_are_not_written_through_a_link(recipe: Recipe) -> None:
    outside = recipe.root / "outside"
    outside.mkdir()
    (recipe.folder / "data").mkdir()
    (recipe.folder / "data/.done").symlink_to(outside)
    _, err = recipe.run("--local_opts", "louder", "--stop_stage", "1", status=1)
    assert err.startswith("toy/run.sh: data/.done: is a symbolic link to a directory")
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize(("strategies", "runs"), [("[iterative, lowest]", False), ("[influence]", True)])
def test_layers_are_measured_only_if_a_strategy_needs_it(strategies: str, runs: bool, recipe: Recipe) -> None:
    recipe.config(f"prune: {{strategies: {strategies}}}")
    recipe.run()
    commands = recipe.commands()
    assert ("svcca" in commands) is runs
    assert "search" in commands
    recipe.run()
    assert recipe.calls() == []


def test_ctrl_c_is_told_and_the_run_goes_on(recipe: Recipe) -> None:
    process = recipe.start_and_hang("train")
    os.killpg(process.pid, signal.SIGINT)  # what a terminal does
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted; run the same command again" in err
    assert recipe.commands()[-2:] == ["train", "train"], "the second is its own note that it was interrupted"
    recipe.run()
    assert recipe.commands()[0] == "train"


def test_a_signal_to_run_sh_alone_ends_the_command_too(recipe: Recipe) -> None:
    process = recipe.start_and_hang("train")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 143
    assert "interrupted; run the same command again" in err
    assert recipe.commands()[-2:] == ["train", "train"], "the second is its own note that it was interrupted"
    assert not (recipe.folder / "exp/train/.done/4").exists()


def test_a_killed_run_goes_on_with_the_stage_that_was_under_way(recipe: Recipe) -> None:
    process = recipe.start_and_hang("decode")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    recipe.calls()
    recipe.run()
    assert recipe.commands() == ["decode", "score", "bench", "report"]


@pytest.mark.parametrize(
    ("gone", "made_again"),
    [
        ("data/dev", ["local/data.sh", "check-data"]),
        ("data/train_sp", ["perturb", "fbank"]),
        ("data/test2/feats.scp", ["perturb", "fbank"]),
        ("data/test2/utt2crc", ["perturb", "fbank"]),
        ("exp/train/lang", ["bpe"]),
        ("exp/train/config.yaml", ["train"]),
        ("exp/train/svcca", ["svcca"]),
        ("exp/train/svcca/dev.npz", ["svcca"]),
        ("exp/train/model.json", ["average"]),
        ("exp/train/plans/iterative.json", ["search"]),
        ("exp/train/decode", ["decode", "score"]),
        ("exp/train/decode/test2/iterative_d4/score.json", ["score"]),
        ("exp/train/report.html", ["report"]),
        ("exp/train/figures", ["report"]),
    ],
)
def test_deleted_outputs_are_made_again(gone: str, made_again: list[str], finished: Recipe) -> None:
    path = finished.folder / gone
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    finished.run()
    redone = finished.commands()
    if gone == "data/dev":  # and with it its features
        made_again = [*made_again, "perturb", "fbank"]
    assert redone == made_again
    assert path.exists()


@pytest.mark.parametrize(
    ("change", "first"),
    [
        ("seed: 2", ["train", "average", "svcca"]),
        ("bench: {repeats: 9}", ["train", "bench", "report"]),  # training is over, but writes config.yaml
        ("prune: {depths: [2]}", ["train", "search", "decode"]),
        ("tokenizer: {vocab_size: 9}", ["bpe", "train", "average"]),
        ("frontend: {num_mels: 40}", ["perturb", "fbank", "bpe"]),
        ("augment: {speeds: [0.9, 1.0]}", ["perturb", "fbank", "bpe"]),
    ],
)
def test_a_changed_config_reruns_what_depends_on_it(change: str, first: list[str], finished: Recipe) -> None:
    finished.config(f"train: {{epochs: 2}}\n{change}")
    finished.run()
    assert finished.commands()[:3] == first
    finished.config(f"# a comment, and another order\n{change}\ntrain: {{epochs: 2}}")
    finished.run()
    assert finished.calls() == []


def test_changed_data_rerun_what_depends_on_them(finished: Recipe) -> None:
    _script(finished.folder / "local/data.sh", f"# the same data, made in another way\n{DATA_SH}")
    finished.run()
    assert finished.commands() == ["local/data.sh", "check-data"]
    finished.run("--local_opts", "louder")
    assert finished.commands() == ["local/data.sh", "check-data", *STAGES]
    (finished.folder / "data/test/text").write_text("another transcript\n")
    finished.run("--local_opts", "louder")
    assert finished.commands() == ["perturb", "fbank", "decode", "score", "bench", "report"]


def test_experiments_share_data_and_notice_that_another_changed_them(recipe: Recipe) -> None:
    recipe.config("augment: {speeds: [0.9, 1.0, 1.1]}", "fast")
    recipe.run("--stop_stage", "4")
    recipe.run("--stop_stage", "4", "--exp_tag", "same", "--config_opts", "--set train.epochs=3")
    assert recipe.commands().count("fbank") == 1, "the features are the same"
    recipe.run("--stop_stage", "4", "--config", "conf/fast.yaml")
    assert recipe.commands() == ["perturb", "fbank", "bpe", "train"]
    _, err = recipe.run("--stage", "5", status=1)
    assert "the features in data belong to another config" in err
    assert "stage 2" in err
    recipe.run()
    assert recipe.commands() == ["perturb", "fbank", "average", "svcca", "search", "decode", "score", "bench", "report"]


def test_layers_are_not_chosen_on_the_copies_of_another_experiment(recipe: Recipe) -> None:
    recipe.config("prune: {speeds: [0.9, 1.0]}", "two")
    recipe.config("prune: {speeds: [0.9, 1.0, 1.1]}", "three")
    for name in ("two", "three"):
        recipe.run("--stop_stage", "5", "--config", f"conf/{name}.yaml")
    recipe.calls()
    _, err = recipe.run("--stage", "6", "--config", "conf/two.yaml", status=1)
    assert "the features in data belong to another config" in err
    recipe.run("--stage", "6", "--stop_stage", "6", "--config", "conf/three.yaml")
    alone = ("--config", "conf/two.yaml", "--config_opts", "--set prune.speeds=[1.0]")
    recipe.run("--stage", "4", "--stop_stage", "6", *alone)
    assert recipe.commands() == ["svcca", "train", "svcca"], "the dev set itself is the same for all"


def test_an_unwritable_place_is_one_sentence(recipe: Recipe) -> None:
    (recipe.root / "a file").touch()
    _, err = recipe.run("--expdir", str(recipe.root / "a file"), status=1)
    assert err.startswith(f"toy/run.sh: {recipe.root / 'a file'}/train/")
    assert err.endswith("; choose another --datadir or --expdir\n")
    assert err.count("\n") == 1
    assert recipe.calls() == []


def test_without_asrprune_the_way_to_install_it_is_told(recipe: Recipe) -> None:
    (recipe.root / "bin/asrprune").unlink()
    recipe.environment["PATH"] = f"{recipe.root / 'bin'}:/usr/bin:/bin"
    _, err = recipe.run(status=1)
    assert "make demo" in err
    assert err.count("\n") == 1


def test_a_python_without_asrprune_is_told(recipe: Recipe) -> None:
    _script(recipe.root / "bin/python", f'exec "{sys.executable}" -S -E "$@"')
    _, err = recipe.run(status=1)
    assert "activate the environment" in err
    assert "Traceback" not in err


def test_layers_may_be_chosen_on_speed_copies_of_the_dev_set(recipe: Recipe) -> None:
    """They are made in stage 2; other copies make no other model, but other plans."""
    recipe.run()
    recipe.calls()
    recipe.config("train: {epochs: 2}\nprune: {speeds: [0.9, 1.0]}")
    recipe.run()
    calls = recipe.calls()
    assert [call.split()[0] for call in calls if call.split()[0] in ("bpe", "average")] == []
    assert sum("perturb data/dev data/dev_sp" in call and "--search" in call for call in calls) == 1
    for command in ("svcca", "search"):
        (call,) = (call for call in calls if call.split()[0] == command)
        assert "data/dev_sp" in call.split(), call
    recipe.config("train: {epochs: 2}")
    recipe.run()
    assert not any("dev_sp" in call for call in recipe.calls())


LATER = ["search", "decode", "score", "bench", "report"]


def beam(recipe: Recipe, lm: str) -> None:
    recipe.config(f"train: {{epochs: 2}}\ndecode: {{decoder: {{type: beam, lm: {lm}}}}}")


def test_a_language_model_is_trained_and_its_weights_are_tuned(finished: Recipe) -> None:
    """Whatever it depends on: another order, another text; a greedy decoder again needs none."""
    beam(finished, "3gram.arpa")
    finished.run()
    calls = finished.calls()
    assert [call.split()[0] for call in calls] == ["bpe", "lm", "train", "tune-lm", *LATER]
    assert calls[1] == "lm data/train/text exp/train/lang/3gram.arpa"
    assert calls[3].startswith("tune-lm --exp exp/train --dev data/dev --executor local --nj 2")
    finished.run()
    assert finished.calls() == []
    beam(finished, "2gram.arpa")
    finished.run()
    assert "lm data/train/text exp/train/lang/2gram.arpa" in finished.calls()
    sentences = finished.root / "sentences.txt"
    for text in ("good morning", "good night"):
        sentences.write_text(text)
        finished.run("--lm_text", str(sentences))
        calls = finished.calls()
        assert [call.split()[0] for call in calls] == ["bpe", "lm", "tune-lm", *LATER]
        assert calls[1] == f"lm {sentences} --plain exp/train/lang/2gram.arpa"
    finished.config("train: {epochs: 2}")
    finished.run()
    assert finished.commands() == ["train", *LATER]


def test_a_stage_after_the_last_one_is_told(recipe: Recipe) -> None:
    _, err = recipe.run("--stage", "12", "--stop_stage", "13", status=1)
    assert err == "toy/run.sh: --stage 12: the last stage is 11\n"


def test_another_licence_goes_into_the_model(finished: Recipe) -> None:
    finished.run("--licence", "CC0")
    assert "average --exp exp/train --licence CC0" in finished.calls()


@pytest.mark.parametrize(
    ("number", "again"),
    [
        ("decode.decoder=beam", ["search", "decode", "score", "bench", "report"]),
        ("decode.precision=bf16", ["svcca", "search", "decode", "score", "bench", "report"]),
        ("train.average=1", ["average", "svcca", "search", "decode", "score", "bench", "report"]),
        ("prune.beam=5", ["search", "decode", "score", "bench", "report"]),
        ("bench.repeats=1", ["bench", "report"]),
        ("scoring.ignore_case=true", ["score", "report"]),
        ("train.num_workers=0", []),
        ("decode.max_frames=900", []),
    ],
)
def test_a_number_runs_again_what_it_affects(finished: Recipe, number: str, again: list[str]) -> None:
    """Training, with its old numbers, only writes the config of the experiment anew."""
    finished.run("--config_opts", f"--set {number}")
    assert finished.commands() == ["train", *again]


def test_a_language_model_is_fetched_or_there(finished: Recipe) -> None:
    own = finished.folder / "own.arpa"
    own.write_text("one")
    _script(finished.folder / "local/lm.sh", 'echo "local/lm.sh $*" >> "$STUB/calls"; touch "$3"')
    beam(finished, "published.arpa.gz")
    finished.run("--stage", "2", "--stop_stage", "3")
    assert finished.calls() == ["bpe data/train exp/train/lang --config conf/train.yaml",
                                "local/lm.sh downloads data exp/train/lang/published.arpa.gz"]  # fmt: skip
    beam(finished, "own.arpa")
    finished.run("--stage", "2")
    assert finished.commands() == ["bpe", "train", "tune-lm", *LATER]
    made = finished.folder / "exp/train/lang/own.arpa"
    made.write_text("made before own.arpa was put here; decoding would take it")
    _, err = finished.run("--stage", "2", status=1)
    assert "decode.decoder.lm own.arpa: is here and in exp/train/lang, and decoding would take the second; remove one" in err
    made.unlink()
    own.write_text("two")
    finished.run("--stage", "2")
    assert finished.commands() == ["tune-lm", *LATER]


OWN_OPTIONS = r"""
# options
config=conf/train.yaml  # all numbers
hours=100               # of training speech: 100 or 960
kind=                   # what of it
# end
source ../common/parse_options.sh
one_of hours 100 960
train_set=train$([ "$hours" = 100 ] || echo 2)
exec ../common/run.sh --config "$config" --train_set "$train_set" --local_opts "--kind ${kind:-any}" "$@"
"""


@pytest.fixture
def with_options(recipe: Recipe) -> Recipe:
    """A recipe whose run.sh has a header of its own, a second training set, and a download."""
    _script(recipe.folder / "run.sh", f"{_shebang_and_cd()}{OWN_OPTIONS}")
    _script(recipe.folder / "local/data.sh", DATA_SH.replace("in train", "in train train2"))
    _script(recipe.folder / "local/download.sh", 'echo "local/download.sh $*" >> "$STUB/calls"')
    return recipe


def test_a_recipe_has_options_of_its_own(with_options: Recipe) -> None:
    with_options.config("seed: 3", "other")
    out, _ = with_options.run(
        "--hours", "960", "--stop_stage", "1", "--kind=some", "--config", "conf/other.yaml", "--nj", "7", "--exp-tag", "a b"
    )
    assert with_options.calls() == [
        "local/download.sh downloads data --kind some",
        "local/data.sh downloads data 7 --kind some",
        "check-data data/train2 data/dev data/test --no-features",
    ]
    assert (with_options.folder / "exp/a b").is_dir()
    assert "exp/train" not in out
    with_options.run("--hours", "960", "--stop_stage", "1", "--kind", "some", "--config", "conf/other.yaml")
    assert with_options.calls() == []
    with_options.run("--stop_stage", "1")
    assert with_options.commands() == ["local/download.sh", "local/data.sh", "check-data"], "another --local_opts"


def test_a_recipe_with_options_runs_from_anywhere(with_options: Recipe) -> None:
    for where, command in ((with_options.root, "egs/toy/run.sh"), (with_options.folder, "./run.sh")):
        done = subprocess.run(
            ["bash", command, "--hours", "7"], cwd=where, env=with_options.environment, capture_output=True, text=True
        )
        assert done.returncode == 1
        assert done.stderr == "toy/run.sh: --hours 7: must be one of 100, 960; --help lists the options\n"


def test_help_lists_the_recipes_options_too(with_options: Recipe) -> None:
    out, _ = with_options.run("--hours", "960", "--help")
    own, _, common = out.partition("Usage:")
    assert [" ".join(line.split()) for line in own.splitlines()[1:]] == [
        "--hours 960 of training speech: 100 or 960",
        '--kind "" what of it',
    ]
    assert "--config        conf/train.yaml " in common
    assert "4 train" in common
    assert with_options.calls() == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--kinds", "3"], "unknown option --kinds"),
        (["--hours"], "option --hours needs a value"),
        (["--hours", "many"], "option --hours needs a number, not 'many'"),
        (["--nj"], "option --nj needs a value"),
        (["3"], "'3' is not an option, write --name value, and a value with blanks in quotes"),
        (["--hours", "960", "--stage", "5", "--stop_stage", "4"], "--stage 5 comes after --stop_stage 4"),
    ],
)
def test_wrong_options_of_a_recipe_are_one_sentence(options: list[str], said: str, with_options: Recipe) -> None:
    _, err = with_options.run(*options, status=1)
    assert err.startswith(f"toy/run.sh: {said}")
    assert "--help" in err
    assert err.count("\n") == 1
