"""Is a sound file whole? What its container promises, beside what is there; and headers that never got their length.

libsndfile and FFmpeg read what they find and are silent about the rest, each in other containers. So the structure is
looked at here: blocks within blocks, each with its length. Only headers are read, of MP3 each frame's.

- A header that says how long the sound is: `promised` and `there`, in bytes of sound.
- A file whose last block ends behind the end of the file: `inside`.
- A recorder that was killed leaves the length of its header at 0, with all the sound behind it: `patch` corrects it.
- A program that writes to a pipe cannot go back to its header: it writes the largest length there is, or 2000000000.
  That is no promise.

Sources: RFC 2361 and EBU Tech 3306 (WAV, RF64), Apple's AIFF and CAF specifications, Sony's Wave64, RFC 3533 (Ogg),
RFC 8794 (EBML), ISO 14496-12 (MP4), ISO 11172-3 (MP3).
"""

import os
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

STREAMED = ((2_000_000_000, 2_000_000_100), (2**31 - 8192, 2**31 + 100), (2**32 - 8192, 2**32), (2**63 - 8192, 2**64))
MOST_BLOCKS = 1_000_000  # a file of more is taken to be whole: 10 hours of MP3 have 1.4 million frames
PRINTABLE = re.compile(rb"[ -~]{4}")
EBML_PARENTS = {0x18538067, 0x1F43B675}  # Segment, Cluster: what a cut file ends in
MP3_KBITS = {(3, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
             (3, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
             (3, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
             (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
             (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)}
MP3_RATES = (44_100, 48_000, 32_000)  # Hz, of MPEG 1; halves and quarters in 2 and 2.5


@dataclass(frozen=True)
class Ends:
    """What `examine` found. All None or False: whole, or of a kind that nothing is known about."""

    there: int | None = None  # bytes of sound in the file
    promised: int | None = None  # bytes of sound that the header promises; None where it promises nothing
    patch: tuple[int, bytes] | None = None  # bytes to read in place of those in the file, and where
    inside: bool = False  # the file ends inside a block


@dataclass(frozen=True)
class _Length:
    """Where a header says how much sound there is."""

    at: int  # in the file
    form: str  # of struct
    says: int  # bytes
    start: int  # of the sound
    more: int = 0  # bytes that the length counts beside the sound


def examine(file: BinaryIO) -> Ends:
    """Look at an open file's structure; leaves it at its start. Never raises for what is in the file."""
    size = file.seek(0, os.SEEK_END)
    try:
        start = _read(file, 0, 12)
        for is_kind, look in KINDS:
            if is_kind(start):
                return look(file, size)
    except (struct.error, IndexError, OverflowError, ValueError):  # ends in a header: the readers will say so
        pass
    finally:
        file.seek(0)
    return Ends()


def _read(file: BinaryIO, at: int, count: int) -> bytes:
    """Raises ValueError for a place that no file has."""
    if not 0 <= at < 2**40:
        raise ValueError(f"there is no byte {at}")
    file.seek(at)
    return file.read(count)


def _number(file: BinaryIO, at: int, form: str) -> int:
    """Raises struct.error at the end of the file."""
    return struct.unpack(form, _read(file, at, struct.calcsize(form)))[0]


# Headers that know a length ------------------------------------------------------------------------------------------

def _judge(file: BinaryIO, size: int, length: _Length) -> Ends:
    there, says = max(0, size - length.start), length.says - length.more
    if says <= 0 < there and not _are_chunks(file, length, size):
        try:
            return Ends(there, None, (length.at, struct.pack(length.form, there + length.more)))
        except struct.error:  # more than the header can say
            return Ends(there)
    if any(low <= length.says < high for low, high in STREAMED):
        return Ends(there)
    return Ends(min(there, max(says, 0)), says)


def _are_chunks(file: BinaryIO, length: _Length, size: int) -> bool:
    """Is what follows an empty sound a list of other chunks, with titles and the like, up to the end?"""
    at, form = length.start, length.form
    while at < size:
        head = _read(file, at, 4 + struct.calcsize(form))
        if len(head) < 4 + struct.calcsize(form) or not PRINTABLE.fullmatch(head[:4]):
            return False
        at += len(head) + struct.unpack(form, head[4:])[0]
        at += at % 2 if len(head) == 8 else 0
    return at - size <= 1


def _chunks(file: BinaryIO, size: int, form: str, at: int = 12, even: bool = True) -> Iterator[tuple[bytes, int, int]]:
    """(name, where its contents begin, their length) of RIFF's, IFF's and CAF's chunks."""
    for _ in range(MOST_BLOCKS):
        if at + 4 + struct.calcsize(form) > size:
            return
        name, length = _read(file, at, 4), _number(file, at + 4, form)
        at += 4 + struct.calcsize(form)
        yield name, at, length
        at += length + (length % 2 if even else 0)


def _riff(file: BinaryIO, size: int) -> Ends:
    start = _read(file, 0, 12)
    form = ">I" if start[:4] == b"RIFX" else "<I"
    if start[8:12] != b"WAVE":  # AVI and others
        return Ends(inside=8 + _number(file, 4, form) > size)
    long = None
    for name, at, length in _chunks(file, size, form):
        if name == b"ds64":
            long = (at + 8, _number(file, at + 8, "<Q"))
        elif name == b"data":
            if start[:4] == b"RF64" and long and length == 2**32 - 1:
                says = long[1] if long[1] < 2**64 - 1 else 0  # a stream; libsndfile believes it
                return _judge(file, size, _Length(long[0], "<Q", says, at))
            return _judge(file, size, _Length(at - 4, form, length, at))
    return Ends()


def _iff(file: BinaryIO, size: int) -> Ends:
    """AIFF, AIFF-C and 8SVX."""
    for name, at, length in _chunks(file, size, ">I"):
        if name in (b"SSND", b"BODY"):
            more = 8 if name == b"SSND" else 0  # offset and block size
            return _judge(file, size, _Length(at - 4, ">I", length, at + more, more))
    return Ends()


def _au(file: BinaryIO, size: int) -> Ends:
    return _judge(file, size, _Length(8, ">I", _number(file, 8, ">I"), _number(file, 4, ">I")))


def _caf(file: BinaryIO, size: int) -> Ends:
    for name, at, length in _chunks(file, size, ">Q", at=8, even=False):
        if name == b"data":
            return _judge(file, size, _Length(at - 8, ">Q", length, at + 4, 4))  # an edit count
    return Ends()


def _w64(file: BinaryIO, size: int) -> Ends:
    at = 40
    for _ in range(MOST_BLOCKS):
        length = _number(file, at + 16, "<Q")
        if _read(file, at, 4) == b"data":
            return _judge(file, size, _Length(at + 16, "<Q", length, at + 24, 24))
        if length < 24:
            break
        at += -(-length // 8) * 8
    return Ends()


def _nist(file: BinaryIO, size: int) -> Ends:
    head = _read(file, 0, 1024)
    fields = {key: int(value) for key, value in re.findall(rb"(\w+) -i (\d+)", head)}
    header, wide = int(head.split()[1]), fields.get(b"sample_n_bytes", 0) * fields.get(b"channel_count", 1)
    return Ends(max(0, size - header), fields.get(b"sample_count", 0) * wide or None)


# Blocks --------------------------------------------------------------------------------------------------------------

def _voc(file: BinaryIO, size: int) -> Ends:
    at = _number(file, 20, "<H")
    for _ in range(MOST_BLOCKS):
        if at >= size or _read(file, at, 1) == b"\0":
            break
        at += 4 + int.from_bytes(_read(file, at + 1, 3), "little")
    return Ends(inside=at > size)


def _ogg(file: BinaryIO, size: int) -> Ends:
    """Only the last page matters: a page holds at most 65307 bytes."""
    tail_at = max(0, size - 2 * 65_307)
    tail = _read(file, tail_at, size - tail_at)
    for found in reversed(list(re.finditer(rb"OggS\0[\x00-\x07]", tail))):
        page = tail[found.start():]
        if len(page) < 27 or len(page) < 27 + page[26]:
            return Ends(inside=True)
        return Ends(inside=27 + page[26] + sum(page[27:27 + page[26]]) > len(page))
    return Ends()


def _ebml(file: BinaryIO, size: int) -> Ends:
    """Matroska and WebM. A length of ones only, which live recordings have, means: up to the end of the parent."""
    at = 0
    for _ in range(MOST_BLOCKS):
        if at >= size:
            return Ends(inside=at > size)
        try:
            kind, wide = _variable(_read(file, at, 4), keep_mark=True)
            length, wide_length = _variable(_read(file, at + wide, 8))
        except ValueError:
            return Ends(inside=size - at < 12)  # in the middle of an element's own head
        unknown = length == 2 ** (7 * wide_length) - 1
        at += wide + wide_length
        if kind in EBML_PARENTS or unknown:
            if not unknown and at + length > size:
                return Ends(inside=True)
        else:
            at += length
    return Ends()


def _variable(data: bytes, keep_mark: bool = False) -> tuple[int, int]:
    """EBML's integers: as many bytes as there are zeros before the first one bit, plus one."""
    wide = 9 - data[0].bit_length()
    if not 1 <= wide <= 8 or len(data) < wide:
        raise ValueError("no EBML")
    value = int.from_bytes(data[:wide], "big")
    return (value if keep_mark else value - (1 << (7 * wide))), wide


def _mp4(file: BinaryIO, size: int) -> Ends:
    at = 0
    for _ in range(MOST_BLOCKS):
        if at + 8 > size:
            return Ends()
        length, name = _number(file, at, ">I"), _read(file, at + 4, 4)
        if length == 1:
            length = _number(file, at + 8, ">Q")
        if length < 8 or not PRINTABLE.fullmatch(name):  # 0: to the end of the file
            return Ends()
        at += length
        if at > size:
            return Ends(inside=True)
    return Ends()


def _mp3(file: BinaryIO, size: int) -> Ends:
    """Frame after frame, each as long as its first four bytes say."""
    at, data, base = _after_id3(file), b"", 0
    for count in range(MOST_BLOCKS):
        if not base <= at <= base + len(data) - 4:
            data, base = _read(file, at, 1 << 20), at
        length = _mp3_frame(data[at - base:at - base + 4])
        if not length:  # the tag at the end, or something that is not an MP3
            return Ends()
        at += length
        if at >= size:
            return Ends(inside=at > size and count > 2)
    return Ends()


def _after_id3(file: BinaryIO) -> int:
    head = _read(file, 0, 10)
    if head[:3] != b"ID3":
        return 0
    return 10 + (head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]) + (10 if head[5] & 0x10 else 0)


def _mp3_frame(head: bytes) -> int:
    """Bytes of the frame that begins with these four; 0 where none does."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return 0
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)  # version 3: MPEG 1, 2: MPEG 2, 0: MPEG 2.5
    index, rate = head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer == 4 or rate == 3 or not 1 <= index <= 14:
        return 0
    kbits = MP3_KBITS[min(3, max(2, version)), layer if version == 3 else min(layer, 2)][index - 1]
    hertz, padding = MP3_RATES[rate] >> {3: 0, 2: 1, 0: 2}[version], head[2] >> 1 & 1
    if layer == 1:
        return (12_000 * kbits // hertz + padding) * 4
    return (72_000 if layer == 3 and version != 3 else 144_000) * kbits // hertz + padding


def _starts(*beginnings: bytes) -> Callable[[bytes], bool]:
    return lambda start: start.startswith(beginnings)


KINDS: tuple[tuple[Callable[[bytes], bool], Callable[[BinaryIO, int], Ends]], ...] = (
    (_starts(b"RIFF", b"RIFX", b"RF64", b"BW64"), _riff),
    (_starts(b"FORM"), _iff),
    (_starts(b".snd"), _au),
    (_starts(b"caff"), _caf),
    (_starts(b"riff"), _w64),
    (_starts(b"NIST_1A"), _nist),
    (_starts(b"Creative Voi"), _voc),
    (_starts(b"OggS"), _ogg),
    (_starts(b"\x1aE\xdf\xa3"), _ebml),
    (lambda start: start[4:8] in (b"ftyp", b"mdat", b"moov", b"wide", b"free", b"skip"), _mp4),
    (lambda start: start[:3] == b"ID3" or _mp3_frame(start[:4]) > 0, _mp3),
)
