"""A program that keeps the profiler's contract without a model, a GPU that is a file, and foreign results."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Writes what 06 --benchmark writes. Its power follows the clock the fake GPU is locked at, its time the inverse.
APP = '''
import argparse, json, os, sys, time
parser = argparse.ArgumentParser()
for name in ("output-file", "trace", "interval-ms", "note"):
    parser.add_argument("--" + name)
parser.add_argument("--seconds", type=float, default=0.1)
parser.add_argument("--watts", type=float)
parser.add_argument("--precision", default="fp32")
parser.add_argument("--fail", action="store_true")
args = parser.parse_args()
print("note", args.note, "started", time.time(), flush=True)
state = os.environ.get("FAKE_NVML")
clock = 1410
if state and os.path.exists(state):
    for line in open(state):
        clock = int(line.split()[1]) if line.startswith("lock") else 1410 if line.startswith("reset") else clock
time.sleep(args.seconds)
busy = 2.0 * 1410 / clock
watts = None if args.watts is None else args.watts * (0.4 + 0.6 * (clock / 1410) ** 3)
with open(args.trace, "w") as out:
    out.write("# start_epoch_s=1.0\\ntimestamp_s,power_w,sm_clock_mhz,memory_clock_mhz,temperature_c,"
              "gpu_utilization_percent,cpu_clock_mhz,cpu_utilization_percent,memory_used_bytes,energy_j\\n")
    for i in range(5):
        out.write(f"{i * busy / 4},{'' if watts is None else watts},{clock},,,,,{10 * i},,\\n")
document = {"model": "nano", "device": "cpu", "torch_dtype": "torch.float32", "precision": args.precision,
    "total_samples": 3, "total_audio_duration": 20.0, "total_inference_time": busy, "average_rtf": busy / 20,
    "model_parameters": 1000000, "gpu_memory_used": None, "transcriptions": [], "batch_size": 1, "tokens": 60,
    "wer": 0.0, "phases_s": {"load": 0.1, "encode": busy / 3, "decode": busy * 2 / 3},
    "energy": {"energy_j": None if watts is None else watts * busy, "net_energy_j": None, "duration_s": busy,
        "method": "none" if watts is None else "counter", "average_power_w": watts, "idle_power_w": None,
        "reason": "no counter on this machine" if watts is None else None}}
json.dump(document, open(args.output_file, "w"))
sys.exit(1 if args.fail else 0)
'''

# As much of NVML as the sweep uses. What it is told goes into the file $FAKE_NVML; $FAKE_NVML_DENY denies the right.
PYNVML = '''
import os
NVML_TEMPERATURE_GPU = 0
class NVMLError(Exception): pass
class NVMLError_NoPermission(NVMLError): pass
def _say(text):
    if os.environ.get("FAKE_NVML_DENY"):
        raise NVMLError_NoPermission("Insufficient Permissions")
    with open(os.environ["FAKE_NVML"], "a") as log:
        log.write(text + "\\n")
def nvmlInit():
    if os.environ.get("FAKE_NVML_ABSENT"):
        raise NVMLError("NVML Shared Library Not Found")
def nvmlShutdown(): pass
def nvmlSystemGetDriverVersion(): return "999.1"
def nvmlDeviceGetCount(): return 1
def nvmlDeviceGetHandleByIndex(index): return index
def nvmlDeviceGetName(handle): return os.environ.get("FAKE_NVML_NAME", "NVIDIA A100-PCIE-40GB")
def nvmlDeviceGetUUID(handle): return "GPU-1"
def nvmlDeviceGetMemoryInfo(handle): return type("Memory", (), {"total": 40 * 2**30})()
def nvmlDeviceGetSupportedMemoryClocks(handle): return [1215]
def nvmlDeviceGetSupportedGraphicsClocks(handle, memory): return list(range(1410, 509, -15))
def nvmlDeviceSetGpuLockedClocks(handle, low, high): _say(f"lock {high}")
def nvmlDeviceResetGpuLockedClocks(handle): _say("reset")
def nvmlDeviceGetTemperature(handle, sensor): return 40
def nvmlDeviceGetCurrentClocksEventReasons(handle): return int(os.environ.get("FAKE_NVML_THROTTLE", "0"))
'''


def install(folder: Path) -> Path:
    """Write app.py and nvml/pynvml.py into a folder; returns the app."""
    (folder / "nvml").mkdir(exist_ok=True)
    (folder / "nvml" / "pynvml.py").write_text(PYNVML, encoding="utf-8")
    app = folder / "app.py"
    app.write_text(APP, encoding="utf-8")
    return app


def environment(folder: Path, gpu: bool = True, **more: str) -> dict[str, str]:
    """The environment of a sweep; the fake NVML stands in front of the real one, and without `gpu` finds none."""
    path = os.pathsep.join([str(folder / "nvml"), str(ROOT)])
    made = os.environ | {"PYTHONPATH": path, "FAKE_NVML": str(folder / "nvml.log"), "HF_HUB_OFFLINE": "1"}
    return made | ({} if gpu else {"FAKE_NVML_ABSENT": "1"}) | more


def start(folder: Path, *arguments: object, gpu: bool = True, **more: str) -> subprocess.Popen:
    """Start `sweep|analyze|collect ...` as a process."""
    code = "import sys; from whisper_lab import console; from whisper_lab.sweeps import cli; " \
           "console.run(lambda: cli.main(sys.argv[1:]))"
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], cwd=folder, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(folder, gpu, **more))


def call(folder: Path, *arguments: object, gpu: bool = True, **more: str) -> subprocess.CompletedProcess:
    """Run it to its end."""
    process = start(folder, *arguments, gpu=gpu, **more)
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def nvml_log(folder: Path) -> list[str]:
    """What the fake GPU was told, in order."""
    path = folder / "nvml.log"
    return path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []


def summary(folder: Path) -> dict:
    """experiment_summary.json of a folder."""
    return json.loads((folder / "experiment_summary.json").read_text(encoding="utf-8"))
