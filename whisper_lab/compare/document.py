"""From measurements to one JSON document, and from that to what is shown: table, Markdown, page, pictures."""

from dataclasses import dataclass
from pathlib import Path

from whisper_lab import console, files, machine, report
from whisper_lab.compare import texts, timing, verdict
from whisper_lab.compare.variants import BASELINE

SCHEMA = "whisper-onnx-lab/compare/1"
FILES_SCHEMA = "whisper-onnx-lab/compare-graphs/1"


@dataclass(frozen=True)
class Findings:
    """What 04 has found out; a dict is by the name of the variant."""

    checkpoint: object
    window_s: float
    threads: int | None
    repeats: int
    language: str | None  # as asked for; None: detected
    clips: list  # texts.Clip
    missing: list  # variants.Variant that are not in the folder
    graphs: dict[str, dict]  # facts of encoder and decoder
    numbers: dict[str, dict]
    layers: dict[str, list]
    scores: dict[str, dict]  # texts.score
    speed: dict[str, dict]  # timing.of_pairs
    memory: dict[str, dict]  # memory.measure


def make(found: Findings) -> dict:
    """The whole comparison, ready for JSON."""
    checkpoint = found.checkpoint
    document = {
        "schema": SCHEMA, "machine": machine.card(found.threads),
        "model": {"name": checkpoint.name, "revision": checkpoint.revision,
                  "random_weights": checkpoint.random_weights},
        "settings": _settings(found),
        "clips": [{"file": clip.name, "duration_s": round(clip.duration, 3), "reference": clip.reference,
                   "language": clip.language} for clip in found.clips],
        "missing": [{"name": variant.name, "command": variant.command} for variant in found.missing],
        "variants": {name: _entry(name, found) for name in found.scores}, "warnings": _warnings(found)}
    document["dominated"] = verdict.dominated(verdict.points(document))
    return document


def _settings(found: Findings) -> dict:
    return {"provider": "CPUExecutionProvider", "threads": found.threads or machine.usable_cores(),
            "graph_optimization": "all", "repeats": found.repeats, "warm_up_rounds": 1,
            "tokens_per_window": timing.TOKENS, "window_s": found.window_s, "language": found.language}


def _entry(name: str, found: Findings) -> dict:
    """What there is to say of one variant; PyTorch has no graphs."""
    score = found.scores[name]
    entry: dict = {"text": score, "speed": found.speed.get(name), "memory": found.memory.get(name)}
    if name in found.graphs:
        entry |= _graphs(found.graphs, name) | {"numbers": found.numbers[name], "layers": found.layers.get(name, [])}
        kind = "reference" if score["reference"] else "pytorch"
        entry["text_difference"] = texts.difference(found.scores[BASELINE][kind], score[kind])
        entry["verdict"] = (verdict.sentence(name, entry, found.checkpoint.random_weights) if name != BASELINE
                            else None)
    return entry


def _graphs(graphs: dict, name: str) -> dict:
    size, base = (sum(facts["size_bytes"] for facts in graphs[which].values()) for which in (name, BASELINE))
    return {"graphs": graphs[name], "size_bytes": size, "size_ratio": round(size / base, 4)}


def _warnings(found: Findings) -> list[str]:
    score, warnings = found.scores[BASELINE], []
    if found.checkpoint.random_weights:
        warnings.append("the checkpoint was never trained: sizes and speeds are real, its transcripts mean nothing")
    few = texts.few_words((score["reference"] or score["pytorch"])["reference_words"])
    if few:
        warnings.append(few)
    unknown = [clip.name for clip in found.clips if clip.reference is None]
    if unknown:
        warnings.append(f"no reference text for {', '.join(unknown)}: WER against PyTorch only tells that a text "
                        "changed, not that it got worse")
    if 0 < found.repeats < 6:
        warnings.append(f"{console.count(found.repeats, 'round')} cannot show a difference in speed: even all on one "
                        "side is chance at 5 %; take 6 or more")
    return warnings


def of_files(first: dict, second: dict) -> dict:
    """The document about two files given by hand; facts of each."""
    return {"schema": FILES_SCHEMA, "machine": machine.card(), "model": None, "graphs": {"a": first, "b": second},
            "name": f"{Path(first['file']).stem}-{Path(second['file']).stem}"}


def publish(made: dict, folder: str | Path, output_json: str | None = None, details: bool = False) -> None:
    """Warnings, tables and verdicts on the terminal, and the files in `folder`; details: all tables, not the few."""
    from whisper_lab.compare import figures, sections

    name, whole = made["model"]["name"] if made["model"] else made["name"], made["schema"] == SCHEMA
    stem = Path(folder) / f"compare-{name}"
    parts = sections.of_comparison(made) if whole else sections.of_files(made)
    _show(made, parts, details)
    pictures = figures.draw(made, stem) if whole else figures.draw_files(made, stem)
    for path in filter(None, (f"{stem}.json", output_json)):
        files.write_json(path, made)
    title, under = f"{name}: what quantization did", machine.one_line(made["machine"])
    files.write_text(f"{stem}.md", report.markdown(title, under, parts, pictures))
    page = files.write_text(f"{stem}.html", report.html(title, under, parts, pictures))
    more = "" if details else "; --details shows all tables here"
    console.note("report", page, f"beside it .json, .md and {len(pictures)} pictures{more}")


def _show(made: dict, parts: list, details: bool) -> None:
    for warning in made.get("warnings", []):
        console.warn(warning)
    for table in [table for section in parts for table in section.tables if not table.collapsed]:
        if table.summary or details:
            console.table(table.title, table.columns, table.rows)
    for entry in made.get("variants", {}).values():
        if entry.get("verdict"):
            console.sentence(entry["verdict"])
