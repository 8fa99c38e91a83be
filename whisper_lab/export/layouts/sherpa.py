"""--layout sherpa: two graphs and tokens.txt that sherpa-onnx's offline Whisper opens, on phones and in C++ too.

    sherpa_onnx.OfflineRecognizer.from_whisper(encoder="whisper-base-encoder.int8.onnx",
        decoder="whisper-base-decoder.int8.onnx", tokens="whisper-base-tokens.txt")   # in whisper-base_int8_sherpa/

It hands the caches of all layers over in one piece: those of the sound come from the encoder, those of the text have
their full length from the start, and `offset` says how much of them is filled. What is in them it never looks at. So
they keep the order of this lab's own caches, heads before positions, and no step has to transpose them. The sizes and
the special tokens are in the encoder's metadata. Read in its C++ code, and tried with sherpa-onnx 2.0.1.

It computes features of its own, pads a sound with 10 s of silence instead of to a whole window, and suppresses no
tokens: that is how its words may differ from this lab's where the numbers of the graphs do not.
"""

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir

from whisper_lab import console, files
from whisper_lab.export import graphs, publish
from whisper_lab.export.gates import Gate
from whisper_lab.export.layouts import Job, same, surgery
from whisper_lab.export.pair import session
from whisper_lab.tokenizer import Tokenizer

WINDOW = 3000  # frames; it cuts what is longer, whatever the checkpoint's own window
SUFFIX = {"fp32": "", "fp16": ".fp16", "int8": ".int8", "int4": ".int4"}
AXIS = 3  # positions, in caches [layers, batch, heads, positions, head_dim]


def check(name: str, spec) -> None:
    """Any Whisper will do: where the window is shorter than WINDOW, the encoder cuts what it is given."""


def write(job: Job) -> tuple[Path, Gate | None]:
    """Make `<name>_<precision>_sherpa/` beside the graphs; returns it and how it compares with them.

    Raises LabError where the folder cannot be written, or where its graphs differ from the pair.
    """
    made = make(job)
    gate = same.require("sherpa", job, lambda: Graphs(made, job.threads))
    folder = job.folder("sherpa")
    files.write_text(folder / f"{job.checkpoint.name}-tokens.txt", tokens(job.runtime_folder))
    publish.publish(made.values(), folder)
    console.note("layout sherpa", folder, "sherpa_onnx.OfflineRecognizer.from_whisper opens it")
    return folder, gate


def make(job: Job) -> dict[str, Path]:
    """Both graphs of the layout, in the job's hidden folder."""
    (folder := job.stage / "sherpa").mkdir(exist_ok=True)
    made, changes = {}, {"encoder": change_encoder, "decoder": change_decoder}
    for part, path in job.pair.items():
        model = graphs.load(path)
        facts = dict(model.metadata_props) | metadata(job) | {"layout": "sherpa"}
        changes[part](model, job)
        made[part] = folder / f"{job.checkpoint.name}-{part}{SUFFIX[job.precision]}.onnx"
        surgery.save(model, made[part], facts)
    return made


def change_encoder(model: ir.Model, job: Job) -> None:
    """mel [batch, n_mels, frames] -> n_layer_cross_k, n_layer_cross_v [layers, batch, heads, positions, head_dim]"""
    graph = model.graph
    mel = surgery.rename(graph.inputs[0], "mel")
    if job.spec.n_frames < WINDOW:
        uses = list(mel.uses())
        begin, end, axis = (surgery.whole_numbers(model, f"mel/{name}", number)
                            for name, number in (("begin", 0), ("end", job.spec.n_frames), ("axis", 2)))
        heard = surgery.append(model, "Slice", [mel, begin, end, axis], "mel/heard", surgery.FLOAT)
        for use in uses:
            use.node.replace_input_with(use.idx, heard)
    caches = {value.name: value for value in graph.outputs}
    del graph.outputs[:]
    for kind in ("key", "value"):
        layers = [caches[f"present_{kind}_cross_{i}"] for i in range(job.config.decoder_layers)]
        graph.outputs.append(stack(model, layers, f"n_layer_cross_{kind[0]}"))


