"""benchmarks/accuracy.py: the corpus it reads, the errors it counts, what it calls chance, and a run end to end."""

import io
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.benchmark_files import BENCHMARKS, module
from whisper_lab import audio
from whisper_lab.console import LabError

ROOT = Path(__file__).resolve().parent.parent
WORDS = "the quick brown fox jumps over the lazy dog today".split()


def corpus(folder: Path, rows) -> Path:
    """A folder with references.json and a tenth of a second of noise, another one for each file."""
    named = rows if isinstance(rows, dict) else {row["file"]: row for row in rows}
    for seed, name in enumerate(named):
        noise = np.random.default_rng(seed).uniform(-0.1, 0.1, 1600).astype(np.float32)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        audio.write_wav(folder / name, noise)
    (folder / "references.json").write_text(json.dumps(rows), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def scorer(nano):
    return module("scoring").Scorer(nano)


@pytest.fixture
def clip():
    """A function (text, language, digits) -> Clip."""
    def make(text: str, language: str = "en", digits: str | None = None):
        return module("corpora").Clip("a.wav", Path("a.wav"), text, language, "", digits)
    return make


# The corpus ---------------------------------------------------------------------------------------------------------

def test_both_shapes_of_references_are_read(tmp_path):
    rows = [{"file": "en_noisy/a.wav", "text": "hello", "language": "en", "kind": "noisy"},
            {"file": "b.wav", "text": "hallo", "language": "nl"}]
    mapping = {row["file"]: {key: row[key] for key in row if key != "file"} for row in rows} | {"c.wav": "a text alone"}
    read = module("corpora").read
    listed, _ = read(str(corpus(tmp_path / "list", rows)))
    mapped, _ = read(str(corpus(tmp_path / "mapping", mapping)))
    assert [(clip.id, clip.text, clip.language, clip.kind, clip.folder) for clip in listed] == [
        ("en_noisy/a.wav", "hello", "en", "noisy", "en_noisy"), ("b.wav", "hallo", "nl", "", "")]
    assert [(clip.id, clip.text, clip.language, clip.kind) for clip in mapped[:2]] == [
        (clip.id, clip.text, clip.language, clip.kind) for clip in listed]
    assert mapped[2].text == "a text alone" and mapped[2].language == "en"


def test_a_clip_without_a_text_is_left_out_and_counted(tmp_path):
    rows = [{"file": "a.wav", "text": None}, {"file": "b.wav", "text": "hello"}]
    clips, left_out = module("corpora").read(str(corpus(tmp_path, rows)))
    assert [clip.id for clip in clips] == ["b.wav"] and left_out == ["1 of the corpus without a text"]


@pytest.mark.parametrize("content, problem", [
    (None, "is not a corpus"), ("{", "cannot read references"), ('[{"text": "no file"}]', "a row has no 'file'"),
    ('[{"file": "gone.wav", "text": "hello"}]', "gone.wav, which is not there"), ("{}", "no clip of .* has a text")])
def test_a_corpus_that_cannot_be_used_says_why(tmp_path, content, problem):
    if content:
        (tmp_path / "references.json").write_text(content)
    with pytest.raises(LabError, match=problem) as caught:
        module("corpora").read(str(tmp_path))
    assert caught.value.remedy


def test_a_name_that_is_no_corpus(tmp_path):
    with pytest.raises(LabError, match="no corpus called 'librispeech:test-dirty'") as caught:
        module("corpora").read("librispeech:test-dirty")
    assert "librispeech:test-other" in caught.value.remedy


def test_librispeech_and_fleurs_become_folders(tmp_path, monkeypatch):
    """Through a stand-in for `datasets`: what is asked for, and the sound unchanged, fetched once."""
    import soundfile

    asked, sound = [], np.arange(-800, 800, dtype=np.int16)
    file = io.BytesIO()
    soundfile.write(file, sound, 16000, format="FLAC")

    class Stream(list):
        def cast_column(self, column, feature):
            assert (column, feature) == ("audio", "bytes as they are")
            return self

    def load_dataset(*where, **settings):
        asked.append((*where, settings))
        return Stream({"id": f"1-2-{i}", "text": "HELLO", "transcription": "hallo", "audio": {"bytes": file.getvalue()}}
                      for i in range(5))

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(
        load_dataset=load_dataset, Audio=lambda decode: "decoded" if decode else "bytes as they are"))
    monkeypatch.setattr(module("prepare"), "WORK", tmp_path)
    corpora = module("corpora")
    clips, _ = corpora.read("librispeech:test-other", limit=2)
    assert asked[0][:2] == ("openslr/librispeech_asr", "other") and asked[0][2]["split"] == "test"
    assert [(clip.text, clip.language) for clip in clips] == [("HELLO", "en")] * 2
    np.testing.assert_array_equal(soundfile.read(clips[1].path, dtype="int16")[0], sound)
    corpora.read("librispeech:test-other", limit=2)
    assert len(asked) == 1
    clips, _ = corpora.read("fleurs:cmn_hans_cn", limit=1)
    assert asked[1][1]["data_dir"] == "cmn_hans_cn" and (clips[0].text, clips[0].language) == ("hallo", "zh")


