"""Files damaged at random, from a seed: sounds, checkpoints, graphs, references. Always a result or a LabError.

    make fuzz FUZZ_SECONDS=600          # as long as asked, on new files all the time; FUZZ_SEED=7 begins elsewhere

What fails names its seed: python -m pytest tests/test_fuzz.py with FUZZ_SEED=<that number> begins with the same file.
"""

import collections
import json
import os
import random
import re
import resource
import shutil
import struct
import time

import numpy as np
import pytest
import soundfile
from test_containers import OF_FFMPEG, OF_LIBSNDFILE
from test_containers import write as write_sound

from whisper_lab import audio, checkpoints, console, external_data, features, seals, sessions, transcripts
from whisper_lab.compare import graph_facts
from whisper_lab.console import LabError
from whisper_lab.netron import tour
from whisper_lab.tokens import TokenRules

SECONDS = float(os.environ.get("FUZZ_SECONDS", 0))  # for all four kinds together; 0: a fixed number of files
SEED = int(os.environ.get("FUZZ_SEED", 0))
COUNT = {"sound": 320, "checkpoint": 150, "graph": 200, "references": 150}
SLOWEST_S = 10.0  # of the processor, for one file
MOST_GROWTH = 400 << 20  # bytes by which the process may grow
RATES = (0, 1, 3, 1999, 2000, 4001, 7919, 11_025, 44_100, 192_001, 768_000, 768_001, 2**31 - 1, 2**32 - 1)
NUMBERS = (0, 1, -1, 2, 255, 2**15, 2**31 - 1, 2**32 - 1, 2**63, 10**30, 1.5, float("nan"), True, None, "", "x", [], {},
           [[1]], {"a": 1}, "\ud800", "../x", "/etc/passwd")


@pytest.fixture(autouse=True)
def notes_as_in_a_new_program(monkeypatch):
    """Another test's handler writes to a stream that pytest has closed since."""
    monkeypatch.setattr(console.log, "handlers", [])


# Damage --------------------------------------------------------------------------------------------------------------

def damaged(draw: random.Random, data: bytes) -> bytes:
    """One to four faults: bits, fields of a header, cuts, holes, repeats."""
    made = bytearray(data)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(min(len(made), draw.choice((48, 300, 10**9)))) if made else 0
        kind = draw.randrange(6)
        if kind == 0:
            made[at:at + 1] = bytes([draw.randrange(256)])
        elif kind == 1:  # a field of two, four or eight bytes, either way round
            wide = draw.choice((2, 4, 8))
            value = draw.choice((0, 1, -1, 2**(8 * wide - 1), len(made), draw.randrange(2**(8 * wide))))
            made[at:at + wide] = (value % 2**(8 * wide)).to_bytes(wide, draw.choice(("little", "big")))
        elif kind == 2:
            del made[at:]
        elif kind == 3:
            del made[at:at + draw.choice((1, 4, 100))]
        elif kind == 4:
            made[at:at] = made[at:at + draw.choice((1, 4, 500))]
        else:
            made[at:at + draw.choice((4, 64))] = bytes(draw.choice((4, 64)))
    return bytes(made)


def distorted(draw: random.Random, document):
    """A JSON document with one value somewhere replaced, or one key gone."""
    made = json.loads(json.dumps(document))
    place = made
    for _ in range(draw.randint(0, 3)):
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        inner = [key for key in keys if isinstance(place[key], dict | list) and place[key]]
        if not inner:
            break
        place = place[draw.choice(inner)]
    if not place:
        return draw.choice(NUMBERS)
    key = draw.choice(list(place) if isinstance(place, dict) else range(len(place)))
    if draw.random() < 0.3:
        del place[key]
    else:
        place[key] = draw.choice(NUMBERS)
    return made if draw.random() < 0.97 else draw.choice(NUMBERS)


# What is damaged, and who reads it -----------------------------------------------------------------------------------

class Sounds:
    def __init__(self, folder, nano):
        self.folder, self.originals = folder, []
        for name in [*OF_LIBSNDFILE, *OF_FFMPEG]:
            self.originals.append((name, write_sound(folder / name).read_bytes()[:30_000]))
        soundfile.write(folder / "loud.wav", np.array([0.1, -3e38, 0.1] * 99), 16_000, "FLOAT")
        self.originals.append(("loud.wav", (folder / "loud.wav").read_bytes()))

    def one(self, draw: random.Random) -> None:
        name, data = draw.choice(self.originals)
        if name.endswith(".wav") and draw.random() < 0.3:
            data = data[:24] + struct.pack("<I", draw.choice(RATES)) + data[28:]
        else:
            data = damaged(draw, data)
        path = self.folder / f"damaged{draw.choice((os.path.splitext(name)[1], '.wav', '.raw'))}"
        path.write_bytes(data)
        sound = audio.load(path)
        assert sound.samples.dtype == np.float32 and np.isfinite(sound.samples).all() and len(sound.samples)
        assert np.abs(sound.samples).max() <= 1.0
        if draw.random() < 0.2:
            parts = audio.stream(path)
            assert len(parts[0:len(parts)]) == len(parts) == len(sound.samples)


