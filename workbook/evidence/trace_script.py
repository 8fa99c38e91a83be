"""When does torch.jit.trace lose what torch.jit.script keeps, and what does torch.export say about it?

Measured: a function that turns loud sound down, and leaves soft sound alone, traced with soft sound, scripted and
exported, then given soft and loud inputs; on how many of them each form differs from Python's.
"""

import contextlib
import io
import logging
import re
import warnings

import numpy as np

from workbook.evidence import common


def quieten(sound):
    """Turn sound down to full scale, if it is louder."""
    if sound.abs().max() > 1:
        return sound / sound.abs().max()
    return sound


def measure(evidence, args) -> None:
    import torch

    torch.manual_seed(args.seed)
    peaks = np.linspace(0.2, 2.0, 10)
    inputs = [peak * noise / noise.abs().max() for peak, noise in zip(peaks, torch.randn(10, 1600), strict=True)]
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        traced = torch.jit.trace(quieten, inputs[0], check_trace=False)
        scripted = torch.jit.script(quieten)
    kinds = [warning.category.__name__ for warning in heard]
    evidence.value("inputs", len(inputs), stable=True)
    evidence.value("trace_wrong", wrong(traced, inputs), stable=True)
    evidence.value("script_wrong", wrong(scripted, inputs), stable=True)
    evidence.value("loud_inputs", int((peaks > 1).sum()), stable=True)
    evidence.value("traced_branch", "the soft one: return sound", stable=True)
    evidence.value("trace_warning", "TracerWarning" if "TracerWarning" in kinds else "none")
    evidence.value("deprecated", "yes" if any(issubclass(warning.category, DeprecationWarning) or
                                              "deprecated" in str(warning.message) for warning in heard) else "no")
    error, message = _script_whisper(torch)
    evidence.value("script_error", error)
    evidence.value("script_message", message)
    error, exported = _export(torch, inputs[0])
    evidence.value("export_error", error)
    evidence.value("export_cond_wrong", wrong(exported, inputs), stable=True)
    evidence.series = {"peaks": peaks, "outputs": {
        name: [float(function(one).abs().max()) for one in inputs]
        for name, function in (("Python", quieten), ("trace", traced), ("script", scripted))}}
    _claims(evidence)


def wrong(function, inputs) -> int:
    """On how many inputs a function differs from Python's."""
    return sum(not np.allclose(function(one).numpy(), quieten(one).numpy()) for one in inputs)


def _script_whisper(torch) -> tuple[str, str]:
    """What torch.jit.script says to a whole Hugging Face model, which runs in Python: class and first line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.script(common.torch_runtime().model)
    except Exception as error:
        return type(error).__name__, re.sub(r" at 0x\w+", "", str(error).strip().splitlines()[0])[:160]
    return "none", ""


def _export(torch, example) -> tuple[str, object]:
    """What torch.export raises for the Python `if`, and the module that it makes of torch.cond."""

    class Python(torch.nn.Module):
        def forward(self, sound):
            return quieten(sound)

    class Cond(torch.nn.Module):
        def forward(self, sound):
            peak = sound.abs().max()
            return torch.cond(peak > 1, lambda x, p: x / p, lambda x, p: x.clone(), (sound, peak))

    error = "none"
    logging.disable(logging.CRITICAL)  # torch shows the graph that it got stuck in
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            torch.export.export(Python(), (example,))
        except Exception as refused:
            error = type(refused).__name__
        finally:
            logging.disable(logging.NOTSET)
    return error, torch.export.export(Cond(), (example,)).module()


def _claims(evidence) -> None:
    values = evidence.values
    evidence.claim("trace_loses", "A trace keeps the branch of its example alone: every input of the other is wrong.",
                   "Een trace houdt alleen de tak van zijn voorbeeld over: elke invoer voor de andere tak gaat fout.",
                   values["trace_wrong"] == values["loud_inputs"] > 0, values["trace_wrong"])
    evidence.claim("script_keeps", "The script keeps both branches: no input is wrong.",
                   "Het script behoudt beide takken: geen enkele invoer is fout.",
                   values["script_wrong"] == 0, values["script_wrong"])
    evidence.claim("trace_warns", "The tracer does warn.", "De tracer waarschuwt wel.",
                   values["trace_warning"] == "TracerWarning", values["trace_warning"])
    evidence.claim("script_limits", "torch.jit.script cannot compile the Hugging Face model at all.",
                   "torch.jit.script kan het Hugging Face-model helemaal niet compileren.",
                   values["script_error"] != "none", values["script_error"])
    evidence.claim("export_refuses", "torch.export refuses a branch on data instead of losing it; torch.cond keeps it.",
                   "torch.export weigert een vertakking op data in plaats van ze te verliezen; torch.cond behoudt ze.",
                   values["export_error"] != "none" and values["export_cond_wrong"] == 0, values["export_error"])


def draw(evidence, figure) -> None:
    panel, peaks = figure.subplots(), evidence.series["peaks"]
    styles = {"Python": ("-", common.GREY, 9), "trace": ("x--", common.RED, 2), "script": ("o", common.BLUE, 2)}
    for name, output in evidence.series["outputs"].items():
        style, colour, width = styles[name]
        panel.plot(peaks, output, style, color=colour, linewidth=width, markersize=9, alpha=0.5 if width == 9 else 1,
                   label={"Python": "Python", "trace": "torch.jit.trace (example: soft)",
                          "script": "torch.jit.script"}[name])
    panel.axvline(1, color="black", linewidth=0.8, linestyle=":")
    panel.set(xlabel="peak of the input", ylabel="peak of the output",
              title="if sound.abs().max() > 1: the trace never turns it down")
    panel.legend()


def main(argv: list[str] | None = None) -> int:
    return common.run("trace_script", "2.03", __doc__, measure, draw, argv)


if __name__ == "__main__":
    common.console.run(main)
