"""What goes wrong when sound is not resampled to the rate that the model expects?

Measured: word errors and transcripts of clips whose samples were taken at 8, 22.05 or 44.1 kHz and declared 16 kHz;
where a tone of 1000 Hz then seems to lie; what folds back when samples are dropped without a filter; that soxr and
torchaudio make the same of a correct resampling. The clips were recorded at 16 kHz and resampled to the other rates
with soxr.
"""

import importlib
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

from workbook.evidence import common

RATES = {"8k": 8000, "22k": 22050, "44k": 44100}
SHOWN = "kitchen.wav"


def measure(evidence, args) -> None:
    from whisper_lab.features import FeatureSpec

    runtime, clips = common.best_runtime(), common.spoken(args.quick)
    evidence.value("model", common.best().name)
    right, words, texts = common.word_error_rate(runtime, clips, common.greedy())
    before, shown = common.counted(clips, texts), common.english(args.quick).index(SHOWN)
    evidence.value("transcript_right", texts[shown])
    evidence.value("words", words, stable=not args.quick)
    evidence.value("wer_right_percent", right, "%")
    for name, rate in RATES.items():
        wrong = [(taken_at(rate, sound), text) for sound, text in clips]
        worse, _, texts = common.word_error_rate(runtime, wrong, common.greedy())
        evidence.value(f"wer_{name}_as_16k_percent", worse, "%")
        common.difference(evidence, f"change_{name}", before, common.counted(clips, texts), args.seed)
        evidence.value(f"transcript_{name}_as_16k", texts[shown] or "(nothing)")
    evidence.value("transcript_wrong", evidence.values["transcript_44k_as_16k"])
    evidence.value("duration_right_s", len(common.samples(SHOWN)) / common.RATE, "s", stable=True)
    evidence.value("duration_wrong_s", len(taken_at(44100, common.samples(SHOWN))) / common.RATE, "s", stable=True)
    evidence.value("stretch_ratio", 44100 / common.RATE, stable=True)
    _tones(evidence)
    _agreement(evidence, clips[0][0])
    _extractor(evidence)
    spec = FeatureSpec.from_folder(common.best().folder)
    evidence.series = {"spec": spec, "sounds": {"16 kHz, right": common.samples(SHOWN)} | {
        f"{rate / 1000:g} kHz read as 16": taken_at(rate, common.samples(SHOWN)) for rate in RATES.values()}}
    _claims(evidence)


def taken_at(rate: int, sound: np.ndarray) -> np.ndarray:
    """The samples that a recorder at `rate` Hz would have taken of this sound."""
    import soxr

    return soxr.resample(sound, common.RATE, rate).astype(np.float32)


def loudest_hz(sound: np.ndarray, rate: int) -> float:
    """Where the spectrum's peak lies, if the sound was taken at `rate` Hz."""
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    return float(np.fft.rfftfreq(len(sound), 1 / rate)[spectrum.argmax()])


def _tones(evidence) -> None:
    """A tone that lies too low, and a tone that no filter kept from folding back."""
    tone = np.sin(2 * np.pi * 1000 * np.arange(2 * 44100) / 44100)  # 2 s at 44.1 kHz
    evidence.value("tone_hz", 1000, "Hz", stable=True)
    evidence.value("tone_seen_hz", round(loudest_hz(tone, common.RATE), 1), "Hz", stable=True)
    high = np.sin(2 * np.pi * 10000 * np.arange(2 * 32000) / 32000)  # 2 s at 32 kHz
    evidence.value("alias_tone_hz", 10000, "Hz", stable=True)
    evidence.value("alias_seen_hz", round(loudest_hz(high[::2], common.RATE), 1), "Hz", stable=True)
    import soxr

    left = soxr.resample(high, 32000, common.RATE)  # the filter leaves hardly anything of what cannot be there
    evidence.value("alias_left_db", 20 * np.log10(left[1000:-1000].std() / high[::2].std()), "dB")


def _agreement(evidence, sound: np.ndarray) -> None:
    """soxr and torchaudio, from 44.1 kHz back to 16 kHz."""
    import soxr
    import torch

    from whisper_lab.metrics import sqnr_db

    functional = torchaudio_functional()

    high = taken_at(44100, sound)
    one = soxr.resample(high, 44100, common.RATE)
    other = functional.resample(torch.from_numpy(high), 44100, common.RATE).numpy()
    length = min(len(one), len(other))
    evidence.value("resamplers_agree_db", sqnr_db(one[:length], other[:length]), "dB")
    evidence.claim("resamplers", "soxr and torchaudio resample to the same sound: the difference is 30 dB below it.",
                   "soxr en torchaudio resamplen tot hetzelfde geluid: het verschil ligt er 30 dB onder.",
                   evidence.values["resamplers_agree_db"] > 30, evidence.values["resamplers_agree_db"])


