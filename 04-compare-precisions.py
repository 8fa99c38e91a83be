"""Step 7: see what quantization did: to the files, the graphs, the numbers, the text and the clock.

    python 04-compare-precisions.py --model nano --audio media            # all precisions that 03 wrote
    python 04-compare-precisions.py --model base --audio speech.wav --reference "what I said"
    python 04-compare-precisions.py --graphs a.onnx b.onnx                # any two ONNX files: files and graphs only
    python 04-compare-precisions.py --model nano --audio media/references.json --fail-if 'wer_delta>0.02'

Every precision is compared with fp32, whose graph it was made from, and with PyTorch, from which all of them come.
Writes a table here, and reports/compare-<model>.json, .md, .html and pictures.
"""

from pathlib import Path

from whisper_lab import console
from whisper_lab.compare.variants import BASELINE, PYTORCH

# 1 to 3. The files ---------------------------------------------------------------------------------------------------

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


# 4. The numbers ------------------------------------------------------------------------------------------------------

def compare_numbers(runtime, sounds: list, rights: list) -> dict:
    """Encoder output and next tokens of a graph pair against PyTorch, over the first window of each clip."""
    import numpy as np

    from whisper_lab.compare import numbers

    signal = noise = total = count = same = tokens = nonfinite = 0.0
    worst, cosine, divergence = 0.0, 1.0, None
    for heard, right in zip(sounds, rights, strict=True):
        hidden, cross = runtime.hidden_and_cross(heard.features)  # [1, positions, d_model]
        logits, _ = runtime.step(heard.forced, cross, None)  # PyTorch's own tokens are fed: all hear the same story
        nonfinite += sum(int((~np.isfinite(values)).sum()) for values in (hidden, logits))
        x, y = heard.hidden.ravel().astype(np.float64), np.nan_to_num(hidden).ravel().astype(np.float64)
        signal, noise = signal + x @ x, noise + (x - y) @ (x - y)
        cosine = min(cosine, float(x @ y / max(np.linalg.norm(x) * np.linalg.norm(y), 1e-30)))
        worst, total, count = max(worst, float(np.abs(x - y).max())), total + np.abs(x - y).sum(), count + len(x)
        test = numbers.choices(runtime.rules, heard, np.nan_to_num(logits))  # [tokens, vocab]
        same, tokens = same + (test.argmax(-1) == right.argmax(-1)).sum(), tokens + len(test)
        divergence = divergence or numbers.first_divergence(runtime.tokenizer, heard, right, test)
    # Decibels: 20 is an error of a tenth of the signal, 40 of a hundredth; each bit of a number is worth 6.
    decibels = 10 * np.log10(signal / noise) if noise > 0 and signal > 0 else None
    return {"encoder_cosine": cosine, "encoder_max_error": worst, "encoder_mean_error": float(total / count),
            "encoder_sqnr_db": None if decibels is None else round(float(decibels), 2), "nonfinite": int(nonfinite),
            "top1_agreement": float(same / tokens), "tokens": int(tokens), "first_divergence": divergence}


def layer_inputs(runtime, heard, names: list[str], cross: list) -> dict[str, dict]:
    """What encoder and decoder of a pair are given, so that their layers can be set beside fp32's.

    names, cross: of the cross caches that fp32's encoder made of the sound that was heard.
    """
    # The decoders get fp32's cross caches, so that their own noise shows; int8 caches only their own encoder makes.
    cross = cross if runtime.cross_outputs == names else runtime.encode(heard.features)
    return {"encoder": {runtime.encoder.get_inputs()[0].name: heard.features},
            "decoder": runtime.feeds(heard.forced, cross, None)}


def compare_layers(pairs: list, inputs: dict, threads: int | None) -> dict[str, list[dict]]:
    """Where the noise comes in: the same module's output in each pair and in fp32's, all fed with the same sound."""
    from whisper_lab.compare import numbers

    base, *others = pairs
    rows = numbers.layer_errors({pair.name: pair.paths for pair in others}, base.paths, inputs, inputs[base.name],
                                threads)
    for name, found in rows.items():
        numbers.note_few(found, name)
    return rows


# 5 and 6. The text, the clock ----------------------------------------------------------------------------------------

def compare_pairs(present: list, clips: list, said, args) -> tuple[dict, dict, dict, dict]:
    """Numbers, layers, texts and times of each pair. Each is alone, but for the times, where fp32's is open beside it.

    present: variants.Variant, fp32's first; said: what PyTorch said (witness.Testimony).
    """
    from whisper_lab import machine
    from whisper_lab.compare import numbers, texts, timing

    written, measured, inputs, rounds, known = {PYTORCH: said.texts}, {}, {}, {PYTORCH: said.rounds}, None
    for variant in console.progress(present, description="comparing", unit="precision"):
        runtime = variant.open(args.threads)
        known = known or (runtime.cross_outputs, runtime.encode(said.sounds[0].features))
        rights = [numbers.choices(runtime.rules, heard, heard.logits) for heard in said.sounds]
        measured[variant.name] = compare_numbers(runtime, said.sounds, rights)
        inputs[variant.name] = layer_inputs(runtime, said.sounds[0], *known)
        written[variant.name] = [one.text for one in texts.transcribe(runtime, clips)]
        del runtime
        machine.give_back_memory()
    layers = compare_layers(present, inputs, args.threads)
    del inputs, known
    machine.give_back_memory()
    base = present[0].open(args.threads) if args.repeats else None
    for variant in console.progress(present[1:] if args.repeats else [], description="timing", unit="precision"):
        runtime = variant.open(args.threads)
        rounds[variant.name] = timing.in_turns(base, runtime, said.sounds[0], args.repeats,
                                                 warm=variant is not present[1])
        del runtime
        machine.give_back_memory()
    return measured, layers, written, rounds


