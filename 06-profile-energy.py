"""The next labs: what one transcript costs, in seconds, bytes and joules.

    python 06-profile-energy.py                                           # one short clip of speech
    python 06-profile-energy.py --benchmark --num-samples 4 --output-file run.json --trace run_profile.csv
    python 06-profile-energy.py --benchmark --model nano --backend onnx --precision int8 --batch-size 1,2,4
    python 06-profile-energy.py --audio-file speech.wav --timestamps
    python 06-profile-energy.py --benchmark --assume-watts 10-25          # an estimate, and labelled so
    python 06-profile-energy.py sweep --help                              # many runs; also: analyze, collect

    1. idle       what the machine takes while it does nothing: before and after
    2. warm-up    the first pass allocates, compiles and fills caches: it is not counted
    3. the window the same clips, --repeats times; every reading of the meter with its real time stamp
    4. joules     a counter's difference, or the integral of power: gross; less idle power x time: net
    5. divide     by seconds of sound, by tokens: only then two runs compare

A meter sees everything that runs beside this program. Where there is none, energy is null, with the reason.
"""

import sys
import time

from whisper_lab import console

COMMANDS = ("sweep", "analyze", "collect")


# 4. Joules -----------------------------------------------------------------------------------------------------------

def energy_between(log, meter, start: float, end: float) -> float:
    """Joules that `meter` saw between two moments of the log (s). Raises Refused where its readings cannot tell."""
    from whisper_lab.energy import joules
    from whisper_lab.energy import joules as account

    readings = log.readings(meter, start, end)  # [(s, J or W)], at the times they really came
    account.check_window(meter, readings, start, end, log.errors)
    if meter.kind == "counter":
        # A counter has done the integral itself: E = last - first, and where it started again from 0, the range more.
        return joules.from_counter(readings, meter.wraps_at)
    # Power has to be integrated: E = sum of (W[i] + W[i-1]) / 2 * (t[i] - t[i-1]), trapezoids between real times.
    # Not mean(W) * readings * interval: a sampler that was asked for 50 ms gets 50, 51 or 80.
    return joules.from_power(readings, start, end)


def try_energy(log, meter, start: float, end: float) -> tuple[float | None, str | None]:
    """(joules, None), or (None, why not)."""
    from whisper_lab.energy.joules import Refused

    if meter is None:
        return None, "no meter"
    try:
        return energy_between(log, meter, start, end), None
    except Refused as refusal:
        return None, str(refusal)


# 1. Idle -------------------------------------------------------------------------------------------------------------

def idle_window(log, seconds: float) -> tuple[float, float]:
    """Do nothing for a while, the model loaded; returns when that began and ended."""
    start = log.mark()
    time.sleep(seconds)
    return start, log.mark()


def idle_power(log, meter, windows: list[tuple[float, float]]) -> dict:
    """Mean power in W before and after the run, None where unknown, with the reason."""
    watts, reason = [], "no idle time was measured: --idle-seconds 0"
    if meter is not None and meter.method == "estimate":
        windows, reason = [], "an assumed power has no idle part"
    for start, end in windows:
        joules, refused = try_energy(log, meter, start, end)
        watts.append(None if joules is None else joules / (end - start))
        reason = refused or reason
    before, after = watts if watts else (None, None)
    if before and after and abs(after - before) > 0.2 * before:
        console.warn(f"idle power went from {before:.1f} to {after:.1f} W: something else was busy, or it was still "
                     "cooling down; take --idle-seconds longer")
    return {"before": before, "after": after, "reason": reason}


# 2 and 3. Warm-up and the timed window -------------------------------------------------------------------------------

def measure(lab, clips: list, size: int, args, log, also) -> dict:
    """Transcribe all clips in groups of `size`, again and again; what a repeat took, and when each began and ended.

    also: a context in which another tool measures the same window.
    """
    from whisper_lab.energy import run, workload

    groups = run.groups(clips, size)
    workload.reset_peak_memory(lab.device)
    for _ in range(args.warm_up):
        groups = groups if groups and run.try_group(lab, groups[0], args) else run.groups(clips, size)
    with also:
        repeats, begun, cpu_started = run.start_anew(clips, log)
        while groups and (len(repeats) < args.repeats or log.now() - begun < args.min_seconds):
            start = log.mark()
            passes = [run.try_group(lab, group, args) for group in groups]
            repeats.append(run.Repeat(start, log.mark(), passes))
            if None in passes:  # a sample failed: from here on without it, so that every pass does the same work
                groups = run.groups(clips, size)
                repeats, begun, cpu_started = run.start_anew(clips, log)
        end = log.mark()
        spent = workload.cpu_spent(cpu_started, end - begun)
    return {"size": size, "clips": clips, "start": begun, "end": end, "repeats": repeats, **spent,
            **workload.peak_memory(lab.device)}


# The whole -----------------------------------------------------------------------------------------------------------

def profile(args) -> dict:
    """Load, idle, measure every batch size, idle; returns the document of the run."""
    from whisper_lab import checkpoints
    from whisper_lab.energy import crosscheck, meters, run, workload
    from whisper_lab.energy import readings as trace

    checkpoint = checkpoints.resolve(args.model)
    clips = workload.load_clips(run.choose_samples(args, checkpoint))
    lab = workload.load(args, checkpoint)
    found = meters.find(lab.device, args.meter, run.gpu(lab), args.power_file, args.assume_watts)
    run.note_meter(found)
    idle_s = args.idle_seconds if found.primary and found.primary.method != "estimate" else 0.0
    check = crosscheck.Checks(args.cross_check, lab.device)
    idles, measured = [], []
    interval_s = args.interval_ms / 1e3 if found.meters or args.trace else None  # nobody reads it: do not disturb
    with trace.Log(found.meters, interval_s, run.conditions(lab)) as log:
        if idle_s:
            idles.append(idle_window(log, idle_s))
        for i, size in enumerate(args.batch_size):
            also, own = (check.window(), clips) if i == 0 else (run.nothing(), run.copies(clips))
            measured.append(measure(lab, own, size, args, log, also))
        if idle_s:
            idles.append(idle_window(log, idle_s))
    run.wait_for_log(found.primary)
    idle = idle_power(log, found.primary, idles)
    rows = [run.row(one, found, idle, lambda start, end: try_energy(log, found.primary, start, end))
            for one in measured]
    others = {meter.name: try_energy(log, meter, measured[0]["start"], measured[0]["end"])
              for meter in found.meters[1:]}
    if args.trace:
        console.note("trace", log.write(args.trace), f"{len(log.rows)} readings")
    found.close()
    return run.document(args, lab, clips, rows, others, check.found)


def arguments(argv: list[str] | None):
    """The command line."""
    from whisper_lab.energy import options

    parser = console.parser(__doc__, "model")
    options.add(parser)
    console.add_flags(parser, "threads", "seed", "quiet", "log_level")
    args = console.parse(parser, argv)
    options.check(parser, args)
    return args


def main(argv: list[str] | None = None) -> int:
    """Profile, or hand over to the sweeps; 1 where a sample failed."""
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in COMMANDS:
        from whisper_lab.sweeps import cli

        return cli.main(argv)
    args = arguments(argv)
    from whisper_lab.energy import run

    document = profile(args)
    run.show(document, args)
    return 1 if document["failed_samples"] else 0


if __name__ == "__main__":
    console.run(main)
