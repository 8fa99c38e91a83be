"""One hypothesis: the model's text for a stretch of sound, going on from text that is already fixed."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from whisper_lab import console
from whisper_lab.alignment import words_of
from whisper_lab.decoding import Options, Result, detect_language, is_silence, looks_wrong
from whisper_lab.long_form import split
from whisper_lab.metrics import compression_ratio
from whisper_lab.tokens import logsumexp

SENTENCE_ENDS = set(".?!…。？！")
TOKENS_PER_SECOND = 20  # of sound; the fastest speech has half as many, a model that goes round in circles has more


@dataclass
class Unit:
    """What is compared and committed as one: a word with the space before it, or a punctuation mark."""

    text: str
    tokens: list[int]


@dataclass
class Hypothesis:
    """The text of a window, the part that was given included."""

    units: list[Unit] = field(default_factory=list)
    end: int = 0  # samples; where its window ends
    doubtful: bool = False  # it repeats itself, or is unlikely: not to be believed


class Ear:
    """Asks the graphs about windows of sound; counts what that costs."""

    def __init__(self, runtime, language: str | None, task: str = "transcribe"):
        """language: None to detect it, anew for every hypothesis until something is committed."""
        self.runtime, self.language, self.task = runtime, language, task
        self.encoder_runs = 0
        self.heard_language = language  # of the last hypothesis
        self.probability: float | None = None  # of the detected language
        runtime.rules.prompt(language, task)  # says now what the checkpoint does not know

    def listen(self, features: np.ndarray, seconds: float, given: Sequence[Unit] = (), before: Sequence[int] = (),
               ) -> Hypothesis:
        """The hypothesis for one window.

        features: float32 [n_mels, n_frames]; seconds: of sound in it; given: units it has to begin with; before: tokens
        of the sentence up to the window.
        """
        cross = self._encode(features)
        prefix = [token for unit in given for token in unit.tokens]
        tokens, result = self._continue(cross, prefix, before, seconds, timestamps=False)
        if is_silence(result, Options()):
            return Hypothesis(list(given))
        new = [Unit(text, part) for text, part in words_of(tokens[len(prefix):], self.runtime.tokenizer,
                                                           self.heard_language)]
        return Hypothesis([*given, *new], doubtful=looks_wrong(result, Options()))

    def segments(self, features: np.ndarray, seconds: float, given: Sequence[Unit], before: Sequence[int],
                 voice_from_s: float) -> tuple[Hypothesis, float | None]:
        """For a full window: the units of its complete segments, and their end in s; None: it is used up.

        The model writes the times; `given` stands in the first segment, which begins at voice_from_s at the latest.
        """
        rules, step = self.runtime.rules, self.runtime.rules.timestamp_step
        first = min(round(voice_from_s / step), rules.max_initial_timestamp or 0)
        prefix = [rules.timestamp_begin + first, *(token for unit in given for token in unit.tokens)]
        tokens, _ = self._continue(self._encode(features), prefix, before, seconds, timestamps=True)
        pieces, end = split(tokens, rules.timestamp_begin)
        said = rules.text_tokens([token for piece in pieces for token in piece])
        already = len(rules.text_tokens(prefix))
        if end is not None and len(said) < already:  # the first segment ends before what is committed: no place to cut
            said, end = rules.text_tokens(tokens), None
        new = [Unit(text, part) for text, part in words_of(said[already:], self.runtime.tokenizer, self.heard_language)]
        return Hypothesis([*given, *new]), None if end is None else end * step

    def settle(self) -> None:
        """Something was committed: from here on the language stands."""
        if self.language is None and self.heard_language is not None:
            self.language = self.heard_language
            console.note("language", self.language, f"detected, probability {self.probability:.3f}; --language sets it")

    def sentence(self, before: Sequence[int], units: Sequence[Unit]) -> list[int]:
        """Tokens of the sentence that goes on: what stands after the last mark that ends one. [] without prompts."""
        tokens = list(before)
        for unit in units:
            tokens = [] if unit.text.strip() in SENTENCE_ENDS else tokens + unit.tokens
        return tokens if self.runtime.rules.previous is not None else []

    def _encode(self, features: np.ndarray):
        self.encoder_runs += 1
        cross = self.runtime.encode(features[None])
        if self.language is None and self.runtime.rules.languages:
            found = detect_language(self.runtime, cross, 1)[0]
            self.heard_language, self.probability = max(found.items(), key=lambda item: item[1])
        return cross

    def _continue(self, cross, prefix: list[int], before: Sequence[int], seconds: float, timestamps: bool
                  ) -> tuple[list[int], Result]:
        """Greedy search from `prefix` on: all tokens, `prefix` included, and what tells whether to trust them."""
        rules, runtime = self.runtime.rules, self.runtime
        prompt = rules.prompt(self.heard_language, self.task, timestamps, before)
        said = prefix[:rules.max_positions - len(prompt) - 1]
        room = min(rules.max_positions - len(prompt), round(TOKENS_PER_SECOND * seconds) + len(prefix) + 1)
        logits, cache = runtime.step(np.array([[*prompt, *said]], np.int64), cross, None)
        at_start = logits[0, prompt.index(rules.start)]
        silence = float(np.exp(at_start[rules.no_speech] - logsumexp(at_start)))
        total, count = 0.0, 0
        while len(said) < room:
            scores = rules.apply(logits[:, -1].astype(np.float32), np.array([said], np.int64), timestamps)
            token = int(scores[0].argmax())
            total, count = total + float(scores[0, token] - logsumexp(scores)[0]), count + 1
            if token == rules.end:
                break
            said.append(token)
            if len(said) < room:
                logits, cache = runtime.step(np.array([[token]], np.int64), cross, cache)
        text = rules.text(runtime.tokenizer, said)
        return said, Result(said, text, total / max(count, 1), silence, 0.0, compression_ratio(text), None, None)
