"""The miniature: what its text decoder learns from, how its projector is trained, what it shows of a clip."""

import json
import random
import shutil

import numpy as np
import pytest
import torch

from tests.conftest import ROOT
from tests.test_speech_llm import clip, pieces, small  # noqa: F401
from whisper_lab.console import LabError

BUNDLE = ROOT / "speech_llm_model_dir" / "nano-asr"


@pytest.fixture(scope="module")
def tokenizer(nano):
    from training.train_text_decoder import make_tokenizer

    return make_tokenizer(nano)


# The simulated projector ----------------------------------------------------------------------------------------------

def test_words_are_cut_as_the_tokenizer_does_or_finer(tokenizer):
    from training.simulated_projector import BpeDropout, text

    cutter, draw = BpeDropout(tokenizer), random.Random(0)
    for words in [text(draw, dutch=0.3) for _ in range(30)] + ["één café"]:
        spoken = f" {words}" if words else ""
        usual = tokenizer(spoken, add_special_tokens=False).input_ids
        assert cutter.cut(draw, words, 0.0) == usual
        finer = cutter.cut(draw, words, 1.0)
        assert tokenizer.decode(finer) == spoken and len(finer) == len(spoken.encode())


def test_without_slips_everything_is_told_in_order(tokenizer):
    from training.simulated_projector import BpeDropout, simulate

    draw, silence = random.Random(1), tokenizer.convert_tokens_to_ids("<audio>")
    cut = BpeDropout(tokenizer).cut(draw, "turn on the light in the kitchen", 0.0)
    for _ in range(20):
        told = simulate(draw, cut, [3] * len(cut), silence, slips=0.0)
        sounding = [t for t in told.tokens if t != silence]
        assert [t for i, t in enumerate(sounding) if i == 0 or t != sounding[i - 1]] == cut


def test_slips_change_some_tokens_and_noise_keeps_the_loudness(tokenizer):
    from training.simulated_projector import simulate, vectors

    draw, silence = random.Random(2), tokenizer.convert_tokens_to_ids("<audio>")
    cut = list(range(300, 340))
    told = [simulate(draw, cut, [3] * len(cut), silence, slips=0.3) for _ in range(8)]
    assert any([t for t in row.tokens if t != silence] != cut for row in told)
    table = torch.randn(len(tokenizer), 16) * 0.1
    made, counts = vectors(told, table, torch.full((8,), 0.5))
    loud = made[0, : counts[0]].square().mean(-1).sqrt()
    assert torch.allclose(loud, torch.full_like(loud, float(table.square().mean().sqrt())), rtol=1e-3)


def test_the_decoder_never_reads_a_held_out_sentence_in_training():
    from training import simulated_projector
    from whisper_lab.spoken import grammar

    draw, kept = random.Random(3), random.Random(3)
    texts = {simulated_projector.text(draw) for _ in range(300)}
    held_out = set()
    while len(held_out) < 40:
        made = grammar.sentence(kept)
        if made.held_out:
            held_out.add(made.text)
    assert not texts & held_out


def test_the_text_decoder_learns_resumes_and_is_published(nano, tmp_path):
    from training import train_text_decoder
    from whisper_lab.checkpoints import import_transformers

    flags = ["--width", "48", "--layers", "1", "--batch-size", "8", "--output-dir", str(tmp_path), "--threads", "1",
             "--save-every", "5", "--quiet"]
    train_text_decoder.main([*flags, "--steps", "8", "--max-minutes", "0"])  # stopped after its first step
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 1
    train_text_decoder.main([*flags, "--steps", "8"])
    report = json.loads((tmp_path / "final" / "training.json").read_text())
    assert report["steps"] == 8 and report["loss"] < 7
    model = import_transformers().AutoModelForCausalLM.from_pretrained(tmp_path / "final")
    tokenizer = import_transformers().AutoTokenizer.from_pretrained(tmp_path / "final")
    assert model.config.vocab_size == len(tokenizer) and "<audio>" in tokenizer.get_vocab()


# The projector's training ---------------------------------------------------------------------------------------------

