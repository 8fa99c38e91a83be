"""From what was measured to the JSON document of a run; the small steps around the timed window."""

import contextlib
import dataclasses
import statistics
import time
from dataclasses import dataclass

from whisper_lab import console, files, machine
from whisper_lab.console import LabError
from whisper_lab.energy import joules, samples, workload
from whisper_lab.energy import joules as account
from whisper_lab.energy.workload import Tally
from whisper_lab.metrics import mean_interval, normalize, word_errors

SCHEMA = "whisper-onnx-lab/profile/1"
NO_GPU = "no GPU is used"
nothing = contextlib.nullcontext


@dataclass(frozen=True)
class Repeat:
    """One timed pass over all samples: when (s of the log), and what each group of samples took."""

    start: float
    end: float
    passes: list[tuple[float, Tally]]

    @property
    def seconds(self) -> float:
        """Seconds of transcribing."""
        return sum(seconds for seconds, _ in self.passes)


# Before ---------------------------------------------------------------------------------------------------------------

def choose_samples(args, checkpoint) -> list[samples.Sample]:
    """The samples that the arguments ask for."""
    if args.audio_file:
        return samples.from_files([args.audio_file], args.reference)
    if args.generate_audio:
        console.warn("--generate-audio makes tones, not speech: what Whisper writes, and how long it takes, is chance; "
                     "good for a smoke test, not for a measurement")
        return [samples.tones(args.audio_duration, args.seed)]
    if args.use_dataset is not None:
        return samples.librispeech(args.num_samples, args.use_dataset or None)
    language_set = "nano" if args.nano or checkpoint.source == "bundled" else "english"
    return samples.built_in(args.num_samples, args.seed, language_set, args.shipped_samples)


def gpu(lab) -> int | str:
    """How NVML finds the GPU in use: its UUID, since CUDA_VISIBLE_DEVICES renumbers CUDA's devices only."""
    if lab.device != "cuda":
        return 0
    import torch

    return f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"


def conditions(lab) -> list:
    """What the trace reads besides the meters: the GPU's clocks and temperature where one is in use."""
    from whisper_lab.energy import meters

    try:
        return [meters.Conditions(gpu(lab))] if lab.device == "cuda" else []
    except meters.Unavailable as error:
        console.warn(f"no clocks in the trace: {error}")
        return []


def note_meter(found) -> None:
    """Say which source the joules come from, and why not from another."""
    if found.primary:
        console.note("energy", found.primary.source, "the best source here that sees this device; --meter chooses")
    else:
        console.note("energy", "not measured", "no source on this machine, see below")


def groups(clips: list, size: int) -> list[list]:
    """Clips that can be decoded, in groups of `size` of one language."""
    made = []
    for language in dict.fromkeys(clip.sample.language for clip in clips):
        same = [clip for clip in clips if clip.sample.language == language and not clip.error]
        made += [same[i:i + size] for i in range(0, len(same), size)]
    return made


def copies(clips: list) -> list:
    """The same clips, nothing measured yet."""
    return [dataclasses.replace(clip, seconds=[], text=None, words=None) for clip in clips]


def try_group(lab, clips: list, args):
    """(seconds, tally) of one pass over a group, or None where it failed: then its clips carry the error."""
    if any(clip.error for clip in clips):
        return None
    try:
        return workload.transcribe_group(lab, clips, args)
    except (LabError, RuntimeError, MemoryError) as error:  # torch's out of memory is a RuntimeError
        problem = getattr(error, "problem", None) or f"{type(error).__name__}: {error}".splitlines()[0]
        remedy = getattr(error, "remedy", None) or (
            workload.OUT_OF_MEMORY if "memory" in problem.lower() else "run it again with --log-level DEBUG")
        console.log.debug("traceback of the error below", exc_info=True)
        for clip in clips:
            clip.error = problem
        names = ", ".join(clip.sample.name for clip in clips)
        console.log.error("error: sample %s: %s\n  try: %s", names, problem, remedy)
        return None


def start_anew(clips: list, log) -> tuple[list, float, tuple[float, float]]:
    """No repeats yet; the log's time and the processor times at which the first one begins."""
    for clip in clips:
        clip.seconds.clear()
    return [], log.mark(), workload.cpu_seconds()


def wait_for_log(meter, patience_s: float = 3.0) -> None:
    """An external meter's log may lag behind: wait a little until it has reached the end of the run."""
    if not hasattr(meter, "rows"):
        return
    end, patient = time.time(), time.monotonic() + patience_s
    while time.monotonic() < patient and (not (rows := meter.rows()) or rows[-1][0] < end):
        time.sleep(0.1)


# After ----------------------------------------------------------------------------------------------------------------

