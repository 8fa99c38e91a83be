"""Step 2: from your own microphone to speech.wav, 16 kHz mono 16-bit, which 02 reads.

    python 01-record-audio-app.py                        # a page in your browser
    python 01-record-audio-app.py --share                # with a public https address and a password
    python 01-record-audio-app.py --cli                  # a microphone on this machine; Enter ends it

    1. decode    whatever the browser sends -> samples, mono, 16 kHz                        [n]
    2. measure   how loud it is, what is silent or cut off; nothing is changed
    3. write     16 bit, whole or not at all; the recording before it moves to recordings/

A browser gives the microphone only to a secure page. Try in this order:
  - VS Code over SSH forwards the port (panel Ports); http://localhost:7860 on your own computer is secure.
  - --share asks gradio.live for a public https address; whoever has it and the password can use the page.
  - --host 0.0.0.0 --https serves this network; the browser warns about the certificate, compare its fingerprint.

On a Raspberry Pi: --cli with --latency and --blocksize; `chrt -f 50` before the command gives it real-time priority.
"""

import queue
import wave
from pathlib import Path

import numpy as np

from whisper_lab import audio, console, files, flags, loudness
from whisper_lab.record import save
from whisper_lab.record.save import Saved

LONGEST_QUEUE = 60  # s of sound that may wait for the disk; beyond that blocks are dropped, and counted


# 1 to 3. From the browser to speech.wav ------------------------------------------------------------------------------

def convert(arrived: Path, output: Path, limit_s: float) -> tuple[Saved, np.ndarray]:
    """The lesson: what happens to the sound on its way from the browser to speech.wav.

    Returns what was saved, and the samples, float32 [n]. Raises LabError for what is not sound, or too long.
    """
    # 0. In the browser, before Python sees anything: the microphone's samples, usually 48 000 a second, may pass echo
    #    cancelling, noise suppression and automatic gain; they are packed with loss, as Opus in webm in most browsers;
    #    and the page unpacks that to a 16-bit WAV at 48 kHz, Opus's own rate. So what arrives is not, bit by bit, what
    #    the microphone heard, though few ears would notice. An uploaded file arrives as it was.

    # 1. Decode. Whole numbers are divided by the full scale of their kind, 32 768 for 16 bits, so that -1..1 means the
    #    same loudness in every format: divide those of a 32-bit file by 32 768, and it is 65 536 times too loud.
    #    Channels are averaged to mono, and the rate is converted to 16 kHz behind a low-pass filter: without it, a
    #    tone of 10 kHz would come back as one of 6 kHz that nobody made (aliasing). In short, for a WAV:
    #        samples, rate = soundfile.read(arrived, dtype="float32", always_2d=True)     [frames, channels]
    #        samples = soxr.resample(samples.mean(axis=1), rate, 16000)                   [n]
    sound = audio.load(arrived, limit_s)  # the same block by block, also for webm, m4a, mp3; nothing is assumed

    # 2. Measure, change nothing. Making every recording equally loud would hide a microphone that is too far away, and
    #    raise its noise with it. Whisper's features are relative to the loudest point anyway.
    level = loudness.level(sound.samples)

    # 3. Write as 16-bit: 65 536 steps, 96 dB from loudest to softest, more than from a voice to the noise of a
    #    room: the rounding cannot be heard. The old speech.wav moves to recordings/, and the new one appears whole or
    #    not at all.
    with save.replacing(output) as place:
        audio.write_wav(place.temporary, sound.samples)
    saved = Saved(output, sound.duration, level, sound.source_rate, sound.source_channels, sound.source_format,
                  sound.notes, place.previous)
    return saved, sound.samples


# The same from a microphone on this machine --------------------------------------------------------------------------

