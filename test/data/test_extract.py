"""Features of a data directory: restarted, in parallel and moved they stay the same; speed and CMVN do what they say.

That the filterbanks themselves are right is what test_fbank_oracle.py shows.
"""

import os
import re
import shutil
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from waiting import locked_elsewhere

from asrprune.config.schema import FrontendConfig
from asrprune.data import extract as fbank
from asrprune.data.check import check_data_dir
from asrprune.data.dataset import Corpus
from asrprune.data.extract import compute_cmvn, extract
from asrprune.data.fix import fix_data_dir
from asrprune.data.kaldi import Utterance, read_data_dir, write_data_dir
from asrprune.data.perturb import write_speed_copies
from asrprune.data.tables import read_table, write_table
from asrprune.features.ark import read_matrix, write_ark
from asrprune.features.cmvn import read_cmvn, write_cmvn
from asrprune.features.fbank import compute_fbank
from asrprune.features.resample import change_speed
from asrprune.runtime.errors import UserError
from asrprune.runtime.executor import HERE, processes

RATE = 16000
OPTIONS = FrontendConfig(num_mels=23)
LENGTHS = (3200, 4000, 100, 4800, 8000, 2400, 5600)  # samples; the third is less than a window


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory of seven utterances, two in an archive."""
    monkeypatch.setattr(fbank, "SHARD_UTTERANCES", 2)
    rng = np.random.default_rng(0)
    utterances = []
    for number, length in enumerate(LENGTHS):
        path = tmp_path / f"audio/{number}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, (0.1 * rng.normal(size=length)).clip(-1, 1), RATE)
        utterances.append(Utterance(f"s{number % 2}-u{number}", str(path), 0.0, None, f"s{number % 2}", "hello world"))
    write_data_dir(tmp_path / "set", utterances)
    return tmp_path / "set"


def features(directory: Path) -> dict[str, np.ndarray]:
    return {key: read_matrix(entry) for key, entry in read_table(directory / "feats.scp").items()}


def archives(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (directory / "fbank").glob("feats_*")}


def spoil(directory: Path, key: str) -> Callable[[], None]:
    """Cut an utterance's audio short; returns what mends it."""
    path = Path(next(utt.audio for utt in read_data_dir(directory) if utt.id == key))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])

    def mend() -> None:
        path.write_bytes(whole)

    return mend


# ---- extraction


def test_tables_say_what_is_in_the_archives(data: Path) -> None:
    assert extract(data, OPTIONS, HERE) == 4
    frames = read_table(data / "utt2num_frames")
    seconds = read_table(data / "utt2dur")
    for utterance in read_data_dir(data):
        samples, _ = soundfile.read(utterance.audio, dtype="float32")
        matrix = features(data)[utterance.id]
        np.testing.assert_array_equal(matrix, compute_fbank(samples, OPTIONS))
        assert int(frames[utterance.id]) == len(matrix) == (len(samples) + 80) // 160
        assert float(seconds[utterance.id]) == pytest.approx(len(samples) / RATE, abs=0.005)
    assert check_data_dir(data).faults == []


def test_less_than_a_window_is_a_frame_and_less_than_half_a_frame_is_refused(data: Path) -> None:
    extract(data, OPTIONS, HERE)
    assert features(data)["s0-u2"].shape == (1, 23)
    soundfile.write(data.parent / "audio/2.wav", np.full(79, 0.1), RATE)
    shutil.rmtree(data / "fbank")
    soundfile.write(data.parent / "audio/5.wav", np.full(3, 0.1), RATE)  # in another archive
    what = rf"^{data}: s0-u2, s1-u5: shorter than half the distance of frames \(5 ms\), so without features; remove these"
    with pytest.raises(UserError, match=rf"{what} utterances, `asrprune fix-data` does it$"):
        extract(data, OPTIONS, HERE)
    assert [fault.partition(": lasts ")[2] for fault in check_data_dir(data, features=False).faults] == [
        f"{length} ms, but below 5 ms there is no frame; remove the utterance, `asrprune fix-data` does it"
        for length in ("4.94", "0.188")
    ]
    assert fix_data_dir(data)[0] == "dropped s0-u2, s1-u5: shorter than 5 ms"
    extract(data, OPTIONS, HERE)
    assert check_data_dir(data).faults == []
    wide = FrontendConfig(num_mels=23, frame_shift_ms=20)
    soundfile.write(data.parent / "audio/1.wav", np.full(159, 0.1), RATE)  # fix-data would not drop it
    with pytest.raises(
        UserError, match=r"s1-u1: shorter than half the distance of frames \(10 ms\), .*; remove these utterances$"
    ):
        extract(data, wide, HERE)


