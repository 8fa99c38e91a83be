"""One recording, one process: between processes, between machines, after deaths, whatever the clocks say."""

import errno
import os

import pytest

from whisper_lab import locks
from whisper_lab.archive import claims
from whisper_lab.archive.claims import Worker

KEY = "3fa91c07"
YEAR_S = 365 * 86400


class Clock:
    """s that pass when a test says so."""

    def __init__(self):
        self.s = 0.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def worker(tmp_path, clock, monkeypatch):
    """A function machine -> a process there, which shows life when `beat` is called."""
    made = []

    def enter(machine: str = "aaaaaaaa") -> Worker:
        with monkeypatch.context() as there:
            there.setattr(locks, "machine", lambda: machine)
            one = Worker(tmp_path / ".archive" / "claims", "test", beat_s=1e6, lease_s=60, now=clock)
            made.append(one.__enter__())
        for name in ("claim", "state", "owner", "_remove_what_died_here"):
            method = getattr(one, name)

            def called(*arguments, method=method, machine=machine):
                with monkeypatch.context() as there:
                    there.setattr(locks, "machine", lambda: machine)
                    return method(*arguments)

            setattr(one, name, called)
        return one

    yield enter
    for one in made:
        if one.path.exists():
            one.__exit__(None, None, None)


def die(one: Worker) -> None:
    """What kill -9 does: the lock is free, the files stay."""
    one._ended.set()
    one._thread.join()
    os.close(one._file)
    one._file = os.open(os.devnull, os.O_RDWR)


def names(tmp_path) -> list[str]:
    return sorted(path.name for path in (tmp_path / ".archive" / "claims").glob(f"{KEY}*"))


@pytest.mark.parametrize("machines", [("aaaaaaaa", "aaaaaaaa"), ("aaaaaaaa", "bbbbbbbb")])
def test_one_has_it_until_it_gives_it_back(worker, tmp_path, machines):
    first, second = map(worker, machines)
    claim = first.claim(KEY)
    assert claim is not None and claim.is_mine() and second.claim(KEY) is None
    claim.release()
    taken = second.claim(KEY)
    assert taken.generation == 1 and first.claim(KEY) is None
    taken.release()
    assert names(tmp_path) == []


def test_what_a_killed_process_had_is_taken_at_once_on_the_same_machine(worker, tmp_path):
    first, second, third = worker(), worker(), worker()
    first.claim(KEY)
    die(first)
    claim = second.claim(KEY)
    assert claim.generation == 2 and third.claim(KEY) is None
    claim.release()
    assert names(tmp_path) == []


def test_on_another_machine_life_is_a_number_that_changes(worker, clock):
    first, second = worker("aaaaaaaa"), worker("bbbbbbbb")
    first.claim(KEY)
    assert second.owner(KEY) == "unsure"
    for number in range(1, 6):  # slowly, but it lives
        clock.s += 59
        first._beat(number)
        assert second.owner(KEY) == "alive" and second.claim(KEY) is None
    die(first)
    clock.s += 59
    assert second.owner(KEY) == "unsure" and second.claim(KEY) is None
    clock.s += 2
    assert second.owner(KEY) == "dead" and second.claim(KEY).generation == 2


@pytest.mark.parametrize("off", [-30 * YEAR_S, -3600, 3600, 30 * YEAR_S])
def test_the_times_of_files_decide_nothing(worker, tmp_path, clock, off, monkeypatch):
    """One node's clock is off, and the server's is another one."""
    first, second = worker("aaaaaaaa"), worker("bbbbbbbb")
    first.claim(KEY)
    for path in (tmp_path / ".archive" / "claims").iterdir():
        os.utime(path, (path.stat().st_mtime + off,) * 2)
    monkeypatch.setattr("time.time", lambda: 1.8e9 - off)
    assert second.claim(KEY) is None
    clock.s += 30
    first._beat(1)
    assert second.owner(KEY) == "alive"
    clock.s += 61
    assert second.claim(KEY).generation == 2


def test_of_two_that_find_it_dead_one_takes_it(worker, clock, tmp_path, monkeypatch):
    """Both have looked; then one is quick, and has even given it back, when the other one goes on."""
    first, second, third = worker("aaaaaaaa"), worker("bbbbbbbb"), worker("cccccccc")
    first.claim(KEY)
    assert [second.owner(KEY), third.owner(KEY)] == ["unsure", "unsure"]
    die(first)
    clock.s += 61
    assert [second.owner(KEY), third.owner(KEY)] == ["dead", "dead"]
    quick = second.claim(KEY)
    assert quick.generation == 2 and third.claim(KEY) is None and quick.is_mine()
    quick.release()
    assert third.claim(KEY).generation == 1 and names(tmp_path) == [f"{KEY}.1"]


