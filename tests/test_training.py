"""The training recipe on a toy corpus: same seed same run, a stopped run resumes, the decoder sees no future."""

import json
import logging
import random
import re
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from training import corpus, examples, initial_checkpoint
from training.corpus import Utterance
from whisper_lab.spoken import grammar
from whisper_lab.spoken.voices import SAMPLE_RATE, trim

WINDOW = initial_checkpoint.WINDOW_S * SAMPLE_RATE


@pytest.fixture(scope="module")
def toy_corpus(tmp_path_factory):
    """Noise bursts that claim to be speech: enough for everything but learning."""
    folder, noise, draw = tmp_path_factory.mktemp("corpus"), np.random.default_rng(0), random.Random(0)
    utterances, sounds, start = [], [], 0
    for i in range(120):
        made = grammar.sentence(draw, "nl" if i % 4 == 0 else "en")
        kind, human = ("digit", i % 3 == 0) if i % 2 else (made.kind, False)
        text = grammar.english_number(i % 10) if kind == "digit" else made.text
        length = int(noise.integers(4000, 30000))
        language = "en" if kind == "digit" else made.language
        voice = "human/x" if human else "toy/y"
        utterances.append(Utterance(kind, language, text, made.translation, voice, human, i % 5 == 0, start, length))
        sounds.append((noise.standard_normal(length) * 3000).astype(np.int16))
        start += length
    np.save(folder / "audio.npy", np.concatenate(sounds))
    (folder / "index.json").write_text(json.dumps([asdict(u) for u in utterances]))
    return folder


@pytest.fixture(scope="module")
def nothing_learnt(tmp_path_factory):
    """(model, tokenizer) before training."""
    return initial_checkpoint.make(tmp_path_factory.mktemp("initial"))


def test_the_tokenizer_file_puts_the_same_before_a_text_as_transformers(tmp_path):
    from tokenizers import Tokenizer

    tokenizer = initial_checkpoint.make_tokenizer(tmp_path)
    first = [tokenizer.convert_tokens_to_ids(token) for token in ("<|startoftranscript|>", "<|notimestamps|>")]
    written = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode("hello").ids
    assert written == tokenizer("hello").input_ids and written[:2] == first


@pytest.mark.parametrize("n, english, dutch", [
    (0, "zero", "nul"), (22, "twenty two", "tweeëntwintig"), (101, "one hundred and one", "honderdeen"),
    (1000, "one thousand", "duizend"), (2345, "two thousand three hundred and forty five",
                                       "tweeduizend driehonderdvijfenveertig"),
])  # fmt: skip
def test_numbers_in_words(n, english, dutch):
    assert (grammar.english_number(n, conjunction=True), grammar.dutch_number(n)) == (english, dutch)


def test_grammar_repeats_itself_from_the_seed_and_keeps_sentences_out():
    def draw(seed):
        rng = random.Random(seed)
        return [grammar.sentence(rng, "en") for _ in range(2000)]
    first, again = draw(1), draw(1)
    assert first == again != draw(2)
    assert 0.02 < np.mean([s.held_out for s in first]) < 0.08
    assert all(set(s.text) <= set(examples.CHARACTERS) for s in first)


def test_the_grammar_as_a_command(call_script):
    status, out, err = call_script("whisper_lab.spoken.grammar", "--count", "3", "--language", "nl", "--seed", "1")
    assert status == 0 and err == "" and [line.count("  =  ") for line in out.splitlines()] == [1, 1, 1]
    assert call_script("whisper_lab.spoken.grammar", "--count", "3", "--language", "nl", "--seed", "1")[1] == out
    assert [call_script("whisper_lab.spoken.grammar", flag, "-1")[0] for flag in ("--seed", "--count")] == [2, 2]


def test_a_dutch_sentence_means_its_english_twin():
    pairs = {s.text: s.translation for s in (grammar.sentence(random.Random(i), "nl") for i in range(3000))}
    assert pairs["hoe laat is het"] == "what time is it"
    calls = {text: english for text, english in pairs.items() if text.startswith("bel ") and len(text.split()) == 2}
    assert calls and all(english == text.replace("bel", "call") for text, english in calls.items())


