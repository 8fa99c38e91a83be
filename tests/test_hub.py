"""The Hub, with a small server of this test in its place: what is fetched, from where it is read next time, errors."""

import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from whisper_lab import hub
from whisper_lab.console import LabError

ROOT = Path(__file__).resolve().parent.parent
COMMIT = "0123456789abcdef0123456789abcdef01234567"
DECOYS = ["pytorch_model.bin", "flax_model.msgpack", "model.fp32-00001-of-00002.safetensors", "README.md"]


class FakeHub(http.server.BaseHTTPRequestHandler):
    """As much of the Hub's interface as a download uses. `server.folder` is the repository, `server.fetched` a log."""

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        path, files = self.path.partition("?")[0], sorted(self.server.folder.iterdir())
        if path == "/":
            return self.send(b"", body)
        if "openai/whisper-base" not in path:
            return self.send(b"{}", body, status=401, headers={"X-Error-Code": "RepoNotFound"})
        if "/tree/" in path:
            entries = [{"type": "file", "path": f.name, "size": f.stat().st_size, "oid": "0" * 40} for f in files]
            return self.send(json.dumps(entries).encode(), body)
        if path.startswith("/api/models/"):
            siblings = [{"rfilename": f.name, "size": f.stat().st_size} for f in files]
            document = {"id": "openai/whisper-base", "sha": COMMIT, "siblings": siblings, "tags": [], "private": False}
            return self.send(json.dumps(document).encode(), body)
        name = path.rpartition("/")[2]
        if body:
            self.server.fetched.append(name)
            if self.server.broken:
                return self.send(b"", body, status=500)
        self.send((self.server.folder / name).read_bytes(), body,
                  headers={"ETag": f'"{name}-1"', "X-Repo-Commit": COMMIT})

    def send(self, content: bytes, body: bool, status: int = 200, headers: dict | None = None) -> None:
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(content))} | (headers or {})).items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *arguments) -> None:
        pass


@pytest.fixture
def server(tmp_path):
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), FakeHub)
    made.folder, made.fetched, made.broken = tmp_path / "repository", [], False
    made.folder.mkdir()
    write_checkpoint(made.folder)
    for name in DECOYS:
        (made.folder / name).write_bytes(b"not wanted")
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def write_checkpoint(folder: Path) -> None:
    """The smallest folder that counts as a Whisper checkpoint."""
    import numpy as np
    from safetensors.numpy import save_file

    save_file({"x": np.zeros(100_000, np.float32)}, folder / "model.safetensors")
    (folder / "config.json").write_text('{"model_type": "whisper"}')
    for name in ("tokenizer.json", "preprocessor_config.json", "generation_config.json"):
        (folder / name).write_text("{}")


def resolve(server, home: Path, model: str, **environment) -> subprocess.CompletedProcess:
    """resolve(model) in a fresh process: huggingface_hub reads its settings once, at import."""
    code = ("import sys; from whisper_lab import checkpoints, console, flags\n"
            "def main():\n"
            "    flags.parse(flags.parser('', 'log_level'), [])\n"
            "    found = checkpoints.resolve(sys.argv[1])\n"
            "    print(found.source, found.name, found.revision, found.folder)\n"
            "console.run(main)")
    ours = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))
            and not key.lower().endswith("_proxy")}
    ours |= {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    return subprocess.run([sys.executable, "-c", code, model], capture_output=True, text=True, cwd=ROOT, timeout=120,
                          env=ours | environment)


def test_the_time_limit_is_the_networks_not_the_disks():
    """Importing huggingface_hub takes seconds from a cold disk; a network that answers would look like none."""
    code = ("import sys; from whisper_lab import hub\n"
            "hub._ask = lambda: None if 'huggingface_hub.utils' in sys.modules else 'asked before it was imported'\n"
            "print(hub.out_of_reach())")
    ours = {key: value for key, value in os.environ.items() if not key.endswith("_OFFLINE")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120, env=ours)
    assert done.stdout == "None\n", done.stderr


def test_download_takes_what_is_needed_then_the_cache_serves(server, tmp_path):
    first = resolve(server, tmp_path / "home", "base")
    assert first.stdout.split()[:3] == ["hub", "whisper-base", COMMIT], first.stderr
    assert sorted(server.fetched) == ["config.json", "generation_config.json", "model.safetensors",
                                      "preprocessor_config.json", "tokenizer.json"]
    assert "download: openai/whisper-base, 0 MB (into " in first.stderr
    server.fetched.clear()
    for offline in ({}, {"HF_HUB_OFFLINE": "1"}):
        again = resolve(server, tmp_path / "home", "base", **offline)
        assert again.stdout.split()[:3] == ["cache", "whisper-base", COMMIT], again.stderr
    assert server.fetched == []


def test_a_cache_that_lost_its_weights_is_filled_again(server, tmp_path):
    folder = Path(resolve(server, tmp_path / "home", "base").stdout.split()[3])
    (folder / "model.safetensors").resolve().unlink()
    (folder / "model.safetensors").unlink()
    assert resolve(server, tmp_path / "home", "base").stdout.startswith("hub whisper-base")


def test_no_such_repository(server, tmp_path):
    done = resolve(server, tmp_path / "home", "someone/whisper-nothing")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "the Hub has no public checkpoint someone/whisper-nothing" in done.stderr


def test_a_repository_without_weights(server, tmp_path):
    for path in server.folder.iterdir():
        if path.name not in {"config.json", "README.md", "flax_model.msgpack"}:
            path.unlink()
    done = resolve(server, tmp_path / "home", "base")
    assert done.returncode == 1 and "no PyTorch weights" in done.stderr and server.fetched == []


def test_a_transfer_that_breaks_is_one_clear_error(server, tmp_path):
    server.broken = True
    done = resolve(server, tmp_path / "home", "base")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "whisper-base could not be downloaded" in done.stderr and "--model nano" in done.stderr


@pytest.mark.parametrize("names, weights", [
    (["pytorch_model.bin", "model.safetensors"], ["model.safetensors"]),
    (["pytorch_model.bin", "tf_model.h5"], ["pytorch_model.bin"]),
    (["model.safetensors.index.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
      "model.safetensors.index.fp32.json"],
     ["model.safetensors.index.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]),
])
def test_one_form_of_the_weights(names, weights):
    assert hub.needed_files(["config.json", "vocab.json", "optimizer.pt", *names]) == [
        "config.json", "vocab.json", *weights]


def test_no_weights_is_an_error():
    with pytest.raises(LabError, match="no PyTorch weights"):
        hub.needed_files(["config.json", "tf_model.h5"])
