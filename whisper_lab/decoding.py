"""From features to tokens: greedy search, sampling and fallback, over any runtime. NumPy only.

A runtime (PyTorch or ONNX) turns features into a cross cache and tokens into logits; everything that decides which
token comes next is here, once. Sources: Radford et al. 2022, section 4.5 (beam search, temperature fallback,
no-speech rule); openai-whisper's `transcribe.py` for the thresholds 2.4, -1.0 and 0.6.
"""

import functools
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from whisper_lab import confidence
from whisper_lab.tokens import TokenRules, log_softmax, logsumexp, require_numbers

FALLBACK_TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
AUTO, WIDE = "auto", 5  # greedy first, and this many beams where its text is doubtful
# A text is doubtful below these: log-probability a token, and of a window in all. A long window may be likely word for
# word and yet hold errors. What it is worth in words and seconds: benchmarks/accuracy.py, "beams auto".
DOUBTFUL_TOKEN, DOUBTFUL_TEXT = -0.3, -8.0
# A text goes round where its last LOOPED tokens are one round of at most LONGEST_ROUND, over and over.
LOOPED, LONGEST_ROUND, LOOKED = 64, 16, 8  # tokens; LOOKED: between one look and the next
SHORTER = 0.8  # a text of beams that is shorter than this share of the greedy one has passed over something


class Runtime(Protocol):
    """What decoding needs of a model. batch = audio x beams; the rows of one audio stand together."""

    rules: TokenRules
    spec: Any  # features.FeatureSpec
    tokenizer: Any  # tokenizer.Tokenizer

    def encode(self, features: Sequence[np.ndarray]) -> Any:
        """float32 [audio, n_mels, frames] -> cross cache. frames: n_frames; where `takes_short_windows`, any even
        number up to it, and where `mixes_lengths`, each audio may have its own. `silence_s` says how much silence
        behind a sound is enough then; None: all of the window."""

    def step(self, input_ids: np.ndarray, cross: Any, cache: Any) -> tuple[np.ndarray, Any]:
        """int64 [batch, sequence] -> float32 logits [batch, sequence, vocab] and the longer cache (None at first)."""

    def reorder(self, cache: Any, rows: np.ndarray) -> Any:
        """The cache of these rows (int [new batch]): they may repeat, be left out or change places."""

    def select(self, cross: Any, audios: np.ndarray) -> Any:
        """The cross cache of these audios (int [new audio])."""

    def attention(self, input_ids: np.ndarray, cross: Any) -> np.ndarray:
        """Cross-attention of the alignment heads, float32 [heads, sequence, positions], for one audio. Optional."""


@dataclass(frozen=True)
class Options:
    """How to decode. `temperatures` beyond the first are tried where a result looks wrong; None switches a rule off."""

    language: str | None = None  # None: detect
    task: str = "transcribe"
    timestamps: bool = False
    beams: int | str = 1  # used at temperature 0 only; AUTO: WIDE where the greedy text is doubtful
    length_penalty: float = 1.0  # beams are ranked by log-probability / length ** penalty
    patience: float | None = None  # None: transformers' stopping rule; else stop at round(beams * patience) hypotheses
    temperatures: tuple[float, ...] | None = None  # None: greedy; transcribe.py: FALLBACK_TEMPERATURES, as peers
    compression_ratio_threshold: float | None = 2.4
    logprob_threshold: float | None = -1.0
    no_speech_threshold: float | None = 0.6
    max_tokens: int | None = None  # new tokens; the decoder's positions are the limit anyway
    audio_context: str | float = "auto"  # how much of its window the encoder hears: short_windows.heard_frames
    seed: int = 0


@dataclass
class Result:
    """What was decoded from one window."""

    tokens: list[int]  # after the prompt, without the end token
    text: str
    avg_logprob: float  # per token, the end token counted
    no_speech_prob: float
    temperature: float
    compression_ratio: float
    language: str | None
    language_probability: float | None  # None: the language was given, not detected
    prompt: list[int] = field(default_factory=list)
    text_logprob: float | None = None  # avg_logprob without the timestamps: see confidence.py
    logprobs: list[float] = field(default_factory=list)  # of each token, and of the end where there was room for it
    beams: int = 1  # that found it

    @property
    def ended(self) -> bool:
        """Whether the end token came, rather than the end of the room."""
        return len(self.logprobs) > len(self.tokens)