@pytest.fixture
def heard(pieces, tmp_path):  # noqa: F811
    """A cache of 24 clips whose states spell their text: each word has its own direction."""
    words = ["one", "two", "three", "four"]
    draw, numbers = random.Random(0), np.random.default_rng(0)
    sound = {word: numbers.standard_normal(16) for word in words}
    texts = [" ".join(draw.choices(words, k=draw.randint(1, 2))) for _ in range(24)]
    states = [np.concatenate([np.tile(sound[w], (10, 1)) for w in text.split()]).astype(np.float16) for text in texts]
    from whisper_lab.speech_llm.miniature import fingerprint

    folder = tmp_path / "heard"
    folder.mkdir()
    (folder / "encoder.json").write_text(json.dumps({"encoder_sha256": fingerprint(pieces / "ear")}))
    for name in ("held-out.npz", "part-0000.npz"):
        np.savez(folder / name, states=np.concatenate(states), starts=np.cumsum([0, *map(len, states)]),
                 texts=json.dumps(texts))
    return folder


def arguments(pieces, heard, output, *more):  # noqa: F811
    from training import train_projector
    from whisper_lab import flags

    return flags.parse(train_projector.arguments(), [
        "--model", str(pieces / "ear"), "--decoder", str(pieces / "pen"), "--heard", str(heard), "--parts", "1",
        "--output-dir", str(output), "--batch-size", "8", "--easy-steps", "2", "--threads", "1", "--quiet", *more])


def test_a_stopped_run_goes_on_as_if_it_had_not_been(pieces, heard, tmp_path, monkeypatch):  # noqa: F811
    from training import encoder_cache, train_projector

    monkeypatch.setattr(train_projector.checkpoints, "problem_with", lambda folder: None)
    data = encoder_cache.Heard([heard / "part-0000.npz"])
    runs = []
    for name, stops in (("whole", (6,)), ("halves", (3, 6))):
        for stop in stops:
            args = arguments(pieces, heard, tmp_path / name, "--steps", "6")
            trainer = train_projector.Trainer(args, data)
            if (tmp_path / name / "projector.pt").exists():
                trainer.load(tmp_path / name / "projector.pt")
            losses = [trainer.update() for _ in range(trainer.step, stop)]
            trainer.save(tmp_path / name / "projector.pt")
        runs.append((losses[-1], trainer.model.audio_projector.state_dict()))
    assert runs[0][0] == pytest.approx(runs[1][0], rel=1e-4)
    for name, weight in runs[0][1].items():
        assert torch.allclose(weight, runs[1][1][name], atol=1e-5), name


def test_what_another_encoder_heard_is_refused(pieces, heard, tmp_path, monkeypatch):  # noqa: F811
    from training import train_projector
    from whisper_lab.console import LabError

    monkeypatch.setattr(train_projector.checkpoints, "problem_with", lambda folder: None)
    (heard / "encoder.json").write_text(json.dumps({"encoder_sha256": "0" * 64}))
    with pytest.raises(LabError, match="another encoder"):
        train_projector.prepare(arguments(pieces, heard, tmp_path))


def test_training_writes_a_folder_that_the_script_runs(pieces, heard, tmp_path, monkeypatch, call_script):  # noqa: F811
    from training import train_projector
    from whisper_lab import audio

    monkeypatch.setattr(train_projector.checkpoints, "problem_with", lambda folder: None)
    args = arguments(pieces, heard, tmp_path / "run", "--steps", "12")
    data, held_out = train_projector.prepare(args)
    trainer = train_projector.train(args, data, held_out)
    train_projector.publish(trainer, tmp_path / "run" / "nano-asr", tmp_path / "run" / "validation.json")
    report = json.loads((tmp_path / "run" / "validation.json").read_text())
    assert report["steps"] == 12 and report["wer"] >= 0

    sound = tmp_path / "noise.wav"
    audio.write_wav(sound, clip(1.5))
    flags = ("--speech-llm", tmp_path / "run" / "nano-asr")
    status, out, err = call_script("07-explore-architecture.py", *flags, sound)
    assert status == 0 and out.startswith("noise.wav: "), err
    assert "expect more errors" not in err
    status, out, err = call_script("07-explore-architecture.py", *flags, "--preset", "nano", "--seconds", "1")
    assert status == 0 and "Qwen2ForCausalLM" in out and "pen" not in err
    reports = tmp_path / "reports"
    status, out, err = call_script("07-explore-architecture.py", *flags, "--trace", sound, "--output-dir", reports)
    assert status == 0, err
    page = (reports / "trace-noise.html").read_text()
    assert "/*DATA*/" not in page and "http" not in page.replace("http-equiv", "")
    assert (reports / "trace-noise.png").stat().st_size > 20_000
    status, out, err = call_script("07-explore-architecture.py", *flags, "media/long.flac")
    assert status == 1 and "cut it into pieces of at most 2 s" in err


