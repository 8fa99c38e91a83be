"""An archive: every recording below a folder transcribed once, whatever its name, and whatever happens meanwhile."""

import errno
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers import bad_sound, nano_pair
from whisper_lab import audio, flags
from whisper_lab.archive import claims, cli, find, run, share, store

ROOT = Path(__file__).resolve().parent.parent
MEDIA = ROOT / "media"
KITCHEN, DIGITS, TIME = "turn on the lights in the kitchen", "four seven two nine one eight", "wake me up at six thirty"
BYTES = os.name == "posix" and sys.platform != "darwin"  # whether a name is any bytes


@pytest.fixture(scope="module")
def pair(nano_export, tmp_path_factory) -> Path:
    return nano_pair.take(nano_export, tmp_path_factory.mktemp("archive") / "pair", "_int8")


@pytest.fixture
def archive(tmp_path) -> Path:
    """A folder with recordings and other things."""
    folder = tmp_path / "recordings"
    (folder / "week 1" / "monday").mkdir(parents=True)
    shutil.copy(MEDIA / "kitchen.wav", folder)
    shutil.copy(MEDIA / "digits.wav", folder / "week 1")
    shutil.copy(MEDIA / "time.wav", folder / "week 1" / "monday")
    (folder / "week 1" / "notes.txt").write_text("no sound")
    return folder


@pytest.fixture
def transcribe(call_script, pair, archive, tmp_path):
    """A function (options) -> (exit status, stdout, stderr) of the archive's command, in this process."""
    def call(*options: object, folder: Path = archive, output: Path = tmp_path / "out") -> tuple[int, str, str]:
        return call_script("whisper_lab.__main__", "archive", folder, "--output-dir", output, *graphs(pair), *options)
    return call


def graphs(pair: Path) -> list[str]:
    return ["--model", "nano", "--precision", "int8", "--model-dir", str(pair), "--threads", "1"]


def documents(output: Path) -> dict[str, dict]:
    """Place -> document, of every transcript."""
    return {str(path.relative_to(output)): json.loads(path.read_text(encoding="utf-8"))
            for path in output.rglob("*.json") if store.STATE not in path.parts}


def texts(output: Path) -> dict[str, str]:
    """Recording -> text."""
    return {found["clips"][0]["file"]: found["clips"][0]["text"] for found in documents(output).values()}


def written(output: Path) -> dict[str, tuple]:
    """Place -> what tells that a document was not written again."""
    return {place: ((output / place).stat().st_mtime_ns, (output / place).stat().st_ino) for place in documents(output)}


def litter(output: Path) -> list[str]:
    """What a finished run must not leave."""
    return [path.name for path in (output / store.STATE / store.CLAIMS).iterdir()] + \
        [path.name for path in output.rglob("*.part")]


# What is done ---------------------------------------------------------------------------------------------------------

def test_each_recording_has_a_document_in_the_same_folder(transcribe, archive, tmp_path):
    status, out, err = transcribe()
    assert status == 0 and "3 recordings transcribed" in out and "1 other file left alone" in err
    assert texts(tmp_path / "out") == {"kitchen.wav": KITCHEN, "week 1/digits.wav": DIGITS,
                                       "week 1/monday/time.wav": TIME}
    assert set(documents(tmp_path / "out")) == {"kitchen.wav.json", "week 1/digits.wav.json",
                                                "week 1/monday/time.wav.json"}
    assert litter(tmp_path / "out") == []


def test_a_document_is_what_json_writes_and_what_an_archive_has_to_know(transcribe, call_script, pair, tmp_path):
    transcribe("--batch-size", 1)  # several side by side are rounded differently in the last digits
    made = documents(tmp_path / "out")["kitchen.wav.json"]
    call_script("whisper_lab.__main__", MEDIA / "kitchen.wav", *graphs(pair), "--batch-size", 1, "--json",
                tmp_path / "one.json")
    alone = json.loads((tmp_path / "one.json").read_text(encoding="utf-8"))
    clip, other = made.pop("clips")[0], alone.pop("clips")[0]
    assert made == alone and made["machine"]["versions"]["onnxruntime"]
    assert {key: clip[key] for key in other if key != "transcribe_s"} == \
        {key: value for key, value in other.items() if key != "transcribe_s"}
    assert 0 < clip["real_time_factor"] < 10 and clip["transcribe_s"] > 0
    assert clip["source"]["sha256"] == store.digest(MEDIA / "kitchen.wav")
    assert clip["source"]["bytes"] == (MEDIA / "kitchen.wav").stat().st_size


