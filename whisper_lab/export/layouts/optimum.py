"""--layout optimum: a folder that optimum-onnx (Python) and transformers.js (node, browsers) open.

    ORTModelForSpeechSeq2Seq.from_pretrained("whisper_model_dir/whisper-base_int8_optimum")
    pipeline("automatic-speech-recognition", "whisper-base_int8_optimum", {dtype: "q8"})   // env.localModelPath

There the encoder ends with its hidden states, and the decoder makes the cross caches from them when it reads the
prompt; `use_cache_branch` says whether it has them already. So the nodes that make a layer's cross cache move from the
encoder into an If inside that layer: one branch makes keys and values and attends to them, the other attends to those
it is given. All else, weights above all, is there once, and a step copies no cache of the sound. optimum's own export
has two whole decoders in one If, and onnxruntime packs the weights of each apart.

Both runtimes hand over self caches of length 0 with the prompt. The dimension `batch_size` is called so because
transformers.js makes those empty caches from the names of the dimensions.
"""

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir

from whisper_lab import console, files
from whisper_lab.export import graphs, publish
from whisper_lab.export.gates import Gate
from whisper_lab.export.layouts import Job, place, same, surgery
from whisper_lab.export.pair import session

SUFFIX = {"fp32": "", "fp16": "_fp16", "int8": "_quantized", "int4": "_q4"}  # transformers.js: fp32, fp16, q8, q4
BATCH, HEARD = "batch_size", "encoder_sequence_length"


def check(name: str, spec) -> None:
    """Any Whisper will do: both runtimes read the length of the window from preprocessor_config.json."""


def write(job: Job) -> tuple[Path, Gate | None]:
    """Make `<name>_<precision>_optimum/` beside the graphs; returns it and how it compares with them.

    Raises LabError where the folder cannot be written, or where its graphs differ from the pair.
    """
    made = make(job.pair, job.stage / "optimum", job.precision)
    gate = same.require("optimum", job, lambda: Graphs(made, job.threads))
    folder = job.folder("optimum")
    for name in ("config.json", "generation_config.json", "preprocessor_config.json", "tokenizer.json"):
        place(job.runtime_folder / name, folder)
    files.write_json(folder / "tokenizer_config.json", tokenizer_settings(job.checkpoint.folder))
    (folder / "onnx").mkdir(exist_ok=True)
    publish.publish(made.values(), folder / "onnx")
    console.note("layout optimum", folder, "ORTModelForSpeechSeq2Seq and transformers.js open it")
    return folder, gate


def tokenizer_settings(checkpoint: Path) -> dict:
    """tokenizer_config.json as transformers 4 reads it, which optimum-onnx needs; transformers 5 and the other do too.

    What 5 writes has the special tokens in a list where 4 expects a dictionary, and fails.
    """
    path = checkpoint / "tokenizer_config.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    special = found.pop("extra_special_tokens", None)
    if isinstance(special, list):
        found["additional_special_tokens"] = special
    return found | {"tokenizer_class": "WhisperTokenizer", "processor_class": "WhisperProcessor"}


def make(pair: dict[str, Path], folder: Path, precision: str) -> dict[str, Path]:
    """Both graphs of the layout, in `folder`."""
    folder.mkdir(exist_ok=True)
    paths = {part: folder / f"{part}_model{merged}{SUFFIX[precision]}.onnx"
             for part, merged in (("encoder", ""), ("decoder", "_merged"))}
    encoder, decoder = graphs.load(pair["encoder"]), graphs.load(pair["decoder"])
    facts = {part: dict(model.metadata_props) | {"layout": "optimum"}
             for part, model in (("encoder", encoder), ("decoder", decoder))}
    merge(encoder, decoder)
    surgery.save(decoder, paths["decoder"], facts["decoder"])
    end_with_hidden(encoder)
    surgery.save(encoder, paths["encoder"], facts["encoder"])
    return paths


def end_with_hidden(encoder: ir.Model) -> None:
    """input_features -> last_hidden_state, and nothing else."""
    del encoder.graph.outputs[1:]
    surgery.rename(encoder.graph.inputs[0], "input_features", [BATCH, *encoder.graph.inputs[0].shape[1:]])
    surgery.rename(encoder.graph.outputs[0], "last_hidden_state", [BATCH, *encoder.graph.outputs[0].shape[1:]])


# The decoder ----------------------------------------------------------------------------------------------------------

