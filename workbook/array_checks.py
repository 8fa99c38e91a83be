"""Checks of the tasks that give arrays: quantize, project and agree. task_checks.py says what a check is."""

import numpy as np

from whisper_lab.console import LabError

# A row of weights in int8 --------------------------------------------------------------------------------------------

def row(values: list[float], scale: float, integers: list[int], why_scale: str, why: str):
    """A check of one row."""
    def one(function) -> None:
        called = f"quantize({values})"
        with np.errstate(all="ignore"):  # a division by 0 shows in what comes out
            given, step = _pair(function(np.array(values, np.float32)), called)
        if not np.isclose(step, scale, rtol=1e-5):
            raise LabError(f"{called} gives the scale {step:g}, should give {scale:g}", why_scale)
        if given.tolist() != integers:
            raise LabError(f"{called} gives {given.tolist()}, should give {integers}", why)

    return one


def _pair(given, called: str) -> tuple[np.ndarray, float]:
    if not isinstance(given, tuple) or len(given) != 2 or getattr(given[0], "dtype", None) != np.int8:
        raise LabError(f"{called} gives {given!r}, should give an int8 array and a scale",
                       "astype(np.int8) after rounding, and both in a tuple")
    return given[0], float(given[1])


def close_rows(function) -> None:
    """Twenty random rows: no number is further off than half a step."""
    chance = np.random.default_rng(0)
    for _ in range(20):
        values = chance.standard_normal(50).astype(np.float32) * np.float32(chance.uniform(0.01, 10))
        given, step = _pair(function(values), "quantize(a random row)")
        worst = float(np.abs(given * step - values).max()) / step
        if worst > 0.501:
            raise LabError(f"quantize(a random row) is off by {worst:.2f} steps, should be by half a step at most",
                           "round to the nearest integer")


ROW = [
    row([127.0, 2.0, 0.0], 1, [127, 2, 0], "the number of largest magnitude becomes 127: divide by 127", "0 stays 0"),
    row([-127.0, 64.0], 1, [-127, 64], "magnitude: a negative number may be the largest", "divide by the scale"),
    row([127.0, 1.7, -1.7], 1, [127, 2, -2], "divide by 127", "a cast cuts off the decimals: round first"),
    row([0.0, 0.0], 1, [0, 0], "nothing can be divided by 0: a row of zeros has the scale 1", "0 stays 0"),
    close_rows]


# The projector -------------------------------------------------------------------------------------------------------

def projection(count: int, stack: int, width: int, out: int):
    """A check of one shape, with weights that give each place of each vector a value of its own."""
    def one(function) -> None:
        chance = np.random.default_rng(count)
        vectors, weight = chance.standard_normal((count, width)), chance.standard_normal((out, stack * width))
        bias = chance.standard_normal(out)
        called = f"project({count} vectors of {width}, stack={stack})"
        vectors, weight, bias = (array.astype(np.float32) for array in (vectors, weight, bias))
        given = np.asarray(function(vectors, stack, weight, bias))
        if given.shape != (count // stack, out):
            raise LabError(f"{called} gives the shape {list(given.shape)}, should give {[count // stack, out]}",
                           f"{stack} vectors become one, and what is left over at the end is dropped")
        rows = [weight @ np.concatenate(vectors[i * stack:(i + 1) * stack]) for i in range(count // stack)]
        rows = np.array(rows).reshape(count // stack, out)
        if count >= stack and np.allclose(given, rows, atol=1e-4):
            raise LabError(f"{called} leaves out the bias", "a linear layer is x times the weight, plus the bias")
        if not np.allclose(given, rows + bias, atol=1e-4):
            raise LabError(f"{called} gives other numbers than it should",
                           "neighbours are laid end to end: vector 0, then vector 1, ... in one row")

    return one


PROJECTION = [projection(10, 5, 4, 3), projection(13, 5, 4, 3), projection(4, 5, 2, 3), projection(6, 1, 2, 2)]


# A parity test -------------------------------------------------------------------------------------------------------

RIGHT = np.random.default_rng(1).standard_normal((2, 500, 8)).astype(np.float32)


def judged(what: str, test, should: bool, why: str, right: np.ndarray = RIGHT):
    """A check of one pair of arrays; `test` makes the second of the first."""
    def one(function) -> None:
        with np.errstate(all="ignore"):
            given = function(right.copy(), test(right.copy()), 1e-3)
        if not isinstance(given, bool):
            raise LabError(f"agree({what}) gives {given!r}, should give {should}", "return True or False: bool(...)")
        if given != should:
            raise LabError(f"agree({what}) gives {given}, should give {should}", why)

    return one


def changed(array: np.ndarray, where, value) -> np.ndarray:
    array[where] = value
    return array


PARITY = [
    judged("equal arrays", lambda right: right, True, "nothing is wrong"),
    judged("rounding", lambda right: right * np.float32(1 + 1e-6), True, "an error below the limit is allowed"),
    judged("large numbers, rounded", lambda right: right * np.float32(1 + 1e-6), True,
           "the error counts relative to what is right there, not by itself", 1e6 * RIGHT),
    judged("all signs turned", lambda right: -right, False, "the error is the norm of the difference"),
    judged("another shape that NumPy stretches", lambda right: right[:1], False,
           "NumPy repeats an axis of length 1: compare the shapes first", np.repeat(RIGHT[:1], 2, 0)),
    judged("one NaN", lambda right: changed(right, (0, 3, 2), np.nan), False,
           "no comparison with NaN is true, also not `error > limit`: ask np.isfinite"),
    judged("one position of 1000 turned round", lambda right: changed(right, (1, 7), -right[1, 7] * np.float32(0.02)
                                                                      + right[1, 7]), False,
           "in the mean over all positions one that is wrong hides: take every position"),
]
