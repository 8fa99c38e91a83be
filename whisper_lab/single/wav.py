"""The bytes of a WAV file to samples inside a graph, in standard operators: chunks are walked, not guessed.

RIFF/WAVE (Microsoft and IBM, Multimedia Programming Interface and Data Specifications 1.0, 1991): after `RIFF`, a
size and `WAVE` come chunks, each a name of four letters, a size in bytes (little-endian), that many bytes, and one
more where the size is odd. `fmt ` says what the samples are, `data` has them; others may be anywhere.
"""

import numpy as np

from whisper_lab.features import FeatureSpec
from whisper_lab.single.blocks import FLOAT, INT64, Block, loop

PCM = [1, 0xFFFE]  # 0xFFFE: "extensible", whose samples of 16 bits are the same
FULL_SCALE = 32768.0
ENDS = "the WAV file ends within its header"


def samples(block: Block, wav, spec: FeatureSpec):
    """uint8 [bytes] -> float32 [1, n] in -1..1; more than one channel becomes their mean.

    A graph cannot raise, but a node can fail, and its name says why: no WAV, no 16-bit PCM, another rate.
    """
    data, channels = _header(block, wav, spec.sampling_rate)
    begin, size = block("Add", data, [8]), _number(block, wav, block("Add", data, [4]), 4, ENDS)
    there = block("Min", size, block("Sub", block("Shape", wav), begin))  # a recorder that was stopped wrote no size
    frame = block("Mul", channels, [2])
    count = block("Div", there, frame)
    end = block("Add", begin, block("Mul", count, frame))
    pairs = block("Cast", block("Reshape", block("Slice", wav, begin, end, [0]), [-1, 2]), to=FLOAT)
    value = block("MatMul", pairs, np.array([[1], [256]], np.float32))
    negative = block("Cast", block("GreaterOrEqual", value, FULL_SCALE), to=FLOAT)
    signed = block("Div", block("Sub", value, block("Mul", negative, 2 * FULL_SCALE)), FULL_SCALE)
    frames = block("Reshape", signed, block("Concat", count, channels, axis=0), allowzero=1)
    return block("Reshape", block("ReduceMean", frames, [1]), [1, -1], name=f"{block.prefix}/samples")


def _header(block: Block, wav, sampling_rate: int) -> tuple:
    """Where the chunk `data` begins and the number of channels, int64 [1] each; fails for what cannot be read."""
    no_wav = "the bytes must be those of a WAV file"
    riff = _require(block, _letters(block, wav, [8], b"WAVE", no_wav), no_wav)
    first = block("Add", riff, [12])
    form = _chunk(block, wav, b"fmt ", first)
    kind, channels, rate, bits = (_number(block, wav, block("Add", form, [at]), count, ENDS)
                                  for at, count in ((8, 2), (10, 2), (12, 4), (22, 2)))
    known = block("Or", block("Equal", kind, [PCM[0]]), block("Equal", kind, [PCM[1]]))
    whole = block("And", block("Equal", bits, [16]), block("Greater", channels, [0]))
    plain = _require(block, block("And", known, whole), "the WAV file must hold 16-bit PCM")
    right = _require(block, block("Equal", rate, [sampling_rate]),
                     f"the WAV file must have {sampling_rate} samples a second")
    return _chunk(block, wav, b"data", block("Add", first, block("Add", plain, right))), channels


def _chunk(block: Block, wav, name: bytes, first):
    """Where the chunk of this name begins, the `first` or one behind it, int64 [1]; fails where the file ends before.

    What has to be found out before, and may fail, `first` is made of.
    """
    missing = f"the WAV file has no chunk {name.decode().strip()}"

    def look(inner: Block, _, at):
        found = inner("Squeeze", _letters(inner, wav, at, name, missing))
        size = _number(inner, wav, inner("Add", at, [4]), 4, missing)
        after = inner("Add", inner("Add", at, [8]), inner("Add", size, inner("Mod", size, [2])))
        return inner("Not", found), [inner("Where", found, at, after)], []

    return loop(block, f"find {name.decode().strip()}", None, [(first, INT64, [1])], look)[0]


def _letters(block: Block, wav, at, name: bytes, error: str):
    """Are these four bytes at `at`? bool [1]"""
    same = block("Cast", block("Equal", _bytes(block, wav, at, 4, error), list(name)), to=INT64)
    return block("Equal", block("ReduceSum", same, [0], keepdims=1), [4])


def _number(block: Block, wav, at, count: int, error: str):
    """An unsigned number of `count` bytes, the least first: int64 [1]."""
    digits = block("Mul", _bytes(block, wav, at, count, error), [256**i for i in range(count)])
    return block("ReduceSum", digits, [0], keepdims=1)


def _bytes(block: Block, wav, at, count: int, error: str):
    """int64 [count]; the node `error` fails where the file ends before."""
    there = block("Slice", wav, at, block("Add", at, [count]), [0])
    return block("Cast", block("Reshape", there, [count], name=f"error: {error}"), to=INT64)


def _require(block: Block, condition, message: str):
    """0 as int64 [1] where the condition (bool [1]) holds; else the node fails whose name is the message."""
    return block("Reshape", block("Compress", [0], condition), [1], name=f"error: {message}")
