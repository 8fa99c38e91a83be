"""The lab's text for students: each prediction has its answer folded away, and the code in it runs as printed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LESSONS = ("docs/lab.md", "workbook/architecture/README.md")
BOX = re.compile(r"^(?:- )?\*\*Predict first:\*\*", re.M)
FENCE = re.compile(r"```\w*\n.*?```", re.S)


@pytest.mark.parametrize("name", LESSONS)
def test_every_prediction_has_its_answer_folded_away(name):
    """Between a box and the next one, or the next heading, there is a fold, and it is not empty."""
    text = FENCE.sub("", (ROOT / name).read_text(encoding="utf-8"))
    boxes = [match.start() for match in BOX.finditer(text)]
    assert boxes and "predict first*:" not in text.lower(), "another way to write a box would not be looked at"
    for start, end in zip(boxes, [*boxes[1:], len(text)], strict=True):
        answer = re.search(r"<details><summary>Answer[^<]*</summary>\s+(.+?)</details>",
                           re.split(r"^#+ ", text[start:end], flags=re.M)[0], re.S)
        assert answer and len(answer[1]) > 40, text[start:start + 80]


def test_the_four_steps_written_out_give_the_text(nano):
    """The block of docs/lab.md with the four steps, in a process of its own, with the shape that its comment says."""
    found = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "lab.md").read_text(encoding="utf-8"), re.S)
    block = next(block for block in found if "model.generate(features)" in block)
    assert [int(n) for n in re.findall(r"# (\d) \w+: ", block)] == [1, 2, 3, 4]
    done = subprocess.run([sys.executable, "-c", block + "print(samples.shape[0], features.shape[0])"], cwd=ROOT,
                          capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    text, shapes = done.stdout.strip().splitlines()[-2:]
    assert text.strip() == "turn on the lights in the kitchen"
    assert shapes == re.search(r"load: .(\d+). at", block)[1] + " 1"
