"""How a transcript is shown: as plain text, with times, as subtitles (subtitles.py), or as JSON for several clips."""

import contextlib
import dataclasses
import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

from whisper_lab import confidence, console, files, locks
from whisper_lab.console import LabError
from whisper_lab.decoding import AUTO, WIDE, Options, temperatures
from whisper_lab.short_windows import LEAST_S
from whisper_lab.subtitles import SUBTITLES
from whisper_lab.transcribe import Segment, Transcript

SCHEMA = "whisper-onnx-lab/transcripts/1"
COLDEST, HOTTEST = 0.01, 10.0  # temperatures; what is below draws the likeliest token, above it any
LEDGER = ".transcribed.json"  # in the folder of the subtitles: what each was made of


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
        "windows": {"asked": transcript.windows, "shortened": transcript.shortened,
                    "heard_again": transcript.heard_again, "searched_again": transcript.searched_again},
    }


@dataclasses.dataclass(frozen=True)
class Output:
    """What becomes of the transcripts."""

    format: str = "text"  # text, json, srt or vtt
    timestamps: str = "none"  # none, segment or word
    folder: str | Path = "reports"  # subtitles of several clips go there
    json: str | Path | None = None  # a file for the JSON document, whatever the format
    force: bool = False  # write subtitles again that are there
    title: str = ""  # a line above each text


class Results:
    """Takes the clips of one run, prints each and writes its files as `output` says.

    Of several clips' subtitles those that an earlier run made of the same sound, with the same model and settings,
    are kept: see `keeps`.
    """

    def __init__(self, clips: list[Path], output: Output, model: dict, settings: dict,
                 references: dict[Path, str] | None = None, threads: int | None = None):
        """clips: all that will come; model: `name` and what else is known of it; settings: what the texts depend on;
        references: what is said, by clip. Raises LabError where two clips' subtitles would get the same name."""
        self.output, self.model, self.settings, self.threads = output, model, settings, threads
        self.paths, self.references, self.several, self.clips = clips, references or {}, len(clips) > 1, []
        self.subtitles = self.several and output.format in SUBTITLES
        if self.subtitles and len({self.target(clip) for clip in clips}) < len(clips):
            raise LabError(f"two of the clips have the same name, so their .{output.format} files would overwrite each "
                           "other", "rename one, or transcribe them one at a time")
        self.ledger, self.failed, self.advised = Path(output.folder) / LEDGER, [], False
        self.scored: list = []  # metrics.Errors

    def run(self, work: Callable[[Path], Transcript], then: Callable[[Path], None] = lambda clip: None) -> int:
        """`work` makes the transcript of each clip, `then` comes after it was shown. Returns the exit status.

        Of several clips those that cannot be transcribed are named and left out; a single one raises its LabError.
        """
        for clip in self.paths:
            try:
                if not self.keeps(clip):
                    started = time.perf_counter()
                    made = work(clip)
                    self.add(clip, made, time.perf_counter() - started if made.seconds is None else made.seconds)
                    then(clip)
            except LabError as error:
                if not self.several:
                    raise
                self.failed.append({"file": str(clip), "error": error.problem, "remedy": error.remedy})
                console.error(error)
        if self.several and self.scored and self.output.format == "text":
            show_total(self.scored)
        self.write()
        return 1 if self.failed else 0

    def target(self, clip: Path) -> Path:
        """Where a clip's subtitles go."""
        return Path(self.output.folder) / f"{clip.stem}.{self.output.format}"

    def keeps(self, clip: Path) -> bool:
        """Whether this clip's subtitles are there already and need not be made again; says so."""
        if not self.has(clip):
            return False
        target = self.target(clip)
        console.note("kept", target, "of the same sound and settings; --force transcribes again")
        console.result(console.plain(target, one_line=True))
        return True

    def has(self, clip: Path) -> bool:
        """As `keeps`, and says nothing."""
        target = self.target(clip)
        return self.subtitles and not self.output.force and not self.output.json and target.is_file() \
            and clip.is_file() and self._made().get(target.name) == self._recipe(clip)

    def add(self, clip: Path, transcript: Transcript, seconds: float) -> None:
        """Note a transcript that took `seconds`; prints it, with several clips preceded by its name."""
        if transcript.language_probability is not None:
            console.note("language", transcript.language, "detected in the first window with speech, probability "
                         f"{transcript.language_probability:.3f}; --language sets it")
        self.clips.append(as_json(transcript, clip, self.model["name"]) | {"transcribe_s": round(seconds, 3)})
        errors = None
        if clip in self.references:
            from whisper_lab.metrics import word_errors

            errors = word_errors(self.references[clip], transcript.text, transcript.language)
            self.scored.append(errors)
            self.clips[-1]["errors"] = dataclasses.asdict(errors)
        if self.output.format == "text":
            self._print(clip, as_text(transcript, self.output.timestamps))
            if errors:
                show_errors(errors)
        elif self.subtitles:
            self._write_subtitles(clip, transcript)
        elif self.output.format != "json":
            console.result(SUBTITLES[self.output.format](transcript.segments).rstrip("\n"))
        self.advised |= warn_of_doubt(transcript, clip, self.model["name"], self.settings.get("language"),
                                      advise=not self.advised)

    def _print(self, clip: Path, text: str) -> None:
        name = console.plain(clip.name, one_line=True)
        if self.output.title:
            console.result((f"{name}\n" if self.several else "") + f"\n{self.output.title}\n\n{text}\n")
        else:
            console.result((f"\n{name}\n" if self.several else "") + text)

    def _write_subtitles(self, clip: Path, transcript: Transcript) -> None:
        """At once: what is finished stays, whatever comes later."""
        target = files.write_text(self.target(clip), SUBTITLES[self.output.format](transcript.segments))
        with contextlib.ExitStack() as held:
            with contextlib.suppress(OSError):  # another user's
                held.enter_context(locks.alone(self.ledger.with_name(f"{self.ledger.name}{locks.LOCK}")))
            files.write_json(self.ledger, self._made() | {target.name: self._recipe(clip)})
        console.result(console.plain(target, one_line=True))

    def _made(self) -> dict:
        """File name -> what it was made of, as an earlier run noted it; nothing where that cannot be read."""
        try:
            found = files.read_json(self.ledger)
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _recipe(self, clip: Path) -> dict:
        """What a clip's subtitles are made of, as JSON gives it back."""
        facts = clip.stat()
        return json.loads(json.dumps({"clip": str(clip.resolve()), "bytes": facts.st_size, "changed": facts.st_mtime_ns,
                                      "model": self.model, "settings": self.settings}))

    def write(self) -> None:
        """The JSON document, where it is wanted."""
        if self.output.json:
            files.write_json(self.output.json, self.document())
        if self.output.format == "json":
            console.result(json.dumps(self.document(), indent=2, ensure_ascii=False, allow_nan=False))

    def document(self) -> dict:
        """What ran, on what, with which settings, the clips, and those that failed, if any, with the reason."""
        from whisper_lab import machine

        return {"schema": SCHEMA, "machine": machine.card(self.threads), "model": self.model,
                "settings": self.settings, "clips": self.clips} | ({"failed": self.failed} if self.failed else {})


