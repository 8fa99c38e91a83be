"""A checkpoint's tokenizer: tokens to text from a table of bytes, text to tokens with the tokenizers library.

A transcript needs the first direction alone, for a few dozen of some 50,000 tokens, and the library reads 4 MB of JSON
into its tables for both, at every start. So 03 writes a table of all tokens beside the graphs, a line each, the
token's bytes in base64 and its id. That is the form of openai-whisper's vocabularies (*.tiktoken) and of sherpa-onnx's
tokens.txt, here with the special tokens. A checkpoint, and graphs of an earlier 03, have tokenizer.json alone.
"""

import base64
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from whisper_lab import files
from whisper_lab.console import LabError

TABLE = "tokens.tiktoken"
OPENING = re.compile(rb"^PH[wx]\S* (\d{1,9})$", re.MULTILINE)  # how <| and a byte below 128 begin in base64
AGAIN = "download the checkpoint again"


class Tokenizer:
    """The tokens of one checkpoint by their ids. Bytes are looked up when they are asked for."""

    def __init__(self, folder: Path, named: Callable[[int], bytes], special: dict[str, int], again: str,
                 lines: int | None = None):
        """folder: what `encode` reads; named: the bytes of a token; special: ids of tokens like <|en|>, by name;
        again: what to do where a file turns out to be damaged; lines: of the table, one for each id of the model's
        vocabulary; None: there is no table."""
        self._folder, self._named, self._known, self._encoder, self._again = folder, named, {}, None, again
        self.special, self.lines = special, lines

    @classmethod
    def from_folder(cls, folder: str | Path, again: str = AGAIN) -> "Tokenizer":
        """Of a checkpoint, or of the files beside graphs; again: what to do where they turn out to be damaged.

        Raises LabError where a file is missing or damaged, also later, when it is read.
        """
        folder = Path(folder)
        if (folder / TABLE).is_file():
            return _from_table(folder, again)
        return _from_document(folder, tokenizer_document(folder), again)

    def word(self, token: int) -> bytes:
        """The bytes that a token stands for; none for an id that the vocabulary does not have."""
        if token not in self._known:
            self._known[token] = self._named(int(token))
        return self._known[token]

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of tokens, special ones by name; bytes that are no UTF-8 become U+FFFD."""
        return b"".join(map(self.word, tokens)).decode("utf-8", "replace")

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, without those that open and close a transcript."""
        if self._encoder is None:
            from tokenizers import Tokenizer as Library

            try:
                self._encoder = Library.from_str(json.dumps(tokenizer_document(self._folder)))
            except LabError as error:
                raise LabError(f"a prompt needs tokenizer.json in {self._folder}, which is missing or damaged",
                               self._again) from error
            except Exception as error:  # a bare Exception for what it cannot read
                raise LabError(f"the tokenizer in {self._folder} cannot be read: {error}", self._again) from error
        return self._encoder.encode(text, add_special_tokens=False).ids

    def table(self, tokens: Iterable[int]) -> str:
        """These tokens, a line each: their bytes in base64, and their ids."""
        return "".join(f"{base64.b64encode(self.word(token)).decode()} {token}\n" for token in tokens)


# The files ------------------------------------------------------------------------------------------------------------

def write_table(folder: Path, size: int) -> Path:
    """Write TABLE beside a folder's tokenizer.json. size: of the model's vocabulary.

    Raises LabError where tokenizer.json cannot be read.
    """
    return files.write_text(folder / TABLE, _from_document(folder, tokenizer_document(folder)).table(range(size)))


def _from_table(folder: Path, again: str) -> Tokenizer:
    """Lines are found, not cut: as 50,000 objects they would take much more room."""
    path = folder / TABLE
    try:
        text = files.read_bytes(path)
    except (OSError, ValueError) as error:
        raise LabError(f"cannot read {path}: {error}", again) from error
    ends = np.concatenate([[-1], np.flatnonzero(np.frombuffer(text, np.uint8) == ord("\n"))])

    def named(token: int) -> bytes:
        if not 0 <= token < len(ends) - 1:
            return b""
        word, _, number = text[ends[token] + 1:ends[token + 1]].partition(b" ")
        try:
            if int(number) != token:
                raise ValueError("not its id")
            return base64.b64decode(word, validate=True)
        except ValueError as error:
            raise LabError(f"{path} is damaged at token {token}", again) from error

    special = _special((int(found[1]), named(int(found[1]))) for found in OPENING.finditer(text))
    return Tokenizer(folder, named, special, again, len(ends) - 1)


def _from_document(folder: Path, found: dict, again: str = AGAIN) -> Tokenizer:
    """Of what tokenizer.json holds."""
    try:
        words = {i: word for word, i in found["model"]["vocab"].items()}
        words |= {token["id"]: token["content"] for token in found["added_tokens"]}
        added = {token["id"]: token["content"].encode() for token in found["added_tokens"]}
    except (KeyError, TypeError, AttributeError) as error:
        raise LabError(f"{folder / 'tokenizer.json'} is not a tokenizer: {error}", again) from error
    return Tokenizer(folder, lambda token: bytes_of(words.get(token, "")), _special(added.items()), again)


def _special(tokens: Iterable[tuple[int, bytes]]) -> dict[str, int]:
    return {word.decode(): i for i, word in tokens if word.startswith(b"<|") and word.endswith(b"|>")}


def tokenizer_document(folder: str | Path) -> dict:
    """A checkpoint's tokenizer.json; transformers makes it of vocab.json and merges.txt, as transformers 4 saves them.

    Raises LabError where neither is there, or they cannot be read.
    """
    path, vocabulary = Path(folder) / "tokenizer.json", Path(folder) / "vocab.json"
    if path.is_file() or not vocabulary.is_file():
        return read_object(path)
    from whisper_lab.checkpoints import import_transformers

    try:
        made = import_transformers().WhisperTokenizerFast.from_pretrained(path.parent)
    except Exception as error:
        raise LabError(f"no tokenizer can be made of {vocabulary}: {error}", AGAIN) from error
    return json.loads(made.backend_tokenizer.to_str())


def read_object(path: Path, required: bool = True) -> dict:
    """A JSON file of a checkpoint; {} where it is missing and not required. Raises LabError where it cannot be read."""
    try:
        found = files.read_json(path)
        if not isinstance(found, dict):
            raise ValueError(f"it holds {type(found).__name__}, not an object")
        return found
    except FileNotFoundError:
        if not required:
            return {}
        raise LabError(f"{path.parent} is not a Whisper checkpoint: it has no {path.name}",
                       "give --model a folder that has one, or a name such as nano or base") from None
    except (OSError, ValueError) as error:
        raise LabError(f"cannot read {path}: {error}", AGAIN) from error


# Bytes as characters --------------------------------------------------------------------------------------------------

def byte_alphabet() -> list[str]:
    """How GPT-2's vocabulary files write the bytes 0 .. 255: printable Latin-1 as itself, the rest from U+0100 on."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


BYTE_OF = {character: byte for byte, character in enumerate(byte_alphabet())}


def bytes_of(word: str) -> bytes:
    """The bytes of a token as vocabulary files write it; a word with other characters is text, and has its UTF-8."""
    return bytes(BYTE_OF[c] for c in word) if all(c in BYTE_OF for c in word) else word.encode()
