"""faster-whisper on CTranslate2. Setting: compute_type (float32, int8)."""

import harness


class FasterWhisper:
    def __init__(self, job: dict):
        from faster_whisper import WhisperModel

        self.model = WhisperModel(job["artefact"], device="cpu", compute_type=job["setting"]["compute_type"],
                                  cpu_threads=job["threads"], local_files_only=True)
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


harness.main(FasterWhisper)
