"""Step 7: what quantization did to the files, the graphs, the numbers, the text and the clock.

    python 04-compare-precisions.py media                                 # all precisions that 03 wrote
    python 04-compare-precisions.py media/references.json --model nano --fail-if 'wer_delta>0.02'
    python 04-compare-precisions.py --graphs a.onnx b.onnx                # any two ONNX files: their graphs only

    1. graphs     size, operators, and which weights were quantized
    2. numbers    encoder output and next tokens beside PyTorch's, each layer beside fp32's
    3. text       what each of them writes, and which errors are more than chance
    4. clock      the same window in turns with fp32; memory in a process of its own
    5. verdict    one sentence for each precision

Every precision is compared with fp32, whose graph it was made from, and with PyTorch, from which all of them come.
Writes a table here, and reports/compare-<model>.json, .md, .html and pictures.
"""

from pathlib import Path

from whisper_lab import console, flags
from whisper_lab.compare.variants import BASELINE, PYTORCH, known

# 1. The graphs -------------------------------------------------------------------------------------------------------

def look_at_graph(path: Path, base: dict | None) -> dict:
    """Identity, size and operators of one file; against `base`, the facts of the fp32 graph, what changed."""
    from whisper_lab.compare import graph_facts

    model = graph_facts.read(path)
    facts = graph_facts.facts(path, model) | {"weights": graph_facts.weights(model),
                                              "kept_operators": graph_facts.kept_operators(model)}
    before, after = (base or facts)["operators"], facts["operators"]
    change = {name: after.get(name, 0) - before.get(name, 0) for name in {**before, **after}}
    return facts | {
        "size_ratio": facts["size_bytes"] / (base or facts)["size_bytes"],
        "operator_change": {name: count for name, count in sorted(change.items(), key=lambda item: -item[1]) if count},
        "operators_added": sorted(set(after) - set(before)), "operators_removed": sorted(set(before) - set(after))}


def look_at_all(present: list) -> dict[str, dict]:
    """name -> encoder's and decoder's facts; present: variants.Variant, fp32's first."""
    found: dict[str, dict] = {}
    for variant in present:
        found[variant.name] = {part: look_at_graph(path, found.get(BASELINE, {}).get(part))
                               for part, path in variant.paths.items()}
    return found


# 2. The numbers ------------------------------------------------------------------------------------------------------

def compare_numbers(runtime, sounds: list, rights: list) -> dict:
    """Encoder output and next tokens of a graph pair against PyTorch, over the first window of each clip."""
    import numpy as np

    from whisper_lab.compare.heard import choices, first_divergence

    errors, same, tokens, nonfinite, divergence = [], 0, 0, 0, None
    for heard, right in zip(sounds, rights, strict=True):
        hidden, cross = runtime.hidden_and_cross(heard.features)  # [1, positions, d_model]
        logits, _ = runtime.step(heard.forced, cross, None)  # PyTorch's own tokens are fed: all hear the same story
        nonfinite += sum(int((~np.isfinite(values)).sum()) for values in (hidden, logits))
        errors.append(distance(heard.hidden, np.nan_to_num(hidden)))
        test = choices(runtime.rules, heard, np.nan_to_num(logits))  # [tokens, vocab]
        same, tokens = same + int((test.argmax(-1) == right.argmax(-1)).sum()), tokens + len(test)
        divergence = divergence or first_divergence(runtime.tokenizer, heard, right, test)
    signal, noise = (sum(error[key] for error in errors) for key in ("signal", "noise"))
    # Decibels: 20 is an error of a tenth of the signal, 40 of a hundredth; each bit of a number is worth 6.
    decibels = round(float(10 * np.log10(signal / noise)), 2) if noise > 0 and signal > 0 else None
    return {"encoder_cosine": min(error["cosine"] for error in errors), "encoder_sqnr_db": decibels,
            "encoder_max_error": max(error["largest"] for error in errors),
            "encoder_mean_error": float(np.mean([error["mean"] for error in errors])), "nonfinite": nonfinite,
            "top1_agreement": same / tokens, "tokens": tokens, "first_divergence": divergence}


