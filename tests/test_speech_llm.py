"""The encoder-projector-decoder model: what it computes, what it refuses, what it writes."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from tests.conftest import ROOT

RATE = 16000


@pytest.fixture(scope="session")
def pieces(nano, tmp_path_factory):
    """Folders of a random Whisper with a window of 2 s and of a random Qwen2 with the miniature's tokenizer."""
    from training.train_text_decoder import make_tokenizer
    from whisper_lab.checkpoints import import_transformers

    transformers = import_transformers()
    folder = tmp_path_factory.mktemp("parts")
    torch.manual_seed(0)
    whisper = transformers.WhisperConfig.from_pretrained(
        nano, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, max_source_positions=100)
    transformers.WhisperForConditionalGeneration(whisper).save_pretrained(folder / "ear")
    transformers.WhisperFeatureExtractor(feature_size=whisper.num_mel_bins, chunk_length=2).save_pretrained(
        folder / "ear")
    tokenizer = make_tokenizer(nano)
    tokenizer.save_pretrained(folder / "pen")
    transformers.Qwen2ForCausalLM(transformers.Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=24, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, initializer_range=0.3, tie_word_embeddings=True)).save_pretrained(folder / "pen")
    return folder


@pytest.fixture
def small(pieces):
    """A function projector name -> (model, processor) between the random parts."""
    from training.train_projector import build

    return lambda projector="linear", rate=5: build(pieces / "ear", pieces / "pen", projector, rate, None, seed=1)


def clip(seconds: float, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))).astype(np.float32)


# The projectors -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", ["linear", "mlp", "swiglu", "moe", "qformer"])
@pytest.mark.parametrize("positions", [1, 14, 15, 16, 100])
def test_a_projector_makes_as_many_vectors_as_it_says(kind, positions):
    from whisper_lab.speech_llm.projectors import make_projector

    projector = make_projector(kind, 16, 24, 5)
    made = projector(torch.randn(2, positions, 16))
    assert made.shape == (2, projector.get_output_length(positions), 24)
    assert int(projector.get_output_length(torch.tensor(positions))) == made.shape[1]
    made.square().sum().backward()
    untouched = [name for name, p in projector.named_parameters() if p.grad is None or not p.grad.abs().any()]
    assert not [name for name in untouched if not name.startswith("experts")]  # an expert may have had nothing to do


def test_a_wrong_projector_name_lists_the_right_ones():
    from whisper_lab.speech_llm import ASRError
    from whisper_lab.speech_llm.projectors import PROJECTORS, make_projector

    with pytest.raises(ASRError) as caught:
        make_projector("liner", 16, 24, 5)
    assert "liner" in caught.value.problem and all(name in caught.value.remedy for name in PROJECTORS)


def test_the_experts_share_the_work_or_pay_for_it():
    from whisper_lab.speech_llm.projectors import make_projector

    torch.manual_seed(0)
    projector = make_projector("moe", 16, 24, 5, experts=4, experts_per_frame=1)
    x = torch.randn(2, 100, 16)
    projector(x)
    even = float(projector.auxiliary_loss.detach())
    with torch.no_grad():
        projector.router.weight.zero_()
        projector.router.weight[2] = 50 * projector.ln_pre(projector.stack(x.abs())).mean((0, 1))
    projector(x.abs())
    assert 0.9 < even < 1.6 and float(projector.auxiliary_loss) > even


# The configuration ----------------------------------------------------------------------------------------------------

def test_dimensions_come_from_the_parts(pieces):
    from whisper_lab.speech_llm import ASRConfig, ASRError

    config = ASRConfig.from_parts(pieces / "ear", pieces / "pen")
    assert (config.encoder_dim, config.llm_dim) == (16, 24)
    with pytest.raises(ASRError, match="encoder_dim is given as 1280"):
        ASRConfig.from_parts(pieces / "ear", pieces / "pen", encoder_dim=1280)


@pytest.mark.parametrize(("ear", "pen", "words"), [
    ("no-such-whisper", "pen", "audio part 'no-such-whisper'"), ("ear", "nobody/nothing", "text part 'nobody/nothing'"),
    ("pen", "pen", "cannot be the audio encoder"), ("ear", "ear", "cannot be the text decoder")])
