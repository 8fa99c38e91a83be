"""Every bit of a graph, of its weights elsewhere and of the files beside it counts: damage is two lines at opening."""

import importlib
import json
import random
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.helpers import nano_pair, single_nano
from whisper_lab import external_data, flags, machine, names, seals, sessions
from whisper_lab.console import LabError
from whisper_lab.decoding import Options, decode, rate
from whisper_lab.onnx_whisper import OnnxWhisper, runtime_files

ROOT = Path(__file__).resolve().parent.parent
FLIPS = 60  # over all kinds of files
NAME = nano_pair.NAME


@pytest.fixture(scope="module")
def pair(nano_export, tmp_path_factory) -> Path:
    """A folder with nano's int8 pair and its runtime files, to be damaged and mended."""
    return nano_pair.take(nano_export, tmp_path_factory.mktemp("pair"), "_int8")


@pytest.fixture(scope="module")
def outside(nano_export, tmp_path_factory) -> Path:
    """The float32 pair with its weights in files beside the graphs, as 03 writes a large model."""
    folder = nano_pair.take(nano_export, tmp_path_factory.mktemp("outside"))
    for path in names.pair(folder, NAME).values():
        model = onnx.load(path)
        onnx.save_model(model, path, save_as_external_data=True, location=names.sidecar(path).name,
                        size_threshold=1024)
        seals.seal(path)
    return folder


def refused(call) -> LabError:
    with pytest.raises(LabError) as caught:
        call()
    assert caught.value.problem and "\n" not in caught.value.problem + caught.value.remedy
    return caught.value


def flipped(path: Path, draw: random.Random, start: int = 0, end: int | None = None) -> tuple[int, bytes]:
    """Flip one bit in bytes start..end of a file; returns what `mend` needs."""
    at = draw.randrange(start, end or path.stat().st_size)
    with path.open("r+b") as file:
        file.seek(at)
        was = file.read(1)
        file.seek(at)
        file.write(bytes([was[0] ^ 1 << draw.randrange(8)]))
    return at, was


