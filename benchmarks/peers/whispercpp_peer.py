"""whisper.cpp through pywhispercpp's wheel. Its binding gives no logits: timed with given tokens, not chosen ones."""

import harness


def open_model(job: dict):
    """The binding and whisper.cpp's context."""
    import _pywhispercpp as cpp

    return cpp, cpp.whisper_init_from_file_with_params(job["artefact"] + "/model.bin",
                                                       cpp.whisper_context_default_params())


class WhisperCpp:
    def __init__(self, job: dict):
        self.job = job
        self.cpp, self.context = open_model(job)

    def features(self, samples):
        if self.cpp.whisper_pcm_to_mel(self.context, samples, len(samples), self.job["threads"]):
            raise RuntimeError("whisper_pcm_to_mel failed")

    def encode(self, features):
        if self.cpp.whisper_encode(self.context, 0, self.job["threads"]):
            raise RuntimeError("whisper_encode failed")

    def decode(self, features, encoded):
        """One call per token, the prompt's too: the binding passes a single token."""
        given = [*harness.prompt(self.job), *range(1000, 1000 + self.job["tokens"] - 1)]
        for past, token in enumerate(given):
            if self.cpp.whisper_decode(self.context, token, 1, past, self.job["threads"]):
                raise RuntimeError("whisper_decode failed")
        return given[-self.job["tokens"]:]


def listen(job: dict):
    """Short: one greedy pass, no second try. Long: whisper_full's own defaults for greedy search."""
    cpp, context = open_model(job)

    def hear(samples, clip):
        settings = cpp.whisper_full_default_params(cpp.whisper_sampling_strategy.WHISPER_SAMPLING_GREEDY)
        settings.n_threads, settings.language = job["threads"], clip["language"]
        settings.print_progress = settings.print_timestamps = False
        if not clip["long"]:
            settings.no_timestamps = settings.single_segment = True
            settings.temperature_inc = 0.0
            settings.no_speech_thold = 1.0  # above it, with an unlikely text, a clip would be left out
        if cpp.whisper_full(context, settings, samples, len(samples)):
            raise RuntimeError("whisper_full failed")
        parts = [cpp.whisper_full_get_segment_text(context, i) for i in range(cpp.whisper_full_n_segments(context))]
        return b"".join(part if isinstance(part, bytes) else part.encode() for part in parts).decode(errors="replace")

    return hear


harness.main(WhisperCpp, listen)
