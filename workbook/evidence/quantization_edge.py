"""Why does quantization pay on an edge device, and when does it not?

Measured for four precisions of whisper-nano: size of both graphs, time of one window with its tokens (taking turns),
word errors, and peak memory of a fresh process; and how much of a decoder's file is its token embedding.
"""

import json

import numpy as np

from workbook.evidence import common

CLIP = "hello.wav"
BASE_VOCABULARY, BASE_WIDTH = 51865, 512  # whisper-base
BENCHMARK = common.ROOT / "benchmarks" / "results.json"  # holds the size of the fp32 decoder that 03 writes of it


def measure(evidence, args) -> None:
    from whisper_lab.compare import timing
    from whisper_lab.features import log_mel

    pairs = common.graphs()
    sizes = {name: {part: path.stat().st_size / 1e6 for part, path in pair.items()} for name, pair in pairs.items()}
    clips = common.spoken(args.quick)
    runtimes = {name: common.onnx_runtime(name) for name in common.PRECISIONS}
    features = log_mel(common.samples(CLIP), runtimes["fp32"].spec)[None]
    forced = np.array([runtimes["fp32"].rules.prompt("en")], np.int64)
    rounds = {name: [] for name in common.PRECISIONS}
    for i in range(4 if args.quick else 16):
        for name, runtime in runtimes.items():
            once = timing.one_window(runtime, features, forced, forced.shape[1])
            rounds[name] += [once] if i else []  # the first round warms up
    median = {name: {key: float(np.median([one[key] for one in seen])) for key in seen[0]}
              for name, seen in rounds.items()}
    for name in common.PRECISIONS:
        total = sum(sizes[name].values())
        evidence.value(f"size_{name}_mb", total, "MB")
        evidence.value(f"ratio_{name}", total / sum(sizes["fp32"].values()))
        evidence.value(f"speedup_{name}", median["fp32"]["window_ms"] / median[name]["window_ms"])
        evidence.value(f"encoder_ms_{name}", median[name]["encoder_ms"], "ms")
        evidence.value(f"token_ms_{name}", median[name]["token_ms"], "ms")
        rate, words, _ = common.word_error_rate(runtimes[name], clips)
        evidence.value(f"wer_{name}_percent", rate, "%")
        evidence.value("words", words, stable=not args.quick)
    for name in ("fp32", "int8"):
        evidence.value(f"rss_{name}_mb", peak_memory_mb(name), "MB")
    config = common.torch_runtime().model.config
    evidence.value("embedding_percent_fp32",
                   100 * config.vocab_size * config.d_model * 4 / 1e6 / sizes["fp32"]["decoder"], "%")
    base_decoder = json.loads(BENCHMARK.read_text(encoding="utf-8"))["graph_bytes"]["decoder"]
    evidence.value("embedding_percent_base", 100 * BASE_VOCABULARY * BASE_WIDTH * 4 / base_decoder, "%", stable=True)
    _claims(evidence)


def peak_memory_mb(precision: str) -> float:
    """Peak memory of a fresh process that opens the pair and transcribes one window."""
    from whisper_lab.compare import memory

    setup = memory.Setup("nano", common.GRAPHS, common.THREADS, "en")
    return memory.measure(precision, setup, common.MEDIA / CLIP)["peak_rss_bytes"] / 1e6


def _claims(evidence) -> None:
    values = evidence.values
    evidence.claim("sizes", "fp16 takes about half, int8 less than a third, and int4 less than int8.",
                   "fp16 neemt ongeveer de helft in, int8 minder dan een derde, en int4 minder dan int8.",
                   values["ratio_fp16"] < 0.55 and values["ratio_int8"] < 0.33 and
                   values["ratio_int4"] < values["ratio_int8"], values["ratio_int8"])
    evidence.claim("words", "whisper-nano's int8 costs at most ten percentage points of WER on these clips.",
                   "int8 kost whisper-nano op deze clips hoogstens tien procentpunt WER.",
                   values["wer_int8_percent"] <= values["wer_fp32_percent"] + 10, values["wer_int8_percent"])
    evidence.claim("embedding", "In whisper-base more than half of the decoder's bytes are its token embedding.",
                   "In whisper-base bestaat meer dan de helft van de decoder uit de token-embedding.",
                   values["embedding_percent_base"] > 50, values["embedding_percent_base"])


def draw(evidence, figure) -> None:
    panels, values = figure.subplots(1, 3), evidence.values
    shown = (("size_{}_mb", "MB", "Size, both graphs", "%.1f"),
             ("window", "ms", "One window and its tokens", "%.0f"),
             ("wer_{}_percent", "%", f"Word errors ({values['words']} words)", "%.1f"))
    for panel, (key, unit, title, form) in zip(panels, shown, strict=True):
        heights = [values[f"encoder_ms_{name}"] + 32 * values[f"token_ms_{name}"] if key == "window" else
                   values[key.format(name)] for name in common.PRECISIONS]
        bars = panel.bar(common.PRECISIONS, heights, color=[common.GREY, common.BLUE, common.GREEN, common.ORANGE])
        panel.bar_label(bars, fmt=form, fontsize=12)
        panel.set(ylabel=unit, title=title)
        panel.set_ylim(0, max(5, 1.15 * max(heights)))


def main(argv: list[str] | None = None) -> int:
    return common.run("quantization_edge", "1.02", __doc__, measure, draw, argv)


if __name__ == "__main__":
    common.console.run(main)
