"""08 and what it writes: the same tokens and text as 03's pair, from samples, with standard operators alone."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from tests.helpers import single_nano
from tests.helpers.export_tiny import exported
from tests.helpers.single_nano import part, script
from whisper_lab import audio, names
from whisper_lab.decoding import Options, decode
from whisper_lab.export import graphs, publish, structure
from whisper_lab.export.gates import NEAR_TIE
from whisper_lab.export.pair import open_runtime
from whisper_lab.features import FeatureSpec, log_mel
from whisper_lab.onnx_whisper import OnnxWhisper
from whisper_lab.single import gates, graph
from whisper_lab.single import mel as single_mel
from whisper_lab.single import text as single_text
from whisper_lab.tokenizer import Tokenizer

MEDIA = Path(__file__).resolve().parent.parent / "media"


@pytest.fixture(scope="module")
def nano(nano_export):
    return single_nano.written(nano_export)


@pytest.fixture(scope="module")
def session(nano):
    return graph.open_graph(nano.path, 1)


@pytest.fixture(scope="module")
def kitchen():
    return audio.load(MEDIA / "kitchen.wav").samples


def pair_says(whisper, samples, **options):
    return decode(whisper, log_mel(samples, whisper.spec)[None], Options(**options))[0]


# The whole -----------------------------------------------------------------------------------------------------------

def test_the_report_and_the_file(nano):
    document = json.loads((nano.place / "single.json").read_text())
    row = document["graphs"][0]
    assert row["file"] == "whisper-nano_end_to_end_int8.onnx" and row["size_bytes"] == nano.path.stat().st_size
    assert row["operators"] == "standard" and row["size_bytes"] - row["pair_bytes"] < 3_000_000
    assert {gate["name"] for gate in row["gates"]} >= {"mel", "tokens from samples", "weights stored once"}
    assert all(gate["passed"] for gate in row["gates"]) and row["time_ratio"] > 0
    assert sorted(path.name for path in nano.folder.glob("*end_to_end*")) == [row["file"]]


def test_a_graph_that_is_much_slower_than_its_pair_gets_a_warning(nano, tmp_path, monkeypatch):
    """A kernel that prepares its weights in every turn of the loop writes the same text, seven times as slowly."""
    warned = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(graph.console, "warn", warned.append)
    row = json.loads((nano.place / "single.json").read_text())["graphs"][0]
    for ratio in (1.1, None, 6.9):
        assert not warned
        graph.report(row | {"time_ratio": ratio}, "whisper-nano", "somewhere")
    assert len(warned) == 1 and "takes 6.9 times as long as the pair" in warned[0]


def test_the_signature(nano, session):
    model = onnx.load(nano.path)
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in graph.nodes(model.graph)} == {""}
    assert [(value.name, value.type, value.shape) for value in session.get_inputs()] == [
        ("samples", "tensor(float)", [1, "n"])]
    assert {value.name: value.type for value in session.get_overridable_initializers()} == {
        "audio_context": "tensor(float)", "language": "tensor(string)", "task": "tensor(string)",
        "max_length": "tensor(int64)"}
    assert [value.name for value in session.get_outputs()] == ["text", "tokens"]


@pytest.mark.parametrize("clip", sorted(path.stem for path in MEDIA.glob("*.wav")))
def test_every_clip_gives_the_pairs_tokens_and_text(nano, session, clip):
    samples = audio.load(MEDIA / f"{clip}.wav").samples[:nano.whisper.spec.n_samples]
    text, tokens = session.run(None, {"samples": samples[None]})
    expected = pair_says(nano.whisper, samples)
    assert tokens.tolist() == expected.tokens and list(text) == [expected.text] and expected.text


@pytest.mark.parametrize("count", [0, 1, 159, 160, 201, 16000, 159999, 160000])
def test_any_length_up_to_the_window(nano, session, count):
    # Different sentences: how often one was said that fills the window three times is nearly a tie in int8.
    said = np.concatenate([audio.load(MEDIA / f"{clip}.wav").samples for clip in ("hello", "digits")])
    samples = np.resize(said, count).astype(np.float32)
    tokens = session.run(["tokens"], {"samples": samples[None]})[0]
    assert tokens.tolist() == pair_says(nano.whisper, samples).tokens


def test_its_encoder_rounds_as_the_pairs_does(nano):
    """To the last bit: where one session fuses nodes that the other leaves apart, int8 makes a step of the rest."""
    keys, model = "present_key_cross_0", onnx.load(nano.path)
    model.graph.output.append(onnx.helper.make_tensor_value_info(keys, onnx.TensorProto.FLOAT, None))
    whole, mel = (graph.open_graph(each, 1) for each in (model.SerializeToString(), gates.mel_alone(nano.path)))
    for name, samples in gates.sounds(nano.whisper.spec).items():
        feeds = gates.feeds(samples)
        right = nano.whisper.encoder.run([keys], {"input_features": mel.run(None, feeds)[0]})[0]
        assert np.array_equal(whole.run([keys], feeds)[0], right), name


def test_language_task_and_length_may_be_given(nano, session, kitchen):
    for language in nano.whisper.rules.languages:
        for task in nano.whisper.rules.tasks:
            feeds = {"samples": kitchen[None], "language": np.array([language]), "task": np.array([task])}
            expected = pair_says(nano.whisper, kitchen, language=language, task=task)
            assert session.run(["tokens"], feeds)[0].tolist() == expected.tokens
    whole = pair_says(nano.whisper, kitchen).tokens
    for length in (0, 4, 5, 9, 10_000):
        feeds = {"samples": kitchen[None], "max_length": np.array([length])}
        text, tokens = session.run(None, feeds)
        assert tokens.tolist() == whole[:max(length - 4, 0)]  # the prompt is 4 tokens long
        assert text[0] == nano.whisper.rules.text(nano.whisper.tokenizer, tokens)


@pytest.mark.parametrize(("feeds", "words"), [
    ({"samples": np.zeros((1, 160001), np.float32)}, "samples must not be longer than the window of 10 s"),
    ({"samples": np.full((1, 160), np.nan, np.float32)}, "samples must be finite numbers"),
    ({"samples": np.full((1, 160000), np.inf, np.float32)}, "samples must be finite numbers"),
    ({"samples": np.zeros((2, 16000), np.float32)}, "Got: 2 Expected: 1"),
    ({"samples": np.zeros(16000, np.float32)}, "Invalid rank for input: samples"),
    ({"samples": np.zeros((1, 16000), np.float32), "language": np.array(["xx"])}, "language must be one of en, nl"),
    ({"samples": np.zeros((1, 16000), np.float32), "task": np.array(["sing"])}, "task must be one of"),
])
def test_what_it_cannot_do_it_says(session, feeds, words):
    with pytest.raises(Exception, match="(?s).*") as caught:
        session.run(None, feeds)
    assert words in str(caught.value)


# Every precision, and graphs of other kinds --------------------------------------------------------------------------

def tiny_single(precision: str, folder: Path, runtime: Path | None = None) -> Path:
    tiny = exported()
    path = graph.path_of(folder, "tiny", precision)
    graphs.save(script().compose(tiny.pairs[precision], runtime or tiny.checkpoint.folder), path)
    return path


def says_the_same(path: Path, pair: OnnxWhisper, feeds: dict | None = None) -> bool:
    """On the graph's own mel: of random weights its last digit may decide. A near tie may fall either way."""
    session, probe = (graph.open_graph(each, 1) for each in (path, gates.mel_alone(path)))
    same = []
    for samples in gates.sounds(pair.spec).values():
        samples = {"samples": samples[None, :pair.spec.n_samples]}
        tokens = session.run(["tokens"], samples | (feeds or {}))[0].tolist()
        mel = probe.run(None, samples)[0]
        same.append(gates.answers_apart(pair, mel, tokens, None, 0.0) < 0.02)  # nats
    return all(same) and len(same) > 2


