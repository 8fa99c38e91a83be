"""Whisper's token rules: which ids mean what, how a prompt is built, and which tokens may come next. NumPy only.

Everything is read from the checkpoint's own files, so a model with another vocabulary, window or language list needs no
change here. Sources: Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision", section 2.3 and
figure 1 (the prompt format); openai-whisper's `whisper/decoding.py` (SuppressBlank, SuppressTokens,
ApplyTimestampRules) and transformers' `WhisperTimeStampLogitsProcessor`, whose choices these rules reproduce token
for token.
"""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from whisper_lab import console, languages
from whisper_lab.console import LabError
from whisper_lab.features import FeatureSpec
from whisper_lab.tokenizer import Tokenizer, read_object

# The rules ------------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class TokenRules:
    """The special tokens, limits and rules of one checkpoint.

    Text tokens are the ids below `end`, and those behind the timestamps: tokens that a fine-tuned vocabulary added.
    """

    start: int  # <|startoftranscript|>
    end: int  # <|endoftext|>
    no_timestamps: int  # <|notimestamps|>; the first timestamp, <|0.00|>, is the id after it
    no_speech: int  # <|nospeech|>
    previous: int | None  # <|startofprev|>, before the text of the previous window
    languages: dict[str, int]  # language code -> id; empty in an English-only checkpoint
    tasks: dict[str, int]  # transcribe, translate -> id; empty in an English-only checkpoint
    suppress: np.ndarray  # ids never sampled
    begin_suppress: np.ndarray  # ids never sampled first: a blank, and the end
    max_initial_timestamp: int | None  # the first timestamp may be at most this many steps
    timestamp_end: int  # the last timestamp: the id of the window's end; what is above it is text
    max_positions: int  # tokens the decoder can hold, prompt included
    vocab_size: int
    timestamp_step: float  # seconds from one timestamp token to the next, also one encoder position
    language: str | None = None  # that generation_config.json asks for; None: to be detected
    condition_on_previous: bool = True  # give a window the text before it; False: the checkpoint is led astray by it
    alignment_heads: tuple[tuple[int, int], ...] = field(default=())  # (layer, head) whose attention follows the sound
    median_filter_width: int = 7  # encoder positions

    @classmethod
    def from_folder(cls, folder: str | Path, tokenizer: Tokenizer | None = None) -> "TokenRules":
        """Read generation_config.json, config.json, preprocessor_config.json and tokenizer.json of a checkpoint.

        tokenizer: the folder's, where that is open already. Raises LabError where a file is missing or cannot be
        understood.
        """
        return cls(**read_files(folder, tokenizer))

    @property
    def timestamp_begin(self) -> int:
        """Id of <|0.00|>; `timestamp_begin + n` means n * timestamp_step seconds into the window."""
        return self.no_timestamps + 1

    @property
    def most_previous(self) -> int:
        """Tokens of previous text that a prompt may hold: half of the positions stay free for the answer."""
        return self.max_positions // 2 - 1

    def language_id(self, code: str) -> int:
        """Token id of a language, by code or name. Raises LabError where the checkpoint does not know it."""
        code = languages.code(code)
        if code not in self.languages:
            known = ", ".join(sorted(self.languages)) or "none but English: it has no language tokens"
            raise LabError(f"this checkpoint does not know the language '{code}'", f"one of its languages: {known}")
        return self.languages[code]

    def wanted_language(self, language: str | None) -> str | None:
        """The code of the language asked for, else of the one that the checkpoint's files name; None: to be detected.
        """
        return languages.code(language) if language else self.language

    def prompt(self, language: str | None = None, task: str = "transcribe", timestamps: bool = False,
               previous: Sequence[int] = ()) -> list[int]:
        """The tokens given to the decoder before it speaks.

        `<|startofprev|> previous text <|startoftranscript|> <|language|> <|task|> <|notimestamps|>`; the previous text
        is cut to its last `most_previous` tokens. An English-only checkpoint has neither language nor task. Raises
        LabError for an unknown language or task.
        """
        tokens: list[int] = []
        if len(previous):
            if self.previous is None:
                raise LabError("this checkpoint takes no previous text: its tokenizer has no <|startofprev|>",
                               "leave out --prompt, or choose another checkpoint with --model")
            tokens += [self.previous, *list(previous)[-self.most_previous:]]
        tokens.append(self.start)
        if self.languages:
            tokens.append(self.language_id(language or "en"))
            if task not in self.tasks:
                raise LabError(f"this checkpoint does not know the task '{task}'", f"one of: {', '.join(self.tasks)}")
            tokens.append(self.tasks[task])
        elif task != "transcribe" or languages.code(language or "en") != "en":
            raise LabError("an English-only checkpoint can only transcribe English",
                           "leave out --task and --language, or choose a multilingual checkpoint with --model")
        return tokens if timestamps else [*tokens, self.no_timestamps]

    def checked_prompt(self, tokenizer: Tokenizer, text: str | None, language: str | None, task: str) -> list[int]:
        """The tokens of --prompt. Raises LabError, before anything is heard, for what the checkpoint does not know."""
        tokens = self.prompt_tokens(tokenizer, text or "")
        self.prompt(self.wanted_language(language), task, previous=tokens)
        return tokens

    def apply(self, scores: np.ndarray, generated: np.ndarray, timestamps: bool) -> np.ndarray:
        """Forbid, in place, what may not come next.

        scores: float32 [rows, vocab], logits or log-probabilities; generated: int64 [rows, steps], the tokens after the
        prompt. Forbidden entries become -inf. Returns `scores`.
        """
        if generated.shape[1] == 0:
            scores[:, self.begin_suppress] = -np.inf
        scores[:, self.suppress] = -np.inf
        if timestamps:
            scores[:, self.no_timestamps] = -np.inf
            for row in range(len(scores)):
                self._order_timestamps(scores[row], generated[row])
            self._prefer_timestamps(scores)
        return scores

    def _order_timestamps(self, scores: np.ndarray, generated: np.ndarray) -> None:
        """Timestamps begin the text, come in pairs (end of one segment, start of the next) and never decrease."""
        begin, behind = self.timestamp_begin, self.timestamp_end + 1
        is_time = self.is_timestamp(generated)
        if len(generated) == 0:
            scores[:begin] = -np.inf
            latest = self.timestamp_end if self.max_initial_timestamp is None else begin + self.max_initial_timestamp
            scores[min(latest, self.timestamp_end) + 1:] = -np.inf
            return
        last_is_time = is_time[-1]
        second_last_is_time = len(generated) < 2 or is_time[-2]
        if last_is_time and second_last_is_time:  # a pair is complete: text has to follow
            scores[begin:behind] = -np.inf
        elif last_is_time:  # half a pair: its other half or the end has to follow
            scores[:self.end] = scores[behind:] = -np.inf
        times = generated[is_time]
        if len(times):
            # The second half of a pair may repeat the first; any other timestamp has to be later than the last.
            earliest = times[-1] if last_is_time and not second_last_is_time else times[-1] + 1
            scores[begin:earliest] = -np.inf

    def _prefer_timestamps(self, scores: np.ndarray) -> None:
        """Where all timestamps together are likelier than the likeliest text token, only a timestamp may come."""
        begin, behind = self.timestamp_begin, self.timestamp_end + 1
        likeliest = scores[:, :begin].max(axis=-1)
        if behind < scores.shape[1]:
            likeliest = np.maximum(likeliest, scores[:, behind:].max(axis=-1))
        forced = logsumexp(scores[:, begin:behind]) > likeliest
        scores[forced, :begin] = scores[forced, behind:] = -np.inf

    def text_tokens(self, tokens: Sequence[int]) -> list[int]:
        """The tokens that stand for text: no special tokens, no timestamps."""
        return [int(token) for token in tokens if self.is_text(token)]

    def is_text(self, token: int) -> bool:
        """No special token and no timestamp."""
        return token < self.end or token > self.timestamp_end

    def is_timestamp(self, tokens):
        """Whether a token is a timestamp; of an array of tokens, an array of bool."""
        return (tokens >= self.timestamp_begin) & (tokens <= self.timestamp_end)

    def answer(self, tokens: Sequence[int]) -> list[int]:
        """What the decoder said, from a whole sequence: without the prompt, the end token and the padding after it."""
        tokens = [int(token) for token in tokens]
        said = tokens[tokens.index(self.start) + 1:] if self.start in tokens else tokens
        opening = {*self.languages.values(), *self.tasks.values(), self.no_timestamps}
        while said and said[0] in opening:
            said = said[1:]
        return said[:said.index(self.end)] if self.end in said else said

    def prompt_tokens(self, tokenizer: Tokenizer, text: str) -> list[int]:
        """Tokens of a text to put before a window; warns where only the end of it fits.

        Raises LabError where special tokens are written in it.
        """
        tokens = tokenizer.encode(" " + text.strip()) if text.strip() else []
        if len(self.text_tokens(tokens)) < len(tokens):
            raise LabError("the prompt holds a special token", "write plain words in --prompt, without <|...|>")
        if len(tokens) > self.most_previous:
            console.warn(f"the prompt has {len(tokens)} tokens: only its last {self.most_previous} are used")
        return tokens[-self.most_previous:]

    def text(self, tokenizer: Tokenizer, tokens: Sequence[int]) -> str:
        """The text of tokens, special ones and timestamps left out, stripped."""
        return tokenizer.decode(self.text_tokens(tokens)).strip()