def torchaudio_functional():
    """torchaudio.functional, also where torchaudio's native part does not load: resampling is pure Python."""
    from whisper_lab import checkpoints, torchaudio_repair

    checkpoints.import_transformers()  # may have hidden torchaudio, for that very reason
    if sys.modules.get("torchaudio") is not None:
        return importlib.import_module("torchaudio.functional")
    with tempfile.TemporaryDirectory() as folder:  # a copy without the native files, as `doctor --fix` would leave it
        shutil.copytree(torchaudio_repair.folder(), Path(folder) / "torchaudio",
                        ignore=shutil.ignore_patterns("__pycache__", *(f"*{end}" for end in torchaudio_repair.NATIVE)))
        sys.path.insert(0, folder)
        del sys.modules["torchaudio"]
        try:
            return importlib.import_module("torchaudio.functional")
        finally:
            sys.path.remove(folder)
            for name in [name for name in sys.modules if name.split(".")[0] == "torchaudio"]:
                del sys.modules[name]
            sys.modules["torchaudio"] = None


def _extractor(evidence) -> None:
    from whisper_lab.checkpoints import import_transformers
    from workbook.evidence.processor import _error, _warns

    extractor = import_transformers().WhisperFeatureExtractor.from_pretrained(common.best().folder)
    evidence.value("extractor_error", _error(extractor, common.samples(SHOWN)), stable=True)
    evidence.value("extractor_warns", "yes" if _warns(extractor, common.samples(SHOWN)) else "no", stable=True)


def _claims(evidence) -> None:
    values = evidence.values
    evidence.claim("right", "At the right rate fewer than one word in three is wrong.",
                   "Met de juiste sample rate is minder dan één woord op drie fout.",
                   values["wer_right_percent"] < 33, values["wer_right_percent"])
    evidence.claim("wrong", "44.1 kHz read as 16 kHz makes more than half of the words wrong.",
                   "44,1 kHz gelezen als 16 kHz maakt meer dan de helft van de woorden fout.",
                   values["wer_44k_as_16k_percent"] > 50, values["wer_44k_as_16k_percent"])
    evidence.claim("wrong_low", "8 kHz read as 16 kHz makes more than half of the words wrong.",
                   "8 kHz gelezen als 16 kHz maakt meer dan de helft van de woorden fout.",
                   values["wer_8k_as_16k_percent"] > 50, values["wer_8k_as_16k_percent"])
    seen, expected = values["tone_seen_hz"], 1000 / values["stretch_ratio"]
    evidence.claim("tone", "A tone sampled at 44.1 kHz and read as 16 kHz lies lower by exactly the rates' ratio.",
                   "Een toon, gesampled op 44,1 kHz en gelezen als 16 kHz, ligt precies in die verhouding lager.",
                   abs(seen - expected) < 1, seen)
    evidence.claim("alias", "Dropping every other sample without a filter folds a tone back to another frequency.",
                   "Elke tweede sample weglaten zonder filter vouwt een toon terug naar een andere frequentie.",
                   abs(values["alias_seen_hz"] - 6000) < 1, values["alias_seen_hz"])
    evidence.claim("refuses", "The extractor refuses a wrong rate, and only warns when it is given none.",
                   "De extractor weigert een verkeerde sample rate, en waarschuwt alleen als je er geen opgeeft.",
                   (values["extractor_error"], values["extractor_warns"]) == ("ValueError", "yes"),
                   values["extractor_error"])


def draw(evidence, figure) -> None:
    from whisper_lab.features import log_mel

    spec, values = evidence.series["spec"], evidence.values
    panels = figure.subplots(2, 2, sharey=True).ravel()
    texts = [values["transcript_right"], *(values[f"transcript_{name}_as_16k"] for name in RATES)]
    for panel, (name, sound), text in zip(panels, evidence.series["sounds"].items(), texts, strict=True):
        seconds = min(len(sound) / common.RATE, spec.window_s)
        image = log_mel(sound, spec)[:, :int(seconds * 100)]
        panel.imshow(image, origin="lower", aspect="auto", cmap="magma", extent=(0, seconds, 0, spec.n_mels))
        panel.set_title(f"{name}\n“{text[:40]}{'…' if len(text) > 40 else ''}”", fontsize=13)
    for panel in panels[2:]:
        panel.set_xlabel("time as the model counts it (s)")
    for panel in panels[::2]:
        panel.set_ylabel("mel band")


def main(argv: list[str] | None = None) -> int:
    return common.run("sample_rate", "2.01", __doc__, measure, draw, argv)


if __name__ == "__main__":
    common.console.run(main)
