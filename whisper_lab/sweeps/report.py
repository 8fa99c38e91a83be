"""An analysis in words, tables and files: tables on stdout, energy_analysis.json, .md, .html and figures/."""

from pathlib import Path

from whisper_lab import console, files, machine
from whisper_lab.console import LabError
from whisper_lab.pictures import Picture
from whisper_lab.report import Section, Table, html, markdown
from whisper_lab.sweeps import analysis, figures, results
from whisper_lab.sweeps.analysis import FACTORS

DASH = "-"


def number(value: float | None, digits: int = 3) -> str:
    """A value with significant digits; `-` for unknown."""
    if value is None:
        return DASH
    return f"{value:.0f}" if abs(value) >= 10 ** digits else f"{value:.{digits}g}"


def with_interval(spread: dict) -> str:
    """`12.3 ± 0.4`: the mean and half its 95 % interval; no ± for fewer than three runs."""
    if spread["mean"] is None:
        return DASH
    if spread["low"] is None:
        return number(spread["mean"])
    return f"{number(spread['mean'])} ± {number(spread['high'] - spread['mean'], 2)}"


def clock(mhz: int | None) -> str:
    """`960 MHz`, or `default clock`."""
    return "default clock" if mhz is None else f"{mhz} MHz"


def sections(made: dict) -> list[Section]:
    """The whole analysis; parts that have nothing to say are left out."""
    found = [_folders(made), *(_clocks(group) for group in made["groups"])]
    for factor, clusters in made["comparisons"].items():
        found.append(_comparison(factor, clusters))
    if made["groups"]:
        found += [_real_time(made["groups"]), _work(made["groups"])]
    return found


def _folders(made: dict) -> Section:
    rows = [[one["name"], one["machine"], one["succeeded"], one["expected"] or DASH, len(one["missing"])]
            for one in made["folders"]]
    notes = []
    for one in made["folders"]:
        if one["missing"]:
            notes.append(f"{one['name']} lacks {', '.join(one['missing'])}")
        notes += [f"{one['name']}: {problem}" for problem in one["problems"]]
    return Section("Completeness", "Runs that succeeded, against those that were planned.", notes,
                   tables=[Table("Runs", ["folder", "machine", "succeeded", "planned", "missing"], rows)])


# Clocks --------------------------------------------------------------------------------------------------------------

def _clocks(group: dict) -> Section:
    rows = [[one["freq_mhz"] or "default", number(one["clock_mhz"]["mean"], 4), one["runs"],
             with_interval(one["time_s"]), with_interval(one["rtf"]), with_interval(one["energy_j"]),
             with_interval(one["power_w"]), number(one["edp_js"]["mean"], 4), number(one["ed2p_js2"]["mean"], 4),
             number(one["throttled"])] for one in group["clocks"]]
    columns = ["clock MHz", "measured MHz", "runs", "time s", "RTF", "energy J", "power W", "EDP J s", "ED2P J s²",
               "throttled"]
    intro = "Time and energy of one pass over the samples; ± is half the 95 % interval of the mean over the runs, " \
            "which takes three of them."
    return Section(f"Clocks: {group['label']}", intro, answers(group), f"clocks-{group['number']}",
                   [Table(f"Clocks: {group['label']}", columns, rows)])


