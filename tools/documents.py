"""Tables in documents come from files that scripts wrote, never from a keyboard.

    python -m tools.documents            # write every generated block again
    python -m tools.documents --check    # exit 1 where a document has drifted from its source

A generated block is what lies between `<!-- begin NAME -->` and `<!-- end NAME -->`; SOURCES says what fills it.
"""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from whisper_lab import console, files, flags, machine  # noqa: E402
from whisper_lab.console import LabError  # noqa: E402

DOCUMENTS = ("README.md", "docs/lab.md", "docs/next-labs.md", "docs/reference.md", "docs/benchmarks.md",
             "docs/profiling.md", "docs/devices.md", "docs/runtimes.md", "workbook/architecture/README.md",
             "workbook/instructors.md")


def nano_table() -> str:
    """Word error rate of whisper-nano per condition, from the evaluation that ships beside its weights."""
    from training.evaluate import table

    path = ROOT / "whisper_model_dir" / "whisper-nano" / "evaluation.json"
    return table(json.loads(path.read_text(encoding="utf-8")))


def base_sizes() -> str:
    """Size of each graph of whisper-base, from the benchmark."""
    sizes = _measured("results")["graph_bytes"]
    lines = ["| | encoder MB | of float32 | decoder MB | of float32 |", "|---|---|---|---|---|"]
    for precision in ("", "_fp16", "_int8", "_int4", "_int8_optimized"):
        cells = [f"{sizes[part + precision] / 1e6:.1f} | {sizes[part + precision] / sizes[part]:.2f}"
                 for part in ("encoder", "decoder")]
        lines.append(f"| {precision.strip('_').replace('_', ', ') or 'fp32'} | {' | '.join(cells)} |")
    return "\n".join(lines)


def all_sizes() -> str:
    """Size on disk and peak memory of every published architecture, from benchmarks/sizes.py."""
    from benchmarks import sizes

    return sizes.table(_measured("sizes"))


def base_speed() -> str:
    """This lab beside its peers, from the benchmark; RESULTS.md has goals, floors and notes too."""
    from benchmarks import report

    document = _measured("results")
    found = {row["name"]: report.summary(row) for row in document["peers"]}
    lines = report.table([row for row in document["peers"] if found[row["name"]]], found)
    rounds = console.count(document["settings"]["rounds"], "round")
    card = f"Measured on {machine.one_line(document['machine'])}; {rounds}, medians."
    return "\n".join([*lines[:lines.index("")], "", card])


def base_speech() -> str:
    """Seconds and word errors on speech as people use it, from the benchmark; the picture where it was drawn."""
    from benchmarks import speech_report

    document = _measured("results")
    if not (lines := speech_report.table(document)):
        return "Not measured in this copy: `make benchmark CORPUS=FOLDER` does it, on an idle machine."
    picture = ["![Seconds against word errors, a point for each runtime](../benchmarks/results.png)", ""]
    return "\n".join([*picture, *lines, "", speech_report.described(document)])


def streaming_table() -> str:
    """How late live text is, from 09 --json."""
    from tools.streaming_table import table

    return table(_measured("streaming"))


def miniature_table() -> str:
    """Word error rate of script 07's miniature beside whisper-nano's, from the evaluation that ships with it."""
    from training.evaluate_miniature import table

    path = ROOT / "speech_llm_model_dir" / "nano-asr" / "evaluation.json"
    if not path.exists():
        return "The miniature is not part of this copy; `training/README.md` makes it."
    return table(json.loads(path.read_text(encoding="utf-8")))


def archive_table() -> str:
    """How fast an archive of short files is transcribed, from benchmarks/archive.py."""
    from benchmarks import archive

    return archive.table(_measured("archive"))


def doubt_table() -> str:
    """How well confidence.py tells right text from invented text, from benchmarks/doubt.py."""
    lines = ["| | texts right / invented | doubtful below | right, warned of, % | invented, warned of, % | AUC |",
             "|---|---|---|---|---|---|"]
    for name, found in _measured("doubt")["models"].items():
        cells = [_share(found["rates"]["both"][kind]) for kind in ("false_alarms", "caught")]
        auc = found["statistics"]["-text_logprob"]["auc"]
        lines.append(f"| {name} | {found['right']} / {found['invented']} | {found['limit']:.2f} | {cells[0]} | "
                     f"{cells[1]} | {auc:.2f} |")
        if auto := found.get("beams_auto"):
            cells = [_share(auto[kind]) for kind in ("false_alarms", "caught")]
            lines.append(f"| {name}, `--beams auto` | {auto['right']} / {auto['invented']} | {found['limit']:.2f} | "
                         f"{cells[0]} | {cells[1]} | |")
    return "\n".join(lines)


def _share(rate: dict) -> str:
    """`5 (2 to 8)`, %"""
    return "{:.0f} ({:.0f} to {:.0f})".format(*(100 * part for part in (rate["share"], *rate["interval_95"])))


def accuracy_table() -> str:
    """Word errors of this lab and its peers on real speech, from benchmarks/accuracy.py --output-dir benchmarks."""
    from benchmarks import accuracy_report

    return _if_measured("accuracy", accuracy_report.table)


def prompts_table() -> str:
    """The same on other speech, from benchmarks/prompts.py and accuracy.py --output-dir benchmarks/prompts."""
    from benchmarks import accuracy_report

    return accuracy_report.table(_measured("prompts/accuracy"))


def precisions_table() -> str:
    """Size, speed and words of each precision, from the two benchmarks that the README sums up."""
    from benchmarks import accuracy_report

    sizes = _measured("results")["graph_bytes"]
    return _if_measured("accuracy", lambda document: accuracy_report.precisions_table(document, sizes))