def logsumexp(scores: np.ndarray) -> np.ndarray:
    """log(sum(exp(scores))) over the last axis without overflow; -inf where all of a row is -inf."""
    largest = scores.max(axis=-1, keepdims=True)
    finite = np.where(np.isfinite(largest), largest, 0).astype(scores.dtype)
    with np.errstate(divide="ignore"):
        return np.log(np.exp(scores - finite).sum(axis=-1)) + finite[..., 0]


def require_numbers(runtime, likely: np.ndarray | float) -> None:
    """Raises LabError where `likely`, which was divided by the sum of a row's exponentials, is not finite.

    One NaN or infinity among a row's scores makes that sum one, so there is no need to look at the whole row. Argmax
    would take a NaN for the likeliest token, and write "!!!!". runtime: a decoding.Runtime, which the error is about.
    """
    if np.isfinite(likely).all():
        return
    command = getattr(runtime, "command", None)  # of graphs: what writes them
    raise LabError("the model's scores are not numbers (NaN or infinity): its weights are damaged, or float16 has no "
                   "room for what it computes", f"write the graphs again: {command}" if command else
                   "fetch the checkpoint again; where --dtype is float16, try --dtype float32")


def log_softmax(scores: np.ndarray) -> np.ndarray:
    """Log-probabilities over the last axis, float32."""
    return (scores - logsumexp(scores)[..., None]).astype(np.float32, copy=False)