def test_commands_in_wav_scp_are_run_only_if_allowed(data: Path) -> None:
    extract(data, OPTIONS, HERE)
    before = {key: matrix.copy() for key, matrix in features(data).items()}
    entries = read_table(data / "wav.scp")
    write_table(data / "wav.scp", {key: f"cat {path} |" for key, path in entries.items()})
    with pytest.raises(UserError, match=r"^s0-u0: .* is a shell command, which is run only with --allow-pipes"):
        extract(data, OPTIONS, HERE)
    assert extract(data, OPTIONS, HERE, allow_pipes=True) == 4
    for key, matrix in features(data).items():
        np.testing.assert_array_equal(matrix, before[key])


def test_a_second_run_computes_nothing(data: Path) -> None:
    extract(data, OPTIONS, HERE)
    before = {path: path.stat().st_mtime_ns for path in (data / "fbank").glob("feats_*")}
    assert extract(data, OPTIONS, HERE) == 0
    assert {path: path.stat().st_mtime_ns for path in (data / "fbank").glob("feats_*")} == before


def test_processes_compute_the_same_bits_and_a_fault_names_its_utterance(data: Path) -> None:
    """One archive's audio is broken: the others are finished, by two processes, and equal those of one process."""
    mend = spoil(data, "s1-u5")  # the last archive but one
    with pytest.raises(UserError, match=r"^s1-u5: .*5\.wav: is truncated"), processes(2) as two:
        extract(data, OPTIONS, two)
    made = archives(data)
    assert not any(".tmp" in name for name in made)
    assert sum(name.endswith(".scp") for name in made) == 3
    assert not (data / "feats.scp").exists()
    mend()
    assert extract(data, OPTIONS, HERE) == 1
    parallel = archives(data)
    assert made.items() <= parallel.items()
    shutil.rmtree(data / "fbank")
    assert extract(data, OPTIONS, HERE) == 4
    assert archives(data) == parallel


@pytest.mark.parametrize("suffix", [".ark", ".scp", ".cmvn", ".json"])
def test_only_what_a_killed_run_lacks_is_computed(data: Path, suffix: str) -> None:
    extract(data, OPTIONS, HERE)
    whole = archives(data)
    gone = sorted((data / "fbank").glob(f"*{suffix}"))[1]
    gone.unlink()
    (data / "fbank" / f".{gone.stem}.4711.tmp.ark").write_bytes(b"half")
    (data / "feats.scp").unlink()
    others = {path: path.stat().st_mtime_ns for path in (data / "fbank").glob("feats_*") if not path.match(f"*{gone.stem}*")}
    assert extract(data, OPTIONS, HERE) == 1
    assert archives(data) == whole
    assert {path: path.stat().st_mtime_ns for path in others} == others
    assert len(features(data)) == len(LENGTHS)


@pytest.mark.parametrize("suffix", [".ark", ".scp", ".cmvn", ".json"])
@pytest.mark.parametrize(
    "damage", [lambda content: b"", lambda content: content[:-9] + bytes([content[-9] ^ 4]) + content[-8:]]
)
def test_damaged_archives_are_computed_again(data: Path, suffix: str, damage: Callable[[bytes], bytes]) -> None:
    extract(data, OPTIONS, HERE)
    whole = archives(data)
    path = sorted((data / "fbank").glob(f"*{suffix}"))[1]
    path.write_bytes(damage(path.read_bytes()))
    assert extract(data, OPTIONS, HERE) == 1
    assert archives(data) == whole


