"""What a training clip contains: which utterances, where, and the tokens that are the right answer.

A clip is at most one window. It holds one to three sentences, or a string of isolated digits by one speaker, or no
speech at all. `training.audio_augmentation` turns a batch of clips into features.
"""

import random
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from training.corpus import Utterance
from whisper_lab.spoken.voices import SAMPLE_RATE

IGNORE = -100  # the label that cross-entropy skips
CHARACTERS = " 'abcdefghijklmnopqrstuvwxyzéë"  # classes 1.. of the CTC head; 0 is its blank
# How often each kind of clip is drawn in the first and the later part of training, and in a second round: digits come
# first, and windows of several sentences, which take the longest to learn, last.
KINDS = {"sentences": (50, 66, 76), "human digits": (27, 16, 10), "synthetic digits": (15, 11, 7), "nothing": (5, 7, 7)}
SENTENCES = ((72, 18, 10, 0), (72, 18, 10, 0), (30, 30, 28, 12))  # how often a clip of them holds 1, 2, 3 or 4
RMS = 0.05  # loudness that every utterance is brought to before its gain


@dataclass
class Placement:
    """Utterance `start`..`start + length` of the corpus, begun at `at` (samples), played `speed` times as fast."""

    start: int
    length: int
    at: int
    speed: float
    gain_db: float


@dataclass
class Segment:
    """A piece of transcript with its place in the window, in samples."""

    text: str
    translation: str
    begin: int
    end: int
    language: str = "en"


@dataclass
class Plan:
    placements: list[Placement]
    inputs: list[int]
    labels: list[int]
    characters: list[int]
    recorded: int  # after this many samples the recording ends: digital zeros, as an extractor pads
    segments: list[Segment] = field(default_factory=list)


