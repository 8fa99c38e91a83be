"""Clips into log-mel spectrograms, a whole batch at a time on one device: room, noise, codec, features.

Every effect is drawn per clip from a seeded generator. The features equal WhisperFeatureExtractor's
(a test holds them together), but for what only training does: warped formants, equalizers, masks.
"""

import math

import numpy as np
import torch

from training.examples import RMS
from whisper_lab.spoken.voices import SAMPLE_RATE

N_FFT, HOP = 400, 160


class Augmenter:
    """Renders batches on `device`; filters: mel filterbank [n_fft / 2 + 1, n_mels]."""

    def __init__(self, filters: np.ndarray, device: str):
        self.device = device
        self.filters = torch.from_numpy(filters).float().to(device)
        self.generator = torch.Generator(device)
        self.strength = 1.0  # share of the usual chance of every effect: training begins gently

    def render(self, batch: dict[str, torch.Tensor], augment: bool = True) -> torch.Tensor:
        """Log-mel spectrograms [clips, n_mels, frames] of a collated batch."""
        wave = self._degrade(batch["wave"]) if augment else batch["wave"]
        time = torch.arange(wave.shape[1], device=self.device)
        return self.features(wave * (time < batch["recorded"][:, None]), augment)

    def features(self, wave: torch.Tensor, augment: bool = False) -> torch.Tensor:
        """Whisper's log-mel spectrogram of each wave [clips, window]."""
        hann = torch.hann_window(N_FFT, device=self.device)
        spectrum = torch.stft(wave, N_FFT, HOP, window=hann, return_complex=True, pad_mode="reflect")
        power = spectrum[..., :-1].abs().square()  # [clips, 201, frames]
        if augment:
            power = self._equalize(self._warp(power))
        mel = torch.einsum("fm,bft->bmt", self.filters, power)
        log = mel.clamp(min=1e-10).log10()
        log = torch.maximum(log, log.amax((1, 2), keepdim=True) - 8.0)
        log = (log + 4.0) / 4.0
        return self._mask(log) if augment else log

    # -- effects, each for a random part of the clips ------------------------------------------------------------------

    def _uniform(self, clips: int, low: float, high: float) -> torch.Tensor:
        return torch.rand(clips, 1, device=self.device, generator=self.generator) * (high - low) + low

    def _chance(self, clips: int, p: float) -> torch.Tensor:
        return torch.rand(clips, 1, device=self.device, generator=self.generator) < p * self.strength

    def _some(self, wave: torch.Tensor, p: float, effect) -> torch.Tensor:
        """Apply `effect` to a random part of the clips, and compute it for those alone."""
        chosen = self._chance(len(wave), p).flatten().nonzero().flatten()
        return wave.index_copy(0, chosen, effect(wave[chosen])) if len(chosen) else wave

    def _degrade(self, wave: torch.Tensor) -> torch.Tensor:
        wave = self._some(wave, 0.3, self._reverberate)
        wave = self._some(wave, 0.7, self._noise)
        wave = self._some(wave, 0.08, self._hum)
        wave = self._some(wave, 0.05, self._overdrive)
        wave = wave * 10 ** (self._uniform(len(wave), -30, 10) / 20)
        return self._some(wave, 0.1, _mu_law)

    def _overdrive(self, wave: torch.Tensor) -> torch.Tensor:
        """Clip the peaks."""
        limit = wave.abs().amax(1, keepdim=True) * self._uniform(len(wave), 0.3, 0.9)
        return torch.clamp(wave, -limit, limit)

    def _reverberate(self, wave: torch.Tensor) -> torch.Tensor:
        """A room: exponentially decaying noise of 0.1 to 0.6 s (T60) behind the direct sound."""
        n = SAMPLE_RATE // 2
        time = torch.arange(n, device=self.device) / SAMPLE_RATE
        decay = torch.exp(-6.9 * time / self._uniform(len(wave), 0.1, 0.6))
        noise = torch.randn(len(wave), n, device=self.device, generator=self.generator)
        echo = noise * decay * (time > 0.002)
        echo = echo / echo.square().sum(1, keepdim=True).sqrt()
        echo = echo * 10 ** (self._uniform(len(wave), -15, 0) / 20)
        echo[:, 0] = 1.0
        size = _fast_size(wave.shape[1] + n)
        return torch.fft.irfft(torch.fft.rfft(wave, size) * torch.fft.rfft(echo, size), size)[:, : wave.shape[1]]

    def _noise(self, wave: torch.Tensor) -> torch.Tensor:
        """Coloured noise (white to brown, sometimes a swell) 2 to 45 dB below the speech."""
        clips, window = wave.shape
        size = _fast_size(window)
        white = torch.randn(clips, size, device=self.device, generator=self.generator)
        shape = (torch.arange(size // 2 + 1, device=self.device) + 20.0) ** -self._uniform(clips, -0.2, 1.1)
        noise = torch.fft.irfft(torch.fft.rfft(white) * shape, size)[:, :window]
        time = torch.arange(window, device=self.device) / SAMPLE_RATE
        swell = 1 + 0.8 * torch.sin(time * self._uniform(clips, 0.5, 8) + self._uniform(clips, 0, 6.3))
        noise = noise * torch.where(self._chance(clips, 0.4), swell, 1.0)
        noise = noise / noise.square().mean(1, keepdim=True).sqrt()
        return wave + noise * RMS * 10 ** (-self._uniform(clips, 2, 45) / 20)

    def _hum(self, wave: torch.Tensor) -> torch.Tensor:
        """Mains hum or a beep."""
        clips, window = wave.shape
        time = torch.arange(window, device=self.device) / SAMPLE_RATE
        hertz = torch.where(self._chance(clips, 0.5), 50.0, self._uniform(clips, 200, 3000))
        tone = torch.sin(2 * math.pi * hertz * time) + 0.4 * torch.sin(4 * math.pi * hertz * time)
        return wave + tone * RMS * 10 ** (-self._uniform(clips, 6, 35) / 20)

    def _warp(self, power: torch.Tensor) -> torch.Tensor:
        """Stretch the frequency axis by up to 15 % (a longer or shorter vocal tract), for half of the clips."""
        clips, bins, _ = power.shape
        factor = torch.where(self._chance(clips, 0.6), self._uniform(clips, 0.84, 1.18), 1.0)
        source = torch.arange(bins, device=self.device) * factor  # [clips, bins]
        low = source.floor().clamp(max=bins - 2)
        share = (source - low).clamp(0, 1).unsqueeze(2)
        index = low.long().unsqueeze(2).expand_as(power)
        return power.gather(1, index) * (1 - share) + power.gather(1, index + 1) * share

    def _equalize(self, power: torch.Tensor) -> torch.Tensor:
        """A microphone's curve (+-10 dB), and for some a telephone's band."""
        clips, bins, _ = power.shape
        knots = torch.randn(clips, 1, 7, device=self.device, generator=self.generator) * 5
        curve = torch.nn.functional.interpolate(knots, bins, mode="linear", align_corners=True)[:, 0]
        decibel = torch.where(self._chance(clips, 0.6), curve, 0.0)
        hertz = torch.arange(bins, device=self.device) * (SAMPLE_RATE / N_FFT)
        low, high = self._uniform(clips, 50, 400), self._uniform(clips, 3000, 4200)
        telephone = -80.0 * ((hertz - high) / 400).clamp(0, 1) - 20.0 * ((low - hertz) / 200).clamp(0, 1)
        decibel = decibel + torch.where(self._chance(clips, 0.35), telephone, 0.0)
        return power * (10 ** (decibel / 10)).unsqueeze(2)

    def _mask(self, log: torch.Tensor) -> torch.Tensor:
        """SpecAugment (arXiv 1904.08779): two masks of up to 1/6 of the mel bins, two of up to 0.3 s."""
        low = log.amin((1, 2), keepdim=True)
        for axis, longest in ((1, log.shape[1] // 6), (2, 30)) * 2:
            place = torch.arange(log.shape[axis], device=self.device)
            first = self._uniform(len(log), 0, log.shape[axis])
            hidden = (place >= first) & (place < first + self._uniform(len(log), 0, longest))  # [clips, bins or frames]
            hidden &= self._chance(len(log), 0.5)
            log = torch.where(hidden.unsqueeze(3 - axis), low, log)
        return log


def _fast_size(n: int) -> int:
    """The next even size that an FFT takes quickly: 2**k or 3 * 2**k or 5 * 2**k."""
    return min(m * 2 ** max(1, math.ceil(math.log2(n / m))) for m in (1, 3, 5))


def _mu_law(wave: torch.Tensor) -> torch.Tensor:
    """8-bit mu-law, the telephone's codec (ITU-T G.711), and back."""
    peak = wave.abs().amax(1, keepdim=True).clamp(min=1e-5)
    scaled = wave / peak
    code = torch.sign(scaled) * torch.log1p(255 * scaled.abs()) / math.log(256)
    code = (code * 127).round() / 127
    return torch.sign(code) * (256 ** code.abs() - 1) / 255 * peak