def test_a_hub_that_goes_away_on_the_way(tmp_path, monkeypatch):
    """What was fetched so far is not taken for the corpus."""
    def rows():
        yield {"text": "HELLO", "audio": {"bytes": audio.wav_bytes(np.zeros(1600, np.float32))}}
        raise ConnectionError("reset by peer")

    class Stream:
        def cast_column(self, column, feature):
            return rows()

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(
        load_dataset=lambda *where, **settings: Stream(), Audio=lambda decode: None))
    monkeypatch.setattr(module("prepare"), "WORK", tmp_path)
    for _ in range(2):
        with pytest.raises(LabError, match="cannot be had from the Hub: reset by peer"):
            module("corpora").read("librispeech:test-clean")


def test_clips_in_a_language_the_checkpoint_does_not_know_are_left_out(clip):
    supported = module("corpora").supported
    kept, left_out = supported([clip("a"), clip("b", "nl")], set())
    assert [one.text for one in kept] == ["a"] and left_out == ["1 in a language that the checkpoint does not know"]
    with pytest.raises(LabError, match="none of the corpus's languages: nl"):
        supported([clip("b", "nl")], {"en"})


# Counting -----------------------------------------------------------------------------------------------------------

def test_errors_of_each_kind(scorer, clip):
    counts = scorer(clip("turn on the light in the kitchen"), "Turn the lights in the big, big kitchen.")
    assert (counts.words, counts.substitutions, counts.insertions, counts.deletions) == (7, 1, 2, 1)
    assert counts.stretches == ((7, 4),)


def test_text_is_compared_as_the_field_does(scorer, clip):
    same = [("en", "my name's Mister Smith, twenty two colours", "My name's Mr. Smith. 22 colors!"),
            ("nl", "goedemorgen, Julia: zet een timer", "Goedemorgen Julia, zet een timer."),
            ("zh", "你好 世界", "你好世界。")]
    for language, said, heard in same:
        assert scorer(clip(said, language), heard).errors == 0, language
    assert scorer(clip("drie", "nl"), "3").errors == 1  # no rule of ours for other languages
    assert scorer(clip("你好世界", "zh"), "你好世間").words == 4  # letters
    assert "EnglishTextNormalizer" in scorer.description and "transformers" in scorer.description


@pytest.mark.parametrize("heard", ["1, 0, 0, 0, 1, 9, 0, 2, 1", "100019021", "1-000-19-02-1.",
                                   "one zero zero zero one nine oh two one"])
def test_digits_are_compared_one_by_one(scorer, clip, heard):
    assert scorer(clip("written in any way", digits="100019021"), heard).errors == 0


def test_a_wrong_digit_is_one_error(scorer, clip):
    counts = scorer(clip("written in any way", digits="100019021"), "100019821 please")
    assert (counts.words, counts.substitutions, counts.insertions) == (9, 1, 1)


def test_made_up_words_count_where_nothing_was_said(scorer, clip):
    counts = scorer(clip("[noise]"), "thank you")
    assert (counts.words, counts.insertions, counts.stretches) == (0, 2, ((0, 2),))


def test_a_long_recording_is_drawn_in_stretches(scorer, clip):
    said = WORDS * 60
    heard = said[:300] + ["fish"] * 7 + said[310:]
    counts = scorer(clip(" ".join(said)), " ".join(heard))
    assert sum(words for words, _ in counts.stretches) == 600 and len(counts.stretches) == 12
    assert sum(errors for _, errors in counts.stretches) == counts.errors == 10
    assert [errors for _, errors in counts.stretches] == [0] * 6 + [10] + [0] * 5