def test_names_of_any_kind(transcribe, archive, tmp_path):
    names = ["lecture.wav", "lecture.flac", "lecture.WAV.wav", "=1+1.wav", "-rf.wav", "line\nend.wav",
             "a" * 251 + ".wav", "mädchen.wav", ".wav.wav", "kitchen.wav.json/deep.wav"]
    if BYTES:
        names.append(os.fsdecode(b"caf\xe9.wav"))
    (archive / "kitchen.wav.json").mkdir()  # the place of kitchen.wav's document, by its name
    for name in names:
        shutil.copy(MEDIA / "digits.wav", archive / name)
    (archive / ".hidden.wav").write_bytes(b"no sound")
    (archive / ".snapshot").mkdir()
    (archive / ".snapshot" / "old.wav").write_bytes(b"no sound")
    status, out, err = transcribe()
    expected = {name: DIGITS for name in names if not name.startswith(".")}
    assert status == 0, err
    assert texts(tmp_path / "out") == {"kitchen.wav": KITCHEN, "week 1/digits.wav": DIGITS,
                                       "week 1/monday/time.wav": TIME, **expected}
    assert transcribe()[1].startswith("0 recordings transcribed")


def test_links_are_followed_once_and_in_circles_end(transcribe, archive, tmp_path):
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    shutil.copy(MEDIA / "time.wav", outside / "late.wav")
    (outside / "back").symlink_to(archive)
    (archive / "a link").symlink_to(outside)
    (archive / "b link").symlink_to(outside)
    (archive / "circle").symlink_to(".")
    (archive / "inside").symlink_to("week 1")
    (archive / "gone.wav").symlink_to("nowhere.wav")
    (archive / "self.wav").symlink_to("self.wav")
    status, out, _ = transcribe()
    assert status == 1 and set(texts(tmp_path / "out")) == {"kitchen.wav", "week 1/digits.wav",
                                                            "week 1/monday/time.wav", "a link/late.wav"}
    assert "failed: gone.wav: no such file: gone.wav\n" in out and "failed: self.wav: cannot read self.wav" in out


def test_the_output_may_be_inside_the_archive(transcribe, archive):
    assert transcribe(output=archive / "text")[0] == 0
    shutil.copy(MEDIA / "digits.wav", archive / "text" / "result.wav")
    assert transcribe(output=archive / "text")[1].startswith("0 recordings transcribed")


def test_the_output_may_be_the_archive_itself(transcribe, call_script, archive):
    (archive / "references.json").write_text("{}")
    assert transcribe(output=archive)[1].startswith("3 recordings transcribed")
    assert transcribe(output=archive)[1].startswith("0 recordings transcribed")
    status, out, _ = call_script("whisper_lab.__main__", "archive", "collect", archive)
    assert status == 0 and re.search(r"recordings +3 ", out) and (archive / "archive.csv").exists()


def test_what_is_finished_is_not_done_again_and_what_is_new_is(transcribe, archive, tmp_path):
    transcribe()
    before = written(tmp_path / "out")
    status, out, err = transcribe()
    assert status == 0 and "3 done before" in out and written(tmp_path / "out") == before
    shutil.copy(MEDIA / "digits.wav", archive / "new.wav")
    status, out, _ = transcribe()
    after = written(tmp_path / "out")
    assert out.startswith("1 recording transcribed") and set(after) - set(before) == {"new.wav.json"}
    assert {place: after[place] for place in before} == before