def test_a_language_that_is_nearly_as_likely_is_a_near_tie(kitchen, nano, monkeypatch):
    """Of one sample and of noise the language is a coin toss; the answer in the other language is not wrong."""
    pair, mel = nano.whisper, gates.heard(nano.whisper, kitchen)[None]
    first, second = list(pair.rules.languages)[:2]
    monkeypatch.setattr(gates, "detect_language", lambda *_: [
        dict.fromkeys(pair.rules.languages, 0.001) | {first: 0.5, second: 0.4}])
    heard = pair_says(pair, kitchen, language=first)
    other = replace(heard, tokens=heard.tokens[:3])
    monkeypatch.setattr(gates, "decode_encoded", lambda runtime, cross, audios, options: [
        heard if options.language == first else other])
    assert gates.answers_apart(pair, mel, heard.tokens, None, 0.7) == 0
    assert gates.answers_apart(pair, mel, other.tokens, None, 0.7) == pytest.approx(np.log(0.5 / 0.4))
    assert gates.answers_apart(pair, mel, other.tokens, None, 0.1) > 0.7  # that language is too unlikely
    assert gates.answers_apart(pair, mel, [heard.tokens[0], 0], None, 0.7) > 0.7  # the answer in neither


@pytest.mark.parametrize("precision", names.PRECISIONS)
def test_every_precision_says_what_its_pair_says(nano, precision, tmp_path):
    tiny = exported()
    path = tiny_single(precision, tmp_path)
    assert says_the_same(path, open_runtime(*tiny.pairs[precision].values(), threads=1, like=tiny.runtime))
    assert all(gate.passed for gate in gates.check_structure(path, tiny.pairs[precision], precision))
    assert ("MatMulNBits" in graph.operators(path)) == (precision == "int4")


