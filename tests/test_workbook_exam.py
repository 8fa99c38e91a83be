"""What makes the workbook fit for an examination: guessing earns little, wrong choices teach, numbers carry their N."""

import itertools
import re

import pytest

from workbook import questions, scoring, values
from workbook.questions import LANGUAGES, Choice, Text
from workbook.values import Results
from workbook.view import LETTERS, view

MOST = 0.40  # of the points, for whoever picks by a rule that needs no knowledge
ALL_OF_THEM = re.compile(r"\b(al(le|lemaal)? (het |de )?bovenstaande|all of (these|them|the above))\b", re.I)
ACCURACY = re.compile(r"\b(wer_\w+|top1_\w+)$")
AGREEMENT = re.compile(r"(^|_)(top1|choices?|same|equal|agree\w*|text|tokens?)_(\w+_)?percent$")  # of what is alike
ALIKE = re.compile(r"\{[^{}]*\} % (zijn |is )?(gelijk|dezelfde|hetzelfde|identiek|overeenkom|the same|equal|agree)")
WER = re.compile(r"wer_\w+$")
COUNTS = re.compile(r"(words|words_\w+|clips|runs|positions)$")


@pytest.fixture(scope="module")
def book():
    return questions.load()


def by_length(place: int):
    """The rule that takes what is as long as the choice at `place`, 0 the shortest, -1 the longest."""
    def rule(choices, language):
        wanted = sorted(len(one.text[language]) for one in choices)[place]
        return [one for one in choices if len(one.text[language]) == wanted]

    return rule


def all_of_them(choices, language):
    return [one for one in choices if ALL_OF_THEM.search(one.text[language])] or choices


RULES = {"longest": by_length(-1), "second longest": by_length(-2), "second shortest": by_length(1),
         "shortest": by_length(0), "all": all_of_them}
RULES |= {f"place {i + 1}": lambda choices, _, i=i: choices[i:i + 1] for i in range(4)}


def score(many, language: str, rule) -> float:
    """Share of the points that a rule earns over lists of choices; where it leaves several, the mean of them."""
    earned = []
    for choices in many:
        picked = rule(list(choices), language)
        earned.append(sum(scoring.share(choices, [one]) for one in picked) / max(1, len(picked)))
    return sum(earned) / len(earned)


