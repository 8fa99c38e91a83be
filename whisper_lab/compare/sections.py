"""The comparison as sections of blocks, from which the terminal, Markdown and the page are made alike."""

from whisper_lab import console
from whisper_lab.compare.variants import BASELINE, SPEED
from whisper_lab.report import Aligned, Section, Table

UNKNOWN = "-"
SIZE = f"size, {BASELINE} = 1"  # a heading


def of_comparison(made: dict) -> list[Section]:
    """All that was compared; the verdict first, because that is what a reader came for."""
    graphs = {name: entry["graphs"] for name, entry in made["variants"].items() if "graphs" in entry}
    flat = {f"{name} {part}": facts for name, parts in graphs.items() for part, facts in parts.items()}
    return [_verdict(made), _sizes(made, flat), _text(made), _speed(made), _numbers(made), *_operators(graphs),
            _weights(flat), _identity(flat)]


def of_files(made: dict) -> list[Section]:
    """The graphs of two files: sizes, operators, weights."""
    graphs = made["graphs"]
    flat = {f"{key}: {facts['file']}": facts for key, facts in graphs.items()}
    size = Table("Size", ["graph", "MB", "size, a = 1", "weights by type"], [_size_row(*item) for item in flat.items()],
                 summary=True)
    operators = _operator_section("Graph", "operators", graphs, "a")
    return [Section("Size", SIZE_INTRO, figure="sizes", tables=[size, *_largest(flat)]), operators, _weights(flat),
            _identity(flat)]


def _verdict(made: dict) -> Section:
    notes = [entry["verdict"] for entry in made["variants"].values() if entry.get("verdict")]
    notes += [f"{name} is beaten by {better}: better in something, and in text, speed and size worse in nothing beyond "
              "noise." for name, better in made["dominated"].items()]
    notes += [f"Note: {warning}." for warning in made["warnings"]]
    notes += [f"Not there: {one['name']}; {one['command']}" for one in made["missing"]]
    return Section("Verdict", "What each precision gains and costs against fp32.", notes, "pareto",
                   [Table("In short", ["precision", "MB", SIZE, "WER", SPEED, "peak MB"],
                          [_in_short(name, entry) for name, entry in made["variants"].items()], summary=True)])


def _in_short(name: str, entry: dict) -> list:
    text, speed, memory = entry["text"]["reference"] or entry["text"]["pytorch"], entry["speed"], entry["memory"]
    return [name, _mb(entry["size_bytes"]) if "size_bytes" in entry else UNKNOWN,
            f"{entry['size_ratio']:.3f}" if "size_ratio" in entry else UNKNOWN, _percent(text["wer"]),
            f"{speed['speedup']:.2f}" if speed else UNKNOWN,
            f"{memory['peak_rss_bytes'] / 1e6:.0f}" if memory else UNKNOWN]


def _identity(flat: dict[str, dict]) -> Section:
    rows = [[name, facts["sha256"][:16], facts["precision"] or UNKNOWN, facts["verification"] or UNKNOWN,
             ", ".join(f"{domain} {version}" for domain, version in facts["opsets"].items()), facts["ir_version"]]
            for name, facts in flat.items()]
    versions = [[name, value] for name, value in next(iter(flat.values()))["versions"].items()]
    return Section("Identity", "Which files were compared: same SHA-256 (here its beginning), same bytes.", tables=[
        Table("Identity", ["graph", "SHA-256", "precision", "gates", "opset", "IR version"], rows),
        Table("Written with", ["package", "version"], versions, collapsed=True)])


SIZE_INTRO = "Bytes on disk, weights kept outside the graph included, and of which type the weights are."


def _sizes(made: dict, flat: dict[str, dict]) -> Section:
    total = [[name, _mb(entry["size_bytes"]), f"{entry['size_ratio']:.3f}"]
             for name, entry in made["variants"].items() if "graphs" in entry]
    parts = Table("Size of each graph", ["graph", "MB", SIZE, "weights by type"],
                  [_size_row(*item) for item in flat.items()])
    return Section("Size", SIZE_INTRO, figure="sizes", tables=[
        Table("Size of both graphs", ["precision", "MB", SIZE], total), parts, *_largest(flat)])


def _size_row(name: str, facts: dict) -> list:
    types = ", ".join(f"{kind} {_mb(size)}" for kind, size in facts["weight_bytes"].items() if size >= 5e3)
    return [name, _mb(facts["size_bytes"]), f"{facts['size_ratio']:.3f}", types]


