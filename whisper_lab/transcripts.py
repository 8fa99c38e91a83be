"""How a transcript is shown: as plain text, with times, as subtitles, or as one JSON document for several clips."""

import dataclasses
import json
from pathlib import Path

from whisper_lab import console, doubt, files, references, subtitles
from whisper_lab.console import LabError
from whisper_lab.long_form import Segment, Transcript
from whisper_lab.metrics import Errors, aligned_rows, word_errors

SCHEMA = "whisper-onnx-lab/transcripts/1"


def as_text(transcript: Transcript, timestamps: str) -> str:
    """The text; or a line per segment or word: start and end in s, then the text. timestamps: none, segment or word."""
    if timestamps == "none":
        return transcript.text
    rows = transcript.segments if timestamps == "segment" else \
        [word for segment in transcript.segments for word in segment.words or []]
    return "\n".join(f"{row.start:8.2f} {row.end:8.2f}  {row.text}" for row in rows)


def as_json(transcript: Transcript, path: Path, model: str) -> dict:
    """One clip for the JSON document; keys carry their unit. Unknown is null. model: the checkpoint's name."""
    return {
        "file": path.name,
        "duration_s": round(transcript.duration, 3),
        "language": transcript.language,
        "language_probability": transcript.language_probability,  # null: it was given, or the model knows only one
        "text": transcript.text,
        "segments": [_segment(segment, model) for segment in transcript.segments],
    }


class Results:
    """Collects the clips of one run, prints each as the arguments ask, and writes the files at the end."""

    def __init__(self, args, checkpoint, references: dict[Path, str], several: bool):
        """args: the script's, with format, timestamps, output_dir and output_json; references: text by clip."""
        self.args, self.checkpoint, self.references, self.several = args, checkpoint, references, several
        self.transcripts: dict[Path, Transcript] = {}
        self.clips: list[dict] = []

    def add(self, clip: Path, transcript: Transcript, seconds: float) -> None:
        """Note a transcript that took `seconds`; prints it, with several clips preceded by its name."""
        errors = None
        if clip in self.references:
            errors = word_errors(self.references[clip], transcript.text, transcript.language)
        self.transcripts[clip] = transcript
        self.clips.append(as_json(transcript, clip, self.checkpoint.name) | {"transcribe_s": round(seconds, 3)})
        if errors:
            self.clips[-1]["errors"] = dataclasses.asdict(errors)
        if self.args.format == "text":
            heading = f"{console.plain(clip.name, one_line=True)}\n" if self.several else ""
            console.result(f"{heading}\nTranscription:\n\n{as_text(transcript, self.args.timestamps)}\n")
            if errors:
                show_errors(errors)
        elif self.args.format != "json" and not self.several:
            console.result(getattr(subtitles, self.args.format)(transcript.segments).rstrip("\n"))
        warn_of_doubt(transcript, clip, self.checkpoint.name)

    def write(self) -> None:
        """The JSON document, and with several clips a subtitle file for each."""
        kind = self.args.format
        if self.args.output_json:
            files.write_json(self.args.output_json, self.document())
        if kind == "json":
            console.result(json.dumps(self.document(), indent=2, ensure_ascii=False, allow_nan=False))
        elif kind != "text" and self.several:
            for path in save_subtitles(self.transcripts, kind, self.args.output_dir):
                console.result(str(path))

    def document(self) -> dict:
        """What ran, on what, with which settings, and the clips."""
        from whisper_lab import machine

        checkpoint = self.checkpoint
        names = ("api", "language", "task", "beams", "temperature", "fallback", "timestamps", "dtype", "device",
                 "prompt", "seed")
        return {
            "schema": SCHEMA,
            "machine": machine.card(self.args.threads),
            "model": {"name": checkpoint.name, "revision": checkpoint.revision,
                      "random_weights": checkpoint.random_weights},
            "settings": {name: getattr(self.args, name) for name in names},
            "clips": self.clips,
        }


def warn_of_doubt(transcript: Transcript, clip: Path, model: str) -> None:
    """A warning below a transcript that the model itself finds unlikely."""
    if found := doubt.warning(transcript.segments, model):
        console.warn(f"{clip.name}: {found}")


def save_subtitles(transcripts: dict[Path, Transcript], kind: str, folder: str | Path) -> list[Path]:
    """One file per clip, named after it; kind: srt or vtt. Raises LabError where two would get the same name."""
    targets = [Path(folder) / f"{path.stem}.{kind}" for path in transcripts]
    if len(set(targets)) < len(targets):
        raise LabError(f"two of the clips have the same name, so their .{kind} files would overwrite each other",
                       "rename one, or transcribe them one at a time")
    write = getattr(subtitles, kind)
    return [files.write_text(target, write(transcript.segments))
            for target, transcript in zip(targets, transcripts.values(), strict=True)]


def show_errors(errors: Errors) -> None:
    """Print word and character error rates with the alignment."""
    console.result(f"WER {_percent(errors.wer)}, CER {_percent(errors.cer)}: {errors.substitutions} substituted, "
                   f"{errors.insertions} inserted, {errors.deletions} deleted of "
                   f"{console.count(errors.reference_words, 'word')}"
                   f"{f' ({errors.reason})' if errors.reason else ''}; normalizer: {errors.normalizer}\n")
    for row in aligned_rows(errors):
        console.result(row)
    console.result()


def read_reference(argument: str, clips: list[Path]) -> dict[Path, str]:
    """--reference for each clip: a text, a text file, or a JSON file such as media/references.json.

    Forms and encodings are those of references.py. Raises LabError for a file that cannot be read and for a clip that
    it does not name.
    """
    path = Path(argument)
    try:
        is_file = path.is_file()
    except (OSError, ValueError):  # a sentence may be too long for a file name
        is_file = False
    if not is_file:
        return dict.fromkeys(clips, argument)
    if path.suffix.lower() != ".json":
        return dict.fromkeys(clips, references.read_text(path).strip())
    known, found = references.read(path), {}
    for clip in clips:
        text = (references.of_clip(known, path.parent, clip) or {}).get("text")
        if text is None:
            raise LabError(f"{path} has no reference for '{clip.name}'", "add it, or leave out that clip")
        found[clip] = text
    return found


def _segment(segment: Segment, model: str) -> dict:
    likely = segment.text_logprob
    made = {"start_s": round(segment.start, 3), "end_s": round(segment.end, 3), "text": segment.text,
            "tokens": segment.tokens, "text_logprob": None if likely is None else round(likely, 4),
            "doubtful": doubt.is_doubtful(likely, model, segment.compression_ratio)}
    if segment.words is not None:
        made["words"] = [{"start_s": round(word.start, 3), "end_s": round(word.end, 3), "text": word.text}
                         for word in segment.words]
    return made


def _percent(rate: float | None) -> str:
    return "unknown" if rate is None else f"{100 * rate:.1f} %"
