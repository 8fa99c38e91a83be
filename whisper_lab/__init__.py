"""What the numbered scripts share: audio, features, checkpoints, decoding, runtimes, reports."""