def test_trim_keeps_the_sound_and_its_margin():
    sound = np.concatenate([np.zeros(8000), np.ones(1600), np.zeros(8000)]).astype(np.float32)
    assert len(trim(sound)) == pytest.approx(1600 + 2 * 320, abs=2)
    assert len(trim(np.zeros(100, np.float32))) == 0


def test_every_plan_has_one_valid_answer(toy_corpus, nothing_learnt):
    _, tokenizer = nothing_learnt
    utterances, _ = corpus.load(toy_corpus)
    planner = examples.Planner(utterances, tokenizer, WINDOW, initial_checkpoint.MAX_TARGET_POSITIONS)
    rng, stamps, nospeech = random.Random(3), 0, tokenizer.convert_tokens_to_ids("<|nospeech|>")
    for _ in range(300):
        plan = planner.draw(rng)
        assert len(plan.inputs) == len(plan.labels) <= initial_checkpoint.MAX_TARGET_POSITIONS
        assert plan.labels[-1] == tokenizer.eos_token_id
        assert (nospeech in plan.labels) == (not plan.segments)
        times = [i - planner.first_timestamp for i in plan.labels if i >= planner.first_timestamp]
        stamps += len(times)
        assert times == sorted(times) and all(0 <= t <= 50 * initial_checkpoint.WINDOW_S for t in times)
        assert all(p.at >= 0 for p in plan.placements)
    assert stamps > 100


def test_held_out_utterances_never_train(toy_corpus, nothing_learnt):
    utterances, _ = corpus.load(toy_corpus)
    kept = {u.start for u in utterances if u.held_out}
    planner = examples.Planner(utterances, nothing_learnt[1], WINDOW, initial_checkpoint.MAX_TARGET_POSITIONS)
    rng = random.Random(0)
    placed = {p.start for _ in range(500) for p in planner.draw(rng).placements}
    assert placed and not placed & kept


def test_features_in_training_are_those_of_the_extractor():
    import torch

    from training.audio_augmentation import Augmenter

    sound = (np.random.default_rng(0).standard_normal(WINDOW) * 0.1).astype(np.float32)
    extractor = initial_checkpoint.extractor()
    batch = {"wave": torch.from_numpy(sound)[None], "recorded": torch.tensor([WINDOW])}
    ours = Augmenter(extractor.mel_filters, "cpu").render(batch, augment=False)[0].numpy()
    theirs = extractor(sound, sampling_rate=SAMPLE_RATE, return_tensors="np").input_features[0]
    assert np.abs(ours - theirs).max() < 1e-4


def test_degrading_is_seeded_and_stays_finite():
    import torch

    from training.audio_augmentation import Augmenter

    sound = np.random.default_rng(1).standard_normal((24, 48_000)).astype(np.float32) * 0.05
    sound[0] = 0  # digital silence must not divide by nothing
    augmenter = Augmenter(initial_checkpoint.extractor().mel_filters, "cpu")
    def render(seed):
        augmenter.generator.manual_seed(seed)
        return augmenter.render({"wave": torch.from_numpy(sound), "recorded": torch.full((24,), 48_000)})
    first = render(1)
    assert torch.isfinite(first).all()
    assert torch.equal(first, render(1)) and not torch.equal(first, render(2))


def test_the_decoder_does_not_see_the_future(nothing_learnt):
    import torch

    model, _ = nothing_learnt
    features = torch.randn(1, initial_checkpoint.N_MELS, 100 * initial_checkpoint.WINDOW_S)
    tokens = torch.randint(0, 500, (1, 9))
    changed = tokens.clone()
    changed[0, -1] += 1
    with torch.no_grad():
        logits = [model.eval()(input_features=features, decoder_input_ids=t).logits for t in (tokens, changed)]
    assert torch.equal(logits[0][:, :-1], logits[1][:, :-1])
    assert not torch.equal(logits[0][:, -1], logits[1][:, -1])


