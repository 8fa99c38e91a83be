"""How large should a capture buffer be: short for latency, or long against dropouts?

Measured: blocks lost when the callback works too long, for short and long blocks. Once simulated (a driver with two
buffers, a fixed time for each write and now and then a stall, from a seed), once with real threads: a thread that this
machine's clock paces takes the place of the sound card, and calls the callback as PortAudio does. With a queue another
thread writes all that waits at once: a write for each block would never keep up. And how long a callback that only
copies takes in PortAudio itself, on a virtual microphone, where ALSA is installed.
"""

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from workbook.evidence import common

BUFFERS = 2  # blocks that the driver can hold while the callback works: as in double buffering
SMALL, LARGE = 128, 2048  # frames a block
LOAD_MS = 12.0  # what a write takes, to a file, say, however many blocks it writes
COPY_MS = 0.02  # what copying a block into a queue takes
STALL_MS, STALL_SHARE = 25.0, 0.02  # garbage collection, another program: now and then

ALSA = Path("/usr/share/alsa/alsa.conf")
# A process of its own: ALSA reads its configuration once. The virtual microphone gives silence, as fast as it is taken.
PORTAUDIO = """
import json, queue, sys, time, sounddevice
kept, spent = queue.SimpleQueue(), []
def callback(indata, frames, when, status):
    start = time.perf_counter()
    kept.put(indata.copy())
    spent.append(time.perf_counter() - start)
stream = sounddevice.InputStream(device="virtual", channels=1, dtype="float32", blocksize=int(sys.argv[1]),
                                 callback=callback)
with stream:
    time.sleep(0.5)
print(json.dumps({"callbacks": len(spent), "median_us": 1e6 * sorted(spent)[len(spent) // 2]}))
"""


def simulate(frames: int, work_ms: float, blocks: int, seed: int) -> float:
    """Share of blocks lost: a block is lost where the driver's buffers are still full when it is complete."""
    stalls = np.random.default_rng(seed).random(blocks) < STALL_SHARE
    period, free, lost = 1000 * frames / common.RATE, 0.0, 0
    waiting: list[float] = []  # when the callback will be done with the blocks that the driver holds
    for i in range(blocks):
        now = (i + 1) * period
        waiting = [end for end in waiting if end > now]
        if len(waiting) >= BUFFERS:
            lost += 1
            continue
        free = max(free, now) + work_ms + STALL_MS * stalls[i]
        waiting.append(free)
    return lost / blocks


def stream(frames: int, callback, seconds: float) -> float:
    """Share of blocks lost in a real thread that the clock paces, with a driver of BUFFERS blocks."""
    period, start = frames / common.RATE, time.perf_counter()
    blocks, lost, block = int(seconds / period), 0, np.zeros(frames, np.float32)
    i = 0
    while i < blocks:
        due = start + (i + 1) * period
        if (wait := due - time.perf_counter()) > 0:
            time.sleep(wait)
        late = int((time.perf_counter() - due) / period)  # blocks that were completed meanwhile
        if late > BUFFERS:
            lost += late - BUFFERS
            i += late - BUFFERS
        callback(block)
        i += 1
    return min(lost, blocks) / blocks


def least(attempt) -> float:
    """The least that was lost in five attempts: other programs on this machine can only add to it."""
    lost = 1.0
    for _ in range(5):
        lost = min(lost, attempt())
        if not lost:
            break
    return lost


def with_queue(frames: int, seconds: float, longest: list[int]) -> float:
    """The callback only copies; another thread takes all that waits and works LOAD_MS on it. Share of blocks lost.

    longest: gets the lengths that the queue had.
    """
    waiting, stop = queue.SimpleQueue(), threading.Event()

    def write() -> None:
        while not stop.is_set():
            batch = [waiting.get()]
            while not waiting.empty():
                batch.append(waiting.get())
            longest.append(len(batch))
            time.sleep(LOAD_MS / 1000)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    lost = stream(frames, lambda block: waiting.put(block.copy()), seconds)
    stop.set()
    waiting.put(np.zeros(0, np.float32))
    writer.join(timeout=2)
    return lost


