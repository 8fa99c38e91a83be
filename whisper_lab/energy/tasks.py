"""The two kinds of work that 06 profiles: transcribing, and telling who spoke (the four steps of 10)."""

import time
from collections.abc import Sequence

from whisper_lab.console import LabError
from whisper_lab.decoding import Options
from whisper_lab.energy.engine import Engine, Tally
from whisper_lab.energy.workload import Clip
from whisper_lab.transcribe import Transcript, transcribe_many


class Transcription:
    """Whisper alone; clips of one group are decoded together.

    With a fixed number of tokens every window is a recording of its own, timestamps off: the same work for every model
    and precision.
    """

    task = "transcribe"

    def __init__(self, engine: Engine, language: str | None, timestamps: bool, seed: int):
        """language: None for the clip's own, else detected; timestamps: when each word was said.

        Raises LabError for word times where the graphs know none.
        """
        if timestamps:
            check_word_times(engine)
        self.engine, self.language, self.timestamps, self.seed = engine, language, timestamps, seed
        self.model = engine.checkpoint.name.removeprefix("whisper-")
        self.parameters, self.load_s = engine.architecture.parameters, engine.load_s

    def process(self, clips: Sequence[Clip]) -> Tally:
        """One pass over clips that are decoded together; writes text, words and its share of the time into each."""
        runtime, size = self.engine.runtime, self.engine.runtime.spec.n_samples
        options = listening(self.engine, self.language or clips[0].sample.language, self.seed)
        pieces = [[clip.sound[at:at + size] for at in range(0, len(clip.sound), size)] if self.engine.tokens
                  else [clip.sound] for clip in clips]
        runtime.begin()
        started = time.perf_counter()
        found = transcribe_many(runtime, [piece for parts in pieces for piece in parts], options,
                                words=self.timestamps, batch_size=len(clips))
        runtime.tally.seconds = time.perf_counter() - started
        total = sum(clip.duration for clip in clips)
        for clip, parts in zip(clips, pieces, strict=True):
            own, found = found[:len(parts)], found[len(parts):]
            clip.text = " ".join(one.text for one in own)
            clip.words = timed_words(own) if self.timestamps else None
            # Those decoded together share the time by their length.
            clip.seconds.append(runtime.tally.seconds * clip.duration / total)
        return runtime.tally


class Diarization:
    """Who said what: voice activity, fingerprints and clustering on the processor, then Whisper's words, clip by clip.

    Loading takes both models from the store, and may fetch them. Raises LabError where they cannot be had, and where
    Whisper's graphs know no word times.
    """

    task = "diarize"

    def __init__(self, engine: Engine, language: str | None, timestamps: bool, seed: int):
        """As Transcription."""
        from whisper_lab.speakers import encoder, models, voice

        check_word_times(engine)
        self.engine, self.language, self.timestamps, self.seed = engine, language, timestamps, seed
        graphs = {name: models.obtain(name) for name in ("silero-vad", "campplus")}
        started = time.perf_counter()
        self.detector = voice.SpeechDetector(graphs["silero-vad"])
        self.encoder = encoder.SpeakerEncoder(graphs["campplus"], engine.threads)
        self.load_s = engine.load_s + time.perf_counter() - started
        self.model = ", ".join([engine.checkpoint.name.removeprefix("whisper-"), *graphs])
        self.parameters = engine.architecture.parameters + sum(map(weights_in, graphs.values()))

    def process(self, clips: Sequence[Clip]) -> Tally:
        """One pass over a single clip; writes text, words, the number of speakers and the time into it.

        The operations are unknown: they are counted for Whisper only.
        """
        from whisper_lab.speakers import clusters, encoder, turns, voice, words

        clip, = clips
        self.engine.runtime.begin()
        clock = Stopwatch()
        stretches = voice.stretches(self.detector.probabilities(clip.sound), clip.duration)
        clock.lap("voice_activity")
        pieces = [encoder.pieces(stretch) for stretch in stretches]
        prints = self.encoder.fingerprints(clip.sound, [piece for parts in pieces for piece in parts])
        clock.lap("fingerprints")
        found = turns.of(stretches, pieces, clusters.voices(prints))
        clock.lap("clustering")
        heard = self._listen(clip) if found else []  # no one speaks: Whisper is not asked
        lines = words.lines([segment for one in heard for segment in one.segments], found)
        clock.lap("words")
        tally = self.engine.runtime.tally
        tally.phases_s, tally.seconds, tally.operations = clock.phases_s, clock.seconds, None
        clip.text, clip.speakers = " ".join(line.text for line in lines), len({turn.speaker for turn in found})
        clip.words = [_timed(word) | {"speaker": line.speaker} for line in lines for word in line.words] \
            if self.timestamps else None
        clip.seconds.append(tally.seconds)
        return tally

    def _listen(self, clip: Clip) -> list[Transcript]:
        options = listening(self.engine, self.language or clip.sample.language, self.seed)
        return transcribe_many(self.engine.runtime, [clip.sound], options, words=True)


def check_word_times(engine: Engine) -> None:
    """Raise LabError where the graphs cannot tell when a word was said; PyTorch always can."""
    graphs = engine.runtime.runtime
    if not getattr(graphs, "has_attention", True):
        raise LabError(f"the {engine.precision} graphs of {engine.checkpoint.name} cannot tell when a word was said",
                       f"write graphs that can: {graphs.command} --alignment-heads")


class Stopwatch:
    """Seconds of each phase, one after the other."""

    def __init__(self):
        self.phases_s: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        """The phase ends now."""
        now = time.perf_counter()
        self.phases_s[phase], self._last = now - self._last, now

    @property
    def seconds(self) -> float:
        return sum(self.phases_s.values())


def listening(engine: Engine, language: str | None, seed: int) -> Options:
    """How Whisper decodes: greedily, and with a fixed number of tokens once only, at one temperature and in one window:
    anything else would be more work."""
    once = {"temperatures": (0.0,), "compression_ratio_threshold": None, "logprob_threshold": None}
    return Options(language=language if engine.runtime.rules.languages else None, max_tokens=engine.tokens,
                   timestamps=False, seed=seed, audio_context=engine.audio_context, **(once if engine.tokens else {}))


def timed_words(transcripts: Sequence[Transcript]) -> list[dict]:
    """[{"timestamp": [start, end] in s, "text"}] of every word."""
    return [_timed(word) for one in transcripts for segment in one.segments for word in segment.words or []]


def _timed(word) -> dict:
    return {"timestamp": [round(word.start, 3), round(word.end, 3)], "text": word.text}


def weights_in(graph) -> int:
    """How many float numbers an ONNX graph is given as weights."""
    import math

    import onnx

    return sum(math.prod(weight.dims) for weight in onnx.load(graph).graph.initializer
               if weight.data_type == onnx.TensorProto.FLOAT)