def test_weights_in_blocks_are_the_loop_s_own(nano, tmp_path):
    """From outside the loop onnxruntime packs none of them, and a token of whisper-base takes seven times as long."""
    def graphs_of(one):
        return [one, *(inner for node in one.node for attribute in node.attribute if attribute.HasField("g")
                       for inner in graphs_of(attribute.g))]

    checked = 0
    for one in graphs_of(onnx.load(tiny_single("int4", tmp_path)).graph):
        own = {weight.name for weight in one.initializer}
        for node in one.node:
            if node.op_type == "MatMulNBits" and node.name.startswith("step/"):
                assert set(node.input[1:]) <= own, node.name
                checked += 1
    assert checked == structure.linear_layers("decoder", exported().model.config)


@pytest.mark.parametrize("context", [0.0, 0.25, 1.0, 30.0])
def test_it_hears_as_much_silence_as_the_caller_says(context, tmp_path):
    """As the pair does: the same features, and the same tokens from them."""
    tiny = exported()
    path, pair = tiny_single("fp32", tmp_path), open_runtime(*tiny.pairs["fp32"].values(), threads=1, like=tiny.runtime)
    mel = graph.open_graph(gates.mel_alone(path), 1)
    asked, lengths = {"audio_context": np.array([context], np.float32)}, set()
    assert says_the_same(path, pair, asked)
    for count in (1, 3_000, 9_001, 16_000):
        samples = np.random.default_rng(count).standard_normal(count).astype(np.float32) * 0.1
        found, right = mel.run(None, {"samples": samples[None]} | asked)[0][0], gates.heard(pair, samples, context)
        assert found.shape == right.shape and np.abs(found - right).max() < 1e-4
        lengths.add(found.shape[1])
    # A window of one second; lengths are tenths of it, and 0.2 s of silence the least.
    assert lengths == {0.0: {30, 40, 80, 100}, 0.25: {30, 50, 90, 100}}.get(context, {100})


