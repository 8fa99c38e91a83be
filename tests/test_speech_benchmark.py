"""The part of the benchmark on speech: which clips it takes, whose turn it is, what it makes of the answers."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.helpers.benchmark_files import module
from whisper_lab import audio
from whisper_lab.console import LabError

ROOT = Path(__file__).resolve().parent.parent
speech, report, speech_report = (module(name) for name in ("speech", "report", "speech_report"))


def sound(name: str, seconds: float, language: str = "en", text: str = "one two"):
    clip = module("corpora").Clip(name, Path(name), text, language, "")
    return speech.Sound(clip, Path(f"{name}.wav"), seconds)


# Which clips ----------------------------------------------------------------------------------------------------------

@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """A function: lengths in s, by name and language -> the works that are chosen of such clips."""
    def choose(lengths: dict[str, float], language: str = "en"):
        clips = []
        for name, seconds in lengths.items():
            audio.write_wav(tmp_path / f"{name}.wav", np.full(round(seconds * 16000), 0.01, np.float32))
            clips.append(module("corpora").Clip(name, tmp_path / f"{name}.wav", f"said in {name}", language, ""))
        return speech.choose(clips, tmp_path / "made")
    return choose


def test_short_clips_are_spread_over_the_lengths(corpus):
    works = corpus({f"clip{i:02}": 2 + i * 0.25 for i in range(40)} | {"too short": 1.5, "too long": 12.5})
    lengths = [one.seconds for one in works.clips]
    assert len(lengths) == 24 and lengths == sorted(lengths) and (lengths[0], lengths[-1]) == (2.0, 11.75)
    assert {one.seconds for one in works.of("commands")} == {length for length in lengths if length <= 4}
    assert works.of("short") == works.clips and works.cold[0].seconds == 11.0


def test_without_a_long_recording_clips_are_joined_with_pauses(corpus, monkeypatch):
    monkeypatch.setattr(speech, "LONG", (10, 16))
    works = corpus({"a": 4, "b": 5, "c": 3, "d": 4})
    (long,), joined = works.long, works.joined
    assert 2 <= joined < 4 and 10 <= long.seconds <= 16
    words = long.clip.text.split()
    assert words.count("said") == joined
    assert long.seconds == pytest.approx(sum({"a": 4, "b": 5, "c": 3, "d": 4}[word] + speech.PAUSE
                                             for word in words if len(word) == 1))


def test_a_long_recording_is_taken_as_it_is(corpus, monkeypatch):
    monkeypatch.setattr(speech, "LONG", (20, 30))
    works = corpus({"a": 4, "long": 22, "longer": 25, "longest": 31})
    assert works.joined == 0 and works.long[0].clip.id == "longer"


def test_a_corpus_without_english_says_so(corpus):
    with pytest.raises(LabError, match="no English clip of 2 to 12 s"):
        corpus({"a": 4}, language="nl")


def test_what_is_published_of_a_corpus_names_nothing(corpus):
    described = corpus({"mine": 4, "yours": 11}).describe(lambda clip, text: SimpleNamespace(words=3))
    assert "mine" not in json.dumps(described) and "said" not in json.dumps(described)
    assert described["short"] == {"clips": 2, "seconds": 15.0, "words": 6} and described["joined"] == 2


# Whose turn -----------------------------------------------------------------------------------------------------------

@pytest.fixture
def turns(tmp_path, monkeypatch):
    """A function (peers, rounds, minutes, seconds each takes) -> Speech after it measured; `asked`: the turns."""
    run = module("run")
    works = speech.Works([sound("a", 3), sound("b", 8)], [sound("b", 8)], [sound("c", 700)], 0)
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(speech.time, "monotonic", lambda: clock.now)

    def measure(peers: dict, rounds: int = 3, minutes: float = 1e9, takes: float = 1.0, answer=None):
        asked = []

        def answered(peer, job, listed, part, threads):
            clock.now += takes
            asked.append((part, peer.name))
            lines = json.loads(listed.read_text())
            return (answer or (lambda *_: [{"clip": line["id"], "text": "one two", "seconds": len(asked),
                                            "peak_rss_bytes": 10} for line in lines]))(peer, part)
        monkeypatch.setattr(speech, "run", answered)
        made = speech.Speech(works, lambda clip, text: SimpleNamespace(
            words=2, errors=2 - len(text.split()), loops=0), 1, tmp_path, module("idle").Host())
        made.asked = asked
        made.measure([(run.Peer(name, "x.py", **how), {}) for name, how in peers.items()], rounds,
                     dict.fromkeys(speech.PARTS, minutes))
        return made
    return measure


def test_systems_take_turns_and_slow_ones_have_one(turns):
    made = turns({"x": {}, "y": {"once": ("clips",)}, "z": {"cannot": speech.PARTS}}, rounds=2)
    assert made.asked == [("clips", "x"), ("clips", "y"), ("clips", "x"), *[("cold", "x"), ("cold", "y")] * 2,
                          *[("long", "x"), ("long", "y")] * 2]
    found = made.results()
    assert found["x"]["short"] == {"seconds": [2, 6], "words": 4, "errors": [0, 0], "loops": [0, 0]}  # two clips
    assert found["x"]["commands"]["seconds"] == [1, 3] and found["y"]["short"]["seconds"] == [4]
    assert found["x"]["cold"]["peak_rss_bytes"] == [10, 10] and "z" not in found


def test_no_round_begins_that_would_not_fit_and_the_first_is_whole(turns):
    made = turns({"x": {}, "y": {}}, rounds=9, minutes=0.5, takes=5)  # a round takes 10 s
    assert made.finished == {"clips": 3, "cold": 1, "long": 1}
    assert [name for part, name in made.asked if part == "long"] == ["x", "y"]


def test_a_system_that_fails_leaves_a_reason_and_the_others_go_on(turns):
    def answer(peer, part):
        if peer.name == "x":
            raise ValueError("exit status 1: no such kernel")
        return [{"clip": "a", "text": "one", "seconds": 1.0}]
    made = turns({"x": {}, "y": {}}, rounds=1, answer=answer)
    found = made.results()
    assert found["x"] == {"reasons": dict.fromkeys(speech.PARTS, "exit status 1: no such kernel")}
    assert found["y"]["reasons"]["clips"] == "1 clips without an answer"


def test_faster_whisper_gets_one_beam_like_the_others():
    run = module("run")
    settings = {peer.name: speech.greedy(peer).setting for peer in run.PEERS}
    assert settings["faster-whisper int8"] == {"compute_type": "int8", "long": {"beam_size": 1}}
    assert settings["this lab int8"] == {"precision": "int8"}


# A process ------------------------------------------------------------------------------------------------------------

def test_a_cold_start_of_this_lab_gives_text_seconds_and_memory(nano, nano_export, tmp_path):
    peer = next(peer for peer in module("run").PEERS if peer.name == "this lab int8")
    (tmp_path / "list.json").write_text(json.dumps([
        {"id": "kitchen", "wav": str(ROOT / "media" / "kitchen.wav"), "language": "en", "long": False}]))
    job = {"python": sys.executable, "checkpoint": str(nano), "artefact": str(nano_export / "graphs")}
    (line,) = speech.run(peer, job, tmp_path / "list.json", "cold", 1)
    assert line["text"] == "turn on the lights in the kitchen"
    assert 0.05 < line["seconds"] < 120 and 30e6 < line["peak_rss_bytes"] < 2e9


def test_a_process_that_fails_says_its_last_line(tmp_path):
    peer = module("run").Peer("x", "nowhere.py")
    with pytest.raises(ValueError, match=r"exit status 2: .*nowhere\.py"):
        speech.run(peer, {"python": sys.executable, "checkpoint": "", "artefact": ""}, tmp_path, "clips", 1)


# The report -----------------------------------------------------------------------------------------------------------

def kind(seconds: list[float], errors: int = 10, words: int = 100, loops: int = 0, **more) -> dict:
    rounds = len(seconds)
    return {"seconds": seconds, "words": words, "errors": [errors] * rounds, "loops": [loops] * rounds, **more}


def system(short: float, long: float, cold: float, megabytes: float, long_errors: int = 10, **more) -> dict:
    return {"reasons": {}, "short": kind([short, short * 1.1, short * 0.9]), "commands": kind([short / 4] * 3),
            "long": kind([long] * 2, long_errors), **more,
            "cold": kind([cold] * 3, peak_rss_bytes=[megabytes * 1e6] * 3)}


@pytest.fixture
def document() -> dict:
    rows = [{"name": name, "reason": reason, "cannot": cannot, "note": "", "runs": []} for name, reason, cannot in (
        ("this lab fp32", "", ()), ("this lab fp16", "", speech.PARTS), ("this lab int8", "", ()),
        ("this lab int8 optimized", "", ()), ("faster-whisper int8", "", ()), ("onnx-asr int8", "", ("tokens",)),
        ("sherpa-onnx int8", "no exporter", ("tokens", "long")))]
    rows[5] |= {"note": "its own layout", "cannot": ("tokens", "long")}
    systems = {"this lab int8": system(2, 10, 0.5, 280), "this lab int8 optimized": system(1.5, 8, 0.4, 220, 12),
               "faster-whisper int8": system(9, 40, 1.25, 300, 11),
               "this lab fp32": {"reasons": {"long": "no result within 900 s"}, "short": kind([4.0])},
               "onnx-asr int8": {"reasons": {}, "short": kind([7.0] * 3, loops=2)}}
    described = {"clips": 24, "seconds": 126.4, "words": 400}
    return {"peers": rows, "settings": {"threads": 2}, "model": {"name": "whisper-base"}, "speech": {
        "rounds": {"clips": 3, "long": 2, "cold": 3}, "systems": systems,
        "works": {"short": described, "commands": described | {"clips": 9}, "cold": described, "long": described |
                  {"clips": 1, "seconds": 612.0}, "joined": 80}}}


def cells(lines: list[str], *beginning: str) -> list[str]:
    line = next(line for line in lines if line.startswith(f"| {' | '.join(beginning)} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_seconds_are_beside_word_errors(document):
    lines = speech_report.table(document)
    assert lines[0].startswith("| | 24 clips of 2 to 12 s, s | WER % | the 9 of 2 to 4 s, s | WER % | one of 612 s, s ")
    assert cells(lines, "this lab int8")[1:] == ["2.00", "10.0", "0.50", "10.0", "10.00", "10.0", "0.50", "280"]
    assert cells(lines, "this lab fp32")[1:3] == ["4.00 (1 round)", "10.0"]
    assert cells(lines, "this lab fp32")[5:] == ["not measured", "–", "not measured", "–"]
    assert cells(lines, "onnx-asr int8")[2] == "10.0, 2 loops" and cells(lines, "onnx-asr int8")[5:7] == ["–", "–"]
    assert cells(lines, "sherpa-onnx int8")[1] == "not measured: no exporter"
    assert not any("fp16" in line for line in lines)
    assert len({line.count("|") for line in lines}) == 1
    assert "- this lab fp32, long: no result within 900 s" in speech_report.described(document)
    assert "- onnx-asr int8: its own layout" in speech_report.described(document)


def test_texts_of_all_rounds_are_counted(turns):
    """A system that draws at random writes one text after the other: the first is not its word error rate."""
    drawn = iter(["one two", "one", "", "one"])
    made = turns({"x": {}}, rounds=4, answer=lambda peer, part: [
        {"clip": clip, "text": next(drawn) if part == "long" else "one two", "seconds": 1.0, "peak_rss_bytes": 10}
        for clip in {"clips": "ab", "cold": "b", "long": "c"}[part]])
    long = made.results()["x"]["long"]
    assert long["errors"] == [0, 1, 2, 1] and speech_report.wer(long) == 50


def test_a_range_of_word_errors_is_shown(document):
    systems = document["speech"]["systems"]
    systems["faster-whisper int8"]["long"]["errors"] = [10, 30]
    assert cells(speech_report.table(document), "faster-whisper int8")[6] == "20.0 (10.0-30.0)"
    assert "in brackets the range over the rounds" in speech_report.described(document)
    systems["this lab int8"]["long"]["errors"] = [10]
    assert "WER: of the first round's texts" in speech_report.described(document)


def test_goals_compare_in_the_right_direction(document):
    lines = speech_report.goals(document)
    assert cells(lines, "short clips", "int8", "faster-whisper int8")[3:] == ["4.5 times faster", "4.50 (4.50-4.50)",
                                                                             "met"]
    assert cells(lines, "long recording", "int8 optimized", "faster-whisper int8")[4:] == ["5.00 (5.00-5.00)", "met"]
    assert cells(lines, "commands", "int8 optimized", "faster-whisper int8")[5] == "missed by 14%"  # 6 of 7
    assert cells(lines, "cold start", "int8", "faster-whisper int8")[3:] == ["0.5 of its time", "0.40 (0.40-0.40)",
                                                                            "met"]
    assert cells(lines, "peak memory", "int8")[4:] == ["280 MB", "missed by 4%"]
    assert cells(lines, "peak memory", "int8 optimized")[5] == "met"
    assert cells(lines, "WER of the long recording", "int8 optimized")[3:] == ["11.0 %", "12.0 %", "missed by 9%"]
    assert cells(lines, "short clips", "int8", "OpenVINO GenAI int8")[4] == "not measured"


def test_results_begin_with_the_picture_where_there_is_one(document):
    assert speech_report.section(document)[0].startswith("![") and "(results.png)" in speech_report.section(document)[0]
    del document["speech"]
    assert speech_report.section(document) == speech_report.table(document) == []


def test_the_picture_is_a_slide_with_every_runtime(document, tmp_path, monkeypatch):
    from matplotlib import image

    from whisper_lab import pictures

    kept = []
    save = pictures.save
    monkeypatch.setattr(pictures, "save", lambda figure, path: (kept.append([
        {text.get_text() for text in axis.texts} for axis in figure.axes]), save(figure, path))[1])
    assert speech_report.picture(document, tmp_path / "results.png")
    assert image.imread(tmp_path / "results.png").shape[:2] == (720, 1280)
    assert kept[0] == [{"fp32", "int8", "int8 optimized", "faster-whisper int8", "onnx-asr int8"},
                       {"int8", "int8 optimized", "faster-whisper int8"}]
    del document["speech"]
    assert not speech_report.picture(document, tmp_path / "none.png") and not (tmp_path / "none.png").exists()


def test_labels_do_not_touch():
    for wanted in ([0.5] * 8, [0.0, 0.01, 0.02], [1.0, 0.99, 0.98], [0.1, 0.9]):
        placed = sorted(speech_report.heights(wanted))
        assert all(b - a >= speech_report.GAP - 1e-9 for a, b in zip(placed, placed[1:], strict=False))
        assert placed[-1] <= 1
    assert speech_report.heights([0.1, 0.9]) == [0.1, 0.9]