def test_a_replaced_recording_of_the_same_length_is_computed_anew(data: Path) -> None:
    extract(data, OPTIONS, HERE)
    before, sums = features(data), read_table(data / "utt2crc")
    path = Path(next(utt.audio for utt in read_data_dir(data) if utt.id == "s0-u4"))
    samples, rate = soundfile.read(path)
    status = path.stat()
    soundfile.write(path, samples[::-1], rate)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert extract(data, OPTIONS, HERE) == 1
    assert not np.array_equal(features(data)["s0-u4"], before["s0-u4"])
    assert {key for key, value in read_table(data / "utt2crc").items() if value != sums[key]} == {"s0-u4"}


@pytest.mark.parametrize("command", ["cat '{}' |", "cat <{}|", "cat {} | cat |"])
def test_a_replaced_recording_behind_a_command_is_noticed(data: Path, command: str, caplog: pytest.LogCaptureFixture) -> None:
    entries = read_table(data / "wav.scp")
    write_table(data / "wav.scp", {key: command.format(path) for key, path in entries.items()})
    assert extract(data, OPTIONS, HERE, allow_pipes=True) == 4
    assert extract(data, OPTIONS, HERE, allow_pipes=True) == 0
    os.utime(entries["s0-u4"], ns=(0, 0))
    assert extract(data, OPTIONS, HERE, allow_pipes=True) == 1
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_a_command_that_names_no_file_is_told(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    entries = read_table(data / "wav.scp")
    (data.parent / "list").write_text(entries["s0-u4"])
    write_table(data / "wav.scp", entries | {"s0-u4": f"cat $(head -1 {data.parent}/lis?) |"})
    extract(data, OPTIONS, HERE, allow_pipes=True)
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert re.fullmatch(r".*/wav\.scp: s0-u4: the commands name no file, .*; after one, remove .*/set/fbank", said)


def test_a_flipped_bit_is_noticed_where_features_are_read(data: Path) -> None:
    extract(data, OPTIONS, HERE)
    corpus = Corpus(data, None)
    assert [len(corpus[index][1]) for index in range(len(corpus))] == corpus.lengths.tolist()
    path, _, offset = read_table(data / "feats.scp")["s0-u4"].rpartition(":")
    with open(path, "r+b") as handle:
        handle.seek(int(offset) + 40)
        byte = handle.read(1)[0]
        handle.seek(-1, os.SEEK_CUR)
        handle.write(bytes([byte ^ 1]))
    with pytest.raises(
        UserError, match=r"utt2crc:3: s0-u4: the features in .* do not have this checksum: .* delete .*\.ark and"
    ):
        corpus[list(corpus.ids).index("s0-u4")]


def test_a_fault_leaves_nothing_half_written_and_keeps_what_is_finished(data: Path) -> None:
    mend = spoil(data, "s0-u4")  # the second archive
    with pytest.raises(UserError, match=r"^s0-u4: "):
        extract(data, OPTIONS, HERE)
    assert sorted(Path(name).suffix for name in archives(data)) == [".ark", ".cmvn", ".json", ".scp"]
    assert not (data / "feats.scp").exists()
    mend()
    assert extract(data, OPTIONS, HERE) == 3


def test_other_options_are_computed_anew_and_replace_the_old(data: Path) -> None:
    extract(data, OPTIONS, HERE)
    old = set(archives(data))
    assert extract(data, FrontendConfig(num_mels=40), HERE) == 4
    assert not old & set(archives(data))
    assert len(archives(data)) == len(old)
    assert features(data)["s0-u0"].shape[1] == 40


def test_a_changed_utterance_costs_its_archive_alone(data: Path) -> None:
    extract(data, OPTIONS, HERE)
    utterances = read_data_dir(data)
    before = features(data)[utterances[-1].id]
    write_data_dir(data, [*utterances[:-1], replace(utterances[-1], speed=1.1)])
    assert extract(data, OPTIONS, HERE) == 1
    assert len(features(data)[utterances[-1].id]) == pytest.approx(len(before) / 1.1, abs=1)
    assert check_data_dir(data).faults == []


def test_a_moved_directory_is_mended_without_computing(data: Path) -> None:
    extract(data, OPTIONS, HERE)
    before = features(data)
    moved = data.with_name("moved")
    data.rename(moved)
    with pytest.raises(UserError, match="there is no such archive"):
        features(moved)
    assert extract(moved, OPTIONS, HERE) == 0
    assert {key: matrix.tobytes() for key, matrix in features(moved).items()} == {
        key: matrix.tobytes() for key, matrix in before.items()
    }


# ---- speed


@pytest.mark.parametrize("speed", [0.9, 1.1, 1.25])
def test_speed_changes_length_and_pitch_by_its_factor(speed: float) -> None:
    time = np.arange(RATE) / RATE
    tone = (0.5 * np.sin(2 * np.pi * 1000.0 * time)).astype(np.float32)
    faster = change_speed(tone, RATE, speed)
    assert faster.dtype == np.float32
    assert len(faster) == pytest.approx(RATE / speed, abs=2)
    middle = faster[1000:-1000]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle)), 1 << 18))
    peak = np.argmax(spectrum) * RATE / (1 << 18)
    assert peak == pytest.approx(1000.0 * speed, abs=2.0)
    assert np.abs(middle).max() == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize("speed", [0.9, 1.1])
