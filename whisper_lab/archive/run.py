"""One process's part of an archive: look what is left to do, claim it, transcribe it, write it down.

Short recordings are decoded side by side (transcribe_many), as many as fit GROUP_S of sound; a longer one is alone. A
group's documents are written when it is finished, so a process that is killed loses one group. A recording at which a
process has died before is alone in its group: if it is the cause, no other shares its fate; after MOST_DEATHS it is
listed as failed.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from whisper_lab import audio, console, machine, transcribe, transcripts
from whisper_lab.archive import store
from whisper_lab.archive.claims import Claim, Worker
from whisper_lab.archive.find import Recording
from whisper_lab.archive.share import Gone, Share, is_passing
from whisper_lab.archive.store import Store
from whisper_lab.console import LabError

GROUP_S = 600.0  # s of sound, 38 MB of samples
LONG_S = 300.0  # s; a recording that lasts longer has a bar of its own
MOST_DEATHS = 4  # of processes that had the recording in work; a node may fail once, and a job may be cut off
TELL_S = 60.0  # between two notes where no bar is shown, in the log of a job
LOOK_S = 2.0  # between two looks at what another process has claimed


@dataclass
class Counts:
    """What became of the recordings of this shard."""

    done_before: int = 0
    transcribed: int = 0
    sound_s: float = 0.0
    busy: int = 0  # another process, which lives, is at it
    failures: dict[str, str] = field(default_factory=dict)  # name -> reason; also those of earlier runs
    failed_before: int = 0


@dataclass
class Heard:
    """A recording that is loaded."""

    recording: Recording
    claim: Claim
    sound: audio.Audio
    source: dict


class Run:
    """Goes through the recordings of one shard."""

    def __init__(self, store: Store, share: Share, output: Share, worker: Worker,
                 work: Callable[[list, Callable], list], head: dict, batch_size: int, check_content: bool = False,
                 retry_failed: bool = False):
        """share: where the recordings are; output: where the documents go; work: [samples], progress -> [Transcript];
        head: what every document begins with."""
        self.store, self.share, self.output, self.worker = store, share, output, worker
        self.work, self.head, self.batch_size = work, head, batch_size
        self.check_content, self.retry_failed = check_content, retry_failed
        self.counts, self._group = Counts(), []
        self._bar, self._told = None, time.monotonic()

    def run(self, recordings: list[Recording]) -> Counts:
        """Transcribe those of the recordings that are not done. Raises Gone, and LabError where nothing can be written.
        """
        left = list(self.left(recordings))
        self.worker.give_back({recording.key for recording in recordings} - {recording.key for recording in left})
        console.note("archive", console.count(len(left), "recording") + " to transcribe",
                     f"{self.counts.done_before} done before, {self.counts.failed_before} failed before")
        with console.progress(description="archive", total=len(left), unit="file") as self._bar:
            busy = [recording for recording in left if not self._offer(recording)]
            self._flush()
            self._settle(busy)
        return self.counts

    # What is left -----------------------------------------------------------------------------------------------------

    def left(self, recordings: list[Recording]) -> Iterator[Recording]:
        """The recordings that are neither done nor known to fail; the others are counted."""
        for recording in console.progress(recordings, description="looking", unit="file"):
            now = self._stat(recording)
            if now is not None and self._is_done(recording, now):
                self.counts.done_before += 1
                continue
            found = self._on_output(lambda recording=recording: self.store.failure(recording))
            if found is not None and not self.retry_failed and self.store.has_failed(found, now):
                self.counts.failed_before += 1
                self.counts.failures[recording.name] = str(found.get("error"))
                continue
            yield recording

    def _stat(self, recording: Recording):
        """os.stat_result, or None where it cannot be had: `load` says why."""
        try:
            return self.share.patiently(recording.path.stat, recording.path)
        except OSError:
            return None

    def _is_done(self, recording: Recording, now) -> bool:
        try:
            return self.output.patiently(lambda: self.store.is_done(recording, now, self.check_content), recording.path)
        except OSError:  # it cannot be compared: `load` says why
            return False

    # One after the other ----------------------------------------------------------------------------------------------

    def _offer(self, recording: Recording) -> bool:
        """Claim, load, and transcribe when there are enough; False: another process has it."""
        claim = self._on_output(lambda: self.worker.claim(recording.key))
        if claim is None:
            return False
        self.store.look_again(recording)
        now = self._stat(recording)
        if now is not None and self._is_done(recording, now):  # since we looked
            self.counts.done_before += 1
            return self._end(claim)
        if claim.generation > MOST_DEATHS:
            self._fail(recording, claim, LabError(
                f"{MOST_DEATHS} processes ended without a result while they transcribed it",
                "look whether their time or their memory was at its end, then run it again with --retry-failed"),
                store.facts(now) if now else {})
            return True
        if claim.generation > 1:
            self._flush()
        self._take(recording, claim)
        if claim.generation > 1 or len(self._group) >= self.batch_size or self._seconds() > GROUP_S:
            self._flush()
        return True

    def _take(self, recording: Recording, claim: Claim) -> None:
        """Load it into the group, or note why that failed. A long recording does not wait for others."""
        try:
            sound, source = self.share.patiently(lambda: load(recording), recording.path)
        except Gone:
            self._flush()  # what was loaded before is not lost
            raise
        except (LabError, OSError) as error:
            now = self._stat(recording)
            self._fail(recording, claim, told(error, recording), store.facts(now) if now else {}, is_passing(error))
            return
        if self._group and self._seconds() + sound.duration > GROUP_S:
            self._flush()
        self._group.append(Heard(recording, claim, sound, source))

    def _seconds(self) -> float:
        return sum(one.sound.duration for one in self._group)

    def _flush(self) -> None:
        """Transcribe the group; where that fails, each alone, so that the others are not lost with one."""
        group, self._group = self._group, []
        if not group:
            return
        try:
            made = self._transcribed(group)
        except Exception as error:  # whatever one recording does to the model
            if len(group) > 1:
                for one in group:
                    self._group = [one]
                    self._flush()
                return
            self._fail(group[0].recording, group[0].claim, told(error, group[0].recording), group[0].source)
            return
        for one, transcript, seconds in made:
            self._write(one, transcript, seconds)
        del made, group
        machine.give_back_memory()

    def _transcribed(self, group: list[Heard]) -> list[tuple[Heard, transcribe.Transcript, float]]:
        """With the s that each took: its part of the group's, by its length."""
        started, sound_s = time.perf_counter(), sum(one.sound.duration for one in group)
        samples = [one.sound.samples for one in group]
        if sound_s > LONG_S:
            name = group[0].recording.path.name if len(group) == 1 else f"{len(group)} recordings"
            with console.sound_bar(name, sound_s) as done:
                found = self.work(samples, done)
        else:
            found = self.work(samples, None)
        seconds = time.perf_counter() - started
        return [(one, transcript, seconds * one.sound.duration / sound_s)
                for one, transcript in zip(group, found, strict=True)]

    def _write(self, one: Heard, transcript: transcribe.Transcript, seconds: float) -> None:
        """The document; unless this process was taken for dead meanwhile, and another one does it."""
        made = document(self.head, one, transcript, seconds)

        def write() -> bool:
            if mine := one.claim.is_mine():
                self.store.publish(self.worker, one.recording.name, made)
                self.store.forget(one.recording)
            return mine

        if self._on_output(write):
            self.counts.transcribed += 1
            self.counts.sound_s += one.sound.duration
        else:
            self.counts.busy += 1
        self._end(one.claim)

    def _fail(self, recording: Recording, claim: Claim, error: LabError, source: dict, passing: bool = False) -> None:
        self._on_output(lambda: self.store.fail(self.worker, recording, error, source, passing))
        reason = store.plain_reason(error.problem, recording.path)
        self.counts.failures[recording.name] = reason
        console.warn(f"{console.plain(recording.name, one_line=True)}: {reason}")
        self._end(claim)

    def _on_output(self, call: Callable):
        """What a call on the output folder returns, waited for while that is away."""
        return self.output.patiently(call, self.store.folder)

    def _end(self, claim: Claim) -> bool:
        self._on_output(claim.release)
        self._advance()
        return True

    def _advance(self) -> None:
        self._bar.update()
        if self._bar.disable and time.monotonic() - self._told > TELL_S:
            self._told = time.monotonic()
            console.note("archive", f"{self.counts.transcribed} transcribed", f"{self.counts.sound_s:.0f} s of sound, "
                         f"{console.count(len(self.counts.failures), 'failure')}")

    # What others have claimed -----------------------------------------------------------------------------------------

    def _settle(self, busy: list[Recording]) -> None:
        """Of each, wait until it is known whether its owner lives: what dies with it is done here, the rest is left."""
        told_of = False
        while busy:
            waiting = []
            for recording in busy:
                state = self._on_output(lambda recording=recording: self.worker.owner(recording.key))
                if state == "alive":
                    self.counts.busy += 1
                    self._advance()
                elif state == "unsure" or not self._offer(recording):
                    waiting.append(recording)
            self._flush()
            if waiting and not told_of:
                told_of = True
                console.note("waiting", console.count(len(waiting), "recording"), "claimed by a process on another "
                             f"machine; if it shows no life for {self.worker.lease_s:g} s, this one takes them")
            if waiting:
                time.sleep(min(LOOK_S, self.worker.lease_s / 4))
            busy = waiting