def mend(path: Path, at: int, was: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(was)


def largest_weight(path: Path) -> tuple[int, int]:
    """Where the bytes of a graph's largest weight are in its file."""
    weight = max(onnx.load(path).graph.initializer, key=lambda tensor: len(tensor.raw_data)).raw_data
    start = path.read_bytes().index(weight)
    return start, start + len(weight)


def kinds(pair: Path, outside: Path) -> dict[str, tuple]:
    """Kind of damage -> file, first and last byte (None: of the file), what opens it."""
    graph, large = names.pair(pair, NAME, "int8"), names.pair(outside, NAME)
    size = graph["decoder"].stat().st_size
    notes = graph["decoder"].read_bytes().rindex(b"weights_sha256")
    files = names.runtime_folder(pair, NAME)
    int8, fp32 = (lambda: OnnxWhisper(pair, NAME, "int8", threads=1)), (lambda: OnnxWhisper(outside, NAME, threads=1))
    return {"anywhere in the encoder": (graph["encoder"], 0, None, int8),
            "structure": (large["decoder"], 0, 20_000, fp32),
            "weights": (graph["decoder"], *largest_weight(graph["decoder"]), int8),
            "weights beside the graph": (names.sidecar(large["encoder"]), 0, None, fp32),
            "metadata": (graph["decoder"], notes, notes + 80, int8),
            "the seal": (graph["decoder"], size - seals.SEAL_BYTES, size, int8),
            **{name: (files / name, 0, None, int8) for name in (*runtime_files(files), seals.MANIFEST)}}


def test_every_flipped_bit_is_noticed(pair, outside):
    made = kinds(pair, outside)
    for number in range(FLIPS):
        kind = list(made)[number % len(made)]
        path, start, end, opens = made[kind]
        at, was = flipped(path, random.Random(number), start, end)
        error = refused(opens)
        assert path.name in error.problem and "write it again: python 03-export" in error.remedy, (kind, number)
        mend(path, at, was)
    for *_, opens in made.values():
        assert opens().rules.languages  # mended, all opens again


def test_a_flipped_bit_of_the_single_graph(nano_export, tmp_path, call_script):
    path = tmp_path / "whisper-nano_end_to_end_int8.onnx"
    shutil.copy(single_nano.written(nano_export).path, path)
    for number in range(6):
        at, was = flipped(path, random.Random(number))
        status, out, err = call_script("08-single-onnx-model.py", "run", "media/kitchen.wav", path)
        assert status == 1 and not out and err.count("\n") == 2 and err.startswith(f"error: {path} "), err
        mend(path, at, was)
    assert call_script("08-single-onnx-model.py", "run", "media/kitchen.wav", path, "--quiet")[0] == 0


def test_a_graph_whose_digests_were_taken_out(pair, tmp_path):
    folder = Path(shutil.copytree(pair, tmp_path / "graphs"))
    for path in names.pair(folder, NAME, "int8").values():
        model = onnx.load(path)
        kept = [entry for entry in model.metadata_props if "sha256" not in entry.key]
        del model.metadata_props[:]
        model.metadata_props.extend(kept)
        onnx.save(model, path)
    assert "its seal is gone" in refused(lambda: OnnxWhisper(folder, NAME, "int8")).problem
    for path in names.pair(folder, NAME, "int8").values():  # sealed again, they still do not say what they belong to
        seals.seal(path)
    assert "no weights_sha256" in refused(lambda: OnnxWhisper(folder, NAME, "int8")).problem


@pytest.mark.parametrize("text", ["null", "", "None", "0"])
def test_a_digest_that_is_none_equals_nothing(text):
    facts = {"producer": seals.PRODUCER, "part": "encoder", "model": "m", "revision": "null",
             "random_weights": "false", "weights_sha256": text, "precision": "fp32", "format": "2",
             "cache_types": '{"cross": "float32"}'}
    meta = type("Meta", (), {"custom_metadata_map": facts})
    session = type("Session", (), {"get_modelmeta": lambda self: meta})()
    assert "weights_sha256" in refused(lambda: sessions._facts(Path("a"), session, "encoder", "c")).problem


def test_graphs_of_before_the_seal_open_with_a_warning(pair, tmp_path, capsys):
    folder = Path(shutil.copytree(pair, tmp_path / "graphs"))
    for path in names.pair(folder, NAME, "int8").values():
        model = onnx.load(path)
        notes = {entry.key: entry.value for entry in model.metadata_props if entry.key != seals.KEY}
        del model.metadata_props[:]
        onnx.helper.set_model_props(model, notes | {"format": "1"})
        onnx.save(model, path)
    (names.runtime_folder(folder, NAME) / seals.MANIFEST).unlink()
    flags.parse(flags.parser(""), [])  # notes on stderr
    OnnxWhisper(folder, NAME, "int8", threads=1)
    assert "damage to them cannot be noticed" in capsys.readouterr().err


@pytest.mark.parametrize("sets, early, warned", [(["AVX2", "FMA"], True, True), (["AVX2", "AVX-VNNI"], True, False),
                                                 (["NEON/ASIMD"], True, False), (None, True, False),
                                                 (["AVX2", "AVX512F"], False, False)])
def test_int8_of_an_earlier_03_has_a_warning_where_16_bits_overflow(pair, tmp_path, capsys, monkeypatch, sets, early,
                                                                    warned):
    """Rounded as quantize_dynamic does it, whisper-base lost words on x86 without VNNI, and nothing said so."""
    folder = Path(shutil.copytree(pair, tmp_path / "graphs"))
    for path in names.pair(folder, NAME, "int8").values():
        model = onnx.load(path)
        notes = {entry.key: entry.value for entry in model.metadata_props}
        recipe = json.loads(notes["recipe"])
        assert recipe["largest_pair"] == 128
        if early:
            del recipe["largest_pair"]
        del model.metadata_props[:]
        onnx.helper.set_model_props(model, notes | {"recipe": json.dumps(recipe)})
        onnx.save(model, path)
        seals.seal(path)
    monkeypatch.setattr(machine, "instruction_sets", lambda: sets)
    flags.parse(flags.parser(""), [])  # notes on stderr
    OnnxWhisper(folder, NAME, "int8", threads=1)
    said = capsys.readouterr().err
    assert ("lose words on this processor" in said and "--precision int8" in said) == warned, said


def test_damage_opens_where_someone_asks_for_it(pair, tmp_path):
    folder = Path(shutil.copytree(pair, tmp_path / "graphs"))
    path = names.pair(folder, NAME, "int8")["decoder"]
    flipped(path, random.Random(1), *largest_weight(path))
    assert OnnxWhisper(folder, NAME, "int8", threads=1, verify=False).rules.languages
    module = importlib.import_module("whisper_lab.__main__")
    assert module.arguments(["a.wav", "--no-verify"]).no_verify


def test_programs_that_only_show_graphs_warn(pair, tmp_path, call_script, monkeypatch):
    left, right = names.pair(Path(shutil.copytree(pair, tmp_path / "graphs")), NAME, "int8").values()
    monkeypatch.chdir(tmp_path)
    assert "damaged" not in call_script("04-compare-precisions.py", "--graphs", left, right)[2]
    flipped(right, random.Random(1), *largest_weight(right))
    status, _, err = call_script("04-compare-precisions.py", "--graphs", left, right)
    assert status == 0 and f"warning: {right} is damaged, or was changed" in err and str(left) not in err
    with monkeypatch.context() as patch:  # without a server
        patch.setattr(importlib.import_module("05-explore-in-netron"), "serve", lambda *_: None)
        assert f"warning: {right} is damaged" in call_script("05-explore-in-netron.py", "--graphs", left, right)[2]


def test_the_seal_changes_nothing_else(nano_export):
    """onnx and onnxruntime read a sealed graph as before; sealing twice changes nothing; metadata has the digest."""
    path = names.pair(nano_export / "graphs", NAME)["decoder"]
    notes = external_data.metadata(path)
    model = onnx.load(path)
    onnx.checker.check_model(str(path))
    assert {entry.key: entry.value for entry in model.metadata_props} == notes
    assert notes[seals.KEY] == seals.sealed(path) and notes["format"] == "2"
    listed = json.loads((names.runtime_folder(path.parent, NAME) / seals.MANIFEST).read_text())
    assert sorted(listed) == sorted(runtime_files(names.runtime_folder(path.parent, NAME)))


def test_sealing_again_is_no_change(nano_export, tmp_path):
    path = Path(shutil.copy(names.pair(nano_export / "graphs", NAME)["decoder"], tmp_path))
    before = path.read_bytes()
    seals.seal(path)
    assert path.read_bytes() == before and seals.fault(path) is None


# Numbers that are none -----------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def spoiled(nano_export, tmp_path_factory) -> OnnxWhisper:
    """nano's float32 pair with a single NaN, in the embedding of a token that no one says; sealed as if 03 wrote it."""
    folder = nano_pair.take(nano_export, tmp_path_factory.mktemp("spoiled"))
    path = names.pair(folder, NAME)["decoder"]
    model = onnx.load(path)
    weight = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    values = onnx.numpy_helper.to_array(weight).copy()
    token = values.shape[0] // 3
    values[token, 0] = np.nan
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(model, path)
    seals.seal(path)
    return OnnxWhisper(folder, NAME, threads=1)


@pytest.mark.parametrize("options", [
    Options(language="en"), Options(language="en", beams=3), Options(), Options(language="en", timestamps=True),
    Options(language="en", temperatures=(0.4,))], ids=["greedy", "beams", "detection", "timestamps", "sampling"])
def test_scores_that_are_no_numbers_are_an_error(spoiled, options):
    features = np.zeros((1, spoiled.spec.n_mels, spoiled.spec.n_frames), np.float32)
    error = refused(lambda: decode(spoiled, features, options))
    assert "not numbers" in error.problem and "python 03-export-encoder-decoder.py --model nano" in error.remedy


def test_so_they_are_while_someone_speaks(spoiled):
    from whisper_lab.stream.hypothesis import Recognizer

    features = np.zeros((spoiled.spec.n_mels, spoiled.spec.n_frames), np.float32)
    assert "not numbers" in refused(lambda: Recognizer(spoiled, "en").recognize(features, 1.0)).problem


def test_so_they_are_where_pytorch_found_the_tokens(spoiled):
    cross = spoiled.encode(np.zeros((1, spoiled.spec.n_mels, spoiled.spec.n_frames), np.float32))
    assert "not numbers" in refused(lambda: rate(spoiled, cross, spoiled.rules.prompt("en"), [100, 101])).problem


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("script", ["02-whisper-huggingface.py", "03-export-encoder-decoder.py"])
def test_a_checkpoint_whose_weights_are_no_numbers(nano, tmp_path, call_script, monkeypatch, script, value):
    from safetensors.numpy import load_file, save_file

    folder = Path(shutil.copytree(nano, tmp_path / "spoiled"))
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("decoder.layers.0.fc1.weight"))
    weights[name] = weights[name].copy()
    weights[name][3, 4] = value
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    monkeypatch.chdir(tmp_path)
    sound = [ROOT / "media" / "kitchen.wav"] if script.startswith("02") else []
    status, out, err = call_script(script, "--model", folder, *sound)
    assert status == 1 and not out and "decoder.layers.0.fc1.weight holds numbers that are not finite" in err
