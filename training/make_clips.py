"""The sample clips in media/, spoken by free synthesizers, with what is said in them.

    python -m training.make_clips --output-dir media
"""

import json
from pathlib import Path

import numpy as np

from whisper_lab import audio, console, files, flags
from whisper_lab.spoken import voices
from whisper_lab.spoken.voices import SAMPLE_RATE, Voice

SLT = Voice("flite", "slt", "en", 1.0, 1.0)
RMS = Voice("flite", "rms", "en", 1.0, 1.0)
US = Voice("espeak-ng", "en-us+f2", "en", 1.0, 50)
DUTCH = Voice("espeak-ng", "nl+m3", "nl", 1.0, 50)
HELLO = "hello my name is alexander and i'm a teacher at vives university of applied sciences"
# clip -> language and (voice, sentence), one second of silence between the sentences
CLIPS: dict[str, tuple[str, list[tuple[Voice, str]]]] = {
    "hello.wav": ("en", [(SLT, HELLO)]),
    "digits.wav": ("en", [(RMS, "four seven two nine one eight")]),
    "kitchen.wav": ("en", [(RMS, "turn on the lights in the kitchen")]),
    "time.wav": ("en", [(US, "wake me up at six thirty")]),
    "nederlands.wav": ("nl", [(DUTCH, "goedemorgen julia"), (DUTCH, "zet een timer voor tweeëntwintig minuten")]),
    # Longer than three windows of whisper-nano.
    "long.flac": ("en", [
        (SLT, "good morning thomas"), (RMS, "good morning anna how are you"), (SLT, "i am fine thank you"),
        (RMS, "what is the weather like today"), (SLT, "turn on the radio in the kitchen"),
        (RMS, "set the temperature to twenty one degrees"), (SLT, "add milk and bread to the list"),
        (RMS, "the train to brussels leaves at eight forty five"), (SLT, "remind me to call the doctor tomorrow"),
        (RMS, "my name is thomas and i am a student"), (SLT, "two thousand three hundred forty five"),
        (RMS, "see you on friday anna"),
    ]),
}  # fmt: skip


def make(folder: Path) -> None:
    """Write every clip and references.json."""
    references = {}
    for name, (language, lines) in CLIPS.items():
        pieces, segments, at = [silence(0.4)], [], 0.4
        for voice, text in lines:
            sound = voices.speak(voice, [text])[0].astype(np.float32) / 32768
            sound *= 0.5 / np.abs(sound).max()
            end = at + len(sound) / SAMPLE_RATE
            segments.append({"start_s": round(at, 2), "end_s": round(end, 2), "text": text})
            pieces += [sound, silence(1.0)]
            at = end + 1.0
        _write(folder / name, np.concatenate(pieces))
        spoken_by = sorted({voice.label for voice, _ in lines})
        references[name] = {"text": " ".join(text for _, text in lines), "language": language,
                            "source": f"synthesized with {', '.join(spoken_by)}", "segments": segments}  # fmt: skip
    files.write_text(folder / "references.json", json.dumps(references, indent=2, ensure_ascii=False) + "\n")


def silence(seconds: float) -> np.ndarray:
    return np.zeros(int(seconds * SAMPLE_RATE), np.float32)


def _write(path: Path, samples: np.ndarray) -> None:
    if path.suffix == ".wav":
        audio.write_wav(path, samples)
        return
    import soundfile

    with files.atomic(path) as temporary:
        soundfile.write(temporary, samples, SAMPLE_RATE, subtype="PCM_16", format=path.suffix[1:].upper())


def main(argv: list[str] | None = None) -> int:
    args = flags.parse(flags.parser(__doc__, "output_dir", "quiet", "log_level", output_dir="media"), argv)
    voices.require_synthesizers()
    make(Path(args.output_dir))
    return 0


if __name__ == "__main__":
    console.run(main)
