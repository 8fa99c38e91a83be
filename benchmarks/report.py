"""results.json -> RESULTS.md and results.png: speech (speech_report.py), token for token, goals, how far the floor is.

    python benchmarks/report.py          # writes both again from results.json
"""

import json
import statistics
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import floors  # noqa: E402
import idle  # noqa: E402
import speech_report  # noqa: E402

from whisper_lab import console, files, machine  # noqa: E402

MEGA, GIGA = 1e6, 1e9


def summary(row: dict) -> dict | None:
    """Medians over processes of the medians over their warm repeats; `spread` is the range of the sum. None: no run."""
    if not row["runs"]:
        return None
    encode, step, total, mel = [], [], [], []
    for run in row["runs"]:
        warm = run["warm"]
        middle = {key: statistics.median(repeat[key] for repeat in warm) for key in warm[0]}
        encode.append(middle["encode_s"])
        step.append(middle["decode_s"] / middle["steps"] * 1000)
        total.append(statistics.median(repeat["encode_s"] + repeat["decode_s"] for repeat in warm))
        mel.append(middle["mel_s"])
    median = statistics.median
    return {"mel_s": median(mel), "encode_s": median(encode), "ms_per_token": median(step), "sum_s": median(total),
            "spread_s": (min(total), max(total)), "cold_s": median(run["cold_s"] for run in row["runs"]),
            "peak_rss_bytes": median(run["peak_rss_bytes"] for run in row["runs"]), "tokens": row["runs"][0]["tokens"]}


def markdown(document: dict) -> str:
    """The whole of RESULTS.md."""
    found = {row["name"]: summary(row) for row in document["peers"]}
    settings, random = document["settings"], document["model"]["random_weights"]
    lines = [
        "# This lab beside its peers", "", *speech_report.section(document), "## One window, token for token", "",
        f"{document['model']['name']}{' (random weights: the text means nothing)' if random else ''}, "
        f"30 s of speech, {settings['tokens']} greedy tokens after a prompt of four, {settings['threads']} threads. "
        f"{console.count(settings['rounds'], 'round')} of fresh processes in turn, in each one cold and "
        f"{settings['repeats']} warm transcripts; medians. All made by `make benchmark` in "
        f"{document['duration_s'] / 60:.0f} minutes.", "",
        machine.one_line(document["machine"]) + f"; load before the start {document['load_before']}"
        + (f", other processes took {others:.2f} cores" if (others := document.get("others_cores")) else "")
        + idle.in_words(document) + ".", "",
        *table(document["peers"], found, bool(document.get("opened_before"))), "", *agreement(found, random), "",
        "### Goals", "",
        "Set before anything was measured here, from a trial on two cores of a Xeon with AVX512-VNNI and AMX.",
        "", *goals(found, document["graph_bytes"]), "",
        "### Floors", "", *floor_table(document, found), ""]
    return "\n".join(lines)


def table(rows: list[dict], found: dict, opened_before: bool = False) -> list[str]:
    """One line for each peer; one that could not be measured says why. opened_before: this lab's graphs were."""
    lines = ["| | log-mel s | encoder s | ms a token | encoder + tokens s | its range | cold start s | peak RSS MB |",
             "|---|---|---|---|---|---|---|---|"]
    notes, most = [], max((len(row["runs"]) for row in rows), default=0)
    for row in rows:
        if "tokens" in row.get("cannot", ()):
            continue  # has its place among those that hear speech alone
        if (one := found[row["name"]]) is None:
            lines.append(f"| {row['name']} | not measured: {row['reason']} |" + " |" * 6)
            continue
        low, high = one["spread_s"]
        fewer = f" ({count} round)" if (count := len(row["runs"])) == 1 < most else ""
        lines.append(f"| {row['name']}{fewer} | {one['mel_s']:.3f} | {one['encode_s']:.3f} | "
                     f"{one['ms_per_token']:.2f} | {one['sum_s']:.3f} | {low:.3f}-{high:.3f} | {one['cold_s']:.2f} | "
                     f"{one['peak_rss_bytes'] / MEGA:.0f} |")
        notes += [f"- {row['name']}: {text}" for text in (row["note"], row["reason"]) if text]
    return [*lines, "", "Cold start: from the start of the process to the end of its first transcript. Peak RSS: after "
            "it." + speech_report.OPENED_BEFORE * opened_before, *(["", *notes] if notes else [])]