def test_loops():
    loops = module("scoring").loops
    assert loops("and so on " * 50) == 2 and loops("") == 0
    speech = ("four score and seven years ago our fathers brought forth on this continent a new nation conceived in "
              "liberty and dedicated to the proposition that all men are created equal")
    assert loops(speech) == 0
    generator = np.random.default_rng(0)
    whole = " ".join("".join(generator.choice(list("etaoinshr"), 5)) for _ in range(2000))
    assert loops(whole) == 0


# Is it chance? ------------------------------------------------------------------------------------------------------

def counted(errors: list[int], words: int = 10) -> list:
    """A Counts for each clip, its errors all substitutions."""
    counts = module("scoring").Counts
    return [counts(words, n, 0, 0, 0, ((words, n),)) for n in errors]


def test_a_worse_system_is_seen_as_worse_and_a_better_one_as_better():
    scoring = module("scoring")
    good, bad = counted([0, 1] * 20), counted([1, 2] * 10 + [1, 1] * 10)
    found = scoring.difference(bad, good)
    assert found["points"] == pytest.approx(7.5) and 0 < found["low"] < 7.5 < found["high"]
    assert scoring.judgement(found) == "worse by more than chance"
    assert scoring.judgement(scoring.difference(good, bad)) == "better by more than chance"


def test_equal_systems_are_equal():
    scoring = module("scoring")
    found = scoring.difference(counted([0, 3] * 20), counted([0, 3] * 20))
    assert (found["points"], found["low"], found["high"]) == (0, 0, 0)
    assert scoring.judgement(found) == "no error differs"


def test_one_error_more_is_chance():
    scoring = module("scoring")
    found = scoring.difference(counted([1, 0, 2] * 13 + [3]), counted([1, 1, 1] * 13 + [2]))
    assert found["low"] < 0 < found["high"] and scoring.judgement(found) == "chance explains it"


def test_the_interval_holds_what_it_says():
    """Two systems that are equally good, 100 times: about 95 intervals hold zero."""
    scoring, generator = module("scoring"), np.random.default_rng(1)
    held = 0
    for _ in range(100):
        pair = [counted(generator.binomial(10, 0.15, 60).tolist()) for _ in range(2)]
        found = scoring.difference(*pair, draws=500)
        held += found["low"] <= 0 <= found["high"]
    assert 89 <= held <= 99


def test_a_hard_clip_that_is_hard_for_both_widens_nothing():
    """Paired: errors that both systems make leave the interval as it is."""
    scoring = module("scoring")
    one, other = [0, 1] * 10, [1, 1] * 10
    hard = [9 * (i % 5 == 0) for i in range(20)]
    plain = scoring.difference(counted(one), counted(other))
    shifted = scoring.difference(counted([a + b for a, b in zip(one, hard, strict=True)]),
                                 counted([a + b for a, b in zip(other, hard, strict=True)]))
    assert (shifted["low"], shifted["high"]) == pytest.approx((plain["low"], plain["high"]))


def test_too_few_clips_have_no_interval():
    scoring = module("scoring")
    found = scoring.difference(counted([1] * 9), counted([0] * 9))
    assert found["points"] == 10 and found["low"] is None
    assert scoring.judgement(found) == "too little speech to tell"


# A run --------------------------------------------------------------------------------------------------------------

def clips_asked_for(command: list[str]) -> list[dict]:
    """What a peer's process is told to transcribe."""
    return json.loads(Path(json.loads(command[2])["clips"]).read_text())


