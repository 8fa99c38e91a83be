"""What an error says after `try:` works when it is typed, also where folders have a space in their names."""

import importlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

from tests.helpers import export_tiny, nano_pair
from whisper_lab import adapters, checkpoints, names, seals, sessions
from whisper_lab.console import LabError
from whisper_lab.export import verify
from whisper_lab.single import graph

ROOT = Path(__file__).resolve().parent.parent
CLIP = ROOT / "media" / "kitchen.wav"
PARSERS = {"whisper_lab.onnx_whisper": "whisper_lab.__main__"}


@pytest.fixture
def space(tmp_path, monkeypatch) -> Path:
    """A folder whose name has a space and a quote in it."""
    monkeypatch.delenv("WHISPER_LAB_MODEL", raising=False)
    folder = tmp_path / "my 'first' models"
    folder.mkdir()
    return folder


@pytest.fixture
def mine(space, nano) -> Path:
    """A checkpoint of the user's own."""
    return Path(shutil.copytree(nano, space / "whisper mine"))


def remedy_of(err: str) -> str:
    """The second line of what a program printed as an error."""
    error, remedy = err.splitlines()[-2:]
    assert error.startswith("error: ") and remedy.startswith("  try: "), err
    return remedy.removeprefix("  try: ")


def commands(remedy: str) -> list[list[str]]:
    """The commands in a remedy: what begins with `python`, up to the end or to a mark that ends a command."""
    words = shlex.shlex(remedy, posix=True, punctuation_chars=";&|")
    words.whitespace_split = True
    found: list[list[str]] = []
    inside = False
    for word in words:
        if word in (";", "&&", "||", "&", "|"):
            inside = False
        elif word == "python":
            found.append([])
            inside = True
        elif inside:
            found[-1].append(word)
    return found


def typed(remedy: str):
    """Parse every command of a remedy as its program does: argparse ends the test where that fails."""
    found = commands(remedy)
    assert found, f"no command in: {remedy}"
    parsed = []
    for words in found:
        module = words[1] if words[0] == "-m" else words[0]
        name = PARSERS.get(module, "arguments")
        module, name = (name, "arguments") if name.startswith("whisper_lab") else (module.removesuffix(".py"), name)
        parsed.append(getattr(importlib.import_module(module), name)(words[2:] if words[0] == "-m" else words[1:]))
    return parsed[-1]


# Provoked by a program ------------------------------------------------------------------------------------------------

WANTS_GRAPHS = {
    "04": ("04-compare-precisions.py", "--model", "MODEL", "--model-dir", "GRAPHS", "--audio", CLIP),
    "05": ("05-explore-in-netron.py", "--model", "MODEL", "--model-dir", "GRAPHS"),
    "08": ("08-single-onnx-model.py", "--model", "MODEL", "--model-dir", "GRAPHS", "--precision", "int8"),
    "09": ("09-stream-microphone.py", "--model", "MODEL", "--model-dir", "GRAPHS", "--file", CLIP),
    "09 fp16": ("09-stream-microphone.py", "--model", "MODEL", "--model-dir", "GRAPHS", "--precision", "fp16", "--file",
                CLIP),
    "runtime": ("whisper_lab.__main__", CLIP, "--model", "MODEL", "--model-dir", "GRAPHS", "--precision", "int4"),
    "optimized": ("whisper_lab.__main__", CLIP, "--model", "MODEL", "--model-dir", "GRAPHS", "--precision", "int8",
                  "--optimized"),
}


@pytest.mark.parametrize("case", WANTS_GRAPHS)
def test_graphs_that_are_missing(space, mine, call_script, case):
    script, *words = WANTS_GRAPHS[case]
    words = [{"MODEL": mine, "GRAPHS": space / "the graphs"}.get(word, word) for word in words]
    status, _, err = call_script(script, *words)
    args = typed(remedy_of(err))
    assert status == 1 and (args.model, args.output_dir) == (str(mine), str(space / "the graphs"))
    assert checkpoints.resolve(args.model).folder == mine