def decode(runtime: Runtime, features: np.ndarray, options: Options | None = None,
           languages: Sequence[str | None] | None = None, previous: Sequence[Sequence[int]] | None = None
           ) -> list[Result]:
    """Decode a batch of windows.

    features: float32 [audio, n_mels, frames]; languages: per window, over options.language; previous: per window, the
    tokens of the text before it. What is decided for a window does not depend on its neighbours in the batch; the
    numbers may, in the last digits, and with int8 graphs in more of them: an activation has one scale for the whole
    batch, so that a near tie may fall the other way. Raises LabError for a language or task that the checkpoint does
    not have.
    """
    options = options or Options()
    return decode_encoded(runtime, runtime.encode(features), len(features), options, languages, previous)


def decode_encoded(runtime: Runtime, cross: Any, audios: int, options: Options,
                   languages: Sequence[str | None] | None = None, previous: Sequence[Sequence[int]] | None = None,
                   given: Sequence[int] = (), hopeless: Callable[[Result], bool] | None = None) -> list[Result]:
    """As `decode`, from a cross cache of `audios` windows.

    given: tokens that every answer has to begin with. They are part of the result's tokens and of its text_logprob, not
    of its avg_logprob: that judges what was decided here. hopeless: says of which results no further search is to be
    made from this cross cache, because the caller will not keep them.
    """
    spoken = [(runtime.rules.wanted_language(language or options.language), None)
              for language in languages or [None] * audios]
    unknown = np.array([i for i, (language, _) in enumerate(spoken) if language is None], np.int64)
    if len(unknown) and runtime.rules.languages:
        detected = detect_language(runtime, runtime.select(cross, unknown), len(unknown))
        for i, found in zip(unknown, detected, strict=True):
            spoken[i] = max(found.items(), key=lambda item: item[1])
    before = previous or [()] * audios
    prompts = [runtime.rules.prompt(language, options.task, options.timestamps, tokens)
               for (language, _), tokens in zip(spoken, before, strict=True)]
    results: list[Result | None] = [None] * audios
    for length in sorted({len(prompt) for prompt in prompts}):  # one cache length per batch: no padding, no mask
        rows = np.array([i for i, prompt in enumerate(prompts) if len(prompt) == length], np.int64)
        group = _with_fallback(runtime, runtime.select(cross, rows), [prompts[i] for i in rows], options, list(given),
                               hopeless)
        for i, result in zip(rows, group, strict=True):
            result.language, result.language_probability = spoken[i]
            results[i] = result
    return results


def detect_language(runtime: Runtime, cross: Any, audios: int) -> list[dict[str, float]]:
    """Probability of each language per window, from the token after <|startoftranscript|>."""
    start = np.full((audios, 1), runtime.rules.start, np.int64)
    logits, _ = runtime.step(start, cross, None)
    codes = list(runtime.rules.languages)
    require_numbers(runtime, logsumexp(logits[:, -1]))
    probabilities = np.exp(log_softmax(logits[:, -1, [runtime.rules.languages[code] for code in codes]]))
    return [dict(zip(codes, row.tolist(), strict=True)) for row in probabilities]


def looks_wrong(result: Result, options: Options) -> bool:
    """Repetition or low confidence asks for a higher temperature, unless the window is taken for silence."""
    repeats = options.compression_ratio_threshold is not None \
        and result.compression_ratio > options.compression_ratio_threshold
    unsure = options.logprob_threshold is not None and result.avg_logprob < options.logprob_threshold
    return (repeats or unsure) and not is_silence(result, options)


def is_silence(result: Result, options: Options) -> bool:
    """The no-speech rule: <|nospeech|> is likely and the text is not. (`silence.is_silent` judges the sound.)"""
    if options.no_speech_threshold is None or result.no_speech_prob <= options.no_speech_threshold:
        return False
    return options.logprob_threshold is None or result.avg_logprob < options.logprob_threshold


def compression_ratio(text: str) -> float:
    """Bytes of the text over bytes when zlib has packed it; above 2.4 the text very likely goes round in a loop.

    The measure and its threshold are those of openai-whisper (transcribe.py), but with one byte for a letter of any
    script: UTF-8 has two or three for those that are not Latin, alike in part, so that right sentences in Russian
    came above the threshold. 0 for an empty text.
    """
    raw = one_byte_each(text)
    return len(raw) / len(zlib.compress(raw))


