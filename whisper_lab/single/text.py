"""Tokens to text inside a graph: the tokenizer's byte-level decoding in standard operators.

A token is a string of bytes, and a character may be spread over several tokens: é is two bytes, € three, an emoji
four. So the bytes of all tokens are put in a row first, then UTF-8 is decoded by arithmetic, all positions at once,
and each code point picks its character from a table of strings. ONNX has no operator from numbers to characters.

Malformed bytes become U+FFFD, one for each maximal part of a character, as Python's errors="replace" and the
tokenizers library do (Unicode standard, chapter 3.9, "U+FFFD Substitution of Maximal Subparts").
"""

import numpy as np

from whisper_lab.single.blocks import BOOL, INT64, STRING, Block, loop
from whisper_lab.tokenizer import Tokenizer
from whisper_lab.tokens import TokenRules

REPLACEMENT = 0xFFFD
# The table ends where assigned characters do: planes 0 and 1, the rare ideographs of planes 2 and 3, and the tags of
# plane 14 that flags are spelled with. Beyond are private use and nothing: 6 MB of strings that no transcript holds.
PLANES, TAGS = range(0x323B0), range(0xE0000, 0xE01F0)
SPACES = [code for code in range(0x3001) if chr(code).isspace()]  # what str.strip takes away
# Lead byte -> bytes of the character, smallest and largest second byte, bits of its own (Unicode table 3-7).
LEADS = [(range(0x00, 0x80), 1, 0, 0, 0x7F), (range(0xC2, 0xE0), 2, 0x80, 0xBF, 0x1F),
         (range(0xE0, 0xE1), 3, 0xA0, 0xBF, 0x0F), (range(0xE1, 0xF0), 3, 0x80, 0xBF, 0x0F),
         (range(0xED, 0xEE), 3, 0x80, 0x9F, 0x0F), (range(0xF0, 0xF1), 4, 0x90, 0xBF, 0x07),
         (range(0xF1, 0xF4), 4, 0x80, 0xBF, 0x07), (range(0xF4, 0xF5), 4, 0x80, 0x8F, 0x07)]


def token_bytes(tokenizer: Tokenizer, rules: TokenRules) -> list[bytes]:
    """The bytes of every token up to the last that is text; any other, or one that the tokenizer lacks, has none.

    Text ends before the special tokens, unless a fine-tuned vocabulary has added some behind the timestamps.
    """
    words = [tokenizer.word(i) if rules.is_text(i) else b"" for i in range(rules.vocab_size)]
    return words[:max(i for i, word in enumerate(words) if word) + 1]


def characters() -> list[str]:
    """The table of strings: PLANES, then TAGS. Surrogates, which UTF-8 does not have, are U+FFFD."""
    return [chr(REPLACEMENT if 0xD800 <= code < 0xE000 else code) for codes in (PLANES, TAGS) for code in codes]


def lead_table() -> np.ndarray:
    """int64 [256, 4]: for each first byte its row of LEADS; 0 bytes long where no character starts so."""
    table = np.zeros((256, 4), np.int64)
    for leads, *row in LEADS:
        table[leads.start:leads.stop] = row
    return table


def text(block: Block, tokens, words: list[bytes]):
    """int64 [k] tokens -> string [1]; ids that are not words of the list (special tokens) are left out."""
    codes = strip(block, code_points(block, all_bytes(block, tokens, words)))
    return join(block, letters(block, codes))


def all_bytes(block: Block, tokens, words: list[bytes]):
    """int64 [k] -> the bytes of all tokens in a row, int64 [n]"""
    starts = np.cumsum([0, *map(len, words), 0]).astype(np.int32)  # one empty word more: the special tokens
    pool = np.frombuffer(b"".join(words) + b"\0", np.uint8)
    word = block("Min", tokens, [len(words)])
    start, stop = (block("Cast", block("Gather", starts, i), to=INT64) for i in (word, block("Add", word, [1])))
    places = block("Add", block("Unsqueeze", start, [1]), [list(range(max(map(len, words))))])  # [k, longest]
    inside = block("Less", places, block("Unsqueeze", stop, [1]))
    places = block("Compress", places, block("Reshape", inside, [-1]))  # without an axis: of the flattened places
    return block("Cast", block("Gather", pool, places), to=INT64)


