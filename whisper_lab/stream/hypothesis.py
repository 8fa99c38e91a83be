"""One hypothesis: the model's text for a stretch of sound, going on from text that is already fixed."""

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from whisper_lab import console, decoding
from whisper_lab.alignment import sharpen, token_starts, words_of
from whisper_lab.decoding import (
    FALLBACK_TEMPERATURES,
    Options,
    Result,
    decode_encoded,
    detect_language,
    is_silence,
    looks_wrong,
)
from whisper_lab.languages import name
from whisper_lab.short_windows import AUTO, heard_frames, is_unsafe, limit_of
from whisper_lab.stream.language import SpokenLanguage
from whisper_lab.transcribe import split

HOLD_S = 0.4  # s; what the model hears this close to the end of its window may be a guess at what comes
HOLD_UNITS = 3  # held back where nobody knows when words were heard
SENTENCE_ENDS = set(".?!…。？！")
SURE_UNIT = 0.45  # probability; of the words that a Whisper gives less, in the middle of a sentence, many are wrong
BEAMS = 3  # in the search of a text that waits for such a word
PATIENCE_S = 4.0  # s; how much more has to be heard before such a word is committed
PATIENCE_UNITS = 12  # the same where no one knows when words were heard
SURE = 0.5  # probability of a detected language that is worth a warning
TOKENS_PER_SECOND = 20  # of sound; the fastest speech has half as many, a model that goes round in circles has more


@dataclass
class Unit:
    """What is compared and committed as one: a word with the space before it, or a punctuation mark."""

    text: str
    tokens: list[int]
    probability: float = 1.0  # of its least likely token


def tokens_of(units: Sequence[Unit]) -> list[int]:
    """The tokens of all units, in order."""
    return [token for unit in units for token in unit.tokens]


@dataclass
class Hypothesis:
    """The text of a window, the part that was given included."""

    units: list[Unit] = field(default_factory=list)
    ends: list[float] | None = None  # s from the window's start, one a unit; None: not known
    seconds: float = 0.0  # of sound in the window
    doubtful: bool = False  # it repeats itself, or is unlikely: not to be believed
    text_logprob: float | None = None  # of the whole text, the part that was given included; see confidence.py

    @property
    def heard(self) -> list[Unit]:
        """The units that are no guess, while speech goes on.

        A Whisper that hears half a sentence likes to complete it, and two hypotheses may agree on what no one said
        yet. Its attention gives that away: words it makes up are all found in the last moments of the window. (Papi et
        al. 2023, arXiv 2305.11408, decide by this alone.) Without it the last three units are held back (hold-n in Liu
        et al. 2020).
        """
        if self.ends is None:
            return self.units[:max(0, len(self.units) - HOLD_UNITS)]
        late = (i for i, end in enumerate(self.ends) if end > self.seconds - HOLD_S)
        return self.units[:next(late, len(self.units))]

    @property
    def firm(self) -> list[Unit]:
        """The units that were heard, and heard surely, while speech goes on."""
        return min(self.heard, self.sure, key=len)

    @property
    def sure(self) -> list[Unit]:
        """The units before the first that is in doubt: with more of the sentence it may be heard as another word, and
        what is committed cannot be taken back. Once PATIENCE_S more were heard, more will not help."""
        count = len(self.units)
        recent = range(count - PATIENCE_UNITS, count) if self.ends is None else \
            [i for i, end in enumerate(self.ends) if end > self.seconds - PATIENCE_S]
        doubt = (i for i in recent if i >= 0 and self.units[i].probability < SURE_UNIT)
        return self.units[:next(doubt, count)]


