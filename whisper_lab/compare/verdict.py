"""The verdict: one sentence a precision, and who is beaten by whom."""

from whisper_lab import console
from whisper_lab.compare.texts import CLEAR, FEWEST_CHANGED, changes, sign_test
from whisper_lab.compare.variants import BASELINE


def sentence(name: str, entry: dict, random_weights: bool) -> str:
    """What a precision costs and gains against fp32; says where a difference is within noise."""
    parts = [f"{name}: {_size(entry)}"]
    if entry.get("speed"):
        parts.append(_speed(entry["speed"]))
    parts.append("the text means nothing (random weights)" if random_weights else _text(entry))
    parts.append(_numbers(entry["numbers"]))
    return "; ".join(part for part in parts if part) + "."


def _size(entry: dict) -> str:
    return f"{entry['size_ratio']:.2f} of the size of fp32 ({entry['size_bytes'] / 1e6:.1f} MB)"


def _speed(speed: dict) -> str:
    ratio, low, high = speed["speedup"], speed["speedup_min"], speed["speedup_max"]
    if speed["within_noise"]:
        return (f"its speed differs from fp32's within noise (between {low:.2f} and {high:.2f} times in "
                f"{console.count(speed['rounds'], 'round')})")
    what = "faster" if ratio >= 1 else "slower"
    if ratio < 1:
        ratio, low, high = 1 / ratio, 1 / high, 1 / low
    return f"{ratio:.2f} times {what} on one window ({low:.2f} to {high:.2f} in " \
           f"{console.count(speed['rounds'], 'round')})"


def _text(entry: dict) -> str:
    text, found = entry["text"], entry["text_difference"]
    kind = "reference" if text["reference"] else "pytorch"
    right = "the reference" if kind == "reference" else "PyTorch's text"
    wer = text[kind]["wer"]
    if wer is None:
        return "no words to compare"
    start = f"WER {100 * wer:.1f} % against {right}"
    more, fewer = found["errors_more"], found["errors_fewer"]
    if not more and not fewer:
        return f"{start}, the very errors of fp32" if wer else f"{start}, no error, like fp32"
    kept = "within noise" if found["within_noise"] else "a real difference"
    errors = console.count(more, "error")
    return (f"{start}: {errors} that fp32 does not make, {fewer} of fp32's avoided, {kept} "
            f"(p = {found['p_value']:.2g})")


def _numbers(numbers: dict) -> str:
    if numbers["nonfinite"]:
        return f"BROKEN: {numbers['nonfinite']} NaN or infinite values"
    noise = numbers["encoder_sqnr_db"]
    encoder = "the encoder's output is PyTorch's bit for bit" if noise is None else f"encoder output at {noise:.0f} dB"
    return f"{encoder}, {100 * numbers['top1_agreement']:.1f} % of {numbers['tokens']} tokens chosen as PyTorch does"


def points(document: dict) -> dict[str, dict]:
    """Each variant as a point in text, speed and size; only those of which all three are known.

    wer: a share; wer_noise: a difference below this proves nothing; alignments: of each clip; size_bytes; and of
    timing.against speedup, speedup_q1, speedup_q3, within_noise.
    """
    found = {}
    for name, entry in document["variants"].items():
        text, speed = entry["text"]["reference"] or entry["text"]["pytorch"], entry.get("speed")
        if text["wer"] is not None and speed and entry.get("size_bytes"):
            found[name] = {"wer": text["wer"], "wer_noise": FEWEST_CHANGED / text["reference_words"],
                           "alignments": text["alignments"],
                           "size_bytes": entry["size_bytes"],
                           **{key: speed[key] for key in ("speedup", "speedup_q1", "speedup_q3", "within_noise")}}
    return found


def dominated(found: dict[str, dict]) -> dict[str, str]:
    """name -> one that is worse in nothing and better in something; differences within noise count as none."""
    def signs(one: str, other: str) -> tuple[int, ...]:
        a, b = found[one], found[other]
        won, lost = changes(a["alignments"], b["alignments"])
        text = 0 if sign_test(won, lost) >= CLEAR else 1 if won > lost else -1
        speed = _faster(found, one, other)
        size = (a["size_bytes"] < 0.98 * b["size_bytes"]) - (b["size_bytes"] < 0.98 * a["size_bytes"])
        return text, speed, size

    beaten: dict[str, str] = {}
    for name in found:
        results = {other: signs(other, name) for other in found if other != name}
        better = {other: sum(one) for other, one in results.items() if min(one) >= 0 and max(one) > 0}
        if better:
            beaten[name] = max(better, key=better.get)
    return beaten


def _faster(found: dict[str, dict], one: str, other: str) -> int:
    """1, -1, or 0 within noise: fp32's own rounds say whether one differs from it, else the middle halves are apart."""
    if BASELINE in (one, other) and found[other if one == BASELINE else one]["within_noise"]:
        return 0
    a, b = found[one], found[other]
    return (a["speedup_q1"] > b["speedup_q3"]) - (a["speedup_q3"] < b["speedup_q1"])
