"""What does the Whisper processor do to a recording, and what does it not do?

Measured: the shape and range of its features, that NumPy computes the same ones, what share of the window is padding,
and that another sample rate is refused by the extractor but resampled by the pipeline.
"""

import logging
import shutil
import tempfile
from pathlib import Path

import numpy as np

from whisper_lab import audio
from workbook.evidence import common

CLIP = "digits.wav"


def measure(evidence, args) -> None:
    from whisper_lab import checkpoints
    from whisper_lab.features import FeatureSpec, log_mel

    folder = common.checkpoint().folder
    transformers = checkpoints.import_transformers()
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(folder)
    spec, sound = FeatureSpec.from_folder(folder), common.samples(CLIP)

    theirs = extractor(sound, sampling_rate=spec.sampling_rate, return_tensors="np")["input_features"]
    ours = log_mel(sound, spec)
    evidence.value("samples", len(sound), stable=True)
    evidence.value("duration_s", len(sound) / spec.sampling_rate, "s", stable=True)
    evidence.value("window_s", spec.window_s, "s", stable=True)
    evidence.value("n_mels", spec.n_mels, stable=True)
    evidence.value("n_frames", spec.n_frames, stable=True)
    evidence.value("features_shape", " x ".join(map(str, theirs.shape)), stable=True)
    evidence.value("feature_min", float(theirs.min()))
    evidence.value("feature_max", float(theirs.max()))
    evidence.value("max_difference", float(np.abs(theirs[0] - ours).max()))
    evidence.value("padded_percent", 100 * (1 - len(sound) / spec.n_samples), "%", stable=True)
    evidence.value("extractor_error", _error(extractor, sound), stable=True)
    evidence.value("extractor_warns", "yes" if _warns(extractor, sound) else "no", stable=True)
    texts, how = _pipeline(transformers, folder, sound)
    evidence.value("pipeline_resamples", "unknown" if texts is None else "yes" if texts[0] == texts[1] else "no")
    evidence.value("pipeline_resampler", how)
    if texts:
        evidence.value("pipeline_text_16000_hz", texts[0])
        evidence.value("pipeline_text_44100_hz", texts[1])
    evidence.series |= {"features": ours, "sound": sound}

    values = evidence.values
    evidence.claim("equal", "NumPy's log-mel features and the extractor's are the same to a ten thousandth.",
                   "De log-mel-features van NumPy en die van de extractor zijn gelijk tot op een tienduizendste.",
                   values["max_difference"] < 1e-4, values["max_difference"])
    evidence.claim("fixed_window", "However short the clip, the features fill the model's whole window.",
                   "Hoe kort de clip ook is, de features vullen altijd het hele venster van het model.",
                   theirs.shape == (1, spec.n_mels, spec.n_frames), values["features_shape"])
    evidence.claim("refuses", "The extractor does not resample: given another rate it raises ValueError.",
                   "De extractor resamplet niet: met een andere sample rate geeft hij een ValueError.",
                   values["extractor_error"] == "ValueError", values["extractor_error"])
    evidence.claim("only_warns", "Given no rate at all, the extractor only warns.",
                   "Zonder opgegeven sample rate geeft de extractor alleen een waarschuwing.",
                   values["extractor_warns"] == "yes", values["extractor_warns"])
    if texts:  # where neither torchaudio nor ffmpeg is at hand, nothing can be said
        evidence.claim("pipeline", "The pipeline resamples: at 44.1 kHz it writes the same text as at 16 kHz.",
                       "De pipeline resamplet wel: bij 44,1 kHz schrijft ze dezelfde tekst als bij 16 kHz.",
                       texts[0] == texts[1], texts[1])


def _error(extractor, sound: np.ndarray) -> str:
    """The class of what the extractor raises when it hears of another rate."""
    try:
        extractor(sound, sampling_rate=44100)
    except Exception as error:
        return type(error).__name__
    return "none"


def _warns(extractor, sound: np.ndarray) -> bool:
    """Whether it says anything when the rate is left out."""
    from whisper_lab.checkpoints import import_transformers

    verbosity = import_transformers().utils.logging
    heard, catcher, log = [], logging.Handler(), logging.getLogger("transformers")
    catcher.emit = lambda record: heard.append(record.getMessage())
    before, log.handlers = log.handlers, [catcher]
    verbosity.set_verbosity_warning()
    try:
        extractor(sound)
    finally:
        verbosity.set_verbosity_error()
        log.handlers = before
    return any("sampling_rate" in message for message in heard)


def _pipeline(transformers, folder, sound: np.ndarray) -> tuple[list[str] | None, str]:
    """The pipeline's text of the clip at 16 and at 44.1 kHz, and what resampled it; None and the reason where nothing.

    Arrays are resampled by torchaudio, files by ffmpeg.
    """
    import soxr

    asr = transformers.pipeline("automatic-speech-recognition", model=common.torch_runtime().model,
                                tokenizer=transformers.WhisperTokenizer.from_pretrained(folder),
                                feature_extractor=transformers.WhisperFeatureExtractor.from_pretrained(folder))
    sounds = {rate: soxr.resample(sound, common.RATE, rate).astype(np.float32) for rate in (common.RATE, 44100)}
    spoken = {"generate_kwargs": {"language": "en", "task": "transcribe"}}
    try:
        return [asr({"raw": one, "sampling_rate": rate}, **spoken)["text"].strip()
                for rate, one in sounds.items()], "torchaudio"
    except ImportError as error:
        if not shutil.which("ffmpeg"):
            return None, f"neither torchaudio nor ffmpeg: {error}"[:120]
    with tempfile.TemporaryDirectory() as place:
        paths = [Path(place) / f"{rate}.wav" for rate in sounds]
        for path, (rate, one) in zip(paths, sounds.items(), strict=True):
            audio.write_wav(path, one, rate)
        return [asr(str(path), **spoken)["text"].strip() for path in paths], "ffmpeg"


def draw(evidence, figure) -> None:
    features, sound, values = evidence.series["features"], evidence.series["sound"], evidence.values
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[1, 2])
    top.plot(np.arange(len(sound)) / common.RATE, sound, color=common.BLUE, linewidth=0.6)
    top.set(ylabel="amplitude", title=f"{CLIP}: {values['samples']} samples become {values['features_shape']} features")
    image = bottom.imshow(features, origin="lower", aspect="auto", cmap="magma",
                          extent=(0, values["window_s"], 0, values["n_mels"]))
    bottom.axvline(values["duration_s"], color="white", linestyle="--")
    bottom.text(values["duration_s"] + 0.1, 4, f"padding: {values['padded_percent']:.0f} % of the window",
                color="white")
    bottom.set(xlabel="time (s)", ylabel="mel band")
    figure.colorbar(image, ax=bottom, label="feature value")


def main(argv: list[str] | None = None) -> int:
    return common.run("processor", "1.01", __doc__, measure, draw, argv)


if __name__ == "__main__":
    common.console.run(main)
