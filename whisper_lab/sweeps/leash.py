"""Runs a program that must not outlive its sweep: python leash.py PIPE COMMAND...

PIPE is the number of a pipe's reading end. The sweep holds the writing end and never writes: reading returns when the
sweep is gone, also where kill -9 gave it no time to end anything. Then this process kills its process group, that is,
itself, the program and what the program started. It waits meanwhile and takes no time from what is measured. Only the
standard library is imported, and no package, so that it is there in a moment.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading

MARK = "WHISPER_LAB_SWEEP"  # in the program's environment: whose it is: the next sweep looks for it, see run.py


def end_with_the_sweep(pipe: int) -> None:
    """Wait until the sweep is gone, then end the whole group."""
    os.read(pipe, 1)
    if os.getpgrp() == os.getpid():  # the group is ours, not that of someone's shell
        os.killpg(os.getpid(), signal.SIGKILL)


def end_as(status: int) -> int:
    """The exit status to leave with; a program that a signal ended is followed the same way."""
    if status < 0:
        with contextlib.suppress(OSError):  # SIGKILL has no handler
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


def main(pipe: str, *command: str) -> int:
    """Run the command to its end, in this process group; returns its exit status."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)  # meant for the program, which gets it too, and may take its time
    os.environ[MARK] = f"{os.environ.get(MARK, '')} {os.getpid()}"
    try:
        program = subprocess.Popen(command)
    except OSError as error:
        print(f"cannot start {command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    threading.Thread(target=end_with_the_sweep, args=(int(pipe),), daemon=True).start()
    return end_as(program.wait())


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