def one_byte_each(text: str) -> bytes:
    """ASCII as it is, other characters numbered from 128 as they come; UTF-8 where there are too many of them for
    that, which no loop has."""
    others = {character: 128 + i for i, character in enumerate(dict.fromkeys(c for c in text if not c.isascii()))}
    if len(others) > 128:
        return text.encode("utf-8", "replace")
    return bytes(others[character] if character in others else ord(character) for character in text)


def goes_round(tokens: Sequence[int]) -> bool:
    """Whether a text ends in one round of words over and over: it will go on like that until there is no room left."""
    end = list(tokens[-LOOPED:])
    return len(end) == LOOPED and any(end[length:] == end[:-length] for length in range(1, LONGEST_ROUND + 1))


def is_doubtful(result: Result, rules: TokenRules) -> bool:
    """Whether five beams are likely to find better words than greedy search did."""
    if result.text_logprob is None:
        return False
    text = result.text_logprob * (len(rules.text_tokens(result.tokens)) + 1)  # the end is a token too
    return result.text_logprob < DOUBTFUL_TOKEN or text < DOUBTFUL_TEXT


def tries(options: Options) -> list[Options]:
    """The searches that a window may get, one after the other: each has one temperature and a number of beams."""
    first, *hotter = options.temperatures or (0.0,)
    beams = [options.beams]
    if first > 0:
        beams = [1]  # a draw, not a search
    elif options.beams == AUTO:
        beams = [1, WIDE]
    return [*(replace(options, temperatures=(first,), beams=number) for number in beams),
            *(replace(options, temperatures=(temperature,), beams=1) for temperature in hotter)]


def is_enough(result: Result, following: Options, rules: TokenRules) -> bool:
    """Whether a result may stay, where the search that follows is `following`: beams for what is doubtful, a higher
    temperature for what looks wrong."""
    if is_silence(result, following):
        return True
    if following.temperatures == (result.temperature,):
        return not (is_doubtful(result, rules) or looks_wrong(result, following))
    return not looks_wrong(result, following)


def temperatures(first: float, fallback: bool) -> tuple[float, ...]:
    """What --temperature and --no-fallback ask for: a temperature above 0 is a choice that stands."""
    return FALLBACK_TEMPERATURES if fallback and first == 0 else (first,)


def rate(runtime: Runtime, cross: Any, prompt: Sequence[int], tokens: Sequence[int], search: Options = Options()
         ) -> Result:
    """The Result of tokens that another program's search has found, from one run of the decoder over all of them.

    cross: of one audio; tokens: after the prompt, without the end token. For `is_enough` and `least_wrong`.
    """
    rules, tokens = runtime.rules, list(tokens)
    temperature, timestamps = (search.temperatures or (0.0,))[0], search.timestamps
    logits, _ = runtime.step(np.array([[*prompt, *tokens]], np.int64), cross, None)
    scores = logits[0, len(prompt) - 1:].astype(np.float32)
    for i, row in enumerate(scores):
        rules.apply(row[None], np.array([tokens[:i]], np.int64), timestamps)
    said = [*tokens, rules.end][:rules.max_positions - len(prompt)]  # the end token counts where there was room for it
    total = logsumexp(scores[:len(said)])
    require_numbers(runtime, total)
    each = scores[np.arange(len(said)), said] - total
    at_start = logits[0, list(prompt).index(rules.start)]
    text = rules.text(runtime.tokenizer, tokens)
    return Result(tokens, text, float(each.mean()), float(np.exp(at_start[rules.no_speech] - logsumexp(at_start))),
                  temperature, compression_ratio(text), None, None, list(prompt),
                  confidence.mean_of_text(rules, each, tokens), beams=search.beams)


def _with_fallback(runtime: Runtime, cross: Any, prompts: list[list[int]], options: Options, given: list[int],
                   hopeless: Callable[[Result], bool] | None) -> list[Result]:
    """Give each window the searches of `tries` in turn, until a result is good enough. Prompts have one length.

    A text that goes round in a loop is not written to its end where something else follows it.
    """
    found: list[list[Result]] = [[] for _ in prompts]
    left, searches = np.arange(len(prompts)), tries(options)
    for attempt, search in enumerate(searches):
        if attempt:
            left = np.array([i for i in left if not is_enough(found[i][-1], search, runtime.rules)
                             and not (hopeless and hopeless(found[i][-1]))], np.int64)
        if len(left) == 0:
            break
        rows = cross if len(left) == len(prompts) else runtime.select(cross, left)
        batch = np.array([prompts[i] for i in left], np.int64)
        results = _search(runtime, rows, batch, search, given, bool(hopeless) or search is not searches[-1])
        for i, result in zip(left, results, strict=True):
            found[i].append(result)
    return [least_wrong(attempts, options) for attempts in found]