def test_a_changed_recording_is_done_again_and_one_that_was_only_copied_again_is_not(transcribe, archive, tmp_path):
    transcribe()
    os.utime(archive / "kitchen.wav", (1, 1))  # as a copy without -p leaves it, or another machine's clock
    assert transcribe()[1].startswith("0 recordings transcribed")
    shutil.copy(MEDIA / "digits.wav", archive / "kitchen.wav")
    status, out, _ = transcribe()
    assert out.startswith("1 recording transcribed") and texts(tmp_path / "out")["kitchen.wav"] == DIGITS


def test_other_bytes_of_the_same_size_and_time_are_seen_when_asked_for(transcribe, archive, tmp_path):
    transcribe()
    clip = archive / "kitchen.wav"
    before = clip.stat()
    data = bytearray(clip.read_bytes())
    data[-1] ^= 1
    clip.write_bytes(data)
    os.utime(clip, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert transcribe()[1].startswith("0 recordings transcribed")
    assert transcribe("--check-content")[1].startswith("1 recording transcribed")
    assert transcribe("--check-content")[1].startswith("0 recordings transcribed")


def test_a_document_that_is_not_whole_is_made_again(transcribe, tmp_path):
    transcribe()
    place = tmp_path / "out" / "kitchen.wav.json"
    place.write_text(place.read_text(encoding="utf-8")[:500], encoding="utf-8")
    assert transcribe()[1].startswith("1 recording transcribed") and texts(tmp_path / "out")["kitchen.wav"] == KITCHEN


@pytest.mark.parametrize("option, name, before, now", [("--language", "language", "not given", "en"),
                                                       ("--batch-size", "batch_size", 4, 2)])
def test_other_settings_are_refused_and_the_remedy_makes_all_again(transcribe, archive, tmp_path, option, name, before,
                                                                   now):
    transcribe()
    status, _, err = transcribe(option, now)
    error, remedy = err.splitlines()[-2:]
    assert status == 1 and f"has transcripts made with {name} {before}, not {now}" in error
    typed = shlex.split(remedy[remedy.index("python -m"):])
    done = subprocess.run([sys.executable, *typed[1:]], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.startswith("3 recordings transcribed"), done.stderr
    assert {found["settings"][name] for found in documents(tmp_path / "out").values()} == {now}
    assert transcribe(option, now)[1].startswith("0 recordings transcribed")


@pytest.mark.parametrize("damaged", ["{half", "{}", "[]", '{"settings": 3}'])
def test_damaged_settings_are_written_again(transcribe, tmp_path, damaged):
    transcribe()
    place = tmp_path / "out" / ".archive" / "settings.json"
    before = place.read_text(encoding="utf-8")
    place.write_text(damaged, encoding="utf-8")
    assert transcribe()[1].startswith("0 recordings transcribed") and place.read_text(encoding="utf-8") == before


@pytest.mark.parametrize("make, problem", [
    (lambda path: None, "there is no folder"), (lambda path: path.write_bytes(b""), "is a file, and an archive is a"),
    (lambda path: path.mkdir(), "no sound file in")])
def test_what_is_no_archive(transcribe, tmp_path, make, problem):
    make(tmp_path / "it")
    status, _, err = transcribe(folder=tmp_path / "it")
    assert status == 1 and problem in err.splitlines()[-2] and err.splitlines()[-1].startswith("  try: ")


def test_one_file_is_transcribed_alone_with_the_same_graphs(transcribe, tmp_path):
    (tmp_path / "it.wav").write_bytes(b"")
    _, _, err = transcribe("--precision", "int8", folder=tmp_path / "it.wav")
    typed = shlex.split(err.splitlines()[-1].partition("alone: ")[2])
    assert typed[:4] == ["python", "-m", "whisper_lab", str(tmp_path / "it.wav")]
    assert typed[4:6] == ["--model", "nano"] and "--model-dir" in typed and typed[-2:] == ["--precision", "int8"]


def test_a_file_in_the_place_of_the_transcripts_is_told_before_graphs_are_opened(transcribe, tmp_path):
    (tmp_path / "out").write_text("mine")
    status, _, err = transcribe()
    assert status == 1 and err.splitlines()[-2].endswith("out is a file, not a folder") and "graphs:" not in err
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/0", "a/b", "-1/2", "1/2/3"])
def test_a_shard_that_is_none(transcribe, text):
    status, _, err = transcribe(f"--shard={text}")
    assert status == 2 and "1/8 is the first of eight" in err


def test_help_fits_a_screen(call_script):
    for words in (["archive"], ["archive", "collect"]):
        status, out, _ = call_script("whisper_lab.__main__", *words, "--help")
        assert status == 0 and out.startswith(f"usage: python -m whisper_lab {' '.join(words)}")
        assert len(out.splitlines()) <= flags.SCREEN
    assert "python -m whisper_lab archive" in call_script("whisper_lab.__main__", "--help")[1]


# Shards ---------------------------------------------------------------------------------------------------------------

def test_shards_are_disjoint_complete_and_stay_when_files_arrive():
    def shards_of(names, shards):
        made = [find.Recording(name, Path(name)) for name in names]
        return [{one.name for one in made if one.is_in(i, shards)} for i in range(1, shards + 1)]

    names = [f"week {i % 7}/{i}.wav" for i in range(1000)]
    for shards in (1, 2, 7, 16):
        parts = shards_of(names, shards)
        assert sum(map(len, parts)) == 1000 and set().union(*parts) == set(names)
        assert min(map(len, parts)) > 0.6 * 1000 / shards
        later = shards_of(["aaa.wav", *names, "zzz.wav"], shards)
        assert all(part <= now for part, now in zip(parts, later, strict=True))


def test_shards_together_do_it_all_once(transcribe, tmp_path):
    transcribed = []
    for i in (1, 2, 3):
        status, out, _ = transcribe("--shard", f"{i}/3")
        transcribed.append(int(out.split()[0]))
    assert sum(transcribed) == 3 and len(texts(tmp_path / "out")) == 3


# Failures -------------------------------------------------------------------------------------------------------------

def test_failures_are_listed_and_tried_again_when_asked_for_or_changed(transcribe, archive, tmp_path, monkeypatch):
    (archive / "bad.wav").write_text("no sound")
    (archive / "empty.mp3").write_bytes(b"")
    status, out, err = transcribe()
    assert status == 1 and out.startswith("failed: bad.wav: bad.wav is not sound that can be read (")
    assert "failed: empty.mp3: empty.mp3 is empty (0 bytes)\n3 recordings transcribed" in out and "2 failed" in out

    loaded = []
    load = audio.load
    monkeypatch.setattr(audio, "load", lambda path: loaded.append(path.name) or load(path))
    status, out, err = transcribe()
    assert status == 1 and "failed: bad.wav" in out and loaded == []
    assert "not tried again: 2 recordings" in err and "; to try them again: python -m whisper_lab archive " in err
    shutil.copy(MEDIA / "digits.wav", archive / "bad.wav")
    status, out, _ = transcribe()
    assert loaded == ["bad.wav"] and "1 recording transcribed" in out and "failed: bad.wav" not in out
    status, out, _ = transcribe("--retry-failed")
    assert status == 1 and loaded == ["bad.wav", "empty.mp3"]
    (archive / "empty.mp3").unlink()
    assert transcribe()[0] == 0


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes among the files here")
def test_whatever_lies_there_costs_a_line(transcribe, archive, tmp_path):
    kinds = [kind for kind in bad_sound.KINDS if kind not in ("missing", "folder")]
    for kind in kinds:
        bad_sound.bad_file(kind, archive)
    os.mkfifo(archive / "pipe.wav")
    (archive / "folder.wav").mkdir()
    status, out, _ = transcribe()
    listed = re.findall(r"^failed: (\S+): (.*)$", out, re.M)
    assert status == 1 and [name for name, _ in listed] == sorted(f"{kind}.wav" for kind in [*kinds, "pipe"])
    assert ("pipe.wav", "pipe.wav is a pipe or device, not a file") in listed and len(texts(tmp_path / "out")) == 3


def test_a_recording_that_the_model_fails_on_does_not_take_the_others_with_it(transcribe, tmp_path, monkeypatch):
    from whisper_lab.transcribe import transcribe_many

    def fail(runtime, recordings, *rest, **more):
        if any(abs(len(samples) / 16000 - audio.load(MEDIA / "digits.wav").duration) < 0.01 for samples in recordings):
            raise RuntimeError("no memory for this one\nand more")
        return transcribe_many(runtime, recordings, *rest, **more)

    monkeypatch.setattr("whisper_lab.transcribe.transcribe_many", fail)
    status, out, _ = transcribe()
    assert status == 1 and "failed: week 1/digits.wav: RuntimeError: no memory for this one\n" in out
    assert set(texts(tmp_path / "out")) == {"kitchen.wav", "week 1/monday/time.wav"}


def test_a_folder_that_cannot_be_read_is_a_failure(transcribe, archive, tmp_path, monkeypatch):
    listed = find._listed

    def refuse(path):
        if path.name == "monday":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(find, "_listed", refuse)
    status, out, _ = transcribe()
    assert status == 1 and "failed: week 1/monday/: cannot read this folder: Permission denied" in out
    assert len(texts(tmp_path / "out")) == 2


# A share that disappears ----------------------------------------------------------------------------------------------

@pytest.fixture
def leaving(archive, tmp_path, monkeypatch):
    """A function (how, pauses): when the second recording is loaded the archive is gone, for so many pauses."""
    def arrange(how: str, pauses: int) -> list[float]:
        paused, loads, load = [], [], audio.load

        def go(path):
            loads.append(path)
            if len(loads) == 2:
                archive.rename(tmp_path / "away")
                if how == "not mounted":
                    archive.mkdir()
            return load(path)

        def pause(seconds):
            paused.append(seconds)
            if len(paused) == pauses:
                if archive.exists():
                    archive.rmdir()
                (tmp_path / "away").rename(archive)

        monkeypatch.setattr(audio, "load", go)
        monkeypatch.setattr(share.time, "sleep", pause)
        return paused
    return arrange


@pytest.mark.parametrize("how", ["gone", "not mounted"])
def test_a_share_that_is_away_for_a_moment_is_waited_for(transcribe, leaving, tmp_path, how):
    paused = leaving(how, 4)
    status, out, err = transcribe()
    assert status == 0 and paused == [0.5, 1, 2, 4] and "trying again for 60 s" in err
    assert sorted(texts(tmp_path / "out").values()) == sorted([KITCHEN, DIGITS, TIME])


@pytest.mark.parametrize("batch_size", [1, 8])
def test_a_share_that_stays_away_ends_the_run_and_nothing_is_lost(transcribe, leaving, archive, tmp_path, monkeypatch,
                                                                  batch_size):
    paused = leaving("gone", -1)
    status, out, err = transcribe("--patience", 30, "--batch-size", batch_size)
    error, remedy = err.splitlines()[-2:]
    assert status == 1 and f"{archive} has been out of reach for 30 s" in error and sum(paused) == 30
    assert texts(tmp_path / "out") == {"kitchen.wav": KITCHEN} and litter(tmp_path / "out") == []
    (tmp_path / "away").rename(archive)
    monkeypatch.undo()
    typed = shlex.split(remedy[remedy.index("python -m"):])
    done = subprocess.run([sys.executable, *typed[1:]], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "2 recordings transcribed" in done.stdout and "1 done before" in done.stdout


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_an_error_of_the_disk_is_tried_again_then_listed_and_tried_by_the_next_run(transcribe, tmp_path, monkeypatch,
                                                                                   number):
    digest, paused = store.digest, []

    def fail(path):
        if path.name == "digits.wav":
            raise OSError(number, os.strerror(number), str(path))
        return digest(path)

    monkeypatch.setattr(store, "digest", fail)
    monkeypatch.setattr(share.time, "sleep", paused.append)
    status, out, _ = transcribe("--patience", 10)
    assert status == 1 and f"failed: week 1/digits.wav: cannot read digits.wav: {os.strerror(number)}" in out
    assert sum(paused) == 10 and len(texts(tmp_path / "out")) == 2
    monkeypatch.setattr(store, "digest", digest)
    status, out, _ = transcribe()
    assert status == 0 and out.startswith("1 recording transcribed") and len(texts(tmp_path / "out")) == 3


def test_a_disk_of_the_output_that_is_away_is_waited_for(transcribe, tmp_path, monkeypatch):
    replace, failed, paused = os.replace, [], []

    def fail(source, target):
        if str(target).endswith("kitchen.wav.json") and len(failed) < 2:
            failed.append(target)
            raise OSError(errno.ESTALE, "Stale file handle", str(target))
        return replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    monkeypatch.setattr(share.time, "sleep", paused.append)
    assert transcribe()[0] == 0 and len(failed) == 2 and len(texts(tmp_path / "out")) == 3


@pytest.mark.parametrize("how", ["gone", "not mounted"])
def test_no_transcript_is_written_to_where_the_output_disk_was(transcribe, tmp_path, monkeypatch, how):
    output, away, load, loads, paused = tmp_path / "out", tmp_path / "away", audio.load, [], []

    def go(path):
        loads.append(path)
        if len(loads) == 2:
            output.rename(away)
            if how == "not mounted":
                output.mkdir()
        return load(path)

    def pause(seconds):
        paused.append(seconds)
        if len(paused) == 3:
            assert not output.exists() or not list(output.iterdir())
            shutil.rmtree(output, ignore_errors=True)
            away.rename(output)

    monkeypatch.setattr(audio, "load", go)
    monkeypatch.setattr(share.time, "sleep", pause)
    status, out, err = transcribe("--batch-size", 1)
    assert status == 0 and len(paused) == 3 and len(texts(output)) == 3 and litter(output) == [], err


def test_a_full_disk_ends_the_run_with_two_lines(transcribe, tmp_path, monkeypatch):
    replace = os.replace

    def fail(source, target):
        if str(target).endswith("digits.wav.json"):
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        return replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    status, _, err = transcribe("--batch-size", 1)
    assert status == 1 and "digits.wav.json: No space left on device" in err.splitlines()[-2]
    assert texts(tmp_path / "out") == {"kitchen.wav": KITCHEN} and litter(tmp_path / "out") == []


# Processes ------------------------------------------------------------------------------------------------------------

@pytest.fixture
def many(tmp_path) -> Path:
    """An archive of sixty recordings."""
    folder = tmp_path / "many"
    for i in range(60):
        name = folder / str(i % 6) / f"{i}.wav"
        name.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(MEDIA / ("digits.wav" if i % 2 else "time.wav"), name)
    return folder


def start(folder: Path, output: Path, pair: Path, *options: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", "whisper_lab", "archive", str(folder), "--output-dir", str(output),
                             *graphs(pair), *options], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True)


def wait_for(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def transcribed(out: str) -> int:
    return int(re.search(r"^(\d+) recordings? transcribed", out, re.M)[1])


def test_killed_in_the_middle_nothing_is_lost_and_nothing_done_twice(many, pair, tmp_path):
    output = tmp_path / "out"
    process = start(many, output, pair, "--batch-size", "2")
    wait_for(lambda: len(list(output.rglob("*.wav.json"))) > 5)
    process.kill()
    process.communicate()
    before = written(output)  # all whole: they are read
    assert 5 < len(before) < 60 and litter(output)
    process = start(many, output, pair, "--batch-size", "2")
    out, err = process.communicate(timeout=120)
    after = written(output)
    assert process.returncode == 0 and transcribed(out) == 60 - len(before), err
    assert len(after) == 60 and {place: after[place] for place in before} == before and litter(output) == []


def test_processes_on_one_shard_share_it(many, pair, tmp_path):
    output = tmp_path / "out"
    processes = [start(many, output, pair, "--batch-size", "1") for _ in range(3)]
    ended = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], ended
    assert sum(transcribed(out) for out, _ in ended) == 60 and len(texts(output)) == 60 and litter(output) == []


def test_what_a_living_process_has_claimed_is_left_to_it(transcribe, tmp_path):
    (tmp_path / "out" / store.STATE).mkdir(parents=True)
    with claims.Worker(tmp_path / "out" / store.STATE / store.CLAIMS, "another") as other:
        other.claim(find.key_of("kitchen.wav"))
        status, out, err = transcribe()
        assert status == 0 and out.startswith("2 recordings transcribed")
        assert "left: 1 recording (another process is at work on them)" in err
        assert set(texts(tmp_path / "out")) == {"week 1/digits.wav", "week 1/monday/time.wav"}
    assert transcribe()[1].startswith("1 recording transcribed")


def test_what_another_machine_claimed_is_taken_when_it_shows_no_life(transcribe, tmp_path, monkeypatch):
    (tmp_path / "out" / store.STATE).mkdir(parents=True)
    monkeypatch.setattr(cli, "LEASE_S", 0.3)
    with monkeypatch.context() as there:
        there.setattr(claims.locks, "machine", lambda: "0" * 8)
        other = claims.Worker(tmp_path / "out" / store.STATE / store.CLAIMS, "another", beat_s=1e6)
        other.__enter__()
    other.claim(find.key_of("kitchen.wav"))
    status, out, err = transcribe("--patience", 0)
    assert status == 0 and out.startswith("3 recordings transcribed") and "waiting: 1 recording" in err
    other.__exit__()
    assert litter(tmp_path / "out") == []


def test_a_process_that_ends_while_it_writes_leaves_what_was_there(transcribe, archive, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def die(source, target):
        assert json.loads(Path(source).read_text(encoding="utf-8"))["clips"]
        raise Killed

    transcribe()
    before = documents(tmp_path / "out")
    shutil.copy(MEDIA / "digits.wav", archive / "kitchen.wav")
    with monkeypatch.context() as killed, pytest.raises(Killed):
        killed.setattr(os, "replace", die)
        transcribe()
    assert documents(tmp_path / "out") == before
    assert transcribe()[1].startswith("1 recording transcribed") and texts(tmp_path / "out")["kitchen.wav"] == DIGITS


def test_sigterm_gives_back_what_was_claimed(many, pair, tmp_path):
    output = tmp_path / "out"
    process = start(many, output, pair, "--batch-size", "4")
    wait_for(lambda: len(list(output.rglob("*.wav.json"))) > 3)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143 and litter(output) == [] and len(documents(output)) < 60


def test_a_recording_that_processes_die_of_is_listed_in_the_end(transcribe, archive, tmp_path, monkeypatch):
    """As if the system ended each process for its memory: the claim stays, its lock is free."""
    class Killed(BaseException):
        pass

    load = audio.load

    def die(path):
        if path.name == "digits.wav":
            raise Killed
        return load(path)

    monkeypatch.setattr(run.audio, "load", die)
    release = run.Claim.release
    for _ in range(run.MOST_DEATHS):
        with monkeypatch.context() as killed, pytest.raises(Killed):
            killed.setattr(run.Claim, "release", lambda claim: None)  # kill -9 gives nothing back
            transcribe()
    assert run.Claim.release is release
    status, out, _ = transcribe()
    assert status == 1 and "failed: week 1/digits.wav: 4 processes ended without a result" in out
    assert set(texts(tmp_path / "out")) == {"kitchen.wav", "week 1/monday/time.wav"} and litter(tmp_path / "out") == []
    monkeypatch.setattr(run.audio, "load", load)
    assert "0 recordings transcribed" in transcribe()[1]
    status, out, _ = transcribe("--retry-failed")
    assert status == 0 and out.startswith("1 recording transcribed")


# Its measurement ------------------------------------------------------------------------------------------------------

def test_the_benchmark_measures_what_it_says(run_script, pair):
    from benchmarks import archive

    done = run_script("benchmarks/archive.py", "--files", 12, "--model-dir", pair)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert made["files"] == made["rows"] == made["texts_right"] == 12 and 30 < made["sound_s"] < 60
    assert made["files_per_processor_s"] == pytest.approx(12 / made["runs"]["first"]["processor_s"], abs=0.01)
    assert made["runs"]["first"]["peak_rss_bytes"] > 30e6
    assert "| recordings, hours of sound | 12, 0.0 |" in archive.table(made)
    assert not list((ROOT / "benchmarks" / "work").glob("archive-*"))
