"""benchmarks/gpu.py: from 06's documents to rows and a table; on the processor, with whisper-nano."""

import json
import shutil

import pytest

from tests.helpers.benchmark_files import module

CLIPS = ("hello.wav", "digits.wav")


@pytest.fixture(scope="module")
def gpu():
    return module("gpu")


@pytest.fixture(scope="module")
def measured(gpu, nano, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu")
    media = gpu.prepare.ROOT / "media"
    for name in (*CLIPS, "references.json"):
        shutil.copy(media / name, folder)
    common = ("--models", "nano", "--device", "cpu", "--dtypes", "float32", "--output", str(folder / "gpu.json"),
              "--quiet")
    assert gpu.main(["--clips", str(folder), "--batch-sizes", "1,2", "--repeats", "1", *common]) == 0
    rows = json.loads((folder / "gpu.json").read_text(encoding="utf-8"))["rows"]
    gpu.DTYPES, known = ("float32",), gpu.DTYPES
    try:
        assert gpu.main(["--corpus", str(folder), *common]) == 0
    finally:
        gpu.DTYPES = known
    made = json.loads((folder / "gpu.json").read_text(encoding="utf-8"))
    assert made["rows"] == rows  # measuring words leaves the times as they were
    return made


def test_a_row_for_each_batch_size(measured):
    assert [(row["model"], row["dtype"], row["batch_size"], row["clips"]) for row in measured["rows"]] == [
        ("whisper-nano", "float32", size, len(CLIPS)) for size in (1, 2)]
    assert all(row["average_rtf"] > 0 and row["wer"] == 0 and not row["random_weights"] for row in measured["rows"])


def test_the_table_has_no_number_where_none_was_measured(gpu, measured):
    line = gpu.table(measured).splitlines()[2].split(" | ")
    assert line[0] == "| nano" and line[6:9] == ["–", "–", "–"] and line[9] == "0.0 |"


def test_words_are_compared_with_the_processors(gpu, measured):
    assert [(row["dtype"], row["other_texts"], row["wer"]) for row in measured["words"]] == [("float32", 0, 0)] * 2
    assert "another text in 0 clips" in gpu.table(measured)


def test_another_text_is_counted(gpu):
    documents = [{"checkpoint": {"name": "a"}, "device": "cuda", "torch_dtype": "torch.float16", "total_samples": 2,
                  "reference_words": 2, "wer": 0.5, "transcriptions": [{"text": "one"}, {"text": second}]}
                 for second in ("two", "too")]
    assert [row["other_texts"] for row in gpu.words_of(documents)] == [0, 1]


def test_random_weights_have_no_words(gpu, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        gpu.main(["--models", "tiny-random", "--corpus", str(tmp_path)])
    assert ended.value.code == 2 and "random weights write no words" in capsys.readouterr().err
    assert gpu.trained(["tiny-random", "base"]) == ["base"]


def test_something_has_to_be_measured(gpu, capsys):
    with pytest.raises(SystemExit) as ended:
        gpu.main(["--models", "nano"])
    assert ended.value.code == 2 and "--clips FOLDER measures times" in capsys.readouterr().err
