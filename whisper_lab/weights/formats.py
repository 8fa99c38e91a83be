"""Which format a file of Whisper weights has, and the way from there to a Hugging Face folder.

    formats.kind_of(Path("models/faster-whisper-base"))                        # 'ctranslate2'
    formats.convert(Path("ggml-base.bin"), Path("whisper_model_dir/whisper-base"))
"""

import hashlib
from pathlib import Path

from whisper_lab.console import LabError
from whisper_lab.weights import ctranslate2, huggingface
from whisper_lab.weights.model import Source

HEAD_BYTES = 64
BLOCK = 1 << 20


def kind_of(path: Path) -> str | None:
    """huggingface, ctranslate2, openai or ggml; None for anything else. Reads only the first bytes of files."""
    path = Path(path)
    if path.is_dir():
        if ctranslate2.is_head(head(path / ctranslate2.FILE)):
            return "ctranslate2"
        return None
    return "ctranslate2" if ctranslate2.is_head(head(path)) else None


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
    is no Whisper that this lab reads, it is damaged, or `folder` holds something else or cannot be written.
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
        raise LabError(f"{path} is no Whisper model in a format that this lab reads",
                       "pass a Hugging Face folder, a CTranslate2 folder, a .pt of openai-whisper's or a ggml file")
    return {"ctranslate2": ctranslate2.read}[kind](path)


def origin_of(source: Source) -> dict:
    """format, file (without its folders), sha256 and the type of the stored matrices; lists where there are shards."""
    names, digests = [path.name for path in source.files], [sha256(path) for path in source.files]
    one = len(names) == 1
    return {"format": source.format, "file": names[0] if one else names, "sha256": digests[0] if one else digests,
            "stored": source.stored}


def sha256(path: Path) -> str:
    """The digest of a file, read block by block."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