def kl_divergence(right: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Kullback-Leibler divergence of `test` from `right` over the last axis, nats; both are log-probabilities."""
    return np.maximum((np.exp(right) * (right - test)).sum(axis=-1), 0)  # below 0 is rounding


# The files of a checkpoint --------------------------------------------------------------------------------------------

# What a checkpoint's files say of its tokens: tokenizer.json, generation_config.json, config.json.

ENGLISH_END = 50256  # <|endoftext|> in GPT-2's vocabulary, which the English-only models have unchanged
AGAIN = "download it again, or choose another with --model"


def read_files(folder: str | Path, tokenizer: Tokenizer | None = None) -> dict:
    """The fields of tokens.TokenRules.

    tokenizer: the folder's, where that is open already. Raises LabError where a file is missing or cannot be
    understood.
    """
    folder = Path(folder)
    spec, model = FeatureSpec.from_folder(folder), read_object(folder / "config.json")
    generation = {**model, **read_object(folder / "generation_config.json", required=False)}
    tokenizer = tokenizer or Tokenizer.from_folder(folder)
    try:
        fields = _from_config(generation, model, spec.window_s, tokenizer.special)
        fields["alignment_heads"] = _heads(folder, generation, model)
        _check_ranges(fields)
        return fields
    except KeyError as error:
        raise LabError(f"{folder} is not a complete Whisper checkpoint: no {error}", AGAIN) from error
    except (TypeError, IndexError, ValueError, AttributeError, ArithmeticError) as error:
        raise LabError(f"{folder} is not a valid Whisper checkpoint: {error}", AGAIN) from error


def _from_config(generation: dict, model: dict, window_s: float, ids: dict[str, int]) -> dict:
    """generation_config.json first, then the tokenizer's names."""
    no_timestamps = generation.get("no_timestamps_token_id") or ids["<|notimestamps|>"]
    end = generation["eos_token_id"]
    multilingual = generation.get("is_multilingual")
    if multilingual is None:  # the tokenizers of the English-only models name languages too
        multilingual = "<|nl|>" in ids and ids.get("<|endoftext|>", end) != ENGLISH_END
    languages = generation.get("lang_to_id") or _languages(ids)
    tasks = generation.get("task_to_id") or {task: ids[f"<|{task}|>"] for task in ("transcribe", "translate")}
    return {
        "start": generation["decoder_start_token_id"],
        "end": end[0] if isinstance(end, list) else end,
        "no_timestamps": no_timestamps,
        "no_speech": ids.get("<|nospeech|>", ids.get("<|nocaptions|>", no_timestamps - 1)),
        "previous": generation.get("prev_sot_token_id") or ids.get("<|startofprev|>"),
        "languages": {name.strip("<|>"): i for name, i in languages.items()} if multilingual else {},
        "tasks": dict(tasks) if multilingual else {},
        "suppress": np.array(generation.get("suppress_tokens") or [], np.int64),
        "begin_suppress": np.array(generation.get("begin_suppress_tokens") or [], np.int64),
        "max_initial_timestamp": generation.get("max_initial_timestamp_index"),
        "max_positions": model["max_target_positions"],
        "vocab_size": model["vocab_size"],
        "timestamp_end": _last_timestamp(no_timestamps + 1, ids) or no_timestamps + 1 + model["max_source_positions"],
        "language": _language(generation, multilingual),
        "condition_on_previous": generation.get("condition_on_prev_tokens") is not False,
        "timestamp_step": window_s / model["max_source_positions"],
        "median_filter_width": model.get("median_filter_width", 7),
    }


def _last_timestamp(first: int, ids: dict[str, int]) -> int | None:
    """The last of the tokens <|0.00|>, <|0.02|>, ... from `first` on; None where the vocabulary does not name them.

    Such a tokenizer (those of 2022) has a timestamp for each position of the encoder, and the end.
    """
    times = {i for name, i in ids.items() if re.fullmatch(r"<\|\d+\.\d\d\|>", name)}
    last = next((i for i in range(first, first + len(times) + 1) if i not in times), first) - 1
    return last if last >= first else None


def _language(generation: dict, multilingual: bool) -> str | None:
    """The language a fine-tuned checkpoint asks for: `dutch`, `nl` and `<|nl|>` are all in use."""
    return languages.code(generation["language"]) if multilingual and generation.get("language") else None


def _languages(ids: dict[str, int]) -> dict[str, int]:
    """Language tokens stand between <|startoftranscript|> and the tasks."""
    first, last = ids["<|startoftranscript|>"], min(ids["<|translate|>"], ids["<|transcribe|>"])
    return {name: i for name, i in ids.items() if first < i < last}


def _heads(folder: Path, generation: dict, model: dict) -> tuple[tuple[int, int], ...]:
    """The checkpoint's alignment heads; those of the upper half where it names none, or some that it does not have."""
    layers, heads, named = model["decoder_layers"], model["decoder_attention_heads"], generation.get("alignment_heads")
    found = valid_heads(named, layers, heads)
    if named and not found:
        _warn_of_heads(str(folder), layers, heads)
    return found or upper_heads(layers, heads)


@functools.cache  # the files of a checkpoint are read more than once
def _warn_of_heads(folder: str, layers: int, heads: int) -> None:
    console.warn(f"the alignment heads in {folder} are not of this decoder of {layers} layers with {heads} heads each "
                 "(perhaps of the model it was distilled from): word times come from all heads of its upper half")


def valid_heads(named: object, layers: int, heads: int) -> tuple[tuple[int, int], ...] | None:
    """Alignment heads as (layer, head), or None where they are not heads of a decoder of this size."""
    try:
        pairs = tuple((int(layer), int(head)) for layer, head in named)
    except (TypeError, ValueError):
        return None
    inside = all(0 <= layer < layers and 0 <= head < heads for layer, head in pairs)
    return pairs if pairs and inside else None


def upper_heads(layers: int, heads: int) -> tuple[tuple[int, int], ...]:
    """Where nobody chose alignment heads: all heads of the upper half of the decoder, as openai-whisper does."""
    return tuple((layer, head) for layer in range(layers // 2, layers) for head in range(heads))


def _check_ranges(fields: dict) -> None:
    """Raises ValueError for ids that the vocabulary does not have: they would be an error at the first window."""
    vocab = fields["vocab_size"]
    named = {name: fields[name] for name in ("start", "end", "no_timestamps", "no_speech")}
    named |= {} if fields["previous"] is None else {"previous": fields["previous"]}
    named |= fields["languages"] | fields["tasks"]
    for name, token in named.items():
        if type(token) is not int or not 0 <= token < vocab:
            raise ValueError(f"token {token!r} of '{name}' is outside the vocabulary of {vocab}")
    for name in ("suppress", "begin_suppress"):
        outside = fields[name][(fields[name] < 0) | (fields[name] >= vocab)]
        if fields[name].ndim != 1 or len(outside):
            raise ValueError(f"{name}_tokens holds {outside[:3].tolist()}, outside the vocabulary of {vocab}")
    most, width, positions = (fields[name] for name in ("max_initial_timestamp", "median_filter_width",
                                                        "max_positions"))
    if not all(type(value) is int and value >= low for value, low in ((most or 0, 0), (width, 1), (positions, 8))):
        raise ValueError(f"max_initial_timestamp_index {most!r}, median_filter_width {width!r} or "
                         f"max_target_positions {positions!r} is out of range")
