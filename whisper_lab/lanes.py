"""Long recordings on several lanes: threads that each decode a batch of windows by itself, with the same sessions.

Where threads share each operator, all wait awake for the last of them, and NumPy computes on one between two steps of
the decoder. Where there are batches for all of them, each thread had better take a batch: a lane. Then the sessions
have one thread, the caller's, and the process no pool that is shared, which onnxruntime could make only once: so it has
to be known before the graphs are opened that there is enough to do (`wanted`). Lanes take more memory: each has the
caches of its batch.
"""

import functools
import math
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from whisper_lab import machine, sound_files

MOST = 4  # more threads than these were not tried
# s of sound for each lane. What does not give each a few batches takes longer: one waits for the other, or is alone.
EACH_S = 120.0
AHEAD = MOST  # batches that are made up before it is known what came of the first of them
PATIENCE_S = 1.0  # on Windows Ctrl-C ends no wait that has no end of its own


def fit(threads: int | None, batch_size: int | None, seconds: float) -> int:
    """How many lanes hear so many s of sound sooner than threads that share the work would: one for each, or 1.

    threads: None takes all cores; batch_size: None is more than 1.
    """
    threads = threads or machine.usable_cores()
    return threads if 1 < threads <= MOST and batch_size != 1 and seconds >= threads * EACH_S else 1


def wanted(args, clips: Iterable[Path]) -> int:
    """How many lanes the graphs are to be opened for, where a command line (`args`) is about these sound files.

    Where each window is given the text before it there is nothing to do side by side; OpenVINO has its own threads.
    """
    number = fit(args.threads, args.batch_size, math.inf)
    if number == 1 or args.condition_on_previous or args.provider != "cpu":
        return 1
    seconds = 0.0
    for clip in clips:
        seconds += sound_files.promised(clip) or 0.0
        if seconds >= number * EACH_S:
            return number
    return 1


class Left(Exception):
    """Raised in a lane that is to end; whoever ended the lanes knows why."""


class Lanes:
    """Threads that take one piece of work after the other; leaving the block ends them, each after a call of the
    runtime that they are in (`watched`). Where a signal ends the block, it is left at once, and they end behind it."""

    def __init__(self, number: int):
        """number: of lanes; where it is 1 the caller's thread does the work."""
        self.number, self._stopped, self._turn, self._pool = number, threading.Event(), threading.Lock(), None
        if number > 1:
            from concurrent.futures import ThreadPoolExecutor  # a part of the time to the first text

            self._pool = ThreadPoolExecutor(number, "lane")

    def __enter__(self) -> "Lanes":
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._stopped.set()
        if self._pool:
            asked = kind is not None and issubclass(kind, (KeyboardInterrupt, SystemExit))
            self._pool.shutdown(wait=not asked, cancel_futures=True)

    def watched(self, runtime):
        """The same runtime, which raises Left once the lanes are to end: a batch of beams may take half a minute."""
        return runtime if self._pool is None else _Watched(runtime, self._stopped)

    def in_turn(self, call: Callable | None) -> Callable | None:
        """The same call, which one lane at a time is in; None stays None."""
        def alone(*given: object) -> object:
            with self._turn:
                return call(*given)

        return call and alone

    def begin(self, work: Callable[[Any], object], piece: Any) -> Callable[[], None]:
        """Have a lane do a piece of work, in the order of the calls; returns what waits for its end, and raises what it
        raised. After that no other is begun: of those that were to follow nothing is done."""
        if self._pool is None:
            work(piece)
            return lambda: None
        return functools.partial(_end, self._pool.submit(self._do, work, piece))

    def _do(self, work: Callable[[Any], object], piece: Any) -> None:
        if self._stopped.is_set():
            return
        try:
            work(piece)
        except Left:
            return
        except BaseException:
            self._stopped.set()
            raise


class _Watched:
    """Whatever is wanted of the runtime, an event is asked first."""

    def __init__(self, runtime, stopped: threading.Event):
        self._runtime, self._stopped = runtime, stopped

    def __getattr__(self, name: str):
        if self._stopped.is_set():
            raise Left
        return getattr(self._runtime, name)


def _end(begun) -> None:
    """Wait for a future."""
    from concurrent.futures import wait

    while not wait([begun], PATIENCE_S).done:
        pass
    begun.result()