def record(output: Path, device: int | str | None, seconds: float | None, latency: str | float,
           blocksize: int) -> Saved:
    """The second lesson, --cli: no gap on the way from a microphone to the disk, however long it takes.

    The short way, sd.rec(seconds * rate) and sd.wait(), keeps everything in memory, needs to know the length
    beforehand and shows nothing until its end. Here the sound flows: PortAudio -> callback -> queue -> loop -> disk.
    """
    from whisper_lab import microphone

    chosen, losses, meter = microphone.find(device), microphone.Losses(), loudness.Meter()
    wanted = round(seconds * chosen.rate) if seconds else float("inf")  # frames
    waiting: queue.SimpleQueue[np.ndarray] = queue.SimpleQueue()
    stream = open_stream(chosen, waiting, losses, wanted, latency, blocksize)
    with stream, microphone.stopping() as stop, save.replacing(output) as place:
        console.note("recording", f"{stream.latency * 1000:.0f} ms latency, {chosen.rate} Hz",
                     f"to {output}; Enter or Ctrl-C ends it")
        write_as_it_comes(microphone.flow(stream, waiting, stop, chosen), wanted, chosen.rate, place.temporary, meter)
        if not meter.samples:
            raise microphone.nothing_came(chosen)
    losses.report()
    notes = [f"{chosen.channels} channels averaged"] if chosen.channels > 1 else []
    notes += [f"{chosen.rate} Hz -> {audio.SAMPLE_RATE} Hz (soxr HQ)"] if chosen.rate != audio.SAMPLE_RATE else []
    return Saved(output, meter.samples / audio.SAMPLE_RATE, meter.level(), chosen.rate, chosen.channels,
                 "microphone, 16 bit", notes, place.previous, losses.total)


def open_stream(chosen, waiting: queue.SimpleQueue, losses, wanted: float, latency: str | float, blocksize: int):
    """From the device to the queue: a stream of int16 blocks [frames, channels] that ends after `wanted` frames.

    A small block or latency: the sound is here sooner (09 wants that). A large one: the processor may come late for
    longer before something is lost. A recorder only wants no gaps, so `high` is the default; 0 leaves the block size
    to the device, which knows best. Raises LabError where the device does not open.
    """
    from whisper_lab import microphone

    sounddevice, taken = microphone.import_sounddevice(), 0  # frames

    def callback(block: np.ndarray, frames: int, _, status) -> None:
        """PortAudio's own thread calls this for every block, and loses sound where it takes too long.

        So: copy, put aside, count. No file, no print, no arithmetic on samples, nothing that might have to wait.
        """
        nonlocal taken
        if status.input_overflow:  # the device had to throw sound away before this block
            losses.overflows += 1
        if waiting.qsize() * frames > LONGEST_QUEUE * chosen.rate:
            losses.queue_full += 1
        else:
            waiting.put(block.copy())  # the block itself is PortAudio's, which will use its memory again
        taken += frames
        if taken >= wanted:
            raise sounddevice.CallbackStop

    try:
        return sounddevice.InputStream(device=chosen.index, channels=chosen.channels, samplerate=chosen.rate,
                                       dtype="int16", latency=latency, blocksize=blocksize, callback=callback)
    except (sounddevice.PortAudioError, ValueError) as error:
        raise microphone.open_failure(error, chosen) from error


def write_as_it_comes(blocks, wanted: float, rate: int, path: Path, meter: loudness.Meter) -> None:
    """From the queue to the disk: mono, 16 kHz, 16 bit. blocks: int16 [frames, channels] at `rate`."""
    import soxr

    from whisper_lab import microphone

    bar, left = microphone.Bar(), wanted
    resampler = soxr.ResampleStream(rate, audio.SAMPLE_RATE, 1, dtype="float32", quality="HQ")
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)  # bytes
        out.setframerate(audio.SAMPLE_RATE)
        for block in blocks:
            mono = block[:min(len(block), left)].mean(axis=1, dtype=np.float32) / 32768  # int16 -> -1..1
            left -= len(block)
            samples = resampler.resample_chunk(mono, last=False)  # the filter remembers the block before
            meter.add(samples)
            out.writeframes(audio.to_pcm16(samples))  # and the header with it: the file is valid at every moment
            bar.show(samples, meter.samples / audio.SAMPLE_RATE)
        rest = resampler.resample_chunk(np.zeros(0, np.float32), last=True)  # what the filter still held
        meter.add(rest)
        out.writeframes(audio.to_pcm16(rest))
    bar.end()