def _largest(flat: dict[str, dict]) -> list[Table]:
    return [Table(f"Ten largest tensors of {name}", ["tensor", "type", "shape", "MB"],
                  [[one["name"], one["type"], " x ".join(map(str, one["shape"])), _mb(one["size_bytes"])]
                   for one in facts["largest_tensors"]], collapsed=True) for name, facts in flat.items()]


def _operators(graphs: dict) -> list[Section]:
    return [_operator_section(f"Graph of the {part}", f"operators_{part}",
                              {name: parts[part] for name, parts in graphs.items()}, BASELINE)
            for part in ("encoder", "decoder")]


def _operator_section(title: str, figure: str, graphs: dict[str, dict], base: str) -> Section:
    """graphs: name -> facts; one column each, the change against `base` in brackets."""
    names = sorted({name for facts in graphs.values() for name in facts["operators"]},
                   key=lambda name: -max(facts["operators"].get(name, 0) for facts in graphs.values()))
    rows = [[operator, *(_with_change(facts, operator) for facts in graphs.values())] for operator in names]
    rows.append(["all nodes", *(facts["nodes"] for facts in graphs.values())])
    notes = [f"{name}: {_listed('new', facts['operators_added'])}; {_listed('gone', facts['operators_removed'])}."
             for name, facts in graphs.items() if name != base]
    return Section(title, f"How many nodes of each operator, and the change against {base}.", notes, figure,
                   [Table(title, ["operator", *graphs], rows, summary=base == "a")])


def _listed(what: str, names: list[str]) -> str:
    return f"{what}: {', '.join(names)}" if names else f"{what}: nothing"


def _with_change(facts: dict, operator: str) -> str:
    change = facts["operator_change"].get(operator, 0)
    return f"{facts['operators'].get(operator, 0)}{f' ({change:+d})' if change else ''}"


def _weights(flat: dict[str, dict]) -> Section:
    states = ("quantized", "stored small", "half", "left")
    rows = []
    for name, facts in flat.items():
        groups = {state: [row for row in facts["weights"] if row["state"] == state] for state in states}
        rows.append([name, *(f"{len(group)} ({_mb(sum(row['size_bytes'] for row in group))} MB)" if group else UNKNOWN
                             for group in groups.values())])
    full = [Table(f"Every weight of {name}", ["layer", "state", "type", "MB", "used by", "why"],
                  [[row["name"], row["state"], row["type"], f"{row['size_bytes'] / 1e6:.3f}", row["used_by"],
                    row["reason"]] for row in facts["weights"]], collapsed=True) for name, facts in flat.items()]
    kept = {row["operator"]: row["reason"] for facts in flat.values() for row in facts["kept_operators"]}
    notes = [f"{name} stays in floating point: {reason}." for name, reason in kept.items()]
    return Section("Which weights were quantized", "Tensors of 1024 numbers or more: quantized (integers are "
                   "multiplied), stored small (scaled back before use), half (16 bits), or left as they were.",
                   notes, tables=[Table("Weights, by what was done to them", ["graph", *states], rows), *full])


def _numbers(made: dict) -> Section:
    from whisper_lab.compare.heard import MOST_CLIPS
    from whisper_lab.compare.layers import worst

    entries = {name: entry for name, entry in made["variants"].items() if "numbers" in entry}
    rows = [[name, f"{one['encoder_cosine']:.6f}", f"{one['encoder_max_error']:.2g}",
             f"{one['encoder_mean_error']:.2g}", _decibels(one["encoder_sqnr_db"]),
             f"{100 * one['top1_agreement']:.1f} %", _divergence(one["first_divergence"]), one["nonfinite"]]
            for name, entry in entries.items() for one in [entry["numbers"]]]
    low = [[name, row["part"], row["layer"], _decibels(row["sqnr_db"], row["nonfinite"])]
           for name, entry in entries.items() for row in worst(entry["layers"])]
    every = [[name, row["part"], row["layer"], _decibels(row["sqnr_db"], row["nonfinite"]), row.get("reason", "")]
             for name, entry in entries.items() for row in entry["layers"]]
    return Section("Numbers", "The encoder's output and the next tokens against PyTorch, over the first window of "
                   f"each clip (of {MOST_CLIPS} at most); per layer against fp32, over the first clip: the noise that "
                   "has built up until there. SQNR: the signal over that noise; at 20 dB the noise is a tenth of it. "
                   "Making inner values visible may keep onnxruntime from fusing operators, so they can differ a "
                   "little from those of the graph as it runs.", figure="layers", tables=[
        Table("Numbers against PyTorch", ["graphs", "cosine", "largest error", "mean error", "SQNR dB",
                                          "same next token", "first token that differs", "NaN or inf"], rows),
        Table("The five noisiest layers against fp32", ["precision", "part", "layer", "SQNR dB"], low),
        Table("Every layer", ["precision", "part", "layer", "SQNR dB", "remark"], every, collapsed=True)])


