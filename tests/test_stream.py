"""The policy of streaming: what is committed when, at which cost, and what is shown and told of it."""

import importlib
import io
import json
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.stream_sounds import Clock, drone, silence, speech
from whisper_lab import console
from whisper_lab.audio import SAMPLE_RATE
from whisper_lab.console import LabError
from whisper_lab.features import FeatureSpec
from whisper_lab.stream import sources
from whisper_lab.stream.hypothesis import Hypothesis, Unit
from whisper_lab.stream.report import latency, percentile
from whisper_lab.stream.screen import GREY, Screen

ROOT = Path(__file__).resolve().parent.parent
script = importlib.import_module("09-stream-microphone")


# The policy ----------------------------------------------------------------------------------------------------------

class Recognizer:
    """Hears a word every half second of the sound, `w0 w1 ...`, the last one cut off; each look costs time."""

    def __init__(self, clock, cost: float = 0.05):
        self.clock, self.cost, self.encoder_runs = clock, cost, 0
        self.windows, self.said, self.language = [], [], "en"

    def recognize(self, features, seconds, given=(), before=(), final=False):
        self.encoder_runs += 1
        self.clock.sleep(self.cost)
        count = int(seconds / 0.5)
        units = [Unit(f" w{i}", [i]) for i in range(len(given), count)]
        if count > len(given):
            units[-1] = Unit(f" cut{self.encoder_runs}", [99])  # what is cut off is heard differently every time
        self.said.append([unit.text for unit in [*given, *units]])
        return Hypothesis([*given, *units], ends=[0.0] * (len(given) + len(units)), seconds=seconds)

    def segments(self, features, seconds, given, before, voice_from_s):
        self.encoder_runs += 1
        self.clock.sleep(self.cost)
        self.windows.append((seconds, list(before)))
        return Hypothesis([*given, *(Unit(f" w{i}", [i]) for i in range(len(given), int(seconds / 0.5) - 1))]), \
            seconds - 0.5

    def sentence(self, before, units):
        return [*before, *(token for unit in units for token in unit.tokens)]

    def end_utterance(self, seconds, said):
        pass


class Runtime:
    spec = FeatureSpec(64, 400, 160, 16_000, 160_000)


def streamed(sound: np.ndarray, cost: float = 0.05, realtime: bool = True, hop: float = 0.5):
    clock = Clock()
    stream = script.Stream(Runtime, Recognizer(clock, cost), clock, Screen(io.StringIO()), hop, 0.6)
    source = sources.Played(sound, realtime, clock, threading.Event())
    script.listen(source, stream)
    return stream, source


def test_the_longest_common_prefix():
    one, two = ([Unit(text, []) for text in words] for words in (["a", "b", "c"], ["a", "b", "d", "e"]))
    assert [unit.text for unit in script.agreed(one, two)] == ["a", "b"]
    assert script.agreed([], two) == [] and script.agreed(two, []) == []


def test_text_is_committed_only_when_two_successive_hypotheses_agree():
    stream, _ = streamed(np.concatenate([silence(0.5), speech(4), silence(1)]))
    commits, said = stream.log.commits, stream.recognizer.said
    agreed = [commit for commit in commits if commit.reason == "agreement"]
    assert len(agreed) >= 6 and commits[:len(agreed)] == agreed
    for i, commit in enumerate(agreed):
        assert any(earlier[i:i + 1] == later[i:i + 1] == [commit.unit.text]
                   for earlier, later in zip(said, said[1:], strict=False)), commit
    # What is cut off never repeats itself: it is committed when the pause ends the utterance, and called so.
    assert commits[-1].reason == "pause" and commits[-1].unit.text.startswith(" cut")
    assert not any(commit.unit.text.startswith(" cut") for commit in agreed)


def test_what_the_model_may_have_guessed_is_held_back():
    units = [Unit(f" w{i}", [i]) for i in range(5)]
    assert len(Hypothesis(units, [0.5, 1.0, 1.5, 1.95, 2.0], 2.0).firm) == 3  # heard 0.4 s before the end, or earlier
    assert Hypothesis(units, None, 2.0).firm == units[:2] and Hypothesis(units[:1], None, 2.0).firm == []


def test_a_word_in_doubt_waits_for_more_of_the_sentence():
    units = [Unit(f" w{i}", [i], 0.3 if i == 2 else 0.95) for i in range(12)]
    ends = [0.5 * (i + 1) for i in range(12)]  # the doubtful one ends at 1.5 s
    assert Hypothesis(units, ends, 6.0).firm == units[:11]  # 4.5 s ago: more would not help
    assert Hypothesis(units[:8], ends[:8], 4.0).firm == units[:2]
    assert Hypothesis(units, None, 6.0).firm == units[:2]
    later = units + [Unit(f" w{i}", [i], 0.95) for i in range(12, 15)]
    assert Hypothesis(later, None, 6.0).firm == later[:12]  # 12 units later more would not help, and 3 are held back
    sure = [replace(unit, probability=0.95) for unit in units[:8]]
    assert Hypothesis(sure, ends[:8], 4.0).firm == sure[:7] and Hypothesis(sure, ends[:8], 4.0).sure == sure