def measure(evidence, args) -> None:
    seconds, blocks = (0.3, 2000) if args.quick else (1.5, 20000)
    evidence.value("rate_hz", common.RATE, "Hz", stable=True)
    evidence.value("load_ms", LOAD_MS, "ms", stable=True)
    evidence.value("stall_ms", STALL_MS, "ms", stable=True)
    evidence.value("stall_share_percent", 100 * STALL_SHARE, "%", stable=True)
    slow = lambda block: time.sleep(LOAD_MS / 1000)  # noqa: E731
    for name, frames in (("small", SMALL), ("large", LARGE)):
        evidence.value(f"block_{name}", frames, "frames", stable=True)
        evidence.value(f"latency_{name}_ms", 1000 * frames / common.RATE, "ms", stable=True)
        evidence.value(f"lost_{name}_percent", 100 * simulate(frames, LOAD_MS, blocks, args.seed), "%")
        evidence.value(f"real_lost_{name}_percent", 100 * least(lambda n=frames: stream(n, slow, seconds)), "%")
    evidence.value("lost_queue_percent", 100 * simulate(SMALL, COPY_MS, blocks, args.seed), "%")
    queues: list[int] = []
    lost = least(lambda: with_queue(SMALL, seconds, queues))
    longest = max(queues)
    evidence.value("real_lost_queue_percent", 100 * lost, "%")
    evidence.value("longest_queue", longest, "blocks")
    evidence.value("memory_whole_mb_per_hour", common.RATE * 3600 * 4 / 1e6, "MB", stable=True)  # sd.rec: float32
    evidence.value("memory_stream_mb", longest * SMALL * 4 / 1e6, "MB")
    _portaudio(evidence)
    evidence.value("source", "simulated driver; real threads paced by the clock, no sound card", stable=True)
    sizes = [2**n for n in range(6, 13)]
    evidence.series = {"sizes": sizes, "slow": [100 * simulate(n, LOAD_MS, blocks, args.seed) for n in sizes],
                       "queue": [100 * simulate(n, COPY_MS, blocks, args.seed) for n in sizes]}
    _claims(evidence)


def _portaudio(evidence) -> None:
    """What a callback that copies takes in PortAudio, or the reason why no one knows."""
    reason = None if ALSA.is_file() else f"no {ALSA}: this system has no ALSA"
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "asound.conf"
        settings.write_text(f"<{ALSA}>\npcm.virtual {{ type null }}\n", encoding="ascii")
        if reason is None:
            done = subprocess.run([sys.executable, "-c", PORTAUDIO, str(SMALL)], capture_output=True, text=True,
                                  timeout=60, env={**os.environ, "ALSA_CONFIG_PATH": str(settings)})
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1][:160] if done.returncode else None
    if reason:
        evidence.value("portaudio_reason", reason)
        return
    found = json.loads(done.stdout.strip().splitlines()[-1])
    evidence.value("portaudio_callbacks", found["callbacks"])
    evidence.value("portaudio_copy_us", found["median_us"], "us")
    evidence.claim("copy_is_quick", "In PortAudio a callback that only copies takes under a tenth of a block's time.",
                   "In PortAudio duurt een callback die alleen kopieert minder dan een tiende van een blok.",
                   found["median_us"] / 1000 < evidence.values["latency_small_ms"] / 10, found["median_us"])


def _claims(evidence) -> None:
    values = evidence.values
    evidence.claim("small_loses", "A callback slower than its block loses sound, simulated and real.",
                   "Een callback die trager is dan zijn blok, verliest geluid, in de simulatie en in het echt.",
                   min(values["lost_small_percent"], values["real_lost_small_percent"]) > 5,
                   values["lost_small_percent"])
    evidence.claim("large_holds", "Long blocks survive the same load (simulated), at the price of latency.",
                   "Lange blokken overleven dezelfde belasting (gesimuleerd), ten koste van de latency.",
                   values["lost_large_percent"] == 0 and values["latency_large_ms"] > values["latency_small_ms"],
                   values["lost_large_percent"])
    evidence.claim("queue_helps", "Short blocks survive too, if the callback only copies to a queue (simulated).",
                   "Korte blokken overleven ook, als de callback alleen naar een queue kopieert (gesimuleerd).",
                   values["lost_queue_percent"] < values["lost_small_percent"] / 4, values["lost_queue_percent"])
    evidence.claim("queue_real", "With real threads the queue loses less than the slow callback.",
                   "Met echte threads gaat er met een queue minder verloren dan met de trage callback.",
                   values["real_lost_queue_percent"] < values["real_lost_small_percent"],
                   values["real_lost_queue_percent"])


def draw(evidence, figure) -> None:
    panel, series, values = figure.subplots(), evidence.series, evidence.values
    panel.plot(series["sizes"], series["slow"], "o-", color=common.RED, label=f"simulated: {LOAD_MS:g} ms a block")
    panel.plot(series["sizes"], series["queue"], "o-", color=common.BLUE, label="simulated: copy to a queue")
    panel.plot([SMALL, LARGE], [values["real_lost_small_percent"], values["real_lost_large_percent"]], "D",
               color=common.ORANGE, markersize=10, label="real threads: slow callback")
    panel.plot([SMALL], [values["real_lost_queue_percent"]], "*", color=common.GREEN, markersize=16,
               label="real threads: queue")
    panel.set_xscale("log", base=2)
    panel.set_xticks(series["sizes"], [f"{n}\n{1000 * n / common.RATE:g} ms" for n in series["sizes"]])
    panel.set(xlabel="frames a block, and the latency that they add at 16 kHz", ylabel="blocks lost (%)",
              title="Short blocks are quick, and lost by a callback that works too long", ylim=(-3, 100))
    panel.legend()


def main(argv: list[str] | None = None) -> int:
    return common.run("capture_buffers", "2.02", __doc__, measure, draw, argv)


if __name__ == "__main__":
    common.console.run(main)
