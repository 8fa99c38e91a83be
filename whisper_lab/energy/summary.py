"""What a run prints: the lines that the original document's readers look for, then tables, then the joules."""

from whisper_lab import console, machine
from whisper_lab.energy.meters import TO_GET_JOULES
from whisper_lab.metrics import FEWEST_FOR_INTERVAL

WIDTH = 50
CROWDED = 0.1  # share of the processor that others may take before it has to be said
UNSTEADY = 0.1  # standard deviation over mean from which repeats are not repeats


def show(document: dict, quiet: bool) -> None:
    """Results on stdout; quiet: the one line of the time. A document of one recording has its text."""
    single, seconds = "text" in document, document["total_inference_time"]
    console.result(f"{'' if single else 'Total '}Inference Time: "
                   + ("unknown: no sample was transcribed" if seconds is None else f"{seconds:.2f}s"))
    warn_of_company(document)
    if quiet:
        return
    for line in _one(document) if single else _all(document):
        console.result(console.plain(line, one_line=True))
    if not single:
        show_samples(document["transcriptions"])
    console.table(f"one pass over all samples, mean of {document['repeats']} (95 % interval)", ["quantity", "value"],
                  quantities(document))
    if len(document["batches"]) > 1:
        show_batches(document["batches"])
    for line in [*energy_lines(document), *cross_checks(document["energy"]), machine.one_line(document["machine"])]:
        console.sentence(line)


def warn_of_company(document: dict) -> None:
    """Say where the times cannot be trusted: something else was busy on the machine."""
    time = document["inference_time_s"]
    if time["sd"] and time["sd"] > UNSTEADY * time["mean"]:
        console.warn(f"the repeats differ by {100 * time['sd'] / time['mean']:.0f} % (standard deviation): something "
                     "else was busy on this machine; measure again when it is idle, or with more --repeats")
    if document["other_cpu_share"] > CROWDED:
        console.warn(f"other programs took {100 * document['other_cpu_share']:.0f} % of the processor meanwhile: the "
                     "times are longer for it, and a meter counts them too")


HEADING = ["", "=" * WIDTH, "WHISPER ENERGY PROFILING SUMMARY", "=" * WIDTH]


def _one(document: dict) -> list[str]:
    """The block under the timing line, of one recording."""
    one = document["transcriptions"][0]
    return [*HEADING, f"Text: {one['text'] if one['error'] is None else 'failed: ' + one['error']}",
            f"Inference Time: {_number(one['inference_time'], '.2f', 's')}",
            f"Audio Duration: {one['audio_duration']:.2f}s", f"RTF: {_number(one['rtf'], '.3f')}",
            *([f"Speakers: {one['speakers']}"] if "speakers" in one else []),
            *([] if one["speech"] else ["Audio: generated tones, not speech: the text and the time mean nothing"]),
            *words(document)]


def _all(document: dict) -> list[str]:
    """The same of several."""
    failed, memory = document["failed_samples"], document["gpu_memory_used"]
    return [*HEADING, f"Model: {document['model']}", f"Device: {document['device']}",
            f"Samples Processed: {document['total_samples']}",
            *([f"Samples Failed: {failed}"] if failed else []),
            f"Total Audio Duration: {document['total_audio_duration']:.2f}s",
            f"Total Inference Time: {_number(document['total_inference_time'], '.2f', 's')}",
            f"Average RTF: {_number(document['average_rtf'], '.3f')}",
            f"Model Parameters: {document['model_parameters']:,}",
            *([f"GPU Memory Used: {memory:.2f} GB"] if memory else []), *words(document)]


def words(document: dict) -> list[str]:
    """With --timestamps, a line per word."""
    return [f"{word['timestamp'][0]:8.2f} {word['timestamp'][1]:8.2f}  {word['text']}"
            for one in document["transcriptions"] for word in one["timestamps"] or []]


def show_samples(entries: list[dict]) -> None:
    """A row for each sample."""
    told_apart = any("speakers" in one for one in entries)
    columns = ["sample", "kind", "s of sound", "time s", "RTF", "WER", *(["speakers"] if told_apart else [])]
    console.table("samples", columns, [
        [one["sample"], one["class"], f"{one['audio_duration']:.1f}",
         one["error"] or _number(one["inference_time"], ".3f"), _number(one["rtf"], ".3f"),
         _number(None if one["wer"] is None else 100 * one["wer"], ".1f", " %"),
         *([one.get("speakers", "unknown")] if told_apart else [])] for one in entries])


