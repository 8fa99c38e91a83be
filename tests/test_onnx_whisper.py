"""OnnxWhisper says what TorchWhisper says, without torch; and refuses graphs that do not belong together."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.onnx_grain import NAME, exported
from whisper_lab import console, flags, names, seals, transcribe
from whisper_lab.console import LabError
from whisper_lab.decoding import Options, decode, detect_language
from whisper_lab.names import chosen_name, name_for
from whisper_lab.onnx_whisper import OnnxWhisper, runtime_files

ROOT = Path(__file__).resolve().parent.parent
NEW_TOKENS = 40
BEFORE = [10, 20, 30, 40]  # tokens of a text before the window


@pytest.fixture(scope="module")
def work(random_model, nano) -> Path:
    """A folder with a small random checkpoint, and its graphs in every precision as 03 writes them in `graphs`."""
    return exported(random_model, nano)


@pytest.fixture(scope="module")
def graphs(work) -> Path:
    return work / "graphs"


@pytest.fixture(scope="module")
def torch_whisper(work):
    """The reference: the same checkpoint in PyTorch, float32."""
    from whisper_lab import checkpoints
    from whisper_lab.torch_whisper import TorchWhisper

    return TorchWhisper.load(checkpoints.resolve(str(work / NAME)))


@pytest.fixture(scope="module")
def fp32(graphs) -> OnnxWhisper:
    return OnnxWhisper(graphs, NAME, "fp32")


@pytest.fixture(scope="module", params=[*names.PRECISIONS, "int8 optimized"])
def small(request, graphs) -> OnnxWhisper:
    """The graphs in each precision, and the fused pair."""
    precision, _, optimized = request.param.partition(" ")
    return OnnxWhisper(graphs, NAME, precision, optimized=bool(optimized))


# The same tokens as PyTorch ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("previous", [None, BEFORE])
@pytest.mark.parametrize("timestamps", [False, True])
@pytest.mark.parametrize("beams", [1, 5])
@pytest.mark.parametrize("language", ["nl", None])
def test_tokens_equal_pytorch(fp32, torch_whisper, noise_features, beams, timestamps, language, previous):
    """Three windows at once: greedy and beam, with and without timestamps, language given and detected, prompt."""
    options = Options(language=language, beams=beams, timestamps=timestamps, max_tokens=NEW_TOKENS)
    before = [previous] * len(noise_features) if previous else None
    ours, theirs = (decode(runtime, noise_features, options, previous=before) for runtime in (fp32, torch_whisper))
    assert [result.tokens for result in ours] == [result.tokens for result in theirs]
    assert [result.language for result in ours] == [result.language for result in theirs]
    np.testing.assert_allclose([result.avg_logprob for result in ours], [result.avg_logprob for result in theirs],
                               atol=1e-3)


def test_the_comparison_is_not_empty(fp32, noise_features):
    results = decode(fp32, noise_features, Options(language="nl", max_tokens=NEW_TOKENS))
    assert len({token for result in results for token in result.tokens}) > 10
    assert len({tuple(result.tokens) for result in results}) == len(results)


def test_language_probabilities_equal_pytorch(fp32, torch_whisper, noise_features):
    ours, theirs = (detect_language(runtime, runtime.encode(noise_features), 3) for runtime in (fp32, torch_whisper))
    for mine, reference in zip(ours, theirs, strict=True):
        assert mine == pytest.approx(reference, abs=1e-4) and sum(mine.values()) == pytest.approx(1)


def test_sampling_and_fallback_equal_pytorch(fp32, torch_whisper, noise_features):
    options = Options(language="en", temperatures=(0.4, 0.8), logprob_threshold=-0.5, max_tokens=NEW_TOKENS, seed=3)
    ours, theirs = (decode(runtime, noise_features, options) for runtime in (fp32, torch_whisper))
    assert max(result.avg_logprob for result in ours) < -0.5  # the fallback was needed
    assert [(result.tokens, result.temperature) for result in ours] == \
        [(result.tokens, result.temperature) for result in theirs]


def test_attention_equals_pytorch(fp32, torch_whisper, noise_features):
    ids = np.array([[fp32.rules.start, *BEFORE, fp32.rules.end]], np.int64)
    ours, theirs = (runtime.attention(ids, runtime.encode(noise_features[:1])) for runtime in (fp32, torch_whisper))
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    np.testing.assert_allclose(ours.sum(axis=-1), 1, atol=1e-4)


def test_long_recording_with_words_equals_pytorch(fp32, torch_whisper):
    generator = np.random.default_rng(1)
    samples = (0.1 * generator.standard_normal(56_000)).astype(np.float32)  # three and a half windows
    options = Options(language="en", max_tokens=30, no_speech_threshold=None)
    ours, theirs = (transcribe.transcribe(runtime, samples, options, words=True) for runtime in (fp32, torch_whisper))
    assert [segment.tokens for segment in ours.segments] == [segment.tokens for segment in theirs.segments] != []
    assert [(segment.start, segment.end) for segment in ours.segments] == \
        [(segment.start, segment.end) for segment in theirs.segments]
    times = [[(word.start, word.end) for segment in found.segments for word in segment.words]
             for found in (ours, theirs)]
    assert len(times[0]) > 3
    np.testing.assert_allclose(times[0], times[1], atol=fp32.rules.timestamp_step + 1e-6)


# Every precision -----------------------------------------------------------------------------------------------------

def test_each_precision_runs_and_stays_near(small, fp32, noise_features):
    """Beams and batches over the caches of each precision; the prompt's logits are near those of float32."""
    prompt = np.array([fp32.rules.prompt("nl")] * 3, np.int64)
    theirs = fp32.step(prompt, fp32.encode(noise_features), None)[0]
    ours, cache = small.step(prompt, small.encode(noise_features), None)
    assert ours.dtype == np.float32 and ours.shape == theirs.shape
    assert np.sqrt(np.mean((ours - theirs) ** 2)) / theirs.std() < 0.3
    assert all(array.shape[2] == prompt.shape[1] for array in cache)
    results = decode(small, noise_features, Options(beams=3, timestamps=True, max_tokens=12))
    assert all(1 <= len(result.tokens) <= 12 for result in results)


