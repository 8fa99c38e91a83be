"""The least time that a machine allows: operations over its measured peak, bytes over its measured bandwidth.

    encoder_floor(config, limits, "int8")        # s for one window
    long_floor(document, "int8")                 # s for the long recording, least and most

`document` is what run.py writes; `limits` is what limits.py measured, `config` the checkpoint's.
"""

import numpy as np

from whisper_lab import chunking
from whisper_lab.transcribe import BATCH, MIXED

POSITIONS_PER_S = 50  # of every Whisper's encoder
SMALL = str(32 << 20)  # the key of limits.py for what fits the last cache
PIECE = chunking.SHORT[1]  # windows; the longest that a long recording is cut into, where there are pauses
AT_ONCE = {"int8": BATCH, "int8 optimized": MIXED}  # windows in one step of the decoder, on the command line


def read_speeds(limits: dict) -> tuple[float, float]:
    """Bytes a second, from the cache and from memory."""
    measured = limits["read_bytes_per_s"]
    return measured[SMALL], measured[max(measured, key=int)]


def cross_bytes(document: dict, precision: str) -> int:
    """Keys and values that a decoder step reads of one window, in bytes."""
    config = document["model"]["config"]
    elements = 2 * config["decoder_layers"] * config["max_source_positions"] * config["d_model"]
    kind = document.get("cross_types", {}).get(precision, "float32")  # older documents: all were
    return elements * np.dtype(kind).itemsize


def long_floor(document: dict, precision: str) -> tuple[float, float] | None:
    """Least and most s for the long recording: each second heard once, in pieces as long as this lab cuts them, without
    the silence behind them; a token for each word said, as many pieces a step as the command line takes. None where
    there was none, or no limits were measured."""
    work = document.get("speech", {}).get("works", {}).get("long")
    if not work or "limits" not in document:
        return None
    limits, config = document["limits"], document["model"]["config"]
    read = document["graph_bytes"][f"decoder_{precision.replace(' ', '_')}"] / AT_ONCE[precision]
    read += PIECE * cross_bytes(document, precision)
    positions = PIECE * config["max_source_positions"]
    encoder = work["seconds"] * POSITIONS_PER_S / positions * encoder_floor(config, limits, precision, positions)
    least, most = sorted(encoder + work["words"] * read / speed for speed in read_speeds(limits))
    return least, most


def encoder_floor(config: dict, limits: dict, precision: str, positions: float | None = None) -> float:
    """Seconds for so many positions at once, or a whole window, from its operations: 2 for each multiplication with an
    addition."""
    d, layers, positions = config["d_model"], config["encoder_layers"], positions or config["max_source_positions"]
    linear = 2 * positions * layers * (4 * d * d + 2 * d * config["encoder_ffn_dim"])
    linear += 2 * positions * config["decoder_layers"] * 2 * d * d  # the cross caches
    attention = 2 * layers * 2 * positions**2 * d
    convolution, second = 2 * (2 * positions) * 3 * config["num_mel_bins"] * d, 2 * positions * 3 * d * d
    if precision == "int8 optimized":
        linear += second  # whisper_lab/export/convolution.py
    else:
        convolution += second
    peak = limits["int8_ops"] if precision.startswith("int8") else limits["float32_flops"]
    return linear / peak + (attention + convolution) / limits["float32_flops"]
