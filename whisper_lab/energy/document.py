"""From what was measured to the JSON document of a run: the energy-profiling document's keys, and what it promised.

A number that cannot be had is null, with its reason beside it, never 0.
"""

import statistics
from collections.abc import Sequence

from whisper_lab import machine
from whisper_lab.energy.engine import Tally
from whisper_lab.energy.workload import Clip, Window, Workload
from whisper_lab.metrics import mean_interval, word_errors

SCHEMA = "whisper-onnx-lab/profile/1"
NO_GPU = "no GPU is used"
NO_DTYPE = "graphs, run by onnxruntime: see precision"


def make(work: Workload, clips: Sequence[Clip], rows: list[dict], warm_up: int, single: bool) -> dict:
    """The whole run, ready for JSON.

    rows: of `row`, one for each batch size; warm_up: passes that were not counted; single: of one recording, whose
    text and times are then keys of the document itself, as the original has them.
    """
    nonsense = work.engine.checkpoint.random_weights or bool(work.engine.tokens)
    entries = [transcription(clip, nonsense) for clip in clips]
    made = (_heading(work, clips, rows[0]) | {"transcriptions": entries} | _about(work, rows, warm_up)
            | rates(entries, nonsense) | _measured(work, rows[0]) | {"batches": rows})
    if single:
        made |= {key: entries[0][key] for key in ("text", "inference_time", "audio_duration", "rtf", "timestamps")}
    return made


def _heading(work: Workload, clips: Sequence[Clip], first: dict) -> dict:
    """The keys of the energy-profiling document."""
    engine = work.engine
    memory = engine.gpu_memory_bytes
    return {"model": work.model, "device": engine.device, "torch_dtype": engine.dtype and f"torch.{engine.dtype}",
            **({} if engine.dtype else {"torch_dtype_reason": NO_DTYPE}),
            "total_samples": sum(not clip.error for clip in clips),
            "total_audio_duration": first["total_audio_duration"],
            "total_inference_time": first["inference_time_s"]["mean"], "average_rtf": first["average_rtf"],
            "benchmark_time": first["energy"]["duration_s"], "model_parameters": work.parameters,
            "gpu_memory_used": memory and memory / 1024**3,
            **({"gpu_memory_reason": NO_GPU} if memory is None else {})}


def _about(work: Workload, rows: list[dict], warm_up: int) -> dict:
    """What was run, and where."""
    engine, checkpoint = work.engine, work.engine.checkpoint
    return {"schema": SCHEMA, "machine": machine.card(engine.threads), "task": work.task,
            "failed_samples": max(one["failed_samples"] for one in rows),
            "checkpoint": {"name": checkpoint.name, "revision": checkpoint.revision,
                           "random_weights": checkpoint.random_weights},
            "backend": engine.backend, "precision": engine.precision, "seed": work.seed, "warm_up": warm_up,
            "tokens_fixed_per_window": engine.tokens}


SAME = ("repeats", "batch_size", "energy", "tokens", "time_to_first_token_s", "inference_time_s",
        "throughput_audio_s_per_s", "tokens_per_s", "operations", "operations_reason", "operations_per_second",
        "cpu_time_s", "other_cpu_share")


def _measured(work: Workload, first: dict) -> dict:
    """What was measured at the first batch size."""
    peak = first["peak_gpu_bytes"] if work.engine.device == "cuda" else first["peak_rss_bytes"]
    return {key: first[key] for key in SAME if key in first} | {
        "phases_s": {"load": work.load_s, **first["phases_s"]}, "peak_memory_bytes": peak,
        "memory_per_parameter_bytes": peak / work.parameters}


# A batch size ---------------------------------------------------------------------------------------------------------

