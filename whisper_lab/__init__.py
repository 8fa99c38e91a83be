"""What the numbered scripts share: audio, features, checkpoints, decoding, runtimes, reports."""

__version__ = "0.2.0"