def test_what_a_trace_holds_fits_together(small):  # noqa: F811
    from whisper_lab.speech_llm.journey import journey

    model, processor = small()
    seen = journey(model, processor, clip(1.0))
    assert seen["mel"].shape == (64, 100) and seen["states"].shape == (50, 16) and seen["vectors"].shape == (10, 24)
    assert len(seen["nearest"]) == 10 and seen["looks"].shape == (len(seen["tokens"]), 10)
    assert np.allclose(seen["looks"].sum(-1), 1, atol=1e-4)
    assert all(0 <= token["probability"] <= 1 for token in seen["tokens"])
    table = torch.nn.functional.normalize(model.text_decoder.get_input_embeddings().weight, dim=-1)
    unit = seen["vectors"][3] / np.linalg.norm(seen["vectors"][3])
    assert seen["nearest"][3][0]["cosine"] == pytest.approx(float((table @ torch.from_numpy(unit)).max()), abs=1e-3)


# The bundle -----------------------------------------------------------------------------------------------------------

@pytest.fixture
def bundle(nano):
    if not (BUNDLE / "config.json").is_file():
        pytest.skip("speech_llm_model_dir/nano-asr is not there yet: it is trained with training/train_projector.py")
    return BUNDLE


def test_the_bundle_is_small_and_knows_what_it_can(bundle):
    assert sum(p.stat().st_size for p in bundle.rglob("*") if p.is_file()) <= 6e6
    evaluation = json.loads((bundle / "evaluation.json").read_text())
    assert evaluation["wer"]["miniature"] < evaluation["wer"]["untrained projector"]
    assert evaluation["wer"]["untrained projector"] > 0.9


def test_a_frozen_part_that_is_missing_is_named(bundle, tmp_path, monkeypatch):
    """Alone in another place, so that ../../whisper_model_dir/whisper-nano leads nowhere; from wherever it is run."""
    from whisper_lab.speech_llm import miniature

    folder = tmp_path / "speech_llm_model_dir" / "nano-asr"
    folder.mkdir(parents=True)
    shutil.copy(bundle / "config.json", folder)
    for place in (tmp_path, folder):
        monkeypatch.chdir(place)
        with pytest.raises(LabError, match="the miniature's frozen part .*whisper-nano is missing"):
            miniature.configuration(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["audio_model_id"], config["text_model_id"] = "openai/whisper-tiny", "Qwen/Qwen2-0.5B"
    (folder / "config.json").write_text(json.dumps(config))
    assert miniature.configuration(folder).audio_model_id == "openai/whisper-tiny"  # one of the Hub's, not a folder


def test_the_bundle_carries_the_code_of_the_lab(bundle):
    """transformers wants the code of a custom model in its folder (trust_remote_code): a copy, which must not age."""
    copies = list(bundle.glob("*.py"))
    assert len(copies) == 5
    for copy in copies:
        assert copy.read_text() == (ROOT / "whisper_lab" / "speech_llm" / copy.name).read_text(), copy.name


def test_the_bundle_hears_and_its_control_does_not(bundle, call_script, tmp_path):
    trained, control = tmp_path / "trained.json", tmp_path / "control.json"
    clips = ["media/digits.wav", "media/kitchen.wav", "media/time.wav"]
    assert call_script("07-explore-architecture.py", *clips, "--json", trained)[0] == 0
    assert call_script("07-explore-architecture.py", *clips, "--untrained", "--json",
                       control)[0] == 0
    wer = [np.mean([c["wer"] for c in json.loads(path.read_text())["clips"]]) for path in (trained, control)]
    assert wer[0] < 0.5 < 0.8 < wer[1]
