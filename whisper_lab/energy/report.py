"""From folders of results to what is shown: tables on stdout, energy_analysis.json, .md, .html and figures/."""

from pathlib import Path

from whisper_lab import console, files, machine
from whisper_lab.console import LabError
from whisper_lab.energy import analysis, analysis_figures, analysis_text, loading

NAME = "energy_analysis"


def publish(folders: list[Path], target: Path, threshold_percent: float = 5.0, time_limit_s: float | None = None,
            drop_first: bool = False, output_json: str | None = None) -> dict:
    """Analyze folders, show it, write it into `target`; returns the document."""
    from whisper_lab.compare import render

    experiments = [loading.load(folder) for folder in folders]
    for folder, one in zip(folders, experiments, strict=True):
        if not one["runs"]:
            raise LabError(f"{folder} holds no run whose file names are known",
                           "A100_freq_510_run_01_profile.csv or run_01_freq_510_profile.csv would be one")
    made = analysis.analyze(experiments, threshold_percent, time_limit_s, drop_first)
    for number, group in enumerate(made["groups"], 1):
        group["number"] = number
    parts = analysis_text.sections(made)
    show(parts, made)
    files.write_json(target / f"{NAME}.json", made)
    if output_json:
        files.write_json(output_json, made)
    pictures = analysis_figures.draw(made, experiments, folders, target / "figures")
    machines = ", ".join(dict.fromkeys(one["machine"] for one in made["folders"]))
    title, under = "Energy and time", f"{machines}; analyzed with Python {machine.card()['python']}"
    files.write_text(target / f"{NAME}.md", _beside(render.markdown(title, under, parts, pictures), pictures))
    page = files.write_text(target / f"{NAME}.html", render.html(title, under, parts, pictures))
    console.note("report", page, f"beside it .json, .md and {len(pictures)} figures")
    return made


def _beside(text: str, pictures: dict[str, Path]) -> str:
    for path in pictures.values():  # the Markdown lies one folder above its pictures
        text = text.replace(f"]({path.name})", f"](figures/{path.name})")
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
            console.warn(f"{one['name']} holds no successful run to analyze")
    for part in parts:
        for table in part.tables:
            console.table(table.title, table.columns, table.rows)
        for note in part.notes if part.title != "Completeness" else []:
            console.result(note)