def answers(group: dict) -> list[str]:
    """Which clock for batch jobs, which for real time, which in general; and why some cannot be told."""
    best, rows = group["optimum"], {one["freq_mhz"]: one for one in group["clocks"]}
    several = len(rows) > 1
    said = [f"Energy by: {', '.join(group['methods'])}."] if group["methods"] else []
    if "estimate" in group["methods"]:
        said.append("An estimate is time multiplied by an assumed power: it can rank nothing that time does not.")
    if several and (least := best["least_energy"]):
        said.append(f"Batch jobs, where no one waits: {clock(least['freq_mhz'])} needs least energy, "
                    f"{number(least['energy_j'])} J in {number(least['time_s'])} s.")
    if best["limit_s"] is not None:
        said.append(_real_time_answer(best, rows, several))
    if best["edp"]:
        said += [_balance(name, best[name.lower()], best["limit_s"], several) for name in ("EDP", "ED2P")]
    if best["reason"]:
        why = f" ({group['energy_reason'].partition(';')[0]})" if group["energy_reason"] else ""
        said.append(f"No best clock by EDP or ED2P: {best['reason']}{why}.")
    if not several:
        said.append("One clock only: a sweep with --profiling-mode custom or dvfs compares clocks.")
    return said + group["warnings"]


def _real_time_answer(best: dict, rows: dict, several: bool) -> str:
    fastest = rows[best["fastest_mhz"]]
    rtf = fastest["rtf"]["mean"]
    streams = ""
    if rtf:
        enough = f"enough for {int(1 / rtf + 1e-9)} streams" if rtf < 1 else "slower than speech, no real time"
        streams = f"; RTF {number(rtf)}, {enough}"
    which = f"{clock(best['fastest_mhz'])} is fastest" if several else clock(best["fastest_mhz"])
    return f"Real time, where the delay counts: {which}, {number(fastest['time_s']['mean'])} s{streams}."


def _balance(name: str, best: dict, limit: float, several: bool) -> str:
    if not several:
        return f"{name} {number(best['value'], 4)} {'J s' if name == 'EDP' else 'J s²'} at {clock(best['freq_mhz'])}."
    alike = ", ".join(clock(mhz) for mhz in best["indistinguishable_mhz"])
    doubt = f"; the runs do not tell it apart from {alike}" if alike else ""
    if best["without_limit_mhz"] != best["freq_mhz"]:
        doubt += f"; without the limit {clock(best['without_limit_mhz'])}"
    return (f"Best balance by {name} within {number(limit)} s: {clock(best['freq_mhz'])}, "
            f"{best['energy_saving_percent']:.1f} % of the energy saved for "
            f"{best['slower_than_highest_percent']:+.1f} % time, against the highest clock{doubt}.")


# One factor against another ------------------------------------------------------------------------------------------

def _comparison(factor: str, clusters: list[list[dict]]) -> Section:
    title = f"{FACTORS[factor].capitalize()} against energy"
    tables, notes = [], []
    for cluster in clusters:
        clocks = [[clock(entry["freq_mhz"])] for entry in cluster]
        differ = len({one for one, in clocks}) > 1  # else the column would say nothing
        columns = [FACTORS[factor], "parameters", *["clock"] * differ, "RTF", "RTF, first = 1", "J per s of sound",
                   "J, first = 1", "J per token", "power W", "WER"]
        rows = [[entry["value"], number(entry["parameters"], 9), *mhz * differ,
                 with_interval(entry["rtf"]), number(entry["rtf_ratio"]),
                 with_interval(entry["j_per_audio_s"]), number(entry["j_per_audio_s_ratio"]),
                 number(entry["j_per_token"]["mean"]), with_interval(entry["power_w"]),
                 number(entry["wer"]["mean"])] for entry, mhz in zip(cluster, clocks, strict=True)]
        tables.append(Table(title, columns, rows))
        if any(entry["energy_j"]["mean"] is None for entry in cluster):
            notes.append("Where energy is unknown the real-time factor compares, not the joules.")
    return Section(title, "Everything else is the same; ratios are to the first row; each at its highest clock.",
                   notes, f"factor-{factor}", tables)


def _real_time(groups: list[dict]) -> Section:
    rows = [[group["label"], clock(one["freq_mhz"]), with_interval(one["rtf"]),
             "yes" if (one["rtf"]["mean"] or 9) < 1 else "no", with_interval(one["j_per_audio_s"]),
             with_interval(one["power_w"])]
            for group in groups for one in group["clocks"] if one["rtf"]["mean"] is not None]
    return Section("Real-time factor against energy", "Below 1, a second of audio takes less than a second.", [],
                   "real-time", [Table("Real-time factor against energy", ["configuration", "clock", "RTF",
                                       "real time", "J per s of sound", "power W"], rows)])