def test_a_changed_speed_adds_no_energy_beyond_the_band(speed: float) -> None:
    """Slowed noise ends at 0.9 of the band; a tone that speed moves beyond the band is gone, not mirrored."""
    if speed < 1:
        sound = 0.1 * np.random.default_rng(0).standard_normal(4 * RATE)
    else:
        sound = np.sin(2 * np.pi * 7700.0 * np.arange(4 * RATE) / RATE)
    changed = change_speed(sound.astype(np.float32), RATE, speed)[1000:-1000]
    power = np.abs(np.fft.rfft(changed * np.hanning(len(changed)))) ** 2
    hertz = np.linspace(0, RATE / 2, len(power))
    if speed < 1:
        assert 10 * np.log10(power[hertz > 7300].mean() / power[hertz < 6500].mean()) < -80
        assert 10 * np.log10(power[(hertz > 6500) & (hertz < 7000)].mean() / power[hertz < 6500].mean()) > -1
    else:
        assert np.abs(changed).max() < 1e-3


def test_speed_one_is_the_signal_itself() -> None:
    tone = np.ones(100, dtype=np.float32)
    np.testing.assert_array_equal(change_speed(tone, RATE, 1.0), tone)


def test_speed_copies_are_speakers_and_utterances_of_their_own(data: Path) -> None:
    utterances, target = read_data_dir(data), data.with_name("set_sp")
    assert write_speed_copies(data, target, (0.9, 1.0, 1.1)) == 3 * len(utterances)
    copies = read_data_dir(target)
    assert {copy.speaker for copy in copies} == {"s0", "s1", "sp0.9-s0", "sp0.9-s1", "sp1.1-s0", "sp1.1-s1"}
    assert [copy for copy in copies if copy.speed == 1.0] == utterances
    assert all(copy.id == f"sp{copy.speed:g}-{copy.id.partition('-')[2]}" for copy in copies if copy.speed != 1.0)
    assert {copy.text for copy in copies} == {"hello world"}


def test_a_directory_of_speed_copies_is_a_good_one_with_changed_features(data: Path) -> None:
    target = data.with_name("set_sp")
    write_speed_copies(data, target, (0.9, 1.0, 1.1))
    assert check_data_dir(target).faults == []
    extract(target, OPTIONS, HERE)
    extract(data, OPTIONS, HERE)
    plain, copies = features(data), features(target)
    assert len(copies) == 3 * len(plain)
    for key, matrix in plain.items():
        np.testing.assert_array_equal(copies[key], matrix)
        for speed in (0.9, 1.1):
            assert len(copies[f"sp{speed}-{key}"]) == pytest.approx(len(matrix) / speed, abs=1)
    assert check_data_dir(target).faults == []


def test_speed_copies_of_segments(data: Path) -> None:
    """Two segments of one recording stay segments of one, under its new name."""
    audio = read_data_dir(data)[2].audio
    segments = [Utterance(f"s-{i}", audio, 0.1 * i, 0.1 * i + 0.1, "s", "hello", recording="s-rec") for i in range(2)]
    write_data_dir(data, segments)
    target = data.with_name("set_sp")
    write_speed_copies(data, target, (1.0, 0.5))
    assert check_data_dir(target).faults == []
    assert set(read_table(target / "wav.scp")) == {"s-rec", "sp0.5-s-rec"}
    extract(target, OPTIONS, HERE)
    assert {key: len(matrix) for key, matrix in features(target).items()} == {
        "s-0": 10, "s-1": 10, "sp0.5-s-0": 20, "sp0.5-s-1": 20
    }  # fmt: skip