def test_beams_share_the_cross_cache(small, noise_features):
    """Five rows over one audio's cache are what five copies of that cache give."""
    cross = small.encode(noise_features[:1])
    ids = np.full((5, 1), small.rules.start, np.int64)
    ids[:, 0] += np.arange(5)
    shared, _ = small.step(ids, cross, None)
    copies, _ = small.step(ids, [np.repeat(array, 5, axis=0) for array in cross], None)
    np.testing.assert_allclose(shared, copies, atol=1e-4 * np.abs(copies).max())
    assert not np.allclose(shared[0], shared[1], atol=0.1)


def test_nothing_is_copied_without_need(fp32, noise_features):
    cross = fp32.encode(noise_features)
    for rows in ([0, 1, 2], [1], [1, 2]):
        assert all(np.shares_memory(a, b) for a, b in zip(fp32.select(cross, np.array(rows)), cross, strict=True))
    swapped = fp32.reorder(cross, np.array([2, 0, 0]))
    assert all((a == b[[2, 0, 0]]).all() for a, b in zip(swapped, cross, strict=True))
    assert all(len(array) == 0 for array in fp32.select(cross, np.array([], np.int64)))


# Graphs that do not belong together ----------------------------------------------------------------------------------

@pytest.fixture
def copied(graphs, tmp_path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(graphs, tmp_path / "graphs"))


def refused(folder: Path, precision: str = "fp32", name: str = NAME) -> LabError:
    with pytest.raises(LabError) as caught:
        OnnxWhisper(folder, name, precision)
    return caught.value


def test_missing_graph_names_the_command(tmp_path):
    error = refused(tmp_path, "int8", "whisper-nano")
    assert "there is no encoder" in error.problem and "whisper-nano_encoder_int8.onnx" in error.problem
    assert "python 03-export-encoder-decoder.py --model nano --precision int8" in error.remedy


@pytest.mark.parametrize("written", [b"", b"not a graph at all", None])
def test_corrupt_graph(copied, written):
    path = names.pair(copied, NAME)["decoder"]
    path.write_bytes(path.read_bytes()[:5000] if written is None else written)
    error = refused(copied)
    assert str(path) in error.problem and "python 03-export-encoder-decoder.py" in error.remedy


def test_encoder_and_decoder_exchanged(copied):
    pair = names.pair(copied, NAME)
    shutil.copy(pair["encoder"], pair["decoder"])
    assert "holds the encoder, not the decoder" in refused(copied).problem


def test_precisions_mixed(copied):
    shutil.copy(names.pair(copied, NAME, "int8")["encoder"], names.pair(copied, NAME)["encoder"])
    error = refused(copied)
    assert "not made together: precision int8 and fp32" in error.problem


