"""The journey of one clip through the model, as numbers, as a picture and as one web page that needs nothing else."""

import base64
import io
from pathlib import Path

import numpy as np
import torch

from whisper_lab import audio, console, files, web

SAMPLE_RATE = 16000  # Hz
NEAREST = 3  # tokens shown for each audio vector
TEMPLATE = Path(__file__).with_name("journey.html")


@torch.no_grad()
def journey(model, processor, samples: np.ndarray) -> dict:
    """Everything that is drawn, from one pass through the model.

    mel [mels, frames], states [positions, encoder_dim], vectors [n, llm_dim]: only what the clip's own length covers;
    nearest: for each vector the closest token embeddings with their cosine; tokens: what was written, with the
    probability of each; looks [tokens, n]: share of attention that the writing of each token gave to each vector.
    """
    batch = processor(samples)
    states, positions = model.encode(batch["input_features"], batch["audio_attention_mask"])
    vectors, counts = model.project(states, positions)
    n = int(counts[0])
    made = model.insert(batch["input_ids"], batch["attention_mask"], vectors, counts)
    ids = model.generate(batch["input_ids"], attention_mask=batch["attention_mask"], encoder_states=states,
                         encoder_positions=positions)[0]
    begin = int((batch["input_ids"][0] == model.config.audio_token_id).nonzero())
    probabilities, looks = _write_again(model, made["inputs_embeds"], ids, begin, n)
    def text(token: int) -> str:
        shown = processor.tokenizer.decode([int(token)])
        return "".join(c if c.isprintable() else "\u00b7" for c in shown)  # a lone byte may be a control character

    return {
        "samples": samples, "seconds": len(samples) / SAMPLE_RATE,
        "mel": batch["input_features"][0, :, : int(batch["audio_attention_mask"].sum())].numpy(),
        "states": states[0, : int(positions[0])].float().numpy(), "vectors": vectors[0, :n].float().numpy(),
        "nearest": _nearest(vectors[0, :n], model.text_decoder.get_input_embeddings().weight, text),
        "tokens": [{"text": text(i), "probability": float(p)}
                   for i, p in zip(ids, probabilities, strict=True)],
        "looks": looks, "text": processor.batch_decode(ids[None])[0],
    }


def _write_again(model, embeds: torch.Tensor, ids: torch.Tensor, begin: int, n: int) -> tuple[list[float], np.ndarray]:
    """Probability of each token given those before it, and where the decoder looked: mean over layers and heads."""
    decoder, chosen = model.text_decoder, model.text_decoder.config._attn_implementation
    decoder.set_attn_implementation("eager")  # the fused kernels never form the weights
    try:
        written = decoder.get_input_embeddings()(ids)[None]
        output = decoder(inputs_embeds=torch.cat([embeds, written], 1), output_attentions=True)
    finally:
        decoder.set_attn_implementation(chosen)
    first = embeds.shape[1] - 1  # the position that writes the first token
    shares = output.logits[0, first:-1].float().softmax(-1)
    attention = torch.stack(output.attentions)[:, 0].float().mean((0, 1))[first:-1, begin : begin + n]
    looks = (attention / attention.sum(-1, keepdim=True).clamp(min=1e-9)).numpy()
    return shares.gather(1, ids[:, None])[:, 0].tolist(), looks


def _nearest(vectors: torch.Tensor, table: torch.Tensor, text) -> list[list[dict]]:
    """For each vector the token embeddings with the largest cosine."""
    unit = torch.nn.functional.normalize
    cosine, index = (unit(vectors.float(), dim=-1) @ unit(table.float(), dim=-1).T).topk(NEAREST, dim=-1)
    return [[{"token": text(i), "cosine": round(float(c), 3)} for c, i in zip(*row, strict=True)]
            for row in zip(cosine, index, strict=True)]


def write(model, processor, samples: np.ndarray, clip: Path, folder: Path) -> dict[str, str]:
    """Draw the journey of `clip`: trace-CLIP.png and trace-CLIP.html in `folder`; returns their paths."""
    import json

    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    seen = journey(model, processor, samples)
    panels = _panels(seen)
    picture, page = folder / f"trace-{clip.stem}.png", folder / f"trace-{clip.stem}.html"
    figure = _figure(plt, seen, panels, clip.name)
    with files.atomic(picture) as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)
    sounding = base64.b64encode(audio.wav_bytes(samples)).decode()
    data = {"clip": clip.name, "seconds": seen["seconds"], "text": seen["text"], "tokens": seen["tokens"],
            "nearest": seen["nearest"], "vectors": len(seen["vectors"]), "sound": sounding,
            "audio_model_id": Path(model.config.audio_model_id).name, "rate": model.config.audio_downsample_rate,
            "panels": [{"title": p["title"], "note": p["note"], "image": _image(plt, p, seen["seconds"])}
                       for p in panels]}
    text = TEMPLATE.read_text(encoding="utf-8").replace("/*DATA*/null", web.script(json.dumps(data)))
    files.write_text(page, text.replace("@POLICY@", web.policy(text)))
    console.note("journey", page, f"and {picture.name}: from {len(samples):,} samples to "
                 f"{console.count(len(seen['tokens']), 'token')}")
    return {"html": str(page), "png": str(picture)}


