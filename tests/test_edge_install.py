"""What a build of edge/web installs: onnxruntime-web as it is pinned, whole, also where several builds run at once."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.helpers import edge_page

NPM = """#!/bin/sh
mkdir node_modules || exit 217  # as npm's ENOTEMPTY where another one is at work in the same folder
mkdir -p node_modules/onnxruntime-web/dist
sleep 0.3
cp package.json node_modules/onnxruntime-web/dist/
echo '{"version": "WANTED"}' > node_modules/onnxruntime-web/package.json
"""


def fake_npm(folder: Path, script: str) -> dict:
    """An environment whose npm is a script; the version in it is the one that edge/web wants."""
    wanted = json.loads((edge_page.WEB / "package.json").read_text())["dependencies"]["onnxruntime-web"]
    folder.mkdir(exist_ok=True)
    (folder / "npm").write_text(script.replace("WANTED", wanted))
    (folder / "npm").chmod(0o755)
    return os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}


@pytest.mark.parametrize("there", [None, "1.0.0"], ids=["first", "another version"])
def test_builds_at_the_same_time_install_the_runtime_once_and_whole(tmp_path, there):
    edge_page.needs_npm()
    web = tmp_path / "web"
    shutil.copytree(edge_page.WEB, web, ignore=shutil.ignore_patterns("node_modules", "dist"))
    if there:
        (web / "node_modules" / "onnxruntime-web").mkdir(parents=True)
        (web / "node_modules" / "onnxruntime-web" / "package.json").write_text(json.dumps({"version": there}))
    environment = fake_npm(tmp_path / "bin", NPM)
    runs = [subprocess.Popen(["node", "install.mjs"], cwd=web, env=environment, stderr=subprocess.PIPE)
            for _ in range(3)]
    assert [(run.communicate()[1].count(b"installing"), run.returncode) for run in runs] == [(1, 0)] * 3
    assert (web / "node_modules" / "onnxruntime-web" / "dist" / "package.json").is_file()
    assert not list(web.glob(".install-*"))
    again = subprocess.run(["node", "install.mjs"], cwd=web, env=environment, capture_output=True, check=True)
    assert not again.stderr


@pytest.mark.parametrize("script, problem", [
    ("#!/bin/sh\n", "npm has put nothing there"), ("#!/bin/sh\nmkdir node_modules\n", "npm has put nothing there"),
    (None, "there is no npm here\n  try: apt-get install")])
def test_an_npm_that_does_nothing_and_none_at_all(tmp_path, script, problem):
    web = tmp_path / "web"
    shutil.copytree(edge_page.WEB, web, ignore=shutil.ignore_patterns("node_modules", "dist"))
    environment = fake_npm(tmp_path / "bin", script or "")
    if script is None:
        (tmp_path / "bin" / "npm").unlink()
        environment["PATH"] = str(tmp_path / "bin")
    done = subprocess.run([shutil.which("node"), "install.mjs"], cwd=web, env=environment, capture_output=True,
                          text=True)
    assert done.returncode == 1 and problem in done.stderr and not list(web.glob(".install-*"))


def test_a_registry_out_of_reach_leaves_nothing_behind(tmp_path):
    web = tmp_path / "web"
    shutil.copytree(edge_page.WEB, web, ignore=shutil.ignore_patterns("node_modules", "dist"))
    environment = fake_npm(tmp_path / "bin", "#!/bin/sh\necho 'npm error code ENOTFOUND' >&2\nexit 1\n")
    done = subprocess.run(["node", "install.mjs"], cwd=web, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and "ENOTFOUND" in done.stderr and not list(web.glob(".install-*"))
    assert "error: onnxruntime-web is not installed: Command failed: npm ci" in done.stderr
    assert "\n  try: go online" in done.stderr and "at ModuleJob" not in done.stderr


def test_the_lock_file_pins_and_names_no_registry():
    lock = json.loads((edge_page.WEB / "package-lock.json").read_text())
    wanted = json.loads((edge_page.WEB / "package.json").read_text())["dependencies"]
    assert {name: lock["packages"][f"node_modules/{name}"]["version"] for name in wanted} == wanted
    assert all("integrity" in entry and "resolved" not in entry for path, entry in lock["packages"].items() if path)
