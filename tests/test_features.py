"""Features: the same numbers as WhisperFeatureExtractor, and no slower."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from whisper_lab.console import LabError
from whisper_lab.features import FeatureSpec, hertz_to_mel, log_mel, mel_filters, mel_to_hertz

RATE = 16_000
ROOT = Path(__file__).parents[1]
SHAPES = [(64, 10), (80, 30), (128, 30), (80, 7)]  # mel bins, window in seconds


def spec_of(n_mels: int, seconds: int) -> FeatureSpec:
    return FeatureSpec(n_mels, 400, 160, RATE, seconds * RATE)


@pytest.fixture(scope="module")
def transformers_extractor():
    """A function (n_mels, seconds) -> WhisperFeatureExtractor."""
    try:
        import torchaudio  # noqa: F401
    except (ImportError, OSError):
        sys.modules["torchaudio"] = None  # beside another torch build it cannot load; transformers then does without
    from transformers import WhisperFeatureExtractor

    return lambda n_mels, seconds: WhisperFeatureExtractor(feature_size=n_mels, chunk_length=seconds)


def signals(n: int) -> dict[str, np.ndarray]:
    """Signals of n samples (where n leaves a choice)."""
    noise = np.random.default_rng(0).standard_normal(n).astype(np.float32)
    time_s = np.arange(n) / RATE
    return {
        "noise": 0.1 * noise,
        "faint noise": 1e-5 * noise,
        "silence": np.zeros(n, np.float32),
        "full-scale sine": np.sin(2 * np.pi * 440 * time_s).astype(np.float32),
        "sweep": np.sin(2 * np.pi * 2000 * time_s**2 / max(time_s[-1:].sum(), 1)).astype(np.float32),
    }


@pytest.mark.parametrize("n_mels, seconds", SHAPES)
def test_equal_to_transformers(transformers_extractor, n_mels, seconds):
    extractor, window = transformers_extractor(n_mels, seconds), seconds * RATE
    lengths = [0, 1, 160, 199, 200, 201, 12_345, window - 41, window - 1, window, window + 1, window + 5 * RATE]
    for length in lengths:
        few = length not in (12_345, window)
        for name, samples in signals(length).items():
            if few and name != "noise":
                continue
            ours = log_mel(samples, spec_of(n_mels, seconds))
            theirs = extractor(samples, sampling_rate=RATE, return_tensors="np").input_features[0]
            assert ours.dtype == np.float32 and ours.shape == theirs.shape == (n_mels, seconds * 100)
            assert np.abs(ours - theirs).max() <= 1e-4, f"{name}, {length} samples"


def test_longer_than_the_window_uses_its_start():
    samples, spec = signals(12 * RATE)["noise"], spec_of(80, 10)
    np.testing.assert_array_equal(log_mel(samples, spec), log_mel(samples[: 10 * RATE], spec))


@pytest.mark.parametrize("frames", [2, 100, 778, 998, 1000])
def test_the_beginning_of_a_window_has_the_windows_own_features(frames):
    """Softest and loudest are those of the whole window, whether the sound ends before the cut, at it or behind it."""
    spec = spec_of(80, 10)
    for length in (1, 16_000, 124_480, 160_000):
        for samples in signals(length).values():
            np.testing.assert_array_equal(log_mel(samples, spec, frames), log_mel(samples, spec)[:, :frames])


@pytest.mark.parametrize("n_mels", [64, 80, 128])
def test_filters_equal_to_transformers(transformers_extractor, n_mels):
    ours = mel_filters(n_mels, 400, RATE)
    assert ours.shape == (n_mels, 201) and ours.dtype == np.float32
    np.testing.assert_allclose(ours, transformers_extractor(n_mels, 30).mel_filters.T, atol=1e-8)


def test_filters_are_cached_and_cannot_be_spoilt():
    assert mel_filters(80, 400, RATE) is mel_filters(80, 400, RATE)
    with pytest.raises(ValueError):
        mel_filters(80, 400, RATE)[0, 0] = 1.0


def test_mel_scale_has_its_published_points_and_inverse():
    np.testing.assert_allclose(hertz_to_mel([0.0, 200.0, 1000.0, 6400.0]), [0.0, 3.0, 15.0, 42.0])
    hertz = np.linspace(0, 8000, 101)
    np.testing.assert_allclose(mel_to_hertz(hertz_to_mel(hertz)), hertz, atol=1e-9)


def test_a_tone_lights_up_its_own_band():
    tone = np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE).astype(np.float32)
    band = log_mel(tone, spec_of(80, 1))[:, 50].argmax()
    centres = mel_to_hertz(np.linspace(0, hertz_to_mel(8000.0), 82))[1:-1]
    assert abs(centres[band] - 1000) == np.abs(centres - 1000).min()


@pytest.mark.parametrize("samples", [np.zeros(100, np.int16), np.zeros((2, 100), np.float32)])
def test_samples_that_are_no_mono_floats_are_refused(samples):
    with pytest.raises(ValueError, match="samples must be float"):
        log_mel(samples, spec_of(80, 10))


def write_config(folder, **changes):
    config = {"feature_size": 64, "n_fft": 400, "hop_length": 160, "sampling_rate": RATE, "chunk_length": 10}
    config = {key: value for key, value in (config | changes).items() if value is not None}
    (folder / "preprocessor_config.json").write_text(json.dumps(config))


def test_spec_comes_from_the_checkpoint(tmp_path):
    write_config(tmp_path)
    spec = FeatureSpec.from_folder(tmp_path)
    assert spec == FeatureSpec(64, 400, 160, 16_000, 160_000)
    assert (spec.n_frames, spec.window_s) == (1000, 10.0)


def test_spec_from_where_transformers_5_keeps_it(nano, tmp_path):
    whole = json.loads((nano / "preprocessor_config.json").read_text(encoding="utf-8"))
    (tmp_path / "processor_config.json").write_text(json.dumps({"feature_extractor": whole}))
    assert FeatureSpec.from_folder(tmp_path) == FeatureSpec.from_folder(nano)
    (tmp_path / "processor_config.json").write_text(json.dumps({"processor_class": "WhisperProcessor"}))
    with pytest.raises(LabError, match="feature_extractor"):
        FeatureSpec.from_folder(tmp_path)


@pytest.mark.parametrize("changes, problem", [
    ({"n_fft": None}, "does not say 'n_fft'"),
    ({"feature_size": "many"}, "does not compute"),
    ({"hop_length": 0}, "does not compute"),
    ({"dither": 0.1}, "does not compute"),
])
def test_spec_of_an_unusable_configuration(tmp_path, changes, problem):
    write_config(tmp_path, **changes)
    with pytest.raises(LabError, match=problem):
        FeatureSpec.from_folder(tmp_path)


def test_spec_of_a_folder_that_is_no_checkpoint(tmp_path):
    with pytest.raises(LabError, match="No such file"):
        FeatureSpec.from_folder(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(LabError, match="not a feature extractor"):
        FeatureSpec.from_folder(tmp_path)


def ratio_of_times(ours, theirs, rounds: int = 15) -> float:
    """Processor time of one function over that of another: the least of each, taken in turns, on this thread."""
    def seconds(function) -> float:
        start = time.thread_time()
        function()
        return time.thread_time() - start

    pairs = [(seconds(ours), seconds(theirs)) for _ in range(rounds)]
    return min(own for own, _ in pairs) / min(other for _, other in pairs)


def test_about_as_fast_as_transformers(transformers_extractor):
    """On one thread each: ours uses one by design, and torch's others depend on what else the machine does.

    A core that shares its cache with a busy neighbor made it 1.23, ours without FRAMES_AT_ONCE 1.35 to 1.52.
    """
    import torch

    samples, threads = signals(30 * RATE)["noise"], torch.get_num_threads()
    extractor, spec = transformers_extractor(80, 30), spec_of(80, 30)
    try:
        torch.set_num_threads(1)
        ratio = ratio_of_times(lambda: log_mel(samples, spec),
                               lambda: extractor(samples, sampling_rate=RATE, return_tensors="np"))
    finally:
        torch.set_num_threads(threads)
    assert ratio < 1.5


def test_padding_costs_nothing():
    speech, spec = signals(30 * RATE)["noise"], spec_of(80, 30)
    assert ratio_of_times(lambda: log_mel(speech[: 3 * RATE], spec), lambda: log_mel(speech, spec)) < 0.5


def test_starts_no_other_threads():
    """Spinning BLAS workers would take time from the encoder; they show as processor time beyond this thread's."""
    code = """if True:
        import resource, sys, numpy as np
        from whisper_lab.features import FeatureSpec, log_mel
        samples = np.random.default_rng(0).standard_normal(480_000).astype(np.float32)
        def used(who): return sum(resource.getrusage(who)[:2])
        for n_mels in (80, 128):
            spec = FeatureSpec(n_mels, 400, 160, 16_000, 480_000)
            shares = []
            for _ in range(4):  # the least of four: clocks of a few ms and a busy machine blur a single one
                before, before_thread = used(resource.RUSAGE_SELF), used(resource.RUSAGE_THREAD)
                for _ in range(20): log_mel(samples, spec)
                own = used(resource.RUSAGE_THREAD) - before_thread
                shares.append((used(resource.RUSAGE_SELF) - before - own) / own)
            assert min(shares) < 0.1, f"{n_mels} mel bins: other threads took {min(shares):.0%} of this one's time"
        assert not {"torch", "transformers", "librosa"} & set(sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