def distance(right, test) -> dict[str, float]:
    """How far one array is from another of the same shape, in five numbers."""
    import numpy as np

    x, y = (array.ravel().astype(np.float64) for array in (right, test))
    return {"signal": float(x @ x), "noise": float((x - y) @ (x - y)),
            "cosine": float(x @ y / max(np.linalg.norm(x) * np.linalg.norm(y), 1e-30)),
            "largest": float(np.abs(x - y).max()), "mean": float(np.abs(x - y).mean())}


def layer_inputs(runtime, heard, cross: list) -> dict[str, dict]:
    """What encoder and decoder of a pair are given, so that their layers can be set beside fp32's.

    cross: the caches that fp32's encoder made of the sound that was heard, so that a decoder's own noise shows.
    """
    return {"encoder": {runtime.encoder.get_inputs()[0].name: heard.features},
            "decoder": runtime.feeds(heard.forced, cross, None)}


def compare_layers(pairs: list, inputs: dict, threads: int | None) -> dict[str, list[dict]]:
    """Where the noise comes in: the same module's output in each pair and in fp32's, all fed with the same sound."""
    from whisper_lab.compare import layers

    base, *others = pairs
    rows = layers.layer_errors({pair.name: pair.paths for pair in others}, base.paths, inputs, inputs[base.name],
                               threads)
    for name, found in rows.items():
        layers.note_few(found, name)
    return rows


# 3. The text ---------------------------------------------------------------------------------------------------------

def run_pairs(present: list, clips: list, said, threads: int | None, context="auto") -> tuple[dict, dict, dict]:
    """Numbers, layers and texts of each pair, one pair after the other; said: pytorch.Answers, of whole windows."""
    from whisper_lab import machine
    from whisper_lab.compare import texts
    from whisper_lab.compare.heard import choices

    written, measured, inputs, cross = {PYTORCH: said.texts}, {}, {}, None
    for variant in console.progress(present, description="comparing", unit="precision"):
        runtime = variant.open(threads)
        cross = cross or runtime.encode(said.sounds[0].features)
        rights = [choices(runtime.rules, heard, heard.logits) for heard in said.sounds]
        measured[variant.name] = compare_numbers(runtime, said.sounds, rights)
        inputs[variant.name] = layer_inputs(runtime, said.sounds[0], cross)
        written[variant.name] = [one.text for one in texts.hear(runtime, clips, context)]
        del runtime
        machine.give_back_memory()
    return measured, compare_layers(present, inputs, threads), written


# 4. The clock --------------------------------------------------------------------------------------------------------

def time_pairs(present: list, said, repeats: int, threads: int | None) -> dict[str, tuple]:
    """name -> the rounds of fp32 and its own, in turns: only those two are open, whatever else the machine does."""
    from whisper_lab import machine
    from whisper_lab.compare import timing

    rounds, base = {PYTORCH: said.rounds}, present[0].open(threads) if repeats else None
    for variant in console.progress(present[1:] if repeats else [], description="timing", unit="precision"):
        runtime = variant.open(threads)
        rounds[variant.name] = timing.in_turns(base, runtime, said.sounds[0], repeats,
                                               warm=variant is not present[1])
        del runtime
        machine.give_back_memory()
    return rounds


def measure_memory(present: list, said, setup, clip: Path) -> dict[str, dict]:
    """name -> peak memory and seconds to load, of a fresh process each."""
    from whisper_lab.compare import memory

    bar = console.progress(present, description="measuring memory", unit="process")
    return {PYTORCH: said.memory} | {variant.name: memory.measure(variant.name, setup, clip) for variant in bar}


# 5. The verdict ------------------------------------------------------------------------------------------------------

