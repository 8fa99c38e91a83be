"""A Whisper tokenizer from what a file holds: a tokenizer.json, a list of tokens, or byte-pair ranks.

Ranks are byte strings in the order in which byte-pair encoding learnt them. The merges follow from them: each token was
learnt by joining the two pieces into which the tokens before it split it.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from whisper_lab import files
from whisper_lab.console import LabError
from whisper_lab.tokenizer import BYTE_OF, byte_alphabet, tokenizer_document
from whisper_lab.weights.model import shown
from whisper_lab.weights.published import NAMED_TOKENS

END, START = "<|endoftext|>", "<|startoftranscript|>"
NOT_OURS = "fetch it again from where the model came, or remove it"
TIMESTAMP = re.compile(r"<\|\d+\.\d\d\|>")
RENAMED = {"<|iw|>": "<|he|>"}  # Hebrew, in the first conversions under its old code
STEP_S = 0.02  # seconds between two timestamps
MOST_LANGUAGES = 100
LETTERS = byte_alphabet()
LONGEST_TOKEN = 4096  # bytes; Whisper's longest has 128. Finding merges takes the square of it


@dataclass(frozen=True)
class Tokens:
    """A vocabulary: text tokens as GPT-2 spells them (ids 0, 1, ...), their merges in order, and the tokens after them.

    `added` are the contents of the ids from len(text) on: special tokens, timestamps, what fine-tuning added.
    """

    text: list[str]
    merges: list[tuple[str, str]]
    added: list[str]

    def __len__(self) -> int:
        return len(self.text) + len(self.added)

    def build(self):
        """The transformers.WhisperTokenizer of it."""
        from whisper_lab.checkpoints import import_transformers

        WhisperTokenizer = import_transformers().WhisperTokenizer
        from tokenizers import AddedToken

        first_time = next((i for i, token in enumerate(self.added) if TIMESTAMP.fullmatch(token)), len(self.added))
        tokenizer = WhisperTokenizer(
            vocab={token: i for i, token in enumerate(self.text)}, merges=self.merges, pad_token=END,
            additional_special_tokens=self.added[:first_time], model_max_length=1024)
        tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in self.added[first_time:]])
        return tokenizer


def spell(token: bytes) -> str:
    """Bytes as GPT-2's vocabulary files write them: one printable letter for each."""
    return "".join(LETTERS[byte] for byte in token)


def unspell(token: str) -> bytes:
    """The bytes of a text token. Raises ValueError where a letter stands for no byte."""
    try:
        return bytes(BYTE_OF[letter] for letter in token)
    except KeyError as error:
        raise ValueError(f"{error} stands for no byte") from error


