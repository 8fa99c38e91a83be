"""Which graphs, and which sound: what the command line leaves open is decided here, and said."""

import queue
import threading
from collections.abc import Callable, Iterator

import numpy as np

from whisper_lab import audio, console
from whisper_lab.console import LabError
from whisper_lab.export import naming
from whisper_lab.onnx_session import export_command
from whisper_lab.onnx_whisper import chosen_name
from whisper_lab.speakers import models
from whisper_lab.speakers.voice import SpeechDetector
from whisper_lab.stream import sources

FASTEST_FIRST = ("int8", "fp32", "fp16", "int4")  # int4 is smaller, and its text not as good
Open = Callable[[sources.Clock, threading.Event], sources.Played | sources.Live]


def graphs(args) -> tuple[str, str]:
    """Name and precision of the graphs to use, with the reason in a note.

    Raises LabError, with the command that writes them, where there are none.
    """
    name = chosen_name(args.model, args.model_dir)
    if args.precision:
        console.note("graphs", f"{name} {args.precision}", "--precision asks for it")
        return name, args.precision  # whether they are there is told where they are opened
    present = _present(args.model_dir, name)
    if not present:
        raise LabError(f"there are no graphs of {name} in {args.model_dir}",
                       f"write them: {export_command(args.model_dir, name, 'int8')}")
    reason = "the fastest here" if present[0] == "int8" else f"no int8 pair in {args.model_dir}, which would be faster"
    console.note("graphs", f"{name} {present[0]}", reason)
    return name, present[0]


def detector(spec) -> SpeechDetector | None:
    """Silero's voice activity detector; None, with a note, where the level has to do."""
    if spec.sampling_rate != audio.SAMPLE_RATE:
        return None  # Silero hears 16 kHz
    try:
        return SpeechDetector(models.obtain("silero-vad"))
    except LabError as error:
        console.note("voice activity", "by level", f"{error.problem}; then {error.remedy}")
        return None


def _present(folder: str, name: str) -> list[str]:
    return [precision for precision in FASTEST_FIRST
            if all(path.is_file() for path in naming.pair(folder, name, precision).values())]


def sources_of(args, failed: list) -> Iterator[tuple[str, Open]]:
    """What to listen to: (label, how to open it). Files one after the other.

    Of several files those that cannot be read are named, put into `failed` and left out.
    """
    if args.file:
        paths = audio.find(args.file)
        for path in paths:
            try:
                sound = audio.stream(path)  # played once: an hours-long recording takes no memory
            except LabError as error:
                if len(paths) == 1:
                    raise
                failed.append(path)
                console.error(error)
                continue
            console.note("loaded", f"{path.name}, {sound.duration:.2f} s", "; ".join([sound.source_format,
                                                                                     *sound.notes]))
            yield path.name, lambda clock, stop, sound=sound: sources.Played(sound, args.realtime, clock, stop)
    elif args.stdin:
        blocks = sources.pcm(args.rate, args.channels)
        console.note("listening", f"standard input, {args.rate} Hz, {args.channels} channels, 16 bit", "Ctrl-C ends it")
        yield "standard input", lambda clock, stop: sources.Live(blocks, clock, stop)
    else:
        yield "microphone", _open_microphone(args)


def _open_microphone(args) -> Open:
    from whisper_lab.record import microphone

    microphone.import_sounddevice()
    chosen, losses = microphone.find(args.device), microphone.Losses()
    return lambda clock, stop: sources.Live(_microphone_blocks(chosen, losses, stop), clock, stop, losses)


def _microphone_blocks(chosen, losses, stop: threading.Event) -> Iterator[np.ndarray]:
    """What the microphone hears, float32 [n] at 16 kHz. The way from callback to loop is explained in 01.

    Raises LabError where it cannot be opened, or sends nothing.
    """
    from whisper_lab.record import microphone

    sounddevice = microphone.import_sounddevice()
    waiting: queue.SimpleQueue[np.ndarray] = queue.SimpleQueue()

    def callback(block: np.ndarray, frames: int, _, status) -> None:
        losses.overflows += bool(status.input_overflow)
        waiting.put(block.copy())

    try:
        # A recorder wants no gaps and takes latency `high`; here the sound should be soon.
        stream = sounddevice.InputStream(device=chosen.index, channels=chosen.channels, samplerate=chosen.rate,
                                         dtype="int16", latency="low", callback=callback)
    except (sounddevice.PortAudioError, ValueError) as error:
        raise microphone.open_failure(error, chosen) from error
    convert, count = sources.Converter(chosen.rate), 0
    with stream:
        console.note("listening", f"{stream.latency * 1000:.0f} ms latency, {chosen.rate} Hz",
                     "Enter or Ctrl-C ends it")
        for block in microphone.flow(stream, waiting, stop, chosen):
            count += len(block)
            yield convert(block)
    if not count:
        raise microphone.nothing_came(chosen)
    yield convert(np.zeros((0, chosen.channels), np.int16), last=True)
    losses.report()
