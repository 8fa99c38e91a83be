"""Published weights come in four file formats: are the numbers in them the same?

Taken from benchmarks/formats.json, which `benchmarks/formats.py` measured on whisper-base: written in each format, read
by the engine that owns it and by this lab, the logits on the same speech compared. Measured here, on whisper-nano: what
storing the same weights once more, in float16 and in bfloat16, changes about the logits.
"""

import json

import numpy as np

from workbook.evidence import common

BENCHMARK = common.ROOT / "benchmarks" / "formats.json"
EXACT = "float32"  # the arithmetic of engines whose difference is rounding alone
CLIP = "kitchen.wav"


def measure(evidence, args) -> None:
    document = json.loads(BENCHMARK.read_text(encoding="utf-8"))
    rows = [row for row in document["rows"] if row["relative"] is not None]
    exact = [row for row in rows if row["arithmetic"] == EXACT]
    coarse = [row for row in rows if row["arithmetic"] != EXACT]
    evidence.value("formats", len({row["format"] for row in rows}), stable=True)
    evidence.value("files", len(rows), stable=True)
    evidence.value("exact_files", len(exact), stable=True)
    evidence.value("exact_largest", max(row["relative"] for row in exact), stable=True)
    evidence.value("coarse_largest", max(row["relative"] for row in coarse), stable=True)
    evidence.value("rounding", document["rounding"], stable=True)
    least = min(rows, key=lambda row: row["positions"])
    common.share(evidence, "tokens", least["same_tokens"], least["positions"], stable=True)
    evidence.value("other_tokens", sum(row["positions"] - row["same_tokens"] for row in rows), stable=True)
    sizes = [row["megabytes"] for row in rows]
    evidence.value("smallest_mb", min(sizes), "MB", stable=True)
    evidence.value("largest_mb", max(sizes), "MB", stable=True)
    evidence.value("float16_error", stored_again("float16"))
    evidence.value("bfloat16_error", stored_again("bfloat16"))
    evidence.series = {"rows": rows}
    _claims(evidence)


def stored_again(kind: str) -> float:
    """Relative difference of nano's logits once its weights were stored in this type and widened to float32 again."""
    import torch

    from whisper_lab.export.gates import relative_error
    from whisper_lab.features import log_mel

    runtime = common.torch_runtime()
    features = log_mel(common.samples(CLIP), runtime.spec)[None]
    forced = np.array([runtime.rules.prompt("en")], np.int64)
    before = {name: tensor.clone() for name, tensor in runtime.model.state_dict().items()}
    right = runtime.step(forced, runtime.encode(features), None)[0]
    try:
        with torch.no_grad():
            for tensor in runtime.model.parameters():
                tensor.copy_(tensor.to(getattr(torch, kind)).float())
        return float(relative_error(runtime.step(forced, runtime.encode(features), None)[0], right))
    finally:
        runtime.model.load_state_dict(before)


def _claims(evidence) -> None:
    values = evidence.values
    evidence.claim("same", "Read from any format and computed in float32, the logits agree to rounding.",
                   "Uit elk formaat gelezen en in float32 berekend, zijn de logits op afronding na gelijk.",
                   values["exact_largest"] < 5 * values["rounding"], values["exact_largest"])
    evidence.claim("tokens", "Every engine chooses the same token at every position of this speech.",
                   "Elke engine kiest op elke positie van deze spraak hetzelfde token.", values["other_tokens"] == 0,
                   values["other_tokens"])
    evidence.claim("half", "Weights that were published in float16 lose nothing in float16; in bfloat16 they do.",
                   "Gewichten die in float16 gepubliceerd zijn, verliezen niets in float16; in bfloat16 wel.",
                   values["float16_error"] == 0 < values["bfloat16_error"], values["bfloat16_error"])


def draw(evidence, figure) -> None:
    panel, rows = figure.subplots(), [row for row in evidence.series["rows"] if row["relative"]]
    names = [f"{row['format']}, {row['type']}" + (f" ({row['arithmetic'].split(',')[0]})"
                                                   if row["arithmetic"] != EXACT else "") for row in rows]
    panel.barh(range(len(rows)), [row["relative"] for row in rows],
               color=[common.BLUE if row["arithmetic"] == EXACT else common.ORANGE for row in rows])
    panel.set_yticks(range(len(rows)), names, fontsize=10)
    panel.invert_yaxis()
    panel.axvline(evidence.values["rounding"], color=common.RED, linestyle="--", label="PyTorch's own rounding")
    panel.set_xscale("log")
    panel.set(xlabel="logits, relative difference between the engine and this lab",
              title="whisper-base: blue computes in float32, orange in fewer bits")
    panel.legend(loc="lower right", fontsize=11)


def main(argv: list[str] | None = None) -> int:
    return common.run("weight_formats", "4.02", __doc__, measure, draw, argv)


if __name__ == "__main__":
    common.console.run(main)