@pytest.fixture
def stage(tmp_path, monkeypatch, nano):
    """Twelve clips, empty graphs, and systems that say what was said: `heard(name, text)` changes it by system.

    Returns a function (*arguments) -> accuracy.json, and the list of the clips that each process was asked for.
    """
    accuracy, prepare = module("accuracy"), module("prepare")
    rows = [{"file": f"{'noisy' if i % 2 else 'clean'}/{i}.wav", "text": " ".join(WORDS), "language": "en",
             "kind": "short"} for i in range(12)]
    folder = corpus(tmp_path / "corpus", rows)
    graphs = tmp_path / "graphs"
    graphs.mkdir()
    for part in ("encoder", "decoder"):
        for precision in ("", "_int8"):
            (graphs / f"whisper-nano_{part}{precision}.onnx").write_bytes(b"a graph")
    monkeypatch.setattr(prepare, "WORK", tmp_path / "work")
    asked = []

    def answers(command, longest, threads, log):
        job, clips = json.loads(command[2]), clips_asked_for(command)
        asked.append([clip["id"] for clip in clips])
        yield {"versions": {"onnxruntime": "1"}}
        for clip in clips:
            dropped = 1 if job["setting"].get("precision") == "int8" else 0
            yield {"clip": clip["id"], "text": " ".join(WORDS[dropped:]), "steady": True, "seconds": 0.05,
                   "cpu_s": 0.04}

    monkeypatch.setattr(accuracy, "answers", answers)

    def run(*arguments: str) -> dict:
        accuracy.main(["--corpus", str(folder), "--model", "nano", "--graphs", str(graphs), "--threads", "1",
                       "--output-dir", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"), "--quiet",
                       *arguments])
        return json.loads((tmp_path / "out" / "accuracy.json").read_text(encoding="utf-8"))

    run.asked, run.folder = asked, tmp_path
    return run


def test_the_worse_precision_is_the_worse_one(stage):
    document = stage("--systems", "lab (fp32|int8)$|transformers")
    systems = {system["name"]: system for system in document["systems"]}
    assert list(systems) == ["this lab fp32", "this lab int8", "transformers fp32"]
    pool = systems["this lab int8"]["pools"]["short"]
    assert (pool["clips"], pool["words"], pool["deletions"], pool["wer"]) == (12, 120, 12, pytest.approx(0.1))
    assert pool["real_time_factor"] == pytest.approx(0.5) and pool["cpu_s_per_s"] == pytest.approx(0.4)
    assert pool["difference"]["points"] == pytest.approx(10) and pool["difference"]["low"] > 0
    assert systems["this lab fp32"]["pools"]["short"]["difference"] is None
    assert list(systems["this lab int8"]["groups"]) == [
        "language: en", "kind: short", "folder: clean", "folder: noisy"]
    assert document["verdicts"] == [
        "int8: short 10.0 % against 0.0, difference +10.0 (+10.0 to +10.0): worse by more than chance",
        "transformers fp32: short 0.0 % against 0.0, difference 0.0 (0.0 to 0.0): no error differs"]
    text = (stage.folder / "out" / "ACCURACY.md").read_text(encoding="utf-8")
    assert "| this lab int8 | 10.0 | +10.0 (+10.0 to +10.0) | 0 | 0 | 12 | 0 | 0.500 | 0.400 | 1 |" in text
    assert "| folder: noisy * | 6 | 60 | 0.0 | 10.0 | 0.0 |" in text  # six clips: no interval, so not bold
    assert "| kind: short * | 12 | 120 | 0.0 | **10.0** | 0.0 |" in text
    assert (stage.folder / "out" / "accuracy.png").read_bytes().startswith(b"\x89PNG")


def test_the_picture_says_itself_what_filled_and_hollow_dots_are(stage, monkeypatch, tmp_path):
    """Slides show it without its document."""
    from matplotlib.figure import Figure

    seen, save = [], Figure.savefig

    def savefig(figure, *given, **named):
        figure.draw_without_rendering()
        box = figure.legends[0].get_window_extent()
        seen.append((figure.legends[0], 0 <= box.x0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0))
        return save(figure, *given, **named)

    monkeypatch.setattr(Figure, "savefig", savefig)
    stage("--systems", "lab (fp32|int8)$")  # one panel: the narrowest
    module("accuracy_report").picture(json.loads((ROOT / "benchmarks" / "accuracy.json").read_text(encoding="utf-8")),
                                      tmp_path / "four.png")
    for legend, inside in seen:
        faces = {dot.get_markerfacecolor(): text.get_text() for dot, text in
                 zip(legend.get_lines(), legend.get_texts(), strict=True)}
        assert inside and "chance explains it" in faces.pop("white")
        assert list(faces.values()) == ["more than chance: the interval does not hold 0"]
    assert len(seen) == 2