def least_wrong(attempts: Sequence[Result], options: Options) -> Result:
    """The last attempt, if it does not look wrong; else the likeliest that does not repeat itself (as faster-whisper
    does: a result of temperature 1 is often worse than the doubtful one of temperature 0).

    Beams find a likelier text for noise, too: how doubtful a text is, the greedy one before it says. And they are
    ranked by the likelihood of a token, so that one which passes over whole sentences may win: then the greedy text
    stays.
    """
    first, best = attempts[0], attempts[-1]
    if looks_wrong(best, options):
        most = options.compression_ratio_threshold
        plain = [result for result in attempts if most is None or result.compression_ratio <= most]
        best = max(plain or attempts, key=lambda result: result.avg_logprob)
    if best.beams <= first.beams:
        return best
    if len(best.text) < SHORTER * len(first.text) and not looks_wrong(first, options):
        return replace(first, beams=best.beams)  # they were asked
    return replace(best, text_logprob=first.text_logprob)


def _search(runtime: Runtime, cross: Any, prompts: np.ndarray, options: Options, given: list[int], leave: bool
            ) -> list[Result]:
    """One pass at one temperature. prompts: int64 [audio, length]; given: what every answer begins with; leave: texts
    that go round in a loop are left where they are."""
    rules, temperature = runtime.rules, options.temperatures[0]
    looped = functools.partial(is_lost, runtime, options.compression_ratio_threshold if leave else None)
    audios, length = prompts.shape
    given = given[:rules.max_positions - length - 1]
    logits, cache = runtime.step(np.concatenate([prompts, np.tile(np.array(given, np.int64), (audios, 1))], axis=1),
                                 cross, None)
    at_start = logits[:, int(np.argmax(prompts[0] == rules.start))]
    no_speech = np.exp(at_start[:, rules.no_speech] - logsumexp(at_start))
    room = rules.max_positions - length - len(given)
    room = room if options.max_tokens is None else min(room, options.max_tokens)
    if options.beams > 1:
        found = _best_beams(runtime, cross, cache, logits[:, -1], room, options, given, prompts.tolist(), looped)
    else:
        found = _sample(runtime, cross, cache, logits[:, -1], room, options, given, looped)
    results = []
    for i, (tokens, likely, logprob) in enumerate(found):
        # What was given is judged with the rest of the text, by logits that are there anyway.
        likely = [*confidence.of_rows(rules, logits[i, length - 1:-1], given, options.timestamps).tolist(), *likely]
        text = rules.text(runtime.tokenizer, tokens)
        results.append(Result(tokens, text, logprob, float(no_speech[i]), temperature, compression_ratio(text), None,
                              None, prompts[i].tolist(), confidence.mean_of_text(rules, likely, tokens), likely,
                              options.beams))
    return results


def is_lost(runtime: Runtime, threshold: float | None, tokens: list[int]) -> bool:
    """Whether a text that is being written goes round, and so much that its compression ratio says so by now."""
    if threshold is None or len(tokens) % LOOKED or not goes_round(runtime.rules.text_tokens(tokens)):
        return False
    return compression_ratio(runtime.rules.text(runtime.tokenizer, tokens)) > threshold


def _best_beams(runtime: Runtime, cross: Any, cache: Any, logits: np.ndarray, room: int, options: Options,
                given: list[int], prompts: list[list[int]], looped: Callable[[list[int]], bool]
                ) -> list[tuple[list[int], list[float], float]]:
    """As `_sample`, by beam search; the score of a beam is another mean, so its tokens are rated again."""
    best = beam_search(runtime, cross, cache, logits, room, options, given, looped)
    return [(tokens, confidence.logprobs(runtime, runtime.select(cross, np.array([i])), prompts[i], tokens,
                                         options.timestamps).tolist()[len(given):], float(score))
            for i, (tokens, score) in enumerate(best)]