def row(window: Window, energy: dict) -> dict:
    """One batch size; energy: its entry, see joules.entry."""
    repeats, tallies, audio_s = len(window.repeats), window.tallies, window.audio_s
    seconds = mean_interval([repeat.seconds for repeat in window.repeats] if tallies else [])
    failed = [clip.error for clip in window.clips if clip.error]
    first_tokens = [tally.first_token_s for tally in tallies if tally.first_token_s is not None]
    return {
        "batch_size": window.size, "failed_samples": len(failed), "error": failed[0] if failed else None,
        "repeats": repeats, "total_audio_duration": audio_s, "inference_time_s": seconds,
        "average_rtf": _ratio(seconds["mean"], audio_s), "throughput_audio_s_per_s": _ratio(audio_s, seconds["mean"]),
        "time_to_first_token_s": mean_interval(first_tokens), "phases_s": phases(tallies, repeats),
        **_counts(tallies, repeats, seconds["mean"]), **window.usage, "energy": energy}


def _counts(tallies: list[Tally], repeats: int, mean_s: float | None) -> dict:
    """Tokens, windows and operations of one repeat, and how many a second."""
    tokens, windows, calls = (sum(getattr(tally, name) for tally in tallies) for name in ("tokens", "windows", "calls"))
    counted = [tally.operations for tally in tallies]
    operations = None if None in counted or not repeats else sum(counted) / repeats
    return {"tokens": tokens // repeats if repeats else None,
            "tokens_per_s": _ratio(_ratio(tokens, repeats), mean_s),
            "windows": windows // repeats if repeats else None, "windows_per_encoder_call": _ratio(windows, calls),
            "operations": None if operations is None else int(operations),
            "operations_per_second": _ratio(operations, mean_s),
            **({"operations_reason": "they are counted for Whisper only"} if None in counted else {})}


def phases(tallies: list[Tally], repeats: int) -> dict[str, float]:
    """Mean seconds of each phase in one repeat."""
    names = dict.fromkeys(name for tally in tallies for name in tally.phases_s)
    return {name: sum(tally.phases_s.get(name, 0.0) for tally in tallies) / repeats for name in names}


def _ratio(a: float | None, b: float | None) -> float | None:
    """None where either is unknown or there is nothing to divide by."""
    return a / b if a is not None and b else None


def second_opinions(also: dict[str, tuple[float | None, str | None]], checks: dict[str, dict]) -> dict:
    """Keys of the entry `energy`: what other meters (J, or None and why) and other tools saw of the same window."""
    return {"also": {name: {"energy_j": joules, "reason": why} for name, (joules, why) in also.items()},
            "cross_checks": checks}


# What was said --------------------------------------------------------------------------------------------------------

def transcription(clip: Clip, nonsense: bool) -> dict:
    """One entry of `transcriptions`; the original's keys first. nonsense: the text means nothing, it is not judged."""
    sample = clip.sample
    known = clip.error is None and bool(clip.seconds)
    errors = word_errors(sample.reference, clip.text, sample.language) if known and sample.reference and not nonsense \
        else None
    mean = statistics.fmean(clip.seconds) if known else None
    return {
        "text": clip.text if known else None, "inference_time": mean, "audio_duration": clip.duration,
        "rtf": _ratio(mean, clip.duration), "timestamps": clip.words if known else None,
        "sample": sample.name, "class": sample.kind, "source": sample.source, "speech": sample.speech,
        "language": sample.language, "reference": sample.reference,
        "inference_time_s": mean_interval(clip.seconds), "wer": errors and errors.wer, "cer": errors and errors.cer,
        "word_errors": errors and errors.substitutions + errors.insertions + errors.deletions,
        "reference_words": errors and errors.reference_words,
        "reference_characters": errors and errors.reference_characters, "normalizer": errors and errors.normalizer,
        "error": clip.error,
        **({} if clip.speakers is None else {"speakers": clip.speakers})}


def rates(entries: list[dict], nonsense: bool) -> dict:
    """Pooled `wer` and `cer`: errors of all samples over words (characters) of all samples; or None and why."""
    scored = [one for one in entries if one["wer"] is not None and one["reference_words"]]
    if not scored:
        why = "random weights or --tokens: the texts mean nothing" if nonsense else \
            "no sample with a known text was transcribed"
        return {"wer": None, "cer": None, "wer_reason": why}
    words = sum(one["reference_words"] for one in scored)
    characters = sum(one["reference_characters"] for one in scored)
    wrong = sum(one["cer"] * one["reference_characters"] for one in scored)
    return {"wer": sum(one["word_errors"] for one in scored) / words, "cer": wrong / characters,
            "reference_words": words}
