"""The course text's program for the architecture runs as it is printed there, and prints what it prints there."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXPECTED = ROOT / "tests" / "fixtures" / "architecture-expected.txt"
PROGRAM = '''
from src.asr_config import ASRConfig
from src.asr_modeling import ASRModel

config = ASRConfig.from_pretrained("mazesmazes/tiny-audio", trust_remote_code=True)
print(f"1. Audio Encoder ID  -> {config.audio_model_id}")
print(f"   - Encoder output dimension: {config.encoder_dim}\\n")
print(f"2. Text Decoder ID   -> {config.text_model_id}")
print(f"   - LLM input dimension: {config.llm_dim}\\n")
print(f"   - Downsample Rate: {config.audio_downsample_rate}x")
model = ASRModel(config)
print(f"1. model.audio_encoder:\\n   {model.audio_encoder.__class__.__name__}\\n")
print(f"2. model.audio_projector:\\n   {model.audio_projector}\\n")
print(f"3. model.text_decoder:\\n   {model.text_decoder.__class__.__name__}\\n")
'''


def test_the_courses_program_prints_what_the_course_says():
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    printed = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    expected = [line.strip() for line in EXPECTED.read_text(encoding="utf-8").splitlines()]
    assert len(printed) == 15 and [line for line in printed if line not in expected] == []
    assert printed == [line for line in expected if line in printed]  # in that order
    assert "without weights" in done.stderr and "nothing is downloaded" in done.stderr


def test_another_name_is_what_the_lab_makes_of_it():
    from src.asr_config import ASRConfig
    from src.asr_modeling import ASRModel

    folder = ROOT / "speech_llm_model_dir" / "nano-asr"
    if not (folder / "config.json").exists():
        pytest.skip("the miniature is not part of this copy")
    config = ASRConfig.from_pretrained(folder, trust_remote_code=True)
    assert config.audio_downsample_rate and "whisper-nano" in config.audio_model_id
    model = ASRModel.from_pretrained(folder)
    assert {weight.device.type for weight in model.parameters()} == {"cpu"}