def test_a_part_that_is_unknown_or_of_the_wrong_kind_is_refused(pieces, monkeypatch, ear, pen, words):
    from whisper_lab.speech_llm import ASRConfig, ASRError

    ear, pen = (str(pieces / name) if (pieces / name).is_dir() else name for name in (ear, pen))
    with pytest.raises(ASRError) as caught:
        ASRConfig.from_parts(ear, pen, local_files_only=True)
    assert words in caught.value.problem and caught.value.remedy


def test_the_built_in_architectures_have_the_published_sizes():
    from whisper_lab.speech_llm import ASRConfig, ASRModel

    model = ASRModel.blueprint(ASRConfig.from_parts("openai/whisper-base", "Qwen/Qwen2-0.5B-Instruct"))
    assert sum(p.numel() for p in model.text_decoder.parameters()) == 494_032_768
    assert {p.device.type for p in model.parameters()} == {"meta"}


# The model ------------------------------------------------------------------------------------------------------------

def test_only_the_projector_learns_whatever_train_says(small):
    model, processor = small()
    model.train()
    assert model.audio_projector.training
    assert not any(m.training for part in (model.audio_encoder, model.text_decoder) for m in part.modules())
    output = model(**processor([clip(1.0), clip(2.0)], transcript=[" hello", " good morning"]))
    output.loss.backward()
    with_gradient = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == {"audio_projector"}


def test_a_few_steps_on_the_projector_alone_lower_the_loss(small):
    model, processor = small("mlp")
    batch = processor([clip(1.0, 1), clip(1.5, 2)], transcript=[" five", " turn on the light"])
    optimizer = torch.optim.Adam(model.audio_projector.parameters(), 1e-2)
    frozen = {name: p.clone() for name, p in model.named_parameters() if not name.startswith("audio_projector")}
    losses = []
    for _ in range(30):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    assert all(torch.equal(dict(model.named_parameters())[name], p) for name, p in frozen.items())


def test_audio_vectors_are_counted_from_the_mask_and_not_from_the_padding(small):
    model, processor = small()
    batch = processor([clip(1.0), clip(0.33), clip(2.0)])
    states, positions = model.encode(batch["input_features"], batch["audio_attention_mask"])
    _, counts = model.project(states, positions)
    assert positions.tolist() == [50, 17, 100] and counts.tolist() == [10, 4, 20]
    made = model.insert(batch["input_ids"], batch["attention_mask"], *model.project(states, positions))
    prompt = batch["input_ids"].shape[1] - 1
    assert made["attention_mask"].sum(-1).tolist() == [prompt + 10, prompt + 4, prompt + 20]


def test_a_clip_gets_the_same_answer_alone_and_in_a_batch(small):
    model, processor = small()
    clips = [clip(1.0, 3), clip(2.0, 4), clip(0.4, 5)]
    together = model.generate(**processor(clips), max_new_tokens=8)
    for i, one in enumerate(clips):
        alone = model.generate(**processor(one), max_new_tokens=8)[0]
        assert together[i][: len(alone)].tolist() == alone.tolist()


def test_what_the_sound_is_matters_to_the_answer(small):
    model, processor = small()
    with torch.no_grad():
        first, second = (model(**processor(clip(1.0, seed))).logits for seed in (1, 2))
    assert not torch.allclose(first, second, atol=1e-3)


def test_streaming_writes_what_generate_writes(small):
    model, processor = small()
    batch = processor(clip(1.2))
    whole = processor.batch_decode(model.generate(**batch, max_new_tokens=12, num_beams=1))[0]
    pieces = list(model.generate_streaming(processor.tokenizer, **batch, max_new_tokens=12))
    assert all(isinstance(piece, str) for piece in pieces)
    assert whole.startswith("".join(pieces).strip())  # the last bytes may be half a character


