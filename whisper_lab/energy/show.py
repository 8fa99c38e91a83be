"""What a run prints: the lines that the energy-profiling document's readers look for, then tables, then the joules."""

from whisper_lab import console, files, machine
from whisper_lab.energy import account

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
        for line in account.lines(document["energy"], document["cpu_time_s"], document["machine"]["cores"],
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