@pytest.mark.parametrize("silence_s, frames", [(None, 1000), (2.0, 460), (0.0, 280)])
def test_the_silence_that_the_checkpoint_needs_is_in_the_graph(silence_s, frames, kitchen):
    spec = FeatureSpec(64, 400, 160, 16000, 160000)
    mel = part(lambda block, given: single_mel.log_mel(block, given, spec, silence_s), ir.DataType.FLOAT, [1, "n"],
               ir.DataType.FLOAT, [1, spec.n_mels, None])
    found = mel(kitchen[None, :40_001])[0]
    assert found.shape[1] == frames
    assert np.abs(found - log_mel(kitchen[:40_001], spec, frames)).max() < 1e-4


@pytest.mark.parametrize("precision", ["fp32", "int4"])
@pytest.mark.parametrize("limit", [1000, 10**9])
def test_weights_in_a_sidecar(nano, precision, limit, tmp_path, monkeypatch):
    """As large models have them; where they fit in one file after all, they are joined."""
    tiny = exported()
    monkeypatch.setattr(graphs, "WORKING_LIMIT", 1000)
    monkeypatch.setattr(graphs, "SINGLE_FILE_LIMIT", limit)
    monkeypatch.setattr(publish, "SINGLE_FILE_LIMIT", limit)
    (tmp_path / "staged").mkdir()
    path = publish.publish([tiny_single(precision, tmp_path / "staged")], tmp_path)[0]
    shutil.rmtree(tmp_path / "staged")
    assert names.sidecar(path).exists() == (limit == 1000)
    monkeypatch.chdir("/")
    assert says_the_same(path, open_runtime(*tiny.pairs[precision].values(), threads=1, like=tiny.runtime))


def test_an_english_only_checkpoint_has_no_language(nano, tmp_path):
    from whisper_lab.tokens import TokenRules

    tiny = exported()
    runtime = shutil.copytree(tiny.checkpoint.folder, tmp_path / "runtime")
    generation = json.loads((runtime / "generation_config.json").read_text())
    for key in ("lang_to_id", "task_to_id"):
        generation.pop(key, None)
    (runtime / "generation_config.json").write_text(json.dumps(generation | {"is_multilingual": False}))
    like = SimpleNamespace(rules=TokenRules.from_folder(runtime), spec=tiny.runtime.spec,
                           tokenizer=tiny.runtime.tokenizer)
    assert not like.rules.languages
    path = tiny_single("fp32", tmp_path, runtime)
    assert [value.name for value in onnx.load(path).graph.input] == ["samples", "audio_context", "max_length"]
    assert says_the_same(path, open_runtime(*tiny.pairs["fp32"].values(), threads=1, like=like))


# Parts ---------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("spec", [FeatureSpec(80, 400, 160, 16000, 480000), FeatureSpec(128, 400, 160, 16000, 480000),
                                  FeatureSpec(64, 400, 160, 16000, 160000)], ids=["base", "large-v3", "nano"])
def test_the_mel_is_the_labs_own(spec, kitchen):
    mel = part(lambda block, given: single_mel.log_mel(block, given, spec), ir.DataType.FLOAT, [1, "n"],
               ir.DataType.FLOAT, [1, spec.n_mels, spec.n_frames])
    noise = np.random.default_rng(1).standard_normal(spec.n_samples).astype(np.float32)
    for samples in (kitchen, kitchen[:1], noise * 0.03, noise[:12345], np.zeros(400, np.float32), noise[:0]):
        found = mel(samples[None])
        assert found.shape == (1, spec.n_mels, spec.n_frames)
        assert np.abs(found[0] - log_mel(samples, spec)).max() < 1e-4


def spelling(words):
    return part(lambda block, given: single_text.text(block, given, words), ir.DataType.INT64, ["k"],
                ir.DataType.STRING, [1])