def _sample(runtime: Runtime, cross: Any, cache: Any, logits: np.ndarray, room: int, options: Options,
            given: list[int], looped: Callable[[list[int]], bool]) -> list[tuple[list[int], list[float], float]]:
    """Greedy search (temperature 0) or sampling. Returns per window its tokens, `given` included; the log-probability
    of each that was chosen, the end's included; and their mean.

    logits: float32 [audio, vocab] after `given`; looped: whether a text is to be left as it is. The random numbers of a
    window come from a generator of its own, so that neighbours do not change it; a finished window leaves the batch.
    """
    rules, temperature = runtime.rules, options.temperatures[0]
    live = np.arange(len(logits))
    # Only where they are drawn from: numpy.random is a part of the time to the first text.
    generators = [temperature and np.random.default_rng([options.seed, round(temperature * 1000)]) for _ in live]
    tokens: list[list[int]] = [list(given) for _ in live]
    likely: list[list[float]] = [[] for _ in live]
    for step in range(room):
        written = np.array([tokens[i] for i in live], np.int64).reshape(len(live), len(given) + step)
        scores = rules.apply(logits.astype(np.float32), written, options.timestamps)
        chosen = choose(scores, temperature, [generators[i] for i in live])
        chances = scores[np.arange(len(live)), chosen] - logsumexp(scores)
        require_numbers(runtime, chances)
        for i, token, chance in zip(live, chosen.tolist(), chances.tolist(), strict=True):
            tokens[i].append(token)
            likely[i].append(chance)
        going = np.array([row for row, i in enumerate(live) if chosen[row] != rules.end and not looped(tokens[i])],
                         np.int64)
        if len(going) == 0 or step + 1 == room:
            break
        if len(going) < len(live):
            live, chosen = live[going], chosen[going]
            cache, cross = runtime.reorder(cache, going), runtime.select(cross, going)
        logits, cache = runtime.step(chosen[:, None].astype(np.int64), cross, cache)
        logits = logits[:, -1]
    return [(_without_end(row, rules.end), each, float(np.mean(each or [0.0])))
            for row, each in zip(tokens, likely, strict=True)]


def choose(scores: np.ndarray, temperature: float, generators: list["np.random.Generator"]) -> np.ndarray:
    """The likeliest token of each row, or one drawn from softmax(scores / temperature)."""
    if temperature == 0:
        return scores.argmax(axis=-1)
    # Gumbel's trick: the argmax of log-probability plus Gumbel noise is a draw from the distribution.
    noise = np.stack([generator.gumbel(size=scores.shape[-1]) for generator in generators])
    return (scores / temperature + noise).argmax(axis=-1)


def _without_end(tokens: list[int], end: int) -> list[int]:
    return tokens[:-1] if tokens and tokens[-1] == end else tokens


# Beam search ----------------------------------------------------------------------------------------------------------

# Beam search over any runtime: keep the best few beginnings instead of the best one. NumPy only.
#
# The semantics are those of transformers' `generate(num_beams=...)`: log-softmax first, then the token rules without
# normalising again; the 2 * beams best continuations are looked at, of which those that end among the first `beams`
# become hypotheses, ranked by log-probability / length ** penalty (the end token counts); a window is finished when its
# best running beam can no longer beat its worst hypothesis. With `patience` it is finished as soon as round(beams *
# patience) hypotheses exist (Kasai et al. 2022, "A Call for Clarity in Beam Search"; openai-whisper's rule).

GROUP = 64  # tokens whose largest score is looked at first


class _Window:
    """The beams of one window: running beginnings with their log-probabilities, and finished hypotheses."""

    def __init__(self, beams: int, penalty: float, patience: float | None, given: list[int]):
        self.beams, self.penalty, self.given = beams, penalty, len(given)
        self.keep = beams if patience is None else max(1, round(beams * patience))
        self.stop_when_full = patience is not None
        self.tokens: list[list[int]] = [given]
        self.scores = np.zeros(1, np.float32)
        self.finished: list[tuple[float, list[int]]] = []  # (normalised score, tokens without the end), best first

    def advance(self, scores: np.ndarray, beams: np.ndarray, tokens: np.ndarray, end: int, is_last: bool) -> np.ndarray:
        """Take the best continuations (all three [2 * beams], best first); returns the row each new beam came from."""
        running: list[tuple[float, int, list[int]]] = []
        for rank, (score, beam, token) in enumerate(zip(scores, beams, tokens, strict=True)):
            if not np.isfinite(score):
                break
            ended = token == end
            if (ended or is_last) and rank < self.beams:
                self._finish(float(score), self.tokens[beam] + ([] if ended else [int(token)]), ended)
            elif not ended and len(running) < self.beams:
                running.append((score, beam, [*self.tokens[beam], int(token)]))
        while 0 < len(running) < self.beams:  # fewer than `beams` continuations were allowed: fill with dead ones
            running.append((-np.inf, running[0][1], running[0][2]))
        self.tokens = [beginning for _, _, beginning in running]
        self.scores = np.array([score for score, _, _ in running], np.float32)
        return np.array([beam for _, beam, _ in running], np.int64)

    def _finish(self, score: float, tokens: list[int], ended: bool) -> None:
        self.finished.append((score / (len(tokens) - self.given + ended) ** self.penalty, tokens))
        self.finished = sorted(self.finished, key=lambda pair: -pair[0])[: self.keep]

    def is_done(self, length: int) -> bool:
        """No running beam is left, or none of them can still improve on the hypotheses."""
        if len(self.tokens) == 0:
            return True
        if len(self.finished) < self.keep:
            return False
        return self.stop_when_full or self.scores[0] / length**self.penalty <= self.finished[-1][0]