def merge(encoder: ir.Model, decoder: ir.Model) -> None:
    """Change the decoder in place; the encoder only lends its nodes and weights."""
    graph = decoder.graph
    inputs, outputs = ({value.name: value for value in values} for values in (graph.inputs, graph.outputs))
    layers = sum(name.startswith("past_key_self") for name in inputs)
    wants_attention = "cross_attention" in outputs
    del graph.outputs[1 + 2 * layers:]  # cross_attention is put together from several layers; here each has its own
    surgery.RemoveUnusedNodesPass()(decoder)
    hidden = surgery.new_input(decoder, "encoder_hidden_states", ir.DataType.FLOAT,
                               [BATCH, HEARD, encoder.graph.outputs[0].shape[2]])
    reuse = surgery.new_input(decoder, "use_cache_branch", ir.DataType.BOOL, [1])
    ask_hidden_for_sizes(decoder, [inputs[name] for name in inputs if "_cross_" in name], hidden)
    transplant = surgery.Transplant(decoder)
    made = [Branches(encoder, decoder, transplant, layer).put(hidden, reuse, wants_attention)
            for layer in range(layers)]
    name_all(graph, layers, made, inputs, outputs)


def ask_hidden_for_sizes(decoder: ir.Model, cross: list[ir.Value], hidden: ir.Value) -> None:
    """The cross caches are empty when the prompt comes: how many recordings and positions, the hidden states know."""
    axes = {0: 0, 2: 1}  # of [batch, heads, positions, head_dim] -> of [batch, positions, d]
    for node in [use.node for value in cross for use in value.uses() if use.node.op_type == "Shape"]:
        axis = axes[node.attributes["start"].as_int()]
        node.replace_input_with(0, hidden)
        node.attributes["start"], node.attributes["end"] = ir.AttrInt64("start", axis), ir.AttrInt64("end", axis + 1)


class Branches:
    """One layer's cross-attention as an If: over caches that are given, or over those that it makes first."""

    def __init__(self, encoder: ir.Model, decoder: ir.Model, transplant: surgery.Transplant, layer: int):
        names = [f"{kind}_cross_{layer}" for kind in ("key", "value")]
        find = {value.name: value for value in [*decoder.graph.inputs, *encoder.graph.outputs]}
        self.encoder, self.decoder, self.transplant, self.layer = encoder, decoder, transplant, layer
        self.past = [find[f"past_{name}"] for name in names]
        self.present = [find[f"present_{name}"] for name in names]
        self.body, self.mixed = self._attention()

    def _attention(self) -> tuple[list[ir.Node], ir.Value]:
        """The nodes from the caches to the mixed values, and these: no node behind the MatMul with the values."""
        reached = surgery.descendants(self.past[1:])
        last = next(node for node in surgery.ancestors(self.decoder.graph.outputs[:1]) if node in reached
                    and node.op_type == "MatMul")
        inside = surgery.descendants(self.past) & set(surgery.ancestors(last.outputs))
        return [node for node in surgery.ancestors(last.outputs) if node in inside], last.outputs[0]

    @property
    def weights(self) -> ir.Value:
        """The attention's weights: [batch, heads, sequence, positions]"""
        return next(node.outputs[0] for node in self.body if node.op_type == "Softmax")

    def put(self, hidden: ir.Value, reuse: ir.Value, with_weights: bool) -> list[ir.Value]:
        """Replace the nodes by the If; returns its outputs: mixed values, key, value, and the attention's weights."""
        name, first = f"decoder.layers.{self.layer}.encoder_attn", self.body[0]
        branches = {"then_branch": self._given(f"{name}.reused", with_weights),
                    "else_branch": self._made(f"{name}.made", hidden, with_weights)}
        node = ir.node("If", [reuse], branches, num_outputs=3 + with_weights, name=self.transplant.name(f"{name}/If"))
        for i, value in enumerate(node.outputs):
            value.name, value.type = node.name if i == 0 else f"{node.name}_{i}", ir.TensorType(ir.DataType.FLOAT)
        node.outputs[0].type = self.mixed.type
        self.decoder.graph.insert_before(first, node)
        ir.convenience.replace_all_uses_with(self.mixed, node.outputs[0])
        self.decoder.graph.remove(self.body, safe=True)
        return list(node.outputs)

    def _given(self, name: str, with_weights: bool) -> ir.Graph:
        """Attend to the caches that came in. Both runtimes keep those, so the branch returns none: none is copied."""
        seen: dict = {}
        nodes = self.transplant.copy(self.body, seen)
        empty = ir.tensor(np.zeros((1, self.past[0].shape[1], 0, self.past[0].shape[3]), np.float32))
        for kind in ("key", "value"):
            nodes.append(ir.node("Constant", [], {"value": empty}, name=self.transplant.name(f"{name}/no_{kind}")))
            nodes[-1].outputs[0].name, nodes[-1].outputs[0].type = nodes[-1].name, ir.TensorType(ir.DataType.FLOAT)
        outputs = [seen[self.mixed], nodes[-2].outputs[0], nodes[-1].outputs[0]]
        return ir.Graph([], outputs + [seen[self.weights]] * with_weights, nodes=nodes, name=name)

    def _made(self, name: str, hidden: ir.Value, with_weights: bool) -> ir.Graph:
        """Make keys and values from the hidden states with the encoder's nodes, attend to them, and return them."""
        source, seen = self.encoder.graph.outputs[0], {}
        before = surgery.ancestors(self.present, stop=[source])
        fixed = surgery.constant_nodes(before)
        for node in self.transplant.copy(fixed, seen):  # outside, where onnxruntime computes them once, when it loads
            self.decoder.graph.insert_before(self.body[0], node)
        seen |= {source: hidden, self.encoder.graph.inputs[0]: hidden}  # of the features only the batch is asked
        nodes = self.transplant.copy([node for node in before if node not in fixed], seen)
        seen |= dict(zip(self.past, (seen[value] for value in self.present), strict=True))
        nodes += self.transplant.copy(self.body, seen)
        outputs = [seen[self.mixed], *(seen[value] for value in self.present)]
        return ir.Graph([], outputs + [seen[self.weights]] * with_weights, nodes=nodes, name=name)


