"""What each task of workbook/tasks is checked for, in an order in which a mistake meets the message that explains it.

A check takes the student's function and raises LabError(what it gives and should give, why). CHECKS has them by task.
"""

import math
import random

from whisper_lab.console import LabError
from workbook import array_checks, sound_checks
from workbook.toy_graphs import MODULUS, Watched, toy

LEARNT = {
    "word_error_rate": "It is what jiwer computes, and what script 04 counts with.",
    "joules": "It is what script 06 does with every meter that gives watts.",
    "quantize": "Script 03 keeps such a scale for every row of a matrix.",
    "agree": "Script 03 asks this of every graph before it is put in place.",
    "load": "It is the first step of every script of this lab.",
    "mel": "It is what WhisperFeatureExtractor computes, and whisper_lab/features.py.",
    "project": "Script 07 shows this layer with 6400 inputs and 3584 outputs.",
    "greedy": "The same loop runs over the graphs of script 03.",
}


# Word error rate -----------------------------------------------------------------------------------------------------

def words(reference: str, hypothesis: str, rate: float, why: str):
    """A check of one pair of texts."""
    def one(function) -> None:
        expect(function(reference, hypothesis), rate, f"word_error_rate({reference!r}, {hypothesis!r})", why)

    return one


def words_like_jiwer(function) -> None:
    """Sixty pairs of texts of three words, from a seed."""
    from whisper_lab.metrics import word_errors

    chance = random.Random(0)
    for _ in range(60):
        reference, hypothesis = (" ".join(chance.choices("abc", k=chance.randint(least, 7))) for least in (1, 0))
        expect(function(reference, hypothesis), word_errors(reference, hypothesis).wer,
               f"word_error_rate({reference!r}, {hypothesis!r})",
               "of all ways to make one text of the other the cheapest counts: the least of three neighbours")


# Joules --------------------------------------------------------------------------------------------------------------

def energy(readings: list[tuple[float, float]], true: float, why: str):
    """A check of one list of readings."""
    def one(function) -> None:
        expect(function(list(readings)), true, f"joules({readings})", why)

    return one


# Greedy decoding -----------------------------------------------------------------------------------------------------

PROMPT = [3, 5]


def answer(heard: int, end: int, most: int) -> list[int]:
    """What the toy graphs say: each token is the sum of all before it and of the sound, modulo MODULUS."""
    total, said = heard + sum(PROMPT), []
    while len(said) < most and total % MODULUS != end:
        said.append(total % MODULUS)
        total += said[-1]
    return said


def decoding(heard: int, end: int, most: int):
    """A check of one decoding, by its tokens and by what the two graphs were given."""
    def one(function) -> None:
        encoder, decoder, features = toy(heard)
        given = function(encoder, decoder, features, list(PROMPT), end, most)
        _watch(encoder, decoder)
        expected = answer(heard, end, most)
        called = f"greedy(..., prompt={PROMPT}, end={end}, most={most})"
        if not isinstance(given, list):
            raise LabError(f"{called} gives {given!r}, should give a list", "return the tokens, as a list of int")
        if given == [*expected, end]:
            raise LabError(f"{called} gives the end token {end} too", "look for it before you append the token")
        if given[:len(expected)] == expected and len(given) > len(expected):
            raise LabError(f"{called} gives {given}, should give {expected}",
                           "stop at the end token, and at the latest after `most` tokens")
        if given[:len(PROMPT)] == PROMPT and given[len(PROMPT):] == expected:
            raise LabError(f"{called} gives the prompt too", "return what comes after the prompt only")
        if given != expected:
            raise LabError(f"{called} gives {given}, should give {expected}",
                           "the next token is the largest of the logits at the last position: logits[0, -1]")

    return one


def _watch(encoder: Watched, decoder: Watched) -> None:
    """What went into the graphs. Raises LabError for the first call that should not have been."""
    if len(encoder.calls) != 1:
        raise LabError(f"the encoder ran {len(encoder.calls)} times, should run once",
                       "the sound does not change: its keys and values serve every token")
    sizes = [(feeds["input_ids"].shape[1], feeds["past_key_self_0"].shape[2]) for feeds in decoder.calls]
    for i, (tokens, cached) in enumerate(sizes[1:], 2):
        if cached == 0:
            raise LabError(f"call {i} of the decoder has an empty cache",
                           "give each call the present_..._self of the call before as its past_..._self")
        if tokens != 1:
            raise LabError(f"call {i} of the decoder gets {tokens} tokens and a cache of {cached}",
                           "what is in the cache has been read: only the newest token goes in")


def expect(given, true: float, what: str, why: str) -> None:
    """Raises LabError unless `given` is a number as good as `true`."""
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise LabError(f"{what} gives {given!r}, should give {true:g}", "return a number")
    if not math.isclose(given, true, rel_tol=1e-9, abs_tol=1e-9):
        raise LabError(f"{what} gives {given:g}, should give {true:g}", why)


CHECKS = {
    "word_error_rate": [
        words("turn on the light", "turn on the light", 0, "nothing is wrong in two equal texts"),
        words("yes", "yes thank you very much", 4, "added words are errors, and one divides by the words said"),
        words("turn on", "turn", 1 / 2, "a word that is missing is an error: a deletion"),
        words("turn on", "turn off", 1 / 2, "one word in the place of another is one error, not two: a substitution"),
        words("turn on the light", "on the light", 1 / 4, "a missing word does not make all after it wrong: align"),
        words("yes", "", 1, "nothing written: every word is a deletion"),
        words_like_jiwer],
    "joules": [
        energy([(0.0, 10.0), (2.0, 10.0)], 20, "10 W for 2 s: energy is power times time"),
        energy([(100.0, 10.0), (102.0, 10.0)], 20, "a clock need not begin at 0: differences count"),
        energy([(0.0, 10.0), (1.0, 10.0), (4.0, 10.0)], 40, "readings come irregularly: take the real time between"),
        energy([(0.0, 0.0), (2.0, 10.0)], 10, "between two readings the power is on average the mean of both"),
        energy([(5.0, 30.0)], 0, "between one reading and itself no time passes")],
    "quantize": array_checks.ROW,
    "project": array_checks.PROJECTION,
    "agree": array_checks.PARITY,
    "load": sound_checks.LOAD,
    "mel": sound_checks.MEL,
    "greedy": [decoding(1, 6, 10), decoding(4, 22, 10), decoding(1, 22, 5)],
}