def test_a_process_that_was_stopped_finds_that_its_claim_is_lost(worker, clock, tmp_path):
    first, second = worker("aaaaaaaa"), worker("bbbbbbbb")
    stopped = first.claim(KEY)
    second.owner(KEY)
    clock.s += 61
    taken = second.claim(KEY)
    assert not stopped.is_mine() and taken.is_mine()
    stopped.release()  # it must not give back what is another's
    assert names(tmp_path) == [f"{KEY}.1", f"{KEY}.2"] and taken.is_mine()
    taken.release()
    assert names(tmp_path) == [] and not stopped.is_mine()


def test_an_answer_that_was_lost_on_the_way_is_no_other_process(worker, monkeypatch):
    """NFS asks again when the server's answer to a link was lost, and then hears that it is there."""
    one, link = worker(), os.link

    def twice(source, target):
        link(source, target)
        raise FileExistsError(errno.EEXIST, "File exists", str(target))

    monkeypatch.setattr(os, "link", twice)
    assert one.claim(KEY).generation == 1


def test_a_disk_without_hard_links_is_said_once(worker, monkeypatch, capsys, caplog):
    def refuse(source, target):
        raise OSError(errno.EPERM, "Operation not permitted", str(target))

    one = worker()
    monkeypatch.setattr(os, "link", refuse)
    said = []
    monkeypatch.setattr(claims.console, "warn", said.append)
    made = [one.claim(KEY), one.claim("b07e22d1")]
    assert all(claim.is_mine() for claim in made) and len(said) == 1 and "no hard links" in said[0]
    for claim in made:
        claim.release()


def test_what_a_killed_process_left_here_is_removed_and_the_count_of_deaths_is_not(worker, tmp_path):
    first = worker()
    first.claim(KEY)
    first.part.write_text('{"half": ')
    die(first)
    second = worker()
    assert not first.path.exists() and not first.part.exists() and names(tmp_path) == [f"{KEY}.1"]
    assert second.claim(KEY).generation == 2


def test_claims_of_the_dead_on_what_is_done_are_given_back(worker, tmp_path):
    first, second = worker(), worker()
    first.claim(KEY), first.claim("b07e22d1")
    second.give_back({KEY})
    assert names(tmp_path) == [f"{KEY}.1"]  # its owner lives
    die(first)
    second.give_back({KEY})
    assert names(tmp_path) == [] and second.owner("b07e22d1") == "dead"


def test_all_is_given_back_at_the_end_of_a_process(tmp_path):
    with Worker(tmp_path / "claims", "one") as one:
        assert one.claim(KEY) and (tmp_path / "claims" / f"{KEY}.1").read_text().startswith(one.token)
        with Worker(tmp_path / "claims", "two") as two:
            assert two.claim(KEY) is None
    assert list((tmp_path / "claims").iterdir()) == []


@pytest.mark.parametrize("moment", ["taken", "given back"])
def test_a_signal_between_two_steps_leaves_no_claim(tmp_path, monkeypatch, moment):
    """What it would leave counts as a death, and a recording that processes die of is given up in the end."""
    def link(source, target, link=os.link):
        link(source, target)
        raise KeyboardInterrupt

    def is_mine(claim):
        monkeypatch.undo()  # the first time alone
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Worker(tmp_path / "claims", "one") as one:
        if moment == "taken":
            monkeypatch.setattr(os, "link", link)
        claim = one.claim(KEY)
        monkeypatch.setattr(claims.Claim, "is_mine", is_mine)
        claim.release()
    assert list((tmp_path / "claims").iterdir()) == []


def test_a_claim_that_another_has_is_not_given_back_by_those_who_asked(worker, tmp_path):
    first, second = worker(), worker()
    assert first.claim(KEY) and second.claim(KEY) is None
    second.__exit__(None, None, None)
    assert names(tmp_path) == [f"{KEY}.1"]


def test_a_process_shows_life_by_itself(tmp_path):
    with Worker(tmp_path / "claims", "one", beat_s=0.01) as one:
        before = one.path.read_text()
        for _ in range(500):
            if (now := one.path.read_text()) != before:
                break
            one._ended.wait(0.01)
        assert now != before and len(now) == len(before) and now.endswith("one\n")
