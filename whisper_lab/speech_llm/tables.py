"""What 07 has counted and followed, as tables in the terminal."""

from whisper_lab import console


def show_parameters(counts: dict[str, dict]) -> None:
    """Component -> role, parameters, trained: step 3."""
    total = sum(count["parameters"] for count in counts.values())
    trained = sum(count["trained"] for count in counts.values())
    rows = [[f"{name} ({count['role']})", f"{count['parameters']:,}", f"{count['parameters'] - count['trained']:,}",
             f"{count['trained']:,}"] for name, count in counts.items()]
    rows.append(["all", f"{total:,}", f"{total - trained:,}", f"{trained:,}"])
    console.result()
    console.table("PART 3: parameters", ["component", "total", "frozen", "trained"], rows)
    console.result(f"  {100 * trained / total:.2g} % of the parameters are trained: only the Translator is.")


def show_shapes(stages: list[dict], seconds: float) -> None:
    """Rows with stage, shape and what it is, of a clip of so many seconds: step 4."""
    rows = [[s["stage"], " x ".join(f"{n:,}" for n in s["shape"]), s["what"]] for s in stages]
    console.result()
    console.table(f"PART 4: a clip of {seconds:g} s at every stage", ["stage", "shape", "what it is"], rows)


def show_changes(changed: dict[str, list]) -> None:
    """What a swap changes -> [before, after]: step 5."""
    rows = [[name, *(f"{v:,}" if isinstance(v, int) else v for v in pair)] for name, pair in changed.items()]
    console.result()
    console.table("PART 5: what the swap changes", ["", "before", "after"], rows)
