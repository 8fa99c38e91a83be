"""The speaker encoder as an ONNX graph: exported here once, checked against PyTorch, run in onnxruntime.

A fingerprint is made of SECONDS of speech: shorter stretches are repeated until they fill that, longer ones are looked
at every HOP seconds. Two fingerprints of the same voice point into the same direction; their cosine says how much.
"""

import functools
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from whisper_lab import console, files
from whisper_lab.audio import SAMPLE_RATE
from whisper_lab.console import LabError
from whisper_lab.speakers.voice import Stretch
from whisper_lab.weights import store

# Features as Kaldi computes them --------------------------------------------------------------------------------------

# What the speaker encoder hears: 80 log-mel energies every 10 ms, as Kaldi computes them.
#
# Whisper's own features do not fit: another scale of mel, another window, and clipped to 80 dB below the loudest point.
# Source: Kaldi's feature extraction (Povey et al. 2011, "The Kaldi Speech Recognition Toolkit"; its
# `compute-fbank-feats` without dither), which the published weights were trained on. A test compares it with
# torchaudio's version.

BINS = 80
FRAME, SHIFT = round(0.025 * SAMPLE_RATE), round(0.010 * SAMPLE_RATE)  # samples: 25 ms every 10 ms
N_FFT = 512  # the next power of two
LOW_HZ, HIGH_HZ = 20.0, SAMPLE_RATE / 2
PREEMPHASIS = 0.97  # high frequencies, which carry less energy, are raised
FULL_SCALE = 32768.0  # Kaldi counts in 16-bit steps
# Of the energy in a band: what is softer counts as equally empty, such as all that a telephone leaves out. Kaldi's own
# floor would make a feature of the rounding noise there: the equal error rate over a telephone is 10 % with that, 8.4 %
# with this one, and 1.1 % without a telephone in both.
FLOOR = np.float32(np.exp(9.0))


def samples_of(frames: int) -> int:
    """How many samples hold exactly this many frames."""
    return FRAME + (frames - 1) * SHIFT


def kaldi_log_mel(samples: np.ndarray) -> np.ndarray:
    """float32 [n] in -1..1 at 16 kHz -> float32 [frames, BINS], the mean of each band over time taken away.

    Taking the mean away takes the microphone and the room away with it: what is left is more of the voice.
    """
    frames = sliding_window_view(samples.astype(np.float32) * np.float32(FULL_SCALE), FRAME)[::SHIFT]
    frames = frames - frames.mean(axis=1, keepdims=True)
    before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    spectrum = np.fft.rfft((frames - np.float32(PREEMPHASIS) * before) * povey_window(), N_FFT)  # [frames, 257]
    energy = (spectrum.real ** 2 + spectrum.imag ** 2).astype(np.float32) @ kaldi_filters().T
    logs = np.log(np.maximum(energy, FLOOR))
    return logs - logs.mean(axis=0)


@functools.cache
def povey_window() -> np.ndarray:
    """Povey's window: Hann's to the power of 0.85, float32 [FRAME]."""
    return (np.hanning(FRAME) ** 0.85).astype(np.float32)


