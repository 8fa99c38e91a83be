"""Arrays that wait in a file until they are asked for.

What PyTorch says of a dozen windows, a row of logits for every token, outweighs a small model; the gates look at one
window after the other. So it is written down, and memory holds only what a gate is looking at.
"""

import tempfile

import numpy as np


class Stored:
    """An array, or a list of arrays, in a file that has no name and goes when this does."""

    def __init__(self, arrays: np.ndarray | list[np.ndarray]):
        self._is_list = isinstance(arrays, list)
        arrays = arrays if self._is_list else [arrays]
        self._kinds = [(array.shape, array.dtype) for array in arrays]
        self._file = tempfile.TemporaryFile()  # open for as long as this is there
        for array in arrays:
            self._file.write(np.ascontiguousarray(array))
        self._file.flush()

    def read(self) -> np.ndarray | list[np.ndarray]:
        """A copy of what was written, the caller's own."""
        self._file.seek(0)
        arrays = [np.empty(*kind) for kind in self._kinds]
        for array in arrays:
            self._file.readinto(array)
        return arrays if self._is_list else arrays[0]


class OnDisk:
    """A field of a dataclass that is written when it is set and read whenever it is asked for: ask once, and keep it.

    A Stored may be given in the place of an array: two objects then share a file (`stored`).
    """

    def __set_name__(self, owner: type, name: str):
        self._kept = f"_{name}"

    def __get__(self, thing, owner: type):
        if thing is None:
            raise AttributeError("no default")  # what a dataclass asks of a field
        return vars(thing)[self._kept].read()

    def __set__(self, thing, arrays: np.ndarray | list[np.ndarray] | Stored) -> None:
        vars(thing)[self._kept] = arrays if isinstance(arrays, Stored) else Stored(arrays)


def stored(thing, name: str) -> Stored:
    """The file behind a field that is OnDisk."""
    return vars(thing)[f"_{name}"]
