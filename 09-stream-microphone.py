"""The next labs: text while someone speaks, with the two graphs of 03: no word waits for the end of the sentence.

    python 09-stream-microphone.py                                            # your microphone; Enter or Ctrl-C ends it
    python 09-stream-microphone.py --model nano --file media/kitchen.wav --realtime
    ffmpeg -i talk.mp3 -f s16le -ar 16000 -ac 1 - | python 09-stream-microphone.py --stdin

A Whisper hears windows, not streams. So the same growing window is transcribed again and again, and text is committed
as soon as two successive hypotheses agree on it (LocalAgreement-2: Liu et al. 2020; Machacek et al. 2023, arXiv
2307.14743); a word of which the model is not sure has to wait. Committed text stays; the rest is shown in grey
and may still change.
"""

from pathlib import Path

from whisper_lab import console

TICK = 0.1  # s of new sound between two looks at it
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

    def __init__(self, runtime, ear, clock, screen, hop_s: float, pause_s: float, detector=None):
        """ear: asks the model; hop_s: new sound between two hypotheses; pause_s: silence that ends an utterance.

        detector: says where somebody speaks; None: the level does.
        """
        from whisper_lab.stream.mel import LiveMel
        from whisper_lab.stream.report import Log
        from whisper_lab.stream.voice import Voice

        self.spec, self.ear, self.screen = runtime.spec, ear, screen
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

    # 2. From sound to hypotheses -------------------------------------------------------------------------------------

    def hear(self, block) -> None:
        """float32 [n]. Features and levels at once; the model only where somebody speaks and there is news."""
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
        start, end = self._start(span), span.end or self.mel.end
        if span.closed and span.voiced <= start:  # a cut has taken all that was said
            return self._end(span, start)
        if self._is_full(span):
            return self._cut(span)
        with self.log.hypothesis(max(self.looked, span.onset), min(span.voiced, end)):
            found = self.ear.listen(self.mel.window(start, end), (end - start) / self.rate,
                                    self.committed, self.before, final=span.closed)
        self.looked, self.likely = end, found.text_logprob
        # A hypothesis that goes round in circles agrees with nothing.
        units = self.committed if found.doubtful else found.units
        # While somebody speaks, what it heard last may be a guess; once they draw breath, it has heard all there was.
        firm = units[:len(found.sure if self._is_breath(span, end) else found.firm)]
        self._commit(agreed(self.last, firm), "agreement")
        self.last = units
        if span.closed:  # it has heard the whole utterance: there will be no later one to agree with
            self._commit(units, "pause")
            self._end(span, start)
        else:
            self.screen.show(self.committed, units[len(self.committed):])

    # 3. From hypotheses to text --------------------------------------------------------------------------------------

    def _commit(self, units: list, reason: str) -> None:
        """Fix all units beyond those that stand already; later hypotheses have to begin with them."""
        if new := units[len(self.committed):]:
            self.log.commit(new, self.looked, reason)
            self.committed = self.committed + new
            self.ear.settle()  # from the first committed word on, the language stands too

    def _cut(self, span) -> None:
        """The window is nearly full: commit its complete segments and go on behind them, as in a long recording.

        Here the model has to write timestamps.
        """
        start = self._start(span)
        end = min(span.end or self.mel.end, start + self.spec.n_samples)
        with self.log.hypothesis(max(self.looked, span.onset), min(span.voiced, end)):
            found, cut = self.ear.segments(self.mel.window(start, end), (end - start) / self.rate, self.committed,
                                           self.before, (span.start - start) / self.rate)
        self.looked, self.likely = end, found.text_logprob
        self._commit(agreed(self.last, found.units), "agreement")
        self._commit(found.units, "full window")
        span.start = span.onset = end if cut is None else min(start + max(1, round(cut * self.rate)), end)
        self._close(start, span.start, before=self.ear.sentence(self.before, self.committed), goes_on=True)

    def _end(self, span, start: int) -> None:
        """The utterance is over, and its span is done with."""
        goes_on = span.end - span.voiced < self.pause / 2  # the window was filling up: a short pause had to do
        before = self.ear.sentence(self.before, self.committed) if goes_on else NONE
        self._close(start, span.end, before, goes_on)
        self.voice.spans.popleft()

    def _close(self, start: int, end: int, before: list, goes_on: bool) -> None:
        self.screen.close(self.committed, self.likely)
        self.log.close(start, end, goes_on, self.likely)
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