def stack(model: ir.Model, layers: list[ir.Value], name: str) -> ir.Value:
    """[batch, heads, positions, head_dim] of each layer -> [layers, batch, heads, positions, head_dim]"""
    first = surgery.whole_numbers(model, f"{name}/axis", 0)
    rows = [surgery.append(model, "Unsqueeze", [layer, first], f"{name}/layer_{i}", surgery.FLOAT)
            for i, layer in enumerate(layers)]
    whole = surgery.append(model, "Concat", rows, name, surgery.FLOAT, axis=0)
    whole.shape = ir.Shape([len(layers), *(layers[0].shape or ["batch", "heads", "new", "head_dim"])])
    return whole


# The decoder ----------------------------------------------------------------------------------------------------------

def change_decoder(model: ir.Model, job: Job) -> None:
    """The caches of all layers in one piece each, those of the text at full length."""
    graph, config = model.graph, job.config
    inputs, outputs = ({value.name: value for value in values} for values in (graph.inputs, graph.outputs))
    tokens = surgery.rename(inputs["input_ids"], "tokens")
    del graph.outputs[1:]
    full = [config.decoder_layers, "batch", config.max_target_positions, config.d_model]
    texts = {kind: surgery.new_input(model, f"in_n_layer_self_{kind[0]}_cache", surgery.FLOAT, full)
             for kind in ("key", "value")}
    for kind in ("key", "value"):
        shape = inputs[f"past_{kind}_cross_0"].shape
        sound = surgery.new_input(model, f"n_layer_cross_{kind[0]}", surgery.FLOAT, [config.decoder_layers, *shape])
        for i in range(config.decoder_layers):
            one_layer(model, inputs[f"past_{kind}_cross_{i}"], sound, i)
    offset = surgery.new_input(model, "offset", surgery.INT64, [1])
    for kind, cache in texts.items():
        past = [inputs[f"past_{kind}_self_{i}"] for i in range(config.decoder_layers)]
        present = [outputs[f"present_{kind}_self_{i}"] for i in range(config.decoder_layers)]
        longer = text_cache(model, cache, offset, tokens, past, present)
        graph.outputs.append(surgery.rename(longer, f"out_n_layer_self_{kind[0]}_cache", full))
    if "cross_attention" in outputs:  # its fourth output: it makes the times of tokens from it
        graph.outputs.append(surgery.rename(outputs["cross_attention"], "cross_attention_weights"))


def one_layer(model: ir.Model, old: ir.Value, whole: ir.Value, layer: int) -> None:
    """What reads the input `old` reads layer number `layer` of `whole`."""
    number = surgery.whole_number(model, f"{old.name}/layer", layer)
    surgery.replace_input(model, old, surgery.append(model, "Gather", [whole, number], f"{old.name}/of_all",
                                                     surgery.FLOAT, axis=0))


def text_cache(model: ir.Model, cache: ir.Value, offset: ir.Value, tokens: ir.Value, past: list[ir.Value],
               present: list[ir.Value]) -> ir.Value:
    """Give the layers the filled part of `cache`, and put what they add behind it; returns the cache as it came."""
    layers, _, length, width = cache.shape
    _, heads, _, size = past[0].shape
    at = cache.name

    def add(op: str, inputs: list[ir.Value], name: str, **attributes) -> ir.Value:
        return surgery.append(model, op, inputs, f"{at}/{name}", surgery.FLOAT, **attributes)

    zero, end, axis, rows = (surgery.whole_numbers(model, f"{at}/{name}", number) for name, number in (
        ("zero", 0), ("end", surgery.END), ("positions_axis", AXIS), ("rows_axis", AXIS - 1)))
    apart = add("Reshape", [cache, surgery.whole_numbers(model, f"{at}/apart", layers, -1, heads, length, size)],
                "by_heads")
    filled = add("Slice", [apart, zero, offset, axis], "filled")
    for layer, value in enumerate(past):
        one_layer(model, value, filled, layer)
    new = stack(model, [add("Slice", [value, offset, end, rows], f"new_{layer}")
                        for layer, value in enumerate(present)], f"{at}/new")
    count = surgery.append(model, "Shape", [tokens], f"{at}/count", surgery.INT64, start=1, end=2)
    behind = surgery.append(model, "Add", [offset, count], f"{at}/behind", surgery.INT64)
    rest = add("Slice", [apart, behind, end, axis], "rest")
    longer = add("Concat", [filled, new, rest], "longer", axis=AXIS)
    return add("Reshape", [longer, surgery.whole_numbers(model, f"{at}/whole", layers, -1, length, width)], "out")


