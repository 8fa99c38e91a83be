"""Arrays that wait in a file: the same numbers, a copy for each who asks, and nothing left behind."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from whisper_lab.export.on_disk import OnDisk, stored


@dataclass(frozen=True)
class Thing:
    name: str
    one: np.ndarray = OnDisk()
    some: list[np.ndarray] = OnDisk()


@pytest.fixture
def thing() -> Thing:
    return Thing("thing", np.arange(12, dtype=np.float32).reshape(3, 4)[:, ::2],
                 [np.zeros((2, 0, 3)), np.array([1, -1], np.int64), np.array(np.nan)])


def test_what_is_read_is_what_was_written(thing):
    assert thing.one.dtype == np.float32 and thing.one.tolist() == [[0, 2], [4, 6], [8, 10]]
    empty, numbers, lost = thing.some
    assert empty.shape == (2, 0, 3) and numbers.tolist() == [1, -1] and lost.shape == () and np.isnan(lost)
    assert Thing("none", np.zeros(0), []).some == []


def test_everyone_who_asks_gets_a_copy(thing):
    thing.one[:] = -1
    assert thing.one.max() == 10


def test_a_field_has_no_default_and_can_be_replaced(thing):
    with pytest.raises(TypeError, match="one"):
        Thing("thing")
    other = replace(thing, one=np.ones(2))
    assert other.one.tolist() == [1, 1] and thing.one.shape == (3, 2) and other.some[1].tolist() == [1, -1]


def test_two_may_share_a_file(thing):
    other = Thing("other", stored(thing, "one"), [])
    del thing
    assert other.one.sum() == 30


def test_no_file_is_left_behind(tmp_path, monkeypatch):
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    thing = Thing("thing", np.ones(1000), [])
    assert thing.one.sum() == 1000
    del thing
    assert list(tmp_path.iterdir()) == []
