"""What happened inside, for a student: shapes and units after every step, the model's five best guesses, a picture.

Everything is computed from one window that was transcribed, in one extra pass in which the decoder is given the
tokens it wrote (teacher forcing): its guesses are then the same as when it wrote them.
"""

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from whisper_lab import console, files, web
from whisper_lab.alignment import sharpen, token_starts, words_of
from whisper_lab.audio import Audio
from whisper_lab.features import hertz_to_mel, mel_to_hertz
from whisper_lab.tokens import log_softmax
from whisper_lab.transcribe import Window

HERTZ_SHOWN = (250, 1000, 2000, 4000, 8000)  # ticks beside the mel bins
MOST_ROWS = 24  # more cannot be read on a slide


@dataclass
class FirstWindow:
    """One window on its way through the model."""

    sound: Audio
    window: Window
    features: np.ndarray  # float32 [n_mels, n_frames]
    prompt: list[int]
    tokens: list[int]  # what the decoder wrote, without the end token


@dataclass
class Guess:
    """What the decoder thought at one step: (token id, probability), best first, and what was written."""

    written: int
    probability: float
    best: list[tuple[int, float]]
    forbidden: set[int]  # of the best, those that the token rules forbade


def explain(first: FirstWindow, runtime, picture: str | Path, title: str) -> None:
    """Print the walk-through and draw the picture. runtime: TorchWhisper (or any with the same attributes)."""
    cross = runtime.encode(first.features[None])
    sequence = np.array([[*first.prompt, *first.tokens, runtime.rules.end]], np.int64)
    sequence = sequence[:, :runtime.rules.max_positions]
    attention = runtime.attention(sequence, cross)  # [heads, sequence, positions]
    logits = runtime.step(sequence, cross, None)[0][0, len(first.prompt) - 1:-1]  # row k wrote token k
    show_shapes(first, runtime, attention.shape[-1])
    timestamps = runtime.rules.no_timestamps not in first.prompt
    show_guesses(guesses(logits, sequence[0, len(first.prompt):], runtime.rules, timestamps), runtime)
    draw(first, runtime, attention, picture, title)
    console.result(f"\nPicture: {picture}\n")


def show_shapes(first: FirstWindow, runtime, positions: int) -> None:
    """A row for each step: what comes out, its shape, and the units of its axes."""
    spec, rules, sound = runtime.spec, runtime.rules, first.sound
    frame_ms, position_ms = 1000 * spec.hop_length / spec.sampling_rate, 1000 * rules.timestamp_step
    rows = [
        [f"file: channels x samples at {sound.source_rate} Hz; {sound.source_format}",
         [sound.source_channels, round(sound.duration * sound.source_rate)]],
        [f"1 load and resample: samples in -1..1, one every {1e6 / spec.sampling_rate:g} us; {sound.duration:.2f} s",
         [len(sound.samples)]],
        [f"  first window: {first.window.duration:.2f} s of sound, padded to {spec.window_s:g} s", [spec.n_samples]],
        [f"2 features: mel bins x frames; log10 of power, scaled; one frame every {frame_ms:g} ms",
         list(first.features.shape)],
        [f"3 generate, encoder: positions x d_model; one position every {position_ms:g} ms",
         [positions, runtime.model.config.d_model]],
        [f"  decoder was given: {_spell(first.prompt, runtime)}", [len(first.prompt)]],
        [f"  decoder wrote: token ids, each one of {rules.vocab_size}", [len(first.tokens)]],
        ["4 decode: characters", [len(rules.text(runtime.tokenizer, first.tokens))]],
    ]
    console.table("Shapes and units", ["what comes out of each step", "shape"], rows)