def test_speed_copies_replace_a_directory_and_multiply_speeds(data: Path) -> None:
    target = data.with_name("set_sp")
    write_speed_copies(data, target, (1.0, 0.8))
    extract(target, OPTIONS, HERE)
    write_speed_copies(target, data.with_name("again"), (1.0, 2.0))
    assert {utterance.speed for utterance in read_data_dir(data.with_name("again"))} == {1.0, 0.8, 2.0, 1.6}
    write_speed_copies(data, target, (1.0,))
    assert sorted(path.name for path in target.iterdir()) == ["fbank", "spk2utt", "text", "utt2spk", "wav.scp"]
    assert read_data_dir(target) == read_data_dir(data)
    with pytest.raises(UserError, match="set_sp: is the directory to copy; "):
        write_speed_copies(target, target, (1.0, 0.8))
    with pytest.raises(UserError, match=r"utt2spk: sp1\.1-s0-u0: two lines would have this id"):
        write_speed_copies(data, target, (1.1, 1.1000001))


# ---- CMVN


def test_cmvn_is_that_of_all_frames_in_kaldis_layout(data: Path, tmp_path: Path) -> None:
    extract(data, OPTIONS, HERE)
    frames = np.concatenate([matrix.astype(np.float64) for matrix in features(data).values()])
    write_cmvn(tmp_path / "cmvn", compute_cmvn(data))
    raw = (tmp_path / "cmvn").read_bytes()
    header = b"\0BDM " + struct.pack("<bibi", 4, 2, 4, 24)
    assert raw.startswith(header)
    stats = np.frombuffer(raw[len(header) :], "<f8").reshape(2, 24)
    np.testing.assert_allclose(stats[0, :-1], frames.sum(axis=0), rtol=1e-12)
    np.testing.assert_allclose(stats[1, :-1], (frames**2).sum(axis=0), rtol=1e-12)
    assert stats[:, -1].tolist() == [len(frames), 0.0]
    mean, scale = read_cmvn(tmp_path / "cmvn")
    assert (mean.dtype, scale.dtype) == (np.float32, np.float32)
    np.testing.assert_allclose(mean, frames.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(scale, 1 / frames.std(axis=0), rtol=1e-5)


def test_cmvn_of_features_that_another_program_made(data: Path) -> None:
    extract(data, OPTIONS, HERE)
    ours = compute_cmvn(data)
    (data / "fbank").rename(data / "kaldi")
    write_table(
        data / "feats.scp", {key: entry.replace("/fbank/", "/kaldi/") for key, entry in read_table(data / "feats.scp").items()}
    )
    np.testing.assert_allclose(compute_cmvn(data), ours, rtol=1e-12)


def test_two_runs_do_not_compute_in_one_directory(data: Path) -> None:
    """The second would delete what the first is writing."""
    with locked_elsewhere(data / "fbank"), pytest.raises(UserError, match="fbank: another process is using it"):
        extract(data, OPTIONS, HERE)
    assert extract(data, OPTIONS, HERE) > 0
    assert extract(data, OPTIONS, HERE) == 0


def test_a_constant_bin_does_not_divide_by_zero(tmp_path: Path) -> None:
    write_cmvn(tmp_path / "cmvn", np.array([[30.0, 0.0, 10.0], [90.0, 0.0, 0.0]]))
    mean, scale = read_cmvn(tmp_path / "cmvn")
    assert mean.tolist() == [3.0, 0.0]
    assert np.isfinite(scale).all()


def test_no_frames_at_all_are_refused(data: Path) -> None:
    write_table(data / "feats.scp", write_ark(data / "a.ark", data / "a.ark", [("s0-u2", np.zeros((0, 23), np.float32))]))
    with pytest.raises(UserError, match=r"feats\.scp: has no frames, so CMVN cannot be computed"):
        compute_cmvn(data)