def merges(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The byte-pair merges in the order they were learnt (Sennrich et al. 2016, arXiv:1508.07909, algorithm 1).

    Raises ValueError where a token is not made of two that come before it: then these are not byte-pair ranks.
    """
    found = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) > LONGEST_TOKEN:
            raise ValueError(f"token {rank} has {len(token)} bytes")
        if len(token) > 1:
            pieces = split(token, ranks, rank)
            if len(pieces) != 2:
                raise ValueError(f"token {rank} comes from {len(pieces)} pieces")
            found.append((pieces[0], pieces[1]))
    return found


def split(token: bytes, ranks: dict[bytes, int], limit: int) -> list[bytes]:
    """Join the bytes of `token` pair by pair, lowest rank first, with tokens of a rank below `limit` only."""
    pieces = [token[i:i + 1] for i in range(len(token))]
    while True:
        joined = [ranks.get(left + right, limit) for left, right in zip(pieces, pieces[1:], strict=False)]
        best = min(joined, default=limit)
        if best >= limit:
            return pieces
        at = joined.index(best)
        pieces[at:at + 2] = [pieces[at] + pieces[at + 1]]


def languages() -> list[str]:
    """Whisper's language codes in the order of their token ids; the last, yue, came with large-v3."""
    from whisper_lab.checkpoints import import_transformers

    import_transformers()
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    return list(LANGUAGES)


def no_speech(language_count: int) -> str:
    """The token for silence: transformers' first conversions called it nocaptions, and the name stayed."""
    return "<|nospeech|>" if language_count == MOST_LANGUAGES else "<|nocaptions|>"


def special_tokens(codes: Iterable[str], silence: str) -> list[str]:
    """Whisper's special tokens, timestamps left out, in the order of their ids."""
    return [END, START, *(f"<|{code}|>" for code in codes), "<|translate|>", "<|transcribe|>", "<|startoflm|>",
            "<|startofprev|>", silence, "<|notimestamps|>"]


def timestamps(count: int) -> list[str]:
    """<|0.00|>, <|0.02|> ... : one per encoder position and one for the end."""
    return [f"<|{i * STEP_S:.2f}|>" for i in range(count)]


def from_ranks(ranks: dict[bytes, int], vocabulary: int, audio_positions: int, origin: object) -> Tokens:
    """Text tokens from byte-pair ranks; the rest of the `vocabulary` rows are Whisper's special tokens in their order.

    Raises LabError where the sizes do not fit together, or these are not byte-pair ranks.
    """
    remedy = "put the tokenizer.json of the same model beside the file, and convert again"
    count = vocabulary - len(ranks) - NAMED_TOKENS - (audio_positions + 1)
    if not 1 <= count <= MOST_LANGUAGES or sorted(ranks.values()) != list(range(len(ranks))):
        raise LabError(f"{origin}: a model of {vocabulary} tokens, {len(ranks)} of them text, has none of Whisper's "
                       "vocabularies", remedy)
    try:
        pairs = merges(ranks)
    except ValueError as error:
        raise LabError(f"{origin}: its tokens are not a byte-pair vocabulary: {error}", remedy) from error
    text = [spell(token) for token, _ in sorted(ranks.items(), key=lambda item: item[1])]
    added = special_tokens(languages()[:count], no_speech(count)) + timestamps(audio_positions + 1)
    return Tokens(text, [(spell(left), spell(right)) for left, right in pairs], added)


def from_list(contents: list[str], vocabulary: int, audio_positions: int, origin: object) -> Tokens:
    """From all tokens in the order of their ids, as CTranslate2's vocabulary.json and vocabulary.txt list them."""
    text = contents[:contents.index(END)] if END in contents else contents
    try:
        ranks = {unspell(token): i for i, token in enumerate(text)}
        pairs = [(spell(left), spell(right)) for left, right in merges(ranks)]
    except ValueError as error:
        raise LabError(f"{origin} is not a vocabulary of Whisper's: {error}",
                       "put the tokenizer.json of the same model beside the weights, and convert again") from error
    if len(text) == len(contents):
        return from_ranks(ranks, vocabulary, audio_positions, origin)
    return complete(Tokens(text, pairs, contents[len(text):]), vocabulary, audio_positions, origin)


def from_files(folder: Path, vocabulary: int, audio_positions: int) -> Tokens:
    """From a checkpoint's vocab.json and merges.txt, as transformers 4 saves a tokenizer."""
    return from_json(tokenizer_document(folder), folder / "vocab.json", vocabulary, audio_positions)


def from_document(path: Path, vocabulary: int, audio_positions: int) -> Tokens:
    """From a tokenizer.json; timestamps that it does not list are added. Raises LabError where it is not Whisper's."""
    try:
        document = files.read_json(path)
    except (OSError, ValueError) as error:
        raise LabError(f"{path} cannot be read: {shown(str(error))}", NOT_OURS) from error
    return from_json(document, path, vocabulary, audio_positions)


def from_json(document: dict, path: Path, vocabulary: int, audio_positions: int) -> Tokens:
    """From what a tokenizer.json holds."""
    try:
        vocab, pairs = document["model"]["vocab"], document["model"]["merges"]
        by_id = {i: token for token, i in vocab.items()} | {t["id"]: t["content"] for t in document["added_tokens"]}
        contents = [by_id[i] for i in range(len(by_id))]
        pairs = [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in pairs]
        first = contents.index(END)
        good = all(isinstance(t, str) for t in contents) and all(len(pair) == 2 for pair in pairs)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LabError(f"{path} is not a tokenizer of Whisper's ({type(error).__name__}: {shown(str(error))})", NOT_OURS
                       ) from error
    known = set(contents[:first])
    if not good or not all({left, right, left + right} <= known for left, right in pairs):
        raise LabError(f"{path} is damaged: its merges join tokens that it does not list", NOT_OURS)
    return complete(Tokens(contents[:first], whole_merges(contents[:first], pairs), contents[first:]),
                    vocabulary, audio_positions, path)


def whole_merges(text: list[str], listed: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The merges that the vocabulary implies, where those `listed` are among them; else `listed`.

    The published multilingual tokenizers lack their first merge, Ġ with t: transformers' conversion took it for a
    heading. Texts decode alike, but " t" as a prompt then becomes two tokens that the model never learnt together.
    """
    try:
        implied = [(spell(left), spell(right)) for left, right in merges({unspell(t): i for i, t in enumerate(text)})]
    except ValueError:
        return listed
    return implied if set(listed) <= set(implied) else listed


def complete(tokens: Tokens, vocabulary: int, audio_positions: int, origin: object) -> Tokens:
    """The same with the timestamps that its file leaves out. Raises LabError where special tokens are missing.

    An embedding may have more rows than there are tokens (padding); the other way round no row is left for a token.
    """
    added = [RENAMED.get(token, token) for token in tokens.added]
    if added and added[-1] == "<|notimestamps|>":
        added += timestamps(audio_positions + 1)
    needed = {*special_tokens([], "<|notimestamps|>"), "<|0.00|>"} - {"<|startoflm|>"}
    if missing := sorted(needed - set(added)):
        raise LabError(f"{origin} is not a tokenizer of Whisper's: it has no {missing[0]}",
                       "put the tokenizer.json of the same model beside the weights, and convert again")
    if len(set(tokens.text) | set(added)) != len(tokens.text) + len(added):
        raise LabError(f"{origin} lists a token twice", "fetch it again from where the model came")
    if len(tokens.text) + len(added) > vocabulary:
        raise LabError(f"{origin} has {len(tokens.text) + len(added)} tokens, and the model only {vocabulary}: "
                       "it belongs to another model", "put the tokenizer.json of the same model beside the weights")
    return Tokens(tokens.text, tokens.merges, added)


def save(tokenizer, folder: Path) -> None:
    """tokenizer.json, tokenizer_config.json, and vocab.json with merges.txt for older readers."""
    tokenizer.save_pretrained(folder)
    model = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    files.write_json(folder / "vocab.json", model["vocab"])
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    files.write_text(folder / "merges.txt", "\n".join(["#version: 0.2", *pairs]) + "\n")