def guesses(logits: np.ndarray, written: np.ndarray, rules, timestamps: bool, best: int = 5) -> list[Guess]:
    """The `best` likeliest tokens at each step. logits: float32 [steps, vocab]; written: int64 [steps]."""
    found = []
    for step, token in enumerate(written):
        row = logits[step:step + 1]
        probabilities = np.exp(log_softmax(row))[0]
        allowed = np.isfinite(rules.apply(row.copy(), written[None, :step], timestamps)[0])
        order = np.argsort(-probabilities, kind="stable")[:best]
        found.append(Guess(int(token), float(probabilities[token]), [(int(i), float(probabilities[i])) for i in order],
                           {int(i) for i in order if not allowed[i]}))
    return found


def show_guesses(steps: list[Guess], runtime) -> None:
    """A row for each decoding step: the token that was written, then the five likeliest with their probabilities."""
    def cell(guess: Guess, token: int, probability: float) -> str:
        name = _name(token, runtime)
        return f"{f'({name})' if token in guess.forbidden else name} {probability:.3f}"

    rows = [[str(i), f"{_name(guess.written, runtime)} {guess.probability:.3f}",
             *(cell(guess, *pair) for pair in guess.best)] for i, guess in enumerate(steps)]
    console.table("The five likeliest tokens at each step, and their probability; (bracketed): forbidden",
                  ["step", "written", "1st", "2nd", "3rd", "4th", "5th"], rows)


