"""What names of files, folders and patterns stand for."""

import os
import subprocess
from functools import partial
from pathlib import Path

import pytest

from asrprune.decode.words import Hypothesis
from asrprune.runtime.errors import UserError
from asrprune.transcribe.recordings import check_names, find_recordings
from asrprune.transcribe.run import transcribe_all


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """talks/: audio files at two levels, a text, an odd name; it is in the current directory."""
    for name in ("b.wav", "a.FLAC", "notes.txt", "more/c.mp3", "more/d [1].wav", "empty/readme.md"):
        path = tmp_path / "talks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return Path("talks")


def entries(*given: str) -> list[str]:
    found, faults = find_recordings(given)
    assert not faults
    return [recording.entry for recording in found]


def test_a_folder_stands_for_its_audio_files(folder: Path) -> None:
    found, faults = find_recordings(["talks"])
    assert [r.entry for r in found] == ["talks/a.FLAC", "talks/b.wav", "talks/more/c.mp3", "talks/more/d [1].wav"]
    assert [str(r.name) for r in found] == ["a", "b", "more/c", "more/d [1]"]
    assert faults == []
    found, faults = find_recordings(["talks/empty", "talks/b.wav"])
    assert [r.entry for r in found] == ["talks/b.wav"]
    assert len(faults) == 1
    assert faults[0].startswith("talks/empty: has no audio files, whose names end in .aif, .aifc")


def test_a_data_directory_is_left_to_decode(folder: Path) -> None:
    (folder / "empty/wav.scp").write_text("a a.wav\n")
    found, (fault,) = find_recordings(["talks/empty"])
    assert (found, fault) == (
        [],
        "talks/empty: has no audio files, but is a data directory; `asrprune decode` transcribes one",
    )


def test_patterns_match_files_and_folders(folder: Path) -> None:
    assert entries("talks/*.wav") == ["talks/b.wav"]
    assert entries("talks/**/*.mp3", "talks/mo?e") == ["talks/more/c.mp3", "talks/more/c.mp3", "talks/more/d [1].wav"]


def test_patterns_lead_neither_in_circles_nor_to_pipes(folder: Path) -> None:
    for name in ("x", "y"):
        (folder / "more" / name).symlink_to("..")
    os.mkfifo(folder / "more" / "f.mp3")
    found, faults = find_recordings(["talks/**/*.mp3"])
    assert [recording.entry for recording in found] == ["talks/more/c.mp3"]
    assert faults == ["talks/more/f.mp3: is a pipe or a device, which a pattern does not mean; name it"]
    assert entries("talks/mo*/**") == ["talks/more/c.mp3", "talks/more/d [1].wav"]
    assert entries("**/more/**/d*") == ["talks/more/d [1].wav"]


def test_folders_of_any_depth_and_names_without_a_stem(folder: Path) -> None:
    (folder / "more" / "..wav").touch()
    here = os.open(folder / "empty", os.O_RDONLY)
    for _ in range(1200):  # more than Python can call itself
        os.mkdir("d", dir_fd=here)
        here, above = os.open("d", os.O_RDONLY, dir_fd=here), here
        os.close(above)
    os.close(os.open("e.wav", os.O_CREAT, dir_fd=here))
    os.close(here)
    try:
        for given, dotted in (("talks", ["..wav"]), ("**/*.wav", [])):
            found, _ = find_recordings([given])
            assert sorted(each.name.name for each in found if each.entry.endswith(".wav")) == [*dotted, "b", "d [1]", "e"]
    finally:
        subprocess.run(["rm", "-r", folder / "empty"], check=True)  # pytest could not do it


def test_a_name_that_exists_or_matches_nothing_stands_for_itself(folder: Path) -> None:
    """Also if it looks like a pattern: headerless audio, recordings in archives, a missing file, which the reader reports."""
    plain = [
        "talks/more/d [1].wav",
        "talks/notes.txt",
        "-",
        "none.wav",
        "x.raw?rate=16000&encoding=s16be",
        "x.ark:12",
        "no*.wav",
    ]
    assert entries(*plain) == plain
    assert [str(r.name) for r in find_recordings(["-", "talks/b.wav"])[0]] == ["stdin", "b"]


def test_results_of_one_name_are_refused(folder: Path) -> None:
    os.link("talks/b.wav", "b.flac")
    with pytest.raises(UserError, match=r"talks/b\.wav and b\.flac: the results of both would be called b; rename one"):
        check_names(find_recordings(["talks", "b.flac"])[0])
    check_names(find_recordings(["talks", "talks/b.wav"])[0])


@pytest.mark.parametrize("ignores_case", [True, False])
def test_results_that_differ_in_letter_case_alone_are_refused_where_they_would_be_one_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, ignores_case: bool
) -> None:
    os.link("talks/b.wav", "B.flac")
    monkeypatch.setattr(os.path, "exists", lambda path: ignores_case)
    recordings = find_recordings(["talks/b.wav", "B.flac"])[0]
    run = partial(transcribe_all, lambda entries: [UserError(entry) for entry in entries])
    if not ignores_case:
        assert run(recordings, "text", Path("out"), print) == ["talks/b.wav", "B.flac"]
        return
    with pytest.raises(UserError, match=r"talks/b\.wav and B\.flac: the results of both would be called b; rename one"):
        run(recordings, "text", Path("out"), print)
    assert not list(Path("out").iterdir())


def test_what_lies_beside_a_recording_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recording of an odd name, or its reference."""
    monkeypatch.chdir(tmp_path)
    for name in ("rec.txt", "talk.wav", "talk.json"):
        Path(name).write_text(name)
    run = partial(transcribe_all, lambda entries: [UserError(entry) for entry in entries])
    for entry, form, there in (("rec.txt", "text", "rec.txt"), ("talk.wav", "json", "talk.json")):
        recordings = find_recordings([entry])[0]
        with pytest.raises(UserError, match=rf"{there}: is there already, beside its recording"):
            run(recordings, form, tmp_path, print)
        assert run(recordings, form, tmp_path / "out", print) == [entry]
    assert run(find_recordings(["talk.wav"])[0], "srt", tmp_path, print) == ["talk.wav"]


def test_names_on_lines_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line break in a name would begin another line."""
    monkeypatch.chdir(tmp_path)
    for name in ("a b.wav", "a\nb.wav"):
        Path(name).touch()
    recordings = find_recordings(["a b.wav", "a\nb.wav"])[0]
    for form in ("text", "tsv"):
        with pytest.raises(UserError, match=r"the results of both would be called a b\.wav; rename one"):
            transcribe_all(lambda entries: [], recordings, form, None, print)
    lines: list[str] = []
    transcribe_all(lambda entries: [Hypothesis("yes", (), (1,))], recordings[1:], "text", None, lines.append)
    assert lines == ["a b.wav yes"]


def test_names_in_a_ctm_file_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a b.wav", "a_b.wav", "c.wav"):
        Path(name).touch()
    recordings = find_recordings(["a b.wav", "c.wav", "a_b.wav"])[0]
    for form, output_dir in (("ctm", None), ("text", None), ("ctm", tmp_path / "out")):
        run = partial(
            transcribe_all, lambda entries: [UserError(entry) for entry in entries], recordings, form, output_dir, print
        )
        if form == "ctm" and output_dir is None:
            with pytest.raises(UserError, match=r"a b\.wav and a_b\.wav: the results of both would be called a_b"):
                run()
        else:
            assert run() == ["a b.wav", "c.wav", "a_b.wav"]
