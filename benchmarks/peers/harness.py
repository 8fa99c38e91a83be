"""What every peer's process does: load, one cold transcript, timed repeats, one line of JSON. NumPy alone.

A peer is a class handed to `main`; made with the job, it has

    features(samples)            float32 [n], 16 kHz -> what its encoder wants
    encode(features)             -> what its decoder wants
    decode(features, encoded)    -> the greedy tokens after the prompt, job["tokens"] of them, the end token forbidden

and, where an API does not part encoder and decoder, `decode_includes_encoder = True` or a `parted()` of its own.
"""

import json
import resource
import sys
import time
import wave

import numpy as np


def main(load) -> None:
    """Run the job given as the first argument; the last line of stdout is the result."""
    job = json.loads(sys.argv[1])
    samples = read_wav(job["clip"])
    peer = load(job)
    first = once(peer, samples)
    cold_s = time.time() - job["started"]
    peak_rss = peak_rss_bytes()
    rows = [once(peer, samples) for _ in range(job["repeats"])]
    print(json.dumps({"cold_s": cold_s, "peak_rss_bytes": peak_rss, "tokens": first["tokens"],
                      "warm": [{key: row[key] for key in ("mel_s", "encode_s", "decode_s", "steps")} for row in rows]}))


def once(peer, samples: np.ndarray) -> dict:
    """Seconds for each part of one transcript, and its tokens."""
    start = time.perf_counter()
    features = peer.features(samples)
    heard = time.perf_counter()
    encoded = peer.encode(features)
    middle = time.perf_counter()
    tokens = [int(token) for token in peer.decode(features, encoded)]
    end = time.perf_counter()
    times = {"mel_s": heard - start, "encode_s": middle - heard, "decode_s": end - middle}
    if getattr(peer, "decode_includes_encoder", False):
        times["decode_s"] -= times["encode_s"]
    if hasattr(peer, "parted"):
        times |= peer.parted()
    return {**times, "tokens": tokens, "steps": len(tokens)}


def peak_rss_bytes() -> int:
    """The most memory this program has held; without the kernel's own mark (Linux has it) that of its parent counts."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            return next(1024 * int(line.split()[1]) for line in file if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def read_wav(path: str) -> np.ndarray:
    """16-bit mono samples in -1..1."""
    with wave.open(path) as file:
        return np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 32768


def prompt(job: dict) -> list[int]:
    """<|startoftranscript|><|en|><|transcribe|><|notimestamps|> in the checkpoint's own ids."""
    ids = read_json(job["checkpoint"], "generation_config.json")
    return [ids["decoder_start_token_id"], ids["lang_to_id"]["<|en|>"], ids["task_to_id"]["transcribe"],
            ids["no_timestamps_token_id"]]


def end_token(job: dict) -> int:
    """<|endoftext|>, which is forbidden so that every peer writes the same number of tokens."""
    return read_json(job["checkpoint"], "generation_config.json")["eos_token_id"]


def read_json(folder: str, name: str) -> dict:
    """A JSON file of a folder."""
    with open(f"{folder}/{name}", encoding="utf-8") as file:
        return json.load(file)