@pytest.mark.parametrize("model", ["nano", "tiny.en", "openai/whisper-small", "someone/whisper-else"])
def test_the_command_names_the_model_as_it_was_given(model, space):
    name = names.name_for(model)
    args = typed(f"write it: {sessions.export_command(space, name, 'int8')}")
    assert names.name_for(args.model) == name and (args.precision, args.output_dir) == ("int8", str(space))


def broken_pair(nano_export, space: Path, break_it) -> LabError:
    """The error of nano's pair after `break_it(folder)`."""
    from whisper_lab.onnx_whisper import OnnxWhisper

    folder = space / "graphs"
    folder.mkdir()
    break_it(nano_pair.take(nano_export, folder, "_int8"))
    with pytest.raises(LabError) as caught:
        OnnxWhisper(folder, nano_pair.NAME, "int8")
    return caught.value


def without(*names: str):
    def remove(folder: Path) -> None:
        for name in names:
            (folder / name).unlink() if (folder / name).is_file() else shutil.rmtree(folder / name)
    return remove


def garbage(folder: Path) -> None:
    (folder / "whisper-nano_decoder_int8.onnx").write_bytes(b"not a graph")


def weights_elsewhere(folder: Path) -> None:
    """The decoder's weights go into a file beside it, which is then lost."""
    import onnx

    path = folder / "whisper-nano_decoder_int8.onnx"
    onnx.save_model(onnx.load(path), path, save_as_external_data=True, location=f"{path.name}.data",
                    size_threshold=1024)
    path.with_name(f"{path.name}.data").unlink()


DAMAGE = {
    "whisper-nano_encoder_int8.onnx": without("whisper-nano_encoder_int8.onnx"),
    "whisper-nano_decoder_int8.onnx": garbage,
    "whisper-nano_decoder_int8.onnx.data": weights_elsewhere,
    "whisper-nano_runtime/config.json": without("whisper-nano_runtime"),
    **{f"whisper-nano_runtime/{name}": without(f"whisper-nano_runtime/{name}")
       for name in ("tokenizer.json", "generation_config.json", "preprocessor_config.json", seals.MANIFEST)},
}


@pytest.mark.parametrize("names", DAMAGE)
def test_a_file_that_is_missing_is_named_and_can_be_made(nano_export, space, names):
    error = broken_pair(nano_export, space, DAMAGE[names])
    assert Path(names).name in error.problem
    args = typed(error.remedy)
    assert (args.model, args.precision, args.output_dir) == ("nano", "int8", str(space / "graphs"))


def test_the_single_graph_that_is_missing(space, mine, call_script):
    status, _, err = call_script("08-single-onnx-model.py", "run", CLIP, "--model", mine, "--model-dir", space,
                                 "--precision", "int8", "--input", "wav")
    args = typed(remedy_of(err))
    assert status == 1 and (args.model, args.model_dir) == (str(mine), str(space))
    assert (args.precision, args.input, args.run) == ("int8", "wav", [])


def test_a_clip_that_is_too_long_for_the_single_graph(space):
    notes = {"model": "whisper-nano", "precision": "int8"}
    command = graph.pair_command(space / "whisper-nano_end_to_end_int8.onnx", notes, space / "long clip.wav")
    args = typed(command)
    assert (args.audio, args.model, args.precision) == ([str(space / "long clip.wav")], "nano", "int8")
    assert args.model_dir == str(space)


def test_graphs_that_a_gate_refused_can_be_looked_at(space):
    left = [space / "whisper-nano_encoder.rejected.onnx", space / "whisper-nano_decoder.rejected.onnx"]
    assert typed(verify.failure("a gate", left).remedy).graphs == [str(path) for path in left]