@pytest.fixture(scope="module")
def spell():
    """tokens -> text, for a vocabulary of all single bytes and some words that end within a character."""
    words = [bytes([i]) for i in range(256)]
    words += ["é".encode(), " Zoë".encode(), b"\xf0\x9f", b"\x98\x80", b"a\xe2\x82", b""]
    run = spelling(words)
    return words, lambda tokens: run(np.array(tokens, np.int64))[0]


@pytest.mark.parametrize("text", [
    "", " ", "é", "café", " Zoë ", "10 €", "日本語", "😀", "👩‍🚀 ok", "🏴\U000e0067\U000e007f", "\u00a0x\u3000", "𠀋",
    "tab\tend\n", "\x00", "\ufffd", "\ud7ff\ue000", "\uffff"])
def test_text_byte_by_byte(spell, text):
    assert spell[1](list(text.encode())) == text.strip()


@pytest.mark.parametrize("raw", [
    b"\xe2\x82", b"\xe2\x82A", b"\xc3", b"\x80\x80", b"\xe0\x80\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80",
    b"\xf0\x9f\x98", b"\xf0\x9fx\x98\x80", b"\xc0\xaf", b"\xff\xfe", b"\xf1\x80\x80\xe2\x82\xac", b"a\xf0"])
def test_malformed_bytes_are_replaced_as_python_does(spell, raw):
    assert spell[1](list(raw)) == raw.decode("utf-8", "replace").strip()


def test_random_tokens_and_special_ones(spell):
    words, spelled = spell
    generator = np.random.default_rng(3)
    edges = bytes.fromhex("80 8f 90 9f a0 bf c2 c3 e0 e2 ed ef f0 f4 f5")  # of the ranges that UTF-8 is made of
    pool = [*range(0x20, 0x7F, 9), *edges, *range(256, len(words)), len(words), len(words) + 1000]  # two special tokens
    for _ in range(400):
        tokens = generator.choice(pool, generator.integers(1, 40))
        expected = b"".join(words[i] for i in tokens if i < len(words)).decode("utf-8", "replace")
        expected = "".join(c if ord(c) < 0x323B0 or 0xE0000 <= ord(c) < 0xE01F0 else "\ufffd" for c in expected)
        assert spelled(tokens) == expected.strip(), tokens.tolist()


def test_the_whole_vocabulary(nano):
    """Every token alone and beside another, against the tokenizers library."""
    whisper = nano.whisper
    end = whisper.rules.end
    spelled = spelling(single_text.token_bytes(whisper.tokenizer, whisper.rules))
    generator = np.random.default_rng(5)
    rows = [[i] for i in range(end + 3)] + [generator.integers(0, end, 60).tolist() for _ in range(50)]
    for tokens in rows:
        assert spelled(np.array(tokens))[0] == whisper.rules.text(whisper.tokenizer, tokens)


def test_a_token_added_behind_the_timestamps(nano, tmp_path):
    """A fine-tuned vocabulary has such: it is text, in the graph as in the tokenizer."""
    document = json.loads((names.runtime_folder(nano.folder, single_nano.NAME) / "tokenizer.json").read_text())
    rules = nano.whisper.rules
    added = rules.timestamp_end + 2
    document["added_tokens"].append({"id": added, "content": " naïve", "special": False, "single_word": False,
                                     "lstrip": False, "rstrip": False, "normalized": False})
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    words = single_text.token_bytes(Tokenizer.from_folder(tmp_path), replace(rules, vocab_size=added + 1))
    spelled = spelling(words)
    tokens = [rules.timestamp_begin, added, rules.end, added, rules.timestamp_end]
    assert spelled(np.array(tokens))[0] == "naïve naïve"


# Faults made on purpose ----------------------------------------------------------------------------------------------