class Recognizer:
    """Asks the graphs about windows of sound; counts what that costs."""

    def __init__(self, runtime, language: str | None, condition: bool = False, fallback: bool = True,
                 context: str | float = AUTO):
        """language: None to detect it, again for every hypothesis until several utterances agree; condition: give the
        beginning of a sentence as prompt for its rest; fallback: try higher temperatures for the last hypothesis of
        an utterance, where it repeats itself or is unlikely; context: how much of its window the encoder hears, as
        of short_windows.heard_frames. Raises LabError for what the checkpoint does not know."""
        self.runtime, self.condition, self.context = runtime, condition, context
        self.language = SpokenLanguage(runtime.rules.wanted_language(language))
        self.temperatures = FALLBACK_TEMPERATURES if fallback else (0.0,)
        self.encoder_runs = self.shortened = self.heard_again = self.searched_again = 0
        self._warned = False
        self._unsafe = functools.partial(is_unsafe, options=Options(), limit=limit_of(runtime))
        runtime.rules.prompt(language)  # says now what the checkpoint does not know

    def recognize(self, features: np.ndarray, seconds: float, given: Sequence[Unit] = (), before: Sequence[int] = (),
                  final: bool = False) -> Hypothesis:
        """The hypothesis for one window. Where it would have to wait for a word in doubt, beams may find a better one.

        features: float32 [n_mels, n_frames]; seconds: of sound in it; given: units it has to begin with; before: tokens
        of the sentence up to the window; final: there will be no later one, so the best that can be had is wanted.
        """
        prefix = tokens_of(given)
        cross, result = self._hear(features, prefix, before, seconds, final)
        found = self._read(cross, result, given, seconds, final)
        if final or found.doubtful or all(unit.probability >= SURE_UNIT for unit in found.heard[len(given):]):
            return found
        self.searched_again += 1
        result = self._search(cross, prefix, before, seconds, False, (0.0,), BEAMS, self._unsafe)
        return self._read(cross, result, given, seconds, final)

    def _read(self, cross, result: Result, given: Sequence[Unit], seconds: float, final: bool) -> Hypothesis:
        """What a search has found: its words, how likely they are, and when they were heard."""
        rules, prefix = self.runtime.rules, tokens_of(given)
        if is_silence(result, Options()):
            return Hypothesis(list(given), seconds=seconds)
        likely = np.exp(result.logprobs[len(prefix):len(result.tokens)])
        new = [(token, p) for token, p in zip(result.tokens[len(prefix):], likely, strict=True) if rules.is_text(token)]
        units, likely = list(given), iter([p for _, p in new])
        for text, part in words_of([token for token, _ in new], self.runtime.tokenizer, self.language.code):
            units.append(Unit(text, part, min(itertools.islice(likely, len(part)))))
        if final:  # what is only unlikely is kept, as in a recording; what goes round in circles is not
            return Hypothesis(units, None, seconds, self._is_left_out(result, seconds), result.text_logprob)
        ends = self._ends(cross, units, result.prompt, seconds) if self.runtime.has_attention else None
        return Hypothesis(units, ends, seconds, looks_wrong(result, Options()), result.text_logprob)

    def _is_left_out(self, result: Result, seconds: float) -> bool:
        repeats = looks_wrong(result, Options(logprob_threshold=None))
        if repeats:
            console.warn(f"{seconds:.1f} s are left out: the model's text for them repeats itself at every temperature "
                         "(music or noise rather than speech?)")
        return repeats

    def _hear(self, features: np.ndarray, prefix: list[int], before: Sequence[int], seconds: float, final: bool
              ) -> tuple[object, Result]:
        """The window's cross cache, and what was found in it: in its beginning, or in the whole where that is not safe.

        A text that is not final is not heard again: it is doubtful, and the next one comes soon. So nothing is kept of
        one that goes round in a loop, and it is left where it does.
        """
        frames = heard_frames(self.runtime, seconds, self.context)
        short = frames < features.shape[1]
        cross = self._encode(features[:, :frames])
        result = self._search(cross, prefix, before, seconds, False,
                              self.temperatures if final and not short else (0.0,), decoding.AUTO if final else 1,
                              None if final and not short else self._unsafe)
        self.shortened += short
        if final and short and self._unsafe(result):
            self.heard_again += 1
            cross = self._encode(features)
            result = self._search(cross, prefix, before, seconds, False, self.temperatures, decoding.AUTO)
        return cross, result

    def _ends(self, cross, units: list[Unit], prompt: list[int], seconds: float) -> list[float]:
        """When each unit was heard, by the decoder's cross-attention (alignment.py); s from the window's start."""
        rules, tokens = self.runtime.rules, tokens_of(units)
        if not tokens:
            return []
        attention = self.runtime.attention(np.array([[*prompt, *tokens, rules.end]], np.int64), cross)
        positions = max(1, min(attention.shape[-1], round(seconds / rules.timestamp_step)))
        rows = sharpen(attention[:, :, :positions], rules.median_filter_width)[len(prompt) - 1:-1]
        starts = token_starts(rows) * rules.timestamp_step  # the last is the end token's
        return [float(starts[count]) for count in np.cumsum([len(unit.tokens) for unit in units])]

    def segments(self, features: np.ndarray, seconds: float, given: Sequence[Unit], before: Sequence[int],
                 voice_from_s: float) -> tuple[Hypothesis, float | None]:
        """For a full window: the units of its complete segments, and their end in s; None: it is used up.

        The model writes the times; `given` stands in the first segment, which begins at voice_from_s at the latest.
        """
        rules, step = self.runtime.rules, self.runtime.rules.timestamp_step
        first = min(round(voice_from_s / step), rules.max_initial_timestamp or 0)
        prefix = [rules.timestamp_begin + first, *tokens_of(given)]
        result = self._search(self._encode(features), prefix, before, seconds, True, self.temperatures, decoding.AUTO)
        pieces, end = split(result.tokens, rules)
        said = rules.text_tokens([token for piece in pieces for token in piece])
        already = len(rules.text_tokens(prefix))
        if end is not None and len(said) < already:  # the first segment ends before what is committed: no place to cut
            said, end = rules.text_tokens(result.tokens), None
        new = [Unit(text, part) for text, part in words_of(said[already:], self.runtime.tokenizer, self.language.code)]
        return Hypothesis([*given, *new], text_logprob=result.text_logprob), None if end is None else end * step

    def end_utterance(self, seconds: float, said: bool) -> None:
        """An utterance is over: where words were heard, what it tells about the language counts from here on."""
        if said and self.language.end_utterance(seconds):
            console.note("language", self.language.code,
                         f"detected, probability {self.language.probability:.3f}; --language sets it")

    def sentence(self, before: Sequence[int], units: Sequence[Unit]) -> list[int]:
        """The prompt of a sentence that goes on: its tokens so far, after the last mark that ends one."""
        if not self.condition:
            return []
        tokens = list(before)
        for unit in units:
            tokens = [] if unit.text.strip() in SENTENCE_ENDS else tokens + unit.tokens
        return tokens

    def _encode(self, features: np.ndarray):
        self.encoder_runs += 1
        cross = self.runtime.encode(features[None])
        if not self.language.stands and self.runtime.rules.languages:
            self.language.hear(detect_language(self.runtime, cross, 1)[0])
        return cross

    def _search(self, cross, given: list[int], before: Sequence[int], seconds: float, timestamps: bool,
                temperatures: Sequence[float], beams: int | str,
                hopeless: Callable[[Result], bool] | None = None) -> Result:
        """The text of a window that begins with the tokens `given`; beams, hopeless: as of decoding.decode_encoded."""
        rules = self.runtime.rules
        prompt = rules.prompt(self.language.code, timestamps=timestamps, previous=before)
        room = rules.max_positions - len(prompt) - len(given) - 1  # one is left for the end token
        options = Options(language=self.language.code, timestamps=timestamps, temperatures=tuple(temperatures),
                          beams=beams, max_tokens=max(0, min(room, round(TOKENS_PER_SECOND * seconds) + 1)))
        result = decode_encoded(self.runtime, cross, 1, options, None, [before], given, hopeless)[0]
        if len(temperatures) > 1 and looks_wrong(result, options):
            self._explain_doubt(cross)
        return result

    def _explain_doubt(self, cross) -> None:
        """Once: the language that was asked for may not be what is spoken."""
        if self._warned or self.language.probability is not None or not self.runtime.rules.languages:
            return
        found = detect_language(self.runtime, cross, 1)[0]
        heard, probability = max(found.items(), key=lambda item: item[1])
        if heard != self.language.code and probability > SURE:
            console.warn(f"the text is unlikely in {name(self.language.code)}, and the model hears {name(heard)} "
                         f"(probability {probability:.2f}): try --language {heard}, or leave it out")
            self._warned = True