def test_encode_of_a_full_window_is_the_encoder(nothing_learnt):
    import torch

    from training.train import encode

    model, _ = nothing_learnt
    features = torch.randn(1, initial_checkpoint.N_MELS, 100 * initial_checkpoint.WINDOW_S)
    with torch.no_grad():
        expected = model.eval().model.encoder(features).last_hidden_state
        assert torch.allclose(encode(model.model.encoder, features), expected, atol=1e-5)


def test_a_run_that_was_stopped_ends_where_an_unbroken_one_ends(toy_corpus, tmp_path):
    import torch

    from training import train

    def run(folder, *more):
        args = train.arguments().parse_args([
            "--corpus", str(toy_corpus), "--output-dir", str(folder), "--steps", "3", "--batch-size", "2",
            "--warmup", "1", "--workers", "0", "--validation-clips", "0", "--no-bfloat16", *more])  # fmt: skip
        return train.train(args, "cpu").average.state_dict()
    whole = run(tmp_path / "whole")
    part = run(tmp_path / "part", "--max-minutes", "0")
    resumed = run(tmp_path / "part")
    validation = json.loads((tmp_path / "part" / "validation.json").read_text())
    assert validation["step"] == 3
    assert not all(torch.equal(part[name], whole[name]) for name in whole)
    assert all(torch.allclose(resumed[name], whole[name], atol=1e-6) for name in whole)


def test_a_run_can_begin_at_finished_weights(toy_corpus, tmp_path):
    from training import train

    args = train.arguments().parse_args([
        "--corpus", str(toy_corpus), "--output-dir", str(tmp_path), "--init", "whisper_model_dir/whisper-nano",
    ])  # fmt: skip
    trainer = train.Trainer(args, "cpu")
    import torch
    from safetensors.torch import load_file

    published = load_file("whisper_model_dir/whisper-nano/model.safetensors")
    for weights in (trainer.model, trainer.average, trainer.working):
        for name, tensor in weights.state_dict().items():
            if name in published:
                assert torch.allclose(tensor.float(), published[name].float(), atol=4e-3, rtol=1e-2), name
    assert train.ease(0, args) == 1.0


