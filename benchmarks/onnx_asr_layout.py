"""A checkpoint in the layout of onnx-asr's type `whisper`: optimum's two graphs in int8, and the tokens in two files.

    benchmarks/.envs/optimum/bin/python benchmarks/onnx_asr_layout.py CHECKPOINT FOLDER

As in the onnx-community repositories that onnx-asr fetches: linear layers quantized by onnxruntime's quantize_dynamic.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from whisper_lab.speakers import models  # noqa: E402

GRAPHS = ("encoder_model", "decoder_model_merged")


def main(checkpoint: Path, folder: Path) -> None:
    """Export, quantize, write the tokens, and the detector for long recordings; the float32 graphs are removed."""
    if subprocess.run([sys.executable, "-m", "optimum.commands.optimum_cli", "export", "onnx", "--model",
                       str(checkpoint), "--task", "automatic-speech-recognition-with-past", str(folder)]).returncode:
        sys.exit(1)  # its last line says why
    for name in GRAPHS:
        quantize(folder / f"{name}.onnx", folder / f"{name}_int8.onnx")
    for path in folder.glob("*.onnx"):
        if not path.stem.endswith("_int8"):
            path.unlink()
    write_tokens(checkpoint, folder)
    shutil.copy(models.obtain("silero-vad"), folder / "silero_vad.onnx")


def quantize(source: Path, target: Path) -> None:
    """int8 weights per channel; the two branches of the merged decoder are graphs of their own inside it."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(source, target, weight_type=QuantType.QInt8, per_channel=True,
                     op_types_to_quantize=["MatMul", "Gemm", "Gather"], extra_options={"EnableSubgraph": True})


def write_tokens(checkpoint: Path, folder: Path) -> None:
    """vocab.json: byte-pair tokens; added_tokens.json: the special ones. Both map a token to its id."""
    found = json.loads((checkpoint / "tokenizer.json").read_text(encoding="utf-8"))
    added = {token["content"]: token["id"] for token in found["added_tokens"]}
    for name, tokens in (("vocab.json", found["model"]["vocab"]), ("added_tokens.json", added)):
        (folder / name).write_text(json.dumps(tokens, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