@functools.cache
def kaldi_filters() -> np.ndarray:
    """Triangles that are straight on the mel scale 1127 ln(1 + f / 700), float32 [BINS, 1 + N_FFT / 2]."""
    def mel(hertz):
        return 1127.0 * np.log1p(np.asarray(hertz) / 700.0)

    edges = np.linspace(mel(LOW_HZ), mel(HIGH_HZ), BINS + 2)  # filter i spans edges i to i + 2
    bins = mel(np.arange(1 + N_FFT // 2) * SAMPLE_RATE / N_FFT)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangles = np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre))
    triangles[:, -1] = 0  # Kaldi leaves out the bin at half the sampling rate
    return np.maximum(0.0, triangles).astype(np.float32)


# The encoder ----------------------------------------------------------------------------------------------------------

FRAMES = 148  # of SHIFT: 1.495 s. Shorter ones know less of the voice, longer ones more often hold two voices
SECONDS = samples_of(FRAMES) / SAMPLE_RATE
HOP = 0.75  # s from one fingerprint of a stretch to the next
BATCH = 16  # fingerprints at once; more are not faster, and take more memory
GRAPH = "campplus-export1.onnx"  # another export gets another name, so that no old graph is taken for it
OPSET = 20
TOLD = ("licence", "upstream", "sha256")  # of what the store knows of the weights, in the graph's metadata
WORST = 4.0  # times PyTorch's own rounding: how far the graph may be from float64


def pieces(stretch: Stretch) -> list[Stretch]:
    """The parts of a stretch: one every HOP s, and the last one ends where the stretch does."""
    last = stretch.length - SECONDS
    if last <= 0:
        return [Stretch(stretch.start, stretch.end)]
    starts = [*np.arange(0.0, last - HOP / 2, HOP), last]
    return [Stretch(stretch.start + float(at), stretch.start + float(at) + SECONDS) for at in starts]


def features(samples: np.ndarray, piece: Stretch) -> np.ndarray:
    """float32 [FRAMES, 80] of a piece of a recording, float32 [n] at 16 kHz."""
    heard = samples[round(piece.start * SAMPLE_RATE):max(1 + round(piece.start * SAMPLE_RATE),
                                                         round(piece.end * SAMPLE_RATE))]
    return kaldi_log_mel(np.resize(heard, samples_of(FRAMES)))  # resize: again and again until it is full


class SpeakerEncoder:
    """The graph in onnxruntime."""

    def __init__(self, path: Path, threads: int | None = None):
        """path: of the graph; threads: None takes all cores. Raises LabError where it cannot be opened."""
        import onnxruntime

        from whisper_lab.sessions import session_options

        options = session_options("speaker encoder", threads, shared_pool=False)
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's have no common base
            raise LabError(f"{path} cannot be opened as a graph: {str(error).strip().splitlines()[0][:200]}",
                           f"remove {path} and run the same command again: it is made again") from error

    def embed(self, batch: np.ndarray) -> np.ndarray:
        """float32 [batch, FRAMES, 80] -> float32 [batch, 192], as the network gives them."""
        return self.session.run(None, {"features": batch})[0]

    def fingerprints(self, samples: np.ndarray, wanted: list[Stretch]) -> np.ndarray:
        """float32 [pieces, 192], each of length 1; a batch of features at a time is in memory."""
        found = [np.zeros((0, 192), np.float32)]
        for first in range(0, len(wanted), BATCH):
            found.append(self.embed(np.stack([features(samples, piece) for piece in wanted[first:first + BATCH]])))
        return unit(np.concatenate(found))


def unit(vectors: np.ndarray) -> np.ndarray:
    """Each row divided by its length."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


# Export --------------------------------------------------------------------------------------------------------------

def graph(weights: Path) -> Path:
    """The graph beside the published weights, exported unless it is there.

    Raises LabError where PyTorch is missing, the folder cannot be written, or the graph fails its gate.
    """
    path = weights.with_name(GRAPH)
    if path.is_file():
        return path
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise LabError(f"{path} is not there, and PyTorch, which exports it, is not installed",
                       "make installs it; or copy the store from a machine that has the graph") from error
    with files.atomic(path) as temporary:
        facts = store.receipt(weights.parent)
        export(load(weights), temporary, {key: str(facts[key]) for key in TOLD if key in facts})
        times = check(load(weights), temporary)
    console.note("exported", path.name, f"{path.stat().st_size / 1e6:.0f} MB, {times:.1f} times PyTorch's own rounding "
                 f"from float64, limit {WORST:g}; licence: {facts.get('licence', 'unknown')}; kept beside the weights")
    return path


def load(weights: Path):
    """The network in PyTorch, eval mode; every weight accounted for, and nothing but tensors read from the file."""
    import torch

    from whisper_lab.speakers.campplus import Campplus

    network = Campplus()
    try:
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    except Exception as error:  # torch has many
        raise LabError(f"{weights} cannot be loaded: {str(error).strip().splitlines()[0][:200]}",
                       f"remove {weights.parent} and run the same command again: it is fetched again") from error
    return network.eval()


def export(network, path: Path, facts: dict[str, str]) -> None:
    """Write the graph: float32 `features` [batch, FRAMES, 80] -> `embedding` [batch, 192]. facts: its metadata."""
    import torch

    from whisper_lab.export import graphs, torch_export

    example = torch.zeros(2, FRAMES, BINS)
    with torch_export.quiet(), torch.no_grad():
        program = torch.onnx.export(network, (example,), input_names=["features"], output_names=["embedding"],
                                    dynamo=True, opset_version=OPSET, verbose=False,
                                    dynamic_shapes={"features": {0: torch.export.Dim("batch")}})
    model = torch_export.tidy(program)
    model.graph.name = "campplus"
    model.metadata_props.update(facts)
    graphs.save(model, path)


def check(network, path: Path) -> float:
    """The gate: how many times PyTorch's own rounding the graph is from PyTorch in float64.

    On noise, on silence and on a chirp, one by one and in a batch. Raises LabError above WORST.
    """
    import torch

    from whisper_lab.export.reference import UNIT, Pool

    heard = np.stack([features(sound, Stretch(0.0, SECONDS)) for sound in _sounds()])
    with torch.no_grad():
        ours = network(torch.from_numpy(heard)).numpy()
        right = network.double()(torch.from_numpy(heard).double()).numpy()
    session = SpeakerEncoder(path, threads=1)
    own, strays = Pool(), Pool()
    for i in range(len(heard)):
        own.add(ours[i:i + 1], right[i:i + 1])
        strays.add(session.embed(heard[i:i + 1]), right[i:i + 1])
    strays.add(session.embed(heard), right)
    times = strays.error / max(own.error, UNIT["fp32"])
    if not times <= WORST:
        raise LabError(f"the exported speaker encoder is {times:.1f} times PyTorch's own rounding from float64, "
                       f"limit {WORST:g}: it was not kept", "install the pinned packages again: make")
    return times


def _sounds() -> list[np.ndarray]:
    """float32 [n]: noise, near silence, and a tone that rises."""
    time = np.arange(samples_of(FRAMES)) / SAMPLE_RATE
    noise = np.random.default_rng(0).standard_normal((2, len(time)))
    return [(0.1 * noise[0]).astype(np.float32), (1e-4 * noise[1]).astype(np.float32),
            (0.3 * np.sin(2 * np.pi * (200 + 900 * time) * time)).astype(np.float32)]
