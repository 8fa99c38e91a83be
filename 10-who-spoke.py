"""The next labs: who said what, and when. Two more models, one of them exported to ONNX here, and Whisper's words.

    python -m whisper_lab.weights silero-vad campplus  # or 10 fetches both
    python 10-who-spoke.py meeting.wav                 # a line for each turn
    python 10-who-spoke.py meeting.wav --speakers 2 --names "Ann,Bob" --page
    python 10-who-spoke.py meeting.wav --explain --reference meeting.rttm

    1. voice activity      Silero VAD hears 32 ms at a time: is this speech?     [chunks] -> stretches of speech
    2. fingerprints        CAM++ turns 1.5 s of speech into a vector that is the same for the same voice  [pieces, 192]
    3. clustering          which fingerprints point the same way: so many speakers, and their turns
    4. words               each of Whisper's words belongs to the speaker in whose turn it was said
"""

import time
from pathlib import Path

from whisper_lab import audio, console, flags, names
from whisper_lab.console import LabError

FORMATS = ("text", "json", "srt", "vtt", "rttm")


# 1. Voice activity: where somebody speaks ----------------------------------------------------------------------------

def find_speech(samples):
    """float32 [n] at 16 kHz -> (stretches of speech, the probabilities they were made of, or None without Silero)."""
    from whisper_lab.speakers import models, voice
    from whisper_lab.stream.voice import by_level

    try:
        graph = models.obtain("silero-vad")
    except LabError as error:  # the level needs no model, and takes music and noise for speech
        console.note("voice activity", "by level", f"{error.problem}; then {error.remedy}")
        return by_level(samples), None
    detector = voice.SpeechDetector(graph)
    likely = detector.probabilities(samples)  # one number for each 512 samples, 0..1
    # Speech begins above voice.ON and ends below the lower voice.OFF, so that it does not flicker in between.
    return voice.stretches(likely, len(samples) / audio.SAMPLE_RATE), likely


# 2. Fingerprints: one for each piece of speech -----------------------------------------------------------------------

def take_fingerprints(samples, stretches: list, threads: int | None):
    """-> (pieces of 1.5 s of each stretch, a fingerprint for each piece: float32 [pieces, 192], of length 1)."""
    from whisper_lab.speakers import encoder, models

    pieces = [encoder.pieces(stretch) for stretch in stretches]  # every 0.75 s; a short stretch is one piece
    network = encoder.SpeakerEncoder(models.obtain("campplus"), threads)
    # Each piece becomes 148 frames of 80 log-mel energies, the mean of each band taken away: [148, 80].
    return pieces, network.fingerprints(samples, [piece for parts in pieces for piece in parts])


# 3. Clustering: which fingerprints belong together -------------------------------------------------------------------

def find_turns(stretches: list, pieces: list, fingerprints, number: int | None) -> list:
    """-> turns: (speaker 0, 1, ..., start, end). number: of speakers; None: as many as are far enough apart."""
    from whisper_lab.speakers import clusters, turns

    voices = clusters.voices(fingerprints, number)  # int [pieces]; the distance of two is 1 - their cosine
    return turns.of(stretches, pieces, voices)  # a pause of less than a second does not end a turn


# 4. Words: who said which --------------------------------------------------------------------------------------------

def find_words(samples, turns: list, clip: Path, whisper: tuple, args) -> tuple[list, dict]:
    """-> (lines: speaker, start, end, words; what is to be known of the model that heard them)."""
    from whisper_lab import confidence, decoding, transcribe, transcripts
    from whisper_lab.speakers import words

    runtime, model = whisper
    confidence.tell_what_it_knows(model["name"], args.language)
    options = decoding.Options(language=args.language, beams=decoding.AUTO,
                               temperatures=decoding.temperatures(0.0, args.fallback))
    with console.sound_bar(clip.name, len(samples) / audio.SAMPLE_RATE) as done:
        transcript = transcribe.transcribe(runtime, samples, options, words=True, progress=done)
    transcripts.warn_of_doubt(transcript, clip, model["name"], args.language)
    return words.lines(transcript.segments, turns), model | {"language": transcript.language}


# All together --------------------------------------------------------------------------------------------------------

