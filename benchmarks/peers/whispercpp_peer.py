"""whisper.cpp through pywhispercpp's wheel. Its binding gives no logits, so the tokens are given, not chosen."""

import harness


class WhisperCpp:
    def __init__(self, job: dict):
        import _pywhispercpp as cpp

        self.cpp, self.job = cpp, job
        self.context = cpp.whisper_init_from_file_with_params(job["artefact"] + "/model.bin",
                                                              cpp.whisper_context_default_params())

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


harness.main(WhisperCpp)
