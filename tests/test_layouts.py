"""03 --layout optimum and sherpa: the same nodes in other graphs, which say what the pair says, and are refused if not.

test_layout_runtimes.py opens them with the runtimes that they are for.
"""

import base64
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from tests.helpers import export_tiny
from whisper_lab import audio, seals, thinning
from whisper_lab.console import LabError
from whisper_lab.export import layouts, pair
from whisper_lab.export.gates import relative_error
from whisper_lab.export.layouts import optimum, same, sherpa
from whisper_lab.features import FeatureSpec, log_mel
from whisper_lab.names import pair as pair_of
from whisper_lab.tokens import TokenRules

NAME, MEDIA = "whisper-nano", Path(__file__).resolve().parent.parent / "media"
ANSWER = [40, 300, 7, 120, 41, 55, 260, 9]  # any tokens will do: logits are compared


@pytest.fixture(scope="module")
def make_job(nano, nano_export, tmp_path_factory):
    """A function precision -> a job over a copy of nano's pair, with one sound to compare on."""
    def made(precision: str = "fp32") -> layouts.Job:
        folder = tmp_path_factory.mktemp("layouts")
        shutil.copytree(nano_export / "graphs" / f"{NAME}_runtime", folder / f"{NAME}_runtime")
        for path in pair_of(nano_export / "graphs", NAME, precision).values():
            shutil.copy(path, folder)
        return job_over(folder, NAME, precision, nano)

    return made


def job_over(folder: Path, name: str, precision: str, checkpoint: Path) -> layouts.Job:
    """The pair in a folder, and one sound to compare on."""
    runtime = folder / f"{name}_runtime"
    spec, rules = FeatureSpec.from_folder(runtime), TokenRules.from_folder(runtime)
    features = log_mel(audio.load(MEDIA / "kitchen.wav").samples, spec)[None]
    prompt = rules.prompt("en")
    sound = SimpleNamespace(name="kitchen", features=features, forced=np.array([[*prompt, *ANSWER]], np.int64),
                            prompt_length=len(prompt))
    (stage := folder / "stage").mkdir(exist_ok=True)
    config = SimpleNamespace(**json.loads((runtime / "config.json").read_text(encoding="utf-8")))
    return layouts.Job(SimpleNamespace(name=name, folder=checkpoint), config, spec, rules,
                       pair_of(folder, name, precision), precision, stage, [sound], 1)


@pytest.fixture(scope="module")
def job(make_job) -> layouts.Job:
    """Of float32; nobody changes its graphs."""
    return make_job()


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int4"])
@pytest.mark.parametrize("layout", ["optimum", "sherpa"])
def test_a_layout_says_what_the_pair_says_and_stores_every_weight_once(make_job, layout, precision):
    job = make_job(precision)
    row = layouts.write(layout, job)
    assert row["gate"]["passed"] and row["gate"]["value"] <= row["gate"]["limit"] == same.LIMIT[precision]
    folder = job.pair["encoder"].parent / row["folder"]
    graphs = sorted(folder.rglob("*.onnx"))
    assert len(graphs) == 2 and folder == job.folder(layout)
    for path in graphs:
        onnx.checker.check_model(str(path), full_check=True)
        assert seals.sealed(path) and seals.fault(path) is None
    nodes = sum(len(onnx.load(path).graph.node) for path in graphs)
    assert row["size_bytes"] < sum(path.stat().st_size for path in job.pair.values()) + 1000 * nodes


def test_a_layout_that_says_other_things_is_refused_and_leaves_nothing(make_job, monkeypatch, tmp_path):
    job, real = make_job(), optimum.make
    other = make_job("int8")
    monkeypatch.setattr(optimum, "make", lambda _, folder, precision: real(other.pair, folder, precision))
    with pytest.raises(LabError, match="says other things than the pair: .* allowed; logits of 1 sounds"):
        layouts.write("optimum", job)
    assert not job.folder("optimum").exists()


def test_what_is_not_to_be_verified_is_not_compared(make_job, monkeypatch):
    job = make_job()
    object.__setattr__(job, "sounds", None)
    monkeypatch.setattr(same, "relative_error", lambda *_: pytest.fail("compared"))
    assert layouts.write("sherpa", job)["gate"] is None


