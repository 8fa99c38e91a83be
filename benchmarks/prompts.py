"""A corpus of telephone prompts: a voice in each of five languages, over a thousand sentences, with their texts.

    apt-get download asterisk-core-sounds-{en,es,fr,it,ru}{,-wav}   # Debian or Ubuntu; nothing is installed
    for package in asterisk-core-sounds-*.deb; do dpkg -x $package unpacked; done
    python benchmarks/prompts.py unpacked --every 2 --except my/corpus --output-dir my/prompts
    python benchmarks/accuracy.py --corpus my/prompts --output-dir benchmarks/prompts

To try on other speech what was found on one corpus. Sentences of at least four words are taken, and joined they are
recordings of many minutes. 8 kHz, as telephones have it.
"""

import gzip
import itertools
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import corpora  # noqa: E402

from whisper_lab import console, files, flags  # noqa: E402
from whisper_lab.console import LabError  # noqa: E402

FEWEST_WORDS = 4
ASIDE = re.compile(r"[\[(<{]")  # what stands in brackets is about the recording, or may not be spoken


def main(argv: list[str] | None = None) -> int:
    """Find the sentences, copy their sounds, write references.json."""
    args = arguments(argv)
    known = {plain(clip.text) for clip in corpora.read(args.leave_out)[0]} if args.leave_out else set()
    found = [row for row in sentences(Path(args.packages)) if plain(row["text"]) not in known]
    if not found:
        raise LabError(f"there are no prompts in {args.packages}",
                       "unpack asterisk-core-sounds-en and asterisk-core-sounds-en-wav there with dpkg -x")
    folder, rows = Path(args.output_dir), found[::args.every]
    for row in rows:
        sound = row.pop("sound")
        row["file"] = f"{row['language']}_prompts/{sound.parent.name}-{sound.name}"
        (folder / row["file"]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(sound, folder / row["file"])
    files.write_json(folder / "references.json", rows)  # last: its presence says that the clips are all there
    console.result(f"{folder}: {console.count(len(rows), 'clip')}, "
                   f"{sum(len(row['text'].split()) for row in rows)} words")
    return 0


def sentences(packages: Path) -> Iterator[dict]:
    """Rows of references.json with the `sound` in place of the file, from the unpacked packages of any languages."""
    for listed in sorted(packages.glob("usr/share/doc/*/core-sounds-*.txt.gz")):
        language = listed.name.removeprefix("core-sounds-").partition(".")[0]
        voices = packages.glob(f"usr/share/asterisk/sounds/{language}_*_*_*")  # none without the package of sounds
        lines = gzip.decompress(listed.read_bytes()).decode("utf-8-sig").splitlines()
        for voice, line in itertools.product(voices, lines):
            name, _, text = line.strip().partition(":")
            sound, text = voice / f"{name}.wav", text.strip().strip("“”\".… ")
            if sound.is_file() and len(re.findall(r"\w+", text)) >= FEWEST_WORDS and not ASIDE.search(text):
                yield {"sound": sound, "text": text, "language": language, "kind": "telephone"}


def plain(text: str) -> str:
    """A text as it is compared with those of another corpus: its letters and digits."""
    return re.sub(r"\W", "", text.lower())


def arguments(argv: list[str] | None):
    """The command line; wrong usage ends here with exit status 2."""
    parser = flags.parser(__doc__, "quiet", "log_level")
    parser.add_argument("packages", help="where the packages were unpacked: the folder with usr/")
    parser.add_argument("--every", type=flags.between(1, 1000, int), default=1, metavar="N",
                        help="every Nth sentence (default: all)")
    parser.add_argument("--except", dest="leave_out", metavar="CORPUS", help="leave out what another corpus has, too")
    parser.add_argument("--output-dir", default="prompts", help="(default: %(default)s)")
    return flags.parse(parser, argv)


if __name__ == "__main__":
    console.run(main)
