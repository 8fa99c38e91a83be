"""Programs of the lab stopped at random moments, and what they leave: make kills KILLS=200

Each of six programs works in a folder of its own, again and again, and is ended with kill -9 (or SIGTERM, SIGINT) at a
moment drawn from the seed. After each: no half file under a final name, nothing lost that the program said was saved,
no process left. After every few kills the program may run to its end, and then no hidden file or folder is left either.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

HELPERS = Path(__file__).resolve().parent
ROOT = HELPERS.parents[1]
TOKEN = "LAB_KILLS"  # in the environment of all that is started here
PATIENCE_S = 5.0  # for a process that is to end by itself
WHOLE_S = 600.0  # within which a whole run ends
EVERY = 8  # kills between two whole runs
LAST = {".html": b"</html>", ".png": b"IEND\xaeB`\x82", ".svg": b"</svg>"}  # how a whole file ends
ENDS = {signal.SIGKILL: (-9,), signal.SIGTERM: (143, -15), signal.SIGINT: (130, -2)}  # negative: while Python starts


@dataclass
class Program:
    """What is started: a command in `folder`; `again` makes it have something to do once more."""

    name: str
    folder: Path
    command: list[str]
    again: Callable[[Path], None] = lambda folder: None
    ends_well: bool = False  # a signal means: finish what was heard
    seconds: float = 0.0  # of a whole run
    found: Counter = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


# The programs --------------------------------------------------------------------------------------------------------

def saving(folder: Path) -> Program:
    """01's lesson, 60 recordings."""
    def forget(folder: Path) -> None:
        shutil.rmtree(folder / "recordings", ignore_errors=True)

    return Program("01 saving", folder, [sys.executable, str(HELPERS / "saver.py"), "0", "60"], forget)


def exporting(folder: Path) -> Program:
    """03, whisper-nano in int8, gates included."""
    return Program("03 export", folder, script("03-export-encoder-decoder", "--model", "nano", "--precision", "int8",
                                               "--threads", "1", "--output-dir", "graphs"))


def sweeping(folder: Path) -> Program:
    """06, three runs of a program that has a helper."""
    from tests.helpers import energy_fakes

    app = energy_fakes.install(folder)
    app.write_text("import subprocess\nhelper = subprocess.Popen(['sleep', '0.2'])\n" +
                   app.read_text(encoding="utf-8"), encoding="utf-8")

    def forget(folder: Path) -> None:
        for path in folder.glob("results/*_status.json"):
            path.unlink()

    return Program("06 sweep", folder, script("06-profile-energy", "sweep", "--gpu-type", "CPU", "--num-runs", "3",
                                              "--sleep-interval", "0", "--app-executable", "app.py", "--app-params",
                                              "--seconds 0.3 --watts 30", "--output-dir", "results"), forget)


def composing(folder: Path, pair: Path) -> Program:
    """08, one graph of the int8 pair in `pair`, gates included."""
    shutil.copytree(pair, folder / "graphs")
    return Program("08 single graph", folder, script("08-single-onnx-model", "--model", "nano", "--precision", "int8",
                                                     "--threads", "1", "--model-dir", "graphs"))


def streaming(folder: Path, pair: Path) -> Program:
    """09, two files."""
    shutil.copytree(pair, folder / "graphs")
    clip = str(ROOT / "media" / "kitchen.wav")
    return Program("09 stream", folder, script("09-stream-microphone", "--model", "nano", "--model-dir", "graphs",
                                               "--threads", "1", "--file", clip, clip), ends_well=True)


def telling_apart(folder: Path) -> Program:
    """10, two voices, without words: page, picture and document."""
    clip = str(ROOT / "media" / "long.flac")
    return Program("10 who spoke", folder, script("10-who-spoke", clip, "--no-words", "--page", "--explain",
                                                  "--threads", "1", "--json", "who.json"))


def script(name: str, *arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / f"{name}.py"), *arguments]


# Stop it, and look ---------------------------------------------------------------------------------------------------

def start(program: Program) -> subprocess.Popen:
    """Start it, in a process group of its own; 01's saver waits for a line."""
    program.again(program.folder)
    said = (program.folder.parent / f"{program.name}.out").open("w+")
    errors = (program.folder.parent / f"{program.name}.err").open("w+")
    process = subprocess.Popen(program.command, cwd=program.folder, stdin=subprocess.PIPE, stdout=said, stderr=errors,
                               start_new_session=True, text=True, env={**os.environ, TOKEN: token(program)})
    process.said, process.errors = said, errors
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write("\n")
        process.stdin.flush()
    return process


def token(program: Program) -> str:
    return f"{os.getpid()} {program.folder}"


