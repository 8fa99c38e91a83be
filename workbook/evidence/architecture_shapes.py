"""How do three seconds of sound become vectors that a language model reads, and how large is the projector?

Computed on the blueprint of script 07 (whisper-large-v3 and Qwen2-7B: every shape, no weights), with the script's own
functions; and run with real weights on whisper-nano's encoder and an untrained projector of the same kind.
"""

import importlib

import numpy as np

from workbook.evidence import common

SECONDS = 3.0
TINY_DIM = 256  # of the imagined language model behind nano's encoder


def measure(evidence, args) -> None:
    script = importlib.import_module("07-explore-architecture")
    from whisper_lab.speech_llm import ASRConfig, ASRModel

    config = ASRConfig.from_parts(*script.PRESETS["class"], local_files_only=True)
    model = ASRModel.blueprint(config)
    stages = {stage["stage"]: stage["shape"] for stage in script.follow_shapes(model, SECONDS)}
    evidence.value("seconds", SECONDS, "s", stable=True)
    evidence.value("samples", stages["digitized sound"][0], stable=True)
    evidence.value("mel_frames", stages["log-mel spectrogram"][-1], stable=True)
    evidence.value("encoder_positions", stages["of it, heard"][0], stable=True)
    evidence.value("encoder_positions_padded", stages["encoder output"][0], stable=True)
    evidence.value("stack", config.audio_downsample_rate, stable=True)
    evidence.value("llm_positions", stages["projector output"][0], stable=True)
    evidence.value("llm_positions_padded", model.audio_projector.get_output_length(stages["encoder output"][0]),
                   stable=True)
    evidence.value("encoder_dim", config.encoder_dim, stable=True)
    evidence.value("stacked_dim", config.encoder_dim * config.audio_downsample_rate, stable=True)
    evidence.value("llm_dim", config.llm_dim, stable=True)
    counts = script.count_parameters(model)
    linear = next(one for one in model.audio_projector.modules() if hasattr(one, "in_features"))
    evidence.value("projector_parameters", sum(p.numel() for p in linear.parameters()), stable=True)
    evidence.value("projector_with_norms", counts["audio_projector"]["parameters"], stable=True)
    total = sum(count["parameters"] for count in counts.values())
    evidence.value("parameters", total, stable=True)
    evidence.value("frozen_parameters", total - counts["audio_projector"]["trained"], stable=True)
    evidence.value("trainable_percent", 100 * counts["audio_projector"]["trained"] / total, "%", stable=True)
    _tiny(evidence, config.audio_downsample_rate)
    _claims(evidence)


def _tiny(evidence, stack: int) -> None:
    """The same journey with numbers in the tensors: nano's encoder hears a clip, a projector translates."""
    import torch

    from whisper_lab.features import log_mel
    from whisper_lab.speech_llm import projectors

    runtime = common.torch_runtime()
    sound = common.samples("hello.wav")[:round(SECONDS * common.RATE)]
    states = runtime.encode(log_mel(sound, runtime.spec)[None])
    heard = states[:, :len(sound) // runtime.spec.hop_length // 2]
    torch.manual_seed(0)
    projector = projectors.make_projector("linear", encoder_dim=states.shape[-1], llm_dim=TINY_DIM,
                                          downsample_rate=stack)
    with torch.inference_mode():
        vectors = projector(heard)
    evidence.value("tiny_encoder_dim", states.shape[-1], stable=True)
    evidence.value("tiny_llm_dim", vectors.shape[-1], stable=True)
    evidence.value("tiny_positions", vectors.shape[1], stable=True)
    evidence.value("tiny_finite", "yes" if bool(np.isfinite(vectors.numpy()).all()) else "no", stable=True)


def _claims(evidence) -> None:
    values = evidence.values
    evidence.claim("journey", "Each step divides as the arithmetic says: by 160, by 2, by the frames that are stacked.",
                   "Elke stap deelt zoals de rekensom zegt: door 160, door 2, door het aantal gestapelde frames.",
                   (values["mel_frames"], values["encoder_positions"], values["llm_positions"]) ==
                   (values["samples"] // 160, values["samples"] // 320, values["samples"] // 320 // values["stack"]),
                   values["llm_positions"])
    expected = values["stacked_dim"] * values["llm_dim"] + values["llm_dim"]
    evidence.claim("projector", "The projector's Linear has stacked width x LLM width weights, and a bias.",
                   "De Linear van de projector heeft gestapelde breedte x LLM-breedte gewichten, en een bias.",
                   values["projector_parameters"] == expected, values["projector_parameters"])
    evidence.claim("small_share", "Less than one percent of all parameters is trained.",
                   "Minder dan één procent van alle parameters wordt getraind.", values["trainable_percent"] < 1,
                   values["trainable_percent"])
    evidence.claim("tiny", "With real weights whisper-nano's encoder gives as many vectors for the same sound.",
                   "Met echte gewichten geeft de encoder van whisper-nano evenveel vectoren voor hetzelfde geluid.",
                   values["tiny_positions"] == values["llm_positions"] and values["tiny_finite"] == "yes",
                   values["tiny_positions"])


def draw(evidence, figure) -> None:
    panel, values = figure.subplots(), evidence.values
    steps = {"samples": values["samples"], "mel frames": values["mel_frames"],
             "encoder\npositions": values["encoder_positions"], "vectors for\nthe LLM": values["llm_positions"]}
    bars = panel.bar(list(steps), list(steps.values()),
                     width=0.56, color=[common.GREY, common.BLUE, common.ORANGE, common.GREEN])
    panel.bar_label(bars, labels=[f"{size:,}" for size in steps.values()], fontsize=15)
    panel.set_yscale("log")
    panel.set(ylabel="how many", ylim=(10, 150_000), title=f"{values['seconds']:g} s of sound on its way to the "
              f"language model: {values['encoder_dim']} x {values['stack']} = {values['stacked_dim']} → "
              f"{values['llm_dim']} wide")
    for x, text in ((0.5, "÷ 160"), (1.5, "÷ 2"), (2.5, f"÷ {values['stack']}")):
        panel.text(x, 40_000, text, ha="center", fontsize=15)


def main(argv: list[str] | None = None) -> int:
    return common.run("architecture_shapes", "3.19", __doc__, measure, draw, argv)


if __name__ == "__main__":
    common.console.run(main)