def edit_metadata(path: Path, **facts: str | None) -> None:
    """Change, or with None remove, metadata of a graph."""
    import onnx

    model = onnx.load(path)
    kept = {entry.key: entry.value for entry in model.metadata_props} | facts
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {key: value for key, value in kept.items() if value is not None})
    onnx.save(model, path)
    seals.seal(path)


def test_checkpoints_mixed(copied):
    edit_metadata(names.pair(copied, NAME)["decoder"], weights_sha256="0" * 64)
    assert "not made together: weights" in refused(copied).problem


def test_graph_of_another_program(copied):
    edit_metadata(names.pair(copied, NAME)["encoder"], producer=None)
    assert "was not written by this lab" in refused(copied).problem


@pytest.mark.parametrize(("name", "key", "value"), [
    ("config.json", "vocab_size", 51865), ("config.json", "max_target_positions", 448),
    ("preprocessor_config.json", "feature_size", 80), ("generation_config.json", "eos_token_id", 3)])
def test_runtime_files_of_another_checkpoint(copied, name, key, value):
    path = names.runtime_folder(copied, NAME) / name
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    seals.write_manifest(path.parent, list(runtime_files(path.parent)))
    assert "belongs to another checkpoint than the graphs" in refused(copied).problem


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("written", [None, "", "[1]"])
def test_runtime_files_missing_or_broken(copied, name, written):
    path = names.runtime_folder(copied, NAME) / name
    path.unlink()
    if written is not None:
        path.write_text(written)
    error = refused(copied)
    assert str(path) in error.problem and "python 03-export-encoder-decoder.py" in error.remedy


def test_no_alignment_output(fp32, noise_features, monkeypatch):
    monkeypatch.setattr(OnnxWhisper, "has_attention", False)
    with pytest.raises(LabError) as caught:
        fp32.attention(np.array([[1, 2]], np.int64), fp32.encode(noise_features[:1]))
    assert "--alignment-heads" in caught.value.remedy


def test_names():
    asked = ("nano", "base", "openai/whisper-tiny.en", "turbo", "whisper-base", "./a/b/")
    assert [name_for(model) for model in asked] \
        == ["whisper-nano", "whisper-base", "whisper-tiny.en", "whisper-large-v3-turbo", "whisper-base", "b"]


def test_a_folder_has_the_name_that_03_gives_it(nano, tmp_path, monkeypatch):
    from whisper_lab import checkpoints

    snapshot, mine = tmp_path / "models--openai--whisper-base" / "snapshots" / "0123abc", tmp_path / "whisper-mine"
    for copied, link in ((snapshot, "a"), (mine, "b")):
        shutil.copytree(nano, copied)
        (tmp_path / link).symlink_to(copied)
    for path, name in ((snapshot, "whisper-base"), (tmp_path / "a", "whisper-base"), (tmp_path / "b", "whisper-mine")):
        assert name_for(str(path)) == checkpoints.resolve(str(path)).name == name
    monkeypatch.chdir(mine)
    assert name_for(".") == checkpoints.resolve(".").name == "whisper-mine"


