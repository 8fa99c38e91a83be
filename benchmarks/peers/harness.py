"""What every peer's process does: load, one cold transcript, timed repeats, one line of JSON. NumPy alone.

A peer is a class handed to `main`; made with the job, it has

    features(samples)            float32 [n], 16 kHz -> what its encoder wants
    encode(features)             -> what its decoder wants
    decode(features, encoded)    -> the greedy tokens after the prompt, job["tokens"] of them, the end token forbidden

and, where an API does not part encoder and decoder, `decode_includes_encoder = True` or a `parted()` of its own.

For accuracy.py, whose jobs name `clips`, a peer is a function listen(job) that returns another: hear(samples, clip),
the text of one clip. A clip has `language` and `long`; where that is false it gets one greedy pass without timestamps,
and otherwise the peer's own way of transcribing a recording longer than the window, with its own defaults. run.py asks
for the same, and with `cold` for the whole process.
"""

import importlib.metadata
import json
import resource
import statistics
import sys
import time
import wave

import numpy as np

WINDOW = 30 * 16000  # samples; the published models hear no more at once


def main(load, listen=None) -> None:
    """Run the job given as the first argument; the last line of stdout is the result, of clips a line each."""
    job = json.loads(sys.argv[1])
    if "clips" in job:
        (cold if job.get("cold") else transcribe)(listen, job)
        return
    samples = read_wav(job["clip"])
    peer = load(job)
    first = once(peer, samples)
    cold_s = time.time() - job["started"]
    peak_rss = peak_rss_bytes()
    rows = [once(peer, samples) for _ in range(job["repeats"])]
    print(json.dumps({"cold_s": cold_s, "peak_rss_bytes": peak_rss, "tokens": first["tokens"],
                      "warm": [{key: row[key] for key in ("mel_s", "encode_s", "decode_s", "steps")} for row in rows]}))


def transcribe(listen, job: dict) -> None:
    """A line of JSON with the versions, then one for each clip: text, seconds and processor seconds (medians).

    job["clips"]: a JSON file with a list of clips: id, wav, language, long. The first is heard once before the clock
    starts, so that no clip pays for what a runtime makes when it is first used.
    """
    clips = read_json(*job["clips"].rsplit("/", 1))
    hear = listen(job)
    print(json.dumps({"versions": {name: here for name in job["packages"] if (here := version(name))}}), flush=True)
    hear(read_wav(clips[0]["wav"])[:WINDOW], {**clips[0], "long": False})
    for clip in clips:
        samples = read_wav(clip["wav"])
        runs = [heard(hear, samples, clip) for _ in range(job["repeats"])]
        print(json.dumps({"clip": clip["id"], "text": runs[0][0], "steady": len({run[0] for run in runs}) == 1,
                          "seconds": statistics.median(run[1] for run in runs),
                          "cpu_s": statistics.median(run[2] for run in runs)}), flush=True)


def cold(listen, job: dict) -> None:
    """A line of JSON for the first clip: its text, seconds from the start of this process to the text, peak memory."""
    clip = read_json(*job["clips"].rsplit("/", 1))[0]
    text = listen(job)(read_wav(clip["wav"]), clip)
    print(json.dumps({"clip": clip["id"], "text": text.strip(), "seconds": time.time() - job["started"],
                      "peak_rss_bytes": peak_rss_bytes()}), flush=True)


def heard(hear, samples: np.ndarray, clip: dict) -> tuple[str, float, float]:
    """One transcript, its seconds, and the seconds that all threads of this process computed together."""
    wall, processor = time.perf_counter(), time.process_time()
    text = hear(samples, clip)
    return text.strip(), time.perf_counter() - wall, time.process_time() - processor


def version(package: str) -> str | None:
    """Of an installed package, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


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