def compare(args) -> dict:
    """All five for one checkpoint. PyTorch speaks first, in a process that ends before graphs are opened."""
    from whisper_lab import checkpoints, machine
    from whisper_lab.compare import document, pytorch, texts, timing, variants
    from whisper_lab.compare.memory import Setup
    from whisper_lab.features import FeatureSpec

    checkpoint = checkpoints.resolve(args.model)
    present, missing = variants.present_and_missing(args.model_dir, checkpoint.name, args.precisions)
    if args.fail_if:  # now, not after minutes of measuring
        args.fail_if.require([variant.name for variant in present if variant.name != BASELINE])
    clips = texts.read_clips(args.audio, args.reference, args.language)
    setup = Setup(args.model, args.model_dir, args.threads, args.language)
    with pytorch.started(setup, args.audio, args.repeats) as answers:
        graphs = look_at_all(present)  # while PyTorch loads
        machine.give_back_memory()
        said = answers()
    clips = texts.with_languages(clips, said.languages)
    measured, layers, written = run_pairs(present, clips, said, args.threads, args.audio_context)
    machine.give_back_memory()
    rounds = time_pairs(present, said, args.repeats, args.threads)
    scores = {name: texts.score(clips, lines, written[PYTORCH]) for name, lines in written.items()}
    memory = {} if args.no_memory else measure_memory(present, said, setup, clips[0].path)
    window_s = FeatureSpec.from_folder(checkpoint.folder).window_s
    return document.make(document.Findings(
        checkpoint, window_s, args.threads, args.repeats, args.language, clips, missing, graphs, measured, layers,
        scores, timing.of_pairs(rounds, BASELINE, window_s), memory))


def compare_files(first: Path, second: Path) -> dict:
    """Step 1 alone, for two files given by hand; the first is the one that is compared with."""
    from whisper_lab import seals
    from whisper_lab.compare import document

    seals.warn(first)
    seals.warn(second)
    base = look_at_graph(first, None)
    return document.of_files(base, look_at_graph(second, base))


def arguments(argv: list[str] | None):
    """The command line."""
    from whisper_lab.compare import limits

    parser = flags.parser(__doc__, "audio", "model", "model_dir", "language", "threads", "output_dir", "output_json",
                          "quiet", "log_level", "audio_context")
    names = [variant.name for variant in known("", "")]
    parser.add_argument("--precisions", nargs="+", choices=names, metavar="NAME",
                        help=f"of {', '.join(names[1:])} (default: all that are there)")
    parser.add_argument("--reference", metavar="TEXT|FILE", help="what is said in the clip; a text or JSON file")
    parser.add_argument("--graphs", nargs=2, metavar=("A", "B"), help="compare two ONNX files instead")
    parser.add_argument("--details", action="store_true", help="show every table here, not only in the report")
    flags.rare(parser).add_argument("--repeats", type=flags.whole(0), default=6, metavar="N",
                                    help="timed rounds after a warm-up; 0 for none (default: %(default)s)")
    flags.rare(parser).add_argument("--no-memory", action="store_true", help="no fresh process for each variant")
    parser.add_argument("--fail-if", metavar="TEST", help="exit 1 where it holds, such as 'wer_delta>0.02 or "
                        "int8.size_ratio>0.3'; the word list shows what can be tested")
    args = flags.parse(parser, argv)
    if args.graphs and args.audio != parser.get_default("audio"):
        parser.error("--graphs looks at two files and hears nothing: leave out CLIP")
    if args.fail_if == "list":
        console.table("--fail-if can test", ["metric", "is"], list(map(list, limits.METRICS.items())))
        parser.exit()
    if args.fail_if is not None:
        args.fail_if = condition(args, parser, [name for name in names if name != BASELINE])
    return args


def condition(args, parser, names: list[str]):
    """--fail-if, read and compared with what else was asked for; wrong usage ends here with exit status 2."""
    from whisper_lab.compare import limits

    if args.graphs:
        parser.error("--fail-if needs measurements, and --graphs only looks at files")
    try:
        read = limits.parse(args.fail_if)
    except ValueError as error:
        parser.error(f"--fail-if: {error}")
    compared = [name for name in args.precisions or names if name != BASELINE]
    if unknown := read.precisions - set(compared):
        parser.error(f"--fail-if: {', '.join(sorted(unknown))} is not compared here, only {', '.join(compared)}")
    return read


def main(argv: list[str] | None = None) -> int:
    """Compare, show, write, judge."""
    args = arguments(argv)
    from whisper_lab.compare import document, limits

    made = compare_files(*map(Path, args.graphs)) if args.graphs else compare(args)
    document.publish(made, args.output_dir, args.output_json, args.details)
    return limits.judge(made, args.fail_if) if args.fail_if else 0


if __name__ == "__main__":
    console.run(main)
