"""transformers.js in node, on onnxruntime-node: this only installs it and hands over to transformersjs/hear.mjs.

Setting: dtype, as of its `pipeline`; subfolder, where the graphs are not in onnx/.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).resolve().parents[1] / "transformersjs" / "hear.mjs"


def main() -> None:
    """Become node."""
    install()
    os.execvp("node", ["node", str(PROGRAM), *sys.argv[1:]])


def install() -> None:
    """The packages, where they are missing. Ends with a line on stderr where node or the packages cannot be had."""
    if not (shutil.which("node") and shutil.which("npm")):
        sys.exit("there is no node and npm here: apt-get install nodejs npm")
    if not (PROGRAM.parent / "node_modules" / "@huggingface" / "transformers").is_dir():
        done = subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=PROGRAM.parent,
                              capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"npm ci failed: {(done.stderr.strip().splitlines() or ['it said nothing'])[-1]}")


if __name__ == "__main__":
    main()
