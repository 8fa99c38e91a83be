"""Which layers of a real Whisper can int8 not take, and why does a model of random weights not show it?

Measured on the encoder of whisper-base (whisper-nano where base cannot be had), int8 imitated in PyTorch: the signal
over the error at its end with one layer in int8 at a time, with all of them, and with the worst left in float; how much
louder the loudest channel of each layer's input is than the median channel; the same of random weights of that shape.
"""

import numpy as np

from workbook.evidence import common, imitated

KEPT = 3  # of the worst layers, left in float
TICKS = (2, 5, 10, 20, 50, 100)  # times louder


def measure(evidence, args) -> None:
    import torch

    from whisper_lab.export import calibration

    runtime = common.best_torch()
    evidence.value("model", common.best().name)
    encoder = runtime.model.model.encoder
    # A window of speech, and one of a clip and the silence after it.
    sounds = [torch.from_numpy(one) for one in calibration.windows(runtime.spec, args.seed)[:2]]
    layers = imitated.linears(encoder)
    with torch.no_grad():
        right = [encoder(one).last_hidden_state for one in sounds]
        loud = louder(encoder, sounds)
        tried = list(layers)[::5] if args.quick else list(layers)
        before = block_inputs(encoder, sounds[0])
        alone = {name: alone_db(encoder, name, layers[name], before, right[0]) for name in tried}
        order = sorted(alone, key=alone.get)
        evidence.value("all_db", signal_db(encoder, layers.values(), sounds, right), "dB")
        evidence.value("weights_db", signal_db(encoder, layers.values(), sounds, right, activations=False), "dB")
        kept = [layer for name, layer in layers.items() if name not in order[:KEPT]]
        evidence.value("kept_db", signal_db(encoder, kept, sounds, right), "dB")
        _random(evidence, runtime.model.config, sounds, args.seed)
    evidence.value("layers", len(layers), stable=True)
    evidence.value("kept", KEPT, stable=True)
    evidence.value("worst_layer", order[0])
    evidence.value("worst_layers", ", ".join(order[:KEPT]))
    evidence.value("worst_db", alone[order[0]], "dB")
    evidence.value("median_db", float(np.median(list(alone.values()))), "dB")
    evidence.value("worst_ratio", loud[order[0]])
    evidence.value("median_ratio", float(np.median(list(loud.values()))))
    evidence.value("kept_share_percent", 100 * sum(layers[name].weight.numel() for name in order[:KEPT])
                   / sum(layer.weight.numel() for layer in layers.values()), "%")
    evidence.series = {"alone": alone, "loud": loud}
    _claims(evidence)


def signal_db(encoder, layers, sounds: list, right: list, activations: bool = True) -> float:
    """The encoder's output with these layers in int8: signal over error, the least of the sounds."""
    from whisper_lab.metrics import sqnr_db

    with imitated.quantized(layers, activations=activations):
        return min(sqnr_db(want.numpy(), encoder(one).last_hidden_state.numpy())
                   for one, want in zip(sounds, right, strict=True))


def block_inputs(encoder, sound) -> list:
    """What each of the encoder's blocks reads."""
    seen: list = []
    hooks = [block.register_forward_pre_hook(
        lambda _, given, named: seen.append(given[0] if given else named["hidden_states"]), with_kwargs=True)
        for block in encoder.layers]
    encoder(sound)
    for hook in hooks:
        hook.remove()
    return seen


def alone_db(encoder, name: str, layer, before: list, right) -> float:
    """As `signal_db` of one layer, layers.N...: the blocks before the Nth do what they always do and are left out.

    before: `block_inputs` of the sound; right: what the whole encoder makes of it.
    """
    from whisper_lab.metrics import sqnr_db

    first = int(name.split(".")[1])
    states = before[first]
    with imitated.quantized([layer]):
        for block in encoder.layers[first:]:
            states = block(states, None)
            states = states[0] if isinstance(states, tuple) else states  # as transformers 4 returns it
    return sqnr_db(right.numpy(), encoder.layer_norm(states).numpy())


