"""Steps 1 to 3 in one call, for benchmarks and tests; script 10 shows them one by one."""

import numpy as np

from whisper_lab.audio import SAMPLE_RATE
from whisper_lab.speakers import clusters, encoder, turns, voice


def who_spoke(samples: np.ndarray, detector: voice.SpeechDetector, speaker_encoder: encoder.SpeakerEncoder,
              number: int | None = None) -> list[turns.Turn]:
    """float32 [n] at 16 kHz -> its turns; number: of speakers, None: to be found."""
    stretches = voice.stretches(detector.probabilities(samples), len(samples) / SAMPLE_RATE)
    wanted = [encoder.pieces(stretch) for stretch in stretches]
    prints = speaker_encoder.fingerprints(samples, [piece for parts in wanted for piece in parts])
    return turns.of(stretches, wanted, clusters.voices(prints, number))
