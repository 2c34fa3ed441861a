"""The audio reader against the files' own bytes, and one sentence for each way in which a recording can be wrong."""

import os
import re
import struct
import threading
import tracemalloc
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import kaldiio
import numpy as np
import pytest
import soundfile
from samples import first_members

from asrprune.features import audio
from asrprune.features.audio import AudioInfo, audio_info, check_audio, open_audio, read_audio
from asrprune.features.mp3 import frame_bytes
from asrprune.runtime.errors import UserError

RATE = 16000


def unpack(archive: str, suffix: str, count: int, folder: Path) -> list[Path]:
    """The first ``count`` files of an archive whose names end in ``suffix``."""
    found = [folder / f"{number}{suffix}" for number in range(count)]
    for path, content in zip(found, first_members(archive, suffix, count), strict=True):
        path.write_bytes(content)
    return found


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(-(2**15), 2**15, RATE, dtype=np.int16)


@pytest.fixture(scope="module")
def flac(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack("librispeech/test-clean.tar.gz", ".flac", 1, tmp_path_factory.mktemp("flac"))[0]


@pytest.fixture(scope="module")
def sph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack("tedlium_like/TEDLIUM_release2.tar.gz", ".sph", 1, tmp_path_factory.mktemp("sph"))[0]


def sphere(samples: bytes, num_samples: int, byte_format: str = "01", coding: str = "pcm", width: int = 2) -> bytes:
    header = f"""NIST_1A
   1024
sample_count -i {num_samples}
sample_n_bytes -i {width}
channel_count -i 1
sample_byte_format -s{len(byte_format)} {byte_format}
sample_rate -i {RATE}
sample_coding -s{len(coding)} {coding}
end_head
"""
    return header.encode().ljust(1024) + samples


# ---- what is read


def test_an4_raw_files_are_their_big_endian_samples(tmp_path: Path) -> None:
    for path in unpack("an4/an4_raw.bigendian.tar.gz", ".raw", 20, tmp_path):
        samples = read_audio(f"{path}?rate=16000&encoding=s16be", RATE)
        expected = np.fromfile(path, ">i2")
        assert samples.dtype == np.float32
        assert len(expected) > RATE // 2
        np.testing.assert_array_equal(samples * 32768, expected)


def test_little_endian_raw_and_its_rate(tmp_path: Path, noise: np.ndarray) -> None:
    noise.astype("<i2").tofile(tmp_path / "a b.pcm")
    entry = f"{tmp_path / 'a b.pcm'}?rate=8000&encoding=s16le"
    assert audio_info(entry) == AudioInfo(sample_rate=8000, num_samples=16000, channels=1)
    assert audio_info(entry).duration_s == 2.0
    np.testing.assert_array_equal(read_audio(entry, 8000) * 32768, noise)
    np.testing.assert_array_equal(read_audio(entry, 8000, 0.5, 0.75) * 32768, noise[4000:6000])


def test_segments_of_a_flac_are_slices_of_the_whole(flac: Path) -> None:
    whole, rate = soundfile.read(flac, dtype="int16")
    assert rate == RATE
    np.testing.assert_array_equal(read_audio(str(flac), RATE) * 32768, whole)
    length_s = len(whole) / RATE
    for start, end in [(0.0, 0.5), (0.01, 0.0101), (1.23456, 4.5), (length_s - 0.3, length_s), (length_s - 1 / RATE, None)]:
        part = read_audio(str(flac), RATE, start, end)
        stop = len(whole) if end is None else round(end * RATE)
        np.testing.assert_array_equal(part * 32768, whole[round(start * RATE) : stop])


def test_segments_of_a_sphere_file_are_its_own_bytes(sph: Path) -> None:
    whole = np.frombuffer(sph.read_bytes()[1024:], "<i2")
    assert audio_info(str(sph)) == AudioInfo(RATE, len(whole), 1)
    for start in np.arange(0.0, len(whole) / RATE - 2.0, 7.77):
        part = read_audio(str(sph), RATE, start, start + 1.5)
        np.testing.assert_array_equal(part * 32768, whole[round(start * RATE) : round((start + 1.5) * RATE)])


@pytest.mark.parametrize("order", ["01", "10"])
def test_sphere_in_both_byte_orders(tmp_path: Path, noise: np.ndarray, order: str) -> None:
    data = noise.astype("<i2" if order == "01" else ">i2").tobytes()
    (tmp_path / "a.wv1").write_bytes(sphere(data, len(noise), order))
    np.testing.assert_array_equal(read_audio(str(tmp_path / "a.wv1"), RATE) * 32768, noise)


def test_mu_law_sphere_equals_mu_law_wav(tmp_path: Path, noise: np.ndarray) -> None:
    soundfile.write(tmp_path / "a.wav", noise, RATE, subtype="ULAW")
    coded = (tmp_path / "a.wav").read_bytes()[-len(noise) :]
    (tmp_path / "a.sph").write_bytes(sphere(coded, len(noise), "1", "ulaw", 1))
    expected, _ = soundfile.read(tmp_path / "a.wav", dtype="float32")
    np.testing.assert_array_equal(read_audio(str(tmp_path / "a.sph"), RATE), expected)


def test_an_end_that_was_rounded_up_is_clipped(tmp_path: Path, noise: np.ndarray) -> None:
    soundfile.write(tmp_path / "a.wav", noise, RATE)
    assert len(read_audio(str(tmp_path / "a.wav"), RATE, 0.5, 1.01)) == RATE // 2
    with pytest.raises(UserError, match=r"the segment ends at 1\.02 s, but the recording ends at 1\.000 s"):
        read_audio(str(tmp_path / "a.wav"), RATE, 0.5, 1.02)


def test_a_segment_costs_no_more_than_itself(tmp_path: Path) -> None:
    path, data_bytes = tmp_path / "hour.wav", 2 * RATE * 3600
    soundfile.write(path, np.zeros(1, np.int16), RATE)
    header = bytearray(path.read_bytes()[:44])
    header[4:8], header[40:44] = struct.pack("<I", 36 + data_bytes), struct.pack("<I", data_bytes)
    with open(path, "wb") as handle:  # a sparse file: nothing but its header takes room on the disk
        handle.write(header)
        handle.truncate(44 + data_bytes)
    tracemalloc.start()
    assert len(read_audio(str(path), RATE, 3590.0, 3590.5)) == RATE // 2
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize("kind", ["WAV", "WAVEX", "RF64", "RIFX"])
def test_kinds_of_wav_whole_and_truncated(tmp_path: Path, noise: np.ndarray, kind: str) -> None:
    path = tmp_path / "a.wav"
    options = {"endian": "BIG"} if kind == "RIFX" else {"format": kind}
    soundfile.write(path, noise, RATE, **options)
    np.testing.assert_array_equal(read_audio(str(path), RATE) * 32768, noise)
    whole = path.read_bytes()
    assert whole[:4] == {"RF64": b"RF64", "RIFX": b"RIFX"}.get(kind, b"RIFF")
    path.write_bytes(whole[:20000])
    for reads in (audio_info, check_audio, lambda entry: read_audio(entry, RATE)):
        with pytest.raises(UserError, match=rf"truncated: its header gives {len(whole)} bytes, but the file has 20000;"):
            reads(str(path))


def test_a_chunk_of_odd_length_before_the_samples(tmp_path: Path, noise: np.ndarray) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, noise, RATE)
    data = path.read_bytes()
    chunk = b"LIST" + struct.pack("<I", 5) + b"INFOx" + b"\0"
    path.write_bytes(data[:4] + struct.pack("<I", len(data) - 8 + len(chunk)) + data[8:36] + chunk + data[36:])
    np.testing.assert_array_equal(read_audio(str(path), RATE) * 32768, noise)
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(UserError, match="truncated"):
        read_audio(str(path), RATE)