def test_untrained_vectors_are_as_loud_as_words(small):
    model, processor = small()
    batch = processor(clip(1.0))
    vectors, _ = model.project(*model.encode(batch["input_features"], batch["audio_attention_mask"]))
    table = model.text_decoder.get_input_embeddings().weight
    assert float(vectors.square().mean().sqrt() / table.square().mean().sqrt()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(("prompt", "found"), [("<|user|>hello<|assistant|>", "0 times"),
                                               ("<audio> <audio>", "2 times")])
def test_a_prompt_needs_one_audio_token(small, prompt, found):
    from whisper_lab.speech_llm import ASRError

    model, processor = small()
    with pytest.raises(ASRError, match=found):
        processor(clip(1.0), prompt=prompt)
    batch = processor(clip(1.0))
    batch["input_ids"] = processor.tokenizer(prompt, return_tensors="pt").input_ids
    batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    with pytest.raises(ASRError, match="exactly once"):
        model.generate(**batch)


@pytest.mark.parametrize(("samples", "rate", "words"), [
    (clip(2.5), RATE, "lasts 2.5 s, the encoder's window 2 s"), (np.zeros(0, np.float32), RATE, "at least one"),
    (np.zeros((2, 100), np.float32)[None], RATE, "at least one"), (clip(1.0), 44100, "44100 samples a second")])
def test_sound_that_does_not_fit_is_refused(small, samples, rate, words):
    from whisper_lab.speech_llm import ASRError

    with pytest.raises(ASRError, match=words):
        small()[1](samples, sampling_rate=rate)


def test_features_of_another_model_are_refused(small):
    from whisper_lab.speech_llm import ASRError

    model, processor = small()
    batch = processor(clip(1.0))
    for wrong, words in ((torch.zeros(1, 64, 3000), "window holds 200"), (torch.zeros(1, 80, 200), "do not fit")):
        with pytest.raises(ASRError, match=words):
            model.generate(**{**batch, "input_features": wrong})
    with pytest.raises(ASRError, match="no sound"):
        model.generate(batch["input_ids"])


def test_a_decoder_that_does_not_fit_the_configuration_is_refused(small, pieces):
    from whisper_lab.speech_llm import ASRError, ASRModel

    model, _ = small()
    wide = type(model.text_decoder)(type(model.text_decoder.config).from_dict(
        model.text_decoder.config.to_dict() | {"hidden_size": 32}))
    with pytest.raises(ASRError, match="vectors of 32 numbers"):
        ASRModel(model.config, model.audio_encoder, wide)


# Files ----------------------------------------------------------------------------------------------------------------

@pytest.fixture
def saved(small, pieces, tmp_path):
    """A model saved beside its parts: (folder, model, processor)."""
    model, processor = small("swiglu")
    for part in ("ear", "pen"):
        shutil.copytree(pieces / part, tmp_path / part)
    model.config.audio_model_id, model.config.text_model_id = str(tmp_path / "ear"), str(tmp_path / "pen")
    folder = tmp_path / "saved"
    processor.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder, model, processor


def test_a_saved_folder_holds_the_projector_alone_and_names_the_frozen_parts(saved):
    from safetensors import safe_open

    folder, model, _ = saved
    with safe_open(folder / "projector.safetensors", "pt") as file:
        assert set(file.keys()) == set(model.audio_projector.state_dict())
    assert not list(folder.glob("*.bin")) and len(list(folder.glob("*.safetensors"))) == 1
    config = json.loads((folder / "config.json").read_text())
    assert (config["audio_model_id"], config["text_model_id"]) == ("../ear", "../pen")
    assert (config["encoder_dim"], config["llm_dim"], config["audio_downsample_rate"]) == (16, 24, 5)
    assert str(folder.parent) not in "".join(p.read_text() for p in folder.glob("*.json"))


def test_a_model_comes_back_as_it_was_also_from_another_place(saved, tmp_path, monkeypatch):
    from whisper_lab.speech_llm import ASRModel, ASRProcessor

    folder, model, processor = saved
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in ("ear", "pen", "saved"):
        shutil.move(tmp_path / name, moved / name)
    again, hearing = ASRModel.from_pretrained(moved / "saved"), ASRProcessor.from_pretrained(moved / "saved")
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name
    batch = hearing(clip(1.0))
    assert torch.equal(model.generate(**batch, max_new_tokens=6), again.generate(**batch, max_new_tokens=6))


def test_a_saved_folder_loads_in_a_process_that_does_not_know_the_lab(saved, tmp_path):
    folder, model, processor = saved
    program = (
        "import sys, json, numpy as np\n"
        "sys.modules['torchaudio'] = None\n"
        "from transformers import AutoConfig, AutoModel, AutoProcessor\n"
        f"folder = {str(folder)!r}\n"
        "processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)\n"
        "model = AutoModel.from_pretrained(folder, trust_remote_code=True)\n"
        "assert AutoConfig.from_pretrained(folder, trust_remote_code=True).encoder_dim == 16\n"
        "assert not any(name.startswith('whisper_lab') for name in sys.modules)\n"
        "samples = (0.1 * np.random.default_rng(0).standard_normal(16000)).astype(np.float32)\n"
        "print(json.dumps(model.generate(**processor(samples), max_new_tokens=6).tolist()))\n")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=200,
                          env=environment | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache")})
    assert done.returncode == 0, done.stderr[-1500:]
    assert json.loads(done.stdout) == model.generate(**processor(clip(1.0)), max_new_tokens=6).tolist()


def test_a_saved_folder_with_missing_or_foreign_weights_is_refused(saved):
    from safetensors.torch import load_file, save_file

    from whisper_lab.speech_llm import ASRError, ASRModel

    folder, _, _ = saved
    path = folder / "projector.safetensors"
    weights = load_file(path)
    for change, words in (({"ln_post.weight": None}, "lacks 1 weights, such as ln_post.weight"),
                          ({"ln_pre.weight": torch.ones(7)}, r"\[7\], these parts need \[80\]"),
                          ({"surprise": torch.ones(1)}, "unknown surprise")):
        save_file({k: v for k, v in {**weights, **change}.items() if v is not None}, path)
        with pytest.raises(ASRError, match=words):
            ASRModel.from_pretrained(folder)
    path.unlink()
    with pytest.raises(ASRError, match="no readable projector.safetensors"):
        ASRModel.from_pretrained(folder)


# The script -----------------------------------------------------------------------------------------------------------

def test_the_printout_is_the_documents_to_the_letter_offline_and_small(tmp_path):
    """Seconds and less than a gigabyte, for a pair that weighs 16 GB."""
    expected = (ROOT / "tests" / "fixtures" / "architecture-expected.txt").read_text(encoding="utf-8")
    program = ("import runpy, sys\nfrom whisper_lab.machine import peak_rss_bytes\n"  # not ru_maxrss: it inherits
               "sys.argv = ['07-explore-architecture.py']\n"
               "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\nfinally:\n"
               "    print('bytes', peak_rss_bytes(), file=sys.stderr)\n")
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=200,
                          env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(expected)
    assert int(done.stderr.split("bytes")[-1]) < 1_000_000_000


def test_parameters_shapes_and_swaps(call_script, tmp_path):
    written = tmp_path / "architecture.json"
    status, out, _ = call_script("07-explore-architecture.py", "--swap-encoder", "openai/whisper-base",
                                 "--swap-decoder", "Qwen/Qwen2-0.5B-Instruct", "--json", written)
    assert status == 0 and "Audio Encoder ID  -> openai/whisper-base" in out
    document = json.loads(written.read_text())
    shapes = [stage["shape"] for stage in document["shapes"]]
    assert shapes == [[48000], [80, 300], [1500, 512], [150, 512], [30, 896], [30, 151936]]
    projector = document["parameters"]["audio_projector"]
    assert projector["parameters"] == projector["trained"] == 2560 * 896 + 896 + 2560 + 896
    assert document["parameters"]["text_decoder"]["trained"] == 0
    assert document["changed_by_swap"]["LLM dimension"] == [3584, 896]
    assert document["changed_by_swap"]["encoder dimension"] == [1280, 512]


def test_a_swap_of_one_part_leaves_the_other_alone(call_script, tmp_path, pieces):
    written = tmp_path / "architecture.json"
    status, out, _ = call_script("07-explore-architecture.py", "--swap-encoder", pieces / "ear", "--seconds", "1",
                                 "--projector", "qformer", "--downsample-rate", "4", "--json", written)
    document = json.loads(written.read_text())
    assert status == 0 and "LLM dimension" not in document["changed_by_swap"]
    assert [s["shape"] for s in document["shapes"]][3:5] == [[50, 16], [15, 3584]]  # 50 positions: 5 windows of 12


@pytest.mark.parametrize(("arguments", "words"), [
    (("--swap-decoder", "nobody/nothing"), "text part 'nobody/nothing' is not known"),
    (("--seconds", "31"), "window of 30 s"), (("--speech-llm", "/nowhere", "--preset", "nano"), "train it: python -m"),
    (("--speech-llm", "/nowhere", "media/kitchen.wav"), "miniature is not in /nowhere")])
def test_bad_wishes_get_two_lines(call_script, arguments, words):
    status, out, err = call_script("07-explore-architecture.py", *arguments)
    assert status == 1 and words in err and "Traceback" not in err


def test_help_in_under_a_second(run_script):
    begin = os.times().children_user
    assert "--swap-encoder" in run_script("07-explore-architecture.py", "--help").stdout
    assert os.times().children_user - begin < 1.0


def test_wrong_usage(call_script):
    for arguments in (("--untrained",), ("a.wav", "--swap-encoder", "x"), ("--preset", "huge")):
        with pytest.raises(SystemExit) as caught:
            __import__("importlib").import_module("07-explore-architecture").main(list(arguments))
        assert caught.value.code == 2


# Code that comes with a checkpoint -----------------------------------------------------------------------------------

EVIL = "open({mark!r}, 'w').close()\nfrom transformers import PretrainedConfig\nclass C(PretrainedConfig):\n    pass\n"


@pytest.mark.parametrize("what", ["decoder", "encoder", "miniature"])
def test_no_code_of_a_checkpoint_runs_even_where_y_is_piped_in(tmp_path, what):
    mark, folder = tmp_path / "it ran", tmp_path / "evil"
    if what == "miniature":
        shutil.copytree(ROOT / "speech_llm_model_dir" / "nano-asr", folder)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config["audio_model_id"] = str(ROOT / "whisper_model_dir" / "whisper-nano")
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        kinds = {"tokenizer_config.json": "AutoTokenizer", "processor_config.json": "AutoFeatureExtractor"}
        for name, kind in kinds.items():
            document = json.loads((folder / name).read_text(encoding="utf-8"))
            document |= {"auto_map": {"AutoTokenizer": ["evil.C", "evil.C"], kind: "evil.C"}, "tokenizer_class": "Evil"}
            if "feature_extractor" in document:
                document["feature_extractor"] |= {"feature_extractor_type": "Evil", "auto_map": {kind: "evil.C"}}
            (folder / name).write_text(json.dumps(document), encoding="utf-8")
        arguments = ("--preset", "nano", "--speech-llm", folder, ROOT / "media" / "kitchen.wav")
    else:
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({
            "model_type": "evil", "auto_map": {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.C"}}))
        arguments = (f"--swap-{what}", folder)
    (folder / "evil.py").write_text(EVIL.format(mark=str(mark)))
    done = subprocess.run([sys.executable, ROOT / "07-explore-architecture.py", "--threads", "1", *map(str, arguments)],
                          cwd=tmp_path, input="y\n" * 100, capture_output=True, text=True, timeout=120,
                          env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache")})
    assert not mark.exists() and "[y/N]" not in done.stdout + done.stderr
    assert done.returncode == 1 and "needs code of its own, which is never run here" in done.stderr
    assert not list(tmp_path.glob("cache/modules/**/evil.py"))


@pytest.mark.parametrize("kind, rate, remedy", [("magic", 5, "choose from linear, mlp, swiglu, moe, qformer"),
                                                ("linear", 0, "use 1 or more")])
def test_a_projector_that_there_is_not(kind, rate, remedy):
    from whisper_lab.speech_llm import ASRError, projectors

    with pytest.raises(ASRError) as caught:
        projectors.make_projector(kind, 64, 64, rate)
    assert remedy in caught.value.remedy
