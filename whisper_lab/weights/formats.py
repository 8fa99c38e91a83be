"""Which format a file of Whisper weights has, and the way from there to a Hugging Face folder.

    formats.kind_of(Path("models/faster-whisper-base"))                        # 'ctranslate2'
    formats.convert(Path("ggml-base.bin"), Path("whisper_model_dir/whisper-base"))
"""

import hashlib
import shlex
from pathlib import Path

from whisper_lab import adapters, checkpoints
from whisper_lab.console import LabError
from whisper_lab.weights import ctranslate2, ggml, huggingface, openai
from whisper_lab.weights.model import Source, shown

HEAD_BYTES = 512
BLOCK = 1 << 20
READERS = {"huggingface": huggingface.read, "ctranslate2": ctranslate2.read, "openai": openai.read,
           "ggml": ggml.read}
KNOWN = [  # how files begin that are offered as Whisper's, what they are, and what to do
    (b"GGUF", "a GGUF file: whisper.cpp and this lab read the older ggml format",
     "pass the ggml-*.bin of the same model"),
    (ggml.MAGIC, "a ggml file, but not of a Whisper: its sizes are another model's",
     "pass a ggml-*.bin of whisper.cpp's"),
    (b"tjgg", "a ggml file of llama.cpp's, not of a Whisper", "pass a ggml-*.bin of whisper.cpp's"),
    (b"version https://git-lfs", "a Git LFS pointer, not the weights", "run git lfs pull in its folder"),
    (b"<", "a page of HTML or XML: the download failed", "fetch the file again"),
    (b"\x80", "a bare Python pickle, which may run a program when it is opened: it is not opened",
     "load it where you trust it, save it again with torch.save, and pass that file"),
    (b"PK", "a zip file, but not one that torch.save wrote", "unpack it, and pass what is inside"),
]
READABLE = "a Hugging Face folder, a CTranslate2 folder, a .pt of openai-whisper's, or a ggml file of whisper.cpp's"


def kind_of(path: Path) -> str | None:
    """huggingface, ctranslate2, openai or ggml; None for anything else. Reads only the first bytes of files."""
    path = Path(path)
    if path.is_dir():
        if huggingface.is_folder(path):
            return "huggingface"
        return "ctranslate2" if ctranslate2.is_head(head(path / ctranslate2.FILE)) else None
    if path.name.removesuffix(huggingface.INDEX) in huggingface.WEIGHTS and \
            huggingface.is_folder(path.parent):
        return "huggingface"
    start = head(path)
    return next((name for name, reader in (("ctranslate2", ctranslate2), ("openai", openai), ("ggml", ggml))
                 if reader.is_head(start)), None)


def head(path: Path) -> bytes:
    """The first bytes of a file; none where there is no such file."""
    try:
        with path.open("rb") as file:
            return file.read(HEAD_BYTES)
    except OSError:
        return b""


def convert(path: Path, folder: Path, origin: dict | None = None) -> Path:
    """Write the model at `path` as a Hugging Face checkpoint into `folder`, which appears whole or not at all.

    `origin` is added to what config.json says of where it came from. Returns the folder. Raises LabError where `path`
    is not a Whisper that this lab reads, it is damaged, or `folder` holds something else or cannot be written.
    """
    path, folder = Path(path), Path(folder)
    source = read(path)
    with huggingface.replacing(folder, lambda found: huggingface.origin_of(found) is not None, "converted checkpoint",
                               "choose another folder") as temporary:
        huggingface.write(source, temporary, origin_of(source) | (origin or {}))
    return folder


def read(path: Path) -> Source:
    """The model at `path`, whatever its format. Raises LabError where it is none."""
    kind = kind_of(path)
    if kind is None:
        raise unreadable(path)
    return READERS[kind](path)


def origin_of(source: Source) -> dict:
    """format, file (without its folders), sha256 and the type of the stored matrices; lists where there are shards."""
    names, digests = [path.name for path in source.files], [sha256(path) for path in source.files]
    one = len(names) == 1
    made = {"format": source.format, "file": names[0] if one else names, "sha256": digests[0] if one else digests,
            "stored": source.stored}
    earlier = source.config.get(huggingface.ORIGIN_KEY)  # a folder that was converted before
    return made | ({"earlier": earlier} if earlier else {})


def sha256(path: Path) -> str:
    """The digest of a file, read block by block."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def unreadable(path: Path) -> LabError:
    """What `path` is, where it is not a Whisper that this lab reads, and what to do about it."""
    if not path.exists():
        return LabError(f"there is no {path}", f"pass {READABLE}")
    return unreadable_folder(path) if path.is_dir() else unreadable_file(path)


def unreadable_folder(folder: Path) -> LabError:
    """A folder with the file inside it, another model's folder, or nothing known. Raises LabError for an adapter."""
    adapters.refuse(folder)
    inside = sorted(file for file in folder.iterdir() if file.is_file() and kind_of(file))
    if inside:
        return LabError(f"{folder} is not a checkpoint, but holds {shown(inside[0].name)}",
                        f"pass that file: {shlex.quote(str(inside[0]))}")
    if (folder / "weights.npz").is_file() or (folder / "weights.safetensors").is_file():
        return LabError(f"{folder} is a model in MLX's format, which this lab does not read",
                        "pass the model that it was converted from")
    if problem := checkpoints.problem_with(folder):
        return LabError(problem, f"pass {READABLE}")
    return LabError(f"{folder} holds no Whisper weights", f"pass {READABLE}")


def unreadable_file(path: Path) -> LabError:
    """What the first bytes of a file tell."""
    start = head(path)
    for magic, what, remedy in KNOWN:
        if start.startswith(magic):
            return LabError(f"{path} is {what}", remedy)
    if path.name in huggingface.WEIGHTS:
        return LabError(f"{path} has no Whisper config.json beside it", "pass the whole folder that it comes from")
    return LabError(f"{path} is not a Whisper model in a format that this lab reads", f"pass {READABLE}")