def load(recording: Recording) -> tuple[audio.Audio, dict]:
    """The sound, and what is noted of the file. The digest is unknown where the file changed while it was read.

    Raises OSError or LabError.
    """
    before = recording.path.stat()
    content = store.digest(recording.path) if recording.path.is_file() else None
    sound = audio.load(recording.path)
    after = recording.path.stat()
    unchanged = store.facts(before) == store.facts(after)
    return sound, {**store.facts(before), "sha256": content if unchanged else None}


def told(error: Exception, recording: Recording) -> LabError:
    """Any error as one of two lines."""
    if isinstance(error, LabError):
        return error
    if isinstance(error, FileNotFoundError):
        return LabError(f"no such file: {recording.path}", "it, or what it is a link to, was removed or is elsewhere")
    if isinstance(error, OSError):
        return LabError(f"cannot read {recording.path}: {error.strerror or error}", "run it again with --retry-failed")
    lines = str(error).strip().splitlines() or ["no message"]
    return LabError(f"{type(error).__name__}: {lines[0][:300]}", "transcribe it alone with --log-level DEBUG, and "
                    "report what is printed")


def document(head: dict, one: Heard, transcript: transcribe.Transcript, seconds: float) -> dict:
    """One recording as `--json` writes it, and what an archive has to know: its place, its real-time factor (seconds a
    second of sound), what its sound file was, and what was said of it when it was loaded."""
    clip = transcripts.as_json(transcript, one.recording.path, head["model"]["name"]) | {"file": one.recording.name}
    return {**head, "clips": [clip | {
        "transcribe_s": round(seconds, 3),
        "real_time_factor": round(seconds / one.sound.duration, 4),
        "source": one.source,
        "sound": {"format": one.sound.source_format, "notes": one.sound.notes}}]}
