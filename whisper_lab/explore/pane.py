"""One graph in a Netron of its own: this process serves one file, on this machine only, until its parent is gone.

    python -m whisper_lab.explore.pane /folder/of/its/own/graph.onnx

One process a graph, because two servers in one process show the same file (Netron 9 keeps the content on the handler's
class). A folder of its own, because Netron serves every file beside the graph. Prints its port as one line of JSON, and
ends when its standard input does: so it never outlives the program that started it, however that ends.
"""

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from whisper_lab import children
from whisper_lab.compare.graph_facts import read, sidecars
from whisper_lab.console import LabError

HOST = "127.0.0.1"
START_S = 60  # until a pane has to have told its port; a cold disk takes its time


class Pane:
    """A running Netron; a context manager that starts it and ends it. `port` is its port on this machine."""

    def __init__(self, path: Path, slim: bool = False):
        """path: the graph; slim: serve a copy without weight data. Raises LabError for no file or no ONNX."""
        self.path, self.slim, self.model = Path(path), slim, read(path)
        self.port: int | None = None

    def __enter__(self) -> "Pane":
        self._folder = tempfile.TemporaryDirectory(prefix="whisper-lab-pane-")
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # a full pipe would stop it
        try:
            file = self._place(Path(self._folder.name))
            self.size_bytes = sum(one.stat().st_size for one in file.parent.iterdir())
            self._process = subprocess.Popen([sys.executable, "-m", __spec__.name, str(file)], stdin=subprocess.PIPE,
                                             stdout=subprocess.PIPE, stderr=self._errors, text=True,
                                             cwd=file.parent, env=children.environment(), start_new_session=True)
            self.port = self._told_port()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        process = getattr(self, "_process", None)
        if process is not None:
            process.stdin.close()  # the pane sees the end of its input, and leaves
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()
        self._errors.close()
        self._folder.cleanup()

    def _told_port(self) -> int:
        """The port that the new process prints. Raises LabError where it ends without one, or says nothing."""
        ready, _, _ = select.select([self._process.stdout], [], [], START_S)
        if not ready:
            raise LabError(f"Netron has not started within {START_S} s for {self.path.name}",
                           "run it again when the machine is less busy, or with --slim")
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise LabError(f"Netron did not start for {self.path.name}: {self._errors.read().strip()[-300:]}",
                           "look whether it is installed: python -m whisper_lab.doctor")
        return json.loads(line)["port"]

    def _place(self, folder: Path) -> Path:
        """The graph, and what belongs to it, in a folder that holds nothing else."""
        if self.slim:
            from whisper_lab.explore.slim import without_weights

            (folder / self.path.name).write_bytes(without_weights(self.model).SerializeToString())
        else:
            for file in [self.path, *sidecars(self.path, self.model)]:
                _link(file, folder / file.name)
        return folder / self.path.name


def _link(source: Path, target: Path) -> None:
    """A hard link where both stand on one disk, else a copy. A symbolic link would lead Netron out of the folder."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        try:
            shutil.copyfile(source, target)
        except OSError as error:
            raise LabError(f"cannot copy {source.name} to a folder of its own: {error.strerror}",
                           "free some disk space, set TMPDIR to a larger disk, or use --slim") from error


def main() -> None:
    """Serve the file named on the command line until standard input ends."""
    import logging

    import netron

    logging.basicConfig(level=logging.CRITICAL)
    # The bare name: this process stands in the folder, and the page shows no path of this machine.
    _, port = netron.serve(Path(sys.argv[1]).name, None, address=(HOST, 0))
    print(json.dumps({"port": port}), flush=True)
    sys.stdin.read()
    netron.stop()


if __name__ == "__main__":
    main()