def test_a_hard_link_can_be_undone(space):
    from whisper_lab import external_data

    folder = space / "graphs"
    folder.mkdir()
    (folder / "w.bin").write_bytes(b"weights")
    os.link(folder / "w.bin", space / "other")
    with pytest.raises(LabError) as caught:
        external_data.acceptable(folder / "a.onnx", "w.bin")
    command = caught.value.remedy.partition(": ")[2]
    subprocess.run(["bash", "-e", "-c", command], check=True)
    assert external_data.acceptable(folder / "a.onnx", "w.bin").read_bytes() == b"weights"


def test_weights_that_another_command_fetches(call_script):
    status, _, err = call_script("whisper_lab.weights.__main__", "small")
    assert status == 1 and typed(remedy_of(err)).model == "small"


def test_the_command_is_right_when_it_is_run(space, call_script):
    """The whole way once: the runtime finds no graphs, its remedy is typed into a shell, and then it finds them."""
    (space / "whisper mine").mkdir()
    export_tiny.write_checkpoint(space / "whisper mine")
    words = (CLIP, "--model", space / "whisper mine", "--model-dir", space / "the graphs", "--quiet")
    status, _, err = call_script("whisper_lab.__main__", *words)
    assert status == 1
    command = remedy_of(err).partition(": ")[2]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(["bash", "-e", "-c", f"{command} --no-verify --threads 1"], cwd=ROOT, capture_output=True,
                          text=True, timeout=200, env={**os.environ, "PATH": path, "HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr
    assert "every gate" not in done.stderr and "no gate was run: --no-verify" in done.stderr
    assert call_script("whisper_lab.__main__", *words)[0] == 0


# Adapters ------------------------------------------------------------------------------------------------------------

@pytest.fixture
def adapter(space) -> Path:
    """A folder as PEFT saves it."""
    folder = space / "my adapter"
    folder.mkdir()
    notes = {"base_model_name_or_path": "openai/whisper-small", "peft_type": "LORA", "task_type": None}
    (folder / adapters.FILE).write_text(json.dumps(notes))
    (folder / "adapter_model.safetensors").write_bytes(b"\0" * 100)
    return folder


TAKES_A_MODEL = {
    "02": ("02-whisper-huggingface.py", "--audio", CLIP, "--model"),
    "03": ("03-export-encoder-decoder.py", "--model"),
    "04": ("04-compare-precisions.py", "--audio", CLIP, "--model"),
    "05": ("05-explore-in-netron.py", "--model"),
    "06": ("06-profile-energy.py", "--audio-file", CLIP, "--model"),
    "07": ("07-explore-architecture.py", "--swap-encoder"),
    "08": ("08-single-onnx-model.py", "--model"),
    "09": ("09-stream-microphone.py", "--file", CLIP, "--model"),
    "runtime": ("whisper_lab.__main__", CLIP, "--model"),
    "weights": ("whisper_lab.weights.__main__",),
}


@pytest.mark.parametrize("case", TAKES_A_MODEL)
def test_an_adapter_is_called_one_wherever_a_model_is_named(adapter, call_script, case):
    status, _, err = call_script(*TAKES_A_MODEL[case], adapter)
    assert status == 1 and f"{adapter} is an adapter (PEFT, LoRA) for openai/whisper-small, not a whole model" in err
    assert "merge_and_unload" in remedy_of(err)


def test_the_weights_of_an_adapter(adapter, call_script):
    _, _, err = call_script("02-whisper-huggingface.py", "--audio", CLIP, "--model",
                            adapter / "adapter_model.safetensors")
    assert "is an adapter (PEFT, LoRA)" in err


def test_an_adapter_can_be_merged_as_it_says(adapter, monkeypatch):
    """The program of the remedy is run, with stand-ins for peft and transformers that write down what they are asked.
    """
    asked: list[tuple] = []

    class Fake:
        @classmethod
        def from_pretrained(cls, *what):
            asked.append((cls.__name__, *what))
            return cls()

        def merge_and_unload(self):
            return self

        def save_pretrained(self, where):
            asked.append(("save", where))

    names = ("PeftModel", "WhisperForConditionalGeneration", "WhisperProcessor")
    for module in ("peft", "transformers"):
        made = types.ModuleType(module)
        for name in names:
            setattr(made, name, type(name, (Fake,), {}))
        monkeypatch.setitem(sys.modules, module, made)
    with pytest.raises(LabError) as caught:
        adapters.refuse(adapter)
    _, (option, program) = commands(caught.value.remedy)
    assert option == "-c"
    exec(program, {})
    merged = f"{adapter.resolve()}-merged"
    assert [row[0] for row in asked] == ["WhisperForConditionalGeneration", "PeftModel", "save", "WhisperProcessor",
                                         "save"]
    assert asked[1][2] == str(adapter) and asked[2][1] == asked[4][1] == merged
    assert shlex.quote(merged) in caught.value.remedy


def test_a_merged_checkpoint_may_keep_the_adapter_s_notes(mine):
    (mine / adapters.FILE).write_text('{"base_model_name_or_path": "openai/whisper-small"}')
    assert checkpoints.resolve(str(mine)).folder == mine


@pytest.mark.parametrize("notes", ["", "[]", "{}", '{"base_model_name_or_path": 3}'])
def test_an_adapter_that_says_nothing(adapter, notes):
    (adapter / adapters.FILE).write_text(notes)
    with pytest.raises(LabError, match="for a model that it does not name"):
        checkpoints.resolve(str(adapter))


# onnxruntime too old --------------------------------------------------------------------------------------------------

OPSET = ("[ONNXRuntimeError] : 1 : FAIL : Load model from a.onnx failed:/onnxruntime_src/onnxruntime/core/graph/"
         "model_load_utils.h:56 void onnxruntime::model_load_utils::ValidateOpsetForDomain(const string&, int) ONNX "
         "Runtime only *guarantees* support for models stamped with official released onnx opset versions. Opset 20 is "
         "under development and support for this is limited. The operator schemas and or other functionality may "
         "change before next ONNX release and in this case ONNX Runtime will not guarantee backward compatibility. "
         "Current official support for domain ai.onnx is till opset 19.")
IR = ("[ONNXRuntimeError] : 1 : FAIL : Load model from a.onnx failed:/onnxruntime_src/onnxruntime/core/graph/"
      "model.cc:149 onnxruntime::Model::Model(...) Unsupported model IR version: 9, max supported IR version: 8")


@pytest.mark.parametrize(("said", "what"), [(OPSET, "opset 20"), (IR, "IR version 9")])
def test_an_onnxruntime_that_is_too_old_is_told_so(said, what):
    import onnxruntime

    error = sessions._open_failure(Path("a.onnx"), said, "command")
    assert f"onnxruntime {onnxruntime.__version__} is too old" in error.problem
    assert error.problem.endswith(f"the graph needs {what}") and "--upgrade onnxruntime" in error.remedy


def test_what_onnxruntime_says_is_not_cut(tmp_path):
    reason = f"[ONNXRuntimeError] : 1 : FAIL : {'x' * 400}\nwhat matters"
    assert sessions._open_failure(Path("a"), reason, "command").problem.endswith("what matters")


def test_the_message_of_this_onnxruntime_is_understood(tmp_path):
    """The real one, to a graph of a later opset."""
    from onnx import TensorProto, helper

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("a", "b")]
    graph = helper.make_graph([helper.make_node("Gelu", ["a"], ["b"])], "g", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 99)])
    model.ir_version = 9
    path = tmp_path / "a.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(LabError, match=r"too old for .*a\.onnx: it reads opset up to \d+, and the graph needs .* 99"):
        sessions._open(path, sessions.session_options("decoder", 1, False), "command")


