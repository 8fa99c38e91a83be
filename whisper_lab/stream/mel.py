"""Log-mel features of sound that is still coming: every frame is computed once, whatever windows it takes part in.

A frame's log-power depends on its own 25 ms alone, so it is kept. The scaling depends on the loudest point of the
window, so each window is scaled again. Only the frames at a window's two edges are computed again: there
`features.log_mel` mirrors the samples or meets the padding.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from whisper_lab.features import LOG_FLOOR, FeatureSpec, log_power, scaled, sounding_frames


class LiveMel:
    """Samples come in, windows of features go out; positions are samples since the beginning of the sound."""

    def __init__(self, spec: FeatureSpec):
        self.spec = spec
        self.begin = 0  # the first sample that is still kept; a multiple of the hop
        self.frames = 0  # log-power of frames computed so far, edges of windows not counted
        self._samples = np.zeros(0, np.float32)
        self._logs = np.zeros((0, spec.n_mels), np.float32)  # row i: the frame centred on sample begin + i x hop

    @property
    def end(self) -> int:
        """Samples heard so far."""
        return self.begin + len(self._samples)

    def append(self, samples: np.ndarray) -> None:
        """float32 [n]: computes the frames that these samples complete."""
        self._samples = np.concatenate([self._samples, samples.astype(np.float32, copy=False)])
        hop, half, done = self.spec.hop_length, self.spec.n_fft // 2, len(self._logs)
        complete = max(done, (len(self._samples) - half) // hop + 1)
        if complete == done:
            return
        new = np.full((complete - done, self.spec.n_mels), LOG_FLOOR)
        first = max(done, -(-half // hop))  # frames before it would need samples from before `begin`
        if first < complete:
            piece = self._samples[first * hop - half:(complete - 1) * hop + half]
            new[first - done:] = log_power(sliding_window_view(piece, self.spec.n_fft)[::hop], self.spec)
            self.frames += complete - first
        self._logs = np.concatenate([self._logs, new])

    def forget(self, before: int) -> None:
        """Drop samples before this position, but for those that the next frames need."""
        hop, margin = self.spec.hop_length, self.spec.n_fft // 2
        frames = (min(before, self.end) - margin - self.begin) // hop
        if frames > 0:
            self._samples, self._logs = self._samples[frames * hop:], self._logs[frames:]
            self.begin += frames * hop

    def samples(self, start: int, end: int) -> np.ndarray:
        """The sound from start to end, float32 [end - start]; nothing of it was forgotten."""
        return self._samples[start - self.begin:end - self.begin]

    def window(self, start: int, end: int) -> np.ndarray:
        """Features of samples start..end, float32 [n_mels, n_frames]: those of log_mel(samples[start:end]).

        start: a multiple of the hop that was not forgotten; end: at most a window later and at most self.end.
        """
        spec, hop, half = self.spec, self.spec.hop_length, self.spec.n_fft // 2
        if start % hop or start < self.begin or not start <= end <= min(self.end, start + spec.n_samples):
            raise ValueError(f"no window {start}..{end} in {self.begin}..{self.end}")
        samples, offset = self.samples(start, end), (start - self.begin) // hop
        logs = np.full((spec.n_frames, spec.n_mels), LOG_FLOOR)
        sounding = sounding_frames(len(samples), spec)
        first = min(-(-half // hop), sounding)
        last = min(max(first, (len(samples) - half) // hop + 1), sounding)  # frames first..last lie inside
        logs[first:last] = self._logs[offset + first:offset + last]
        edges = np.array([*range(first), *range(last, sounding)], np.int64)
        if len(edges) and len(samples):
            logs[edges] = log_power(self._edge_frames(samples, edges), spec)
        return scaled(logs)

    def _edge_frames(self, samples: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """Frames that reach over an edge of the window: mirrored at its ends, zero in its padding."""
        spec = self.spec
        index = np.abs(frames[:, None] * spec.hop_length - spec.n_fft // 2 + np.arange(spec.n_fft))
        index = np.where(index < spec.n_samples, index, 2 * (spec.n_samples - 1) - index)
        return np.where(index < len(samples), samples[np.minimum(index, len(samples) - 1)], np.float32(0))
