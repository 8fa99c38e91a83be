"""The bundled checkpoint: loads as it is, is small, understands its clips, and says nothing about nothing."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from whisper_lab import audio, checkpoints, decoding, features, metrics, transcribe

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "whisper_model_dir" / "whisper-nano"
# What this checkpoint does on the clips; a change of the code that makes it worse is a fault of the code.
MEASURED_WER = {"digits.wav": 0.0, "kitchen.wav": 0.0, "time.wav": 0.0, "hello.wav": 0.0, "nederlands.wav": 0.0,
                "long.flac": 0.07}


@pytest.fixture(scope="module")
def runtime():
    from whisper_lab.torch_whisper import TorchWhisper

    return TorchWhisper(checkpoints.load_model(checkpoints.resolve("nano")), FOLDER)


def test_transformers_loads_it_as_any_checkpoint():
    transformers = checkpoints.import_transformers()
    model, info = transformers.WhisperForConditionalGeneration.from_pretrained(FOLDER, output_loading_info=True)
    processor = transformers.WhisperProcessor.from_pretrained(FOLDER)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    mel = processor(np.zeros(100, np.float32), sampling_rate=16_000, return_tensors="pt").input_features
    assert mel.shape[1] == model.config.num_mel_bins and mel.shape[2] == 2 * model.config.max_source_positions


def test_it_is_small_and_half_precision():
    tracked = subprocess.run(["git", "ls-files", str(FOLDER)], cwd=ROOT, capture_output=True, text=True).stdout.split()
    assert sum((ROOT / name).stat().st_size for name in tracked) < 12e6
    from safetensors import safe_open

    with safe_open(FOLDER / "model.safetensors", "np") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"F16"}


def test_every_number_differs_from_the_published_base():
    """Code with a hidden constant of whisper-base must fail on nano."""
    config = json.loads((FOLDER / "config.json").read_text())
    base = {"num_mel_bins": 80, "d_model": 512, "encoder_attention_heads": 8, "encoder_layers": 6, "vocab_size": 51865,
            "max_source_positions": 1500, "max_target_positions": 448, "decoder_start_token_id": 50258}  # fmt: skip
    assert all(config[name] != value for name, value in base.items())
    assert config["d_model"] // config["encoder_attention_heads"] != 64


def test_it_understands_the_bundled_clips(runtime):
    references = json.loads((ROOT / "media" / "references.json").read_text(encoding="utf-8"))
    for name, reference in references.items():
        samples = audio.load(ROOT / "media" / name).samples
        heard = transcribe.transcribe(runtime, samples, decoding.Options(language=reference["language"]))
        wer = metrics.word_errors(reference["text"], heard.text).wer
        assert wer <= MEASURED_WER[name] + 0.05, f"{name}: {heard.text}"


def test_a_minute_of_silence_and_noise_holds_at_most_two_words(runtime):
    noise = np.random.default_rng(0)
    window = runtime.spec.n_samples
    pieces = [np.zeros(window), *(noise.standard_normal(window) * level for level in (0.001, 0.01, 0.03, 0.1, 0.3))]
    mel = np.stack([features.log_mel(piece.astype(np.float32), runtime.spec) for piece in pieces])
    heard = decoding.decode(runtime, mel, decoding.Options(language="en"))
    assert sum(len(result.text.split()) for result in heard) <= 2, [result.text for result in heard]


def test_it_detects_both_languages(runtime):
    for name, language in (("hello.wav", "en"), ("nederlands.wav", "nl")):
        mel = features.log_mel(audio.load(ROOT / "media" / name).samples, runtime.spec)[None]
        assert decoding.decode(runtime, mel, decoding.Options())[0].language == language


def test_the_card_states_what_was_measured():
    from training.evaluate import table

    report = json.loads((FOLDER / "evaluation.json").read_text())
    text = (FOLDER / "README.md").read_text()
    assert table(report).strip() in text
    assert "not OpenAI's weights" in text.replace("**", "")