def agreement(found: dict, random: bool) -> list[str]:
    """Do the peers write the tokens that transformers writes in float32? Then they did the same work."""
    if not (reference := found.get("transformers fp32")):
        return []
    same = []
    for name, one in found.items():
        if one and name != "transformers fp32" and "beam" not in name:
            pairs = list(zip(one["tokens"], reference["tokens"], strict=False))
            first = next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))
            same.append(f"{name} {first}")
    return [f"Tokens equal to those of transformers fp32 before the first that differs, of {len(reference['tokens'])} "
            + ("(with random weights the first near tie decides, so this tells for float32 alone)" if random
               else "(the end token is forbidden: after the speech comes what the model would never write)")
            + ": " + ", ".join(same) + "."]


def goals(found: dict, sizes: dict[str, int]) -> list[str]:
    """The goals that the design set before anything was measured, each with what came out."""
    lines = ["| goal | wanted | measured | |", "|---|---|---|---|"]
    for text, wanted, value, at_least in [*_speed(found), *_sizes(sizes)]:
        if value is None:
            lines.append(f"| {text} | {wanted} | not measured | |")
            continue
        met = value >= wanted if at_least else value <= wanted
        off = "" if met else f" by {abs(value / wanted - 1):.0%}"
        lines.append(f"| {text} | {'at least' if at_least else 'at most'} {wanted:g} | {value:.3g} | "
                     f"{'met' if met else 'missed'}{off} |")
    return lines


def _speed(found: dict) -> list[tuple]:
    def value(peer: str, key: str) -> float | None:
        return found[peer][key] if found.get(peer) else None

    def ratio(over: str, under: str, key: str) -> float | None:
        top, bottom = value(over, key), value(under, key)
        return None if top is None or bottom is None else top / bottom

    def megabytes(peer: str) -> float | None:
        return None if (bytes_ := value(peer, "peak_rss_bytes")) is None else bytes_ / MEGA

    ct2, torch, int8, fast = "faster-whisper int8", "transformers fp32", "this lab int8", "this lab int8 optimized"
    return [
        ("int8 faster than faster-whisper int8, times", 2.7, ratio(ct2, int8, "sum_s"), True),
        ("int8 optimized faster than faster-whisper int8, times", 3.5, ratio(ct2, fast, "sum_s"), True),
        ("int8 optimized faster than transformers fp32, times", 4.5, ratio(torch, fast, "sum_s"), True),
        ("fp32 faster than transformers fp32, times", 1.5, ratio(torch, "this lab fp32", "sum_s"), True),
        ("fp16 over fp32, time", 1.0, ratio("this lab fp16", "this lab fp32", "sum_s"), False),
        ("int8 beam 5 over greedy, time per step", 2.2, ratio(f"{int8}, beam 5", int8, "ms_per_token"), False),
        ("int8 cold start over faster-whisper int8's", 0.5, ratio(int8, ct2, "cold_s"), False),
        ("int8 optimized cold start over faster-whisper int8's", 0.5, ratio(fast, ct2, "cold_s"), False),
        ("int8 peak RSS, MB", 270, megabytes(int8), False),
        ("int8 optimized peak RSS, MB", 270, megabytes(fast), False)]


def _sizes(sizes: dict[str, int]) -> list[tuple]:
    # The goals have two decimals: a file of 0.501 has met 0.50; the names of the nodes do not shrink.
    return [(f"{part} {precision} over fp32, bytes", limit, round(sizes[f"{part}_{precision}"] / sizes[part], 2), False)
            for precision, limit in (("fp16", 0.50), ("int8", 0.26)) for part in ("encoder", "decoder")
            if f"{part}_{precision}" in sizes and part in sizes]


