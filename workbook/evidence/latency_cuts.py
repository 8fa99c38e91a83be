"""Which measures cut the latency of speech recognition, and by how much?

Measured on one clip, with the same tokens given to all (so that all do the same work), taking turns: PyTorch with and
without its cache, onnxruntime in float32 and int8, two threads instead of one. As the opposite of a cut: a search with
five beams against greedy search, each with the tokens that it chooses itself.
"""

import numpy as np

from workbook.evidence import common

CLIP = "hello.wav"
TOKENS = 24


def measure(evidence, args) -> None:
    from whisper_lab.decoding import Options, decode
    from whisper_lab.features import log_mel

    torch_runtime = common.torch_runtime()
    spec = torch_runtime.spec
    features = log_mel(common.samples(CLIP), spec)[None]
    ids = given_tokens(torch_runtime, features)
    runtimes = {"baseline": torch_runtime, "onnx": common.onnx_runtime("fp32"), "int8": common.onnx_runtime("int8"),
                "onnx_2_threads": common.onnx_runtime("fp32", 2)}
    work = {name: lambda one=one: window(one, features, ids) for name, one in runtimes.items()}
    work["no_cache"] = lambda: window(torch_runtime, features, ids, cache=False)
    work["search"] = lambda: decode(runtimes["onnx"], features, Options(language="en", max_tokens=TOKENS))[0]
    work["beam5"] = lambda: decode(runtimes["onnx"], features, Options(language="en", max_tokens=TOKENS, beams=5))[0]
    searches = [work.pop("search"), work.pop("beam5")]  # 20 ms apart by a fifth: by themselves, and more often
    seconds = dict(zip(work, common.undisturbed_s(list(work.values()), 11), strict=True))
    seconds |= zip(("search", "beam5"), common.undisturbed_s(searches, 21), strict=True)
    for name, value in seconds.items():
        evidence.value(f"{name}_s", value, "s")
    evidence.value("clip", CLIP, stable=True)
    evidence.value("tokens", ids.shape[1], stable=True)
    evidence.value("window_s", spec.window_s, "s", stable=True)
    evidence.value("rtf_baseline", seconds["baseline"] / (len(common.samples(CLIP)) / common.RATE))
    evidence.value("cache_speedup", seconds["no_cache"] / seconds["baseline"])
    evidence.value("onnx_speedup", seconds["baseline"] / seconds["onnx"])
    evidence.value("int8_speedup", seconds["baseline"] / seconds["int8"])
    evidence.value("int8_over_fp32", seconds["onnx"] / seconds["int8"])
    evidence.value("beam5_slowdown", seconds["beam5"] / seconds["search"])
    evidence.value("threads2_speedup", seconds["onnx"] / seconds["onnx_2_threads"])
    values = evidence.values
    evidence.claim("cache", "Keeping the cache is faster than decoding the whole text again at each token.",
                   "De cache bewaren is sneller dan bij elk token de hele tekst opnieuw decoderen.",
                   values["cache_speedup"] > 1, values["cache_speedup"])
    evidence.claim("onnx", "The same float32 numbers come faster from onnxruntime than from PyTorch.",
                   "Dezelfde float32-getallen komen sneller uit onnxruntime dan uit PyTorch.",
                   values["onnx_speedup"] > 1, values["onnx_speedup"])
    evidence.claim("beams", "Five beams are slower than greedy search.",
                   "Vijf beams zijn trager dan greedy decoderen.", values["beam5_slowdown"] > 1,
                   values["beam5_slowdown"])


def given_tokens(runtime, features: np.ndarray) -> np.ndarray:
    """int64 [1, prompt + TOKENS]: the prompt and the model's own answer, repeated to that length."""
    from whisper_lab.decoding import Options, decode

    result = decode(runtime, features, Options(language="en", max_tokens=TOKENS))[0]
    answer = np.resize(result.tokens or [0], TOKENS)
    return np.array([[*result.prompt, *answer]], np.int64)


def window(runtime, features: np.ndarray, ids: np.ndarray, cache: bool = True) -> None:
    """Encode a window and feed the given tokens one after the other."""
    cross = runtime.encode(features)
    prompt = ids.shape[1] - TOKENS
    _, kept = runtime.step(ids[:, :prompt], cross, None)
    for i in range(prompt, ids.shape[1]):
        if cache:
            _, kept = runtime.step(ids[:, i:i + 1], cross, kept)
        else:
            runtime.step(ids[:, :i + 1], cross, None)


def draw(evidence, figure) -> None:
    panel, values = figure.subplots(), evidence.values
    bars = {"PyTorch, no cache": "no_cache", "PyTorch fp32 (baseline)": "baseline",
            "onnxruntime fp32, 5 beams": "beam5", "onnxruntime fp32": "onnx",
            "onnxruntime fp32, 2 threads": "onnx_2_threads", "onnxruntime int8": "int8"}
    colours = [common.RED, common.GREY, common.RED, common.BLUE, common.ORANGE, common.GREEN]
    drawn = panel.barh(list(bars), [1000 * values[f"{key}_s"] for key in bars.values()], color=colours)
    panel.bar_label(drawn, fmt=" %.0f ms")
    panel.invert_yaxis()
    panel.margins(x=0.12)
    panel.set(xlabel=f"one window and {values['tokens']} tokens (ms)",
              title="whisper-nano: what cuts the latency, and what does not")


def main(argv: list[str] | None = None) -> int:
    return common.run("latency_cuts", "1.03", __doc__, measure, draw, argv)


if __name__ == "__main__":
    common.console.run(main)