# After --no-verify ----------------------------------------------------------------------------------------------------

def test_08_does_not_claim_what_was_not_checked(nano_export, tmp_path, call_script, monkeypatch):
    """The pair's metadata says that its gates were skipped."""
    import onnx

    folder = nano_pair.take(nano_export, tmp_path, "_int8")
    for path in names.pair(folder, nano_pair.NAME, "int8").values():
        model = onnx.load(path)
        for entry in model.metadata_props:
            if entry.key == "verification":
                entry.value = "skipped with --no-verify"
        onnx.save(model, path)
        seals.seal(path)
    monkeypatch.chdir(tmp_path)  # reports go there
    status, _, err = call_script("08-single-onnx-model.py", "--model", "nano", "--precision", "int8", "--model-dir",
                                 folder, "--no-verify")
    assert status == 0, err
    assert "wrote and checked" not in err and "its gates: skipped with --no-verify" in err
    assert "every gate" not in err and "no gate was run: --no-verify" in err


def test_the_precision_that_is_there_is_named(nano_export, space, call_script):
    folder = space / "graphs"
    folder.mkdir()
    nano_pair.take(nano_export, folder, "_int8")
    given = (CLIP, "--model", "nano", "--model-dir", folder, "--quiet", "--threads", "1", "--precision",
             "fp32")
    status, _, err = call_script("whisper_lab.__main__", *given)
    remedy = remedy_of(err)
    assert status == 1 and remedy.startswith("take --precision int8, which is there; or write them: python 03-")
    words = [sys.executable, "-m", "whisper_lab", *map(str, given), *remedy.partition(",")[0].split()[1:]]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout == "turn on the lights in the kitchen\n", done.stderr