def test_silence_costs_nothing():
    stream, _ = streamed(silence(30))
    assert stream.recognizer.encoder_runs == 0 and stream.log.lines == []
    assert len(stream.mel._samples) < 3 * SAMPLE_RATE  # and is not kept
    spoken, _ = streamed(np.concatenate([silence(1), speech(2), silence(1)]))
    longer, _ = streamed(np.concatenate([silence(1), speech(2), silence(30)]))
    assert longer.recognizer.encoder_runs == spoken.recognizer.encoder_runs > 0


def test_a_slow_model_gets_fewer_hypotheses_and_all_of_the_sound(monkeypatch):
    """Each look takes six hops. Nothing is lost, it is said, and every word is there."""
    warnings = []
    monkeypatch.setattr(console, "warn", warnings.append)
    sound = np.concatenate([silence(0.5), speech(6), silence(1), speech(6), silence(1)])
    fast, _ = streamed(sound)
    assert not warnings and fast.log.skipped == 0
    slow, source = streamed(sound, cost=3.0)
    assert len(warnings) == 1 and "falling behind" in warnings[0]
    assert slow.log.skipped >= 5 and slow.recognizer.encoder_runs < fast.recognizer.encoder_runs / 2
    assert source.largest_backlog >= 2.9 * SAMPLE_RATE
    np.testing.assert_array_equal(slow.log.heard, sound)
    count = [sum(len(utterance) for utterance in stream.log.utterances) for stream in (slow, fast)]
    assert count[0] == count[1] and slow.log.spans == fast.log.spans
    for stream, cost in ((slow, 3.0), (fast, 0.05)):
        assert stream.log.busy_s == pytest.approx(cost * stream.recognizer.encoder_runs)  # waiting is not work


def test_a_breath_within_an_utterance_is_no_falling_behind(monkeypatch):
    """What is heard first after it comes two hops after what was heard last: nobody waited for the model."""
    warnings = []
    monkeypatch.setattr(console, "warn", warnings.append)
    stream, _ = streamed(np.concatenate([silence(0.5), speech(1.5), silence(0.4), speech(1.5), silence(1)]), hop=0.2)
    assert len(stream.log.spans) == 1 and stream.log.hypotheses > 10
    assert not warnings and stream.log.skipped == 0


def test_a_full_window_is_cut_and_the_sentence_goes_on_as_prompt():
    stream, _ = streamed(np.concatenate([drone(25), silence(1)]))
    windows = stream.recognizer.windows
    assert len(windows) >= 2 and all(9 < seconds <= 10 for seconds, _ in windows)
    assert windows[0][1] == [] and len(windows[1][1]) > 10  # the committed words of the sentence
    assert len(stream.log.spans) == 1  # one utterance all the same
    assert any(commit.reason == "full window" for commit in stream.log.commits)


def test_a_sound_that_fills_the_window_with_its_last_block(monkeypatch):
    """The cut takes all of it, to a sample between two frames: nothing is left, and nothing is asked about it."""
    sound = np.concatenate([silence(0.44), speech(9.15)])[:153_077]
    monkeypatch.setattr(Recognizer, "segments", lambda self, features, seconds, given, before, voice_from_s:
                        (Hypothesis([*given, Unit(" end", [1])]), None))
    stream, _ = streamed(sound, realtime=False)
    assert stream.log.commits[-1].reason == "full window" and stream.log.lines[0].endswith(" end")
    assert len(stream.log.lines) == len(stream.log.spans) == 1 and stream.log.spans[0][1] == len(sound)


def test_a_backlog_longer_than_the_window_is_worked_off():
    stream, source = streamed(np.concatenate([drone(45), silence(1)]), cost=14.0)
    assert source.largest_backlog > 10 * SAMPLE_RATE
    assert stream.log.spans[0][1] > 45 * SAMPLE_RATE
    assert 85 < sum(map(len, stream.log.utterances)) < 95  # a word every half second


def test_hypotheses_in_circles_agree_with_nothing(monkeypatch):
    monkeypatch.setattr(Recognizer, "recognize", lambda self, features, seconds, given=(), before=(), final=False:
                        Hypothesis([*given, Unit(" la", [1])] * 9, doubtful=True))
    stream, _ = streamed(np.concatenate([speech(2), silence(1)]))
    assert stream.log.lines == []


# What is shown and told ----------------------------------------------------------------------------------------------

class Terminal(io.StringIO):
    def isatty(self):
        return True