def code_points(block: Block, row):
    """Bytes int64 [n] -> Unicode code points int64 [at most n], each byte read as if a character began there."""
    ahead = block("Concat", row, [0, 0, 0], axis=0)
    following = [block("Slice", ahead, [i], [stop], [0]) for i, stop in ((1, -2), (2, -1), (3, 1 << 40))]
    lead = block("Gather", lead_table(), row)  # [n, 4]
    length, low, high, own = (block("Gather", lead, i, axis=1) for i in range(4))
    code = block("BitwiseAnd", row, own)
    taken, whole = block("Add", block("Mul", row, [0]), [1]), None  # how many bytes fit together from here on
    for i, byte in enumerate(following, start=2):
        bounds = (low, high) if i == 2 else ([0x80], [0xBF])
        fits = block("And", block("GreaterOrEqual", byte, bounds[0]), block("LessOrEqual", byte, bounds[1]))
        fits = block("And", fits, block("GreaterOrEqual", length, [i]))
        whole = fits if whole is None else block("And", whole, fits)
        taken = block("Add", taken, block("Cast", whole, to=INT64))
        longer = block("Add", block("Mul", code, [64]), block("BitwiseAnd", byte, [0x3F]))
        code = block("Where", whole, longer, code)
    code = block("Where", block("Equal", taken, length), code, [REPLACEMENT])
    return block("Compress", code, _begins(block, taken), axis=0)


def _begins(block: Block, taken):
    """Where a character begins: at no byte that the one before, or two or three before, has taken.

    Lead bytes are never taken, and only they take others, so no byte has to wait for an earlier one's verdict.
    """
    behind = block("Concat", [1, 1, 1], taken, axis=0)
    reach = [block("Greater", block("Slice", behind, [3 - i], [-i], [0]), [i]) for i in (1, 2, 3)]
    return block("Not", block("Or", block("Or", reach[0], reach[1]), reach[2]))


def strip(block: Block, codes):
    """Code points without the white space at both ends."""
    spaces = block("Equal", block("Unsqueeze", codes, [1]), [SPACES])
    visible = block("Not", block("Cast", block("ReduceMax", block("Cast", spaces, to=INT64), [1], keepdims=0), to=BOOL))
    count = block("Shape", codes)
    there = block("Compress", block("Range", 0, block("Squeeze", count), 1), visible, axis=0)
    first = block("ReduceMin", block("Concat", there, count, axis=0), [0], keepdims=1)
    last = block("ReduceMax", block("Concat", there, [-1], axis=0), [0], keepdims=1)
    return block("Slice", codes, first, block("Max", block("Add", last, [1]), first), [0])


def letters(block: Block, codes):
    """Code points int64 [n] -> strings [n] of one character each."""
    tag = block("And", block("GreaterOrEqual", codes, [TAGS.start]), block("Less", codes, [TAGS.stop]))
    beyond = block("Where", tag, block("Add", codes, [len(PLANES) - TAGS.start]), [REPLACEMENT])
    row = block("Where", block("Less", codes, [PLANES.stop]), codes, beyond)
    return block("Gather", block.strings(characters(), f"{block.prefix}/characters"), row)


def join(block: Block, pieces):
    """Strings [n] -> their concatenation, [1]: neighbours are joined in pairs until one is left."""
    def pairs(inner: Block, _, left):
        even = inner("Slice", left, [0], [1 << 40], [0], [2])
        odd = inner("Slice", inner("Concat", left, [""], axis=0), [1], [1 << 40], [0], [2])
        joined = inner("StringConcat", even, odd)
        return inner("Greater", inner("Size", joined), 1), [joined], []

    padded = block("Concat", pieces, [""], axis=0)  # nothing at all is one empty string
    return loop(block, "join", None, [(padded, STRING, ["pieces"])], pairs)[0]
