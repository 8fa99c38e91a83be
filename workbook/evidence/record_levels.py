"""What do wrong levels do to a recording: 24 bits read as 16, too quiet, clipped?

Measured: the factor between the full scales of 32 and 16 bits and what it does to log-mel features, word errors of the
same clips unscaled, quiet and clipped, and how far peak normalization lifts the noise of a quiet recording.
"""

import numpy as np

from workbook.evidence import common

QUIET_DB = -30.0
CLIP_GAIN = 10.0  # 20 dB too loud


def measure(evidence, args) -> None:
    from whisper_lab import loudness
    from whisper_lab.features import FeatureSpec, log_mel

    runtime, clips = common.best_runtime(), common.spoken(args.quick)
    evidence.value("model", common.best().name)
    spec = FeatureSpec.from_folder(common.best().folder)
    factor = 2**16  # a 24-bit recording left in a 32-bit integer, divided by 2^15 as if it had 16 bits
    variants = {"original": lambda x: x, "unscaled": lambda x: x * np.float32(factor),
                "quiet": lambda x: (x / np.abs(x).max() * 10 ** (QUIET_DB / 20)).astype(np.float32),
                "clipped": lambda x: np.clip(x / np.abs(x).max() * CLIP_GAIN, -1, 1).astype(np.float32)}
    counts = {}
    for name, change in variants.items():
        changed = [(change(sound), text) for sound, text in clips]
        rate, words, texts = common.word_error_rate(runtime, changed, common.greedy())
        evidence.value(f"wer_{name}_percent", rate, "%")
        counts[name] = common.counted(clips, texts)
        if name != "original":
            common.difference(evidence, f"change_{name}", counts["original"], counts[name], args.seed)
    evidence.value("words", words, stable=not args.quick)
    evidence.value("factor_24bit", factor, stable=True)
    # Far from the floor at -100 dB: a full window of noise, so that nothing but the factor shows.
    noise = 0.1 * np.random.default_rng(args.seed).standard_normal(spec.n_samples).astype(np.float32)
    shift = np.median(log_mel(noise * np.float32(factor), spec) - log_mel(noise, spec))
    evidence.value("feature_shift", float(shift))
    evidence.value("feature_shift_expected", float(np.log10(factor**2) / 4), stable=True)
    sound = clips[0][0]
    evidence.value("peak_dbfs", loudness.level(sound).peak_dbfs, "dBFS", stable=True)
    evidence.value("quiet_db", QUIET_DB, "dBFS", stable=True)
    evidence.value("clipped_percent", 100 * loudness.level(variants["clipped"](sound)).clipped_fraction, "%")
    _noise(evidence, variants["quiet"](sound), args.seed)
    evidence.series = {"sounds": {name: change(sound) for name, change in variants.items()}, "spec": spec}
    _claims(evidence)


def _noise(evidence, quiet: np.ndarray, seed: int) -> None:
    """A quiet recording over the noise of its microphone (-66 dBFS): peak normalization raises both alike."""
    noise = (10 ** (-66 / 20) * np.random.default_rng(seed).standard_normal(len(quiet))).astype(np.float32)
    gain = 1 / np.abs(quiet + noise).max()
    before, after = (float(np.sqrt(np.mean(one**2))) for one in (noise, gain * noise))
    evidence.value("noise_raised_db", 20 * np.log10(after / before), "dB")
    evidence.value("snr_before_db", 20 * np.log10(quiet.std() / noise.std()), "dB")
    evidence.value("snr_after_db", 20 * np.log10((gain * quiet).std() / (gain * noise).std()), "dB")


def _claims(evidence) -> None:
    values = evidence.values
    evidence.claim("shift", "A factor on the samples is a constant on the features: log10(65536²) / 4.",
                   "Een factor op de samples wordt een constante bij de features: log10(65536²) / 4.",
                   abs(values["feature_shift"] - values["feature_shift_expected"]) < 1e-3, values["feature_shift"])
    evidence.claim("unscaled_hurts", "Unscaled 24-bit samples raise the word error rate.",
                   "Samples van 24 bits zonder schaling verhogen de WER.",
                   values["wer_unscaled_percent"] > values["wer_original_percent"], values["wer_unscaled_percent"])
    evidence.claim("quiet_is_fine", "A peak of -30 dBFS alone costs at most five percentage points.",
                   "Een piek van -30 dBFS kost op zich hoogstens vijf procentpunt.",
                   values["wer_quiet_percent"] <= values["wer_original_percent"] + 5, values["wer_quiet_percent"])
    evidence.claim("clipping", "Strong clipping does not improve the WER (by one percentage point at most).",
                   "Sterke clipping maakt de WER niet beter (hoogstens één procentpunt).",
                   values["wer_clipped_percent"] >= values["wer_original_percent"] - 1, values["wer_clipped_percent"])
    evidence.claim("noise_rises", "Peak normalization raises noise with speech: their distance stays the same.",
                   "Pieknormalisatie tilt ruis samen met spraak op: hun afstand blijft gelijk.",
                   values["noise_raised_db"] > 20 and abs(values["snr_after_db"] - values["snr_before_db"]) < 0.01,
                   values["noise_raised_db"])


def draw(evidence, figure) -> None:
    from whisper_lab.features import log_mel

    spec, values = evidence.series["spec"], evidence.values
    panels = figure.subplots(2, 2, sharex=True, sharey=True).ravel()
    titles = {"original": "original", "unscaled": "24 bits unscaled (x 65536)",
              "quiet": f"quiet, peak {QUIET_DB:.0f} dBFS", "clipped": f"clipped, {values['clipped_percent']:.0f} %"}
    for panel, (name, sound) in zip(panels, evidence.series["sounds"].items(), strict=True):
        seconds = len(sound) / common.RATE
        image = panel.imshow(log_mel(sound, spec)[:, :int(100 * seconds)], origin="lower", aspect="auto",
                             extent=(0, seconds, 0, spec.n_mels), cmap="magma", vmin=-1.5, vmax=4)
        panel.set_title(f"{titles[name]}: WER {values[f'wer_{name}_percent']:.0f} %")
    for panel in panels[2:]:
        panel.set_xlabel("time (s)")
    for panel in panels[::2]:
        panel.set_ylabel("mel band")
    figure.colorbar(image, ax=panels, label="feature value")


def main(argv: list[str] | None = None) -> int:
    return common.run("record_levels", "3.02", __doc__, measure, draw, argv)


if __name__ == "__main__":
    common.console.run(main)