def test_nano_stands_in_for_base_only_where_nobody_named_a_model(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("WHISPER_LAB_MODEL", raising=False)
    flags.parse(flags.parser(""), [])  # notes on stderr
    assert chosen_name(None, tmp_path) == "whisper-nano"
    assert "no graphs of whisper-base, the default, in" in capsys.readouterr().err
    assert chosen_name("base", tmp_path) == "whisper-base"
    (tmp_path / "whisper-base.en_encoder.onnx").touch()  # another model's
    assert chosen_name(None, tmp_path) == "whisper-nano"
    store = tmp_path / "store" / "whisper-base"  # base was fetched: how to export it is what its user has to be told
    store.mkdir(parents=True)
    (store / "fetched.json").write_text('{"name": "whisper-base"}')
    monkeypatch.setenv("WHISPER_LAB_WEIGHTS", str(store.parent))
    assert chosen_name(None, tmp_path) == "whisper-base"
    (tmp_path / "whisper-nano_encoder_int8.onnx").touch()
    assert chosen_name(None, tmp_path) == "whisper-nano"
    monkeypatch.setenv("WHISPER_LAB_MODEL", "tiny")
    assert chosen_name(None, tmp_path) == "whisper-tiny"
    monkeypatch.delenv("WHISPER_LAB_MODEL")
    capsys.readouterr()
    for written in ("encoder_int8", "end_to_end"):
        (tmp_path / f"whisper-base_{written}.onnx").touch()
        assert chosen_name(None, tmp_path) == "whisper-base" and capsys.readouterr().err == ""
        (tmp_path / f"whisper-base_{written}.onnx").unlink()


# In a process of its own ---------------------------------------------------------------------------------------------

ALLOWED = {"numpy", "onnxruntime", "tokenizers", "soundfile", "soxr", "whisper_lab",
           "_soundfile", "_soundfile_data", "_cffi_backend", "typing_extensions"}  # the second line is soundfile's own


def python(code: str, *arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    """Run code where no package but ALLOWED and the standard library can be imported."""
    guard = f"""
        import sys
        class Guard:
            def find_spec(self, name, path=None, target=None):
                top = name.partition(".")[0]
                if top not in {sorted(ALLOWED)} and top not in sys.stdlib_module_names and top not in {{"__main__"}}:
                    raise ModuleNotFoundError(f"No module named {{name!r}} (refused)", name=name)
        sys.meta_path.insert(0, Guard())
        """
    return subprocess.run([sys.executable, "-c", textwrap.dedent(guard) + textwrap.dedent(code), *map(str, arguments)],
                          capture_output=True, text=True, cwd=cwd, timeout=120,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})


def write_clip(path: Path, seconds: float = 0.9) -> Path:
    from whisper_lab import audio

    generator = np.random.default_rng(2)
    audio.write_wav(path, (0.2 * generator.standard_normal(round(seconds * 16_000))).clip(-1, 1).astype(np.float32))
    return path


def test_transcribes_without_torch_and_transformers(graphs, fp32, tmp_path):
    from whisper_lab import audio, transcripts

    clip = write_clip(tmp_path / "clip.wav", 2.4)
    expected = transcribe.transcribe(fp32, audio.load(clip).samples, Options(language="en"), words=True)
    done = python("""
        from whisper_lab import __main__, console
        try:
            import torch
        except ImportError:
            console.run(lambda: __main__.main(sys.argv[1:]))
        """, clip, "--model-dir", graphs, "--model", NAME, "--precision", "fp32", "--language", "en",
        "--timestamps", "word")
    assert done.returncode == 0, done.stderr
    shown = console.plain(transcripts.as_text(expected, "word"))
    assert done.stdout.rstrip("\n") == shown and len(expected.text) > 10


def test_one_transcript_opens_few_files_of_the_lab(graphs, tmp_path):
    """A reader can follow it: no checkpoint, no export, no word errors."""
    clip = write_clip(tmp_path / "clip.wav", 2.4)
    done = python("""
        from whisper_lab import __main__
        __main__.main(sys.argv[1:])
        print(*(name for name, module in sys.modules.items() if name.startswith("whisper_lab")))
        """, clip, "--model-dir", graphs, "--model", NAME, "--language", "en", "--quiet")
    assert done.returncode == 0, done.stderr
    opened = {name.removeprefix("whisper_lab").lstrip(".") for name in done.stdout.splitlines()[-1].split()}
    opened -= {"adapters", "locks", "weights", "weights.package_index", "weights.store"}  # NAME is not published
    assert opened <= {"", "__main__", "audio", "batching", "caches", "chunking", "confidence", "console",
                      "containers", "decoding", "external_data", "features", "files", "flags", "lanes", "languages",
                      "loudness", "machine", "names", "onnx_whisper", "openvino", "precisions", "prepared", "seals",
                      "sessions", "short_windows", "silence", "sound_files", "subtitles", "tokenizer", "tokens",
                      "transcribe", "transcripts"}


def test_the_command_is_called_by_its_name(call_script):
    status, out, _ = call_script("whisper_lab.__main__", "--help")
    assert status == 0 and out.startswith("usage: python -m whisper_lab [options] [CLIP ...]\n")


def test_the_guard_refuses():
    done = python("import transformers")
    assert done.returncode == 1 and "refused" in done.stderr


THREADS = """
    import os, time, numpy as np, onnxruntime, tokenizers
    from whisper_lab.console import LabError
    from whisper_lab.onnx_whisper import OnnxWhisper
    folder, name = sys.argv[1:]
    def threads():
        time.sleep(0.3)  # those that opened the graphs are gone
        return len(os.listdir("/proc/self/task"))
    def logits(runtime):
        features = np.ones((1, runtime.spec.n_mels, runtime.spec.n_frames), np.float32)
        return runtime.step(np.array([[1, 2]], np.int64), runtime.encode(features), None)[0]
    """
needs_proc = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads in /proc")


@needs_proc
def test_threads_of_each_runtime(graphs):
    done = python(THREADS + """
    before = threads()
    three = OnnxWhisper(folder, name, threads=3)
    between = threads()
    one = OnnxWhisper(folder, name, threads=1)
    assert np.allclose(logits(three), logits(one), atol=1e-4)
    print(between - before, threads() - between)
    """, graphs, NAME)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["4", "0"]  # the caller works too: two more for each of the two sessions


@needs_proc
def test_one_pool_for_the_process(graphs):
    """Made once: the same wish, or none, uses it again; another number of threads is refused, clearly."""
    done = python(THREADS + """
    before = threads()
    first = OnnxWhisper(folder, name, threads=3, shared_pool=True)
    print(threads() - before)
    again = [OnnxWhisper(folder, name, threads=3), OnnxWhisper(folder, name),
             OnnxWhisper(folder, name, shared_pool=True)]
    assert all((logits(runtime) == logits(first)).all() for runtime in again)
    print(threads() - before)
    try:
        OnnxWhisper(folder, name, threads=2)
    except LabError as error:
        print(error.problem)
    """, graphs, NAME)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == ["2", "2"]  # the caller is the third
    assert "2 threads cannot be had: this process has a pool of 3" in done.stdout


def test_a_runtime_leaves_other_sessions_alone(graphs, fp32):
    """Without shared_pool: onnxruntime would refuse every later session with threads of its own."""
    import onnxruntime

    other = onnxruntime.InferenceSession(names.pair(graphs, NAME)["encoder"], providers=["CPUExecutionProvider"])
    assert other.get_outputs()[0].name == "encoder_hidden_states"


def test_no_threads_at_all(graphs):
    with pytest.raises(LabError, match="--threads 0"):
        OnnxWhisper(graphs, NAME, threads=0)


# The command ---------------------------------------------------------------------------------------------------------

def command(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "whisper_lab.onnx_whisper", *map(str, arguments)], capture_output=True,
                          text=True, cwd=ROOT, timeout=120)