def draw(first: FirstWindow, runtime, attention: np.ndarray, path: str | Path, title: str) -> Path:
    """Waveform, log-mel spectrogram and tokens over one time axis, as a 1600 x 900 picture."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with plt.rc_context({"font.size": 15, "axes.titlesize": 16, "axes.titlelocation": "left"}):
        figure, (wave, mel, text) = plt.subplots(3, 1, figsize=(16, 9), sharex=True, height_ratios=[2, 4, 8],
                                                 layout="constrained")
        figure.suptitle(web.drawn(title), fontsize=19)
        draw_wave(wave, first.window.samples, first.window.start, runtime.spec)
        draw_mel(mel, first.features, first.window.start, runtime.spec)
        _draw_tokens(text, first, runtime, attention)
        text.set_xlim(first.window.start, first.window.start + first.window.duration)
        text.set_xlabel("time (s)")
        with files.atomic(path) as temporary:
            figure.savefig(temporary, dpi=100)
        plt.close(figure)
    return Path(path)


def draw_wave(axes, samples: np.ndarray, start: float, spec, color: str = "#1f4e79") -> None:
    """Samples float [n] over time; the first was spoken at `start` s."""
    times = start + np.arange(len(samples)) / spec.sampling_rate  # s
    axes.plot(times, samples, linewidth=0.6, color=color)
    axes.set_title(f"1  samples: {spec.sampling_rate} each second")
    axes.set_ylabel("amplitude")
    limit = max(0.05, 1.1 * float(np.abs(samples).max(initial=0)))
    axes.set_ylim(-limit, limit)


def draw_mel(axes, features: np.ndarray, left: float, spec) -> None:
    """Log-mel features float [n_mels, frames] over time, beginning at `left` s."""
    bins, frames = features.shape
    axes.imshow(features, origin="lower", aspect="auto", cmap="magma", interpolation="nearest",
                extent=(left, left + frames * spec.hop_length / spec.sampling_rate, 0, bins))
    frame_ms = 1000 * spec.hop_length / spec.sampling_rate
    axes.set_title(f"2  log-mel features: {bins} mel bins, a frame every {frame_ms:g} ms")
    axes.set_ylabel("mel bin")
    # The bins are evenly spaced in mel from 0 Hz to half of the sampling rate.
    top = float(hertz_to_mel(spec.sampling_rate / 2))
    hertz = axes.secondary_yaxis("right", functions=(lambda b: mel_to_hertz(np.asarray(b) / bins * top),
                                                     lambda f: hertz_to_mel(f) / top * bins))
    hertz.set_yticks(HERTZ_SHOWN, [str(f) for f in HERTZ_SHOWN])
    hertz.set_ylabel("Hz")


def _draw_tokens(axes, first: FirstWindow, runtime, attention: np.ndarray) -> None:
    """Where the alignment heads looked while each token was written; the bar is the span the alignment gave it."""
    rules, left = runtime.rules, first.window.start
    positions = max(1, min(attention.shape[-1], round(first.window.duration / rules.timestamp_step)))
    tokens = first.tokens[:attention.shape[1] - len(first.prompt) - 1]
    groups = [([token], _name(token, runtime)) for token in tokens] if len(tokens) <= MOST_ROWS else \
        _words(tokens, runtime)
    joined = "tokens" if len(tokens) <= MOST_ROWS else f"{len(tokens)} tokens, joined to words"
    axes.set_title(f"3  {joined}: what the decoder wrote (red: when), and where it listened (blue: cross-attention, "
                   f"every {1000 * rules.timestamp_step:g} ms)" + (", beginning" if len(groups) > MOST_ROWS else ""))
    axes.set_yticks([])
    if not tokens:
        axes.text(0.5, 0.5, "no token was written", transform=axes.transAxes, ha="center", va="center")
        return
    rows = sharpen(attention[:, :, :positions], rules.median_filter_width)
    rows = rows[len(first.prompt) - 1:len(first.prompt) + len(tokens)]  # the last row wrote the end token
    starts = token_starts(rows) * rules.timestamp_step + left
    edges = np.cumsum([0] + [len(group) for group, _ in groups])[:MOST_ROWS + 1]
    rows = np.stack([rows[a:b].mean(axis=0) for a, b in zip(edges, edges[1:], strict=False)])
    axes.imshow(rows, aspect="auto", cmap="Blues", vmin=0, vmax=max(1e-6, np.quantile(rows, 0.995)),
                interpolation="nearest", extent=(left, left + positions * rules.timestamp_step, len(rows) - 0.5, -0.5))
    for i, (_, label) in enumerate(groups[:MOST_ROWS]):
        _draw_span(axes, i, (starts[edges[i]], starts[edges[i + 1]]), label, left + 0.85 * first.window.duration,
                   float(np.clip(330 / len(rows), 11, 15)))


def _draw_span(axes, row: int, span: tuple[float, float], label: str, room: float, size: float) -> None:
    """When a token was said, as a bar, and its text: to the right of the bar where that ends before `room`, in s."""
    from matplotlib.patheffects import withStroke

    axes.plot(span, [row, row], color="#c00000", linewidth=3, solid_capstyle="butt")
    right = span[1] < room
    label = label if len(label) <= 30 else f"{label[:29]}\u2026"  # a model in a loop writes endless words
    axes.annotate(label, (span[1] if right else span[0], row), fontsize=size, va="center",
                  ha="left" if right else "right", textcoords="offset points", xytext=(14 if right else -6, 0),
                  path_effects=[withStroke(linewidth=3, foreground="white")]).set_in_layout(False)


def _words(tokens: list[int], runtime) -> list[tuple[list[int], str]]:
    """Tokens joined to words, timestamps on their own: (tokens, text) each."""
    groups: list[tuple[list[int], str]] = []
    for is_text, run in itertools.groupby(tokens, runtime.rules.is_text):
        run = list(run)
        groups += [(group, text.strip()) for text, group in words_of(run, runtime.tokenizer)] if is_text else \
            [([token], _name(token, runtime)) for token in run]
    return groups


def _name(token: int, runtime) -> str:
    """A token as it can be shown: text with visible spaces, a special token by name, part of a character by bytes."""
    if not runtime.rules.is_text(token):
        return runtime.tokenizer.decode([token]) or f"<{token}>"
    text = runtime.tokenizer.decode([token])
    if "\ufffd" in text:  # part of a character
        return "".join(f"<{byte:02X}>" for byte in runtime.tokenizer.word(token))
    return text.replace(" ", "\u2423") or f"<{token}>"


def _spell(tokens: list[int], runtime) -> str:
    return " ".join(_name(token, runtime) for token in tokens)
