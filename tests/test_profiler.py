"""06-profile-energy.py from its options to its JSON, on the bundled checkpoint; meters are in test_energy_meters.py."""

import csv
import importlib
import json
import re
import shutil
import sys
import types

import numpy as np
import pytest
import soundfile
from test_energy_meters import fake_nvml

from whisper_lab import audio, checkpoints
from whisper_lab.console import LabError
from whisper_lab.energy import crosscheck, engine, readings, samples, tasks, workload
from whisper_lab.energy.engine import Architecture, Watched
from whisper_lab.energy.tasks import Transcription

SCRIPT = "06-profile-energy.py"
DOCUMENT = {"model", "device", "torch_dtype", "total_samples", "total_audio_duration", "total_inference_time",
            "average_rtf", "model_parameters", "gpu_memory_used", "transcriptions"}  # keys of the document
ENERGY = {"energy_j", "net_energy_j", "method", "source", "reason", "reasons", "idle_power_w", "average_power_w",
          "duration_s", "energy_per_audio_s_j", "energy_per_token_j"}
QUICK = ("--model", "nano", "--threads", "1", "--shipped-samples", "--repeats", "2", "--warm-up", "0")


@pytest.fixture
def profile(call_script, tmp_path, nano):
    """A function (*arguments) -> (exit status, stdout, stderr, document)."""

    def run(*arguments):
        path = tmp_path / "run.json"
        status, out, err = call_script(SCRIPT, *QUICK, "--output-file", path, *arguments)
        return status, out, err, json.loads(path.read_text()) if path.exists() else None

    return run


@pytest.fixture
def librispeech(tmp_path, references):
    """A folder in LibriSpeech's layout with two clips, the second of them damaged."""
    chapter = tmp_path / "LibriSpeech/dev-clean/84/121123"
    chapter.mkdir(parents=True)
    lines = []
    for number, clip in enumerate(["digits.wav", "kitchen.wav"]):
        name = f"84-121123-{number:04}"
        soundfile.write(chapter / f"{name}.flac", audio.load(f"media/{clip}").samples, 16000)
        lines.append(f"{name} {references[clip]['text'].upper()}")
    (chapter / "84-121123.trans.txt").write_text("\n".join(lines) + "\n")
    return tmp_path / "LibriSpeech/dev-clean", chapter


# The run -------------------------------------------------------------------------------------------------------------