# Beside the graphs ----------------------------------------------------------------------------------------------------

def metadata(job: Job) -> dict[str, str]:
    """What sherpa-onnx reads in the encoder: whole numbers, and lists of them with commas."""
    rules, config = job.rules, job.config
    tokenizer = _tokenizer(job.runtime_folder)
    ids = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    # An English-only checkpoint has no such tasks, and yet they have to be there.
    tasks = {task: rules.tasks.get(task, ids.get(f"<|{task}|>", 0)) for task in ("transcribe", "translate")}
    languages = rules.languages
    start = [rules.start, *([languages.get("en", next(iter(languages.values()))), tasks["transcribe"]]
                            if languages else [])]
    facts = {"model_type": job.checkpoint.name, "n_mels": config.num_mel_bins, "n_text_layer": config.decoder_layers,
             "n_text_ctx": config.max_target_positions, "n_text_state": config.d_model, "n_vocab": config.vocab_size,
             "sot": rules.start, "eot": rules.end, "blank_id": tokenizer["model"]["vocab"]["Ġ"], **tasks,
             "is_multilingual": int(bool(languages)), "no_timestamps": rules.no_timestamps,
             "no_speech": rules.no_speech, "sot_sequence": _commas(start),
             "all_language_tokens": _commas(languages.values()), "all_language_codes": _commas(languages),
             "n_alignment_heads": len(rules.alignment_heads),
             "alignment_heads": _commas(f"{layer}:{head}" for layer, head in rules.alignment_heads)}
    return {key: str(value) for key, value in facts.items()}


def _commas(values) -> str:
    return ",".join(map(str, values))


def _tokenizer(folder: Path) -> dict:
    return json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))


def tokens(folder: Path) -> str:
    """tokens.txt: a line for each byte-pair token, its bytes in base64 and its id."""
    return Tokenizer.from_folder(folder).table(sorted(_tokenizer(folder)["model"]["vocab"].values()))


# Driven as sherpa-onnx drives it --------------------------------------------------------------------------------------

class Graphs:
    """The layout's two graphs, fed as sherpa-onnx feeds them: by place, not by name."""

    def __init__(self, paths: dict[str, Path], threads: int | None = None):
        self.encoder, self.decoder = (session(paths[part], threads) for part in ("encoder", "decoder"))

    def logits(self, features: np.ndarray, ids: np.ndarray, prompt: int) -> np.ndarray:
        """[1, n_mels, frames], int64 [1, T] -> [1, T, vocabulary]: `prompt` tokens at once, then one by one."""
        names = [value.name for value in self.decoder.get_inputs()]
        cross = self.encoder.run(None, {self.encoder.get_inputs()[0].name: features})
        layers, _, length, width = self.decoder.get_inputs()[1].shape
        cache = [np.zeros((layers, 1, length, width), np.float32)] * 2
        found, ends = [], [prompt, *range(prompt + 1, ids.shape[1] + 1)]
        for begin, end in zip([0, *ends[:-1]], ends, strict=True):
            given = [ids[:, begin:end], *cache, *cross, np.array([begin])]
            logits, *cache = self.decoder.run(None, dict(zip(names, given, strict=True)))[:3]
            found.append(logits)
        return np.concatenate(found, axis=1)
