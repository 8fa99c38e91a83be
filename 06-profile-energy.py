"""The next labs: what one transcript costs, in seconds, bytes and joules.

    python 06-profile-energy.py --benchmark --assume-watts 10-25
    python 06-profile-energy.py meeting.wav --task diarize
    python 06-profile-energy.py sweep --help     # many runs; then: analyze, collect

    1. idle        what the machine takes before and after, doing nothing
    2. warm-up     the first pass fills caches: it is not counted
    3. the window  the same clips again and again, every reading with its time
    4. joules      a counter's difference, or the integral of power
    5. divide      net of idle; by seconds of sound, by tokens

A meter sees everything that runs beside this program. Without a meter the energy is null, with the reason.
"""

import contextlib
import sys
import time

from whisper_lab import console, files, flags

COMMANDS = ("sweep", "analyze", "collect")


# 1. Idle -------------------------------------------------------------------------------------------------------------

def idle_window(log, seconds: float) -> tuple[float, float]:
    """Do nothing for a while, the model loaded; returns when that began and ended (s of the log)."""
    start = log.mark()
    time.sleep(seconds)
    return start, log.mark()


# 2. Warm-up ----------------------------------------------------------------------------------------------------------

def warm_up(work, clips: list, size: int, passes: int) -> None:
    """Process the first `size` clips a few times, uncounted: caches fill, memory is allocated, clocks rise.

    On a GPU all clips: each new shape has its kernels loaded, and chosen, when it is met first.
    """
    from whisper_lab.energy import workload

    groups = workload.groups(clips, size)
    for group in (groups if work.engine.device == "cuda" else groups[:1]) * passes:
        workload.try_pass(work, group)
    for clip in clips:
        clip.seconds.clear()


# 3. The window -------------------------------------------------------------------------------------------------------

def timed_window(work, clips: list, size: int, args, log, usage):
    """Process all clips in groups of `size`, at least --repeats times and --min-seconds long; a workload.Window."""
    from whisper_lab.energy import workload

    groups, repeats, start = workload.groups(clips, size), [], log.mark()
    usage.restart()
    while groups and (len(repeats) < args.repeats or log.now() - start < args.min_seconds):
        begun = log.mark()  # reads the meter at this very moment, beside its readings every --interval-ms
        passes = [workload.try_pass(work, group) for group in groups]
        repeats.append(workload.Repeat(begun, log.mark(), passes))
        if None in passes:  # a clip failed: start again without it, so that every repeat does the same work
            for clip in clips:
                clip.seconds.clear()
            groups, repeats, start = workload.groups(clips, size), [], log.mark()
            usage.restart()
    return workload.Window(size, clips, start, log.mark(), repeats, usage.so_far())


# 4. Joules -----------------------------------------------------------------------------------------------------------

def energy_between(log, meter, start: float, end: float) -> float:
    """Joules that `meter` saw between two moments of the log (s). Raises Refused where its readings cannot tell."""
    from whisper_lab.energy import joules

    readings = log.readings(meter, start, end)  # [(s, J or W)], at the times they really came
    joules.check_window(meter, readings, start, end, log.errors)
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


def idle_power(log, meter, windows: list[tuple[float, float]]) -> dict:
    """Power in W `before` and `after` the run and its `mean`, each None where unknown, with the `reason`."""
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
    known = [value for value in watts if value is not None]
    return {"before": before, "after": after, "mean": sum(known) / len(known) if known else None, "reason": reason}


# 5. Divide -----------------------------------------------------------------------------------------------------------

def divide(gross: float | None, seconds: float, idle_w: float | None, audio_s: float, tokens: int) -> dict:
    """What can be compared with another run: joules less those that idling takes, per second of sound, per token.

    gross: J in a window of `seconds`; audio_s, tokens: how much was processed in it. What is unknown is None.
    """
    known = gross is not None
    return {"net_energy_j": gross - idle_w * seconds if known and idle_w is not None else None,
            "average_power_w": gross / seconds if known else None,
            "audio_s": audio_s, "energy_per_audio_s_j": gross / audio_s if known and audio_s else None,
            "energy_per_token_j": gross / tokens if known and tokens else None}


def window_energy(window, log, meters, idle: dict) -> dict:
    """Steps 4 and 5 for a timed window: the entry `energy` of the document."""
    from whisper_lab.energy import joules
    from whisper_lab.metrics import mean_interval

    gross, reason = None, "no sample was transcribed"
    if window.tallies:
        gross, reason = try_energy(log, meters.primary, window.start, window.end)
    audio_s, repeats = window.audio_s, window.repeats
    shares = divide(gross, window.seconds, idle["mean"], audio_s * len(repeats), window.tokens)
    if gross is not None and audio_s:  # how steady the repeats are
        each = [try_energy(log, meters.primary, one.start, one.end)[0] for one in repeats]
        if None not in each:
            shares["energy_per_audio_s_interval_j"] = mean_interval([one / audio_s for one in each])
    return joules.entry(meters, gross, reason, window.seconds, idle, shares)


