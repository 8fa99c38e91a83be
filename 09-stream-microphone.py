"""The next labs: text while someone speaks, with the two graphs of 03: no word waits for the end of the sentence.

    python 03-export-encoder-decoder.py --precision int8    # once: the graphs that this needs
    python 09-stream-microphone.py                          # your microphone; Enter or Ctrl-C ends it
    python 09-stream-microphone.py media/kitchen.wav --model nano --realtime
    ffmpeg -i talk.mp3 -f s16le -ar 16000 -ac 1 - | python 09-stream-microphone.py --stdin

A Whisper hears windows, not streams. So the same growing window is transcribed again and again, and text is committed
as soon as two successive hypotheses agree on it (LocalAgreement-2: Liu et al. 2020; Machacek et al. 2023, arXiv
2307.14743); a word of which the model is not sure has to wait. Committed text stays; the rest, in grey, may change.

    1. the policy             what two successive hypotheses both begin with
    2. sound to hypotheses    the model is asked only where someone speaks and there is something new to hear
    3. hypotheses to text     what is agreed on, or what a pause ends, is committed; a full window is cut
"""

from whisper_lab import console, flags

TICK = 0.1  # s of new sound between two looks at it
HOP_S, PAUSE_S = 0.2, 0.6  # what --hop and --pause are when they are not given
BREATH = 0.3  # s of silence after which a hypothesis need not wait for more sound
NONE: list = []


# 1. The policy -------------------------------------------------------------------------------------------------------

def agreed(earlier: list, later: list) -> list:
    """The longest common prefix of two successive hypotheses: what both, with more sound in between, begin with."""
    count = 0
    while count < min(len(earlier), len(later)) and earlier[count].text == later[count].text:
        count += 1
    return later[:count]


