"""From measurements to one JSON document, and from that to what is shown: table, Markdown, page, pictures."""

from pathlib import Path

from whisper_lab import audio, console, files, machine
from whisper_lab.compare import texts, timing, verdict
from whisper_lab.compare.variants import BASELINE, PYTORCH

SCHEMA = "whisper-onnx-lab/compare/1"
FILES_SCHEMA = "whisper-onnx-lab/compare-graphs/1"


def sound_files(paths: list[str]) -> list[Path]:
    """The sound files that the command line names; those of a manifest stand beside it."""
    found = []
    for path in map(Path, paths):
        manifest = path.suffix.lower() == ".json"
        found += texts.manifest(path) if manifest else audio.find([str(path)])
    return found


def document(args, checkpoint, spec, missing, clips, graphs, measured, layers, scores, speed, memory) -> dict:
    """The whole comparison, ready for JSON."""
    entries = {}
    for name, score in scores.items():
        entry: dict = {"text": score, "speed": speed.get(name), "memory": memory.get(name)}
        if name in graphs:
            entry |= _graphs(graphs, name) | {"numbers": measured[name], "layers": layers.get(name, [])}
            kind = "reference" if score["reference"] else "pytorch"
            entry["text_difference"] = texts.difference(scores[BASELINE][kind], score[kind])
            entry["verdict"] = verdict.sentence(name, entry, checkpoint.random_weights) if name != BASELINE else None
        entries[name] = entry
    made = {"schema": SCHEMA, "machine": machine.card(args.threads),
            "model": {"name": checkpoint.name, "revision": checkpoint.revision,
                      "random_weights": checkpoint.random_weights},
            "settings": {"provider": "CPUExecutionProvider", "threads": args.threads or machine.usable_cores(),
                         "graph_optimization": "all", "repeats": args.repeats, "warm_up_rounds": 1,
                         "tokens_per_window": timing.TOKENS, "window_s": spec.window_s,
                         "language": args.language},
            "clips": [{"file": clip.name, "duration_s": round(clip.duration, 3), "reference": clip.reference,
                       "language": clip.language} for clip in clips],
            "missing": [{"name": variant.name, "command": variant.command} for variant in missing],
            "variants": entries, "warnings": _warnings(checkpoint, scores[BASELINE], clips, args.repeats)}
    made["dominated"] = verdict.dominated(verdict.points(made))
    return made


def _graphs(graphs: dict, name: str) -> dict:
    size, base = (sum(facts["size_bytes"] for facts in graphs[which].values()) for which in (name, BASELINE))
    return {"graphs": graphs[name], "size_bytes": size, "size_ratio": round(size / base, 4)}


def _warnings(checkpoint, score: dict, clips: list, repeats: int) -> list[str]:
    found = []
    if checkpoint.random_weights:
        found.append("the checkpoint was never trained: sizes and speeds are real, its transcripts mean nothing")
    few = texts.few_words((score["reference"] or score["pytorch"])["reference_words"])
    if few:
        found.append(few)
    unknown = [clip.name for clip in clips if clip.reference is None]
    if unknown:
        found.append(f"no reference text for {', '.join(unknown)}: WER against PyTorch only tells that a text changed, "
                     "not that it got worse")
    if 0 < repeats < 6:
        found.append(f"{console.count(repeats, 'round')} cannot show a difference in speed: even all on one side is "
                     "chance at 5 %; take 6 or more")
    return found


def files_document(args, base: dict, test: dict) -> dict:
    """Two files given by hand."""
    return {"schema": FILES_SCHEMA, "machine": machine.card(), "model": None, "graphs": {"a": base, "b": test},
            "name": f"{Path(args.graphs[0]).stem}-{Path(args.graphs[1]).stem}"}


def publish(made: dict, args) -> None:
    """Tables on stdout, and the files in --output-dir."""
    from whisper_lab import report
    from whisper_lab.compare import figures, sections

    for warning in made.get("warnings", []):
        console.warn(warning)
    name = made["model"]["name"] if made["model"] else made["name"]
    stem = Path(args.output_dir) / f"compare-{name}"
    whole = made["schema"] == SCHEMA
    parts = sections.of_comparison(made) if whole else sections.of_files(made)
    tables = [table for section in parts for table in section.tables if not table.collapsed]
    for table in [table for table in tables if table.summary or args.details]:
        console.table(table.title, table.columns, table.rows)
    if whole:
        for entry in made["variants"].values():
            if entry.get("verdict"):
                console.result(entry["verdict"])
    pictures = figures.draw(made, stem) if whole else figures.draw_files(made, stem)
    files.write_json(f"{stem}.json", made)
    if args.output_json:
        files.write_json(args.output_json, made)
    title = f"{name}: what quantization did"
    under = machine.one_line(made["machine"])
    files.write_text(f"{stem}.md", report.markdown(title, under, parts, pictures))
    page = files.write_text(f"{stem}.html", report.html(title, under, parts, pictures))
    more = "" if args.details else "; --details shows all tables here"
    console.note("report", page, f"beside it .json, .md and {len(pictures)} pictures{more}")


def metrics(made: dict) -> dict[str, dict[str, float | None]]:
    """precision -> metric (gate.METRICS) -> value; None where it was not measured."""
    base = made["variants"][BASELINE]

    def rate(entry: dict, against: str, what: str) -> float | None:
        return entry["text"][against][what] if entry["text"][against] else None

    def less(a: float | None, b: float | None) -> float | None:
        return None if a is None or b is None else a - b

    found = {}
    for name, entry in made["variants"].items():
        if name in (PYTORCH, BASELINE):
            continue
        numbers, speed = entry["numbers"], entry["speed"] or {}
        noise = [row["sqnr_db"] for row in entry["layers"] if row["sqnr_db"] is not None]
        peaks = [(one["memory"] or {}).get("peak_rss_bytes") for one in (entry, base)]
        wer, cer = rate(entry, "reference", "wer"), rate(entry, "reference", "cer")
        broken = numbers["nonfinite"] + sum(row["nonfinite"] for row in entry["layers"])
        found[name] = {
            "wer": wer, "wer_delta": less(wer, rate(base, "reference", "wer")),
            "wer_pytorch": rate(entry, "pytorch", "wer"), "cer": cer,
            "cer_delta": less(cer, rate(base, "reference", "cer")), "size_ratio": entry["size_ratio"],
            "speedup": speed.get("speedup"), "real_time_factor": speed.get("real_time_factor"),
            "encoder_sqnr_db": numbers["encoder_sqnr_db"], "encoder_cosine": numbers["encoder_cosine"],
            "worst_layer_sqnr_db": min(noise, default=None), "top1_agreement": numbers["top1_agreement"],
            "nonfinite": broken, "peak_rss_ratio": peaks[0] / peaks[1] if all(peaks) else None}
    return found


def judge(made: dict, gate) -> int:
    """--fail-if: 1 where it holds, and says for which precision."""
    failures = gate.failures(metrics(made))
    for failure in failures:
        console.result(console.plain(f"FAILED {gate.text}: {failure}", one_line=True))
    if not failures:
        console.result(f"passed: nowhere {gate.text}")
    return 1 if failures else 0
