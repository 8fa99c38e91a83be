"""An archive of ten thousand short files: how many a core does, whether memory stays flat -> benchmarks/archive.json.

    python 03-export-encoder-decoder.py --model nano --precision int8
    python benchmarks/archive.py                  # some minutes; 1 GB in benchmarks/work while it runs
    python benchmarks/archive.py --files 200      # to try it; the JSON is printed, not kept

Each file is one of four bundled clips, a little louder or softer and begun a little later, so that no two are the same
sound. One process with one thread transcribes all, starts again with nothing left to do, and makes the table. Memory is
what the system says the process holds, asked every half second; "flat" compares its median in the second tenth of the
run with that in the last.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

from whisper_lab import audio, console, files, flags, machine  # noqa: E402
from whisper_lab.console import LabError  # noqa: E402

CLIPS = ("digits.wav", "kitchen.wav", "time.wav", "nederlands.wav")
FILES = 10_000
IN_A_FOLDER = 100
LATER_S = 0.2  # at most
LOUDER = (0.5, 1.0)  # times
ASK_S = 0.5


def main(argv: list[str] | None = None) -> int:
    """Make the archive, transcribe it twice, collect it; write what was measured."""
    args = arguments(argv)
    (HERE / "work").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=HERE / "work", prefix="archive-") as made:
        folder = Path(made)
        said = make(folder / "recordings", args.files)
        command = ["archive", str(folder / "recordings"), "--output-dir", str(folder / "transcripts"), "--quiet",
                   "--model", "nano", "--precision", "int8", "--model-dir", args.model_dir, "--threads", "1"]
        runs = {"first": measured(command), "second": measured(command),
                "collect": measured(["archive", "collect", str(folder / "transcripts"), "--quiet"])}
        document = summary(folder, said, runs)
    if args.files == FILES:
        console.result(f"wrote {files.write_json(HERE / 'archive.json', document)}")
    console.result(json.dumps(document, indent=2))
    return 0


def make(folder: Path, count: int) -> dict[str, str]:
    """Write the recordings; returns name -> what is said."""
    references = json.loads((ROOT / "media" / "references.json").read_text(encoding="utf-8"))
    sounds = [audio.load(ROOT / "media" / name).samples for name in CLIPS]
    draw, said = np.random.default_rng(0), {}
    for i in console.progress(range(count), description="making"):
        which = i % len(CLIPS)
        silence = np.zeros(draw.integers(int(LATER_S * audio.SAMPLE_RATE)), np.float32)
        samples = np.concatenate([silence, sounds[which] * np.float32(draw.uniform(*LOUDER))])
        name = f"{i // IN_A_FOLDER:03}/{i:05}-{CLIPS[which]}"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(audio.wav_bytes(samples))
        said[name] = references[CLIPS[which]]["text"]
    return said


def measured(arguments: list[str]) -> dict:
    """Run the command: s, processor s, and the memory it held over time. Raises LabError where it fails."""
    started, held = time.perf_counter(), []
    process = subprocess.Popen([sys.executable, "-m", "whisper_lab", *arguments], cwd=ROOT, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    while True:
        found, status, used = os.wait4(process.pid, os.WNOHANG)
        if found:
            break
        held.append(machine_rss(process.pid))
        time.sleep(ASK_S)
    seconds, process.returncode = time.perf_counter() - started, os.waitstatus_to_exitcode(status)
    said = process.stdout.read()
    if process.returncode:
        raise LabError(f"the archive ended with status {process.returncode}: {said.strip().splitlines()[-1:]}",
                       "python 03-export-encoder-decoder.py --model nano --precision int8")
    tenth = max(1, len(held) // 10)
    return {"seconds": round(seconds, 2), "processor_s": round(used.ru_utime + used.ru_stime, 2),
            "peak_rss_bytes": used.ru_maxrss * 1024,
            "rss_bytes_early": int(statistics.median(held[tenth:2 * tenth] or held)),
            "rss_bytes_late": int(statistics.median(held[-tenth:]))}


def machine_rss(pid: int) -> int:
    """Bytes that a process holds in memory; 0 where it is gone."""
    try:
        text = Path(f"/proc/{pid}/statm").read_text(encoding="ascii")
    except OSError:
        return 0
    return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE")


def summary(folder: Path, said: dict[str, str], runs: dict[str, dict]) -> dict:
    """What was measured, and whether the texts are right."""
    import pyarrow.parquet

    rows = pyarrow.parquet.read_table(folder / "transcripts" / "archive.parquet").to_pylist()
    right = sum(row["text"] == said[row["file"]] for row in rows)
    sound_s, first = sum(row["duration_s"] for row in rows), runs["first"]
    return {
        "machine": machine.card(1), "files": len(said), "rows": len(rows), "texts_right": right,
        "sound_s": round(sound_s, 1), "runs": runs,
        "files_per_processor_s": round(len(said) / first["processor_s"], 2),
        "sound_s_per_processor_s": round(sound_s / first["processor_s"], 1),
        "files_per_s": round(len(said) / first["seconds"], 2),
        "memory_growth": round(first["rss_bytes_late"] / max(1, first["rss_bytes_early"]) - 1, 4),
    }


def table(document: dict) -> str:
    """The figures for docs/reference.md."""
    runs, megabytes = document["runs"], 1e6
    first = runs["first"]
    rows = [
        ("recordings, hours of sound", f"{document['files']:,}, {document['sound_s'] / 3600:.1f}"),
        ("recordings a second of processor time", f"{document['files_per_processor_s']:.0f}"),
        ("seconds of sound a second of processor time", f"{document['sound_s_per_processor_s']:.0f}"),
        ("memory after a tenth of the run, at its end", f"{first['rss_bytes_early'] / megabytes:.0f} MB, "
                                                        f"{first['rss_bytes_late'] / megabytes:.0f} MB"),
        ("the same command again, nothing left to do", f"{runs['second']['seconds']:.1f} s"),
        ("`archive collect`", f"{runs['collect']['seconds']:.1f} s, "
                              f"{runs['collect']['peak_rss_bytes'] / megabytes:.0f} MB"),
        ("texts that are right", f"{document['texts_right']:,}"),
    ]
    return "\n".join(["| | |", "|---|---|", *(f"| {what} | {value} |" for what, value in rows), "",
                      f"Measured by `benchmarks/archive.py` on {machine.one_line(document['machine'])}."])


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line; wrong usage ends here with exit status 2."""
    parser = flags.parser(__doc__, "model_dir", "quiet", "log_level")
    parser.add_argument("--files", type=flags.whole(1), default=FILES, metavar="N",
                        help="recordings (default: %(default)s)")
    return flags.parse(parser, argv)


if __name__ == "__main__":
    console.run(main)
