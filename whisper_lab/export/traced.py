"""The float32 graphs of an earlier run, in place of tracing PyTorch once more.

Tracing gives the same bytes each time. So whoever has the float32 pair and asks for int8 gets it from that pair: of the
same weights, traced by the same code and the same versions of the packages, its gates passed, not a bit changed since.
What is made of it is compared with PyTorch as ever, and so is the pair where it is asked for once more (`all`).
"""

import json
from pathlib import Path

from whisper_lab import names, thinning
from whisper_lab.export import graphs, layouts, metadata, naming, torch_export, wrappers

SCRIPT = Path(__file__).resolve().parents[2] / "03-export-encoder-decoder.py"
DECIDES = (SCRIPT, *(Path(module.__file__) for module in (graphs, naming, thinning, torch_export, wrappers)))


def method() -> str:
    """The code that traces, as a digest: what graphs depend on beside the weights and the versions of the packages."""
    return metadata.of_files(DECIDES)


def known(output_dir: Path, facts: dict[str, str], alignment: bool, folder: Path) -> dict[str, Path] | None:
    """The pair in `output_dir`, placed in `folder`; None: there is none, or another would be traced today.

    facts: of the checkpoint, as `metadata.of_checkpoint`, and `traced_by`, of `method`; alignment: the decoder is to
    give the attention that word times need.
    """
    pair = names.pair(output_dir, facts["model"])
    for part, path in pair.items():
        wanted = facts | {"part": part, "precision": "fp32", "verification": metadata.CHECKED,
                          "cross_attention": json.dumps(alignment and part == "decoder")}
        if metadata.agreeing(path, wanted) is None:
            return None
    folder.mkdir()
    for path in pair.values():
        layouts.place(path, folder, link=True)  # what changes a graph writes a file of its own
        if names.sidecar(path).exists():
            layouts.place(names.sidecar(path), folder)  # one that is also a file elsewhere is refused
    return {part: folder / path.name for part, path in pair.items()}
