"""The clips in media/profile: what the profiler plays where espeak-ng is not installed, with what is said in them.

    python -m training.make_profile_clips --output-dir media/profile

The profiler's own synthesis with seed 0, as Ogg Opus: eight clips in less than 300 kB.
"""

import json
from pathlib import Path

from whisper_lab import console, files, flags
from whisper_lab.energy import samples
from whisper_lab.spoken import voices
from whisper_lab.spoken.voices import SAMPLE_RATE

COMPRESSION = 0.96  # of libsndfile, 0 to 1; 1 is the smallest file. This leaves 10 to 15 kbit/s


def main(argv: list[str] | None = None) -> int:
    """Write every clip and references.json."""
    import soundfile

    args = flags.parse(flags.parser(__doc__, "output_dir", "seed", "quiet", "log_level",
                                    output_dir="media/profile"), argv)
    voices.require_synthesizers()
    folder, listed = Path(args.output_dir), {}
    for language_set in ("english", "nano"):
        for i, kind in enumerate(samples.CLASSES):
            made = samples.synthesize(kind, i, args.seed, language_set)
            name = f"{language_set}-{kind}.ogg"
            with files.atomic(folder / name) as temporary:
                soundfile.write(temporary, made.sound, SAMPLE_RATE, format="OGG", subtype="OPUS",
                                compression_level=COMPRESSION)
            listed[name] = {"class": kind, "text": made.reference, "language": made.language,
                            "source": f"synthesized with {made.source}, Ogg Opus",
                            "duration_s": round(len(made.sound) / SAMPLE_RATE, 2)}
    files.write_text(folder / "references.json", json.dumps(listed, indent=2, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    console.run(main)
