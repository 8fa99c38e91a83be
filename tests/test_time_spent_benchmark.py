"""benchmarks/time_spent.py: the stages of a cold start and the operators of a run, on whisper-nano."""

import json

import pytest

from tests.helpers.benchmark_files import module
from whisper_lab import files


@pytest.fixture(scope="module")
def time_spent():
    return module("time_spent")


@pytest.fixture(scope="module")
def measured(time_spent, nano_export, tmp_path_factory):
    folder = tmp_path_factory.mktemp("spent")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WHISPER_LAB_PREPARED", str(folder / "prepared"))
        assert time_spent.main(["--model", "nano", "--graphs", str(nano_export / "graphs"), "--rounds", "1",
                                "--tokens", "5", "--output-dir", str(folder), "--quiet"]) == 0
        assert len(list(folder.glob("prepared/*/"))) == 4  # two pairs
    return files.read_json(folder / "time-spent.json")


def test_stages_follow_each_other_and_each_takes_time(measured):
    for row in measured["graphs"].values():
        assert list(row["stages"])[0] == "Python" and list(row["stages"])[-1] == "the text"
        assert min(row["stages"].values()) > 0 and sum(row["stages"].values()) < 60
        assert min(row["opening"].values()) > 0 and list(row["unkept"]) == list(row["stages"])


def test_the_operators_are_those_of_each_graph_and_take_no_longer_than_the_run(measured):
    for name, row in measured["graphs"].items():
        for found in row["operators"].values():
            assert 0 < sum(found["operators"].values()) <= found["seconds"]
        assert ("MatMulNBits" in row["operators"]["decoder"]["operators"]) == (name == "int8 optimized")
        assert "Conv" in row["operators"]["encoder"]["operators"]


def test_a_token_is_timed_after_a_short_window_a_whole_one_and_of_several(measured):
    for row in measured["graphs"].values():
        assert list(row["token"]) == ["5 s", "10 s", "4 x 10 s"] and min(row["token"].values()) > 0


def test_the_first_runs_and_what_is_no_operator_do_not_count(time_spent, tmp_path):
    runs = [{"cat": "Session", "name": "model_run", "ts": 1000 * i, "dur": 900 if i < time_spent.WARM else 500}
            for i in range(time_spent.WARM + 2)]
    nodes = [{"cat": "Node", "name": f"n_{end}", "ts": run["ts"] + 10, "dur": 100, "args": {"op_name": "Conv"}}
             for run in runs for end in ("kernel_time", "fence_before")]
    (tmp_path / "profile.json").write_text(json.dumps([*runs, *nodes]))
    found = time_spent.spent(tmp_path / "profile.json")
    assert (found["seconds"], found["operators"]) == (pytest.approx(5e-4), pytest.approx({"Conv": 1e-4}))


def test_the_table_has_every_stage_and_every_run(time_spent, measured):
    lines = time_spent.table(measured).splitlines()
    first = next(iter(measured["graphs"].values()))
    rows = len(first["stages"]) + 2 + len(first["opening"]), len(first["token"]), 4
    assert len(lines) == sum(2 + count + 1 for count in rows) + 1
    assert "**in all**" in "\n".join(lines) and "everything else" in lines[-3]