class Stream:
    """Blocks of sound in, committed text out."""

    def __init__(self, runtime, recognizer, clock, screen, hop_s: float, pause_s: float, detector=None):
        """recognizer: asks the model; hop_s: new sound between two hypotheses; pause_s: silence that ends an utterance.

        detector: says where someone speaks; None: the level does.
        """
        from whisper_lab.stream.mel import LiveMel
        from whisper_lab.stream.report import Log
        from whisper_lab.stream.voice import Voice

        self.spec, self.recognizer, self.screen = runtime.spec, recognizer, screen
        self.rate = self.spec.sampling_rate  # Hz
        self.hop, self.pause = round(hop_s * self.rate), round(pause_s * self.rate)  # samples
        self.mel, self.log = LiveMel(self.spec), Log(clock, hop_s)
        self.voice = Voice(self.rate, pause_s, self.spec.n_samples - self.hop, detector)
        self._start_utterance(before=NONE)

    def _start_utterance(self, before: list) -> None:
        self.committed: list = []  # units of this window that stand
        self.last: list = []  # the hypothesis before this one
        self.likely: float | None = None  # mean log-probability of its tokens
        self.before = before  # tokens of the sentence that lie before this window: its prompt
        self.looked = 0  # samples; up to where the last hypothesis heard

    # 2. Sound to hypotheses ------------------------------------------------------------------------------------------

    def hear(self, block) -> None:
        """float32 [n]. Features and levels at once; the model only where someone speaks and there is news."""
        self.mel.append(block)  # each frame of the spectrogram is computed once, whatever windows it will stand in
        self.voice.append(block)
        while self.voice.spans and self._is_due(self.voice.spans[0]):
            self._attend(self.voice.spans[0])
        # Nobody speaks: nothing is asked, and what is older than a pre-roll is forgotten.
        oldest = self.voice.spans[0].start if self.voice.spans else self.mel.end - self.rate
        self.mel.forget(oldest)

    def _is_due(self, span) -> bool:
        """Is it worth a run of the encoder? At a pause, at a full window, and after a hop of new speech."""
        if span.closed or self._is_full(span):
            return True
        if span.voiced <= self.looked:  # all that was said was heard: silence costs nothing
            return False
        return self.mel.end - max(self.looked, span.onset) >= self.hop or self._is_breath(span, self.mel.end)

    def _is_breath(self, span, end: int) -> bool:
        """Is there a little silence before this sample?"""
        return end - span.voiced >= BREATH * self.rate

    def _is_full(self, span) -> bool:
        """Would the next hypothesis find no room in the model's window?"""
        if span.closed:
            return span.end - self._start(span) > self.spec.n_samples
        return self.mel.end - self._start(span) + self.hop >= self.spec.n_samples

    def _start(self, span) -> int:
        return -(-span.start // self.spec.hop_length) * self.spec.hop_length  # where frames begin

    def _attend(self, span) -> None:
        """One hypothesis for a span, and what follows from it. Late? Then more sound has come, and all of it is in."""
        from whisper_lab.silence import is_silent

        start, end = self._start(span), span.end or self.mel.end
        if span.closed and span.voiced <= start:  # a cut has taken all that was said
            return self._end(span, start)
        if is_silent(self.mel.samples(max(start, span.onset), min(span.voiced, end)), self.rate):  # a fan, say
            self.looked = end
            return self._end(span, start) if span.closed else None
        if self._is_full(span):
            return self._cut(span)
        with self.log.hypothesis(max(self.looked, span.onset), min(span.voiced, end)):
            found = self.recognizer.recognize(self.mel.window(start, end), (end - start) / self.rate,
                                              self.committed, self.before, final=span.closed)
        self.looked, self.likely = end, found.text_logprob
        # A hypothesis that goes round in circles agrees with nothing.
        units = self.committed if found.doubtful else found.units
        # While someone speaks, what it heard last may be a guess; once they draw breath, it has heard all there was.
        firm = units[:len(found.sure if self._is_breath(span, end) else found.firm)]
        self._commit(agreed(self.last, firm), "agreement")
        self.last = units
        if span.closed:  # it has heard the whole utterance: there will be no later one to agree with
            self._commit(units, "pause")
            self._end(span, start)
        else:
            self.screen.show(self.committed, units[len(self.committed):])

    # 3. Hypotheses to text -------------------------------------------------------------------------------------------

    def _commit(self, units: list, reason: str) -> None:
        """Fix all units beyond those that stand already; later hypotheses have to begin with them."""
        if new := units[len(self.committed):]:
            self.log.commit(new, self.looked, reason)
            self.committed = self.committed + new

    def _cut(self, span) -> None:
        """The window is nearly full: commit its complete segments and go on behind them, as in a long recording.

        Here the model has to write timestamps.
        """
        start = self._start(span)
        end = min(span.end or self.mel.end, start + self.spec.n_samples)
        with self.log.hypothesis(max(self.looked, span.onset), min(span.voiced, end)):
            found, cut = self.recognizer.segments(self.mel.window(start, end), (end - start) / self.rate,
                                                  self.committed, self.before, (span.start - start) / self.rate)
        self.looked, self.likely = end, found.text_logprob
        self._commit(agreed(self.last, found.units), "agreement")
        self._commit(found.units, "full window")
        span.start = span.onset = end if cut is None else min(start + max(1, round(cut * self.rate)), end)
        self._close(start, span.start, before=self.recognizer.sentence(self.before, self.committed), goes_on=True)

    def _end(self, span, start: int) -> None:
        """The utterance is over, and its span is done with."""
        goes_on = span.end - span.voiced < self.pause / 2  # the window was filling up: a short pause had to do
        before = self.recognizer.sentence(self.before, self.committed) if goes_on else NONE
        self._close(start, span.end, before, goes_on)
        self.voice.spans.popleft()

    def _close(self, start: int, end: int, before: list, goes_on: bool) -> None:
        self.screen.close(self.committed, self.likely)
        self.log.close(start, end, goes_on, self.likely)
        self.recognizer.end_utterance((end - start) / self.rate, bool(self.committed))
        self._start_utterance(before)

    def finish(self) -> None:
        """The sound is over: the last utterance ends with it."""
        self.voice.finish()
        while self.voice.spans:
            self._attend(self.voice.spans[0])


def listen(source, stream: Stream) -> None:
    """The loop: take what has come, at least a tick of it, until there is no more."""
    while (block := source.take(TICK)) is not None:
        with stream.log.work(block):
            stream.hear(block)
    with stream.log.work():
        stream.finish()


# All together --------------------------------------------------------------------------------------------------------

def arguments(argv: list[str] | None):
    """The command line; wrong usage ends here with exit status 2."""
    parser = flags.parser(__doc__, "model", "language", "threads", "output_dir", "output_json", "quiet", "log_level",
                          "model_dir", "precision", "optimized", "provider", "fallback", "audio_context")
    parser.add_argument("--reference", metavar="TEXT|FILE", help="what is said in the files; a text or JSON file")
    parser.add_argument("--realtime", action="store_true", help="play files as fast as they were spoken, not faster")
    given = parser.add_argument_group("the sound (default: a microphone)")
    given.add_argument("audio", nargs="*", default=[], metavar="CLIP", help="sound files or folders")
    flags.renamed(given, "--file", "CLIP without a flag", nargs="+", dest="former_audio")
    given.add_argument("--stdin", action="store_true", help="raw 16-bit little-endian samples on standard input")
    flags.add_flags(given, "microphone")
    given.add_argument("--list-devices", action="store_true", help="show the microphones, and end")
    more = flags.rare(parser)
    more.add_argument("--hop", type=flags.between(0.1, 5), default=HOP_S, metavar="S",
                      help="new speech between two hypotheses (default: %(default)s s)")
    more.add_argument("--pause", type=flags.between(0.2, 5), default=PAUSE_S, metavar="S",
                      help="silence that ends an utterance (default: %(default)s s)")
    more.add_argument("--condition-on-previous", action="store_true", help="give the beginning of a sentence that is "
                      "cut as prompt for its rest (default: no; it can lead small models astray)")
    more.add_argument("--no-batch", dest="batch", action="store_false", help="do not transcribe the whole at the end")
    more.add_argument("--rate", type=flags.between(2000, 384_000, int), metavar="HZ",
                      help="of --stdin (default: 16000)")
    more.add_argument("--channels", type=flags.between(1, 64, int), metavar="N", help="of --stdin (default: 1)")
    args = flags.parse(parser, argv)
    if len([one for one in (args.audio, args.stdin, args.microphone is not None, args.list_devices) if one]) > 1:
        parser.error("files, --stdin, --microphone and --list-devices are not allowed together: choose one")
    if (args.realtime or args.reference) and not args.audio:
        parser.error("--realtime and --reference are about files: name one")
    if (args.rate is not None or args.channels is not None) and not args.stdin:
        parser.error("--rate and --channels describe --stdin")
    return args


def main(argv: list[str] | None = None) -> int:
    """Open, listen, save, report."""
    args = arguments(argv)
    from whisper_lab import microphone
    from whisper_lab.stream import opening, report, sources
    from whisper_lab.stream.hypothesis import Recognizer
    from whisper_lab.stream.screen import Screen

    if args.list_devices:
        microphone.list_devices()
        return 0
    failed: list = []  # one bad file does not take the others with it
    raw = (args.rate or 16_000, args.channels or 1) if args.stdin else None
    sounds = sources.asked(args.audio, args.realtime, raw, args.microphone, failed)
    runtime = opening.open_graphs(args.model, args.model_dir, args.precision, args.optimized, args.threads,
                                  args.provider, args.language)
    settings = {"hop_s": args.hop, "pause_s": args.pause, "language": args.language,
                "condition_on_previous": args.condition_on_previous, "audio_context": args.audio_context}
    results = report.Report(runtime, settings, args.output_dir, args.output_json,
                            report.references(args.reference, args.audio), args.batch, args.threads)
    detector = opening.detector(runtime.spec)
    for label, open_source in sounds:
        clock, screen = sources.Clock(), Screen(model=runtime.facts["model"], language=args.language)
        recognizer = Recognizer(runtime, args.language, args.condition_on_previous, args.fallback, args.audio_context)
        stream = Stream(runtime, recognizer, clock, screen, args.hop, args.pause, detector)
        with microphone.stopping(enter=not (args.stdin or args.audio)) as stop:  # Ctrl-C ends the sound alone
            source = open_source(clock, stop)
            try:
                listen(source, stream)
            finally:  # also where a microphone breaks off: what was said is kept
                screen.end()
                results.save_text(label, stream)
        results.add(label, source, stream)  # Ctrl-C here leaves out the comparison
        if stop.is_set():
            break
    results.finish()
    return 1 if failed else 0


if __name__ == "__main__":
    console.run(main)