def floor_table(document: dict, found: dict) -> list[str]:
    """The least time that bytes over bandwidth and operations over peak allow, beside what was measured."""
    limits, config, sizes = document["limits"], document["model"]["config"], document["graph_bytes"]
    fast, slow = floors.read_speeds(limits)
    lines = [f"Measured peaks: float32 {limits['float32_flops'] / GIGA:.0f} GFLOP/s, bfloat16 "
             f"{limits['bfloat16_flops'] / GIGA:.0f} GFLOP/s, int8 {limits['int8_ops'] / GIGA:.0f} GOP/s; reading "
             f"{fast / GIGA:.0f} GB/s where it fits the cache, {slow / GIGA:.0f} GB/s from memory.", "",
             "| | MB a token | floor ms a token | measured | floor encoder s | measured | floor sum s | measured | "
             "faster-whisper int8 over that floor |", "|---|---|---|---|---|---|---|---|---|"]
    beaten = []
    for precision in ("fp32", "fp16", "int8", "int4", "int8 optimized"):
        one = found.get(f"this lab {precision}")
        key = "decoder" if precision == "fp32" else f"decoder_{precision.replace(' ', '_')}"
        if not one or key not in sizes:
            continue
        # fp16 is widened to float32 when it is loaded: it reads what fp32 reads.
        read = (sizes["decoder"] if precision in ("fp32", "fp16") else sizes[key])
        read += floors.cross_bytes(document, precision)
        encoder = floors.encoder_floor(config, limits, precision)
        beaten += [precision] if one["encode_s"] < encoder else []
        quick, late = sorted((read / fast, read / slow))  # the cache can be the slower one: neighbors use it, too
        least, most = (encoder + document["settings"]["tokens"] * seconds for seconds in (quick, late))
        peer = found.get("faster-whisper int8")
        over = f"{peer['sum_s'] / most:.2f}-{peer['sum_s'] / least:.2f}" if peer else "not measured"
        lines.append(f"| {precision} | {read / MEGA:.1f} | {quick * 1000:.2f}-{late * 1000:.2f} | "
                     f"{one['ms_per_token']:.2f} | {encoder:.3f} | {one['encode_s']:.3f} | {least:.2f}-{most:.2f} | "
                     f"{one['sum_s']:.3f} | {over} |")
    return [*lines, "", "A decoder step reads its weights and the cross cache once. The encoder's linear layers run at "
            "the int8 peak in int8 and at the float32 peak otherwise; attention and convolutions are float32 always, "
            "but for the second convolution of the optimized pair. "
            "The last column is the most that the goals over faster-whisper could come to here. A cold start takes the "
            "sum as well, and the time to start Python and to read the graphs.",
            *(["", f"The encoder is faster here than its floor ({', '.join(beaten)}): the measured peaks "
               "are not the highest that this machine reaches, so these floors are too high."] if beaten else []),
            *long_floor(document)]


def long_floor(document: dict) -> list[str]:
    """The same for the long recording."""
    said = []
    for precision in floors.AT_ONCE:
        if not (ends := floors.long_floor(document, precision)):
            return []
        least, most = ends
        peers = [f"{peer} {seconds / most:.1f}-{seconds / least:.1f}"
                 for peer in ("faster-whisper int8", "OpenVINO GenAI int8")
                 if (seconds := speech_report.median(document, peer, "long"))]
        said.append(f"{precision} {least:.1f}-{most:.1f} s" + f" ({', '.join(peers)} times that)" * bool(peers))
    work, config = document["speech"]["works"]["long"], document["model"]["config"]
    piece = floors.PIECE * config["max_source_positions"] / floors.POSITIONS_PER_S
    at_once = " and ".join(map(str, floors.AT_ONCE.values()))
    return ["", f"The long recording's floor, each of its {work['seconds']:.0f} s heard once in pieces of "
            f"{piece:.0f} s, {at_once} decoded at once, and a token for each of its {work['words']} words: "
            f"{'; '.join(said)}. With pieces of that length a goal over a peer cannot come to more."]


def write(document: dict, folder: Path) -> None:
    """RESULTS.md, and results.png where speech was measured."""
    files.write_text(folder / "RESULTS.md", markdown(document))
    speech_report.picture(document, folder / "results.png")


if __name__ == "__main__":
    write(json.loads((HERE / "results.json").read_text(encoding="utf-8")), HERE)
