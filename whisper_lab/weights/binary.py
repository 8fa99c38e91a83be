"""Reading a binary file that nobody vouches for: every length is compared with what is left of the file."""

import mmap
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from whisper_lab.console import LabError
from whisper_lab.weights.model import damaged

if TYPE_CHECKING:
    import numpy as np


class BinaryFile:
    """A file mapped into memory and read from front to back, little-endian. Every error is a LabError."""

    def __init__(self, path: Path):
        """Map `path`; nothing is read yet. Raises LabError where it cannot be opened or is empty."""
        self.path, self.at = path, 0
        try:
            with path.open("rb") as file:
                self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as error:
            raise damaged(path, "it is empty") from error
        except OSError as error:
            raise LabError(f"cannot read {path}: {error.strerror or error}", "check the path and its permissions"
                           ) from error

    @property
    def left(self) -> int:
        """Bytes that were not read yet."""
        return len(self.data) - self.at

    def skip(self, count: int, what: str) -> int:
        """Move past `count` bytes; returns where they begin. Raises LabError where the file has fewer."""
        if not 0 <= count <= self.left:
            raise damaged(self.path, f"{what} should have {count} bytes at byte {self.at}, and {self.left} are left")
        self.at += count
        return self.at - count

    def number(self, kind: str, what: str) -> int:
        """One whole number; kind is a letter of the struct module, such as I for 32 bits without a sign."""
        return struct.unpack_from(f"<{kind}", self.data, self.skip(struct.calcsize(f"<{kind}"), what))[0]

    def raw(self, count: int, what: str) -> bytes:
        """The next `count` bytes."""
        begin = self.skip(count, what)
        return self.data[begin:begin + count]

    def text(self, count: int, what: str) -> str:
        """The next `count` bytes as UTF-8."""
        try:
            return self.raw(count, what).decode()
        except UnicodeDecodeError as error:
            raise damaged(self.path, f"{what} at byte {self.at - count} is not text") from error

    def bfloat16(self, begin: int, count: int) -> "np.ndarray":
        """`count` bfloat16 numbers as float32: they are its upper half."""
        import numpy as np

        return (self.array("uint16", begin, count).astype(np.uint32) << 16).view(np.float32)

    def array(self, dtype: str, begin: int, count: int) -> "np.ndarray":
        """`count` numbers from byte `begin` on, as a view of the file; `skip` has compared their length."""
        import numpy as np

        return np.frombuffer(self.data, np.dtype(dtype).newbyteorder("<"), count, begin)