def test_weights_that_do_not_fit_into_one_file_lie_beside_the_graph(make_job, monkeypatch):
    job = make_job()
    monkeypatch.setattr("whisper_lab.export.graphs.WORKING_LIMIT", 0)
    monkeypatch.setattr("whisper_lab.export.publish.SINGLE_FILE_LIMIT", 0)
    row = layouts.write("optimum", job)
    folder = job.folder("optimum") / "onnx"
    assert sorted(path.name for path in folder.iterdir()) == [
        "decoder_model_merged.onnx", "decoder_model_merged.onnx.data", "encoder_model.onnx", "encoder_model.onnx.data"]
    assert row["gate"]["passed"] and row["size_bytes"] == sum(path.stat().st_size for path in folder.iterdir())
    opened = optimum.Graphs({part: next(folder.glob(f"{part}*.onnx")) for part in ("encoder", "decoder")}, 1)
    sound = job.sounds[0]
    assert np.isfinite(opened.logits(sound.features, sound.forced, sound.prompt_length)).all()


# optimum-onnx, transformers.js ----------------------------------------------------------------------------------------

def test_optimums_graphs_have_its_names_in_its_order(job, tmp_path):
    made = optimum.make(job.pair, tmp_path / "optimum", "int8")
    assert [path.name for path in made.values()] == ["encoder_model_quantized.onnx",
                                                     "decoder_model_merged_quantized.onnx"]
    encoder, decoder = (onnx.load(path).graph for path in made.values())
    assert [value.name for value in encoder.output] == ["last_hidden_state"]
    caches = [f"{layer}.{part}.{kind}" for layer in range(job.config.decoder_layers)
              for part in ("decoder", "encoder") for kind in ("key", "value")]
    assert [value.name for value in decoder.input] == [
        "input_ids", "encoder_hidden_states", *(f"past_key_values.{name}" for name in caches), "use_cache_branch"]
    # the pair has alignment heads, so that transformers.js can time words
    assert [value.name for value in decoder.output] == [
        "logits", *(f"present.{name}" for name in caches),
        *(f"cross_attentions.{layer}" for layer in range(job.config.decoder_layers))]
    batches = {value.type.tensor_type.shape.dim[0].dim_param for value in decoder.input[:-1]}
    assert batches == {"batch_size"}  # by this name transformers.js makes empty caches for the right batch


def test_optimums_decoder_hears_several_recordings_at_once(job, tmp_path):
    graphs = optimum.Graphs(optimum.make(job.pair, tmp_path / "optimum", "fp32"), 1)
    sounds = np.concatenate([log_mel(audio.load(MEDIA / f"{name}.wav").samples, job.spec)[None]
                             for name in ("kitchen", "digits")])
    ids = np.repeat(job.sounds[0].forced, 2, axis=0)
    both = graphs.logits(sounds, ids, 4)
    for row in range(2):
        assert relative_error(graphs.logits(sounds[row:row + 1], ids[:1], 4), both[row:row + 1]) < 1e-5
    assert relative_error(both[:1], both[1:]) > 0.01  # they are two recordings


def test_optimums_cross_attention_is_that_of_the_layer(job, tmp_path):
    graphs = optimum.Graphs(optimum.make(job.pair, tmp_path / "optimum", "fp32"), 1)
    sound, heads = job.sounds[0], job.rules.alignment_heads
    hidden = graphs.encoder.run(None, {"input_features": sound.features})[0]
    empty = {value.name: np.zeros((1, value.shape[1], 0, value.shape[3]), np.float32) for value in graphs.caches}
    found = graphs.decoder.run([f"cross_attentions.{layer}" for layer, _ in heads], {
        "input_ids": sound.forced, "encoder_hidden_states": hidden, "use_cache_branch": np.array([False]), **empty})
    runtime = pair.open_runtime(job.pair["encoder"], job.pair["decoder"], 1)
    right = runtime.decoder.run(["cross_attention"], runtime.feeds(sound.forced, runtime.encode(sound.features), None))
    for i, (_, head) in enumerate(heads):
        np.testing.assert_allclose(found[i][:, head], right[0][:, i], atol=1e-6)


def test_transformers_4_can_read_the_tokenizers_settings(nano):
    assert isinstance(json.loads((nano / "tokenizer_config.json").read_text())["extra_special_tokens"], list)
    found = optimum.tokenizer_settings(nano)
    assert "extra_special_tokens" not in found and "<|startoftranscript|>" in found["additional_special_tokens"]


