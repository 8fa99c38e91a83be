"""benchmarks/idle.py: a busy machine is refused, and what the host of a virtual machine disturbed is measured again."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from tests.helpers.benchmark_files import module
from whisper_lab.console import LabError

COMMAND = "python benchmarks/run.py"
idle = module("idle")


# A busy machine -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("load, others, said", [
    (4.0, 0.0, "load 4.0, other processes take 0.0 of"), (0.1, 1.5, "load 0.1, other processes take 1.5 of"),
    (None, 1.5, "(other processes take 1.5 of")])
def test_it_refuses_a_busy_machine(monkeypatch, load, others, said):
    warned = []
    monkeypatch.setattr(idle.console, "warn", warned.append)
    monkeypatch.setattr(idle, "busy_cores", lambda: (others, ", python most"))
    with pytest.raises(LabError, match="the machine is busy") as caught:
        idle.refuse_busy(load, COMMAND, anyway=False)
    assert said in caught.value.problem and caught.value.remedy.endswith("run.py --anyway")
    assert idle.refuse_busy(load, COMMAND, anyway=True) == others
    assert warned == [caught.value.problem]


@pytest.mark.parametrize("loads, others, anyway, found, watched", [
    ([3.0, 2.0, 0.9], 0.0, False, 0.9, 2), ([3.0, 2.0], 0.0, True, 3.0, 0), ([3.0, 2.0], 1.5, False, 3.0, 1),
    ([0.4], 0.0, False, 0.4, 0)])
def test_it_waits_for_what_is_over(monkeypatch, loads, others, anyway, found, watched):
    """The load is a mean of the last minute: after another measurement it is high, and nothing is at work."""
    asked, following = [], iter(loads)
    monkeypatch.setattr(idle, "busy_cores", lambda: asked.append(1) or (others, ""))
    monkeypatch.setattr(idle.os, "getloadavg", lambda: (next(following), 0, 0))
    assert idle.settled_load(anyway) == found and len(asked) == watched


def test_it_measures_on_an_idle_one(monkeypatch):
    monkeypatch.setattr(idle, "busy_cores", lambda: (0.05, ""))
    assert idle.refuse_busy(0.4, COMMAND, anyway=False) == 0.05


def test_the_program_refuses_before_it_makes_anything(monkeypatch, tmp_path):
    run, prepare = module("run"), module("prepare")
    monkeypatch.setattr(idle, "busy_cores", lambda: (1.0, ", python most"))
    monkeypatch.setattr(prepare, "run", lambda *_, **__: pytest.fail("something was prepared"))
    monkeypatch.setattr(run.checkpoints, "resolve", lambda *_: pytest.fail("a checkpoint was looked for"))
    with pytest.raises(LabError, match="other processes take 1.0 of"):
        run.main(["--model", "nano", "--output-dir", str(tmp_path), "--quiet"])
    assert not list(tmp_path.iterdir())


def test_other_processes_are_noticed(monkeypatch):
    monkeypatch.setattr(idle, "WATCHED", 1)
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as spinning:
        try:
            cores, busiest = idle.busy_cores()
        finally:
            spinning.kill()
    assert cores > 0.2 and busiest.endswith(" most")


# The host of a virtual machine ----------------------------------------------------------------------------------------

@pytest.fixture
def measured(monkeypatch):
    """A function (parts that the host takes of one measurement after the other) -> (result, Host)."""
    clock = SimpleNamespace(user=50.0, nice=0.0, system=10.0, steal=3.0)

    def run(*parts: float, calls: int = 1):
        results = iter(enumerate(parts))

        def measure() -> int:
            number, part = next(results)
            clock.steal, clock.user = clock.steal + 100 * part, clock.user + 100 * (1 - part)
            return number

        host = idle.Host()
        return [host.quiet(measure) for _ in range(calls)][-1], host

    monkeypatch.setattr(idle.psutil, "cpu_times", lambda: SimpleNamespace(**vars(clock)))
    run.clock = clock
    return run


@pytest.mark.parametrize("parts, result, facts", [
    ((0.0,), 0, {"stolen": 0, "measured_again": 0}), ((0.05,), 0, {"stolen": 0.05, "measured_again": 0}),
    ((0.2, 0.01), 1, {"stolen": 0.01, "measured_again": 1}),
    ((0.2, 0.1, 0.3), 1, {"stolen": 0.1, "measured_again": 2})])
def test_what_the_host_disturbed_is_measured_again(measured, monkeypatch, parts, result, facts):
    """And of tries that were all disturbed the least counts, with a warning."""
    told = []
    monkeypatch.setattr(idle.console, "warn", told.append)
    found, host = measured(*parts)
    assert found == result and host.facts() == facts
    assert [f"{100 * facts['stolen']:.0f} % of the processor time" in text for text in told] == \
        [True] * (facts["stolen"] > idle.STOLEN)


def test_the_share_is_of_all_that_counts(measured):
    _, host = measured(0.01, 0.5, 0.03, calls=2)
    assert host.facts() == {"stolen": 0.02, "measured_again": 1}
    assert idle.in_words(host.facts()) == ", the host of the virtual machine 2.0 % of the time (1 measured again, " \
                                          "which it had disturbed)"


def test_where_nobody_counts_it_nothing_was_taken(measured):
    del measured.clock.steal
    host = idle.Host()
    assert host.quiet(lambda: "found") == "found" and host.facts() == {"stolen": 0.0, "measured_again": 0}
    assert idle.in_words(host.facts()) == idle.in_words({}) == ""


def test_an_error_is_the_measurement_s_own(measured):
    with pytest.raises(ZeroDivisionError):
        idle.Host().quiet(lambda: 1 / 0)
