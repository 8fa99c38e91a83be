"""Word errors of this lab in every precision and of its peers: the same weights, the same clips, the same normalizer.

    python benchmarks/accuracy.py --corpus media --model nano --systems 'lab|transformers'
    python benchmarks/accuracy.py --corpus my/corpus --model base --output-dir benchmarks
    python benchmarks/accuracy.py --corpus librispeech:test-other --limit 200 --model base --resume

Each clip is heard alone, with its language given: one pass without timestamps, greedy where the system's name says
nothing of beams. A recording longer than the window goes through each system's own way of transcribing it, and counts
in a pool of its own. As there are few of them in most corpora, the short clips of each language are also heard joined,
with pauses between them, in one more pool. Every difference is given with the interval of a bootstrap over the clips:
on a small corpus most differences are chance. Writes accuracy.json, ACCURACY.md and accuracy.png.

What a system wrote is kept in --cache, a line for each clip, as soon as it is there: with --resume an interrupted run
goes on, and a system whose weights, code and packages have not changed is not measured again.
"""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import accuracy_report  # noqa: E402
import corpora  # noqa: E402
import prepare  # noqa: E402
import scoring  # noqa: E402
import speech  # noqa: E402
from prepare import Unavailable  # noqa: E402
from run import PEERS, Peer, lab  # noqa: E402

from whisper_lab import checkpoints, console, files, flags, machine, names, openvino  # noqa: E402
from whisper_lab.console import LabError  # noqa: E402

SCHEMA = "whisper-onnx-lab/accuracy/1"
REFERENCE = "this lab fp32"  # what the others are compared with
JOINED = "joined"  # the kind of a recording that was made of short clips
WINDOWS = 2  # windows that it lasts at least
PATIENCE = 600  # s for a clip, and PATIENCE_PER_S for each second of it; after that a peer hangs
PATIENCE_PER_S = 20
SHARED = ("this lab fp32", "this lab fp16", "this lab int8", "this lab int8 optimized", "this lab int4",
          "this lab fp32, beam 5", "this lab int8, beam 5", "this lab int8 optimized, beam 5",
          "this lab int8 on OpenVINO", "transformers fp32", "faster-whisper fp32", "faster-whisper int8",
          "OpenVINO GenAI int8", "onnx-asr int8", "whisper.cpp f16")
SYSTEMS = [next(peer for peer in PEERS if peer.name == name) for name in SHARED]
for _precision in ("fp32", "int8", "int8 optimized", "int4"):  # as the command line does by itself
    SYSTEMS.insert(-1, lab(f"{_precision}, beams auto", precision=_precision.split()[0], beams="auto",
                           optimized=_precision.endswith("optimized")))
for _precision in ("int8", "int8 optimized"):  # the others of this lab hear the sound and some silence
    SYSTEMS.insert(-1, lab(f"{_precision}, whole windows", precision="int8", audio_context="full",
                           optimized=_precision.endswith("optimized")))
PACKAGES = {"lab.py": ["onnxruntime", "onnxruntime-openvino", "numpy"],
            "transformers_peer.py": ["transformers", "torch"],
            "faster_whisper_peer.py": ["faster-whisper", "ctranslate2"], "whispercpp_peer.py": ["pywhispercpp"],
            "openvino_peer.py": ["openvino-genai", "openvino"], "onnx_asr_peer.py": ["onnx-asr", "onnxruntime"]}


@dataclass(frozen=True)
class Sound:
    """A clip as every system hears it. `key`: its samples, language and kind of pass, for the cache."""

    clip: corpora.Clip
    wav: Path
    seconds: float
    long: bool
    key: str


