"""One run of 03: the checkpoint, the yardstick, what became of each graph, and the report."""

import functools
import json
from pathlib import Path

from whisper_lab import checkpoints, console, files, machine
from whisper_lab.export import graphs, layouts, metadata, naming, publish, structure
from whisper_lab.export.gates import Gate

SCHEMA = "whisper-onnx-lab/export/1"
REPORTS = Path("reports")


class Export:
    """State and bookkeeping of an export; the work itself is in 03 and in the files beside this one."""

    def __init__(self, checkpoint, args):
        import torch

        from whisper_lab.torch_whisper import TorchWhisper

        self.checkpoint, self.args = checkpoint, args
        if args.threads:
            torch.set_num_threads(args.threads)
        torch.manual_seed(args.seed)
        self.output_dir = Path(args.output_dir)
        self.model = checkpoints.load_model(checkpoint, attn_implementation="eager")
        graphs.release_memory()  # the checkpoint's own copy, where it was stored in half precision
        layouts.write_runtime_files(checkpoint, self.model, self.output_dir)
        folder = naming.runtime_folder(self.output_dir, checkpoint.name)
        self.runtime = TorchWhisper(self.model, folder)
        self.alignment_heads = list(self.runtime.rules.alignment_heads) if args.alignment_heads else None
        self.facts = metadata.of_checkpoint(checkpoint, self.model.config, folder)
        self.rows: list[dict] = []
        self.fp32_bytes: dict[str, int] = {}
        self.vectors: dict[str, dict] = {}
        self.export_s = 0.0
        self.scores: list[dict] | None = None

    @functools.cached_property
    def sounds(self) -> list:
        """PyTorch's answers for the gates, made when the first gate asks."""
        from whisper_lab.export import reference

        console.note("reference", "PyTorch over speech, silence and noise, in float64 too",
                     "what the gates compare with, and how far PyTorch itself strays from it")
        return reference.make(self.runtime, self.args.seed, self.args.fp16_mode)

    @functools.cached_property
    def long_run(self):
        """PyTorch's answers for the sweep over shapes."""
        from whisper_lab.export import parity

        return parity.long_run(self.runtime, self.sounds, self.args.seed, self.args.fp16_mode)

    def fp32_done(self, fp32: dict[str, Path], seconds: float) -> None:
        """Remember what the others are measured against; then PyTorch's copy of the weights is not needed any more."""
        self.fp32_bytes = {part: graphs.size(path) for part, path in fp32.items()}
        self.vectors = {part: structure.vectors(graphs.load(path)) for part, path in fp32.items()}
        self.export_s = seconds
        if not self.args.no_verify or self.args.sensitivity:
            _ = self.sounds, self.long_run
        self.model.to("meta")  # structure and configuration stay
        graphs.release_memory()

    def finish(self, precision: str, pair: dict[str, Path], recipe: dict, converted: dict[str, str],
               excluded: dict[str, int], seconds: float, optimized: bool = False) -> dict[str, Path]:
        """Write metadata, run the gates, rename into place; returns where the graphs now are.

        Raises LabError, and leaves the graphs under their .rejected names, where a gate fails.
        """
        for part, path in pair.items():
            metadata.write(path, self.facts, part, precision, recipe, verified=not self.args.no_verify)
        gates = [] if self.args.no_verify else self._check(precision, pair, excluded, optimized)
        placed = dict(zip(pair, publish.publish(pair.values(), self.output_dir), strict=True))
        for part, path in placed.items():
            self.rows.append(self._row(precision, part, path, converted[part], gates, seconds, optimized))
            graphs.release_memory()
        return placed

    def _check(self, precision: str, pair: dict[str, Path], excluded: dict[str, int], optimized: bool) -> list[Gate]:
        from whisper_lab.export import verify

        gates = verify.run(pair, precision, self.runtime, self.sounds, self.long_run, fp32_bytes=self.fp32_bytes,
                           vectors=self.vectors, excluded=excluded, alignment=bool(self.alignment_heads),
                           threads=self.args.threads,
                           half_operators=precision == "fp16" and self.args.fp16_mode == "full",
                           trained=not self.checkpoint.random_weights, seed=self.args.seed, optimized=optimized)
        if not all(gate.passed for gate in gates):
            self.runtime.model = checkpoints.load_model(self.checkpoint, attn_implementation="eager")
            explanation = verify.explain(gates, pair, precision, self.runtime, self.sounds)
            raise verify.failure(explanation, publish.reject(pair.values(), self.output_dir))
        console.note(f"gates {precision}", f"{len(gates)} of {len(gates)} passed",
                     "against PyTorch on speech, silence and noise")
        return gates

    def sensitivity(self, fp32: dict[str, Path], folder: Path) -> None:
        """Quantize one layer at a time; the dearest as a table, all of them as a bar chart and in the report."""
        from whisper_lab.export import sensitivity

        three = [sound for sound in self.sounds if sound.cross]  # enough to rank by, and a run for every layer
        self.scores = sensitivity.scan(fp32, folder, self.runtime, three, self.args.threads,
                                       self.args.reduce_range)
        console.table("What int8 costs, one layer at a time", ["layer", "part", "KL divergence, nats"],
                      [[score["layer"], score["part"], f"{score['kl_divergence']:.2e}"] for score in self.scores[:10]])
        picture = REPORTS / f"sensitivity-{self.checkpoint.name}.png"
        console.note("picture", sensitivity.plot(self.scores, self.checkpoint.name, picture), "all layers, ranked")

    def _row(self, precision: str, part: str, path: Path, converted: str, gates: list[Gate], seconds: float,
             optimized: bool) -> dict:
        own = [gate for gate in gates if gate.part in (part, None)]
        size, model = graphs.size(path), graphs.load(path)
        return {"file": path.name, "part": part, "precision": precision, "optimized": optimized, "size_bytes": size,
                "ratio": round(size / self.fp32_bytes[part], 4), "nodes": len(model.graph),
                "node_types": dict(graphs.node_types(model)), "quantized": converted,
                "convert_s": round(seconds, 2), "gates_passed": sum(gate.passed for gate in own) if own else None,
                "gates": [gate.as_json() for gate in own]}

    def report(self) -> None:
        """The table on stdout and `reports/export-<model>.json`."""
        console.table(f"{self.checkpoint.name} in {self.output_dir}",
                      ["file", "MB", "of fp32", "nodes", "converted", "gates"],
                      [[row["file"], f"{row['size_bytes'] / 1e6:.2f}", f"{row['ratio']:.3f}", row["nodes"],
                        row["quantized"], f"{row['gates_passed']} passed" if row["gates_passed"] else "skipped"]
                       for row in self.rows])
        document = self._document()
        path = files.write_json(REPORTS / f"export-{self.checkpoint.name}.json", document)
        if self.args.output_json:
            files.write_json(self.args.output_json, document)
        console.note("report", path, "no gate was run: --no-verify" if self.args.no_verify else
                     "every gate with its value and limit")

    def _document(self) -> dict:
        return {"schema": SCHEMA, "machine": machine.card(self.args.threads),
                "model": {"name": self.checkpoint.name, "revision": self.checkpoint.revision,
                          "random_weights": self.checkpoint.random_weights,
                          "weights_sha256": self.facts["weights_sha256"]},
                "options": {key: value for key, value in vars(self.args).items() if not key.startswith("output")},
                "export_s": round(self.export_s, 2), "peak_rss_bytes": machine.peak_rss_bytes(),
                "graphs": [*self._earlier(), *self.rows], "sensitivity": self.scores}

    def _earlier(self) -> list[dict]:
        """Rows of earlier runs on the same weights, for graphs that this run did not write again."""
        try:
            old = json.loads((REPORTS / f"export-{self.checkpoint.name}.json").read_text(encoding="utf-8"))
            same = old["schema"] == SCHEMA and old["model"]["weights_sha256"] == self.facts["weights_sha256"]
            written = {row["file"] for row in self.rows}
            return [row for row in old["graphs"] if same and row["file"] not in written
                    and (self.output_dir / row["file"]).exists()]
        except (OSError, ValueError, KeyError, TypeError):
            return []