def louder(encoder, sounds: list) -> dict[str, float]:
    """Layer -> how many times louder its input's loudest channel is than the median channel."""
    heard: dict[str, list] = {}

    def listen(name: str, given) -> None:
        heard.setdefault(name, []).append(given.abs().reshape(-1, given.shape[-1]).amax(dim=0))

    hooks = [layer.register_forward_pre_hook(lambda _, given, name=name: listen(name, given[0]))
             for name, layer in imitated.linears(encoder).items()]
    for one in sounds:
        encoder(one)
    for hook in hooks:
        hook.remove()
    largest = {name: np.max([one.numpy() for one in many], axis=0) for name, many in heard.items()}
    return {name: float(each.max() / max(np.median(each), 1e-6)) for name, each in largest.items()}


def _random(evidence, config, sounds: list, seed: int) -> None:
    """The same architecture with weights that no one trained."""
    import torch

    from whisper_lab.checkpoints import import_transformers

    torch.manual_seed(seed)
    encoder = import_transformers().WhisperModel(config).eval().encoder
    right = [encoder(one).last_hidden_state for one in sounds]
    evidence.value("random_all_db", signal_db(encoder, imitated.linears(encoder).values(), sounds, right), "dB")
    evidence.value("random_largest_ratio", max(louder(encoder, sounds).values()))


def _claims(evidence) -> None:
    from whisper_lab.export.gates import SIGNAL

    values = evidence.values
    evidence.value("limit_db", SIGNAL["int8"]["encoder"], "dB", stable=True)
    evidence.claim("few", "A few layers weigh heavily: with the three worst in float the error is smaller.",
                   "Een paar lagen wegen zwaar door: met de drie slechtste in float is de fout kleiner.",
                   values["kept_db"] > values["all_db"], values["kept_db"] - values["all_db"])
    evidence.claim("random_passes", "Random weights lose less to int8 than trained ones of the same shape.",
                   "Willekeurige gewichten verliezen minder aan int8 dan getrainde van dezelfde vorm.",
                   values["random_all_db"] > values["all_db"], values["random_all_db"] - values["all_db"])
    if values["model"] == "whisper-base":
        evidence.claim("outliers", "In whisper-base the layer that int8 hurts most has channels that are twenty times "
                       "louder than the median channel.", "De laag van whisper-base die het meest lijdt onder int8, "
                       "heeft kanalen die twintig keer luider zijn dan het mediane kanaal.",
                       values["worst_ratio"] > 20, values["worst_ratio"])


def draw(evidence, figure) -> None:
    left, right = figure.subplots(1, 2, width_ratios=[1.7, 1])
    alone, loud, values = evidence.series["alone"], evidence.series["loud"], evidence.values
    colours = [common.RED if name in values["worst_layers"].split(", ") else common.BLUE for name in alone]
    left.scatter([loud[name] for name in alone], list(alone.values()), color=colours, s=60)
    left.set_xscale("log")
    left.set_xticks(TICKS, map(str, TICKS))
    left.minorticks_off()
    middle = np.sqrt(min(loud.values()) * max(loud.values()))
    for name in values["worst_layers"].split(", "):
        side = 1 if loud[name] < middle else -1  # of the point, so that the name stays within the panel
        left.annotate(name.removeprefix("layers."), (loud[name], alone[name]), (8 * side, 0), va="center", fontsize=11,
                      textcoords="offset points", ha="left" if side > 0 else "right")
    left.set(xlabel="loudest channel / median channel of its input", ylabel="one layer in int8: signal / error (dB)",
             title=f"{values['model']}, {values['layers']} layers of the encoder")
    bars = right.bar(["all", f"{values['kept']} in\nfloat", "random\nweights"],
                     [values["all_db"], values["kept_db"], values["random_all_db"]],
                     color=[common.RED, common.GREEN, common.GREY])
    right.bar_label(bars, fmt="%.1f")
    right.set(ylabel="signal / error (dB)", title="all layers in int8")


def main(argv: list[str] | None = None) -> int:
    return common.run("outliers", "4.01", __doc__, measure, draw, argv)


if __name__ == "__main__":
    common.console.run(main)