def speakers_table() -> str:
    """Diarization errors of script 10, from benchmarks/speakers.py."""
    from benchmarks import speakers

    document = _measured("speakers")
    return f"{speakers.table(document)}\n\n{speakers.costs(document)}"


def voice_activity_table() -> str:
    """Silero beside 09's own detector, from benchmarks/speakers.py."""
    from benchmarks import speakers

    return speakers.voice_table(_measured("speakers"))


def throughput_table() -> str:
    """Speed and memory of long recordings, from benchmarks/throughput.py."""
    from benchmarks import throughput

    picture = "![Speed and memory against length and windows at once](../benchmarks/throughput.png)"
    return _if_measured("throughput", lambda document: f"{throughput.table(document)}\n\n{picture}")


def short_windows_table() -> str:
    """Words and seconds of shorter windows, from benchmarks/short_windows.py."""
    from benchmarks import short_windows

    return _if_measured("short-windows", short_windows.table)


def beams_table() -> str:
    """Which texts are searched again with five beams, from benchmarks/beams.py."""
    from benchmarks import beams

    return _if_measured("beams", beams.table)


def likelihood_table() -> str:
    """How likely each precision finds the right text, from benchmarks/likelihood.py."""
    from benchmarks import likelihood

    return _if_measured("likelihood", likelihood.table)


def time_spent_table() -> str:
    """The stages of a cold start and the operators of each run, from benchmarks/time_spent.py."""
    from benchmarks import time_spent

    return _if_measured("time-spent", time_spent.table)


def gpu_table() -> str:
    """Seconds, bytes and joules of every published size on a GPU, from benchmarks/gpu.py."""
    from benchmarks import gpu

    return _if_measured("gpu", gpu.table)


def runtimes_table() -> str:
    """The layouts in other runtimes, from benchmarks/runtimes.py."""
    from benchmarks import runtimes

    return _if_measured("runtimes", runtimes.table)


def device_sizes() -> str:
    """Size and memory of the archives for small devices, from benchmarks/devices.py."""
    from benchmarks import devices

    return devices.sizes_table(json.loads(devices.KEPT.read_text(encoding="utf-8")))


def device_proofs() -> str:
    """Where those archives were run, from benchmarks/devices.py."""
    from benchmarks import devices

    return devices.proofs_table(json.loads(devices.KEPT.read_text(encoding="utf-8")))


def operations_table() -> str:
    """What a window and a token take, from benchmarks/operations.py."""
    from benchmarks import operations

    return operations.table(_measured("operations"))


def device_bounds() -> str:
    """The same as the least seconds on some devices."""
    from benchmarks import operations

    return operations.bounds_table(_measured("operations"))


def class_memory() -> str:
    """What a student and a class take with whisper-nano, as workbook.generate writes it from the evidence."""
    from workbook import markdown
    from workbook.values import Results

    return markdown.memory(Results())


def classroom_table() -> str:
    """Twenty students at once, measured, and the server that they need, from benchmarks/classroom.py."""
    from benchmarks import classroom_report

    return _if_measured("classroom", classroom_report.document)


def _if_measured(name: str, table: Callable[[dict], str]) -> str:
    """The table of benchmarks/NAME.json, or how to make one where there is none."""
    if not (ROOT / "benchmarks" / f"{name}.json").exists():
        script = name.replace("-", "_")
        return f"Not measured in this copy: `python benchmarks/{script}.py --help` says how."
    return table(_measured(name))


def _measured(name: str) -> dict:
    """benchmarks/NAME.json"""
    return json.loads((ROOT / "benchmarks" / f"{name}.json").read_text(encoding="utf-8"))


SOURCES: dict[str, Callable[[], str]] = {
    "whisper-nano": nano_table, "base-sizes": base_sizes, "base-speed": base_speed,
    "base-speech": base_speech, "all-sizes": all_sizes,
    "streaming": streaming_table, "nano-asr": miniature_table, "doubt": doubt_table, "accuracy": accuracy_table,
    "prompts": prompts_table, "precisions": precisions_table,
    "speakers": speakers_table, "voice-activity": voice_activity_table, "archive": archive_table,
    "throughput": throughput_table, "short-windows": short_windows_table, "beams": beams_table,
    "likelihood": likelihood_table,
    "device-sizes": device_sizes, "device-proofs": device_proofs,
    "operations": operations_table, "device-bounds": device_bounds,
    "memory": class_memory, "classroom": classroom_table,
    "runtimes": runtimes_table, "time-spent": time_spent_table, "gpu": gpu_table,
}

_BLOCK = re.compile(r"(<!-- begin (?P<name>[\w-]+) -->\n).*?(<!-- end (?P=name) -->)", re.S)


def refreshed(text: str) -> str:
    """`text` with every generated block filled again. Raises LabError for a block that nothing fills."""
    def fill(match: re.Match) -> str:
        if match["name"] not in SOURCES:
            raise LabError(f"nothing fills the block '{match['name']}'", f"use one of {', '.join(SOURCES)}")
        return f"{match[1]}{SOURCES[match['name']]().strip()}\n{match[3]}"
    return _BLOCK.sub(fill, text)


def main(argv: list[str] | None = None) -> int:
    parser = flags.parser(__doc__, "quiet", "log_level")
    parser.add_argument("--check", action="store_true", help="change nothing, only compare")
    args = flags.parse(parser, argv)
    for name in DOCUMENTS:
        path = ROOT / name
        old = path.read_text(encoding="utf-8")
        new = refreshed(old)
        if args.check and new != old:
            raise LabError(f"{name} no longer says what its sources say", "python -m tools.documents")
        if new != old:
            files.write_text(path, new)
            console.note("rewritten", name, "its sources have changed")
    return 0


if __name__ == "__main__":
    console.run(main)