# The whole -----------------------------------------------------------------------------------------------------------

def compare(args) -> dict:
    """All seven points for one checkpoint. PyTorch speaks first, in a process that ends before graphs are opened."""
    from whisper_lab import checkpoints, machine
    from whisper_lab.compare import document as report
    from whisper_lab.compare import probe, texts, timing, variants, witness
    from whisper_lab.features import FeatureSpec

    checkpoint = checkpoints.resolve(args.model)
    present, missing = variants.find(args.model_dir, checkpoint.name, args.precisions)
    if args.fail_if:  # now, not after minutes of measuring
        args.fail_if.require([variant.name for variant in present if variant.name != BASELINE])
    clips = texts.load(args.audio, args.reference, args.language)
    graphs: dict[str, dict] = {}
    with witness.asked(args) as answer:
        for variant in present:  # while PyTorch loads
            graphs[variant.name] = {part: look_at_graph(path, graphs.get(BASELINE, {}).get(part))
                                    for part, path in variant.paths.items()}
        machine.give_back_memory()
        said = answer()
    clips = texts.with_languages(clips, said.languages)
    measured, layers, written, rounds = compare_pairs(present, clips, said, args)
    scores = {name: texts.score(clips, lines, written[PYTORCH]) for name, lines in written.items()}
    loudest = next((path for path in report.sound_files(args.audio) if path.name == clips[0].name), None)
    memory = {} if args.no_memory else {PYTORCH: said.memory} | {
        variant.name: probe.run(variant.name, args, loudest)
        for variant in console.progress(present, description="measuring memory", unit="process")}
    spec = FeatureSpec.from_folder(checkpoint.folder)
    return report.document(args, checkpoint, spec, missing, clips, graphs, measured, layers, scores,
                           timing.of_pairs(rounds, BASELINE, spec.window_s), memory)


def compare_files(args) -> dict:
    """Points 1 to 3 for two files given by hand; the first is the one that is compared with."""
    from whisper_lab import seals
    from whisper_lab.compare import document as report

    first, second = map(Path, args.graphs)
    for path in (first, second):
        seals.warn(path)
    base = look_at_graph(first, None)
    return report.files_document(args, base, look_at_graph(second, base))


def arguments(argv: list[str] | None):
    """The command line."""
    from whisper_lab.compare import limits
    from whisper_lab.compare.variants import known

    parser = console.parser(__doc__, "model", "audio", "language", "threads", "output_dir", "output_json", "quiet",
                            "log_level")
    names = [variant.name for variant in known("", "")]
    parser.add_argument("--model-dir", default="whisper_model_dir", metavar="DIR",
                        help="where 03 wrote the graphs (default: %(default)s)")
    parser.add_argument("--precisions", nargs="+", choices=names, metavar="NAME",
                        help=f"which to compare with fp32: {', '.join(names[1:])} (default: all that are there)")
    parser.add_argument("--reference", metavar="TEXT|FILE", help="what is said in the clip; a text or JSON file")
    parser.add_argument("--graphs", nargs=2, metavar=("A", "B"), help="compare two ONNX files instead")
    parser.add_argument("--details", action="store_true",
                        help="show every table: digests, operators, weights, layers (they are always in the report)")
    parser.add_argument("--repeats", type=int, default=6, metavar="N",
                        help="timed rounds after a warm-up; 0 for none (default: %(default)s)")
    parser.add_argument("--no-memory", action="store_true", help="no fresh process for each variant")
    parser.add_argument("--fail-if", metavar="TEST", help="exit 1 where it holds, such as 'wer_delta>0.02 or "
                        "int8.size_ratio>0.3'; metrics: " + "; ".join(f"{k}: {v}" for k, v in
                                                                      limits.METRICS.items()).replace("%", "%%"))
    args = console.parse(parser, argv)
    if args.repeats < 0:
        parser.error("--repeats starts at 0")
    if args.fail_if is not None:
        if args.graphs:
            parser.error("--fail-if needs measurements, and --graphs only looks at files")
        try:
            args.fail_if = limits.parse(args.fail_if)
        except ValueError as error:
            parser.error(f"--fail-if: {error}")
        compared = [name for name in args.precisions or names if name != BASELINE]
        if unknown := args.fail_if.precisions - set(compared):
            parser.error(f"--fail-if: no precision {', '.join(sorted(unknown))} is compared with {BASELINE}; there "
                         f"are {', '.join(compared)}")
    return args


def main(argv: list[str] | None = None) -> int:
    """Compare, show, write, judge."""
    args = arguments(argv)
    from whisper_lab.compare import document as report

    document = compare_files(args) if args.graphs else compare(args)
    report.publish(document, args)
    return report.judge(document, args.fail_if) if args.fail_if else 0


if __name__ == "__main__":
    console.run(main)
