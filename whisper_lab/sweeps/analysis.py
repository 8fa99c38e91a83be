"""What runs say together: energy x delay, the best clock under a limit, and one factor against another.

EDP = E t (J s) weighs energy and time alike, ED2P = E t^2 (J s^2) weighs time more: Horowitz, Indermaur, Gonzalez,
"Low-power digital design" (1994), Martin et al. "ET^2" (2001). All are per run; means and intervals come after.
"""

from whisper_lab.sweeps.results import spread

SCHEMA = "whisper-onnx-lab/energy-analysis/1"
GROUP = ("machine", "app", "model", "precision", "backend", "batch", "device")
PRECISIONS = ["float32", "fp32", "bfloat16", "float16", "fp16", "int8", "int8_optimized", "int4"]  # wide to narrow
FACTORS = {"model": "model size", "precision": "precision", "batch": "batch size", "machine": "machine",
           "app": "workload"}


def analyze(experiments: list[dict], threshold_percent: float, time_limit_s: float | None,
            drop_first: bool = False) -> dict:
    """The whole analysis, ready for JSON; `experiments` as `results.read_folder` gives them."""
    runs = [run for one in experiments for run in one["runs"] if run["status"] == "success"]
    if drop_first:
        runs = [run for run in runs if run["run"] > 1]
    keys = list(dict.fromkeys(tuple(run[name] for name in GROUP) for run in runs))
    groups = [group(key, [run for run in runs if tuple(run[name] for name in GROUP) == key], threshold_percent,
                    time_limit_s) for key in keys]
    name_groups(groups)
    return {"schema": SCHEMA, "limit": {"threshold_percent": threshold_percent, "time_limit_s": time_limit_s},
            "folders": [{name: one[name] for name in ("name", "machine", "expected", "missing", "problems")}
                        | {"succeeded": len({run["run_id"] for run in one["runs"] if run["status"] == "success"})}
                        for one in experiments],
            "groups": groups, "comparisons": comparisons(groups)}


def group(key: tuple, runs: list[dict], threshold_percent: float, time_limit_s: float | None) -> dict:
    """Runs that differ in clock only: one row a clock, the best clocks, and what kind of work it is."""
    freqs = sorted({run["freq"] for run in runs}, key=lambda freq: freq or 0)
    rows = [row(freq, [run for run in runs if run["freq"] == freq]) for freq in freqs]
    return {**dict(zip(GROUP, key, strict=True)), "parameters": _first(runs, "parameters"), "clocks": rows,
            "methods": sorted({run["method"] or "unknown" for run in runs if run["energy_j"] is not None}),
            "energy_reason": _first([run for run in runs if run["energy_j"] is None], "reason"),
            "optimum": optimum(rows, threshold_percent, time_limit_s), "warnings": implausible(rows),
            "work": work(runs)}


def row(freq: int | None, runs: list[dict]) -> dict:
    """One clock: spreads of time, energy, power, real-time factor, EDP and ED2P over its runs."""
    told = [run["throttled"] for run in runs if run["throttled"] is not None]
    made = {"freq_mhz": freq, "runs": len(runs), "throttled": sum(told) if told else None}
    for name in ("time_s", "energy_j", "net_energy_j", "power_w", "idle_w", "rtf", "clock_mhz", "inference_s", "wer"):
        made[name] = spread([run[name] for run in runs])
    made["edp_js"] = spread([_product(run, 1) for run in runs])
    made["ed2p_js2"] = spread([_product(run, 2) for run in runs])
    made["j_per_audio_s"] = spread([_ratio(run["energy_j"], run["audio_s"]) for run in runs])
    made["j_per_token"] = spread([_ratio(run["energy_j"], run["tokens"]) for run in runs])
    return made


def _product(run: dict, power: int) -> float | None:
    known = run["energy_j"] is not None and run["time_s"] is not None
    return run["energy_j"] * run["time_s"] ** power if known else None


def _ratio(value: float | None, by: float | None) -> float | None:
    return value / by if value is not None and by else None


def _first(runs: list[dict], name: str):
    return next((run[name] for run in runs if run[name] is not None), None)


# The best clock ------------------------------------------------------------------------------------------------------

def optimum(rows: list[dict], threshold_percent: float, time_limit_s: float | None) -> dict:
    """Which clock is fastest, which needs least energy, and which has the least EDP and ED2P within the time limit.

    The limit is `time_limit_s`, else the fastest clock's time plus the threshold. Savings are against the highest
    clock. Everything that needs joules is None, with `reason`, where there are none.
    """
    timed = [one for one in rows if one["time_s"]["mean"]]  # neither unknown nor 0, which has no ratio
    made = {"fastest_mhz": None, "least_energy": None, "limit_s": None, "edp": None, "ed2p": None, "reason": None}
    if not timed:
        return made | {"reason": "no run has a time"}
    fastest = min(timed, key=lambda one: one["time_s"]["mean"])
    limit = time_limit_s or fastest["time_s"]["mean"] * (1 + threshold_percent / 100)
    made |= {"fastest_mhz": fastest["freq_mhz"], "limit_s": limit}
    powered = [one for one in timed if one["edp_js"]["mean"]]
    if not powered:
        return made | {"reason": "they are products of energy and time, and no energy was measured"}
    least = min(powered, key=lambda one: one["energy_j"]["mean"])
    made["least_energy"] = {"freq_mhz": least["freq_mhz"], "energy_j": least["energy_j"]["mean"],
                            "time_s": least["time_s"]["mean"]}
    within = [one for one in powered if one["time_s"]["mean"] <= limit]
    if not within:
        return made | {"reason": f"no clock finishes within {limit:.3g} s"}
    highest = max(powered, key=lambda one: one["freq_mhz"] or 0)
    for name, column in (("edp", "edp_js"), ("ed2p", "ed2p_js2")):
        free = min(powered, key=lambda one: one[column]["mean"])["freq_mhz"]
        made[name] = _best(within, column, highest, fastest) | {"without_limit_mhz": free}
    return made