def main(argv: list[str] | None = None) -> int:
    """Read the corpus, ask every system, count, write the files."""
    args = arguments(argv)
    checkpoint = checkpoints.resolve(args.model)
    clips, left_out = corpora.read(args.corpus, args.limit)
    os.environ["HF_HUB_OFFLINE"] = "1"  # of the processes that are started: all they need is here by now
    clips, unknown = corpora.supported(clips, languages(checkpoint.folder))
    sounds = prepare_sounds(clips, checkpoint.folder)
    scorer = scoring.Scorer(checkpoint.folder)
    chosen = [system for system in SYSTEMS if re.search(args.systems, system.name)]
    if not chosen:
        raise LabError(f"no system matches '{args.systems}'", f"choose from {', '.join(peer.name for peer in SYSTEMS)}")
    measured = [measure(system, checkpoint, sounds, args) for system in chosen]
    document = {
        "schema": SCHEMA, "machine": machine.card(args.threads),
        "corpus": describe(args.corpus, sounds, scorer, left_out + unknown),
        "model": {"name": checkpoint.name, "revision": checkpoint.revision, "random_weights": checkpoint.random_weights,
                  "weights_sha256": prepare.weights_digest(checkpoint.folder)},
        "settings": {key: getattr(args, key) for key in ("systems", "limit", "threads", "repeats", "seed",
                                                              "note")},
        "normalizer": scorer.description, "bootstrap": {"draws": scoring.DRAWS, "level": scoring.LEVEL,
                                                        "stretch_words": scoring.STRETCH},
        **score(measured, sounds, scorer, args.seed)}
    write(document, Path(args.output_dir))
    return 0


def languages(folder: Path) -> set[str]:
    """The codes of the languages that the checkpoint knows; none for an English-only one."""
    from whisper_lab.tokens import TokenRules

    return set(TokenRules.from_folder(folder).languages)


def prepare_sounds(clips: list[corpora.Clip], folder: Path) -> list[Sound]:
    """The clips as WAV, short ones first, joined ones last. Longer than the checkpoint's window: long."""
    from whisper_lab.features import FeatureSpec

    window, sounds = FeatureSpec.from_folder(folder).window_s, []
    for clip in console.progress(clips, description="reading", unit="clip"):
        sounds.append(as_sound(clip, window))
    sounds.sort(key=lambda sound: sound.long)
    return sounds + [as_sound(clip, window) for clip in joined(sounds, WINDOWS * window)]


def as_sound(clip: corpora.Clip, window: float) -> Sound:
    """A clip as WAV; window: s."""
    wav, seconds = corpora.as_wav(clip, prepare.WORK / "sounds")
    with wav.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    long = seconds > window
    return Sound(clip, wav, seconds, long, f"{digest} {clip.language}{' long' if long else ''}")


def joined(sounds: list[Sound], least: float) -> list[corpora.Clip]:
    """For each language the short clips as one recording, where they last `least` s."""
    found = []
    for language in sorted({sound.clip.language for sound in sounds}):
        parts = [sound for sound in sounds if sound.clip.language == language and not sound.long]
        if sum(sound.seconds for sound in parts) >= least:
            path = speech.joined([sound.wav for sound in parts], prepare.WORK / "sounds")
            found.append(corpora.Clip(f"{JOINED} {language}", path, " ".join(sound.clip.text for sound in parts),
                                      language, JOINED))
    return found


def describe(corpus: str, sounds: list[Sound], scorer: scoring.Scorer, left_out: list[str]) -> dict:
    """What was measured on, the joined recordings left out: they are the same clips; a folder by its name alone."""
    sounds = [sound for sound in sounds if sound.clip.kind != JOINED]
    name = corpus if not Path(corpus).exists() else Path(corpus).resolve().name
    return {"name": name, "clips": len(sounds), "long": sum(sound.long for sound in sounds),
            "seconds": round(sum(sound.seconds for sound in sounds), 1),
            "languages": sorted({sound.clip.language for sound in sounds}), "left_out": left_out,
            "words": sum(scorer(sound.clip, "").words for sound in sounds)}


# Asking the systems -------------------------------------------------------------------------------------------------