def name_all(graph: ir.Graph, layers: int, made: list[list[ir.Value]], inputs: dict[str, ir.Value],
             outputs: dict[str, ir.Value]) -> None:
    """Names and order as optimum has them: it tells the caches apart by their place in the list."""
    heads, size = (inputs["past_key_self_0"].shape[axis] for axis in (1, 3))
    cached = [BATCH, heads, "past_sequence_length", size]
    fed, found = [], []
    for layer in range(layers):
        past, present = f"past_key_values.{layer}", f"present.{layer}"
        for kind in ("key", "value"):
            fed.append(surgery.rename(inputs[f"past_{kind}_self_{layer}"], f"{past}.decoder.{kind}", cached))
            found.append(surgery.rename(outputs[f"present_{kind}_self_{layer}"], f"{present}.decoder.{kind}",
                                        [BATCH, heads, "past_sequence_length + sequence_length", size]))
        for kind, value in zip(("key", "value"), made[layer][1:3], strict=True):
            fed.append(surgery.rename(inputs[f"past_{kind}_cross_{layer}"], f"{past}.encoder.{kind}",
                                      [BATCH, heads, f"{HEARD}_past", size]))
            found.append(surgery.rename(value, f"{present}.encoder.{kind}", [BATCH, heads, f"{HEARD}_out", size]))
    attention = [surgery.rename(one, f"cross_attentions.{layer}", [BATCH, heads, "sequence_length", f"{HEARD}_out"])
                 for layer, values in enumerate(made) for one in values[3:]]
    surgery.rename(inputs["input_ids"], "input_ids", [BATCH, "sequence_length"])
    logits = surgery.rename(outputs["logits"], "logits", [BATCH, "sequence_length", outputs["logits"].shape[2]])
    others = [value for value in graph.inputs if value.name in ("encoder_hidden_states", "use_cache_branch")]
    graph.inputs[:] = [inputs["input_ids"], others[0], *fed, others[1]]
    graph.outputs[:] = [logits, *found, *attention]


# Driven as the two runtimes drive it ----------------------------------------------------------------------------------

class Graphs:
    """The layout's two graphs, fed as optimum-onnx and transformers.js feed them."""

    def __init__(self, paths: dict[str, Path], threads: int | None = None):
        self.encoder, self.decoder = (session(paths[part], threads) for part in ("encoder", "decoder"))
        self.caches = [value for value in self.decoder.get_inputs() if value.name.startswith("past_key_values")]
        self.presents = [value.name.replace("past_key_values", "present") for value in self.caches]

    def logits(self, features: np.ndarray, ids: np.ndarray, prompt: int) -> np.ndarray:
        """[1, n_mels, frames], int64 [1, T] -> [1, T, vocabulary]: `prompt` tokens at once, then one by one."""
        hidden = self.encoder.run(["last_hidden_state"], {"input_features": features})[0]
        cache = {value.name: np.zeros((len(ids), value.shape[1], 0, value.shape[3]), np.float32)
                 for value in self.caches}
        found, ends = [], [prompt, *range(prompt + 1, ids.shape[1] + 1)]
        for begin, end in zip([0, *ends[:-1]], ends, strict=True):
            feeds = {"input_ids": ids[:, begin:end], "encoder_hidden_states": hidden, **cache,
                     "use_cache_branch": np.array([begin > 0])}
            logits, *presents = self.decoder.run(["logits", *self.presents], feeds)
            cache |= {value.name: present for value, present in zip(self.caches, presents, strict=True)
                      if not begin or ".decoder." in value.name}
            found.append(logits)
        return np.concatenate(found, axis=1)