@pytest.fixture
def refused(nano, monkeypatch, call_script, tmp_path):
    """Run 08 again, on one clip, into a copy of the folder; returns its error."""
    def run(*arguments) -> str:
        folder = tmp_path / "graphs"
        if not folder.exists():
            shutil.copytree(nano.folder, folder, ignore=shutil.ignore_patterns("*end_to_end*"))
        clip = {"kitchen": audio.load(MEDIA / "kitchen.wav").samples}
        monkeypatch.setattr(gates, "sounds", lambda spec, seed=0, given="samples": clip)
        monkeypatch.chdir(tmp_path)
        status, _, err = call_script("08-single-onnx-model.py", "--model", "nano", "--precision", "int8",
                                     "--model-dir", folder, "--quiet", *arguments)
        assert status == 1 and [path.name for path in folder.glob("*end_to_end*")] == [
            "whisper-nano_end_to_end_int8.rejected.onnx"]
        assert "verification" in (facts := graph.metadata.read(next(folder.glob("*rejected*"))))
        assert facts["verification"].startswith("rejected")
        return err

    return run


def test_a_wrong_window_is_seen(refused, monkeypatch):
    monkeypatch.setattr(single_mel, "hann", lambda n_fft: np.ones(n_fft, np.float32))
    assert "gate 'mel' failed" in refused()


def test_tokens_that_may_not_come_are_seen(refused, monkeypatch):
    from whisper_lab.single import loop

    monkeypatch.setattr(loop, "LATER", loop.LANGUAGE)  # after the first word nothing but languages
    assert "gate 'tokens from the same mel' failed" in refused()


def test_a_token_wrongly_allowed_is_seen_though_no_clip_says_it(refused, monkeypatch):
    from whisper_lab.single import loop

    sound = loop.may_come

    def lax(block, rules):
        from dataclasses import replace

        return sound(block, replace(rules, suppress=rules.suppress[1:]))
    monkeypatch.setattr(loop, "may_come", lax)
    assert "gate 'tokens that may come' failed" in refused()


def test_a_near_tie_is_allowed_and_said_and_no_more():
    """The mel's last digit decides between tokens that are nearly tied: as whisper-base in int8 does on noise."""
    gate = gates._same_tokens("t", [(0.0, "kitchen"), (0.4, "noise")], NEAR_TIE["int8"])
    assert gate.passed and "near tie, allowed: noise (0.4 nats)" in gate.detail
    assert not gates._same_tokens("t", [(0.0, "kitchen"), (4.0, "noise")], NEAR_TIE["int8"]).passed
    assert not gates._same_tokens("t", [(0.4, "noise")], NEAR_TIE["fp32"]).passed


@pytest.mark.parametrize(("name", "apart"), [("kitchen", 3.0)] + [(name, 0.0) for name in gates.NO_SPEECH])
def test_the_last_digit_of_a_mel_may_decide_only_where_nothing_is_said(nano, session, monkeypatch, name, apart):
    """What int8 makes of a click or of noise is a coin toss, and by real base's graphs it once was 0.92 nats."""
    mel, samples = graph.open_graph(gates.mel_alone(nano.path), 1), gates.sounds(nano.whisper.spec)[name]
    own = mel.run(None, gates.feeds(samples))[0]
    monkeypatch.setattr(gates, "answers_apart", lambda _, features, *rest: 3.0 * (not np.array_equal(features, own)))
    found = gates.hear(session, nano.whisper, mel, name, samples, None)
    assert found.same_mel == 0 and found.own_mel == apart and found.mel <= gates.MEL


def test_a_wrong_character_is_seen(refused, monkeypatch):
    table = single_text.characters()
    table[ord("e")] = "3"
    monkeypatch.setattr(single_text, "characters", lambda: table)
    assert "gate 'text of the tokens' failed" in refused()


def change(monkeypatch, edit):
    """Let 08's compose hand out a graph that `edit` has had in its hands."""
    sound = script().compose

    def broken(*arguments):
        model = sound(*arguments)
        edit(model)
        return model
    monkeypatch.setattr(script(), "compose", broken)