def beam_search(runtime: Any, cross: Any, cache: Any, logits: np.ndarray, room: int, options: Any,
                given: Sequence[int] = (), looped: Callable[[list[int]], bool] = lambda tokens: False
                ) -> list[tuple[list[int], float]]:
    """Returns per window the tokens of the best hypothesis and its score (the mean log-probability at penalty 1, of the
    tokens after `given`, with which every hypothesis begins).

    logits: float32 [audio, vocab] after the prompt and `given`, cache of batch = audio; from the second step on the
    batch is audio x beams while the cross cache stays [audio, ...]. room: most new tokens. options: decoding.Options.
    looped: whether a window's best beginning is to be left as it is.
    """
    windows = [_Window(options.beams, options.length_penalty, options.patience, [*given]) for _ in range(len(logits))]
    live = np.arange(len(windows))
    for step in range(room):
        batch = [windows[i] for i in live]
        best = _continuations(runtime, logits, batch, options)
        offsets = np.cumsum([0] + [len(window.tokens) for window in batch])  # first row of each window
        rows = [offsets[i] + window.advance(*best[i], runtime.rules.end, step + 1 == room or looped(window.tokens[0]))
                for i, window in enumerate(batch)]
        going = np.array([i for i, window in enumerate(batch) if not window.is_done(step + 1)], np.int64)
        if len(going) == 0:
            break
        if len(going) < len(live):
            cross = runtime.select(cross, going)
        live = live[going]
        cache = runtime.reorder(cache, np.concatenate([rows[i] for i in going]))
        last = np.array([tokens[-1] for i in live for tokens in windows[i].tokens], np.int64)
        logits, cache = runtime.step(last[:, None], cross, cache)
        logits = logits[:, -1]
    return [(window.finished[0][1], window.finished[0][0]) if window.finished else ([*given], 0.0)
            for window in windows]


def _continuations(runtime: Any, logits: np.ndarray, batch: list[_Window], options: Any) -> list[tuple]:
    """Per window its 2 * beams best continuations: scores, beams they continue, tokens; best first."""
    generated = np.array([tokens for window in batch for tokens in window.tokens], np.int64)
    scores = log_softmax(logits)
    require_numbers(runtime, scores[:, 0])
    scores = runtime.rules.apply(scores, generated.reshape(len(logits), -1), options.timestamps)
    scores += np.concatenate([window.scores for window in batch])[:, None]
    scores = scores.reshape(len(batch), -1)  # [audio, beams * vocab]
    top, values = _largest(scores, min(2 * options.beams, scores.shape[1]))
    return [(values[i], top[i] // logits.shape[1], top[i] % logits.shape[1]) for i in range(len(batch))]


def _largest(scores: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Places and values [rows, count] of the largest in each row of [rows, n], best first.

    Of equals the lower place comes first, as torch.topk gives them. To partition the vocabularies of all beams would
    cost as much as a small model's decoder; but the `count` largest stand in the `count` groups of largest maximum.
    """
    rows, n = scores.shape
    groups = n // GROUP
    places = np.broadcast_to(np.arange(n), (rows, n))
    if groups > count:
        largest = scores[:, :groups * GROUP].reshape(rows, GROUP, groups).max(axis=1)
        chosen = np.argpartition(largest, -count, axis=1)[:, None, -count:]
        members = (chosen + groups * np.arange(GROUP)[:, None]).reshape(rows, -1)
        places = np.concatenate([members, places[:, groups * GROUP:]], axis=1)
    values = np.take_along_axis(scores, places, axis=1)
    order = np.lexsort((places, -values), axis=1)[:, :count]
    return np.take_along_axis(places, order, axis=1), np.take_along_axis(values, order, axis=1)