def warn_of_doubt(transcript: Transcript, clip: Path, model: str, language: str | None, advise: bool = True) -> bool:
    """A warning below a transcript that the model itself finds unlikely, and what may help; returns whether it is.

    language: --language; advise: false where it was said before.
    """
    if found := confidence.warning(transcript.segments, model):
        console.warn(f"{clip.name}: {found}" + (f"; {confidence.remedy(model, language)}" if advise else ""))
    return found is not None


def tell_windows(heard: list[Transcript], context: str | float) -> None:
    """Notes about all transcripts of a run: how many windows were shortened, heard again as a whole, searched again.

    context: --audio-context.
    """
    asked, shortened, again, searched = (sum(getattr(one, key) for one in heard) for key in
                                         ("windows", "shortened", "heard_again", "searched_again"))
    if shortened:
        console.note("shorter windows", f"{shortened} of {asked}, {again} heard again as a whole",
                     f"the sound and {_silence(context)}; --audio-context full: always the whole")
    if searched:
        console.note("beam search", f"{searched} of {asked} windows",
                     f"their greedy text was doubtful; --beams 1: never, --beams {WIDE}: always")


def _silence(context: str | float) -> str:
    """What is heard behind a sound, in words."""
    if isinstance(context, str):
        return "the silence that the checkpoint needs"
    least = f" (at least {LEAST_S:g} s are heard)" if context < LEAST_S else ""
    return f"{context:g} s of silence, as --audio-context asks{least}"