def test_an_operator_that_is_not_standard_is_seen(refused, monkeypatch):
    def foreign(model):
        node = next(node for node in model.graph if node.op_type == "Gelu")
        node.domain = "com.microsoft"
        model.graph.opset_imports["com.microsoft"] = 1
    change(monkeypatch, foreign)
    assert "gate 'operators' failed (beyond the standard: Gelu" in refused()


def test_a_weight_stored_twice_is_seen(refused, monkeypatch):
    def twice(model):
        weight = model.graph.initializers["decoder.embed_tokens.weight_quantized"]
        copy = graphs.constant(model, "copy", weight.const_value.numpy())
        model.graph.append(ir.node("Identity", [copy], name="copied"))
    change(monkeypatch, twice)
    assert "gate 'weights stored once' failed" in refused()


# Its use -------------------------------------------------------------------------------------------------------------

def test_the_ten_lines(nano, call_script, references, tmp_path):
    import ast

    tree = ast.parse(script().TEN_LINES)
    imported = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    assert imported == {"sys", "wave", "numpy", "onnxruntime"} and len(script().TEN_LINES.splitlines()) == 10
    arguments = ("08-single-onnx-model.py", "run", MEDIA / "kitchen.wav", "--model", "nano", "--precision", "int8")
    status, out, err = call_script(*arguments, "--model-dir", nano.folder)
    expected = pair_says(nano.whisper, audio.load(MEDIA / "kitchen.wav").samples).text
    assert (status, out) == (0, f"{script().TEN_LINES}\n{expected}\n"), err
    status, out, err = call_script("08-single-onnx-model.py", "run", MEDIA / "kitchen.wav", nano.path, "--quiet")
    assert (status, out) == (0, f"{expected}\n"), err


@pytest.mark.parametrize(("arguments", "problem"), [
    (("run", MEDIA / "long.flac"), "lasts"), (("run", "nothing.wav"), "nothing.wav"),
    (("run", MEDIA / "kitchen.wav", "no.onnx"), "there is no graph no.onnx"),
    (("--precision", "fp16"), "python 03-export-encoder-decoder.py --model nano --precision fp16"),
    (("run", MEDIA / "kitchen.wav", "--precision", "fp16"), "python 08-single-onnx-model.py --model nano"),
])
def test_errors_are_two_lines(nano, call_script, arguments, problem):
    given = arguments if "--precision" in arguments else (*arguments, "--precision", "int8")
    status, _, err = call_script("08-single-onnx-model.py", *given, "--model", "nano", "--model-dir", nano.folder,
                                 "--quiet")
    assert status == 1 and problem in err and len(err.strip().splitlines()) == 2


def test_the_pairs_graphs_are_not_single_ones(nano, call_script):
    pair = names.pair(nano.folder, single_nano.NAME, "int8")
    status, _, err = call_script("08-single-onnx-model.py", "run", MEDIA / "kitchen.wav", pair["encoder"])
    assert status == 1 and "is not a single graph from samples to text" in err


def test_wrong_usage(call_script):
    assert call_script("08-single-onnx-model.py", "walk", "x.wav")[0] == 2
    assert call_script("08-single-onnx-model.py", "run")[0] == 2
    status, _, err = call_script("08-single-onnx-model.py", "run", MEDIA / "kitchen.wav", MEDIA / "time.wav")
    assert status == 2 and "one sound file" in err and "time.wav is no graph" in err


def test_a_file_that_08_never_named_is_not_to_be_written_by_it(call_script, tmp_path):
    status, _, err = call_script("08-single-onnx-model.py", "run", MEDIA / "kitchen.wav", tmp_path / "nope.onnx")
    assert status == 1 and "there is no graph" in err and "--model nope" not in err
    assert err.rstrip().endswith("python 08-single-onnx-model.py --model nano --precision int8")
