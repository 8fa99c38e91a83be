"""Whisper on this device, with onnxruntime, from the graphs that came with it.

    python -m whisper_lab clip.wav                      # a recording, or a folder of them
    python -m whisper_lab lecture.flac --format srt > lecture.srt
    python -m whisper_lab --listen                      # text while someone speaks (needs the package sounddevice)
    arecord -q -f S16_LE -r 16000 -c 1 -t raw | python -m whisper_lab --listen --stdin

Without --model, --precision and --model-dir it takes the graphs that came with it. --listen --help shows what can be
set for a microphone.
"""

# `make edge-pack` (tools/edge_pack.py) puts this file into the archive as whisper_lab/__main__.py, beside the lab's own
# command line as clips.py and 09 as listen.py. It adds what the archive knows, which graphs it has, to the arguments,
# and replaces advice that only helps where the whole lab is.

import importlib
import json
import os
import sys
from pathlib import Path

from whisper_lab import console
from whisper_lab.console import LabError

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
CHOICES = ("--model", "--precision", "--optimized", "--model-dir")
# How advice begins that names another script of the lab; those are not here.
EXPORT, BROWSER = "python 03-export-encoder-decoder.py", "record in a browser instead"
RECORDER, RECORD = "python 01-record-audio-app.py", "arecord -f S16_LE -r 16000 -c 1 speech.wav"
PIPE = "arecord -q -f S16_LE -r 16000 -c 1 -t raw | python -m whisper_lab --listen --stdin"


def defaults(pack: dict, listening: bool) -> list[str]:
    """The arguments that choose the archive's graphs; what the user gives comes later and counts."""
    chosen = ["--model", pack["model"], "--precision", pack["precision"], "--model-dir", str(ROOT / "graphs")]
    chosen += ["--optimized"] if pack["optimized"] else []
    # The whole recording again at the end is a comparison for the lab.
    return [*chosen, "--no-batch"] if listening else chosen


def advice(error: LabError, pack: dict, arguments: list[str]) -> str:
    """What to do on this device about an error of the lab's."""
    if EXPORT in error.remedy and "--alignment-heads" in error.remedy:
        return "take --timestamps segment; or, where the lab is: write the graphs with --alignment-heads, " \
               "then make edge-pack"
    if EXPORT in error.remedy:
        if any(word.split("=")[0] in CHOICES for word in arguments):
            return f"leave out {', '.join(CHOICES[:-1])} and {CHOICES[-1]}: this archive has {pack['model']} " \
                   f"{pack['precision']}; for others, where the lab is: make edge-pack"
        return "unpack the archive again; in its folder, sha256sum -c --quiet SHA256SUMS says what has changed"
    if "sounddevice" in error.problem:
        return f"{sys.executable} -m pip install {pack['sounddevice']}; or without it: {PIPE}"
    if BROWSER in error.remedy:
        kept = error.remedy.partition(BROWSER)[0].removesuffix("; or ")
        return f"{kept}; or without PortAudio: {PIPE}" if kept else f"arecord -l lists what the system has; then {PIPE}"
    return error.remedy.replace(RECORDER, RECORD)


def main(argv: list[str] | None = None) -> int:
    """Transcribe clips, or listen; the exit status is theirs."""
    given = sys.argv[1:] if argv is None else argv
    if given[:1] == ["archive"] and not Path("archive").exists():  # else it is a folder of recordings
        raise LabError("archive, which transcribes many recordings once each, is not part of this pack",
                       "name the folder itself: python -m whisper_lab FOLDER; or use archive where the lab is")
    listening, arguments = "--listen" in given, [word for word in given if word != "--listen"]
    pack = json.loads((HERE / "pack.json").read_text(encoding="utf-8"))
    # The voice detector came along; nothing is fetched.
    os.environ.setdefault("WHISPER_LAB_WEIGHTS", str(ROOT / "weights"))
    os.environ.setdefault("WHISPER_LAB_PACKAGE_INDEX", "never")
    sys.argv[0] = "-m whisper_lab --listen" if listening else "-m whisper_lab"  # what its help calls it
    program = importlib.import_module(".listen" if listening else ".clips", __package__)
    program.__doc__ = __doc__  # for its help
    try:
        return program.main([*defaults(pack, listening), *arguments])
    except LabError as error:
        raise LabError(error.problem, advice(error, pack, arguments)) from error
    except ImportError as error:
        raise LabError(f"this needs the package {error.name}, which is not installed",
                       f"{sys.executable} -m pip install {error.name}") from error


if __name__ == "__main__":
    console.run(main)
