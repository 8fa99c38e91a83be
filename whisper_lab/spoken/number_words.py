"""Numbers from 0 to 9999 in English and Dutch words."""

ENGLISH_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
ENGLISH_TENS = "- - twenty thirty forty fifty sixty seventy eighty ninety".split()
DUTCH_UNITS = (
    "nul een twee drie vier vijf zes zeven acht negen tien elf twaalf dertien veertien vijftien zestien "
    "zeventien achttien negentien"
).split()
DUTCH_TENS = "- - twintig dertig veertig vijftig zestig zeventig tachtig negentig".split()


def english(n: int, conjunction: bool = False) -> str:
    """`n` in English words without hyphens; `conjunction` puts the British "and" after the hundreds."""
    if n < 20:
        return ENGLISH_UNITS[n]
    if n < 100:
        tens, rest = ENGLISH_TENS[n // 10], n % 10
        return tens if not rest else f"{tens} {ENGLISH_UNITS[rest]}"
    size, name = (1000, "thousand") if n >= 1000 else (100, "hundred")
    head, rest = f"{english(n // size)} {name}", n % size
    if not rest:
        return head
    joint = " and " if conjunction and rest < 100 else " "
    return head + joint + english(rest, conjunction)


def dutch(n: int) -> str:
    """`n` in Dutch words as the Taalunie writes them: one word up to thousand, a space after it."""
    if n < 20:
        return DUTCH_UNITS[n]
    if n < 100:
        unit = DUTCH_UNITS[n % 10]
        joint = "ën" if unit in ("twee", "drie") else "en"  # the diaeresis keeps the vowels apart
        return DUTCH_TENS[n // 10] if n % 10 == 0 else unit + joint + DUTCH_TENS[n // 10]
    if n < 1000:
        head = ("" if n < 200 else DUTCH_UNITS[n // 100]) + "honderd"
        return head + (dutch(n % 100) if n % 100 else "")
    head = ("" if n < 2000 else DUTCH_UNITS[n // 1000]) + "duizend"
    return head + (" " + dutch(n % 1000) if n % 1000 else "")