def test_a_round_for_the_decoder_leaves_the_encoder_alone(toy_corpus, tmp_path):
    """Every byte: what was built on the encoder, such as the miniature's projector, stays valid."""
    import torch

    from training import train
    from whisper_lab import checkpoints

    nano, options = "whisper_model_dir/whisper-nano", ["--corpus", str(toy_corpus), "--validation-clips", "0"]
    options += ["--output-dir", str(tmp_path), "--steps", "2", "--batch-size", "2", "--workers", "0", "--decoder-only"]
    with pytest.raises(SystemExit):
        train.main(options)
    assert train.main([*options, "--init", nano]) == 0
    transformers = checkpoints.import_transformers()
    before, after = (transformers.WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float16)
                     .state_dict() for folder in (nano, tmp_path / "average"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert "model.decoder.layers.0.fc1.weight" in changed
    assert not [name for name in changed if "encoder." in name]

    from safetensors.torch import load_file

    from training import publish

    with pytest.raises(SystemExit):
        publish.main(["--share", "0.5"])
    for share, expected in ((0.0, before), (1.0, after)):
        publish.publish(tmp_path, toy_corpus, tmp_path / "mixed", 1, 0, Path(nano), share)
        mixed = load_file(tmp_path / "mixed" / "model.safetensors")
        assert all(torch.equal(tensor, expected[name]) for name, tensor in mixed.items())


def test_altered_sentences_are_english_and_none_is_held_out(monkeypatch):
    monkeypatch.setattr(corpus.voices, "speak", lambda voice, texts: [np.ones(9000, np.int16)] * len(texts))
    for language, kept in (("en", False), ("en", True), ("nl", False)):
        alter = [job[4] for job in corpus._plan(0.01, 0, 0.5) if job[2:4] == (language, kept)]
        voice = corpus.voices.random_voice(random.Random(0), language, kept)
        made = [utterance for utterance, _ in corpus._speak_job((voice, 60, language, kept, alter[0], 3))]
        altered = [utterance.text for utterance in made if utterance.kind == "altered"]
        assert (15 < len(altered) < 45) if (language, kept) == ("en", False) else not altered
        assert not [text for text in altered if grammar.Sentence("altered", "en", text, text).held_out]
        known = {grammar.sentence(random.Random(i)).text for i in range(2000)}
        assert len(set(altered) & known) < 0.3 * len(altered) + 1


def test_one_command_makes_the_checkpoint_in_three_rounds(toy_corpus, tmp_path, monkeypatch):
    """Everything but the corpus and most of the evaluation, at the size of a toy."""
    from training import evaluate, make_nano, train
    from whisper_lab import checkpoints

    monkeypatch.setattr(train, "validate", lambda *args: {})
    right = evaluate.evaluate
    monkeypatch.setattr(evaluate, "CONDITIONS", {"clean": evaluate.CONDITIONS["clean"]})
    monkeypatch.setattr(evaluate, "MATERIAL", {"English": ("synthetic digits", "en")})
    monkeypatch.setattr(evaluate, "false_words", lambda judge, seed: {"digital silence": 0})
    monkeypatch.setattr(evaluate, "evaluate", lambda *args, **kw: right(*args, **kw | {"clips": 2}))
    for name in ("corpus", "altered"):
        shutil.copytree(toy_corpus, tmp_path / "work" / name)
    output = tmp_path / "whisper-toy"
    steps = ["--steps", "2", "1", "1"]
    assert make_nano.main(["--work", str(tmp_path / "work"), *steps, "--output-dir", str(output)]) == 0
    assert [made["step"] for made in json.loads((output / "training.json").read_text())] == [2, 1, 1]
    card = (output / "README.md").read_text()
    assert re.search(r"2 steps in \d+ minutes? on cpu, then 1 steps in \d+ minutes? on cpu", card)
    assert checkpoints.load_model(checkpoints.resolve(str(output))).config.num_mel_bins == initial_checkpoint.N_MELS


def test_no_stage_of_the_one_command_forgets_quiet(toy_corpus, tmp_path, monkeypatch, capsys):
    from training import evaluate, make_nano, publish, train
    from whisper_lab import checkpoints, console, flags

    for name in ("corpus", "altered"):
        shutil.copytree(toy_corpus, tmp_path / name)
    levels = []

    def parse_only(argv):
        flags.parse(train.arguments(), argv)
        levels.append(console.log.level)

    monkeypatch.setattr(train, "main", parse_only)
    monkeypatch.setattr(publish, "publish", lambda *args, **kw: levels.append(console.log.level))
    for module, name in ((publish, "write_card"), (evaluate, "evaluate"), (evaluate, "table"),
                         (checkpoints, "resolve")):
        monkeypatch.setattr(module, name, lambda *args, **kw: None)
    for given, level in ((["--quiet"], logging.ERROR), (["--log-level", "DEBUG"], logging.DEBUG), ([], logging.INFO)):
        levels.clear()
        assert make_nano.main(["--work", str(tmp_path), *given]) == 0
        assert levels == [level] * 4


def test_the_evaluation_tells_the_threads_it_had(toy_corpus, nano, tmp_path, monkeypatch):
    import torch

    from training import evaluate

    monkeypatch.setattr(evaluate, "MATERIAL", {})
    monkeypatch.setattr(evaluate, "false_words", lambda judge, seed: {"digital silence": 0})
    usual = torch.get_num_threads()
    try:
        evaluate.main(["--model", str(nano), "--corpus", str(toy_corpus), "--threads", str(usual + 1), "--output-dir",
                       str(tmp_path), "--quiet"])
        assert torch.get_num_threads() == usual + 1
    finally:
        torch.set_num_threads(usual)
    assert json.loads((tmp_path / "evaluation.json").read_text())["machine"]["threads"] == usual + 1