def test_command_prints_the_transcript_alone_under_quiet(graphs, tmp_path):
    clip = write_clip(tmp_path / "clip.wav")
    done = command(clip, "--model-dir", graphs, "--model", NAME, "--precision", "int8", "--language", "en", "--quiet",
                   "--json", tmp_path / "out.json")
    document = json.loads((tmp_path / "out.json").read_text())
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.strip() == console.plain(document["clips"][0]["text"]).strip() != ""
    assert document["model"]["precision"] == "int8" and document["clips"][0]["duration_s"] == 0.9


@pytest.mark.parametrize(("arguments", "status", "said"), [
    (["nothing-there.wav"], 1, "nothing-there.wav"),
    (["--beams", "0"], 2, "--beams"),
    (["--precision", "int2"], 2, "int2"),
    (["--beams", "2", "--temperature", "1"], 2, "not both")])
def test_command_refuses(arguments, status, said):
    done = command(*arguments, "--model", "nano")
    assert done.returncode == status and said in done.stderr and "Traceback" not in done.stderr and done.stdout == ""


def test_one_bad_file_among_several(call_script, graphs, tmp_path):
    good, bad = write_clip(tmp_path / "good.wav"), tmp_path / "bad.wav"
    bad.write_text("no sound")
    status, out, err = call_script("whisper_lab.__main__", bad, good, "--model-dir", graphs, "--model", NAME, "--quiet",
                                   "--language", "en", "--json", tmp_path / "o.json")
    clips = json.loads((tmp_path / "o.json").read_text())["clips"]
    assert status == 1 and [clip["file"] for clip in clips] == ["good.wav"] and console.plain(clips[0]["text"]) in out
    assert err.startswith("error: ") and err.count("\n") == 2 and "bad.wav" in err


def test_silence_is_not_asked(graphs, tmp_path):
    from whisper_lab import audio

    audio.write_wav(tmp_path / "silence.wav", np.zeros(8000, np.float32))
    done = command(tmp_path / "silence.wav", "--model-dir", graphs, "--model", NAME)
    assert done.returncode == 0 and done.stdout.strip() == "" and "warning: silence.wav" in done.stderr


def test_options_reach_the_search(fp32, noise_features):
    plain = decode(fp32, noise_features, Options(language="en", max_tokens=8))
    assert decode(fp32, noise_features, replace(Options(language="en"), max_tokens=4))[0].tokens == plain[0].tokens[:4]
