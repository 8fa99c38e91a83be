"""Who said what, when, as one web page that needs nothing else: sound, a lane for each speaker, words to click on."""

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from whisper_lab import audio, files, markup
from whisper_lab.speakers.turns import Turn
from whisper_lab.speakers.words import Line

TEMPLATE = Path(__file__).with_name("page.html")
LONG = 600.0  # s; longer sound goes into the page as MP3: an hour of WAV would make it 150 MB


def write(path: Path, clip: str, samples: np.ndarray, turns: Sequence[Turn], lines: Sequence[Line],
          names: Sequence[str], about: str) -> None:
    """Write the page, whole or not at all. samples: float32 [n] at 16 kHz; about: one line below the title."""
    data = {"clip": clip, "about": about, "sound": sound(samples),
            "seconds": round(len(samples) / audio.SAMPLE_RATE, 3),
            "speakers": [{"name": name, "seconds": round(sum(turn.length for turn in turns if turn.speaker == i), 2)}
                         for i, name in enumerate(names)],
            "turns": [[turn.speaker, round(turn.start, 3), round(turn.end, 3)] for turn in turns],
            "lines": [{"speaker": line.speaker, "start": round(line.start, 3),
                       "words": [[word.text, round(word.start, 3), round(word.end, 3)] for word in line.words]}
                      for line in lines]}
    text = TEMPLATE.read_text(encoding="utf-8").replace("/*DATA*/null", markup.script(json.dumps(data)))
    files.write_text(path, text.replace("@POLICY@", markup.policy(text)))


def sound(samples: np.ndarray) -> str:
    """The recording as an address that holds it."""
    if len(samples) <= LONG * audio.SAMPLE_RATE:
        return "data:audio/wav;base64," + base64.b64encode(audio.wav_bytes(samples)).decode()
    import soundfile

    with io.BytesIO() as file:
        soundfile.write(file, samples, audio.SAMPLE_RATE, format="MP3", subtype="MPEG_LAYER_III")
        return "data:audio/mpeg;base64," + base64.b64encode(file.getvalue()).decode()