# sherpa-onnx ----------------------------------------------------------------------------------------------------------

def test_sherpas_graphs_come_in_its_order_with_caches_of_full_length(job):
    encoder, decoder = (onnx.load(path).graph for path in sherpa.make(job).values())
    assert [value.name for value in encoder.input] == ["mel"]
    assert [value.name for value in encoder.output] == ["n_layer_cross_k", "n_layer_cross_v"]
    assert [value.name for value in decoder.input] == [
        "tokens", "in_n_layer_self_k_cache", "in_n_layer_self_v_cache", "n_layer_cross_k", "n_layer_cross_v", "offset"]
    assert [value.name for value in decoder.output] == [
        "logits", "out_n_layer_self_k_cache", "out_n_layer_self_v_cache", "cross_attention_weights"]
    sizes = [dim.dim_value for dim in decoder.input[1].type.tensor_type.shape.dim]
    assert sizes == [job.config.decoder_layers, 0, job.config.max_target_positions, job.config.d_model]


def test_sherpas_encoder_hears_any_length_and_no_more_than_the_window(job):
    graphs = sherpa.Graphs(sherpa.make(job), 1)
    features = job.sounds[0].features
    short, window, long = (graphs.encoder.run(None, {"mel": sound})[0] for sound in (
        features[:, :, :200], features, np.pad(features, ((0, 0), (0, 0), (0, 700)))))
    whole = job.config.max_source_positions
    assert short.shape[3] == 100 - (100 - whole) // thinning.EACH and window.shape[3] == whole
    np.testing.assert_array_equal(window, long)


def test_sherpas_metadata_has_the_sizes_and_the_special_tokens(job):
    model = onnx.load(sherpa.make(job)["encoder"])
    found = {entry.key: entry.value for entry in model.metadata_props}
    ids = {token["content"]: str(token["id"]) for token in json.loads(
        (job.runtime_folder / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]}
    codes = dict(zip(found["all_language_codes"].split(","), found["all_language_tokens"].split(","), strict=True))
    assert codes["nl"] == ids["<|nl|>"] and found["sot"] == ids["<|startoftranscript|>"]
    assert found["sot_sequence"] == ",".join(ids[name] for name in ("<|startoftranscript|>", "<|en|>",
                                                                    "<|transcribe|>"))
    assert found["no_timestamps"] == ids["<|notimestamps|>"] and found["eot"] == ids["<|endoftext|>"]
    assert found["is_multilingual"] == "1" and found["n_text_ctx"] == str(job.config.max_target_positions)
    assert found["precision"] == "fp32" and found["layout"] == "sherpa"  # and what the lab says of its own graphs


def test_sherpas_tokens_are_the_bytes_of_the_tokenizer(job):
    from tokenizers import Tokenizer

    bytes_of = {int(number): base64.b64decode(token) for token, number in
                map(str.split, sherpa.tokens(job.runtime_folder).splitlines())}
    tokenizer = Tokenizer.from_file(str(job.runtime_folder / "tokenizer.json"))
    text = " lights, één, 2 keer"
    assert b"".join(bytes_of[number] for number in tokenizer.encode(text, add_special_tokens=False).ids
                    ) == text.encode()


# The command line -----------------------------------------------------------------------------------------------------

FILES = {
    "optimum": ["config.json", "generation_config.json", "onnx/decoder_model_merged.onnx", "onnx/encoder_model.onnx",
                "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"],
    "sherpa": ["whisper-tiny-random-decoder.onnx", "whisper-tiny-random-encoder.onnx",
               "whisper-tiny-random-tokens.txt"]}


def test_03_writes_the_folders_and_its_report_names_them(call_script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint = export_tiny.write_checkpoint(tmp_path / "whisper-tiny-random")
    code, _, err = call_script("03-export-encoder-decoder.py", "--model", checkpoint, "--layout", *FILES, "--threads",
                               "2", "--output-dir", "graphs", "--json", "report.json")
    assert code == 0, err
    rows = json.loads(Path("report.json").read_text(encoding="utf-8"))["layouts"]
    assert [row["layout"] for row in rows] == list(FILES)
    for row in rows:
        folder = Path("graphs") / row["folder"]
        found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        assert found == FILES[row["layout"]]
        assert row["gate"]["passed"] and f"layout {row['layout']}: " in err
    assert not list(Path("graphs").glob(".*"))