class Checkpoints:
    FILES = ("config.json", "generation_config.json", "preprocessor_config.json", "tokenizer.json", "model.safetensors")

    def __init__(self, folder, nano):
        self.folder, self.nano = folder, nano
        with open(nano / "model.safetensors", "rb") as file:
            length = file.read(8)
            self.header, self.size = length + file.read(struct.unpack("<Q", length)[0]), os.path.getsize(file.name)
        for name in self.FILES[:-1]:
            shutil.copy(nano / name, folder)
        self.write_weights(self.header)

    def write_weights(self, header: bytes) -> None:
        with open(self.folder / "model.safetensors", "wb") as file:
            file.write(header)
            file.truncate(max(self.size, len(header)))  # a hole in place of the weights: they are not read here

    def one(self, draw: random.Random) -> None:
        name = draw.choice(self.FILES)
        path = self.folder / name
        try:
            if name == "model.safetensors":
                self.write_weights(damaged(draw, self.header))
            elif draw.random() < 0.3 or name == "tokenizer.json":
                path.write_bytes(damaged(draw, (self.nano / name).read_bytes()))
            else:
                original = json.loads((self.nano / name).read_text(encoding="utf-8"))
                path.write_text(json.dumps(distorted(draw, original)))
            faults = [self.caught(read) for read in (lambda: checkpoints.resolve(str(self.folder)),
                                                     lambda: TokenRules.from_folder(self.folder),
                                                     lambda: features.FeatureSpec.from_folder(self.folder))]
            if fault := next(filter(None, faults), None):
                raise fault
        finally:
            if name == "model.safetensors":
                self.write_weights(self.header)
            else:
                shutil.copy(self.nano / name, path)

    @staticmethod
    def caught(read) -> LabError | None:
        try:
            read()
        except LabError as error:
            return error
        return None


class Graphs:
    def __init__(self, folder, nano):
        import onnx
        from onnx import TensorProto, helper, numpy_helper

        weights = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
        value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in ("x", "y")]
        graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", value[:1], value[1:], [weights])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        helper.set_model_props(model, {"producer": seals.PRODUCER, "part": "encoder", "model": "m",
                                       "revision": "null", "random_weights": "false", "weights_sha256": "0",
                                       "precision": "fp32", "format": "1", "cache_types": '{"cross": "float32"}'})
        self.path, self.data = folder / "a.onnx", model.SerializeToString()
        onnx.save_model(model, folder / "outside.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
        self.outside = (folder / "outside.onnx").read_bytes()

    def one(self, draw: random.Random) -> None:
        self.path.write_bytes(damaged(draw, draw.choice((self.data, self.outside))))
        external_data.check(self.path)
        if draw.random() < 0.5:  # 04 and 05 show what onnxruntime may not open
            model = graph_facts.read(self.path)
            json.dumps([graph_facts.facts(self.path, model), graph_facts.weights(model),
                        graph_facts.kept_operators(model),
                        tour.counts(model, model)], allow_nan=False)
            return
        session = sessions._open(self.path, sessions.session_options("encoder", 1, False), "write it again")
        sessions._facts(self.path, session, "encoder", "write it again")


class References:
    OBJECT = {"a.wav": {"text": "one", "language": "en", "segments": [{"start_s": 0.4}]}, "b.wav": "two"}
    LIST = [{"file": "a.wav", "text": "one", "language": "en"}, {"file": "b.wav", "text": "two"}]

    def __init__(self, folder, nano):
        self.path = folder / "references.json"

    def one(self, draw: random.Random) -> None:
        document = distorted(draw, draw.choice((self.OBJECT, self.LIST)))
        data = json.dumps(document).encode(draw.choice(("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252")))
        self.path.write_bytes(damaged(draw, data) if draw.random() < 0.5 else data)
        for name, entry in transcripts.read_references(self.path).items():
            assert isinstance(name, str) and isinstance(entry["text"], str | None)


KINDS = {"sound": Sounds, "checkpoint": Checkpoints, "graph": Graphs, "references": References}


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_a_result_or_two_lines(nano, tmp_path, kind, capfd):
    made, begun = KINDS[kind](tmp_path, nano), time.monotonic()
    before, slowest, ends, number = _peak(), 0.0, collections.Counter(), SEED
    while (time.monotonic() - begun < SECONDS / len(KINDS)) if SECONDS else number < SEED + COUNT[kind]:
        started = time.process_time()
        try:
            made.one(random.Random(f"{kind}/{number}"))
            ends["read"] += 1
        except LabError as error:
            assert error.problem and error.remedy, f"FUZZ_SEED={number}"
            console.error(error)
            ends["refused"] += 1
        except Exception as error:
            raise AssertionError(f"FUZZ_SEED={number}: {type(error).__name__}: {error}") from error
        slowest = max(slowest, time.process_time() - started)
        assert slowest < SLOWEST_S, f"FUZZ_SEED={number} took {slowest:.1f} s"
        assert _peak() - before < MOST_GROWTH, f"FUZZ_SEED={number}: {(_peak() - before) >> 20} MB more"
        number += 1
    assert ends["refused"], "nothing was damaged enough to be refused: this test would find nothing"
    told = capfd.readouterr().err
    assert len(re.findall(r"^error: .+\n  try: .+$", told, re.MULTILINE)) == ends["refused"]
    assert "Traceback" not in told  # as C libraries print of Python that they call
    with capfd.disabled():
        if SECONDS:
            print(f"\n{kind}: {number - SEED} files, {ends['read']} read, {ends['refused']} refused; slowest "
                  f"{slowest:.2f} s of the processor; {(_peak() - before) >> 20} MB more at the peak")


def _peak() -> int:
    """Largest memory of this process so far, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize("kind, number", [("sound", 1189)])  # a header that asks FFmpeg for more memory than there is
def test_what_was_found_once_is_two_lines(nano, tmp_path, kind, number):
    made = KINDS[kind](tmp_path, nano)
    with pytest.raises(LabError, match="is not sound that can be read|cut short"):
        made.one(random.Random(f"{kind}/{number}"))
