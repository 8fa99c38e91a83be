"""Free speech synthesizers as one function: sentence and voice in, 16 kHz samples out.

espeak-ng (formant synthesis: eight English accents and Dutch, about a hundred voice variants, pitch, speed),
flite (diphones, clustergen) and festival (diphones, HTS). None of the non-free mbrola voices is used.
Voices marked held out never speak in training; they measure how the checkpoint does on an unknown voice.
"""

import random
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from whisper_lab.console import LabError

SAMPLE_RATE = 16_000
ESPEAK_ACCENTS = {
    "en": ("en-us en-gb en-gb-scotland en-gb-x-rp en-gb-x-gbclan en-gb-x-gbcwmd en-029 en-us-nyc").split(),
    "nl": ["nl"],
}
ESPEAK_VARIANTS = (
    "adam Alex Alicia Andrea Andy Annie antonio aunty belinda benjamin boris caleb david Denis Diogo ed edward edward2 "
    "Gene Gene2 gustave Henrique Hugo iven iven2 iven3 Jacky john kaukovalta Lee linda marcelo Marco Mario max Michael "
    "michel miguel mike Mr Nguyen pablo paul pedro quincy rob robert steph steph2 steph3 Storm travis victor Zac anika "
    "f1 f2 f3 f4 f5 m1 m2 m3 m4 m5 m6 m7 m8 grandpa grandma klatt klatt2 klatt3 klatt4 norbert sandro shelby croak "
    "whisper whisperf robosoft robosoft3 robosoft5"
).split()
HELD_OUT_VARIANTS = {"f4", "m6", "Andrea", "Michael", "linda", "max"}
FLITE_VOICES = ("slt", "rms", "awb", "kal16")
FESTIVAL_VOICES = {"slt-hts": "voice_cmu_us_slt_arctic_hts", "kal": "voice_kal_diphone", "ked": "voice_ked_diphone"}
HELD_OUT_FESTIVAL = {"ked"}


@dataclass(frozen=True)
class Voice:
    """One way of speaking; `stretch` above 1 is slower, `pitch` is the engine's own unit."""

    engine: str
    name: str
    language: str
    stretch: float
    pitch: float

    @property
    def held_out(self) -> bool:
        return self.name.split("+")[-1] in HELD_OUT_VARIANTS | HELD_OUT_FESTIVAL

    @property
    def label(self) -> str:
        return f"{self.engine}/{self.name}"


def random_voice(draw: random.Random, language: str = "en", held_out: bool = False) -> Voice:
    """A random voice; English ones are espeak-ng for 64 %, flite for 30 %, festival for 6 %."""
    engine = draw.choices(("espeak-ng", "flite", "festival"), (64, 30, 6))[0]
    if language != "en" or (held_out and engine == "flite"):
        engine = "espeak-ng"
    stretch = round(draw.uniform(0.8, 1.25), 2)
    if engine == "espeak-ng":
        variants = sorted(HELD_OUT_VARIANTS) if held_out else sorted(set(ESPEAK_VARIANTS) - HELD_OUT_VARIANTS)
        name = f"{draw.choice(ESPEAK_ACCENTS[language])}+{draw.choice(variants)}"
        return Voice(engine, name, language, stretch, draw.randint(25, 75))
    if engine == "flite":
        return Voice(engine, draw.choice(FLITE_VOICES), language, stretch, round(draw.uniform(0.8, 1.25), 2))
    names = sorted(HELD_OUT_FESTIVAL) if held_out else sorted(set(FESTIVAL_VOICES) - HELD_OUT_FESTIVAL)
    return Voice(engine, draw.choice(names), language, stretch, 0)


def require_synthesizers() -> None:
    """Raise LabError where a synthesizer is missing."""
    missing = [name for name in ("espeak-ng", "flite", "festival") if not shutil.which(name)]
    if missing:
        raise LabError(
            f"speech synthesizer not installed: {', '.join(missing)}",
            "apt-get install espeak-ng flite festival festvox-kallpc16k festvox-kdlpc16k festvox-us-slt-hts",
        )


def speak(voice: Voice, texts: list[str]) -> list[np.ndarray]:
    """Each text in one voice: int16 [n] at 16 kHz, silence trimmed to 20 ms at both ends."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i}.wav" for i in range(len(texts))]
        {"espeak-ng": _espeak, "flite": _flite, "festival": _festival}[voice.engine](voice, texts, paths)
        return [_read_trimmed(path) for path in paths]


def _espeak(voice: Voice, texts: list[str], paths: list[Path]) -> None:
    words_per_minute = str(int(165 / voice.stretch))
    for text, path in zip(texts, paths, strict=True):
        command = ["espeak-ng", "-v", voice.name, "-s", words_per_minute, "-p", str(int(voice.pitch)), "-w", path, text]
        subprocess.run(command, check=True, capture_output=True)


# The mean pitch of each flite voice in Hz, from which `pitch` is a factor.
_FLITE_HZ = {"slt": 170, "rms": 95, "awb": 120, "kal16": 105}


def _flite(voice: Voice, texts: list[str], paths: list[Path]) -> None:
    pitch = _FLITE_HZ[voice.name] * voice.pitch
    for text, path in zip(texts, paths, strict=True):
        command = ["flite", "-voice", voice.name, "--setf", f"duration_stretch={voice.stretch}",
                   "--setf", f"int_f0_target_mean={pitch:.0f}", "-t", text, "-o", path]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)


def _festival(voice: Voice, texts: list[str], paths: list[Path]) -> None:
    """Festival takes half a second to start: one process speaks the whole list."""
    script = [f"({FESTIVAL_VOICES[voice.name]})", f"(Parameter.set 'Duration_Stretch {voice.stretch})"]
    for text, path in zip(texts, paths, strict=True):
        script.append(f'(utt.save.wave (utt.synth (Utterance Text "{text}")) "{path}" \'riff)')
    subprocess.run(["festival", "--pipe"], input="\n".join(script).encode(), check=True, capture_output=True)


def _read_trimmed(path: Path) -> np.ndarray:
    import soundfile
    import soxr

    samples, rate = soundfile.read(path, dtype="float32")
    if rate != SAMPLE_RATE:
        samples = soxr.resample(samples, rate, SAMPLE_RATE)
    return (np.clip(trim(samples), -1, 1) * 32767).astype(np.int16)


def trim(samples: np.ndarray, floor_db: float = -40.0, margin_s: float = 0.02) -> np.ndarray:
    """Cut what lies `floor_db` below the peak from both ends, but for a margin: boundaries become timestamps."""
    if not len(samples):
        return samples
    loud = np.flatnonzero(np.abs(samples) > np.abs(samples).max() * 10 ** (floor_db / 20))
    margin = int(margin_s * SAMPLE_RATE)
    return samples[max(0, loud[0] - margin) : loud[-1] + margin] if len(loud) else samples[:0]
