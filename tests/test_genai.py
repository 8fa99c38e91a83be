"""03 --layout genai: onnxruntime-genai, where it is installed, writes the tokens that these graphs write."""

import contextlib
import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from whisper_lab import audio
from whisper_lab.features import log_mel

ROOT = Path(__file__).resolve().parent.parent
CLIP = ROOT / "media" / "digits.wav"
PYTHONS = (Path(sys.executable), ROOT / "benchmarks" / ".envs" / "genai" / "bin" / "python")
TOKENS = 24
GENAI = """
import sys, json
import onnxruntime_genai as og
folder, clip, prompt, length = sys.argv[1:]
model = og.Model(folder)
processor = model.create_multimodal_processor()
inputs = processor([prompt], audios=og.Audios.open(clip))
settings = og.GeneratorParams(model)
settings.set_search_options(do_sample=False, num_beams=1, min_length=int(length), max_length=int(length), batch_size=1)
generator = og.Generator(model, settings)
generator.set_inputs(inputs)
while not generator.is_done():
    generator.generate_next_token()
print(json.dumps([int(token) for token in generator.get_sequence(0)]))
"""


@pytest.fixture(scope="module")
def work(nano, tmp_path_factory) -> Path:
    """A small random Whisper with a window of 30 s, exported with --layout genai."""
    from whisper_lab.checkpoints import import_transformers

    transformers = import_transformers()
    import torch

    torch.manual_seed(5)
    config = transformers.WhisperConfig.from_pretrained(nano, d_model=48, encoder_layers=1, decoder_layers=2,
        encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=96, decoder_ffn_dim=96,
        max_source_positions=1500)
    model = transformers.WhisperForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name != "model.encoder.embed_positions.weight":
                weight.normal_(1.0 if name.endswith("layer_norm.weight") else 0.0, 0.2)
    folder = tmp_path_factory.mktemp("genai")
    model.save_pretrained(folder / "whisper-small-window")
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(nano / name, folder / "whisper-small-window")
    sound = json.loads((nano / "preprocessor_config.json").read_text(encoding="utf-8"))
    sound |= {"chunk_length": 30, "n_samples": 30 * sound["sampling_rate"], "nb_max_frames": 3000}
    (folder / "whisper-small-window" / "preprocessor_config.json").write_text(json.dumps(sound), encoding="utf-8")
    with contextlib.chdir(folder):
        importlib.import_module("03-export-encoder-decoder").main(
            ["--model", "whisper-small-window", "--no-verify", "--layout", "genai", "--output-dir", "graphs",
             "--alignment-heads", "--quiet"])
    return folder


def test_the_folder_holds_links_to_the_same_graphs(work):
    folder = work / "graphs" / "whisper-small-window_fp32_genai"
    config = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))["model"]
    for part in ("encoder", "decoder"):
        name = config[part]["filename"]
        assert os.path.samefile(folder / name, work / "graphs" / name)
    import onnx

    graph = onnx.load(folder / config["decoder"]["filename"]).graph
    inputs = {value.name for value in graph.input}
    named = config["decoder"]["inputs"]
    layers = range(config["decoder"]["num_hidden_layers"])
    assert {named["input_ids"], *(pattern % layer for key, pattern in named.items() if key != "input_ids"
                                  for layer in layers)} == inputs


def test_genai_writes_the_same_tokens(work):
    from whisper_lab.onnx_whisper import OnnxWhisper

    python = next((path for path in PYTHONS if path.is_file() and subprocess.run(
        [path, "-c", "import onnxruntime_genai"], capture_output=True).returncode == 0), None)
    if python is None:
        pytest.skip("onnxruntime-genai is not installed; benchmarks/prepare.py makes an environment that has it")
    runtime = OnnxWhisper(work / "graphs", "whisper-small-window", threads=2)
    tokens = runtime.rules.prompt("en")
    prompt = runtime.tokenizer.decode(tokens)
    done = subprocess.run([python, "-c", GENAI, work / "graphs" / "whisper-small-window_fp32_genai", CLIP, prompt,
                           str(TOKENS)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    cross = runtime.encode(log_mel(audio.load(CLIP).samples, runtime.spec)[None])
    while len(tokens) < TOKENS:
        scores = runtime.step(np.array([tokens], np.int64), cross, None)[0][0, -1]
        scores[runtime.rules.end] = -np.inf  # genai: min_length
        tokens.append(int(scores.argmax()))
    assert json.loads(done.stdout.splitlines()[-1]) == tokens
    assert len(set(tokens)) > 5


def test_another_window_is_refused(call_script, tmp_path, nano):
    code, _, err = call_script("03-export-encoder-decoder.py", "--model", "nano", "--layout", "genai", "--output-dir",
                               tmp_path, "--quiet")
    assert code == 1 and "3000 frames" in err and "--model base" in err
    assert not list(tmp_path.glob("*.onnx"))