def test_what_is_missing_is_a_row_with_its_reason(stage, monkeypatch):
    def environment(name):
        raise module("prepare").Unavailable("no such package | anywhere")

    monkeypatch.setattr(module("prepare"), "artefact", lambda name, source: source)
    monkeypatch.setattr(module("prepare"), "environment", lambda name: Path("python") if name is None else
                        environment(name))
    document = stage("--systems", "lab (fp32|int4)$|faster-whisper int8")
    reasons = {system["name"]: system["reason"] for system in document["systems"]}
    assert reasons == {"this lab fp32": "", "this lab int4": "there is no whisper-nano_encoder_int4.onnx in graphs",
                       "faster-whisper int8": "no such package | anywhere"}
    text = (stage.folder / "out" / "ACCURACY.md").read_text(encoding="utf-8")
    assert "| faster-whisper int8 | not measured: no such package / anywhere |" in text
    assert "not measured: there is no whisper-nano_encoder_int4.onnx" in module("accuracy_report").table(document)


def test_an_interrupted_run_goes_on(stage):
    whole = stage("--systems", "lab fp32$")
    [cache] = (stage.folder / "cache").glob("*.jsonl")
    lines = cache.read_text().splitlines()
    cache.write_text("\n".join(lines[:6]) + "\n" + lines[6][:20])  # the versions, five clips, half of the sixth
    again = stage("--systems", "lab fp32$", "--resume")
    assert [len(clips) for clips in stage.asked] == [12, 7] and again["systems"] == whole["systems"]
    stage("--systems", "lab fp32$", "--resume")
    assert len(stage.asked) == 2
    stage("--systems", "lab fp32$")
    assert len(stage.asked) == 3 and len(stage.asked[-1]) == 12


def test_one_system_alone_has_nothing_to_compare(stage):
    document = stage("--systems", "lab fp32$")
    assert document["verdicts"] == [] and not (stage.folder / "out" / "accuracy.png").exists()
    assert "accuracy.png" not in (stage.folder / "out" / "ACCURACY.md").read_text(encoding="utf-8")


def test_new_graphs_are_measured_again(stage):
    stage("--systems", "lab fp32$")
    (stage.folder / "graphs" / "whisper-nano_decoder.onnx").write_bytes(b"another graph")
    stage("--systems", "lab fp32$", "--resume")
    assert [len(clips) for clips in stage.asked] == [12, 12]


def test_no_system_matches(stage):
    with pytest.raises(LabError, match="no system matches 'kaldi'") as caught:
        stage("--systems", "kaldi")
    assert "whisper.cpp f16" in caught.value.remedy


def test_every_system_has_what_it_names():
    accuracy, prepare = module("accuracy"), module("prepare")
    assert len(accuracy.SYSTEMS) == len({system.name for system in accuracy.SYSTEMS})
    for system in accuracy.SYSTEMS:
        source = (BENCHMARKS / "peers" / system.script).read_text(encoding="utf-8")
        assert "def listen(" in source and accuracy.PACKAGES[system.script]
        assert system.environment is None or system.environment in prepare.REQUIREMENTS
        assert system.artefact is None or system.artefact in prepare.RECIPES


@pytest.mark.parametrize("code, reason", [
    ("raise ValueError('boom')", "exit status 1: ValueError: boom"),
    ("import os; os.write(1, b'no json\\n'); raise SystemExit(3)", "exit status 3: no output"),
    ("import time; time.sleep(60)", "no answer within 0 s")])
def test_a_peer_that_fails_or_hangs_says_so(tmp_path, monkeypatch, code, reason):
    accuracy = module("accuracy")
    if "sleep" in code:
        monkeypatch.setattr(accuracy, "PATIENCE", 0.2)
    with pytest.raises(accuracy.Unavailable, match=reason):
        list(accuracy.answers([sys.executable, "-c", code], 0.0, 1, tmp_path / "log"))