def show_batches(batches: list[dict]) -> None:
    """A row for each batch size."""
    columns = ["batch size", "windows per encoder call", "time s", "RTF", "s of sound per s", "tokens per s", "peak MB",
               "J per s of sound"]
    console.table("batch sizes", columns, [
        [one["batch_size"], _number(one["windows_per_encoder_call"], ".1f"),
         one["error"] or _number(one["inference_time_s"]["mean"], ".3f"), _number(one["average_rtf"], ".3f"),
         _number(one["throughput_audio_s_per_s"], ".1f"), _number(one["tokens_per_s"], ".0f"),
         f"{(one['peak_gpu_bytes'] or one['peak_rss_bytes']) / 1e6:.0f}",
         _number(one["energy"]["energy_per_audio_s_j"], ".3f")] for one in batches])


def quantities(document: dict) -> list[list[str]]:
    """Name and value of every quantity that is not in the block above."""
    operations = document["operations"]
    phases = [[f"  {name.replace('_', ' ')}", _number(seconds, ".3f", " s")]
              for name, seconds in document["phases_s"].items()]
    wer = "unknown: " + document["wer_reason"] if document["wer"] is None else \
        f"{100 * document['wer']:.1f} %, {100 * document['cer']:.1f} % " \
        f"({console.count(document['reference_words'], 'word')})"
    return [
        ["inference time", spread(document["inference_time_s"], "s")], *phases,
        ["time to first token", spread(document["time_to_first_token_s"], "s")],
        ["throughput", _number(document["throughput_audio_s_per_s"], ".1f", " s of sound a second")],
        ["tokens", "unknown" if document["tokens"] is None else
         f"{document['tokens']}, {_number(document['tokens_per_s'], '.0f')} a second"],
        ["operations", "unknown" if operations is None else
         f"{operations / 1e9:.2f} G, {document['operations_per_second'] / 1e9:.1f} G a second"],
        ["peak memory", f"{document['peak_memory_bytes'] / 1e6:.0f} MB, "
                        f"{document['memory_per_parameter_bytes']:.1f} bytes a parameter"],
        ["word and character error rate", wer]]


def spread(one: dict, unit: str) -> str:
    """`0.512 s (0.498 to 0.526)`; of too few values why there is no interval."""
    if one["mean"] is None:
        return "unknown"
    between = f"{one['low']:.3f} to {one['high']:.3f}" if one["low"] is not None else \
        f"no interval: {console.count(one['n'], 'value')}, it takes {FEWEST_FOR_INTERVAL}"
    return f"{one['mean']:.3f} {unit} ({between})"


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


# Joules ---------------------------------------------------------------------------------------------------------------

def energy_lines(document: dict) -> list[str]:
    """The joules with their source, per second of sound, per token, and net; or why there are none."""
    energy = document["energy"]
    if energy["energy_j"] is None:
        return _without_energy(document)
    label = "ESTIMATED, not measured" if energy["is_estimate"] else energy["method"]
    made = [f"Energy: {energy['energy_j']:.2f} J in {energy['duration_s']:.2f} s, {energy['average_power_w']:.2f} W "
            f"({label}: {energy['source']})"]
    if energy["is_estimate"]:
        low, high = energy["energy_low_j"], energy["energy_high_j"]
        made += [f"  between {low:.2f} and {high:.2f} J, if the assumption holds"] if high > low else []
    per_token = energy["energy_per_token_j"]
    made.append(f"  {energy['energy_per_audio_s_j']:.3f} J per second of sound"
                + ("" if per_token is None else f", {per_token:.4f} J per token"))
    if energy["net_energy_j"] is None:
        made.append(f"  net of idle: unknown ({energy['net_reason']})")
    else:
        made.append(f"  net of idle: {energy['net_energy_j']:.2f} J (idle {energy['idle_power_w']:.2f} W)")
    return made


def _without_energy(document: dict) -> list[str]:
    energy = document["energy"]
    if energy["source"] != "none":
        return [f"Energy: not measured - {energy['reason']}"]
    names = {"nvml": "NVML", "nvml-power": "NVML power", "rapl": "RAPL"}
    made = ["Energy: not measured - no energy counter on this machine"]
    made += [f"  {names.get(source, source)}: {why}" for source, why in energy["reasons"].items()]
    made.append(f"  Reported instead: CPU time {document['cpu_time_s']:.1f} s in all passes "
                f"({document['machine']['cores']} cores), RTF {_number(document['average_rtf'], '.3f')}, peak memory "
                f"{document['batches'][0]['peak_rss_bytes'] / 1e6:.0f} MB")
    made.append(f"  To get joules: {TO_GET_JOULES}")
    return made
