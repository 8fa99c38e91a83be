"""Windows that are not full: the encoder hears the sound, a little silence, and the rest of the window thinned.

A Whisper was trained on whole windows, mostly padding, and its encoder spends most of its time there. It hears the same
in the beginning of a window where a few positions stand for the rest (thinning.py), and some silence lies between: with
too little it does not notice that the speech has ended, and repeats its last words. How much is enough was found when
the graphs were written (export/silence.py), and is noted in them. What that misses shows in the text, and costs a
second look: `heard_frames` says how much is heard, `is_unsafe` what speaks against the text, and `hear` asks both.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from whisper_lab import confidence
from whisper_lab.decoding import Options, Result, decode_encoded, is_silence, looks_wrong
from whisper_lab.features import log_mel

GRID_S = 0.1  # s; lengths are rounded up to this
AUTO, FULL = "auto", "full"
LEAST_S = 0.2  # s of silence behind any sound: the last position but one has to hear nothing else (thinning.py)
# Times as doubtful as a text that is shown with a warning (confidence.limit_of). With a nearer limit more texts are
# heard twice, and in all there are no fewer errors: benchmarks/short_windows.py.
HEARD_AGAIN = 2.0


def heard_frames(runtime, seconds: float, context: str | float = AUTO) -> int:
    """How many frames of its window the encoder hears of a sound of so many seconds: even, at most the window's.

    context: AUTO, the sound and as much silence as the checkpoint needs; FULL, the whole window; a number, the sound
    and so many seconds of silence. Runtimes that take nothing but whole windows, or do not know how much silence is
    enough, get the whole.
    """
    spec = runtime.spec
    silence_s = getattr(runtime, "silence_s", None) if context == AUTO else None if context == FULL else float(context)
    if silence_s is None or not getattr(runtime, "takes_short_windows", False):
        return spec.n_frames
    rate, silence = spec.sampling_rate, np.float32(max(silence_s, LEAST_S))  # as the single graph reckons
    grid, wanted = round(GRID_S * rate), round(seconds * rate) + math.ceil(silence * rate)
    frames = math.ceil(-(-wanted // grid) * grid / spec.hop_length)
    return min(spec.n_frames, frames + frames % 2)


def hears_short(runtime, options: Options) -> bool:
    """Whether the encoder hears less than its whole window where the sound is half as long."""
    return heard_frames(runtime, runtime.spec.n_samples / runtime.spec.sampling_rate / 2, options.audio_context
                        ) < runtime.spec.n_frames


def is_unsafe(result: Result, options: Options, limit: float) -> bool:
    """Whether the text of a shorter window may be worse than the whole window's would be.

    It goes round in a loop or is unlikely by decoding.looks_wrong; its mean log-probability is below `limit` (unless
    options.logprob_threshold is None: then nothing is unlikely); it did not end; or there is none, though something
    could be heard. Where max_tokens is set, texts end there, and may be no texts. What the no-speech rule takes for
    silence is safe: the whole window says the same of it, or what nobody said.
    """
    if is_silence(result, options):
        return False
    known = options.logprob_threshold is not None and result.text_logprob is not None
    doubtful = known and result.text_logprob < limit
    cut = options.max_tokens is None and (not result.ended or not result.text)
    return doubtful or cut or looks_wrong(result, options)


def limit_of(runtime) -> float:
    """Mean log-probability a token below which a shorter window's text is heard again, by the runtime's checkpoint."""
    return HEARD_AGAIN * confidence.limit_of(getattr(runtime, "facts", {}).get("model", confidence.OTHERS))


@dataclass(frozen=True)
class Heard:
    """What was decoded from a window, and where its cross cache is."""

    result: Result
    cross: object  # of several windows
    row: int
    shortened: bool = False  # at first only the beginning was heard
    again: bool = False  # then the whole window, because the beginning's text was not safe


def hear(runtime, sounds: Sequence[np.ndarray], options: Options, languages: Sequence[str | None],
         before: Sequence[Sequence[int]]) -> list[Heard]:
    """Decode windows together, float32 [n] each; of those that are short first the beginning. What is not safe in the
    greedy text is heard whole at once: beams and higher temperatures come after that.

    Each beginning is as long as it needs, or as the longest of them where the runtime cannot mix lengths.
    languages: None is detected; before: the tokens that each window's text goes on from.
    """
    rate, whole = runtime.spec.sampling_rate, runtime.spec.n_frames
    frames = [heard_frames(runtime, len(sound) / rate, options.audio_context) for sound in sounds]
    if not getattr(runtime, "mixes_lengths", False):
        frames = [max(frames)] * len(frames)
    once = replace(options, temperatures=options.temperatures[:1])
    unsafe = functools.partial(is_unsafe, options=options, limit=limit_of(runtime))

    def decode(which: list[int], *how) -> dict[int, Heard]:
        rows = ([row[i] for i in which] for row in (sounds, languages, before, frames))
        return dict(zip(which, _decode(runtime, *rows, *how), strict=True)) if which else {}

    short = decode([i for i, number in enumerate(frames) if number < whole], once, unsafe)
    found = {i: replace(heard, shortened=True) for i, heard in short.items() if not unsafe(heard.result)}
    frames = [whole] * len(frames)
    for i, heard in decode([i for i in range(len(sounds)) if i not in found], options).items():
        found[i] = replace(heard, shortened=i in short, again=i in short)
    return [found[i] for i in range(len(sounds))]


def _decode(runtime, sounds: Sequence[np.ndarray], languages: Sequence[str | None], before: Sequence[Sequence[int]],
            frames: Sequence[int], options: Options, hopeless: Callable[[Result], bool] | None = None) -> list[Heard]:
    features = [log_mel(sound, runtime.spec, number) for sound, number in zip(sounds, frames, strict=True)]
    cross = runtime.encode(np.stack(features) if len(set(frames)) == 1 else features)
    results = decode_encoded(runtime, cross, len(sounds), options, languages, before, (), hopeless)
    return [Heard(result, cross, row) for row, result in enumerate(results)]