def _panels(seen: dict) -> list[dict]:
    """What is drawn, from top to bottom, all over the same seconds."""
    n, mels, frames = len(seen["vectors"]), *seen["mel"].shape
    positions, width = seen["states"].shape
    spread = {"states": _sorted_by_centre(seen["states"]), "vectors": _sorted_by_centre(seen["vectors"])}
    return [
        {"kind": "wave", "data": seen["samples"], "title": "1. Sound", "label": "amplitude", "top": None,
         "note": f"{len(seen['samples']):,} samples, {SAMPLE_RATE:,} a second"},
        {"kind": "image", "data": seen["mel"], "title": "2. Log-mel spectrogram", "label": "mel bin", "top": mels,
         "note": f"{frames} frames of {mels} numbers, one every 10 ms"},
        {"kind": "image", "data": spread["states"], "title": "3. Encoder output (frozen)", "label": "dimension",
         "top": width, "note": f"{positions} vectors of {width} numbers, one every 20 ms; dimensions sorted by when "
         "they are strongest"},
        {"kind": "image", "data": spread["vectors"], "title": "4. Projector output (trained)", "label": "dimension",
         "top": seen["vectors"].shape[1], "note": f"{n} vectors of {seen['vectors'].shape[1]} numbers, one every "
         f"{1000 * seen['seconds'] / n:.0f} ms; below each the nearest token of the decoder's vocabulary"},
        {"kind": "looks", "data": seen["looks"], "title": "5. Text decoder (frozen)", "label": "token written",
         "top": len(seen["tokens"]), "note": "where the decoder looks while it writes each token (attention, mean of "
         "all layers and heads)"},
    ]


def _sorted_by_centre(values: np.ndarray) -> np.ndarray:
    """[time, dimensions] -> [dimensions, time], each dimension scaled to a deviation of 1, sorted by its peak."""
    scaled = (values - values.mean(0)) / (values.std(0) + 1e-6)
    return scaled[:, np.argsort(scaled.argmax(0))].T


def _draw(axis, panel: dict, seconds: float, tokens: list[dict] | None = None) -> None:
    data = panel["data"]
    if panel["kind"] == "wave":
        step = max(1, len(data) // 4000)
        whole = data[: len(data) // step * step].reshape(-1, step)
        time = np.linspace(0, seconds, len(whole))
        axis.fill_between(time, whole.min(1), whole.max(1), color="#225ea8", linewidth=0.4, edgecolor="#225ea8")
        return
    if panel["kind"] == "looks":
        axis.imshow(data, aspect="auto", extent=(0, seconds, len(data), 0), cmap="Purples", interpolation="nearest")
        if tokens is not None:
            axis.set_yticks(np.arange(len(tokens)) + 0.5, [web.drawn(token["text"]) for token in tokens],
                            fontsize=7)
        return
    low, high = np.percentile(data, (1, 99))
    axis.imshow(data, aspect="auto", origin="lower", extent=(0, seconds, 0, len(data)), cmap="magma", vmin=low,
                vmax=high, interpolation="nearest")


def _figure(plt, seen: dict, panels: list[dict], name: str):
    """The whole journey as one picture, readable on a slide."""
    tall = max(1.6, 0.16 * len(seen["tokens"]))
    figure, axes = plt.subplots(len(panels), 1, figsize=(13, 8.4 + tall), sharex=True, layout="constrained",
                                height_ratios=[1, 1.6, 1.6, 1.6, tall])
    for axis, panel in zip(axes, panels, strict=True):
        _draw(axis, panel, seen["seconds"], seen["tokens"])
        axis.set_title(f"{panel['title']}: {panel['note']}", loc="left", fontsize=9)
        axis.set_ylabel(panel["label"], fontsize=9)
        axis.set_xlim(0, seen["seconds"])
    every = seen["seconds"] / len(seen["nearest"])
    size = 8 if len(seen["nearest"]) <= 60 else 5.5
    for i, near in enumerate(seen["nearest"]):
        token = near[0]["token"].strip()
        if token and not token.startswith("<"):
            axes[3].text((i + 0.5) * every, -0.03, web.drawn(token), fontsize=size, rotation=90, ha="center",
                         va="top", transform=axes[3].get_xaxis_transform(), clip_on=False)
    axes[-1].set_xlabel("time in s")
    figure.suptitle(web.drawn(f"{name}: {seen['text']}"), fontsize=13)
    return figure


def _image(plt, panel: dict, seconds: float) -> str:
    """One panel without any frame, as wide as the clip is long: the page puts them exactly above each other."""
    figure = plt.figure(figsize=(12, 1.6 if panel["kind"] != "wave" else 1.0))
    axis = figure.add_axes((0, 0, 1, 1))
    _draw(axis, panel, seconds)
    axis.set_xlim(0, seconds)
    axis.axis("off")
    with io.BytesIO() as file:
        figure.savefig(file, format="png", dpi=80)
        plt.close(figure)
        return base64.b64encode(file.getvalue()).decode()


