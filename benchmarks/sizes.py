"""Every published architecture through 03 and 08, with random weights: sizes on disk, peak memory, gates passed.

    python benchmarks/sizes.py                                    # all -> benchmarks/sizes.json
    python benchmarks/sizes.py --sizes large-v3 turbo --no-gates  # without the check against PyTorch

A size that is measured again replaces its row, so they may be done one by one. Peak memory is what each process says
of itself. Beside it stands how many times the float32 weights that is, which PyTorch has to hold once; what an export
of whisper-nano takes, nearly all of it programs, is left out of this.
"""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

from whisper_lab import console, files, flags, machine  # noqa: E402
from whisper_lab.console import LabError  # noqa: E402

SCHEMA = "whisper-onnx-lab/sizes/1"
SIZES = ("tiny", "base", "small", "medium", "large-v3", "turbo")


def run(command: list, folder: Path) -> None:
    """Run a Python program. Raises LabError where it fails."""
    done = subprocess.run([sys.executable, *map(str, command)], cwd=folder, stdout=subprocess.DEVNULL,
                          env=os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)})
    if done.returncode:
        raise LabError(f"status {done.returncode} from {' '.join(map(str, command))}", "its own error stands above")


def report_of(script: str, folder: Path, *options) -> dict:
    """Run one of the numbered scripts; its report."""
    run([ROOT / script, *options, "--json", "report.json", "--quiet"], folder)
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def measure(size: str, folder: Path, gates: bool) -> dict:
    """One row: the checkpoint made, exported in every precision, int8 checked, packed into one graph."""
    name = f"whisper-{size}-random"
    run(["-m", "training.make_random_checkpoint", "--size", size, "--output-dir", folder / name, "--quiet"], ROOT)
    export = "03-export-encoder-decoder.py", folder, "--output-dir", "graphs", "--model"
    convert = "--precision", "all", "--no-verify"
    row = {"size": size, "machine": machine.card(None), "parameters": _parameters(folder / name / "model.safetensors")}
    row["nano_peak_bytes"] = report_of(*export, "nano", *convert)["peak_rss_bytes"]
    row["convert_peak_bytes"] = report_of(*export, folder / name, *convert)["peak_rss_bytes"]
    row["files"] = {path.name.removeprefix(f"{name}_"): path.stat().st_size
                    for path in sorted((folder / "graphs").glob(f"{name}_*.onnx*"))}
    if gates:
        report = report_of(*export, folder / name, "--precision", "int8")
        row["gates_peak_bytes"] = report["peak_rss_bytes"]
        row["gates_passed"] = max(graph["gates_passed"] for graph in report["graphs"] if graph["precision"] == "int8")
    report = report_of("08-single-onnx-model.py", folder, "--model-dir", "graphs", "--model", folder / name,
                       "--precision", "int8")
    single = report["graphs"][0]
    row["single_peak_bytes"] = report["peak_rss_bytes"]
    row["single"] = {"size_bytes": single["size_bytes"], "pair_bytes": single["pair_bytes"],
                     "gates_passed": len(single["gates"]), "time_ratio": single["time_ratio"]}
    return row


def _parameters(weights: Path) -> int:
    from safetensors import safe_open

    with safe_open(weights, "np") as file:
        shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
    return sum(math.prod(shape) for shape in shapes)


def table(document: dict) -> str:
    """Markdown: a line for each architecture."""
    lines = ["| | parameters | fp32 MB | fp16 | int8 | int4 | one int8 graph | peak GB, converting | int8's gates |",
             "|---|---|---|---|---|---|---|---|---|"]
    for row in document["rows"]:
        weights = 4 * row["parameters"]
        sizes = {precision: sum(count for name, count in row["files"].items()
                                if name.split(".")[0] in (f"encoder{precision}", f"decoder{precision}"))
                 for precision in ("", "_fp16", "_int8", "_int4")}
        peaks = [f"{row[key] / 1e9:.2f} (weights x {(row[key] - row['nano_peak_bytes']) / weights:.1f})"
                 if key in row else "–" for key in ("convert_peak_bytes", "gates_peak_bytes")]
        cells = [f"{sizes[''] / 1e6:.0f}", *(f"{sizes[p] / 1e6:.0f}" for p in ("_fp16", "_int8", "_int4")),
                 f"{row['single']['size_bytes'] / 1e6:.0f}", *peaks]
        lines.append(f"| {row['size']} | {row['parameters'] / 1e6:.0f} M | {' | '.join(cells)} |")
    where: dict[str, list[str]] = {}
    for row in document["rows"]:
        where.setdefault(machine.one_line(row["machine"]), []).append(row["size"])
    return "\n".join([*lines, "", " ".join(f"{', '.join(sizes)}: measured on {one}." for one, sizes in where.items())])


def main(argv: list[str] | None = None) -> int:
    """Size by size; each row is saved as soon as it is there, and its folder removed."""
    parser = flags.parser(__doc__, "quiet", "log_level")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES), help="default: all")
    parser.add_argument("--no-gates", action="store_true", help="only convert")
    parser.add_argument("--output", type=Path, default=HERE / "sizes.json", metavar="FILE", help="default: %(default)s")
    parser.add_argument("--work-dir", type=Path, default=HERE / "work" / "sizes", metavar="DIR",
                        help="where the models go, 20 GB for the largest (default: %(default)s)")
    args = flags.parse(parser, argv)
    document = json.loads(args.output.read_text(encoding="utf-8")) if args.output.is_file() else {"rows": []}
    for size in args.sizes:
        console.note("size", size, "made, exported, packed into one graph")
        folder = args.work_dir / size
        folder.mkdir(parents=True, exist_ok=True)
        try:
            row = measure(size, folder, not args.no_gates)
        finally:
            shutil.rmtree(folder)
        rows = {old["size"]: old for old in document["rows"]} | {size: row}
        document = {"schema": SCHEMA, "rows": [rows[size] for size in SIZES if size in rows]}
        files.write_json(args.output, document)
    return 0


if __name__ == "__main__":
    console.run(main)
