"""The tasks: the checker accepts the reference solutions, and tells apart the mistakes that one makes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from whisper_lab.console import LabError
from workbook import check, task_checks

SOLUTIONS = Path(__file__).parent / "workbook_solutions"

BEFORE = "    cost = [list"
END = """ or not np.isfinite(test).all():
        return False
    error, size = np.linalg.norm(test - right, axis=-1), np.linalg.norm(right, axis=-1)
    return bool((error <= limit * size).all())
"""
# task, what is right, what is put in its place, what the message says
MISTAKES = [
    ("word_error_rate", "cost[-1][-1] / len(said)", "cost[-1][-1] / max(1, len(written))", "divides by the words said"),
    ("word_error_rate", "cost[-1][-1] / len(said)", "cost[-1][-1]", "a deletion"),
    ("word_error_rate", "(one != other)", "2 * (one != other)", "not two: a substitution"),
    ("word_error_rate", BEFORE, "    return sum(map(str.__ne__, said, written)) / len(said)\n" + BEFORE, "added words"),
    ("word_error_rate", BEFORE, "    from itertools import zip_longest\n"
     "    return sum(a != b for a, b in zip_longest(said, written)) / len(said)\n" + BEFORE, "align"),
    ("joules", "(first + second) / 2 * (after - before)", "first * (after - before)", "the mean of both"),
    ("joules", "* (after - before)", "* (readings[1][0] - readings[0][0])", "irregularly"),
    ("joules", "* (after - before)", "* after", "differences count"),
    ("joules", "* (after - before)", "", "power times time"),
    ("quantize", "np.abs(row).max()", "row.max()", "a negative number may be the largest"),
    ("quantize", "np.rint(row / scale)", "(row / scale)", "round first"),
    ("quantize", "/ 127", "/ 128", "divide by 127"),
    ("quantize", " if largest else 1.0", "", "a row of zeros"),
    ("quantize", ".astype(np.int8)", "", "astype(np.int8) after rounding"),
    ("project", "[:count * stack].reshape(count, stack * vectors.shape[1])", ".repeat(stack, 1)", "become one"),
    ("project", "(count, stack * vectors.shape[1])", "(stack, count, -1).swapaxes(0, 1).reshape(count, -1)",
     "end to end"),
    ("project", " + bias", "", "leaves out the bias"),
    ("project", "[:count * stack].reshape(count,", ".reshape(-1,", "ValueError"),
    ("agree", "right.shape != test.shape or ", "", "compare the shapes first"),
    ("agree", END, ":\n        return False\n    error, size = np.linalg.norm(test - right, axis=-1), "
     "np.linalg.norm(right, axis=-1)\n    return not bool((error > limit * size).any())\n", "no comparison with NaN"),
    ("agree", "(error <= limit * size).all()", "error.mean() <= limit * size.mean()", "take every position"),
    ("agree", "limit * size", "limit", "relative to what is right"),
    ("agree", "np.linalg.norm(test - right, axis=-1)", "abs(np.linalg.norm(test, axis=-1) - np.linalg.norm(right, "
     "axis=-1))", "the norm of the difference"),
    ("agree", "bool((error <= limit * size).all())", "(error <= limit * size).all()", "bool("),
    ("load", ", dtype=\"float32\"", "", "average over the channels"),
    ("load", "dtype=\"float32\"", "dtype=\"int16\"", "float32"),
    ("load", ".mean(axis=1)", ".sum(axis=1)", "the mean of the channels"),
    ("load", ".mean(axis=1)", "[:, 0]", "the mean of the channels"),
    ("load", "soxr.resample(mono, rate, RATE)", "mono", "resample from"),
    ("load", "soxr.resample(mono, rate, RATE)", "mono[(np.arange(RATE) * rate / RATE).astype(int)]", "folds back"),
    ("mel", " ** 2", "", "step 3"), ("mel", "np.log10", "np.log", "step 5"),
    ("mel", "(logs + 4) / 4", "logs", "(x + 4) / 4"), ("mel", "logs.max()", "logs.max(0)", "not that of each column"),
    ("mel", "    logs = np.maximum(logs, logs.max() - 8)\n", "", "is raised to that floor"),
    ("mel", "mode=\"reflect\"", "mode=\"constant\"", "step 1"), ("mel", " * window for", " for", "step 2"),
    ("mel", "len(samples) // hop", "len(samples) // hop + 1", "the last one"), ("mel", "/ 4", "/ 3", "print each step"),
    ("greedy", "ids = np.array([[token]], np.int64)", "ids = np.array([prompt + said], np.int64)", "only the newest"),
    ("greedy", "past = {name.replace(", "_ = {name.replace(", "the present_..._self of the call before"),
    ("greedy", "[0, -1]", "[0, 0]", "the last position"),
    ("greedy", "        if token == end:\n            break\n", "", "stop at the end token"),
    ("greedy", "        if token == end:\n            break\n        said.append(token)\n",
     "        said.append(token)\n        if token == end:\n            break\n", "before you append"),
    ("greedy", "while len(said) < most:", "while True:", "stop at the end token"),
    ("greedy", "        made = dict", "        cross = listen(encoder, features)\n        made = dict",
     "the encoder ran"),
    ("greedy", "return said", "return prompt + said", "what comes after the prompt"),
    ("greedy", "return said", "return tuple(said)", "as a list of int"),
]


def test_every_task_has_a_gap_a_solution_and_checks():
    names = {path.stem for path in check.TASKS.glob("*.py")}
    assert names == set(task_checks.CHECKS) == set(task_checks.LEARNT) == {path.stem for path in SOLUTIONS.glob("*.py")}
    for name in names:
        with pytest.raises(LabError, match="the gap is still there"):
            check.main([name])


@pytest.mark.parametrize("task", task_checks.CHECKS)
def test_the_solution_is_accepted(task, capsys):
    assert check.main([task, "--file", str(SOLUTIONS / f"{task}.py")]) == 0
    assert capsys.readouterr().out.startswith(f"right: {task} passes all {len(task_checks.CHECKS[task])} checks.")


@pytest.mark.parametrize("task, right, wrong, says", MISTAKES)
def test_a_typical_mistake_is_rejected_with_what_teaches(tmp_path, task, right, wrong, says):
    text = (SOLUTIONS / f"{task}.py").read_text(encoding="utf-8")
    assert text.count(right) == 1
    mine = tmp_path / "mine.py"
    mine.write_text(text.replace(right, wrong), encoding="utf-8")
    with pytest.raises(LabError) as raised:
        check.main([task, "--file", str(mine)])
    message = f"{raised.value.problem} {raised.value.remedy}"
    assert says in message and not re.search(r"\n", message), message


@pytest.mark.parametrize("text, says", [
    ("def joules(readings):\n    return readings[0] / 0\n", "TypeError"),
    ("def joules(readings:\n", "SyntaxError"),
    ("def watts(readings):\n    return 0\n", "has no function joules"),
    ("def joules(readings):\n    return None\n", "return a number"),
])
def test_a_file_that_does_not_work_ends_in_one_line(tmp_path, text, says):
    mine = tmp_path / "mine.py"
    mine.write_text(text, encoding="utf-8")
    with pytest.raises(LabError) as raised:
        check.main(["joules", "--file", str(mine)])
    assert says in f"{raised.value.problem} {raised.value.remedy}"
    assert "line ?" not in raised.value.remedy


def test_from_the_command_line():
    command = [sys.executable, "-m", "workbook.check", "joules"]
    done = subprocess.run(command, cwd=check.HERE.parent, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["error: joules: the gap is still there",
                                        "  try: fill it in workbook/tasks/joules.py, then run this again"]
