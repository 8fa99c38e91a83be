"""Batches of clips: those of one command line are decoded together, and their transcripts come in order."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from whisper_lab import audio, console
from whisper_lab.console import LabError
from whisper_lab.transcribe import Transcript

Hear = Callable[[list, Callable[[float], object]], list[Transcript]]  # recordings, called with the s done


class Batcher:
    """Gives the transcript of one clip after the other; the next few are loaded and heard with it.

    ::

        batcher = Batcher(clips, hear, batch_size, window_s, results.has)
        batcher(clips[0])       # loads and hears some
        batcher(clips[1])       # was heard already
    """

    def __init__(self, clips: Sequence[Path], hear: Hear, batch_size: int, window_s: float,
                 skips: Callable[[Path], bool] = lambda clip: False):
        """hear: transcribes recordings, float32 [n] each; batch_size: windows at once; skips: clips that nobody will
        ask for."""
        self.left, self.hear, self.size, self.skips = list(clips), hear, batch_size, skips
        self.enough = batch_size * window_s  # s of sound: as many windows as are decoded at once
        self.found: dict[Path, Transcript | LabError] = {}

    def __call__(self, clip: Path) -> Transcript:
        """Raises LabError for a clip that cannot be loaded or heard, when its turn comes."""
        if clip not in self.found:
            self._hear(self._load(clip))
        found = self.found.pop(clip)
        if isinstance(found, LabError):
            raise found
        return found

    def _load(self, clip: Path) -> dict[Path, audio.Audio]:
        """This clip and those after it: enough to fill a batch. So memory does not grow with the number of clips."""
        loaded, seconds = {}, 0.0
        waiting = [clip, *self.left[self.left.index(clip) + 1:]] if clip in self.left else [clip, *self.left]
        asked = clip
        while waiting and len(loaded) < self.size and seconds < self.enough:
            clip = waiting.pop(0)
            if clip in self.found or clip in loaded or (clip != asked and self.skips(clip)):
                continue
            try:
                sound = audio.load(clip)
            except LabError as error:
                self.found[clip] = error
                continue
            audio.tell(clip, sound)
            loaded[clip], seconds = sound, seconds + sound.duration
        self.left = waiting
        return loaded

    def _hear(self, loaded: dict[Path, audio.Audio]) -> None:
        """Where clips cannot be heard together, each is heard by itself: one costs no other."""
        if not loaded:
            return
        try:
            self.found |= self._at_once(loaded)
        except LabError as error:
            if len(loaded) == 1:
                self.found |= dict.fromkeys(loaded, error)
                return
            for clip, sound in loaded.items():
                self._hear({clip: sound})

    def _at_once(self, loaded: dict[Path, audio.Audio]) -> dict[Path, Transcript]:
        """Those heard together share the time by their length."""
        started, duration = time.perf_counter(), sum(sound.duration for sound in loaded.values())
        names = [clip.name for clip in loaded]
        with console.sound_bar(names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}", duration) as done:
            heard = self.hear([sound.samples for sound in loaded.values()], done)
        seconds = time.perf_counter() - started
        at_once = f" in {len(loaded)} clips, heard at once" if len(loaded) > 1 else ""
        console.note("transcribed", f"{seconds:.2f} s", f"{duration:.2f} s of sound{at_once}")
        return {clip: replace(one, seconds=seconds * one.duration / duration if duration else seconds)
                for clip, one in zip(loaded, heard, strict=True)}