def by_length_of(longest: bool):
    """The rule that ticks the longer, or the shorter, half of the choices."""
    def rule(choices, language):
        return sorted(choices, key=lambda one: len(one.text[language]), reverse=longest)[:len(choices) // 2]

    return rule


# Where more than one choice is right: what whoever knows nothing may tick.
SEVERAL = {"all of them": lambda choices, _: choices, "the longer half": by_length_of(True),
           "the shorter half": by_length_of(False), "the first half": lambda choices, _: choices[:len(choices) // 2],
           "the last half": lambda choices, _: choices[len(choices) // 2:],
           "every other": lambda choices, _: choices[::2],
           "every other, from the second": lambda choices, _: choices[1::2]}


def score_of_ticks(many, language: str, rule) -> float:
    """Share of the points of questions with several right choices, for whoever ticks what the rule says."""
    return sum(scoring.share(choices, rule(list(choices), language)) for choices in many) / len(many)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("rule", RULES)
def test_guessing_by_a_rule_earns_little(book, language, rule):
    many = [one.choices for one in book.questions.values() if one.choices]
    assert score(many, language, RULES[rule]) <= MOST


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("rule", SEVERAL)
def test_ticking_by_a_rule_earns_little(book, language, rule):
    many = [one.choices for one in book.questions.values() if one.several]
    assert len(many) >= 6 and len({one.topic for one in book.questions.values() if one.several}) >= 6
    assert score_of_ticks(many, language, SEVERAL[rule]) <= MOST


def test_ticking_as_printed_earns_little(book):
    """The letters of the documents: every set of two and three of them."""
    views = [view(one, "en", Nothing()) for one in book.questions.values() if one.several]
    for count in (1, 2, 3):
        for letters in itertools.combinations(LETTERS[:5], count):
            earned = [scoring.share(one.options, [each for each in one.options if each.letter in letters])
                      for one in views]
            assert sum(earned) / len(earned) <= MOST, letters


def test_what_ticks_earn():
    right, wrong = Choice(Text("ja", "yes"), None, None), Choice(*[Text("nee", "no")] * 3)
    choices = [right, right, wrong, wrong, wrong]
    for ticked, points in (([], 0), ([right], 1), ([right, right], 2), ([right, right, wrong], 1), ([right, wrong], 0),
                           ([wrong, wrong], 0), (choices, 0)):
        assert scoring.points(ticked) == points and scoring.share(choices, ticked) == points / 2
    assert scoring.share([right, wrong, wrong], [right]) == 1 and scoring.share([right, wrong, wrong], [wrong]) == 0


class Nothing:
    """Results without numbers: the order of the letters does not depend on them."""

    def fill(self, text, language, where):
        return text


def test_no_printed_letter_is_right_too_often(book):
    answers = [view(one, "nl", Nothing()).answer for one in book.questions.values() if one.choices]
    assert all(sum(letter in answer for answer in answers) / len(answers) <= MOST for letter in LETTERS)


def test_the_rules_find_what_gives_an_answer_away():
    def choice(text, right=False):
        both = Text(text, text)
        return Choice(both, None, None) if right else Choice(both, both, both)

    tell = [choice("no"), choice("a long and careful answer", right=True), choice("nor this")]
    assert score([tell], "en", RULES["longest"]) == 1 and score([tell], "en", RULES["shortest"]) == 0
    assert score([tell], "en", RULES["place 2"]) == 1
    assert score([[choice("ab", right=True), choice("cd")]], "en", RULES["longest"]) == 0.5
    assert score([[choice("x"), choice("All of the above", right=True)]], "en", all_of_them) == 1


def test_every_wrong_choice_says_why_and_from_what_misconception(book):
    for number, question in book.questions.items():
        for choice in question.choices:
            if not choice.right:
                for language in LANGUAGES:
                    assert choice.why[language] != choice.mistake[language], number


def test_every_question_has_something_to_change_and_says_what_is_then_seen(book):
    missing = [number for number, question in book.questions.items() if not (question.vary and question.seen)]
    assert not missing


def test_an_accuracy_comes_with_the_model_and_a_count(book):
    """Each text with a word error rate or a share of equal tokens names a model and of how many that is."""
    for number, question in book.questions.items():
        for name, both in question.texts.items():
            for language in LANGUAGES:
                taken = [match["key"] for match in values.PLACEHOLDER.finditer(both[language])]
                if any(map(ACCURACY.match, taken)):
                    where = f"question {number}, {name}.{language}"
                    assert re.search(r"nano|\.model\}", both[language]), f"{where} names no model"
                    counted = any(map(COUNTS.search, taken)) or f":{values.SHARE}}}" in both[language]
                    assert counted, f"{where} does not say of how many"


def compared(text: str) -> set[str]:
    """Names of the evidence of which a text gives two or more word error rates."""
    taken = {(match["name"], match["key"]) for match in values.PLACEHOLDER.finditer(text) if WER.match(match["key"])}
    names = [name for name, _ in taken]
    return {name for name in names if names.count(name) > 1}


def interval_of(text: str, name: str) -> bool:
    """Does the text give the interval of a difference that this evidence measured?"""
    keys = {match["key"] for match in values.PLACEHOLDER.finditer(text) if match["name"] == name}
    return any("low" in key.split("_") and key.replace("low", "high") in keys for key in keys)


def test_every_comparison_carries_its_interval_or_says_that_chance_explains_it(book):
    """What question 3.14 teaches, applied to the workbook itself."""
    found = set()
    for number, question in book.questions.items():
        for name, both in question.texts.items():
            for language, chance in (("nl", "toeval"), ("en", "chance")):
                for evidence in compared(both[language]):
                    where = f"question {number}, {name}.{language}: {evidence}"
                    assert interval_of(both[language], evidence) or chance in both[language].lower(), where
                    found.add(number)
    assert found >= {"1.02", "1.04", "1.05", "2.01", "2.05", "2.09", "2.10", "3.02", "3.03"}


def test_an_interval_that_holds_zero_is_called_chance(book):
    """Whatever was measured last: where 0 lies within, the text has the word."""
    results, small = Results(), set()
    for number, question in book.questions.items():
        for name in {match["name"] for match in values.PLACEHOLDER.finditer(question.long.nl)}:
            known = results.document(name)["values"]
            keys = [match["key"] for match in values.PLACEHOLDER.finditer(question.long.nl) if match["name"] == name]
            for low in (key for key in keys if "low" in key.split("_")):
                if known[low] <= 0 <= known[low.replace("low", "high")]:
                    assert "toeval" in question.long.nl.lower() and "chance" in question.long.en.lower(), number
                    small.add(number)
    assert "3.14" in small


def test_every_share_of_what_agrees_carries_its_n_and_its_interval(book):
    """Equal tokens, choices and texts: in the evidence with all that it takes to judge them, in the book only so."""
    results, shares = Results(), set()
    for path in sorted(results.folder.glob("*.json")):
        known = results.document(path.stem)["values"]
        for share in (key.removesuffix("_percent") for key in known if AGREEMENT.search(key) or
                      f"{key.removesuffix('percent')}of" in known):
            assert {f"{share}_{part}" for part in values.SHARE_PARTS} <= set(known), f"{path.stem}.{share} is bare"
            low, value, high = (known[f"{share}_{part}"] for part in ("low", "percent", "high"))
            assert low <= value <= high and low < high, f"{path.stem}.{share}"
            shares.add((path.stem, share))
    bare = {(name, f"{share}_{part}") for name, share in shares for part in ("percent", "low", "high")}
    shown = set()
    for number, question in book.questions.items():
        for name, both in question.texts.items():
            for language in LANGUAGES:
                where = f"question {number}, {name}.{language}"
                assert not ALIKE.search(both[language]), f"{where}: a percentage of what agrees, without its interval"
                taken = [match.group("name", "key", "format") for match in values.PLACEHOLDER.finditer(both[language])]
                assert not bare & {one[:2] for one in taken}, where
                shown |= {one[:2] for one in taken if one[2] == values.SHARE}
    assert {name for name, _ in shown} >= {"arm_quantization", "base_accuracy", "equality", "few_positions",
                                           "single_graph", "weight_formats"}
    assert shown <= shares


@pytest.mark.parametrize("text, bare", [("{a.top1_percent:.1f} % gelijk aan PyTorch", True),
                                        ("{a.b_percent:.0f} % of them; {a.top1_percent:.1f} % the same", True),
                                        ("{a.top1:share} gelijk aan PyTorch", False),
                                        ("{a.wer_percent:.1f} % fout", False)])
def test_a_bare_percentage_of_what_agrees_is_found(text, bare):
    assert bool(ALIKE.search(text)) == bare


def test_claims_stand_under_the_questions_they_bear_on(book):
    """Every claim that a question names exists, none is lost, and no question shows a heap of them."""
    results, known, used = Results(), set(), set()
    for question in book.questions.values():
        of_these = {f"{name}.{claim['id']}" for name in question.evidence for claim in results.document(name)["claims"]}
        assert set(question.holds or ()) <= of_these, question.id
        shown = of_these if question.holds is None else set(question.holds)
        assert len(shown) <= 7, question.id
        known, used = known | of_these, used | shown
    assert known == used