def test_no_options_at_all(run_script, nano):
    done = run_script(SCRIPT, OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Total Inference Time: ")
    for line in ("=" * 50, "WHISPER ENERGY PROFILING SUMMARY", "Samples Processed: 1", "Model Parameters: "):
        assert line in done.stdout.splitlines() or line in done.stdout
    assert "checkpoint: whisper-nano (it stands in for base" in done.stderr


def test_ten_samples_are_ten(profile, tmp_path):
    trace_csv = tmp_path / "run_profile.csv"
    status, out, _, made = profile("--benchmark", "--num-samples", 10, "--repeats", 1, "--trace", trace_csv)
    assert status == 0
    assert set(made) >= DOCUMENT and set(made["energy"]) >= ENERGY
    assert made["total_samples"] == len(made["transcriptions"]) == 10
    assert [one["class"] for one in made["transcriptions"][:5]] == ["short", "medium", "long", "technical", "short"]
    assert made["total_audio_duration"] == pytest.approx(sum(one["audio_duration"] for one in made["transcriptions"]))
    assert made["total_inference_time"] == pytest.approx(sum(one["inference_time"] for one in made["transcriptions"]))
    assert made["average_rtf"] == pytest.approx(made["total_inference_time"] / made["total_audio_duration"])
    assert made["throughput_audio_s_per_s"] == pytest.approx(1 / made["average_rtf"])
    assert made["wer"] < 0.4 and made["cer"] < 0.4
    assert 0 < made["time_to_first_token_s"]["mean"] < made["total_inference_time"]
    assert {"load", "features", "encoder", "decoder"} <= set(made["phases_s"])
    working = sum(seconds for name, seconds in made["phases_s"].items() if name != "load")
    assert working == pytest.approx(made["total_inference_time"], rel=0.1)
    assert made["operations_per_second"] == pytest.approx(made["operations"] / made["total_inference_time"])
    assert made["memory_per_parameter_bytes"] * made["model_parameters"] == pytest.approx(made["peak_memory_bytes"])
    assert made["gpu_memory_used"] is None and made["gpu_memory_reason"]
    assert f"Total Inference Time: {made['total_inference_time']:.2f}s" in out
    rows = list(csv.DictReader(trace_csv.read_text().splitlines()[1:]))
    assert list(rows[0]) == list(readings.COLUMNS)
    stamps = [float(row["timestamp_s"]) for row in rows]
    assert stamps == sorted(stamps) and stamps[-1] >= made["energy"]["duration_s"]


def test_without_a_meter_energy_is_null_with_a_reason_for_every_source(profile):
    _, out, _, made = profile("--meter", "none")
    energy = made["energy"]
    assert energy["energy_j"] is None and energy["net_energy_j"] is None and energy["energy_per_token_j"] is None
    assert energy["method"] == "none" and len(energy["reasons"]) == 6 and energy["reason"]
    assert "Energy: not measured" in out and "CPU time" in out
    assert made["cpu_time_s"] > 0 and made["batches"][0]["peak_rss_bytes"] > 10e6


def test_joules_of_a_counter_gross_and_net(profile, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml())  # 100 W, always
    _, out, _, made = profile("--meter", "nvml", "--min-seconds", 1.2, "--idle-seconds", 1.1, "--interval-ms", 20)
    energy = made["energy"]
    assert energy["method"] == "counter" and energy["reason"] is None
    assert energy["energy_j"] == pytest.approx(100 * energy["duration_s"], rel=0.05)
    assert energy["idle_power_w"] == pytest.approx(100, rel=0.05)
    assert abs(energy["net_energy_j"]) < 0.1 * energy["energy_j"]
    audio_s = made["repeats"] * made["total_audio_duration"]
    assert energy["energy_per_audio_s_j"] == pytest.approx(energy["energy_j"] / audio_s)
    tokens = made["repeats"] * made["tokens"]
    assert energy["energy_per_token_j"] == pytest.approx(energy["energy_j"] / tokens, rel=0.01)
    assert energy["duration_s"] >= 1.2
    assert "net of idle" in out


def test_a_window_too_short_for_the_counter_is_null_and_says_so(profile, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml())
    monkeypatch.setattr("whisper_lab.energy.meters.EnergyCounter.shortest_s", 1e4)
    _, out, _, made = profile("--meter", "nvml", "--idle-seconds", 0, "--interval-ms", 1000, "--repeats", 1)
    assert made["energy"]["energy_j"] is None
    assert "too short" in made["energy"]["reason"] and "too short" in out


def test_an_estimate_is_called_one(profile):
    _, out, _, made = profile("--assume-watts", "10-30", "--meter", "assume-watts")
    energy = made["energy"]
    assert energy["method"] == "estimate" and energy["is_estimate"] and energy["source"].startswith("ESTIMATE")
    assert energy["energy_j"] == pytest.approx(20 * energy["duration_s"], rel=1e-6)
    assert energy["energy_low_j"] == pytest.approx(energy["energy_high_j"] / 3)
    assert energy["net_energy_j"] is None and energy["net_reason"]
    assert "ESTIMATED, not measured" in out


def test_quiet_leaves_the_one_line(profile):
    status, out, err, _ = profile("--quiet")
    assert status == 0 and len(out.splitlines()) == 1 and out.startswith("Total Inference Time: ")
    assert err == ""


def test_a_file_with_word_times(profile, references):
    status, out, _, made = profile("media/digits.wav", "--timestamps", "--language", "English")
    assert status == 0 and out.startswith("Inference Time: ")
    assert {"text", "inference_time", "audio_duration", "rtf", "timestamps"} <= set(made)
    assert [word["text"] for word in made["timestamps"]] == made["text"].split()
    starts = [word["timestamp"][0] for word in made["timestamps"]]
    assert starts == sorted(starts) and starts[-1] < made["audio_duration"]
    assert made["transcriptions"][0]["reference"] == references["digits.wav"]["text"] and made["wer"] < 0.5
    assert f"Text: {made['text']}" in out


def test_the_originals_name_of_sound_goes_on_working(profile):
    status, _, err, made = profile("--audio-file", "media/hello.wav", "--repeats", 1)
    assert status == 0 and [one["sample"] for one in made["transcriptions"]] == ["hello.wav"] and "text" in made
    assert err.count("--audio-file: is CLIP without a flag now") == 1


def test_the_warm_up_is_not_counted(profile):
    _, _, _, made = profile("media/hello.wav", "--warm-up", 2, "--repeats", 1)
    assert made["transcriptions"][0]["inference_time_s"]["n"] == made["repeats"] == 1 and made["warm_up"] == 2
    assert made["inference_time"] == pytest.approx(made["total_inference_time"])


@pytest.mark.parametrize(("device", "groups"), [("cpu", 1), ("cuda", 2)])
def test_a_gpu_is_warmed_with_every_shape(monkeypatch, device, groups):
    seen = []
    monkeypatch.setattr(workload, "try_pass", lambda work, group: seen.append(len(group)))
    english = types.SimpleNamespace(language="en")
    clips = [types.SimpleNamespace(error=None, seconds=[1.0], sample=english) for _ in range(3)]
    script = importlib.import_module("06-profile-energy")
    script.warm_up(types.SimpleNamespace(engine=types.SimpleNamespace(device=device)), clips, 2, 3)
    assert seen == [2, 1][:groups] * 3 and not any(clip.seconds for clip in clips)


def test_several_sound_files_have_a_row_each(profile):
    _, out, _, made = profile("media/hello.wav", "media/digits.wav", "--repeats", 1)
    assert [one["sample"] for one in made["transcriptions"]] == ["hello.wav", "digits.wav"] and "text" not in made
    assert out.startswith("Total Inference Time: ")


@pytest.mark.parametrize("command, shown, hidden", [
    ([], ["--task", "--model", "--benchmark", "--assume-watts"], ["--power-file", "--idle-seconds", "--tokens"]),
    (["sweep"], ["--gpu-type", "--num-runs", "--slurm", "--dry-run"], ["--cooldown-timeout", "--walltime"])])
def test_help_fits_a_screen_and_help_all_has_the_rest(call_script, monkeypatch, command, shown, hidden):
    monkeypatch.setenv("COLUMNS", "80")
    short, whole = (re.findall(r"^  (--[a-z-]+)", call_script(SCRIPT, *command, flag)[1], re.M)
                    for flag in ("--help", "--help-all"))
    assert len(call_script(SCRIPT, *command, "--help")[1].splitlines()) <= 50
    assert {*shown, "--help-all"} <= set(short) < set(whole)
    assert set(hidden) <= set(whole) - set(short)


# Who spoke -----------------------------------------------------------------------------------------------------------

@pytest.fixture
def speaker_models(published, monkeypatch):
    """The real voice activity detector and speaker encoder."""
    published("silero-vad")
    monkeypatch.setenv("WHISPER_LAB_WEIGHTS", str(published("campplus").parent))


def test_telling_speakers_apart_is_profiled(profile, speaker_models):
    status, out, _, made = profile("--task", "diarize", "--timestamps", "--assume-watts", "20", "--meter",
                                   "assume-watts")
    assert status == 0 and made["task"] == "diarize" and set(made) >= DOCUMENT
    heard = made["transcriptions"][0]
    assert heard["sample"] == "long.flac" and heard["speakers"] == 2 and "Speakers: 2" in out
    assert made["wer"] < 0.4 and {word["speaker"] for word in heard["timestamps"]} == {0, 1}
    assert list(made["phases_s"]) == ["load", "voice_activity", "fingerprints", "clustering", "words"]
    assert min(made["phases_s"].values()) > 0 and "voice activity" in out
    total = sum(seconds for name, seconds in made["phases_s"].items() if name != "load")
    assert made["inference_time_s"]["n"] == 2 and total == pytest.approx(made["total_inference_time"])
    assert made["average_rtf"] == pytest.approx(total / made["total_audio_duration"])
    energy = made["energy"]
    assert energy["energy_j"] == pytest.approx(20 * energy["duration_s"])
    assert energy["energy_per_audio_s_j"] == pytest.approx(energy["energy_j"] / (2 * heard["audio_duration"]))
    assert made["operations"] is None and made["operations_reason"] and made["tokens"] > 20
    assert made["model"] == "nano, silero-vad, campplus" and made["model_parameters"] > 6_900_000


def test_where_no_one_speaks_whisper_is_not_asked(profile, speaker_models, tmp_path):
    audio.write_wav(tmp_path / "silence.wav", np.zeros(32000, np.float32))
    status, out, _, made = profile(tmp_path / "silence.wav", "--task", "diarize", "--repeats", 1)
    assert status == 0 and (made["text"], made["tokens"]) == ("", 0) and "Speakers: 0" in out


@pytest.mark.parametrize("arguments, says", [
    (["--benchmark"], "the clips of --benchmark have one speaker each: name CLIP"),
    (["--num-samples", "4"], "the clips of --num-samples have one speaker"),
    (["--generate-audio"], "the clips of --generate-audio have one speaker"),
    (["--use-dataset"], "the clips of --use-dataset have one speaker"),
    (["--batch-size", "1,4"], "leave out --batch-size"),
    (["--tokens", "8"], "with --tokens the words mean nothing"), (["--device", "cuda"], "leave out --device cuda")])
def test_what_makes_no_sense_for_speakers_is_refused(call_script, arguments, says):
    status, out, err = call_script(SCRIPT, "--task", "diarize", *arguments)
    assert (status, out) == (2, "") and says in err and err.splitlines()[1].startswith("error: --task diarize ")


def test_graphs_without_word_times_are_refused_before_anything_is_measured():
    graphs = types.SimpleNamespace(has_attention=False, command="python 03 --precision int8")
    whisper = types.SimpleNamespace(runtime=types.SimpleNamespace(runtime=graphs), precision="int8",
                                    checkpoint=types.SimpleNamespace(name="whisper-base"))
    for work in (lambda: tasks.Diarization(whisper, None, False, 0),
                 lambda: tasks.Transcription(whisper, None, True, 0)):
        with pytest.raises(LabError, match="int8 graphs of whisper-base cannot tell when a word was said") as caught:
            work()
        assert caught.value.remedy == "write graphs that can: python 03 --precision int8 --alignment-heads"


def test_without_the_models_it_ends_in_two_lines(call_script, nano):
    status, _, err = call_script(SCRIPT, *QUICK[:4], "--task", "diarize", "--quiet")
    assert status == 1 and err.startswith("error: silero-vad is not in") and err.count("\n") == 2


def test_tones_are_no_speech_and_say_so(profile):
    status, out, err, made = profile("--generate-audio", "--audio-duration", 2)
    assert status == 0 and made["audio_duration"] == pytest.approx(2)
    assert "not speech" in err and "not speech" in out
    assert made["wer"] is None and made["wer_reason"] and not made["transcriptions"][0]["speech"]


def test_batch_sizes(profile):
    _, out, _, made = profile("--num-samples", 4, "--batch-size", "1,4", "--tokens", 6, "--repeats", 1)
    one, four = made["batches"]
    assert (one["batch_size"], four["batch_size"]) == (1, 4)
    assert one["windows_per_encoder_call"] == 1 and four["windows_per_encoder_call"] > 2
    assert one["tokens"] == four["tokens"] == 6 * one["windows"]  # the same work
    assert one["operations"] == four["operations"]
    assert made["wer"] is None and "batch sizes" in out and "windows per encoder call" in out


def test_graphs(profile):
    from tests.helpers import compare_tiny, export_tiny

    *_, folder, _ = compare_tiny.comparison()
    status, _, err, made = profile("--model", export_tiny.exported().checkpoint.folder, "--model-dir", folder,
                                   "--backend", "onnx", "--precision", "int8", "--num-samples", 1)
    assert status == 0 and (made["backend"], made["precision"], made["torch_dtype"]) == ("onnx", "int8", None)
    assert made["tokens_fixed_per_window"] == engine.RANDOM_TOKENS and "random weights" in err
    assert made["tokens"] == made["batches"][0]["windows"] * 60  # all that its 64 positions leave after the prompt
    assert made["wer"] is None and "mean nothing" in made["wer_reason"]


def test_other_programs_on_the_processor_are_told(monkeypatch):
    moments = iter([(10.0, 100.0), (12.0, 105.0)])
    monkeypatch.setattr(workload, "cpu_seconds", lambda: next(moments))
    monkeypatch.setattr("psutil.cpu_count", lambda: 2)
    spent = workload.cpu_spent(workload.cpu_seconds(), duration_s=5.0)
    assert spent["cpu_time_s"] == 2.0 and spent["other_cpu_share"] == pytest.approx((5 - 2) / (2 * 5))


# What goes wrong -----------------------------------------------------------------------------------------------------

def test_a_failed_sample_makes_the_status_1_and_keeps_the_others(profile, librispeech):
    folder, chapter = librispeech
    (chapter / "84-121123-0001.flac").write_bytes(b"fLaC" + bytes(40))
    status, out, err, made = profile("--use-dataset", folder, "--num-samples", 2)
    assert status == 1
    assert (made["total_samples"], made["failed_samples"]) == (1, 1)
    assert made["transcriptions"][1]["error"] and made["transcriptions"][1]["inference_time"] is None
    assert made["transcriptions"][0]["text"] and made["wer"] is not None
    assert "84-121123-0001" in err and "Samples Failed: 1" in out


def test_all_samples_failed(profile, librispeech):
    folder, chapter = librispeech
    for path in chapter.glob("*.flac"):
        path.unlink()
    status, out, _, made = profile("--use-dataset", folder, "--num-samples", 2)
    assert status == 1 and made["failed_samples"] == 2
    assert made["average_rtf"] is None and made["total_inference_time"] is None and made["energy"]["energy_j"] is None
    assert out.startswith("Total Inference Time: unknown") and "None" not in out


def test_out_of_memory_while_transcribing(profile, monkeypatch):
    def fails(*_):
        raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr(Transcription, "process", fails)
    status, _, err, made = profile("--num-samples", 2)
    assert status == 1 and made["failed_samples"] == 2
    assert "out of memory" in made["transcriptions"][0]["error"] and "--dtype float16" in err


def test_passes_before_a_failure_do_not_count(profile, monkeypatch):
    real, calls = Transcription.process, []

    def fails_later(work, clips):
        calls.append(clips[0].sample.kind)
        if clips[0].sample.kind == "medium" and calls.count("medium") == 2:
            raise LabError("the disk is on fire", "put it out")
        return real(work, clips)

    monkeypatch.setattr(Transcription, "process", fails_later)
    status, _, _, made = profile("--num-samples", 2, "--tokens", 3, "--repeats", 3)
    assert status == 1 and calls == ["short", "medium", "short", "medium", "short", "short", "short"]
    assert made["repeats"] == 3 and made["tokens"] == 3 and made["total_samples"] == 1
    assert made["total_audio_duration"] == pytest.approx(made["transcriptions"][0]["audio_duration"])


def test_a_batch_too_large_makes_the_status_1(profile, monkeypatch):
    real = Transcription.process

    def too_large(work, clips):
        if len(clips) > 1:
            raise RuntimeError("CUDA out of memory")
        return real(work, clips)

    monkeypatch.setattr(Transcription, "process", too_large)
    status, out, _, made = profile("--num-samples", 2, "--tokens", 3, "--batch-size", "1,2")
    assert status == 1 and made["total_samples"] == 2 and made["failed_samples"] == 2
    assert [row["failed_samples"] for row in made["batches"]] == [0, 2]
    assert made["batches"][1]["average_rtf"] is None and "out of memory" in out


@pytest.mark.parametrize(("ratio", "says"), [(3.0, "float16 is slow on this processor"), (0.9, "0.90 times the time")])
def test_half_precision_on_a_processor(monkeypatch, caplog, ratio, says):
    monkeypatch.setattr(engine, "slowdown", lambda _dtype: ratio)
    messages = []
    monkeypatch.setattr("whisper_lab.console.note", lambda *parts: messages.append(" ".join(map(str, parts))))
    monkeypatch.setattr("whisper_lab.console.warn", messages.append)
    assert engine.choose_dtype("float16", "cpu") == "float16"
    assert any(says in message for message in messages)
    assert engine.choose_dtype("auto", "cpu") == "float32" and engine.choose_dtype("auto", "cuda") == "float16"


def test_the_cost_of_half_precision_is_measured():
    assert 0.2 < engine.slowdown("float32", size=256) < 5


@pytest.mark.parametrize("arguments", [
    ["--num-samples", "0"], ["--batch-size", "1,0"], ["--batch-size", "two"],
    ["--backend", "onnx", "--dtype", "float16"], ["--precision", "int8"], ["--model-dir", "graphs"],
    ["--audio-file", "a.wav", "--generate-audio"],
    ["--audio-duration", "5"], ["--reference", "hello"], ["a.wav", "--use-dataset"],
    ["--task", "translate"],
    ["--timestamps", "--tokens", "5"], ["--repeats", "0"], ["--interval-ms", "0"]])
def test_wrong_usage(call_script, arguments):
    assert call_script(SCRIPT, *arguments)[0] == 2


def test_errors_of_two_lines(call_script, tmp_path, nano):
    for arguments, says in ((["--audio-file", tmp_path / "none.wav"], "no such file"),
                            (["--use-dataset", tmp_path], "no LibriSpeech"),
                            (["--use-dataset"], "the Hub is not within reach"),
                            (["--meter", "power-file"], "no --power-file was given")):
        status, _, err = call_script(SCRIPT, *QUICK, "--quiet", *arguments)
        assert status == 1 and says in err and err.count("\n") == 2, err


def test_sweeps_are_handed_over(call_script, monkeypatch):
    fake = types.ModuleType("whisper_lab.sweeps.cli")
    fake.main = lambda argv: {"sweep": 7, "analyze": 8, "collect": 9}[argv[0]] + len(argv)
    monkeypatch.setitem(sys.modules, "whisper_lab.sweeps.cli", fake)
    monkeypatch.setattr("whisper_lab.sweeps.cli", fake, raising=False)
    assert call_script(SCRIPT, "sweep", "--num-runs", "3")[0] == 10
    assert call_script(SCRIPT, "analyze", "results")[0] == 10
    assert call_script(SCRIPT, "collect")[0] == 10


# Samples -------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("language_set", ["english", "nano"])
def test_shipped_clips_keep_to_their_classes(language_set):
    found = samples.built_in(4, language_set=language_set, shipped=True)
    assert [sample.kind for sample in found] == list(samples.CLASSES)
    for sample in found:
        shortest, longest = samples.CLASSES[sample.kind]
        assert shortest <= len(sample.load()) / 16000 <= longest + 0.1
        assert len(sample.reference.split()) > 4
    assert sum(path.stat().st_size for path in samples.SHIPPED.glob("*.ogg")) < 300_000


def test_espeak_speaks_the_same_for_the_same_seed():
    if not samples.shutil.which("espeak-ng"):
        pytest.skip("espeak-ng is not installed: apt-get install espeak-ng")
    first, again, other = (samples.built_in(2, seed, "english") for seed in (3, 3, 4))
    assert [sample.reference for sample in first] == [sample.reference for sample in again]
    assert all(np.array_equal(a.load(), b.load()) for a, b in zip(first, again, strict=True))
    assert [sample.reference for sample in first] != [sample.reference for sample in other]
    for sample in [*first, samples.synthesize("long", 2, 3, "english"), samples.synthesize("long", 2, 3, "nano")]:
        shortest, longest = samples.CLASSES[sample.kind]
        assert shortest <= len(sample.load()) / 16000 <= longest


def test_without_espeak_the_shipped_clips_are_taken(monkeypatch):
    monkeypatch.setattr(samples.shutil, "which", lambda _name: None)
    assert [sample.path.name for sample in samples.built_in(5)] == [
        f"english-{kind}.ogg" for kind in ("short", "medium", "long", "technical", "short")]


def test_references_beside_a_file(tmp_path):
    shutil.copy("media/digits.wav", tmp_path / "a.wav")
    beside = tmp_path / "references.json"
    for written, expected in (({"a.wav": "four"}, ("four", None)),
                              ({"a.wav": {"text": "four", "language": "en"}}, ("four", "en")),
                              ({"b.wav": "four"}, (None, None))):
        beside.write_text(json.dumps(written))
        sample, = samples.from_files([str(tmp_path / "a.wav")])
        assert (sample.reference, sample.language) == expected
    for broken in ("{", "[1]"):
        beside.write_text(broken)
        with pytest.raises(LabError, match="cannot read references"):
            samples.from_files([str(tmp_path / "a.wav")])


def test_librispeech_of_the_hub(monkeypatch, references, tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, audio.load("media/digits.wav").samples, 16000)
    row = {"id": "84-0", "text": "FOUR", "audio": {"bytes": path.read_bytes()}}
    asked = []

    class Rows(list):
        def cast_column(self, name, _feature):
            asked.append(name)
            return self

    fake = types.ModuleType("datasets")
    fake.Audio = lambda decode: decode
    fake.load_dataset = lambda *names, **options: asked.append((names, options)) or Rows([row, row, row])
    monkeypatch.setitem(sys.modules, "datasets", fake)
    monkeypatch.setattr("whisper_lab.hub.out_of_reach", lambda: None)
    found = samples.librispeech(2)
    assert len(found) == 2 and found[0].reference == "FOUR" and len(found[0].load()) > 16000
    assert asked[0][1] == {"split": "validation", "streaming": True} and asked[1] == "audio"
    fake.load_dataset = lambda *_, **__: 1 / 0
    with pytest.raises(LabError, match="cannot be fetched"):
        samples.librispeech(2)


# Operations ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("context", ["full", 3.0])
def test_parameters_and_operations_are_those_that_torch_counts(nano, context):
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from whisper_lab.decoding import Options
    from whisper_lab.torch_whisper import TorchWhisper
    from whisper_lab.transcribe import transcribe

    runtime = TorchWhisper.load(checkpoints.resolve("nano"), attn_implementation="eager")
    torch.set_num_threads(1)
    architecture = Architecture.from_folder(nano)
    assert architecture.parameters == sum(weight.numel() for weight in runtime.model.parameters())
    watched = Watched(runtime, architecture)
    with FlopCounterMode(display=False) as counter:
        found = transcribe(watched, audio.load("media/digits.wav").samples,
                           Options(language="en", audio_context=context, temperatures=(0.0,), logprob_threshold=None))
    assert watched.tally.operations == counter.get_total_flops()
    assert watched.tally.windows == 1 + found.heard_again and watched.tally.tokens > 4
    assert found.shortened == (context != "full")


def test_published_parameter_counts():
    large = Architecture(1280, 32, 32, 5120, 5120, 128, 1500, 448, 51866)
    assert large.parameters == 1_543_490_560  # openai/whisper-large-v3
    base = Architecture(512, 6, 6, 2048, 2048, 80, 1500, 448, 51865)
    assert base.parameters == 72_593_920


# Cross-checks --------------------------------------------------------------------------------------------------------

def test_cross_checks_of_tools_that_are_not_there_or_fail(monkeypatch):
    monkeypatch.setitem(sys.modules, "zeus", None)
    broken = types.ModuleType("codecarbon")
    broken.OfflineEmissionsTracker = lambda **_: 1 / 0
    monkeypatch.setitem(sys.modules, "codecarbon", broken)
    check = crosscheck.Checks(True, "cpu")
    with check.window():
        pass
    assert check.found["zeus"] == {"energy_j": None, "reason": "not installed"}
    assert "ZeroDivisionError" in check.found["codecarbon"]["reason"]


def test_cross_checks_measure_the_timed_window_only(profile, monkeypatch):
    """The other tool sees our fake board through its own eyes: it must come to the same joules."""
    monkeypatch.setitem(sys.modules, "pynvml", fake := fake_nvml())
    zeus, monitor = types.ModuleType("zeus"), types.ModuleType("zeus.monitor")

    class ZeusMonitor:
        def __init__(self, **_):
            print("zeus talks to stdout")

        def begin_window(self, _name, sync_execution):
            self.start = fake.nvmlDeviceGetTotalEnergyConsumption(0)

        def end_window(self, _name, sync_execution):
            seen = (fake.nvmlDeviceGetTotalEnergyConsumption(0) - self.start) / 1e3
            return types.SimpleNamespace(gpu_energy={}, cpu_energy={0: seen})

    monitor.ZeusMonitor = ZeusMonitor
    monkeypatch.setitem(sys.modules, "zeus", zeus)
    monkeypatch.setitem(sys.modules, "zeus.monitor", monitor)
    monkeypatch.setitem(sys.modules, "codecarbon", None)
    _, out, _, made = profile("--meter", "nvml", "--cross-check", "--idle-seconds", 0, "--min-seconds", 1.2,
                              "--warm-up", 3, "--interval-ms", 20)
    checks = made["energy"]["cross_checks"]
    assert checks["zeus"]["energy_j"] == pytest.approx(made["energy"]["energy_j"], rel=0.05)
    assert checks["codecarbon"]["reason"] == "not installed"
    assert "zeus talks" not in out and "Cross-check over the same window" in out
