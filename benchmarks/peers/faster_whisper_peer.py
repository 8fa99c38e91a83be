"""faster-whisper on CTranslate2. Setting: compute_type (float32, int8)."""

import harness


def open_model(job: dict):
    from faster_whisper import WhisperModel

    return WhisperModel(job["artefact"], device="cpu", compute_type=job["setting"]["compute_type"],
                        cpu_threads=job["threads"], local_files_only=True)


class FasterWhisper:
    def __init__(self, job: dict):
        self.model = open_model(job)
        self.prompt, self.end, self.tokens = harness.prompt(job), harness.end_token(job), job["tokens"]

    def features(self, samples):
        frames = self.model.feature_extractor.nb_max_frames
        return self.model.feature_extractor(samples)[:, :frames]

    def encode(self, features):
        return self.model.encode(features)

    def decode(self, features, encoded):
        # CTranslate2 writes at most max_length / 2 tokens; -1: those that the checkpoint suppresses.
        found = self.model.model.generate(encoded, [self.prompt], beam_size=1, max_length=2 * self.tokens,
                                          suppress_tokens=[-1, self.end])
        return found[0].sequences_ids[0]


def listen(job: dict):
    """Short: greedy, with the rules off that would try again or leave out. Long: the defaults, which are 5 beams."""
    model = open_model(job)
    short = {"beam_size": 1, "temperature": 0.0, "without_timestamps": True, "condition_on_previous_text": False,
             "compression_ratio_threshold": None, "log_prob_threshold": None, "no_speech_threshold": None}

    def hear(samples, clip):
        settings = job["setting"].get("long", {}) if clip["long"] else short
        segments, _ = model.transcribe(samples, language=clip["language"], **settings)
        return " ".join(segment.text.strip() for segment in segments)

    return hear


harness.main(FasterWhisper, listen)