def measure(system: Peer, checkpoint: checkpoints.Checkpoint, sounds: list[Sound], args) -> dict:
    """What a system wrote: name, versions, machines, threads, `rows` by key; or the `reason` why it did not."""
    found = {"name": system.name, "reason": "", "versions": {}, "machines": [], "threads": [], "rows": {}}
    try:
        graphs = graphs_of(system, checkpoint, args)
        cache = Path(args.cache) / f"{slug(system)}-{fingerprint(system, checkpoint, graphs, args)}.jsonl"
        if not args.resume:
            cache.unlink(missing_ok=True)
        kept = read_cache(cache)
        wanted = [sound for sound in sounds if sound.key not in kept["rows"]]
        if wanted:
            ask(system, checkpoint, graphs, wanted, cache, args)
            kept = read_cache(cache)
        return found | {"versions": kept["versions"], "machines": sorted(kept["machines"]),
                        "threads": sorted(kept["threads"]),
                        "rows": {sound.key: kept["rows"][sound.key] for sound in sounds}}
    except (Unavailable, LabError) as error:
        found["reason"] = getattr(error, "problem", str(error))
        console.warn(f"{system.name}: {found['reason']}")
        return found


def graphs_of(system: Peer, checkpoint: checkpoints.Checkpoint, args) -> Path | None:
    """The folder with this lab's graphs, None for a peer: --graphs, or made of the checkpoint in benchmarks/work."""
    if system.artefact != "graphs":
        return None
    folder = Path(args.graphs) if args.graphs else prepare.artefact("graphs", checkpoint.folder)
    for path in pair_of(system, checkpoint, folder).values():
        if not path.is_file():
            raise Unavailable(f"there is no {path.name} in {folder.name}")
    return folder


def pair_of(system: Peer, checkpoint: checkpoints.Checkpoint, folder: Path) -> dict[str, Path]:
    name = checkpoints.name_of(checkpoint.folder)
    if system.setting.get("provider") == "openvino":
        return openvino.pair(folder, name, system.setting["precision"])
    return names.pair(folder, name, system.setting["precision"], system.setting.get("optimized", False))


def fingerprint(system: Peer, checkpoint: checkpoints.Checkpoint, graphs: Path | None, args) -> str:
    """What a cached transcript depends on beside its sound. For this lab: its graphs and the code that runs them."""
    parts = [prepare.identity(system, checkpoint.folder), str(args.repeats)]
    if graphs:
        for path in pair_of(system, checkpoint, graphs).values():
            for part in filter(Path.is_file, (path, names.sidecar(path))):
                with part.open("rb") as file:
                    parts.append(hashlib.file_digest(file, "sha256").hexdigest())
        parts += [path.read_text(encoding="utf-8") for path in sorted((HERE.parent / "whisper_lab").glob("*.py"))]
    return prepare.short_digest("\n".join(parts))


def slug(system: Peer) -> str:
    """`this-lab-int8-optimized`, for a file's name; the checkpoint's name, which may change, is not part of it."""
    return re.sub(r"[^\w.]+", "-", system.name)


def ask(system: Peer, checkpoint: checkpoints.Checkpoint, graphs: Path | None, sounds: list[Sound], cache: Path,
        args) -> None:
    """Have the system transcribe, in a process of its own; each answer goes to the cache at once."""
    python = prepare.environment(system.environment)
    artefact = graphs or prepare.artefact(system.artefact, checkpoint.folder)
    listed, log = (cache.with_suffix(f".{os.getpid()}.{kind}") for kind in ("json", "log"))  # another run may go on
    files.write_json(listed, [{"id": sound.key, "wav": str(sound.wav), "language": sound.clip.language,
                               "long": sound.long, "seconds": sound.seconds} for sound in sounds])
    job = {"clips": str(listed.resolve()), "checkpoint": str(checkpoint.folder.resolve()),
           "artefact": str(artefact.resolve()), "setting": system.setting, "threads": args.threads,
           "repeats": args.repeats, "packages": PACKAGES[system.script]}
    command = [str(python), str(HERE / "peers" / system.script), json.dumps(job)]
    lengths = {sound.key: sound.seconds for sound in sounds}
    bar = console.progress(description=system.name, total=round(sum(lengths.values())), unit="s")
    # Appended line by line, not replaced as a whole: whatever interrupts the run, what was heard is kept.
    cache.parent.mkdir(parents=True, exist_ok=True)
    with bar, cache.open("a", encoding="utf-8") as kept:
        for line in answers(command, max(lengths.values()), args.threads, log):
            where = {"threads": args.threads} | ({"machine": machine_name()} if "versions" in line else {})
            kept.write(json.dumps(line | where, ensure_ascii=False) + "\n")
            kept.flush()
            bar.update(lengths.get(line.get("clip"), 0))
    listed.unlink()