# All together --------------------------------------------------------------------------------------------------------

def arguments(argv: list[str] | None):
    """The command line; wrong usage ends here with exit status 2."""
    from whisper_lab.record import serve

    parser = flags.parser(__doc__, "model", "quiet", "log_level", "output_json")
    parser.add_argument("--output", type=Path, default=Path("speech.wav"), metavar="FILE",
                        help="where the recording goes; the one before it to recordings/ (default: %(default)s)")
    page, more = parser.add_argument_group("the page"), flags.rare(parser)
    flags.add_flags(page, "language", "threads")
    flags.add_flags(more, "model_dir")
    more.add_argument("--limit", type=flags.between(0.01, 60), default=5.0, metavar="MINUTES",
                      help="the page refuses longer recordings (default: %(default)g)")
    page.add_argument("--port", type=flags.between(0, 65535, int), metavar="N",
                      help="of the page (default: 7860 or the next free; 0: any)")
    page.add_argument("--host", default="127.0.0.1", metavar="ADDRESS",
                      help="0.0.0.0 serves the whole network, with a password (default: %(default)s, this machine)")
    page.add_argument("--https", action="store_true", help="with a certificate made on the spot")
    page.add_argument("--share", action="store_true", help="a public address through gradio.live, with a password")
    serve.add_flags(more)
    page.add_argument("--browse", action="store_true", help="open the page in a browser")
    local = parser.add_argument_group("a microphone on this machine")
    local.add_argument("--cli", action="store_true", help="record here, without a page")
    local.add_argument("--list-devices", action="store_true", help="show the microphones, and end")
    flags.add_flags(local, "microphone")
    local.add_argument("--seconds", type=flags.above(0), metavar="S",
                       help="stop after this long (default: Enter or Ctrl-C)")
    more.add_argument("--latency", type=_latency, default="high", metavar="low|high|S",
                       help="how much sound PortAudio may hold back, or in seconds (default: %(default)s)")
    more.add_argument("--blocksize", type=flags.whole(0), default=0, metavar="FRAMES",
                       help="in each callback; 0 leaves it to the device (default: %(default)s)")
    args = flags.parse(parser, argv)
    if args.output.suffix.lower() != ".wav" or args.output.is_dir():
        parser.error("--output names a .wav file")
    if not args.cli and (args.seconds or args.microphone is not None):
        parser.error("--seconds and --microphone are about a microphone on this machine: add --cli")
    if args.cli and (args.share or args.https):
        parser.error("--cli records on this machine: it serves no page to --share")
    if args.share and args.https:
        parser.error("--share brings https of its own: leave out --https")
    return args


def _latency(text: str) -> str | float:
    if text in ("low", "high"):
        return text
    seconds = float(text)  # argparse turns a ValueError into wrong usage
    if not 0 < seconds <= 10:
        raise ValueError
    return seconds


def main(argv: list[str] | None = None) -> int:
    """Record here, or serve the page."""
    args = arguments(argv)
    if args.list_devices:
        from whisper_lab import microphone

        microphone.list_devices()
    elif args.cli:
        from whisper_lab.record import facts

        saved = record(args.output, args.microphone, args.seconds, args.latency, args.blocksize)
        facts.show(saved)
        if args.output_json:
            files.write_json(args.output_json, saved.document())
    else:
        from whisper_lab.record import serve

        wanted = serve.Settings(args.output, args.limit, args.model, args.model_dir, args.language, args.threads,
                                args.host, args.port, args.https, args.share, args.browse, args.auth, args.auth_file,
                                args.allow_host)
        serve.serve(wanted, lambda arrived: convert(arrived, args.output, 60 * args.limit))
    return 0


if __name__ == "__main__":
    console.run(main)