class Planner:
    """Draws plans from a corpus; the same seed gives the same plans."""

    def __init__(self, utterances: list[Utterance], tokenizer, window: int, max_tokens: int, held_out: bool = False):
        self.tokenizer, self.window, self.max_tokens = tokenizer, window, max_tokens
        self.ids = {t: tokenizer.convert_tokens_to_ids(t) for t in tokenizer.all_special_tokens}
        self.first_timestamp = self.ids["<|notimestamps|>"] + 1
        chosen = [u for u in utterances if u.held_out == held_out]
        self.sentences = {
            code: [u for u in chosen if u.language == code and u.kind not in ("digit", "um")] for code in ("en", "nl")
        }
        self.fillers = [u for u in chosen if u.kind == "um"]
        self.human = _by_voice(u for u in chosen if u.kind == "digit" and u.human)
        self.synthetic = _by_voice(u for u in chosen if u.kind == "digit" and not u.human)

    def draw(self, rng: random.Random, kind: str | None = None, dutch: float = 0.1, part: int = 0) -> Plan:
        """One plan; of `kind`, or of one drawn with the weights of a part of training (0, 1, 2: see KINDS)."""
        kind = kind or rng.choices(list(KINDS), [weights[part] for weights in KINDS.values()])[0]
        if kind == "human digits" and not self.human:
            kind = "synthetic digits"
        if kind == "nothing":
            placements, segments = self._nothing(rng)
        elif kind == "sentences":
            placements, segments = self._sentences(rng, "nl" if rng.random() < dutch else "en", SENTENCES[part])
        else:
            placements, segments = self._digits(rng, self.human if kind == "human digits" else self.synthetic)
        return self._answer(rng, placements, segments)

    def _nothing(self, rng: random.Random) -> tuple[list[Placement], list[Segment]]:
        if rng.random() < 0.75 or not self.fillers:
            return [], []
        filler = rng.choice(self.fillers)
        return [self._place(rng, filler, rng.randrange(self.window // 2))], []

    def _sentences(self, rng: random.Random, language: str, counts: tuple) -> tuple[list[Placement], list[Segment]]:
        """One to four sentences, as often as `counts` says; the last may run over the end of the window."""
        placements, segments = [], []
        at = _seconds(rng, 0, 0.6) if rng.random() < 0.85 else _seconds(rng, 0, 5)
        if self.fillers and rng.random() < 0.06:
            placements.append(self._place(rng, rng.choice(self.fillers), at))
            at = _end(placements[-1]) + _seconds(rng, 0.05, 0.6)
        for _ in range(rng.choices((1, 2, 3, 4), counts)[0]):
            utterance = rng.choice(self.sentences[language])
            placement = self._place(rng, utterance, at)
            if at > self.window - SAMPLE_RATE // 2:
                break
            placements.append(placement)
            segments.append(Segment(utterance.text, utterance.translation, at, _end(placement), language))
            at = _end(placement) + _seconds(rng, 0.25, 1.5)
        if len(segments) == 1 and segments[0].end > self.window:  # never only half a sentence
            shift = min(segments[0].begin, segments[0].end - self.window)
            placements[-1].at -= shift
            segments[0].begin, segments[0].end = segments[0].begin - shift, segments[0].end - shift
        return placements, segments

    def _digits(self, rng: random.Random, speakers: dict) -> tuple[list[Placement], list[Segment]]:
        """One to eight isolated digits of one voice with small gaps: one segment."""
        digits, voice = speakers[rng.choice(list(speakers))], []
        at = begin = _seconds(rng, 0, 0.8)
        widest = rng.choice((0.08, 0.2, 0.4, 0.7))
        speed, placements = _speed(rng), []
        for _ in range(rng.randint(1, 8)):
            utterance = rng.choice(digits)
            placement = self._place(rng, utterance, at, speed * rng.uniform(0.95, 1.05))
            if _end(placement) > self.window:
                break
            placements.append(placement)
            voice.append(utterance)
            at = _end(placement) + _seconds(rng, 0.0, widest)
        text = " ".join(u.text for u in voice)
        language = digits[0].language
        translation = " ".join(u.translation for u in voice)
        return placements, [Segment(text, translation, begin, _end(placements[-1]), language)]

    def _place(self, rng: random.Random, utterance: Utterance, at: int, speed: float | None = None) -> Placement:
        return Placement(utterance.start, utterance.length, at, speed or _speed(rng), rng.uniform(-4, 4))

    def _answer(self, rng: random.Random, placements: list[Placement], segments: list[Segment]) -> Plan:
        """The token sequence in one of Whisper's forms (paper, section 2.3), and the characters for CTC."""
        ids = self.ids
        language = segments[0].language if segments else rng.choice(("en", "nl"))
        translate = language == "nl" and rng.random() < 0.2
        stamped = rng.random() < 0.5
        complete = [s for s in segments if s.end <= self.window]
        text = self._stamped(segments, translate) if stamped else self._plain(complete, translate)
        task = ids["<|translate|>" if translate else "<|transcribe|>"]
        answer = [ids[f"<|{language}|>"], task, *([] if stamped else [ids["<|notimestamps|>"]]), *text]
        tokens = [ids["<|startoftranscript|>"], *answer, ids["<|endoftext|>"]]
        labels = [*tokens[1:]]
        if not segments:  # Whisper reads the probability of no speech where the language would stand
            labels[0] = ids["<|nospeech|>"]
        labels[1] = IGNORE  # the task is a request, not something to be heard
        if rng.random() < 0.12 and segments:
            tokens, labels = self._with_prompt(rng, tokens, labels, language)
        if len(tokens) > self.max_tokens:  # cannot be said within the decoder's length: say nothing, learn nothing
            return self._answer(rng, [], [])
        cut = len(complete) < len(segments)
        characters = [] if cut else [CHARACTERS.index(c) + 1 for c in " ".join(s.text for s in segments)]
        last = max((_end(p) for p in placements), default=rng.randrange(self.window))
        recorded = self.window if rng.random() < 0.03 else min(self.window, last + _seconds(rng, 0.05, 0.8))
        return Plan(placements, tokens[:-1], labels, characters, recorded, segments)

    def _plain(self, segments: list[Segment], translate: bool) -> list[int]:
        text = "".join(f" {s.translation if translate else s.text}" for s in segments)
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def _stamped(self, segments: list[Segment], translate: bool) -> list[int]:
        """Text between timestamps; of a segment that the window cuts, only where it begins."""
        tokens = []
        for s in segments:
            tokens.append(self._timestamp(s.begin))
            if s.end <= self.window:
                tokens += [*self._plain([s], translate), self._timestamp(s.end)]
        return tokens or [self._timestamp(0)]

    def _timestamp(self, samples: int) -> int:
        return self.first_timestamp + round(samples / SAMPLE_RATE / 0.02)

    def _with_prompt(self, rng: random.Random, tokens: list[int], labels: list[int], language: str) -> tuple:
        """Text that came before, without loss: the decoder learns that a prompt is not part of the answer."""
        before = [rng.choice(self.sentences[language]) for _ in range(rng.randint(1, 2))]
        prompt = [self.ids["<|startofprev|>"], *self._plain([Segment(u.text, "", 0, 0) for u in before], False)]
        return prompt + tokens, [IGNORE] * len(prompt) + labels


def collate(plans: list[Plan], audio: np.ndarray, pad: int, window: int) -> dict[str, np.ndarray]:
    """A batch `window` samples long: wave [clips, window], tokens [clips, longest], characters [clips, longest]."""
    return {
        "wave": np.stack([mix(plan.placements, audio, window) for plan in plans]),
        "recorded": np.array([p.recorded for p in plans]),
        "inputs": _padded([p.inputs for p in plans], pad),
        "labels": _padded([p.labels for p in plans], IGNORE),
        "characters": _padded([p.characters for p in plans], 0),
        "character_counts": np.array([len(p.characters) for p in plans]),
    }


def mix(placements: list[Placement], audio: np.ndarray, window: int) -> np.ndarray:
    """Utterances laid into a clip [window], each at its own speed (and so pitch), by linear interpolation."""
    wave = np.zeros(window, np.float32)
    for p in placements:
        source = audio[p.start : p.start + p.length].astype(np.float32) / 32768
        count = min(int((p.length - 1) / p.speed), window - p.at)
        if count <= 0:
            continue
        position = np.arange(count, dtype=np.float32) * np.float32(p.speed)
        index = np.minimum(position.astype(np.int32), p.length - 2)
        piece = source[index] + (position - index) * (source[index + 1] - source[index])
        loudness = max(1e-4, float(np.sqrt(np.mean(source * source))))
        wave[p.at : p.at + count] += piece * (RMS / loudness * 10 ** (p.gain_db / 20))
    return wave


def _padded(rows: list[list[int]], value: int) -> np.ndarray:
    out = np.full((len(rows), max(1, max(map(len, rows)))), value, np.int64)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out


def _by_voice(utterances) -> dict[str, list[Utterance]]:
    grouped = defaultdict(list)
    for u in utterances:
        grouped[u.voice, u.language].append(u)
    return dict(grouped)


def _seconds(rng: random.Random, low: float, high: float) -> int:
    return int(rng.uniform(low, high) * SAMPLE_RATE)


def _speed(rng: random.Random) -> float:
    return rng.uniform(0.85, 1.2) if rng.random() < 0.7 else 1.0


def _end(p: Placement) -> int:
    return p.at + int(p.length / p.speed)