@pytest.mark.parametrize(
    "length", [0, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFF00, 0xFFFFFFFF], ids=lambda length: f"{length:08x}"
)
def test_a_wav_written_to_a_pipe_knows_no_length_and_is_read_to_its_end(tmp_path: Path, noise: np.ndarray, length: int) -> None:
    """As sox, arecord, ffmpeg and others write it."""
    path = tmp_path / "a.wav"
    soundfile.write(path, noise, RATE)
    data = path.read_bytes()
    path.write_bytes(
        data[:4] + struct.pack("<I", min(length + 36, 0xFFFFFFFF)) + data[8:40] + struct.pack("<I", length) + data[44:]
    )
    np.testing.assert_array_equal(read_audio(str(path), RATE) * 32768, noise)
    assert check_audio(str(path)).num_samples == len(noise)


KINDS = ["AIFF", "AU", "W64", "OGG", "VOC", "CAF", "FLAC", "MP3", "RF64", "WAV"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("piped", [False, True], ids=["file", "pipe"])
def test_half_a_recording_is_refused(tmp_path: Path, noise: np.ndarray, kind: str, piped: bool) -> None:
    path = tmp_path / "audio"
    subtype = {"OGG": "VORBIS", "MP3": "MPEG_LAYER_III"}.get(kind, "PCM_16")
    soundfile.write(path, np.tile(noise, 20), RATE, format=kind, subtype=subtype)
    entry = f"cat {path} |" if piped else str(path)
    assert len(read_audio(entry, RATE, allow_pipes=True)) == pytest.approx(20 * len(noise), abs=2000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    audio._output_of.cache_clear()
    with pytest.raises(UserError, match=r"truncated|is not audio|length"):
        read_audio(entry, RATE, allow_pipes=True)


@pytest.mark.parametrize(
    ("kind", "subtype"),
    [("WAV", "GSM610"), ("WAV", "IMA_ADPCM"), ("WAV", "MS_ADPCM"), ("WAV", "ALAW"), ("AU", "G721_32"), ("AIFF", "IMA_ADPCM")],
)
def test_compressed_kinds_and_their_segments(tmp_path: Path, noise: np.ndarray, kind: str, subtype: str) -> None:
    path = tmp_path / "audio"
    soundfile.write(path, noise, RATE, format=kind, subtype=subtype)
    expected = soundfile.read(path, frames=soundfile.info(path).frames, dtype="float32")[0]
    np.testing.assert_array_equal(read_audio(str(path), RATE), expected)
    assert check_audio(str(path)).num_samples == len(expected)
    np.testing.assert_array_equal(read_audio(str(path), RATE, 0.25, 0.5), expected[RATE // 4 : RATE // 2])


@pytest.mark.parametrize("kind", ["WAV", "AIFF", "AU", "W64"])
def test_two_recordings_in_one_file_are_refused_and_tags_are_not(tmp_path: Path, noise: np.ndarray, kind: str) -> None:
    path = tmp_path / "audio"
    soundfile.write(path, noise, RATE, format=kind)
    one = path.read_bytes()
    for tail in (b"TAG".ljust(128, b"x"), bytes(4096)) if kind != "W64" else ():  # libsndfile reads them with W64
        path.write_bytes(one + tail)
        np.testing.assert_array_equal(read_audio(str(path), RATE) * 32768, noise)
    path.write_bytes(one + one)
    with pytest.raises(UserError, match=rf"gives {len(one)} bytes, but the file has {2 * len(one)}: the rest"):
        read_audio(str(path), RATE)


@pytest.mark.parametrize("kind", ["RF64", "CAF", "FLAC", "OGG", "OPUS", "MP3", "VOC"])
def test_a_second_recording_of_other_kinds(tmp_path: Path, noise: np.ndarray, kind: str) -> None:
    """``cat a.flac b.flac``: libsndfile reads the first. Tags are no recordings."""
    path = tmp_path / "audio"
    subtype = {"OGG": "VORBIS", "OPUS": "OPUS", "MP3": "MPEG_LAYER_III"}.get(kind, "PCM_16")
    soundfile.write(path, noise, RATE, format="OGG" if kind == "OPUS" else kind, subtype=subtype)
    one, id3 = path.read_bytes(), b"ID3\4\0\0\0\0\2\3" + b"Info".ljust(259, b"\0")
    ape, id3v1 = b"APETAGEX\xd0\7\0\0" + struct.pack("<I", 4968) + bytes(4984), b"TAG".ljust(128, b"x")
    tagged = {"MP3": [one, one + id3v1, one + ape + id3v1, one + id3, id3 + one], "FLAC": [one + id3v1, id3 + one]}
    for whole in tagged.get(kind, [one]):
        path.write_bytes(whole)
        assert len(read_audio(str(path), RATE)) == len(noise)
        path.write_bytes(whole + (id3 if kind == "MP3" else b"") + one)
        with pytest.raises(
            UserError, match=r"another recording begins at byte \d+, and|its header gives \d+ bytes.*: the rest"
        ):
            read_audio(str(path), RATE)


@pytest.mark.parametrize("kind", ["IRCAM", "SVX", "AVR", "PAF", "PVF", "MAT4", "MAT5", "MPC2K", "WVE", "XI", "SDS"])
def test_kinds_of_which_half_looks_whole_are_refused(tmp_path: Path, noise: np.ndarray, kind: str) -> None:
    soundfile.write(tmp_path / "audio", noise, 8000 if kind == "WVE" else RATE, format=kind)
    with pytest.raises(UserError, match=r"is of a kind \(.*\) of which half a file looks whole; convert it: ffmpeg -i IN"):
        check_audio(str(tmp_path / "audio"))


@pytest.mark.parametrize("write_function", [None, "soundfile"])
def test_a_recording_in_an_archive_of_espnet(tmp_path: Path, noise: np.ndarray, write_function: str | None) -> None:
    ark, scp = tmp_path / "wav.ark", tmp_path / "wav.scp"
    kaldiio.save_ark(str(ark), {"a": (RATE, noise), "b": (RATE, noise[::-1])}, scp=str(scp), write_function=write_function)
    entry = scp.read_text().split()[3]
    np.testing.assert_array_equal(read_audio(entry, RATE) * 32768, noise[::-1])
    assert check_audio(entry) == AudioInfo(RATE, len(noise), 1)
    with pytest.raises(UserError, match=r"wav\.ark:1: there is no recording at this offset"):
        read_audio(f"{ark}:1", RATE)
    ark.write_bytes(ark.read_bytes()[:-5])
    with pytest.raises(UserError, match="the archive ends within this recording"):
        read_audio(entry, RATE)
    with pytest.raises(UserError, match=r"none\.ark: cannot be read"):
        read_audio(f"{tmp_path}/none.ark:3", RATE)


def test_a_name_that_is_not_utf8(tmp_path: Path, noise: np.ndarray) -> None:
    path = os.path.join(os.fsencode(tmp_path), b"caf\xe9.wav")
    with open(path, "wb") as handle:
        soundfile.write(handle, noise, RATE, format="WAV")
    np.testing.assert_array_equal(read_audio(os.fsdecode(path), RATE) * 32768, noise)


def test_a_named_pipe_is_read_only_as_a_stream(tmp_path: Path, noise: np.ndarray) -> None:
    soundfile.write(tmp_path / "a.wav", noise, RATE)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(UserError, match="is a pipe or a device"):
        read_audio(str(pipe), RATE)
    for end, message in ((None, ""), (0, "is empty"), (20000, "is truncated")):
        content = (tmp_path / "a.wav").read_bytes()[:end]
        writer = threading.Thread(target=pipe.write_bytes, args=(content,))
        writer.start()
        try:
            refused = pytest.raises(UserError, match=f"pipe: {message}") if message else nullcontext()
            with refused, open_audio(str(pipe), RATE, streams=True) as recording:
                np.testing.assert_array_equal(recording.read(4000, 8000) * 32768, noise[4000:12000])
        finally:
            writer.join()


# ---- what is refused


def cut_flac(path: Path, flac: Path) -> None:
    path.write_bytes(flac.read_bytes()[:-100])


def hole_in_flac(path: Path, flac: Path) -> None:
    data = bytearray(flac.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 2000] = bytes(2000)
    path.write_bytes(data)


def flac_without_length(path: Path, flac: Path) -> None:
    data = bytearray(flac.read_bytes())
    data[21:26] = bytes((data[21] & 0xF0, 0, 0, 0, 0))  # the 36 bits of STREAMINFO that count samples
    path.write_bytes(data)


def cut_sphere(path: Path, flac: Path) -> None:
    path.write_bytes(sphere(bytes(2000), 1001))


def shorten(path: Path, flac: Path) -> None:
    path.write_bytes(sphere(b"ajkg" + bytes(2000), 1000, coding="pcm,embedded-shorten-v2.00"))


def not_finite(path: Path, flac: Path) -> None:
    samples = np.zeros(RATE, np.float32)
    samples[7] = np.nan
    soundfile.write(path, samples, RATE, format="WAV", subtype="FLOAT")


def one_huge_sample(path: Path, flac: Path) -> None:
    samples = np.zeros(RATE, np.float32)
    samples[7] = -1e20
    soundfile.write(path, samples, RATE, format="WAV", subtype="FLOAT")


def not_divided(path: Path, flac: Path) -> None:
    samples = np.random.default_rng(0).integers(-(2**15), 2**15, RATE).astype(np.float64)
    soundfile.write(path, samples, RATE, format="WAV", subtype="DOUBLE")


FAULTS: list[tuple[Callable[[Path, Path], object], str]] = [
    (lambda path, _: None, r"cannot be read \(No such file or directory\); correct the path, or download"),
    (lambda path, _: path.mkdir(), r"cannot be read \(Is a directory\); "),
    (lambda path, _: path.write_bytes(b""), r"is empty; copy or unpack it again"),
    (
        lambda path, _: path.write_text("hello " * 100),
        r"is not audio that libsndfile reads \(Format not recognised\); .*ffmpeg -i IN",
    ),
    (lambda path, _: soundfile.write(path, np.zeros(0), RATE, format="WAV"), r"contains no samples; "),
    (cut_flac, r"is damaged or truncated \(.*\); copy or unpack it again"),
    (hole_in_flac, r"is damaged or truncated \(.*\); copy or unpack it again"),
    (flac_without_length, r"its header does not give its length; .*ffmpeg -i IN OUT.wav"),
    (cut_sphere, r"is truncated: its header gives 3026 bytes, but the file has 3024; "),
    (shorten, r"is compressed \(pcm,embedded-shorten-v2.00\), .*sph2pipe -f wav IN OUT.wav, or ffmpeg -i IN OUT.wav"),
    (
        lambda path, _: soundfile.write(path, np.zeros((RATE, 2)), RATE, format="WAV"),
        r"has 2 channels, but recordings must be mono; mix them: ffmpeg -i IN -ac 1 OUT.wav",
    ),
    (
        lambda path, _: soundfile.write(path, np.zeros(RATE), 8000, format="WAV"),
        r"is sampled at 8000 Hz, but must be at 16000 Hz; convert it: ffmpeg -i IN -ar 16000 OUT.wav",
    ),
    (not_finite, r"contains samples that are not finite numbers; "),
    (one_huge_sample, r"its largest sample is 1e\+20, but samples lie in \[-1, 1\); "),
    (not_divided, r"its largest sample is 3276\d, but samples lie in \[-1, 1\); divide 16-bit integers by 32768, "),
]


@pytest.mark.parametrize(("make", "message"), FAULTS)
def test_one_sentence_for_each_fault(tmp_path: Path, flac: Path, make: Callable[[Path, Path], object], message: str) -> None:
    path = tmp_path / "audio"
    make(path, flac)
    with pytest.raises(UserError) as caught:
        read_audio(str(path), RATE)
    assert re.fullmatch(f"{re.escape(str(path))}: {message}.*", str(caught.value))


@pytest.mark.parametrize("make", [cut_flac, cut_sphere, shorten, not_finite, one_huge_sample])
def test_check_audio_finds_the_end_missing(tmp_path: Path, flac: Path, make: Callable[[Path, Path], object]) -> None:
    make(tmp_path / "audio", flac)
    with pytest.raises(UserError):
        check_audio(str(tmp_path / "audio"))
    assert check_audio(str(flac)) == audio_info(str(flac))


def test_a_short_delivery_is_an_error(tmp_path: Path, noise: np.ndarray) -> None:
    """An mp3 says how long it is, and libsndfile returns what there is without a word."""
    path = tmp_path / "a.mp3"
    soundfile.write(path, noise, RATE)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=r"its header gives 16000 samples, but reading stops at \d+; "):
        read_audio(str(path), RATE)


@pytest.fixture
def mp3(tmp_path: Path) -> Path:
    """3 s of loud noise, 5 s of a soft tone, 3 s of a loud one: frames of a varying bit rate are of very different lengths."""
    time = np.arange(5 * RATE)
    parts = [np.random.default_rng(1).normal(0, 0.2, 3 * RATE), 1e-4 * np.sin(time), 0.3 * np.sin(0.1 * time[: 3 * RATE])]
    soundfile.write(tmp_path / "varying.mp3", np.concatenate(parts), RATE, bitrate_mode="VARIABLE")
    return tmp_path / "varying.mp3"


def without_count(mp3: Path, head: bytes = b"", tail: bytes = b"") -> Path:
    """Write an mp3 without the first frame, which counts the others."""
    content = mp3.read_bytes()
    first = frame_bytes(content[:4])
    assert b"Xing" in content[:first]
    (mp3.parent / "uncounted.mp3").write_bytes(head + content[first:] + tail)
    return mp3.parent / "uncounted.mp3"


def test_parts_of_an_mp3_are_where_they_should_be(mp3: Path) -> None:
    for path in (mp3, without_count(mp3)):
        whole = read_audio(str(path), RATE)
        with open_audio(str(path), RATE) as recording:
            for start, count in ((0, len(whole)), (8 * RATE, RATE), (9 * RATE, RATE), (5 * RATE, RATE)):
                np.testing.assert_allclose(recording.read(start, count), whole[start : start + count], atol=1e-6)


@pytest.mark.parametrize(("head", "tail"), [(b"", b""), (b"ID3\3\0\0\0\0\0\2xx", b"TAG" + b"x" * 125), (b"", bytes(4096))])
def test_an_mp3_without_a_count_of_its_frames_is_read_to_its_end(mp3: Path, head: bytes, tail: bytes) -> None:
    path = without_count(mp3, head, tail)
    assert soundfile.info(str(path)).frames < 5 * RATE, "libsndfile does not guess any more"
    assert check_audio(str(path)).num_samples == pytest.approx(11 * RATE, abs=1600)
    delay = 576 + 1  # the count of LAME removes silence before the first sample, too
    samples, counted = read_audio(str(path), RATE), read_audio(str(mp3), RATE)
    shifts = [np.abs(samples[shift:][: 2 * RATE] - counted[: 2 * RATE]).max() for shift in range(2 * delay)]
    assert min(shifts) < 1e-4


def test_an_mp3_without_a_count_that_is_cut_or_has_more_is_refused(mp3: Path) -> None:
    path = without_count(mp3)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"uncounted.mp3: is truncated: its header gives \d+ bytes, but the file has \d+; "):
        check_audio(str(path))
    path.write_bytes(content + b"x" * 2000)
    with pytest.raises(UserError, match=rf"uncounted.mp3: the frames end at byte {len(content)}, and the rest would not be"):
        check_audio(str(path))


def test_raw_files_must_say_what_they_are_and_be_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.raw"
    path.write_bytes(bytes(2001))
    for entry in (str(path), f"{path}?rate=16000", f"{path}?rate=16000&encoding=f32"):
        with pytest.raises(UserError, match=r"has no header; write it as PATH\?rate=16000&encoding=s16be"):
            read_audio(entry, RATE)
    for read in (audio_info, lambda entry: read_audio(entry, RATE)):
        with pytest.raises(UserError, match=r"a.raw: has 2001 bytes, an odd number, but 16-bit samples are 2 bytes each"):
            read(f"{path}?rate=16000&encoding=s16be")


@pytest.mark.parametrize(("start_s", "end_s"), [(0.5, 0.5), (0.7, 0.2), (-0.1, 0.2), (1.0, None), (3.0, None), (1.005, 1.009)])
def test_segments_without_samples(tmp_path: Path, noise: np.ndarray, start_s: float, end_s: float | None) -> None:
    soundfile.write(tmp_path / "a.wav", noise, RATE)
    with pytest.raises(UserError, match=rf"the segment from {start_s:g} s to .* s is empty, the recording ends at 1\.000 s"):
        read_audio(str(tmp_path / "a.wav"), RATE, start_s, end_s)


@pytest.mark.parametrize(("start_s", "end_s"), [(0.0, 1e308), (1e308, 1e308), (-1e308, 0.5), (1e308, 0.5)])
def test_segments_that_float_cannot_count(tmp_path: Path, noise: np.ndarray, start_s: float, end_s: float) -> None:
    soundfile.write(tmp_path / "a.wav", noise, RATE)
    with pytest.raises(UserError, match=r"the segment .*; correct segments"):
        read_audio(str(tmp_path / "a.wav"), RATE, start_s, end_s)


def test_a_pipe_is_run_once_for_segments_in_a_row(tmp_path: Path, noise: np.ndarray) -> None:
    soundfile.write(tmp_path / "a.wav", noise, RATE)
    entry = f"echo >>{tmp_path}/runs; cat {tmp_path}/a.wav |"
    for start_s in (0.0, 0.25, 0.5):
        segment = read_audio(entry, RATE, start_s, start_s + 0.25, allow_pipes=True)
        np.testing.assert_array_equal(segment * 32768, noise[round(start_s * RATE) :][: RATE // 4])
    assert (tmp_path / "runs").read_text() == "\n"


def test_pipes_are_run_only_on_request(tmp_path: Path, noise: np.ndarray) -> None:
    soundfile.write(tmp_path / "a.wav", noise, RATE)
    witness = tmp_path / "ran"
    entry = f"touch {witness}; cat {tmp_path / 'a.wav'} |"
    for read in (audio_info, check_audio, lambda entry: read_audio(entry, RATE)):
        with pytest.raises(UserError, match=r"is a shell command, which is run only with --allow-pipes"):
            read(entry)
    assert not witness.exists()
    assert audio_info(entry, allow_pipes=True) == AudioInfo(RATE, len(noise), 1)
    np.testing.assert_array_equal(read_audio(entry, RATE, 0.25, 0.5, allow_pipes=True) * 32768, noise[4000:8000])
    assert witness.exists()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("echo one >&2; echo two >&2; exit 3", "failed with exit status 3: two; run it by hand"),
        ("exit 4", "failed with exit status 4: it printed no message; "),
        ("true", "is empty"),
    ],
)
def test_a_failing_pipe_says_why(command: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(f"`{command} |`: {message}")):
        read_audio(f"{command} |", RATE, allow_pipes=True)


def test_channels_are_mixed_in_blocks(tmp_path: Path) -> None:
    """A hundred channels; a block of them has 10,485 samples."""
    samples = np.random.default_rng(0).integers(-900, 900, (30_000, 100), dtype=np.int16)
    soundfile.write(tmp_path / "many.wav", samples, RATE)
    with open_audio(str(tmp_path / "many.wav"), None) as recording:
        mixed = recording.read_mono(100, 25_000)
        assert recording.read_mono(100, 0).shape == (0,)
    np.testing.assert_allclose(mixed, samples[100:25_100].mean(axis=1) / 32768, atol=1e-6)


def test_hours_of_silence_are_not_unpacked_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asrprune.features.audio._MOST_UNPACKED", 9000)
    for ending in ("flac", "wav"):
        soundfile.write(tmp_path / f"a.{ending}", np.zeros(16000), 16000)
    with pytest.raises(UserError, match=r"a\.flac: 0\.0 hours are compressed in one piece"):
        read_audio(str(tmp_path / "a.flac"), 16000)
    assert len(read_audio(str(tmp_path / "a.flac"), 16000, 0.0, 0.5)) == 8000
    assert len(read_audio(str(tmp_path / "a.wav"), 16000)) == 16000