FIXED, MAYBE = [Unit(" turn", [1]), Unit(" on", [2])], [Unit(" the", [3]), Unit(" light", [4])]


def test_tentative_text_is_grey_and_committed_text_is_not(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = Terminal()
    Screen(out).show(FIXED, MAYBE)
    assert out.getvalue().endswith(f"turn on {GREY}the light\x1b[0m")
    monkeypatch.setenv("NO_COLOR", "1")
    out = Terminal()
    Screen(out).show(FIXED, MAYBE)
    assert out.getvalue().endswith("turn on [the light]") and GREY not in out.getvalue()


def test_a_pipe_gets_final_lines_only():
    out = io.StringIO()
    screen = Screen(out)
    screen.show(FIXED, MAYBE)
    screen.close(FIXED + MAYBE)
    screen.close([])
    screen.end()
    assert out.getvalue() == "turn on the light\n"


def test_latency_is_that_of_words_both_have():
    class Commit:
        def __init__(self, text, at, heard_s):
            self.unit, self.at, self.heard = Unit(text, []), at, round(heard_s * SAMPLE_RATE)

    source = sources.Played(speech(3), True, Clock(), threading.Event())
    source.take(0.1)
    start = source.arrival(0)
    commits = [Commit(" Turn", start + 1.5, 1.4), Commit(" of", start + 2, 1.9), Commit(" it", start + 2.5, 2.4)]
    found = latency(commits, [("turn", 1.0), ("off", 1.5), ("it", 2.0)], source)
    assert found["words"] == 2 and found["latencies_s"] == [0.5, 0.5] and found["waited_p95_s"] == 0.4
    assert latency(commits, [("turn", None), ("it", 2.0)], source)["words"] == 1
    empty = latency([], [], source)
    assert empty["latency_p50_s"] is None and empty["words"] == 0


def test_percentiles_are_values_that_occurred():
    assert percentile([3.0, 1.0, 2.0], 50) == 2.0 and percentile(list(range(1, 101)), 95) == 95.0
    assert percentile([], 50) is None


def test_a_long_utterance_is_written_over_from_its_first_row(monkeypatch):
    monkeypatch.setenv("COLUMNS", "10")
    out = Terminal()
    screen = Screen(out, colours=True)
    screen.show(FIXED, MAYBE)  # 17 characters: two rows
    screen.close(FIXED + MAYBE)
    assert "\r\x1b[1A\x1b[Jturn on the light\n" in out.getvalue()
    screen.show([], FIXED)
    assert out.getvalue().endswith(f"\n\r\x1b[J{GREY}turn on\x1b[0m")


def test_the_readme_table_is_made_of_the_committed_report():
    from tools.streaming_table import table

    document = json.loads((ROOT / "benchmarks" / "streaming.json").read_text(encoding="utf-8"))
    rows = table(document).splitlines()
    assert [row.split(" | ")[0] for row in rows[2:-2]] == [*(f"| {clip['source']}" for clip in document["clips"]),
                                                         "| all"]
    every = sorted(value for clip in document["clips"] for value in clip["latency"]["latencies_s"])
    assert f"| {len(every)} | {every[-(-len(every) // 2) - 1]:.2f} |" in rows[-3]
    assert len({row.count("|") for row in rows[:-2]}) == 1


def test_what_was_said_stays_out_of_the_kept_numbers():
    from tools.streaming_table import numbers, table

    clip = {"source": "a.flac", "duration_s": 4.0, "busy_s": 1.0, "real_time_factor": 0.25, "encoder_runs": 3,
            "hypotheses_skipped": 0, "dropouts": 0, "text": "said", "utterances": ["said"], "doubtful": [],
            "commits": [{"text": " said"}], "batch": {"text": "said"}, "batch_by_utterance": {"text": "said"},
            "latency": {"words": 1, "latency_p50_s": 0.5, "latency_p95_s": 0.5, "waited_p50_s": 0.4,
                        "latencies_s": [0.5], "word_ends_from": "its timestamps"},
            "reference": {"text": "said", "stream_wer": 0.0, "batch_wer": 0.0, "batch_by_utterance_wer": 0.0}}
    known = json.loads((ROOT / "benchmarks" / "streaming.json").read_text(encoding="utf-8"))
    kept = numbers(known | {"clips": [clip]})
    assert "said" not in json.dumps(kept) and table(kept) == table(known | {"clips": [clip]})


@pytest.mark.parametrize("text", [None, "[]", '{"clips": [{"text": "said"}]}', "{"])
def test_what_is_no_report_is_refused(tmp_path, text):
    from tools import streaming_table

    path = tmp_path / "report.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(LabError) as refused:
        streaming_table.main([str(path)])
    assert str(path) in refused.value.problem and "--realtime --json FILE" in refused.value.remedy