# 4. The whole --------------------------------------------------------------------------------------------------------

def main(argv: list[str] | None = None) -> int:
    """Open, listen, save, report."""
    args = arguments(argv)
    if args.list_devices:
        from whisper_lab import microphone

        microphone.list_devices()
        return 0
    from whisper_lab import confidence
    from whisper_lab.microphone import stopping
    from whisper_lab.onnx_whisper import OnnxWhisper
    from whisper_lab.stream import report, sources
    from whisper_lab.stream.hypothesis import Ear
    from whisper_lab.stream.screen import Screen

    name, precision = sources.graphs(args)
    runtime = OnnxWhisper(args.model_dir, name, precision, args.threads, shared_pool=True)
    confidence.tell_what_it_knows(name, args.language)
    results = report.Report(args, runtime)
    detector = sources.detector(runtime.spec)
    failed: list = []  # one bad file does not take the others with it
    for label, open_source in sources.sources_of(args, failed):
        clock, screen = sources.Clock(), Screen(model=name)
        ear = Ear(runtime, args.language, args.condition_on_previous, args.fallback)
        stream = Stream(runtime, ear, clock, screen, args.hop, args.pause, detector)
        with stopping(enter=not (args.stdin or args.file)) as stop:  # Ctrl-C ends the sound, not the program
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


def arguments(argv: list[str] | None):
    """The command line; wrong usage ends here with exit status 2."""
    parser = console.parser(__doc__, "model", "language", "threads", "output_dir", "output_json", "quiet", "log_level")
    parser.add_argument("--model-dir", default="whisper_model_dir", metavar="DIR",
                        help="where 03 wrote the graphs (default: %(default)s)")
    parser.add_argument("--precision", choices=["fp32", "fp16", "int8", "int4"],
                        help="of the graphs (default: int8 where it is there, else what is)")
    parser.add_argument("--hop", type=float, default=0.5, metavar="S",
                        help="new speech between two hypotheses (default: %(default)s s)")
    parser.add_argument("--pause", type=float, default=0.6, metavar="S",
                        help="silence that ends an utterance (default: %(default)s s)")
    parser.add_argument("--condition-on-previous", action="store_true",
                        help="give the beginning of a sentence that is cut as prompt for its rest (default: no, as in "
                             "02; it can help large models and lead small ones astray)")
    console.add_flags(parser, "fallback")
    parser.add_argument("--reference", metavar="TEXT|FILE", help="what is said in the files; a text or JSON file")
    parser.add_argument("--no-batch", action="store_true",
                        help="at the end do not transcribe the whole again for comparison")
    given = parser.add_argument_group("the sound (default: a microphone)").add_mutually_exclusive_group()
    given.add_argument("--file", nargs="+", type=Path, metavar="PATH", help="sound files or folders")
    given.add_argument("--stdin", action="store_true", help="raw 16-bit little-endian samples on standard input")
    given.add_argument("--device", type=lambda text: int(text) if text.isdigit() else text, metavar="N|NAME",
                       help="which microphone (default: the system's)")
    given.add_argument("--list-devices", action="store_true", help="show the microphones, and end")
    parser.add_argument("--realtime", action="store_true", help="play --file as fast as it was spoken, not faster")
    parser.add_argument("--rate", type=int, metavar="HZ", help="of --stdin (default: 16000)")
    parser.add_argument("--channels", type=int, metavar="N", help="of --stdin (default: 1)")
    args = console.parse(parser, argv)
    if not 0.1 <= args.hop <= 5 or not 0.2 <= args.pause <= 5:
        parser.error("--hop is 0.1 to 5 s, --pause 0.2 to 5 s")
    if args.realtime and not args.file:
        parser.error("--realtime plays a file: name one with --file")
    if args.reference and not args.file:
        parser.error("--reference is what is said in a file: name one with --file")
    if (args.rate is not None or args.channels is not None) and not args.stdin:
        parser.error("--rate and --channels describe --stdin")
    args.rate = 16_000 if args.rate is None else args.rate
    args.channels = 1 if args.channels is None else args.channels
    if args.rate < 2000 or args.rate > 384_000 or not 1 <= args.channels <= 64:
        parser.error("--rate is 2000 to 384000 Hz, --channels 1 to 64")
    return args


if __name__ == "__main__":
    console.run(main)
