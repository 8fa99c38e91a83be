"""benchmarks/beams.py: both searches on whisper-nano, the limits that clips did not choose, the table."""

from pathlib import Path

import pytest

from tests.helpers.benchmark_files import module
from whisper_lab import decoding, files

MEDIA = Path(__file__).resolve().parent.parent / "media"


@pytest.fixture(scope="module")
def beams():
    return module("beams")


def row(beams, folder: str, token: float, greedy: int, wide: int) -> dict:
    """A clip of ten words and ten tokens, with so many errors each way."""
    counts = [beams.scoring.Counts(10, errors, 0, 0, 0, ((10, errors),)) for errors in (greedy, wide)]
    return {"folder": folder, "language": "en", "seconds": 3.0, "token": token, "text": 10 * token, "greedy_s": 1.0,
            "wide_s": 2.0, "greedy_counts": counts[0], "wide_counts": counts[1]}


def test_the_limits_are_the_cheapest_that_find_what_beams_find(beams):
    """Only below -0.5 a token do beams help: above, they would be searched for nothing."""
    rows = [row(beams, "a", -0.1, 0, 0), row(beams, "a", -0.45, 1, 1), row(beams, "b", -0.55, 4, 1)]
    assert beams.best(rows) == (-0.5, -24.0)
    rows.append(row(beams, "b", -0.45, 3, 0))
    assert beams.best(rows) == (-0.7, -4.0)  # three searches, as -0.4 a token would have


def test_a_folder_is_judged_by_limits_that_the_others_chose(beams):
    rows = [row(beams, "easy", -0.2, 0, 0), row(beams, "easy", -0.72, 3, 0), row(beams, "hard", -0.45, 3, 0)]
    greedy, wide, ours, elsewhere = beams.rules(rows)
    errors = [round(10 * 3 * rule["parts"]["all"]["wer"]) for rule in (greedy, wide, ours, elsewhere)]
    # `easy` chooses -0.7 a token, so `hard` keeps its errors; what `hard` chooses finds those of `easy`.
    assert errors == [6, 0, 0, 3]
    assert [rule["searched_again"] for rule in (greedy, wide, ours, elsewhere)] == [0, 3, 2, 1]
    assert (ours["limits"], ours["processor_time"]) == (beams.OURS, pytest.approx(7 / 3))
    assert beams.limits(elsewhere["limits"]) == "-0.7 / -24, -0.7 / -4"


def test_on_nano(beams, nano_export, tmp_path):
    assert beams.OURS == (decoding.DOUBTFUL_TOKEN, decoding.DOUBTFUL_TEXT)
    assert beams.main(["--corpus", str(MEDIA), "--model", "nano", "--graphs", str(nano_export / "graphs"),
                       "--output-dir", str(tmp_path), "--quiet"]) == 0
    found = files.read_json(tmp_path / "beams.json")
    assert found["corpus"]["clips"] >= 3 and found["precision"] == "int8"
    greedy, wide, *_ = found["rules"]
    assert greedy["searched_again"] == 0 and wide["searched_again"] == wide["clips"] == greedy["clips"]
    assert greedy["processor_time"] == 1 < wide["processor_time"]
    lines = beams.table(found).splitlines()
    assert len(lines) == 2 + 3 + 2 and lines[4].startswith("| auto | -0.3 / -8 |") and "whisper-nano int8" in lines[-1]
