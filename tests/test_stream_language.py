"""Which language a stream takes for the spoken one: no single window decides."""

import pytest

from whisper_lab.stream.language import SpokenLanguage


def chances(**given: float) -> dict[str, float]:
    """Of four languages; what is not given is shared by the others."""
    rest = [code for code in ("ar", "en", "nl", "vi") if code not in given]
    return given | {code: (1 - sum(given.values())) / len(rest) for code in rest}


def test_a_first_window_that_is_misheard_is_outvoted():
    language = SpokenLanguage(None)
    language.hear(chances(ar=0.68, en=0.2))  # the beginning of an English sentence, as whisper-base hears it
    assert language.end_utterance(2.3) and language.code == "ar" and not language.stands
    language.hear(chances(en=0.97))
    assert language.code == "en" and language.end_utterance(6.0)


def test_windows_of_one_utterance_are_one_witness():
    language = SpokenLanguage(None)
    for _ in range(9):  # they hear the same sound again and again
        language.hear(chances(ar=0.6, en=0.3))
    language.hear(chances(en=0.9))
    assert language.code == "en" and language.probability == pytest.approx(0.9)


def test_no_window_alone_makes_a_language_impossible():
    language = SpokenLanguage(None)
    language.hear(chances(vi=1 - 3e-12))  # music, say
    language.end_utterance(3.0)
    for _ in range(2):
        language.hear(chances(nl=0.98))
        language.end_utterance(3.0)
    assert language.code == "nl"


def test_it_stands_once_enough_was_heard_and_then_nothing_changes_it():
    language = SpokenLanguage(None)
    language.hear(chances(nl=0.999))
    assert language.end_utterance(3.0) and not language.stands  # sure, but of three seconds
    language.hear(chances(nl=0.999))
    assert not language.end_utterance(6.0) and language.stands
    assert not language.end_utterance(6.0) and language.code == "nl"


def test_a_given_language_stands_from_the_start():
    language = SpokenLanguage("nl")
    assert language.stands and not language.end_utterance(9.0) and (language.code, language.probability) == ("nl", None)


def test_an_utterance_without_words_is_no_witness():
    language = SpokenLanguage(None)
    assert not language.end_utterance(1.0) and language.code is None and not language.stands