# All together --------------------------------------------------------------------------------------------------------

def measure(work, clips: list, args, log, rests: bool, checks) -> tuple[list, list]:
    """Steps 1 to 3 for every batch size: (idle windows, timed windows). rests: whether idling can be measured."""
    from whisper_lab.energy import workload

    windows, idles = [], [idle_window(log, args.idle_seconds)] if rests else []
    for size in args.batch_size:
        own, usage = workload.unmeasured(clips) if windows else clips, workload.Usage(work.engine.device)
        warm_up(work, own, size, args.warm_up)
        with contextlib.nullcontext() if windows else checks.window():  # other tools measure the first one as well
            windows.append(timed_window(work, own, size, args, log, usage))
    return idles + ([idle_window(log, args.idle_seconds)] if rests else []), windows


def profile(args) -> dict:
    """Load, measure, and account for it: the document of the run."""
    from whisper_lab.energy import crosscheck, document, meters, readings

    work, clips = prepare(args)
    gpu, device = work.engine.gpu_uuid(), work.engine.device
    found = meters.open_meters(device, args.meter, gpu or 0, args.power_file, args.assume_watts)
    meters.announce(found)
    checks = crosscheck.Checks(args.cross_check, device)
    interval_s = args.interval_ms / 1e3 if found.meters or args.trace else None  # no one reads it: do not disturb
    rests = args.idle_seconds > 0 and found.primary is not None and found.primary.method != "estimate"
    with readings.Log(found.meters, interval_s, meters.conditions(gpu)) as log:
        idles, windows = measure(work, clips, args, log, rests, checks)
    meters.wait_for(found.primary)
    idle = idle_power(log, found.primary, idles)
    rows = [document.row(window, window_energy(window, log, found, idle)) for window in windows]
    also = {meter.name: try_energy(log, meter, windows[0].start, windows[0].end) for meter in found.meters[1:]}
    rows[0]["energy"] |= document.second_opinions(also, checks.found)
    if args.trace:
        console.note("trace", log.write(args.trace), f"{len(log.rows)} readings")
    found.close()
    return document.make(work, clips, rows, args.warm_up, args.single and len(clips) == 1)


def prepare(args) -> tuple:
    """(what is to be done, with its models loaded; the clips, in memory)"""
    from whisper_lab import checkpoints, names
    from whisper_lab.energy import engine, tasks, workload

    only_nano = args.backend == "onnx" and names.chosen_name(args.model, args.model_dir) == "whisper-nano"
    checkpoint = checkpoints.resolve("nano" if only_nano else args.model)
    clips = workload.load_clips(choose_samples(args, checkpoint.source == "bundled"))
    if args.backend == "onnx":
        whisper = engine.open_graphs(checkpoint, args.model_dir, args.precision, args.threads)
    else:
        whisper = engine.open_torch(checkpoint, args.device, args.dtype, args.threads, args.seed)
    whisper.audio_context = args.audio_context
    whisper.fix_tokens(args.tokens)
    kind = tasks.Diarization if args.task == "diarize" else tasks.Transcription
    return kind(whisper, args.language, args.timestamps, args.seed), clips


def choose_samples(args, is_nano: bool) -> list:
    """The samples that the arguments ask for."""
    from whisper_lab.energy import samples

    if args.audio:
        return samples.from_files(args.audio, args.reference)
    if args.task == "diarize":
        return samples.dialogue()
    if args.generate_audio:
        console.warn("--generate-audio makes tones, not speech: what Whisper writes, and how long it takes, is chance; "
                     "good for a smoke test, not for a measurement")
        return [samples.tones(args.audio_duration, args.seed)]
    if args.use_dataset is not None:
        return samples.librispeech(args.num_samples, args.use_dataset or None)
    return samples.built_in(args.num_samples, args.seed, "nano" if args.nano or is_nano else "english",
                            args.shipped_samples)


def arguments(argv: list[str] | None):
    """The command line; its options are in whisper_lab/energy/options.py."""
    from whisper_lab.energy import options

    parser = options.parser(__doc__)
    args = flags.parse(parser, argv)
    flags.refuse_mistyped(parser, args.audio, COMMANDS)
    options.check(parser, args)
    return args


def main(argv: list[str] | None = None) -> int:
    """Profile, or hand over to the sweeps; 1 where a sample failed."""
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in COMMANDS:
        from whisper_lab.sweeps import cli

        return cli.main(argv)
    args = arguments(argv)
    from whisper_lab.energy import summary

    document = profile(args)
    summary.show(document, args.quiet)
    if args.output_file:
        console.note("results", files.write_json(args.output_file, document), "JSON")
    return 1 if document["failed_samples"] else 0


if __name__ == "__main__":
    console.run(main)