def test_this_lab_and_transformers_hear_the_same(nano_export, tmp_path, monkeypatch):
    """The peers' own processes, on two short clips and a long one."""
    monkeypatch.setattr(module("prepare"), "WORK", tmp_path)
    references = json.loads((ROOT / "media" / "references.json").read_text(encoding="utf-8"))
    rows = [{"file": str(ROOT / "media" / name), **references[name]} for name in
            ("long.flac", "kitchen.wav", "nederlands.wav")]
    (tmp_path / "references.json").write_text(json.dumps(rows), encoding="utf-8")
    module("accuracy").main(["--corpus", str(tmp_path), "--model", "nano", "--systems", "lab (fp32|int8)$|transformers",
                             "--graphs", str(nano_export / "graphs"), "--threads", "1", "--output-dir", str(tmp_path),
                             "--cache", str(tmp_path), "--repeats", "2", "--quiet"])
    document = json.loads((tmp_path / "accuracy.json").read_text(encoding="utf-8"))
    assert document["schema"] == "whisper-onnx-lab/accuracy/1" and document["model"]["name"] == "whisper-nano"
    assert document["corpus"] | {"seconds": 0} == {
        "name": tmp_path.name, "clips": 3, "long": 1, "seconds": 0, "languages": ["en", "nl"], "left_out": [],
        "words": 84}
    for system in document["systems"]:
        assert system["reason"] == "" and system["unsteady"] == 0 and all(system["versions"].values())
        assert list(system["pools"]) == ["short", "short, English", "short, other languages", "long"]
        assert system["pools"]["short"]["wer"] == 0 and system["pools"]["long"]["wer"] < 0.1
        assert all(0 < pool["real_time_factor"] < 5 and pool["loops"] == 0 for pool in system["pools"].values())
    lab, _, transformers = (system["pools"]["long"] for system in document["systems"])
    errors = [round(system["wer"] * system["words"]) for system in (lab, transformers)]
    assert abs(errors[0] - errors[1]) <= 1  # this lab cuts a long recording at pauses, transformers does not


def test_short_clips_are_also_heard_joined_where_there_are_enough_of_a_language(nano, tmp_path, monkeypatch, scorer):
    accuracy, corpora = module("accuracy"), module("corpora")
    monkeypatch.setattr(module("prepare"), "WORK", tmp_path)
    clips = corpora.read(str(ROOT / "media"))[0]
    monkeypatch.setattr(accuracy, "WINDOWS", 1.5)
    sounds = accuracy.prepare_sounds(clips, nano)
    short = [sound for sound in sounds if not sound.long and sound.clip.language == "en"]
    (joined,) = (sound for sound in sounds if sound.clip.kind == accuracy.JOINED)  # of Dutch there is too little
    assert joined is sounds[-1] and joined.long and joined.clip.language == "en"
    assert sum(sound.seconds for sound in short) < joined.seconds < 2 * sum(sound.seconds for sound in short)
    assert joined.clip.text == " ".join(sound.clip.text for sound in short)
    pools = accuracy.groups_of(sounds)["pools"]
    assert pools["joined"] == [len(sounds) - 1] and len(sounds) - 1 not in pools.get("long", [])
    described = accuracy.describe("media", sounds, scorer, [])
    assert described["clips"] == len(clips) and described["words"] == sum(scorer(clip, "").words for clip in clips)


# Preparing and reporting --------------------------------------------------------------------------------------------

def test_conversions_of_other_weights_are_kept_apart(tmp_path):
    """A trained and a random whisper-base, and two that differ in their weights alone, once shared a folder."""
    prepare, homes = module("prepare"), set()
    for folder, weights in (("one/whisper-base", b"1"), ("two/whisper-base", b"2"), ("whisper-base-random", b"3")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "model.safetensors").write_bytes(weights)
        homes.add(prepare.home(tmp_path / folder))
    assert len(homes) == 3 and prepare.WORK / "whisper-base" in homes


def test_published_figures_stand_beside_the_same_corpus_only():
    published = module("accuracy_report").published
    document = {"corpus": {"name": "librispeech:test-other"}, "model": {"name": "whisper-base"},
                "settings": {"limit": 50}}
    assert "12.4 % WER on the full set" in published(document)[0] and "the first clips of it" in published(document)[0]
    assert published(document | {"model": {"name": "whisper-nano"}}) == []
    assert published(document | {"corpus": {"name": "media"}}) == []


def test_committed_results_are_what_the_report_makes_of_them():
    if not (BENCHMARKS / "accuracy.json").is_file():
        pytest.skip("benchmarks/accuracy.json is not there: accuracy.py --output-dir benchmarks writes it")
    results = json.loads((BENCHMARKS / "accuracy.json").read_text(encoding="utf-8"))
    assert module("accuracy_report").markdown(results) == (BENCHMARKS / "ACCURACY.md").read_text(encoding="utf-8")