def _work(groups: list[dict]) -> Section:
    names = list(dict.fromkeys(name for group in groups for name in group["work"]["phase_shares"] or {}))
    rows = []
    for group in groups:
        kind = group["work"]
        shares = kind["phase_shares"] or {}
        memory = kind["memory_bytes"]
        rows.append([group["label"], *(f"{100 * shares[name]:.0f} %" if name in shares else DASH for name in names),
                     number(kind["tokens_per_audio_s"]), number(None if memory is None else memory / 2**20, 4),
                     number(kind["bytes_per_parameter"]), number(kind["gpu_memory_gb"]), number(kind["power_w"]),
                     number(kind["idle_w"])])
    intro = ("Encoding is one dense pass over the sound, as in image models, bound by arithmetic; decoding reads all "
             "weights and caches once a token, as text generation does, bound by memory.")
    columns = ["configuration", *names, "tokens per s of sound", "memory MiB", "bytes a parameter", "GPU memory GB",
               "power W", "idle W"]
    return Section("Workload and memory", intro, [], None, [Table("Workload and memory", columns, rows)])


# What is written ------------------------------------------------------------------------------------------------------

NAME = "energy_analysis"


def publish(folders: list[Path], target: Path, threshold_percent: float = 5.0, time_limit_s: float | None = None,
            drop_first: bool = False, output_json: str | None = None) -> dict:
    """Analyze folders, show it, write it into `target`; returns the document."""
    experiments = [results.read_folder(folder) for folder in folders]
    for folder, one in zip(folders, experiments, strict=True):
        if not one["runs"]:
            raise LabError(f"{folder} contains no run whose file names are known",
                           "make some: python 06-profile-energy.py sweep --help (A100_freq_510_run_01_profile.csv or "
                           "run_01_freq_510_profile.csv would be one)")
    made = analysis.analyze(experiments, threshold_percent, time_limit_s, drop_first)
    for number, group in enumerate(made["groups"], 1):
        group["number"] = number
    parts = sections(made)
    show(parts, made)
    files.write_json(target / f"{NAME}.json", made)
    if output_json:
        files.write_json(output_json, made)
    pictures = figures.draw(made, experiments, folders, target / "figures")
    machines = ", ".join(dict.fromkeys(one["machine"] for one in made["folders"]))
    title, under = "Energy and time", f"{machines}; analyzed with Python {machine.card()['python']}"
    files.write_text(target / f"{NAME}.md", _beside(markdown(title, under, parts, pictures), pictures))
    answered = 1 + len(made["groups"])  # completeness, and the answers of each group
    page = files.write_text(target / f"{NAME}.html", html(title, under, parts, pictures, answered))
    console.note("report", page, f"beside it .json, .md and {len(pictures)} figures")
    return made


def _beside(text: str, pictures: dict[str, Picture]) -> str:
    for one in pictures.values():  # the Markdown lies one folder above its pictures
        text = text.replace(f"]({one.path.name})", f"](figures/{one.path.name})")
    return text


def show(parts: list, made: dict) -> None:
    """Tables and sentences on stdout; what is missing as a warning."""
    for one in made["folders"]:
        if one["missing"]:
            missing = console.count(len(one["missing"]), "run")
            console.warn(f"{one['name']} lacks {missing}: {', '.join(one['missing'])}")
        for problem in one["problems"]:
            console.warn(problem)
        if not one["succeeded"]:
            console.warn(f"{one['name']} contains no successful run to analyze")
    for part in parts:
        for table in part.tables:
            console.table(table.title, table.columns, table.rows)
        for note in part.notes if part.title != "Completeness" else []:
            console.sentence(note)