def row(measured: dict, found, idle: dict, energy_of) -> dict:
    """One batch size. energy_of(start, end) gives (J, None) or (None, why not)."""
    clips, repeats = [clip for clip in measured["clips"] if not clip.error], measured["repeats"]
    audio_s, n = sum(clip.duration for clip in clips), len(repeats)
    tallies = [tally for repeat in repeats for _, tally in repeat.passes]
    tokens, operations = (sum(getattr(tally, name) for tally in tallies) for name in ("tokens", "operations"))
    gross, reason = energy_of(measured["start"], measured["end"]) if tallies else (None, "no sample was transcribed")
    energy = account.entry(found, gross, reason, measured["start"], measured["end"], idle, audio_s * n, tokens)
    each = [energy_of(repeat.start, repeat.end)[0] for repeat in repeats] if gross is not None else []
    if each and None not in each and audio_s:
        energy["energy_per_audio_s_interval_j"] = mean_interval([joules / audio_s for joules in each])
    seconds = mean_interval([repeat.seconds for repeat in repeats] if tallies else [])
    first_tokens = [tally.first_token_s for tally in tallies if tally.first_token_s is not None]
    mean = seconds["mean"]
    failed = [clip.error for clip in measured["clips"] if clip.error]
    return {
        "batch_size": measured["size"], "failed_samples": len(failed), "error": failed[0] if failed else None,
        "repeats": n, "total_audio_duration": audio_s, "inference_time_s": seconds,
        "average_rtf": mean / audio_s if mean and audio_s else None,
        "throughput_audio_s_per_s": audio_s / mean if mean else None,
        "tokens": tokens // n if n else None, "tokens_per_s": tokens / n / mean if mean else None,
        "time_to_first_token_s": mean_interval(first_tokens),
        "phases_s": phases(tallies, n), "windows": sum(tally.windows for tally in tallies) // n if n else None,
        "windows_per_encoder_call": _ratio(sum(tally.windows for tally in tallies), sum(t.calls for t in tallies)),
        "operations": operations // n if n else None,
        "operations_per_second": operations / n / mean if mean else None,
        "cpu_time_s": measured["cpu_time_s"],
        "other_cpu_share": measured["other_cpu_share"], "peak_rss_bytes": measured["peak_rss_bytes"],
        "peak_gpu_bytes": measured["peak_gpu_bytes"], "energy": energy}


def phases(tallies: list[Tally], repeats: int) -> dict[str, float]:
    """Mean seconds of each phase in one pass over all samples."""
    names = dict.fromkeys(name for tally in tallies for name in tally.phases_s)
    return {name: sum(tally.phases_s.get(name, 0.0) for tally in tallies) / repeats for name in names}


def _ratio(a: float, b: float) -> float | None:
    return a / b if b else None


def transcription(clip, means_nothing: bool) -> dict:
    """One entry of `transcriptions`; the document's keys first."""
    reference = clip.sample.reference
    known = clip.error is None and bool(clip.seconds)
    scored = known and reference and not means_nothing
    errors = word_errors(reference, clip.text, clip.sample.language) if scored else None
    mean = statistics.fmean(clip.seconds) if known else None
    return {
        "text": clip.text if known else None, "inference_time": mean, "audio_duration": clip.duration,
        "rtf": _ratio(mean, clip.duration) if known else None, "timestamps": clip.words if known else None,
        "sample": clip.sample.name, "class": clip.sample.kind, "source": clip.sample.source,
        "speech": clip.sample.speech, "language": clip.sample.language, "reference": reference,
        "inference_time_s": mean_interval(clip.seconds), "wer": errors and errors.wer, "cer": errors and errors.cer,
        "word_errors": errors and errors.substitutions + errors.insertions + errors.deletions,
        "reference_words": errors and errors.reference_words, "error": clip.error}


def rates(entries: list[dict], means_nothing: bool) -> dict:
    """Pooled `wer` and `cer`: errors of all samples over words (characters) of all samples; or None and why."""
    scored = [one for one in entries if one["wer"] is not None and one["reference_words"]]
    if not scored:
        why = "random weights or --tokens: the texts mean nothing" if means_nothing else \
            "no sample with a known text was transcribed"
        return {"wer": None, "cer": None, "wer_reason": why}
    words = sum(one["reference_words"] for one in scored)
    characters = [len(normalize(one["reference"])) for one in scored]
    wrong = sum(one["cer"] * n for one, n in zip(scored, characters, strict=True))
    return {"wer": sum(one["word_errors"] for one in scored) / words, "cer": wrong / sum(characters),
            "reference_words": words}