def arguments(argv: list[str] | None):
    """The command line."""
    parser = flags.parser(__doc__, "model", "model_dir", "language", "fallback", "threads", "output_dir",
                          "output_json", "quiet", "log_level")
    parser.add_argument("sound", type=Path, metavar="CLIP", help="a sound file with one or more people speaking")
    parser.add_argument("--precision", choices=names.PRECISIONS,
                        help="of the graphs, which 03 --alignment-heads wrote (default: the fastest of them that "
                        "is there, else PyTorch)")
    parser.add_argument("--speakers", type=flags.whole(1), metavar="N", help="how many there are (default: found)")
    parser.add_argument("--names", metavar="A,B", default="",
                        help="what they are called, in the order in which they first speak (default: Speaker 1, ...)")
    parser.add_argument("--reference", type=Path, metavar="FILE.rttm",
                        help="who really spoke when: prints the diarization error rate")
    parser.add_argument("--format", choices=FORMATS, default="text", help="of the output (default: %(default)s)")
    parser.add_argument("--no-words", dest="words", action="store_false", help="leave out step 4: turns alone")
    parser.add_argument("--page", action="store_true", help="also write a web page with the sound, a lane for each "
                        "speaker, and the words")
    parser.add_argument("--explain", action="store_true", help="show the shapes of each step, and draw a picture")
    args = flags.parse(parser, argv)
    args.names = [name.strip() for name in args.names.split(",") if name.strip()]
    if len(set(args.names)) < len(args.names):
        parser.error("--names: two speakers have the same name")
    if args.speakers and len(args.names) > args.speakers:
        parser.error(f"--names has {len(args.names)} names for {args.speakers} speakers")
    if args.explain and args.format != "text":
        parser.error("--explain prints tables: it goes with --format text only")
    if args.words and args.format == "rttm" and not (args.page or args.output_json):
        args.words = False
        console.note("words", "left out", "--format rttm says who speaks when, not what")
    if not args.words and args.format in ("srt", "vtt"):
        parser.error(f"--format {args.format} is made of words: leave out --no-words")
    return args


def deliver(heard, document: dict, errors, args) -> None:
    """Print who said what, and write what was asked for beside it."""
    from whisper_lab import files
    from whisper_lab.speakers import clusters, report, voice

    report.publish(heard, document, errors, args.format)
    if args.output_json:
        files.write_json(args.output_json, document)
    if args.page:
        report.save_page(heard, Path(args.output_dir))
    if args.explain:
        limits = {"ON": voice.ON, "OFF": voice.OFF, "APART": clusters.APART}
        report.explain(heard, limits, Path(args.output_dir), args.speakers)


def main(argv: list[str] | None = None) -> int:
    """The four steps, then what was asked for."""
    args = arguments(argv)
    from whisper_lab.speakers import report, turns, words

    clip = args.sound
    truth = turns.read_rttm(args.reference) if args.reference else None
    sound = audio.load(clip)
    audio.tell(clip, sound)
    # Opened first, so that what is missing is said before anything is computed.
    whisper = words.open_runtime(args.model, args.model_dir, args.precision, args.threads) if args.words else None
    clock, seconds = time.perf_counter, {}
    started = clock()
    stretches, likely = find_speech(sound.samples)
    seconds["voice_activity_s"], started = clock() - started, clock()
    pieces, fingerprints = [], None
    if args.speakers == 1 or not stretches:  # there is nothing to tell apart
        found = turns.of(stretches, [[stretch] for stretch in stretches], [0] * len(stretches))
    else:
        pieces, fingerprints = take_fingerprints(sound.samples, stretches, args.threads)
        seconds["fingerprints_s"], started = clock() - started, clock()
        found = find_turns(stretches, pieces, fingerprints, args.speakers)
        seconds["clustering_s"], started = clock() - started, clock()
    names = report.names(found, args.names)
    console.note("speakers", len(names), report.why(args.speakers, names, found))
    lines, model = find_words(sound.samples, found, clip, whisper, args) if found and args.words else ([], None)
    seconds["words_s"] = clock() - started
    errors = turns.errors(truth, found) if truth else None
    heard = report.Heard(clip, sound.samples, stretches, likely, pieces, fingerprints, found, lines, names)
    deliver(heard, report.document_of(heard, model, errors, seconds, args.threads), errors, args)
    return 0


if __name__ == "__main__":
    console.run(main)