def show_errors(errors) -> None:
    """Print the word and character error rates of metrics.Errors, with the alignment."""
    from whisper_lab.metrics import aligned_rows

    console.result(f"{_rates(errors)}\n")
    for row in aligned_rows(errors, console.columns_of(sys.stdout) or console.WIDTH):
        console.result(row)
    console.result()


def show_total(every: list) -> None:
    """The rates of several clips together: of metrics.Errors, all errors over all words."""
    from whisper_lab.metrics import pooled

    console.result(f"all {console.count(len(every), 'clip')}: {_rates(pooled(every))}")


def _rates(errors) -> str:
    """Rates, counts and how texts were compared, in one line."""
    return (f"WER {_percent(errors.wer)}, CER {_percent(errors.cer)}: {errors.substitutions} substituted, "
            f"{errors.insertions} inserted, {errors.deletions} deleted of "
            f"{console.count(errors.reference_words, 'word')}"
            f"{f' ({errors.reason})' if errors.reason else ''}; normalizer: {errors.normalizer}")


def read_reference(argument: str, clips: list[Path]) -> dict[Path, str]:
    """--reference for each clip: a text, a text file, or a JSON file such as media/references.json.

    Forms and encodings are those of `read_references`. Raises LabError for a file that is not there or cannot be read,
    for a clip that it does not name, and for one text where there are several clips.
    """
    path = Path(argument)
    if not os.path.isfile(path):  # a sentence may be too long for a file name: false then, too
        _require_text(argument)
    if len(clips) > 1 and path.suffix.lower() != ".json":
        raise LabError(f"--reference is one text, and there are {len(clips)} clips",
                       "name one clip; or a JSON file with a text for each, as media/references.json is")
    if not os.path.isfile(path):
        return dict.fromkeys(clips, argument)
    if path.suffix.lower() != ".json":
        return dict.fromkeys(clips, read_reference_text(path).strip())
    known, found = read_references(path), {}
    for clip in clips:
        text = (reference_of_clip(known, path.parent, clip) or {}).get("text")
        if text is None:
            raise LabError(f"{path} has no reference for '{clip.name}'", "add it, or leave out that clip")
        found[clip] = text
    return found


def _require_text(argument: str) -> None:
    """Raises LabError for what was to be a file: one word that has a place or the ending of a text, or is a folder."""
    if os.path.isdir(argument):
        raise LabError(f"--reference {argument} is a folder", "name a file in it, or write what was said")
    if not re.search(r"\s", argument) and re.search(r"[/\\]|\.(txt|json|md|csv|tsv|srt|vtt|trans)$", argument, re.I):
        raise LabError(f"there is no reference file {argument}", "name one that is there, or write what was said")


def _segment(segment: Segment, model: str) -> dict:
    likely = segment.text_logprob
    made = {"start_s": round(segment.start, 3), "end_s": round(segment.end, 3), "text": segment.text,
            "tokens": segment.tokens, "text_logprob": None if likely is None else round(likely, 4),
            "doubtful": confidence.is_doubtful(likely, model, segment.compression_ratio)}
    if segment.words is not None:
        made["words"] = [{"start_s": round(word.start, 3), "end_s": round(word.end, 3), "text": word.text}
                         for word in segment.words]
    return made


def _percent(rate: float | None) -> str:
    return "unknown" if rate is None else f"{100 * rate:.1f} %"


# What a command line asks for -----------------------------------------------------------------------------------------

# 02 and `python -m whisper_lab` have the same options for it; their names are those of flags.COMMON_FLAGS.

def check(parser, args) -> None:
    """What the options cannot have together ends with status 2; subtitles get their timestamps."""
    if args.format == "text" and args.output_dir != parser.get_default("output_dir") and not getattr(
            args, "explain", False):
        console.note("--output-dir", "not used", "text is printed; srt and vtt of several clips are written there")
    if args.temperature and not COLDEST <= args.temperature <= HOTTEST:
        parser.error(f"--temperature is 0 or a number from {COLDEST:g} to {HOTTEST:g}")
    if args.beams not in (1, AUTO) and args.temperature > 0:
        parser.error("choose --beams (search) or --temperature (sampling), not both")
    if args.format in SUBTITLES and args.timestamps == "none":
        args.timestamps = "segment"
        console.note("timestamps", "segment", f"--format {args.format} needs them")


