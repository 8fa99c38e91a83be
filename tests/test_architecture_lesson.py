"""The lesson on the architecture: its commands run and print what stands below them; its numbers are right."""

import re
import shlex

import pytest

from tests.conftest import ROOT

PAGE = ROOT / "workbook" / "architecture" / "README.md"
BUNDLE = ROOT / "speech_llm_model_dir" / "nano-asr" / "config.json"
BLOCK = re.compile(r"(<!-- needs the miniature -->\n)?```bash\n(.*?)```\n(?:\n```text\n(.*?)```)?", re.S)


def blocks() -> list[tuple[bool, list[str], str]]:
    """(needs the miniature, commands, what they print) of every bash block."""
    text = PAGE.read_text(encoding="utf-8")
    return [(bool(mark), commands.splitlines(), printed) for mark, commands, printed in BLOCK.findall(text)]


def test_the_lesson_has_commands():
    assert len(blocks()) >= 4 and any(printed for _, _, printed in blocks())


@pytest.mark.parametrize("block", blocks(), ids=lambda block: block[1][0][-40:])
def test_a_command_of_the_lesson_prints_what_it_promises(block, call_script, tmp_path):
    needs_miniature, commands, printed = block
    if needs_miniature and not BUNDLE.is_file():
        pytest.skip("speech_llm_model_dir/nano-asr is not there yet: it is trained with training/train_projector.py")
    out = ""
    for command in commands:
        program, script, *arguments = shlex.split(command)
        assert program == "python"
        status, out, err = call_script(script, *arguments, "--output-dir", tmp_path)
        assert status == 0, err
    printed, out = ("\n".join(line.rstrip() for line in text.splitlines()) for text in (printed, out))
    assert printed in out


def test_the_lessons_numbers_are_the_programs():
    from whisper_lab.speech_llm import ASRConfig, ASRModel
    from whisper_lab.speech_llm.projectors import make_projector

    config = ASRConfig.from_parts("openai/whisper-large-v3", "Qwen/Qwen2-7B-Instruct")
    assert config.llm_dim == 3584 and "**3584** is right" in PAGE.read_text(encoding="utf-8")
    projector = ASRModel.blueprint(config).audio_projector
    assert sum(p.numel() for p in projector.parameters()) == 6400 * 3584 + 3584 + 6400 + 3584
    assert config.audio_config.d_model * config.audio_downsample_rate == 6400
    for seconds, vectors in ((4.5, 45), (1, 10), (9, 90), (3, 30)):  # exercise and self-check
        assert make_projector("linear", 4, 4, 5).get_output_length(round(seconds * 50)) == vectors


def test_the_four_steps_by_hand_run(capsys, monkeypatch):
    if not BUNDLE.is_file():
        pytest.skip("speech_llm_model_dir/nano-asr is not there yet: it is trained with training/train_projector.py")
    monkeypatch.chdir(ROOT)
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)[1]
    exec(compile(code, str(PAGE), "exec"), {})
    assert "['" in capsys.readouterr().out