def run(program: Program) -> None:
    """Let it run to its end; afterwards nothing is hidden in its folder."""
    begin = time.monotonic()
    process = start(program)
    try:
        status = process.wait(WHOLE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        status = process.wait()
    program.seconds = time.monotonic() - begin
    if status:
        process.errors.seek(0)
        program.faults.append(f"a whole run ended with {status}: {process.errors.read()[-300:]}")
    look(program, process)
    program.faults += [f"litter after a whole run: {path}" for path in litter(program.folder)]


def stop(program: Program, number: int, moment_s: float) -> bool:
    """Send the signal after `moment_s`, and look at what is left; False where it had ended before."""
    before = litter(program.folder)  # of a kill -9, which a run that ends early does not get to
    process = start(program)
    try:
        process.wait(moment_s)
        return False
    except subprocess.TimeoutExpired:
        process.send_signal(number)  # to the leader of the group alone, as `kill` and a full memory do
    try:
        status = process.wait(60)
    except subprocess.TimeoutExpired:
        program.faults.append(f"{signal.Signals(number).name} at {moment_s:.2f} s did not end it")
        process.kill()
        status = process.wait()
    if status == 0 and not program.ends_well:  # it ended in that very moment
        look(program, process)
        return False
    if status not in ENDS[number] and status != 0:
        program.faults.append(f"{signal.Signals(number).name} at {moment_s:.2f} s: exit {status}")
    left = litter(program.folder)
    program.found["left hidden files, removed by the next run"] += bool(left)
    if status in (130, 143):
        program.faults += [f"{signal.Signals(number).name} at {moment_s:.2f} s left {path}" for path in left
                           if path not in before]
        process.errors.seek(0)
        if not (last := (process.errors.read().rstrip().splitlines() or [""])[-1]).startswith("stopped by"):
            program.faults.append(f"{signal.Signals(number).name} at {moment_s:.2f} s: no line says so, but: {last}")
    look(program, process)
    return True


def look(program: Program, process) -> None:
    """After any end: processes, files, and what was said to be saved."""
    end = time.monotonic() + PATIENCE_S
    while (left := running(program)) and time.monotonic() < end:
        time.sleep(0.05)
    program.faults += [f"still running: {one}" for one in left]
    for path in sorted(path for path in program.folder.rglob("*") if path.is_file() and not hidden(path, program)):
        if reason := broken(path):
            program.faults.append(f"half a file: {path.relative_to(program.folder)}: {reason}")
    if program.name == "01 saving":
        process.said.seek(0)
        saved = {int(line) for line in process.said.read().split() if line.isdigit()}
        there = {number(path) for path in program.folder.glob("**/speech*.wav")
                 if not hidden(path, program) and not broken(path)}
        program.faults += [f"recording {one} is lost" for one in sorted(saved - there)]
        program.found["recordings seen"] += len(saved)
    process.said.close()
    process.errors.close()
    process.stdin.close()


def running(program: Program) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(TOKEN) == token(program) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def hidden(path: Path, program: Program) -> bool:
    return any(part.startswith(".") for part in path.relative_to(program.folder).parts)


def litter(folder: Path) -> list[Path]:
    """Hidden files and folders, and what has a temporary name."""
    return [path.relative_to(folder) for path in folder.rglob("*")
            if path.name.startswith(".") or ".partial" in path.name]


def broken(path: Path) -> str | None:
    """Why a file is not whole, or None. Logs grow while a program writes them, and are not looked at."""
    try:
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".wav":
            number(path)
        elif path.suffix == ".onnx":
            return graph_fault(path)
        elif path.suffix in LAST and not path.read_bytes().rstrip().endswith(LAST[path.suffix]):
            return "its end is missing"
        elif path.suffix == ".csv" and not path.read_text(encoding="utf-8").endswith("\n"):
            return "its last line is cut"
    except Exception as error:  # whatever a reader makes of half a file
        return f"{type(error).__name__}: {error}"
    return None


def graph_fault(path: Path) -> str | None:
    """A graph opens in onnxruntime and says what was checked."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    return None if facts.get("verification") and facts.get("weights_sha256") else f"its metadata is {sorted(facts)}"


def number(path: Path) -> int:
    """Which recording of saver.py it is. Raises ValueError for one that is not whole."""
    import soundfile

    samples, rate = soundfile.read(path, dtype="int16")
    if (len(samples), rate, set(samples[1:])) != (1600, 16000, {8192}) or path.stat().st_size != 44 + 2 * 1600:
        raise ValueError("not what was saved")
    return int(samples[0])


# Many times ----------------------------------------------------------------------------------------------------------

def many(program: Program, kills: int, generator: random.Random, numbers: tuple[int, ...]) -> None:
    """Stop it so often, with these signals in turn; now and then, and at the end, it may run to its end."""
    run(program)
    done = missed = 0
    while done < kills and missed < 3 * kills + 10:
        # Files get their names late in a run: the root makes late moments more frequent.
        if not stop(program, numbers[done % len(numbers)], program.seconds * generator.random() ** 0.5):
            missed += 1
            continue
        done += 1
        if done % EVERY == 0 or done == kills:
            run(program)
    program.found["kills"] += done


def programs(work: Path, pair: Path, names: list[str]) -> list[Program]:
    made = {"01": saving, "03": exporting, "06": sweeping, "08": lambda folder: composing(folder, pair),
            "09": lambda folder: streaming(folder, pair), "10": telling_apart}
    chosen = []
    for name in names:
        (work / name).mkdir()
        chosen.append(made[name](work / name))
    return chosen


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, metavar="N", help="in all (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the moments (default: %(default)s)")
    parser.add_argument("--programs", nargs="+", default=["01", "03", "06", "08", "09", "10"], metavar="NN")
    parser.add_argument("--signals", nargs="+", default=["KILL"], choices=["KILL", "TERM", "INT"])
    args = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    numbers, generator = tuple(signal.Signals[f"SIG{name}"] for name in args.signals), random.Random(args.seed)
    failed = 0
    with tempfile.TemporaryDirectory() as work:
        pair = Path(work) / "pair"
        subprocess.run(script("03-export-encoder-decoder", "--model", "nano", "--precision", "int8", "--no-verify",
                              "--threads", "1", "--output-dir", str(pair)), cwd=work, check=True, capture_output=True)
        for i, program in enumerate(chosen := programs(Path(work), pair, args.programs)):
            many(program, args.kills // len(chosen) + (i < args.kills % len(chosen)), generator, numbers)
            found = ", ".join(f"{name}: {count}" for name, count in sorted(program.found.items()))
            print(f"{program.name}: {len(program.faults)} faults; {found}", flush=True)
            for fault in program.faults:
                print(f"  {fault}", flush=True)
            failed += bool(program.faults)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