def document(args, lab, clips: list, rows: list[dict], others: dict, checks: dict) -> dict:
    """The whole run, ready for JSON: the keys of the energy-profiling document first, then what it promised."""
    means_nothing = lab.checkpoint.random_weights or bool(args.tokens)
    entries, first = [transcription(clip, means_nothing) for clip in clips], rows[0]
    energy = first["energy"] | {"also": {name: {"energy_j": joules, "reason": why}
                                         for name, (joules, why) in others.items()}, "cross_checks": checks}
    peak = first["peak_gpu_bytes"] if lab.device == "cuda" else first["peak_rss_bytes"]
    made = {
        "model": lab.checkpoint.name.removeprefix("whisper-"), "device": lab.device,
        "torch_dtype": lab.dtype and f"torch.{lab.dtype}", "total_samples": sum(not clip.error for clip in clips),
        "total_audio_duration": first["total_audio_duration"],
        "total_inference_time": first["inference_time_s"]["mean"], "average_rtf": first["average_rtf"],
        "benchmark_time": energy["duration_s"],
        "model_parameters": lab.architecture.parameters,
        "gpu_memory_used": lab.gpu_memory_bytes and lab.gpu_memory_bytes / 1024**3, "transcriptions": entries,
        "schema": SCHEMA, "machine": machine.card(args.threads),
        "failed_samples": max(one["failed_samples"] for one in rows),
        "checkpoint": {"name": lab.checkpoint.name, "revision": lab.checkpoint.revision,
                       "random_weights": lab.checkpoint.random_weights},
        "backend": args.backend, "precision": args.precision if args.backend == "onnx" else lab.dtype,
        "seed": args.seed, "repeats": first["repeats"], "warm_up": args.warm_up, "batch_size": first["batch_size"],
        "energy": energy, **rates(entries, means_nothing), "tokens": first["tokens"],
        "tokens_fixed_per_window": args.tokens,
        "phases_s": {"load": lab.load_s, **first["phases_s"]}, "time_to_first_token_s": first["time_to_first_token_s"],
        "inference_time_s": first["inference_time_s"],
        "throughput_audio_s_per_s": first["throughput_audio_s_per_s"], "tokens_per_s": first["tokens_per_s"],
        "operations": first["operations"], "operations_per_second": first["operations_per_second"],
        "peak_memory_bytes": peak, "memory_per_parameter_bytes": peak / lab.architecture.parameters,
        "cpu_time_s": first["cpu_time_s"], "other_cpu_share": first["other_cpu_share"], "batches": rows}
    if lab.gpu_memory_bytes is None:
        made["gpu_memory_reason"] = NO_GPU
    if lab.dtype is None:
        made["torch_dtype_reason"] = "graphs, run by onnxruntime: see precision"
    if args.single:  # the document's form for a single clip: the transcription itself
        made |= {key: entries[0][key] for key in ("text", "inference_time", "audio_duration", "rtf", "timestamps")}
    return made


# What a run prints ----------------------------------------------------------------------------------------------------

# What a run prints: the lines that the energy-profiling document's readers look for, then tables, then the joules.

WIDTH = 50
CROWDED = 0.1  # share of the processor that others may take before it has to be said
UNSTEADY = 0.1  # standard deviation over mean from which repeats are no repeats


def show(document: dict, args) -> None:
    """Results on stdout, JSON to --output-file."""
    seconds = document["total_inference_time"]
    console.result(f"{'' if args.single else 'Total '}Inference Time: "
                   + ("unknown: no sample was transcribed" if seconds is None else f"{seconds:.2f}s"))
    time = document["inference_time_s"]
    if time["sd"] and time["sd"] > UNSTEADY * time["mean"]:
        console.warn(f"the repeats differ by {100 * time['sd'] / time['mean']:.0f} % (standard deviation): something "
                     "else was busy on this machine; measure again when it is idle, or with more --repeats")
    if document["other_cpu_share"] > CROWDED:
        console.warn(f"other programs took {100 * document['other_cpu_share']:.0f} % of the processor meanwhile: the "
                     "times are longer for it, and a meter counts them too")
    if not args.quiet:
        for line in summary(document, args.single):
            console.result(console.plain(line, one_line=True))
        _tables(document, args)
        for line in joules.lines(document["energy"], document["cpu_time_s"], document["machine"]["cores"],
                                  document["average_rtf"], document["batches"][0]["peak_rss_bytes"]):
            console.result(line)
        for line in cross_checks(document["energy"]):
            console.result(line)
        console.result(machine.one_line(document["machine"]))
    if args.output_file:
        console.note("results", files.write_json(args.output_file, document), "JSON")


