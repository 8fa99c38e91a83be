"""One run of 03: the checkpoint, the yardstick, what became of each graph, and the report."""

import dataclasses
import functools
import json
import time
from collections import Counter
from pathlib import Path

from whisper_lab import checkpoints, console, files, machine, names, seals
from whisper_lab.export import graphs, layouts, metadata, publish, structure, traced, wire
from whisper_lab.export.gates import ARITHMETIC, Gate

SCHEMA = "whisper-onnx-lab/export/1"
REPORTS = Path("reports")


@dataclasses.dataclass(frozen=True)
class Settings:
    """The choices that all graphs of one run share."""

    output_dir: Path
    precisions: tuple[str, ...] = ("fp32",)  # to be written
    threads: int | None = None  # None: all cores
    seed: int = 0  # of the noise among the gates' sounds
    fp16_mode: str = "full"  # or weights: what half precision means here
    alignment_heads: bool = False  # the decoder gives cross_attention, for word timestamps
    verify: bool = True  # run the gates


class Export:
    """State and bookkeeping of an export; the work itself is in 03 and in the files beside this one."""

    def __init__(self, checkpoint, settings: Settings):
        """Load the checkpoint and write the files that a runtime needs beside the graphs."""
        import torch

        if settings.threads:
            torch.set_num_threads(settings.threads)
        torch.manual_seed(settings.seed)
        self.checkpoint, self.settings = checkpoint, settings
        self.rows: list[dict] = []
        self.pairs = self._begun = 0  # to be written, of them begun
        self.layouts: list[dict] = []
        self.fp32_bytes: dict[str, int] = {}
        self.vectors: dict[str, dict] = {}
        self.export_s = 0.0
        self.scores: list[dict] | None = None
        self._load()

    def _load(self) -> None:
        from whisper_lab.torch_whisper import TorchWhisper

        self.model = checkpoints.load_model(self.checkpoint, attn_implementation="eager")
        graphs.settle_memory()  # the checkpoint's own copy, where it was stored in half precision
        layouts.write_runtime_files(self.checkpoint, self.model, self.settings.output_dir)
        folder = names.runtime_folder(self.settings.output_dir, self.checkpoint.name)
        self.runtime = TorchWhisper(self.model, folder)
        self.alignment_heads = list(self.runtime.rules.alignment_heads) if self.settings.alignment_heads else None
        self.facts = metadata.of_checkpoint(self.checkpoint, self.model.config, folder) | {"traced_by": traced.method()}

    @functools.cached_property
    def judged(self):
        """The precisions whose arithmetic is measured by PyTorch's."""
        from whisper_lab.export.reference import Arithmetic

        asked = tuple(precision for precision in self.settings.precisions if precision in ARITHMETIC)
        return Arithmetic(asked, self.settings.fp16_mode)

    @functools.cached_property
    def sounds(self) -> list:
        """PyTorch's answers for the gates, made when the first gate asks."""
        from whisper_lab.export import reference

        more = (", in float64 too", ", and how far PyTorch itself is from it") if self.judged.precisions else ("", "")
        console.note("reference", f"PyTorch over speech, silence and noise{more[0]}",
                     f"what the gates compare with{more[1]}")
        return reference.make(self.runtime, self.settings.seed, self.judged)

    @functools.cached_property
    def long_run(self):
        """PyTorch's answers for the sweep over shapes."""
        from whisper_lab.export import parity

        return parity.long_run(self.runtime, self.sounds, self.settings.seed, self.judged)

    def plan(self, pairs: int) -> None:
        """Say what this run will do, before it begins."""
        self.pairs = pairs
        asked, checked = ("PyTorch's answers for the gates, ", "conversion, gates") if self.settings.verify else \
            ("", "conversion without gates (--no-verify)")
        console.note("to do", f"{console.count(pairs, 'pair')} of graphs", f"float32 graphs, {asked}the silence that "
                     f"the model needs, {checked}: minutes, from whisper-base on")

    def traced_before(self, folder: Path) -> dict[str, Path] | None:
        """The float32 graphs of an earlier run, placed in `folder`; None: they are to be traced.

        Whoever asks for float32 alone asks for that.
        """
        if self.settings.precisions == ("fp32",):
            return None
        found = traced.known(self.settings.output_dir, self.facts, bool(self.alignment_heads), folder)
        if found:
            console.note("float32 graphs", "those of an earlier run", "the same weights, traced by the same code")
        return found

    def fp32_done(self, fp32: dict[str, Path], seconds: float, ask_pytorch: bool) -> None:
        """Remember what the others are measured against; then PyTorch's copy of the weights is not needed any more.

        seconds: what tracing took; ask_pytorch: its answers are needed, for the gates or for `sensitivity`.
        """
        self.fp32_bytes = {part: graphs.size(path) for part, path in fp32.items()}
        self.export_s = seconds
        graphs.release_memory()  # what tracing left
        if ask_pytorch:
            _ = self.sounds, self.long_run
        self.model.to("meta")  # structure and configuration stay
        graphs.settle_memory()
        self.vectors = {part: structure.vectors(graphs.load(path)) for part, path in fp32.items()}
        graphs.release_memory()

    def find_silence(self, fp32: dict[str, Path]) -> None:
        """How much silence the checkpoint needs behind a sound: printed, and into the metadata of all its graphs."""
        from whisper_lab.export import silence

        by = silence.method(self.settings.seed)
        self.silence = silence.known(self.settings.output_dir, self.facts, by) or silence.find(
            fp32, self.runtime, self.checkpoint.name, not self.checkpoint.random_weights, self.settings.threads,
            self.settings.seed)
        silence.tell(self.silence)
        self.facts |= {"silence_s": json.dumps(self.silence.silence_s), "silence_by": by}

    def begin(self, precision: str, folder: Path, optimized: bool = False) -> dict[str, Path]:
        """Where the two graphs of a precision are made, below `folder`; the clock of the conversion starts."""
        place = folder / f"{precision}{'_optimized' * optimized}"
        place.mkdir(exist_ok=True)  # float32 is there: it was traced
        self._started, self._begun = time.perf_counter(), self._begun + 1
        console.note(f"pair {self._begun} of {self.pairs}", f"{precision}{' optimized' * optimized}",
                     "converted, checked, put into place" if self.settings.verify else "converted, put into place")
        return names.pair(place, self.checkpoint.name, precision, optimized)

    def finish(self, precision: str, pair: dict[str, Path], recipe: dict, converted: dict[str, str],
               excluded: dict[str, int], optimized: bool = False) -> dict[str, Path]:
        """Write metadata, run the gates, rename into place; returns where the graphs now are.

        converted: per part, in words; excluded: per part, how many linear layers stayed in float32.
        Raises LabError, and leaves the graphs under their .rejected names, where a gate fails.
        """
        seconds = time.perf_counter() - self._started
        for part, what in converted.items() if precision != "fp32" else ():
            console.note(part, f"converted in {precision}", what)
        for part, path in pair.items():
            metadata.write(path, self.facts, part, precision, recipe, verified=self.settings.verify)
        gates = self._check(precision, pair, excluded, optimized) if self.settings.verify else []
        placed = dict(zip(pair, publish.publish(pair.values(), self.settings.output_dir), strict=True))
        for part, path in placed.items():
            self.rows.append(self._row(precision, part, path, converted[part], gates, seconds, optimized))
            graphs.release_memory()
        return placed

    def lay_out(self, layout: str, precision: str, placed: dict[str, Path], folder: Path) -> None:
        """The checked graphs once more for another runtime, compared with themselves; `folder`: for unfinished files.

        Raises LabError where the layout cannot be written, or does not say what the pair says.
        """
        job = layouts.Job(self.checkpoint, self.model.config, self.runtime.spec, self.runtime.rules, placed, precision,
                          folder, self.sounds if self.settings.verify else None, self.settings.threads)
        self.layouts.append(layouts.write(layout, job))
        graphs.release_memory()

    def _check(self, precision: str, pair: dict[str, Path], excluded: dict[str, int], optimized: bool) -> list[Gate]:
        from whisper_lab.export import verify

        gates = verify.run(pair, precision, self.runtime, self.sounds, self.long_run, fp32_bytes=self.fp32_bytes,
                           vectors=self.vectors, excluded=excluded, alignment=bool(self.alignment_heads),
                           threads=self.settings.threads,
                           half_operators=precision == "fp16" and self.settings.fp16_mode == "full",
                           trained=not self.checkpoint.random_weights, seed=self.settings.seed, optimized=optimized)
        if not all(gate.passed for gate in gates):
            self.runtime.model = checkpoints.load_model(self.checkpoint, attn_implementation="eager")
            explanation = verify.explain(gates, pair, precision, self.runtime, self.sounds)
            raise verify.failure(explanation, publish.reject(pair.values(), self.settings.output_dir))
        both = sum(gate.part is None for gate in gates)
        console.note(f"gates {precision}{' optimized' * optimized}", f"{len(gates)} of {len(gates)} passed",
                     f"against PyTorch on speech, silence and noise; {both} are of the pair, and in the table of each")
        return gates

    def sensitivity(self, fp32: dict[str, Path], folder: Path) -> None:
        """Quantize one layer at a time; the costliest as a table, all of them as a bar chart and in the report."""
        from whisper_lab.export import sensitivity

        three = [sound for sound in self.sounds if sound.has_caches]  # enough to rank by, and a run for every layer
        self.scores = sensitivity.scan(fp32, folder, self.runtime, three, self.settings.threads)
        console.table("What int8 costs, one layer at a time", ["layer", "part", "KL divergence, nats"],
                      [[score["layer"], score["part"], f"{score['kl_divergence']:.2e}"] for score in self.scores[:10]])
        picture = REPORTS / f"sensitivity-{self.checkpoint.name}.png"
        console.note("picture", sensitivity.plot(self.scores, self.checkpoint.name, picture), "all layers, ranked")

    def _row(self, precision: str, part: str, path: Path, converted: str, gates: list[Gate], seconds: float,
             optimized: bool) -> dict:
        own = [gate for gate in gates if gate.part in (part, None)]
        size, nodes = graphs.size(path), wire.skim(path).graph.node
        types = dict(Counter(node.op_type for node in nodes).most_common())
        return {"file": path.name, "content_sha256": seals.sealed(path), "part": part, "precision": precision,
                "optimized": optimized, "size_bytes": size, "ratio": round(size / self.fp32_bytes[part], 4),
                "nodes": len(nodes), "node_types": types, "quantized": converted,
                "convert_s": round(seconds, 2), "gates_passed": sum(gate.passed for gate in own) if own else None,
                "gates": [gate.as_json() for gate in own]}

    def report(self, options: dict, output_json: str | None = None) -> None:
        """The table on stdout and `reports/export-<model>.json`; options: the command line, as the report keeps it."""
        console.table(f"{self.checkpoint.name} in {self.settings.output_dir}",
                      ["file", "MB", "size, fp32 = 1", "nodes", "gates"],
                      [[row["file"], f"{row['size_bytes'] / 1e6:.2f}", f"{row['ratio']:.3f}", row["nodes"],
                        f"{row['gates_passed']} passed" if row["gates_passed"] else "skipped"] for row in self.rows])
        document = self._document(options)
        path = files.write_json(REPORTS / f"export-{self.checkpoint.name}.json", document)
        if output_json:
            files.write_json(output_json, document)
        console.note("report", path, "every gate with its value and limit" if self.settings.verify else
                     "no gate was run: --no-verify")

    def _document(self, options: dict) -> dict:
        return {"schema": SCHEMA, "machine": machine.card(self.settings.threads),
                "model": {"name": self.checkpoint.name, "revision": self.checkpoint.revision,
                          "random_weights": self.checkpoint.random_weights,
                          "weights_sha256": self.facts["weights_sha256"]},
                "options": {key: value for key, value in options.items() if not key.startswith("output")},
                "silence": dataclasses.asdict(self.silence),
                "export_s": round(self.export_s, 2), "peak_rss_bytes": machine.peak_rss_bytes(),
                "graphs": [*self._earlier(), *self.rows], "layouts": self.layouts, "sensitivity": self.scores}

    def _earlier(self) -> list[dict]:
        """Rows of earlier runs on the same weights, for graphs that are still those, and were not written again."""
        try:
            old = json.loads((REPORTS / f"export-{self.checkpoint.name}.json").read_text(encoding="utf-8"))
            same = old["schema"] == SCHEMA and old["model"]["weights_sha256"] == self.facts["weights_sha256"]
            written = {row["file"] for row in self.rows}
            return [row for row in old["graphs"] if same and row["file"] not in written and self._is_still(row)]
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def _is_still(self, row: dict) -> bool:
        """Whether a row's file is the one that it is about: its seal has the same digest."""
        path = self.settings.output_dir / row["file"]
        return row["content_sha256"] is not None and path.is_file() and seals.sealed(path) == row["content_sha256"]