def _best(rows: list[dict], column: str, highest: dict, fastest: dict) -> dict:
    best = min(rows, key=lambda one: one[column]["mean"])
    overlapping = [one["freq_mhz"] for one in rows if one is not best and _overlap(one[column], best[column])]
    return {"freq_mhz": best["freq_mhz"], "value": best[column]["mean"], "energy_j": best["energy_j"]["mean"],
            "time_s": best["time_s"]["mean"],
            "energy_saving_percent": 100 * (1 - best["energy_j"]["mean"] / highest["energy_j"]["mean"]),
            "slower_than_highest_percent": 100 * (best["time_s"]["mean"] / highest["time_s"]["mean"] - 1),
            "slower_than_fastest_percent": 100 * (best["time_s"]["mean"] / fastest["time_s"]["mean"] - 1),
            "indistinguishable_mhz": overlapping}


def _overlap(one: dict, other: dict) -> bool:
    """Whether two 95 % intervals overlap; without intervals (two runs or one) nothing can be told apart."""
    if one["low"] is None or other["low"] is None:
        return True
    return one["low"] <= other["high"] and other["low"] <= one["high"]


def implausible(rows: list[dict]) -> list[str]:
    """A lower clock that is clearly faster than a higher one did not do the same work under the same conditions."""
    known = [one for one in rows if one["freq_mhz"] and one["time_s"]["low"] is not None]
    found = []
    for low, high in zip(known, known[1:], strict=False):
        if low["time_s"]["high"] < high["time_s"]["low"]:
            found.append(f"{low['freq_mhz']} MHz was faster than {high['freq_mhz']} MHz beyond chance: a lower clock "
                         "cannot be; look for throttling, another load, or different work")
    return found


# One factor against another ------------------------------------------------------------------------------------------

def name_groups(groups: list[dict]) -> None:
    """Give every group a `label` of what distinguishes it from the others; `_label` of all it is where alone."""
    varying = [name for name in GROUP if len({one[name] for one in groups}) > 1] or ["model", "precision"]
    for one in groups:
        one["label"] = ", ".join(f"batch {one[name]}" if name == "batch" else str(one[name]) for name in varying
                                 if one[name] is not None) or str(one["app"])


def comparisons(groups: list[dict]) -> dict[str, list[list[dict]]]:
    """factor -> lists of entries that differ in this factor and in nothing else, each at its highest clock."""
    made = {}
    for factor in FACTORS:
        others = [name for name in GROUP if name != factor and not (factor == "machine" and name == "device")
                  and not (factor == "app" and name in ("model", "precision", "backend", "batch"))]
        clusters: dict[tuple, list[dict]] = {}
        for one in groups:
            clusters.setdefault(tuple(one[name] for name in others), []).append(one)
        found = [entries(cluster, factor) for cluster in clusters.values()
                 if len({one[factor] for one in cluster}) > 1]
        if found:
            made[factor] = found
    return made


def entries(cluster: list[dict], factor: str) -> list[dict]:
    """One entry a group: small to large, precisions wide to narrow, or by name; with ratios to the first."""
    def order(one: dict):
        value = one["parameters"] if factor == "model" else one[factor]
        value = PRECISIONS.index(value) if factor == "precision" and value in PRECISIONS else value
        return (not isinstance(value, (int, float)), value if isinstance(value, (int, float)) else 0, str(one[factor]))

    made = []
    for one in sorted(cluster, key=order):
        top = max(one["clocks"], key=lambda clock: clock["freq_mhz"] or 0)
        made.append({"value": one[factor], "label": one["label"], "parameters": one["parameters"],
                     "methods": one["methods"], "freq_mhz": top["freq_mhz"], **{name: top[name] for name in
                     ("time_s", "rtf", "energy_j", "j_per_audio_s", "j_per_token", "power_w", "wer")}})
    for entry in made:
        for name in ("rtf", "time_s", "energy_j", "j_per_audio_s"):
            entry[f"{name}_ratio"] = _ratio(entry[name]["mean"], made[0][name]["mean"])
    return made


def work(runs: list[dict]) -> dict:
    """What kind of work it is: where the time goes, how much power it draws above idle, how much memory it takes."""
    phases: dict[str, float] = {}
    for run in runs:
        for name, seconds in run["phases"].items():
            if name != "load" and isinstance(seconds, (int, float)):  # loading is once, not in every pass
                phases[name] = phases.get(name, 0.0) + seconds
    total = sum(phases.values())
    memory, parameters = _first(runs, "memory_bytes"), _first(runs, "parameters")
    return {"phase_shares": {name: seconds / total for name, seconds in phases.items()} if total else None,
            "memory_bytes": memory, "gpu_memory_gb": _first(runs, "gpu_memory_gb"),
            "bytes_per_parameter": _ratio(memory, parameters),
            "power_w": spread([run["power_w"] for run in runs])["mean"],
            "idle_w": spread([run["idle_w"] for run in runs])["mean"],
            "tokens_per_audio_s": _ratio(_first(runs, "tokens"), _first(runs, "audio_s"))}