def _divergence(found: dict | None) -> str:
    if not found:
        return "none"
    return (f"no. {found['token'] + 1} of {found['clip']}: '{found['graph']}' for '{found['pytorch']}', "
            f"margin {found['margin_logits']:.2g}")


def _text(made: dict) -> Section:
    rows, aligned = [], []
    for name, entry in made["variants"].items():
        for kind in ("reference", "pytorch"):
            one = entry["text"][kind]
            if one and not (name == "pytorch" and kind == "pytorch"):
                rows.append([name, kind, _percent(one["wer"]), _percent(one["cer"]), one["substitutions"],
                             one["insertions"], one["deletions"], one["reference_words"]])
        kind = "reference" if entry["text"]["reference"] else "pytorch"
        clips = [clip for clip in made["clips"] if kind == "pytorch" or clip["reference"] is not None]
        aligned += [Aligned(f"{clip['file']}: {name} against {kind}", words)
                    for clip, words in zip(clips, entry["text"][kind]["alignments"], strict=True)]
    first = next(iter(made["variants"].values()))["text"]
    normalizer = (first["reference"] or first["pytorch"])["normalizer"]
    aligned.sort(key=lambda block: [clip["file"] for clip in made["clips"]].index(block.title.rsplit(": ", 1)[0]))
    return Section("Text", f"Words compared after the normalizer: {normalizer}. S: another word, I: a word too many, "
                   "D: a word too few.", tables=[
        Table("Word errors", ["variant", "against", "WER", "CER", "S", "I", "D", "words"], rows)], aligned=aligned)


def _speed(made: dict) -> Section:
    settings, rows = made["settings"], []
    for name, entry in made["variants"].items():
        speed, memory = entry["speed"], entry["memory"] or {}
        times = [_spread(speed[key]) for key in ("encoder_ms", "token_ms", "window_ms")] if speed else [UNKNOWN] * 3
        rows.append([name, *times, f"{speed['real_time_factor']:.4f}" if speed else UNKNOWN,
                     f"{speed['speedup']:.2f}{' (noise)' if speed['within_noise'] and name != BASELINE else ''}"
                     if speed else UNKNOWN,
                     f"{memory['load_s']:.2f}" if memory else UNKNOWN,
                     f"{memory['peak_rss_bytes'] / 1e6:.0f}" if memory else UNKNOWN])
    return Section("Speed and memory", f"One window and {settings['tokens_per_window']} given tokens, "
                   f"{console.count(settings['threads'], 'thread')}, {settings['provider']}; median (smallest to "
                   f"largest) of {console.count(settings['repeats'], 'round')}, each in turn with fp32, after one "
                   "round to warm up. Speed: how many times as fast as fp32 in the same round, and of that the median; "
                   "the quotient of two medians would be another number, of rounds at other moments. "
                   "Loading and peak memory: once, each variant in a fresh process. PyTorch makes the cross caches "
                   "in the prompt's step, the graphs in the encoder: compare the sum.",
                   tables=[Table("Speed and memory", ["variant", "encoder ms", "ms a token", "window ms",
                                                      "real-time factor", SPEED, "load s", "peak MB"], rows)])


def _spread(times: dict) -> str:
    return f"{times['median']:.1f} ({times['min']:.1f}-{times['max']:.1f})"


def _mb(size: float) -> str:
    return f"{size / 1e6:.2f}"


def _decibels(value: float | None, nonfinite: int = 0) -> str:
    """Without a value there was no noise, or nothing but noise: NaN and infinity have no decibels."""
    if nonfinite:
        return "NaN, inf"
    return "exact" if value is None else f"{value:.1f}"


def _percent(rate: float | None) -> str:
    return UNKNOWN if rate is None else f"{100 * rate:.1f} %"