def summary(document: dict, single: bool) -> list[str]:
    """The block under the timing line."""
    lines = ["", "=" * WIDTH, "WHISPER ENERGY PROFILING SUMMARY", "=" * WIDTH]
    if single:
        one = document["transcriptions"][0]
        lines += [f"Text: {one['text'] if one['error'] is None else 'failed: ' + one['error']}",
                  f"Inference Time: {_number(one['inference_time'], '.2f', 's')}",
                  f"Audio Duration: {one['audio_duration']:.2f}s", f"RTF: {_number(one['rtf'], '.3f')}"]
        if not one["speech"]:
            lines.append("Audio: generated tones, not speech: the text and the time mean nothing")
        return [*lines, *words(document)]
    lines += [f"Model: {document['model']}", f"Device: {document['device']}",
              f"Samples Processed: {document['total_samples']}",
              *([f"Samples Failed: {document['failed_samples']}"] if document["failed_samples"] else []),
              f"Total Audio Duration: {document['total_audio_duration']:.2f}s",
              f"Total Inference Time: {_number(document['total_inference_time'], '.2f', 's')}",
              f"Average RTF: {_number(document['average_rtf'], '.3f')}",
              f"Model Parameters: {document['model_parameters']:,}"]
    if document["gpu_memory_used"]:
        lines.append(f"GPU Memory Used: {document['gpu_memory_used']:.2f} GB")
    return [*lines, *words(document)]


def words(document: dict) -> list[str]:
    """With --timestamps, a line per word."""
    return [f"{word['timestamp'][0]:8.2f} {word['timestamp'][1]:8.2f}  {word['text']}"
            for one in document["transcriptions"] for word in one["timestamps"] or []]


def _tables(document: dict, args) -> None:
    if not args.single:
        console.table("samples", ["sample", "class", "audio s", "time s", "RTF", "WER"], [
            [one["sample"], one["class"], f"{one['audio_duration']:.1f}",
             one["error"] or _number(one["inference_time"], ".3f"), _number(one["rtf"], ".3f"),
             _number(None if one["wer"] is None else 100 * one["wer"], ".1f", " %")]
            for one in document["transcriptions"]])
    console.table(f"one pass over all samples, mean of {document['repeats']} (95 % interval)", ["quantity", "value"],
                  rows(document))
    if len(document["batches"]) > 1:
        console.table("batch sizes", ["batch", "windows a call", "time s", "RTF", "audio s/s", "tokens/s", "peak MB",
                                      "J per audio s"],
                      [[one["batch_size"], _number(one["windows_per_encoder_call"], ".1f"),
                        one["error"] or _number(one["inference_time_s"]["mean"], ".3f"),
                        _number(one["average_rtf"], ".3f"),
                        _number(one["throughput_audio_s_per_s"], ".1f"), _number(one["tokens_per_s"], ".0f"),
                        f"{(one['peak_gpu_bytes'] or one['peak_rss_bytes']) / 1e6:.0f}",
                        _number(one["energy"]["energy_per_audio_s_j"], ".3f")] for one in document["batches"]])


def rows(document: dict) -> list[list[str]]:
    """Name and value of every quantity that is not in the block above."""
    operations = document["operations"]
    phases = [[f"  {name}", _number(seconds, ".3f", " s")] for name, seconds in document["phases_s"].items()]
    wer = "unknown: " + document["wer_reason"] if document["wer"] is None else \
        f"{100 * document['wer']:.1f} %, {100 * document['cer']:.1f} % " \
        f"({console.count(document['reference_words'], 'word')})"
    return [
        ["inference time", spread(document["inference_time_s"], "s")], *phases,
        ["time to first token", spread(document["time_to_first_token_s"], "s")],
        ["throughput", f"{_number(document['throughput_audio_s_per_s'], '.1f')} s of sound a second"],
        ["tokens", f"{document['tokens']}, {_number(document['tokens_per_s'], '.0f')} a second"],
        ["operations", "unknown" if operations is None else
         f"{operations / 1e9:.2f} G, {document['operations_per_second'] / 1e9:.1f} G a second"],
        ["peak memory", f"{document['peak_memory_bytes'] / 1e6:.0f} MB, "
                        f"{document['memory_per_parameter_bytes']:.1f} bytes a parameter"],
        ["word and character error rate", wer]]


def spread(one: dict, unit: str) -> str:
    """`0.512 s (0.498 to 0.526)`"""
    if one["mean"] is None:
        return "unknown"
    between = "" if one["low"] is None else f" ({one['low']:.3f} to {one['high']:.3f})"
    return f"{one['mean']:.3f} {unit}{between}"


def cross_checks(energy: dict) -> list[str]:
    """What other meters and tools say about the same window."""
    lines = []
    for name, one in {**energy["also"], **energy["cross_checks"]}.items():
        if one["energy_j"] is None:
            lines.append(f"  {name}: {one['reason']}")
        else:
            share = f", {one['energy_j'] / energy['energy_j']:.3f} of the above" if energy["energy_j"] else ""
            lines.append(f"  {name}: {one['energy_j']:.2f} J{share}" + (f" ({one['note']})" if one.get("note") else ""))
    return ["Cross-check over the same window:", *lines] if lines else []


def _number(value: float | None, form: str, unit: str = "") -> str:
    return "unknown" if value is None else f"{value:{form}}{unit}"