def machine_name() -> str:
    """The processor and its cores: what a time depends on first."""
    card = machine.card()
    return f"{card['cpu'] or 'unknown processor'}, {card['cores']} cores"


def answers(command: list[str], longest: float, threads: int, log: Path) -> Iterator[dict]:
    """The lines of JSON that a peer prints. Raises Unavailable where it fails, or where nothing comes for too long."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    patience, hung = PATIENCE + PATIENCE_PER_S * longest, threading.Event()
    with log.open("w", encoding="utf-8") as errors, subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, encoding="utf-8", env=environment) as process:
        try:
            while line := next_line(process, patience, hung):
                if line.startswith("{"):  # libraries print, too
                    yield json.loads(line)
            process.wait()
        finally:
            process.kill()  # where the loop ended early, such as by Ctrl-C: nothing goes on behind our back
    if hung.is_set():
        raise Unavailable(f"no answer within {patience:.0f} s")
    if process.returncode:
        last = prepare.last_line(log.read_text(encoding="utf-8", errors="replace"))
        raise Unavailable(f"exit status {process.returncode}: {last}")
    log.unlink()


def next_line(process: subprocess.Popen, patience: float, hung: threading.Event) -> str:
    """A line, "" at the end. A process that says nothing for `patience` s is killed, and `hung` set."""
    def give_up() -> None:
        hung.set()
        process.kill()

    timer = threading.Timer(patience, give_up)
    timer.start()
    try:
        return process.stdout.readline()
    finally:
        timer.cancel()


def read_cache(path: Path) -> dict:
    """{"versions", "machines", "threads", "rows": by key}; a line that an interruption cut off is not there."""
    found = {"versions": {}, "machines": set(), "threads": set(), "rows": {}}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        found["threads"].add(row.pop("threads"))
        if "versions" in row:
            found["versions"] = row["versions"]
            found["machines"] |= {row["machine"]} if "machine" in row else set()
        else:
            found["rows"][row["clip"]] = row
    return found


# Counting -----------------------------------------------------------------------------------------------------------

def groups_of(sounds: list[Sound]) -> dict[str, dict[str, list[int]]]:
    """{"pools": {name: indices}, "groups": {name: indices}}: what is pooled, short clips and long ones apart."""
    short = [i for i, sound in enumerate(sounds) if not sound.long]
    english = [i for i in short if sounds[i].clip.language == "en"]
    pools = {"short": short}
    if 0 < len(english) < len(short):
        pools |= {"short, English": english, "short, other languages": [i for i in short if i not in set(english)]}
    pools["long"] = [i for i, sound in enumerate(sounds) if sound.long and sound.clip.kind != JOINED]
    pools[accuracy_report.JOINED] = [i for i, sound in enumerate(sounds) if sound.clip.kind == JOINED]
    groups: dict[str, list[int]] = {}
    for i in short:
        clip = sounds[i].clip
        for kind, value in (("language", clip.language), ("kind", clip.kind), ("folder", clip.folder)):
            if value:
                groups.setdefault(f"{kind}: {value}", []).append(i)
    for i in pools["long"] + pools[accuracy_report.JOINED]:
        groups[f"long: {sounds[i].clip.id}"] = [i]
    order = sorted(groups, key=lambda name: (["language", "kind", "folder", "long"].index(name.split(":")[0]), name))
    return {"pools": {name: found for name, found in pools.items() if found},
            "groups": {name: groups[name] for name in order}}


def score(measured: list[dict], sounds: list[Sound], scorer: scoring.Scorer, seed: int) -> dict:
    """The part of the document that has results: systems, their pools and groups, and the verdicts."""
    counted = {found["name"]: [scorer(sound.clip, found["rows"][sound.key]["text"]) for sound in sounds]
               for found in measured if not found["reason"]}
    reference = REFERENCE if REFERENCE in counted else next(iter(counted), None)
    parts, systems = groups_of(sounds), []
    for found in measured:
        system = {key: found[key] for key in ("name", "reason", "versions", "machines", "threads")}
        for part, members in parts.items():
            system[part] = {name: result(found, counted, reference, sounds, indices, seed)
                            for name, indices in members.items()} if not found["reason"] else {}
        system["unsteady"] = sum(not row["steady"] for row in found["rows"].values())
        systems.append(system)
    return {"reference": reference, "systems": systems,
            "verdicts": [line for system in systems if (line := accuracy_report.verdict(system, systems, reference))]}


def result(found: dict, counted: dict, reference: str, sounds: list[Sound], indices: list[int], seed: int) -> dict:
    """One system on one group of clips. `difference` to the reference: in points, None for itself."""
    mine = [counted[found["name"]][i] for i in indices]
    rows = [found["rows"][sounds[i].key] for i in indices]
    total = {key: sum(getattr(count, key) for count in mine) for key in
             ("words", "substitutions", "insertions", "deletions", "loops")}
    seconds = sum(sounds[i].seconds for i in indices)
    return {"clips": len(indices), **total, "wer": scoring.wer(mine), "seconds": round(seconds, 2),
            "real_time_factor": sum(row["seconds"] for row in rows) / seconds,
            "cpu_s_per_s": sum(row["cpu_s"] for row in rows) / seconds,
            "difference": None if found["name"] == reference else
            scoring.difference(mine, [counted[reference][i] for i in indices], seed=seed)}


def write(document: dict, folder: Path) -> None:
    """The files, and the result on stdout."""
    files.write_json(folder / "accuracy.json", document)
    files.write_text(folder / "ACCURACY.md", accuracy_report.markdown(document))
    pictured = accuracy_report.picture(document, folder / "accuracy.png")
    console.table(f"WER % on {document['corpus']['name']}", *accuracy_report.summary(document))
    for line in document["verdicts"]:
        console.result(line)
    console.result(f"{folder}/accuracy.json, ACCURACY.md" + (", accuracy.png" if pictured else ""))


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = flags.parser(__doc__, "model", "threads", "seed", "output_dir", "quiet", "log_level")
    parser.add_argument("--corpus", required=True, metavar="FOLDER|NAME",
                        help="a folder with references.json, or a name such as librispeech:test-other or fleurs:nl_nl")
    parser.add_argument("--systems", default="", metavar="REGEX", help="systems to measure (default: all)")
    parser.add_argument("--limit", type=flags.whole(1), metavar="N", help="only the first N clips (default: all)")
    parser.add_argument("--graphs", metavar="DIR", help="graphs that 03 wrote (default: made in benchmarks/work)")
    parser.add_argument("--repeats", type=flags.whole(1), default=1, metavar="N",
                        help="timed transcripts of each clip; the median counts (default: %(default)s)")
    parser.add_argument("--cache", default=str(prepare.WORK / "accuracy"), metavar="DIR",
                        help="where transcripts are kept (default: benchmarks/work/accuracy)")
    parser.add_argument("--resume", action="store_true", help="use what is in --cache instead of measuring it again")
    parser.add_argument("--note", help="what a reader of the times has to know, such as other work on the machine")
    args = flags.parse(parser, argv)
    args.threads = args.threads or machine.usable_cores()
    return args


if __name__ == "__main__":
    console.run(main)