def test_without_graphs_a_bad_sound_file_is_named_as_well(space, call_script):
    (space / "bad.wav").write_text("no sound")
    status, out, err = call_script("whisper_lab.__main__", CLIP, space / "bad.wav", "--model", "nano", "--model-dir",
                                   space / "none", "--quiet")
    lines = err.splitlines()
    assert (status, out, len(lines)) == (1, "", 4), err
    assert lines[0].startswith(f"error: {space / 'bad.wav'} ") and lines[1].startswith("  try: ")
    assert "there are no graphs of whisper-nano" in lines[2]


@pytest.mark.parametrize("precision", ["fp32", "int4"])
def test_an_optimized_pair_that_03_never_writes(space, call_script, precision):
    given = (CLIP, "--model", "nano", "--model-dir", space, "--optimized", "--precision", precision)
    status, _, err = call_script("whisper_lab.__main__", *given)
    remedy = remedy_of(err)
    assert status == 1 and f"no optimized {precision} pair" in err and remedy.startswith("add --precision int8,")
    status, _, err = call_script("whisper_lab.__main__", *given, *remedy.partition(",")[0].split()[1:])
    args = typed(remedy_of(err))  # now it is the int8 pair that is missing
    assert (args.precision, args.optimize) == ("int8", True)


def test_a_file_where_the_graphs_should_be(call_script):
    status, _, err = call_script("whisper_lab.__main__", CLIP, "--model", "nano", "--model-dir", CLIP)
    assert status == 1 and f"{CLIP} is a file, not the folder" in err and remedy_of(err) == "name the folder"


def test_an_empty_graph_is_said_to_be_empty_and_named_once(nano_export, space):
    error = broken_pair(nano_export, space, lambda folder: (folder / "whisper-nano_decoder_int8.onnx").write_bytes(b""))
    assert "it is empty" in error.problem and error.problem.count("whisper-nano_decoder_int8.onnx") == 1
    assert error.remedy.startswith("write it again: python 03-")


@pytest.mark.parametrize("program", [["-m", "whisper_lab.doctor"], ["-m", "workbook.quiz"],
                                     ["-m", "whisper_lab.weights"], ["-m", "whisper_lab"], ["tools/house.py"],
                                     ["02-whisper-huggingface.py"]])
def test_wrong_usage_names_the_program_as_it_is_typed(program):
    def run(*words: str) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=120)

    done = run(*program, "--no-such-flag")
    remedy = remedy_of(done.stderr)
    assert done.returncode == 2 and remedy == f"python {' '.join(program)} --help"
    done = run(*shlex.split(remedy)[1:])
    assert done.returncode == 0 and done.stdout.startswith(f"usage: python {' '.join(program)} [options]"), done.stderr
