"""The float32 graphs of an earlier run in place of tracing once more: only where the same would be traced."""

import os
import shutil
from pathlib import Path

import onnx
import pytest

from whisper_lab import external_data, names, seals
from whisper_lab.export import graphs, metadata, publish, traced


@pytest.fixture
def earlier(nano_export, tmp_path) -> Path:
    """A folder with the float32 pair of an earlier run."""
    folder = tmp_path / "graphs"
    folder.mkdir()
    for path in names.pair(nano_export / "graphs", "whisper-nano").values():
        shutil.copy(path, folder)
    return folder


def facts_of(folder: Path) -> dict[str, str]:
    """What a run today would write of its checkpoint, silence left out: that is found after the tracing."""
    noted = external_data.metadata(names.pair(folder, "whisper-nano")["decoder"])
    own = {"part", "precision", "recipe", "cache_types", "cross_attention", "verification", seals.KEY}
    return {key: value for key, value in noted.items() if key not in own and not key.startswith("silence")}


def test_the_pair_is_linked_where_the_same_would_be_traced(earlier, tmp_path):
    facts = facts_of(earlier)
    assert facts["traced_by"] == traced.method() and facts["version_torch"]
    found = traced.known(earlier, facts, True, tmp_path / "fp32")
    for part, path in names.pair(earlier, "whisper-nano").items():
        assert found[part].samefile(path)


def test_weights_in_a_sidecar_are_copied(earlier, tmp_path, monkeypatch):
    """Those of a large graph: a sidecar that is also a file elsewhere is refused by whoever opens the graph."""
    facts, pair = facts_of(earlier), names.pair(earlier, "whisper-nano")
    for path in pair.values():
        model = onnx.load(path)
        path.unlink()
        onnx.save(model, path, save_as_external_data=True, location=names.sidecar(path).name, size_threshold=0)
        seals.seal(path)
    before = {path.name: path.read_bytes() for path in earlier.iterdir()}
    monkeypatch.setattr(publish, "SINGLE_FILE_LIMIT", 0)
    for part, path in traced.known(earlier, facts, True, tmp_path / "fp32").items():
        assert sum(value.const_value.nbytes for value in graphs.load(path).graph.initializers.values()) > 1_000_000
        metadata.write(path, external_data.metadata(path), part, "fp32", {}, verified=True)
        assert publish.publish([path], earlier) == [pair[part]] and not seals.fault(pair[part])
    assert {path.name for path in earlier.iterdir()} == set(before)
    assert all((earlier / name).read_bytes() == content for name, content in before.items() if name.endswith(".data"))


@pytest.mark.parametrize("other", ["weights_sha256", "version_torch", "traced_by", "attention", "damage", "no seal",
                                   "not checked", "no decoder"])
def test_any_other_is_traced(earlier, tmp_path, other):
    facts, decoder = facts_of(earlier), names.pair(earlier, "whisper-nano")["decoder"]
    content = bytearray(decoder.read_bytes())
    if other == "damage":
        content[len(content) // 2] ^= 1
    decoder.write_bytes(content[:-1] if other == "no seal" else content)
    if other == "not checked":
        metadata.write(decoder, external_data.metadata(decoder), "decoder", "fp32", {}, verified=False)
        seals.seal(decoder)
    if other == "no decoder":
        decoder.unlink()
    facts |= {other: "another"} if other in facts else {}
    assert traced.known(earlier, facts, other != "attention", tmp_path / "fp32") is None
    assert not (tmp_path / "fp32").exists()


def test_what_is_made_of_an_earlier_pair_has_the_same_bytes(earlier, nano_export, run_script):
    done = run_script("03-export-encoder-decoder.py", "--model", "nano", "--precision", "int8", "--alignment-heads",
                      "--threads", 2, "--output-dir", earlier, cwd=earlier.parent)
    assert done.returncode == 0 and "those of an earlier run" in done.stderr and "exporting" not in done.stderr, \
        done.stderr
    for precision in ("fp32", "int8"):  # what it was made of is as it was
        for part, path in names.pair(earlier, "whisper-nano", precision).items():
            before = names.pair(nano_export / "graphs", "whisper-nano", precision)[part]
            assert path.read_bytes() == before.read_bytes(), path.name
    assert all(part.startswith("whisper-nano") for part in os.listdir(earlier))