def options(args) -> Options:
    """How to decode."""
    return Options(language=args.language, task=args.task, timestamps=args.timestamps != "none", beams=args.beams,
                   temperatures=temperatures(args.temperature, args.fallback), seed=args.seed,
                   audio_context=getattr(args, "audio_context", "auto"))  # 02 has no choice: transformers wants all


def output(args, title: str = "") -> Output:
    """What becomes of the transcripts."""
    return Output(args.format, args.timestamps, args.output_dir, args.output_json, args.force, title)


def settings(args, *more: str) -> dict:
    """What a text depends on beside model and sound; more: names of the script's own options."""
    names = ("language", "task", "beams", "temperature", "fallback", "condition_on_previous", "timestamps", "prompt",
             "seed")
    return {name: getattr(args, name) for name in (*more, *names)}


# References -----------------------------------------------------------------------------------------------------------

# What is said in sound files, as people write it down: one reader for every script.
#
# Two forms of JSON. An object, as media/references.json has it, and a list, as corpora have it:
#
#     {"clip.wav": "what is said", "other.wav": {"text": "what is said", "language": "en"}}
#     [{"file": "folder/clip.wav", "text": "what is said", "language": "en"}]
#
# Names are relative to the JSON's folder. Any encoding that Windows saves in is read: UTF-8 with and without a mark,
# UTF-16, and the old code page 1252.

FORM = 'write JSON: {"clip.wav": {"text": "what is said", "language": "en"}}'


def read_reference_text(path: Path) -> str:
    """A text file in UTF-8, UTF-16 or Windows' code page 1252. Raises LabError where it cannot be read."""
    try:
        data = files.read_bytes(path)
        if data.startswith((b"\xff\xfe", b"\xfe\xff")):
            return data.decode("utf-16")
        if b"\0" in data[:2] and len(data) > 1:  # no mark, and the first character is ASCII
            return data.decode("utf-16-be" if data[0] == 0 else "utf-16-le")
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError:
            return data.decode("cp1252")
    except UnicodeDecodeError as error:
        raise LabError(f"cannot read references from {path}: it is in none of UTF-8, UTF-16 and code page 1252",
                       "save it as UTF-8") from error
    except (OSError, ValueError) as error:
        raise LabError(f"cannot read references from {path}: {getattr(error, 'strerror', None) or error}",
                       "name a text file") from error


def read_references(path: Path) -> dict[str, dict]:
    """{name as written: {"text", "language", ...}}, of either form; text and language are None where they are missing.

    Raises LabError for anything else.
    """
    try:
        found = json.loads(read_reference_text(path))
        pairs = [(row["file"], row) for row in found] if isinstance(found, list) else list(found.items())
        made = {name: _entry(name, entry) for name, entry in pairs}
    except RecursionError as error:
        raise LabError(f"cannot read references from {path}: too many brackets within brackets", FORM) from error
    except (ValueError, TypeError, AttributeError) as error:
        raise LabError(f"cannot read references from {path}: {error}", FORM) from error
    except KeyError as error:
        raise LabError(f"cannot read references from {path}: a row has no {error}", FORM) from error
    return made


def _entry(name: object, entry: object) -> dict:
    """Raises TypeError."""
    fields = {"text": entry} if isinstance(entry, str) else entry
    if not isinstance(name, str) or not isinstance(fields, dict):
        raise TypeError(f"{str(name)[:100]!r} has neither a text nor an object with one")
    for key in ("text", "language"):
        if not isinstance(fields.get(key), str | None):
            raise TypeError(f"the {key} of {name!r} is not text")
    return {"text": None, "language": None, **fields}


def references_of_folder(folder: Path) -> dict[str, dict]:
    """`read_references` of the references.json in a folder; nothing where there is none."""
    path = folder / "references.json"
    return read_references(path) if path.is_file() else {}


def reference_of_clip(known: dict[str, dict], folder: Path, clip: Path) -> dict | None:
    """The entry of a sound file: by its place, else by its name, where no two entries share that; None: there is none.

    folder: that of the JSON.
    """
    place = clip.resolve()
    for name, entry in known.items():
        if Path(name).name == clip.name and (folder / name).resolve() == place:
            return entry
    if clip.name in known:
        return known[clip.name]
    same = [entry for name, entry in known.items() if Path(name).name == clip.name]
    return same[0] if len(same) == 1 else None
