"""How is an exported model validated: which inputs, which tolerance, which seeds, and does the check find a fault?

Measured: errors of the four precisions against PyTorch on speech and on random input, the share of equal tokens, that
the same input twice gives the same numbers; and how many graphs that were broken on purpose script 03's gates reject.
"""

import shutil
import tempfile
from pathlib import Path

import numpy as np

from workbook.evidence import common


def break_sign(model) -> None:
    """One weight matrix changes its sign."""
    _edit(model, "decoder.layers.1.fc1", lambda array: -array)


def break_bias(model) -> None:
    """One bias is lost."""
    _edit(model, "decoder.layers.0.fc2.bias", np.zeros_like)


def break_row(model) -> None:
    """Two rows of one matrix change places."""
    _edit(model, "decoder.layers.0.self_attn.v_proj.bias", lambda array: np.roll(array, 1))


def break_norm(model) -> None:
    """One LayerNorm forgets its weights."""
    _edit(model, "decoder.layer_norm.weight", np.ones_like)


FAULTS = {"sign of fc1": break_sign, "no bias in fc2": break_bias, "rolled bias in v_proj": break_row,
          "LayerNorm weight 1": break_norm}


def _edit(model, name: str, change) -> None:
    """Replace the first initializer whose name begins so by change(array)."""
    import onnx_ir as ir

    found = next(one for key, one in model.graph.initializers.items() if key.startswith(name))
    array = np.ascontiguousarray(change(found.const_value.numpy()))
    found.const_value = ir.tensor(array, name=found.name)


def measure(evidence, args) -> None:
    from whisper_lab.export import parity, reference
    from whisper_lab.export.gates import relative_error
    from whisper_lab.export.pair import open_runtime

    runtime, pairs = common.torch_runtime(), common.graphs()
    sounds = reference.make(runtime, args.seed)
    speech = sounds[0]
    random = np.random.default_rng(args.seed).standard_normal(speech.features.shape).astype(np.float32)
    right_random = runtime.encode(random).numpy()
    for precision in common.PRECISIONS:
        graphs = open_runtime(*pairs[precision].values(), threads=common.THREADS, like=runtime)
        hidden = graphs.hidden_states(speech.features)
        evidence.value(f"relative_{precision}", relative_error(hidden, speech.hidden))
        evidence.value(f"random_relative_{precision}",
                       relative_error(graphs.hidden_states(random), right_random))
        logits = graphs.step(speech.forced, graphs.encode(speech.features), None)[0]
        evidence.value(f"logits_relative_{precision}", relative_error(logits, speech.logits))
        after = slice(speech.prompt_length - 1, None)  # the prompt is given, not chosen
        same = logits[0, after].argmax(-1) == speech.logits[0, after].argmax(-1)
        common.share(evidence, f"top1_{precision}", same.sum(), same.size)
        if precision == "fp32":
            evidence.value("max_error_fp32", float(np.abs(hidden - speech.hidden).max()))
            again = graphs.hidden_states(speech.features)
            evidence.value("repeat_difference", float(np.abs(hidden - again).max()))
            sound = [*parity.numbers(graphs, sounds, precision), *parity.pieces(graphs, sounds, precision)]
            evidence.value("gates", len(sound), stable=True)
            evidence.value("limit_fp32", sound[0].limit, stable=True)
    caught = plant(pairs["fp32"], runtime, sounds)
    evidence.value("broken_tried", len(caught), stable=True)
    evidence.value("broken_caught", sum(error > 1 for error in caught.values()))
    evidence.series = {"caught": caught}
    _claims(evidence, all(gate.passed for gate in sound))


def plant(pair: dict[str, Path], runtime, sounds) -> dict[str, float]:
    """Fault -> largest value over limit among the number gates, for the float32 pair broken in that way."""
    from whisper_lab.export import graphs, parity
    from whisper_lab.export.pair import open_runtime

    found = {}
    for name, fault in FAULTS.items():
        with tempfile.TemporaryDirectory() as folder:
            broken = {part: Path(shutil.copy(path, folder)) for part, path in pair.items()}
            model = graphs.load(broken["decoder"])
            fault(model)
            graphs.rewrite(model, broken["decoder"])
            opened = open_runtime(*broken.values(), threads=common.THREADS, like=runtime)
            checked = parity.numbers(opened, sounds, "fp32")
        found[name] = max(gate.value / gate.limit for gate in checked if gate.value is not None)
    return found


def _claims(evidence, sound_passes: bool) -> None:
    values = evidence.values
    evidence.claim("sound_passes", "The sound float32 pair passes every gate on numbers.",
                   "Het onbeschadigde float32-paar doorstaat elke controle op de getallen.", sound_passes,
                   values["relative_fp32"])
    evidence.claim("broken_caught", "Every graph that was broken on purpose is rejected.",
                   "Elke graaf die met opzet kapot werd gemaakt, wordt geweigerd.",
                   values["broken_caught"] == values["broken_tried"], values["broken_caught"])
    evidence.claim("precisions", "Each precision errs more than the one before: fp32, fp16, int8, int4.",
                   "Elke precisie zit er verder naast dan de vorige: fp32, fp16, int8, int4.",
                   values["relative_fp32"] < values["relative_fp16"] < values["relative_int8"]
                   < values["relative_int4"], values["relative_int4"])
    evidence.claim("repeats", "The same input twice gives the same numbers to the last bit.",
                   "Tweemaal dezelfde invoer geeft dezelfde getallen tot op de laatste bit.",
                   values["repeat_difference"] == 0, values["repeat_difference"])
    evidence.claim("top1", "On this window of speech float32 chooses every token that PyTorch chooses.",
                   "Op dit venster spraak kiest float32 elk token dat PyTorch kiest.",
                   values["top1_fp32_percent"] == 100, values["top1_fp32_percent"])


def draw(evidence, figure) -> None:
    left, right = figure.subplots(1, 2, width_ratios=[1.2, 1])
    values, places = evidence.values, np.arange(len(common.PRECISIONS))
    for offset, key, colour, label in ((-0.2, "relative", common.BLUE, "speech"),
                                       (0.2, "random_relative", common.GREY, "random input")):
        left.bar(places + offset, [values[f"{key}_{one}"] for one in common.PRECISIONS], 0.38, color=colour,
                 label=label)
    left.set_yscale("log")
    left.set_xticks(places, common.PRECISIONS)
    left.set(ylabel="relative error of the encoder", title="Against PyTorch")
    left.legend()
    caught = evidence.series["caught"]
    right.barh(list(caught), list(caught.values()), color=common.RED)
    right.axvline(1, color="black", linestyle="--")
    right.text(1.1, -0.72, "limit", fontsize=12)
    right.set_xscale("log")
    right.set_ylim(-0.9, len(caught) - 0.4)
    right.set(xlabel="worst gate: error / limit", title="Planted faults, fp32 decoder")


def main(argv: list[str] | None = None) -> int:
    return common.run("equality", "2.06", __doc__, measure, draw, argv)


if __name__ == "__main__":
    common.console.run(main)
