"""Plans into log-mel spectrograms, a whole batch at a time on one device: mix, room, noise, codec, features.

Every effect is drawn per clip from a seeded generator. The features equal WhisperFeatureExtractor's
(a test holds them together), but for what only training does: warped formants, equalizers, masks.
"""

import math

import numpy as np
import torch

from training.voices import SAMPLE_RATE

N_FFT, HOP = 400, 160
RMS = 0.05  # loudness that every utterance is brought to before its gain


class Mixer:
    """Holds the corpus on the device and renders batches of plans.

    corpus: int16 [samples]; filters: mel filterbank [n_fft / 2 + 1, n_mels]; window: samples of the model's window.
    """

    def __init__(self, corpus: np.ndarray, filters: np.ndarray, window: int, device: str, seed: int = 0):
        self.device, self.window = device, window
        self.corpus = torch.from_numpy(np.array(corpus)).to(device)  # np.array copies the memory map
        self.filters = torch.from_numpy(filters).float().to(device)
        self.generator = torch.Generator(device).manual_seed(seed)

    def render(self, batch: dict[str, torch.Tensor], augment: bool = True) -> torch.Tensor:
        """Log-mel spectrograms [clips, n_mels, window / 160] of a collated batch."""
        wave = self.mix(batch["sound"].to(self.device))
        if augment:
            wave = self._degrade(wave)
        time = torch.arange(self.window, device=self.device)
        wave = wave * (time < batch["recorded"].to(self.device)[:, None])
        return self.features(wave, augment)

    def mix(self, sound: torch.Tensor) -> torch.Tensor:
        """Place the utterances: sound [5, clips, slots] (start, length, at, speed, gain dB) -> wave [clips, window]."""
        start, length, at, speed, gain_db = sound
        time = torch.arange(self.window, device=self.device, dtype=torch.float32)
        wave = torch.zeros(start.shape[0], self.window, device=self.device)
        for slot in range(start.shape[1]):
            position = (time - at[:, slot, None].float()) * speed[:, slot, None].float()
            inside = (position >= 0) & (position < length[:, slot, None].float() - 1)
            index = (position.clamp(min=0).long() + start[:, slot, None].long()).clamp(max=len(self.corpus) - 2)
            fraction = position - position.floor()
            left, right = self.corpus[index].float(), self.corpus[index + 1].float()
            piece = torch.where(inside, (left + fraction * (right - left)) / 32768, 0)
            energy = piece.square().sum(1, keepdim=True) / inside.sum(1, keepdim=True).clamp(min=1)
            wave += piece * (RMS / energy.sqrt().clamp(min=1e-4)) * 10 ** (gain_db[:, slot, None].float() / 20)
        return wave

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
        return torch.rand(clips, 1, device=self.device, generator=self.generator) < p

    def _degrade(self, wave: torch.Tensor) -> torch.Tensor:
        clips = len(wave)
        wave = torch.where(self._chance(clips, 0.35), self._reverberate(wave), wave)
        wave = torch.where(self._chance(clips, 0.75), wave + self._noise(wave), wave)
        wave = torch.where(self._chance(clips, 0.08), wave + self._hum(clips), wave)
        peak = wave.abs().amax(1, keepdim=True).clamp(min=1e-5)
        clipped = wave.clamp(-1, 1).minimum(peak * self._uniform(clips, 0.3, 0.9))
        wave = torch.where(self._chance(clips, 0.05), torch.maximum(clipped, -clipped.amax(1, keepdim=True)), wave)
        wave = wave * 10 ** (self._uniform(clips, -30, 10) / 20)
        return torch.where(self._chance(clips, 0.12), _mu_law(wave, peak), wave)

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
        size = self.window + n
        return torch.fft.irfft(torch.fft.rfft(wave, size) * torch.fft.rfft(echo, size), size)[:, : self.window]

    def _noise(self, wave: torch.Tensor) -> torch.Tensor:
        """Coloured noise (white to brown, sometimes a swell) at 2 to 45 dB below the speech."""
        clips = len(wave)
        white = torch.randn(wave.shape, device=self.device, generator=self.generator)
        frequency = torch.arange(self.window // 2 + 1, device=self.device) + 20.0
        shape = frequency ** -self._uniform(clips, -0.2, 1.1)
        noise = torch.fft.irfft(torch.fft.rfft(white) * shape, self.window)
        swell = 1 + 0.8 * torch.sin(
            torch.arange(self.window, device=self.device) / SAMPLE_RATE * self._uniform(clips, 0.5, 8)
            + self._uniform(clips, 0, 6.3)
        )  # fmt: skip
        noise = noise * torch.where(self._chance(clips, 0.4), swell, 1.0)
        noise = noise / noise.square().mean(1, keepdim=True).sqrt()
        return noise * RMS * 10 ** (-self._uniform(clips, 2, 45) / 20)

    def _hum(self, clips: int) -> torch.Tensor:
        """Mains hum or a beep."""
        time = torch.arange(self.window, device=self.device) / SAMPLE_RATE
        hertz = torch.where(self._chance(clips, 0.5), torch.tensor(50.0, device=self.device),
                            self._uniform(clips, 200, 3000))  # fmt: skip
        tone = torch.sin(2 * math.pi * hertz * time) + 0.4 * torch.sin(4 * math.pi * hertz * time)
        return tone * RMS * 10 ** (-self._uniform(clips, 6, 35) / 20)

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
        clips, mels, frames = log.shape
        low = log.amin((1, 2), keepdim=True)
        for size, length, axis in ((mels, mels // 6, 1), (frames, 30, 2)) * 2:
            first, wide = self._uniform(clips, 0, size).unsqueeze(2), self._uniform(clips, 0, length).unsqueeze(2)
            place = torch.arange(size, device=self.device).view(1, -1, 1) if axis == 1 else torch.arange(
                size, device=self.device).view(1, 1, -1)  # fmt: skip
            hidden = (place >= first) & (place < first + wide) & self._chance(clips, 0.6).unsqueeze(2)
            log = torch.where(hidden, low, log)
        return log


def _mu_law(wave: torch.Tensor, peak: torch.Tensor) -> torch.Tensor:
    """8-bit mu-law, the telephone's codec (ITU-T G.711), and back."""
    scaled = (wave / peak.clamp(min=1e-5)).clamp(-1, 1)
    code = torch.sign(scaled) * torch.log1p(255 * scaled.abs()) / math.log(256)
    code = (code * 127).round() / 127
    return torch.sign(code) * (256 ** code.abs() - 1) / 255 * peak
