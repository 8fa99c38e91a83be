"""The quiz in the terminal: what it asks, grades, explains, remembers, and how it ends."""

import datetime
import io
import json
import tempfile
from pathlib import Path

import pytest

from tests.helpers import workbook_tiny
from whisper_lab.console import LabError
from workbook import progress, questions, quiz, values
from workbook.progress import PARTLY, RIGHT, WRONG, Progress

TODAY = datetime.date(2026, 3, 1)


@pytest.fixture(scope="module")
def book():
    return questions.load()


@pytest.fixture
def ask(monkeypatch, capsys, book, tmp_path, tmp_path_factory):
    """A function (typed lines, *arguments) -> (what was printed, what is kept); each call is a run of its own."""
    results = tmp_path_factory.getbasetemp() / "evidence"
    if not results.exists():
        workbook_tiny.write(results, book)
    monkeypatch.setattr(values, "RESULTS", results)

    def run(typed, *arguments, state=tmp_path / "quiz.json"):
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in typed)))
        assert quiz.main([*arguments, "--state", str(state), "--quiet"]) == 0
        kept = json.loads(state.read_text()) if state.is_file() else None
        return capsys.readouterr().out, kept and kept["questions"]

    return run


def letters(out):
    """Letter -> text of the choices on show."""
    return {line[0]: line[3:] for line in out.splitlines() if line[1:3] == ". " and line[0] in "ABCDEF"}


def letter_of(book, number, right, ask):
    """The letter of the right choice, or of a wrong one, as --seed 0 shows them the first time."""
    shown = letters(ask(["q"], "--lang", "en", "--question", number)[0])
    texts = {choice.text.en.replace("`", ""): choice.right for choice in book.questions[number].choices}
    return next(letter for letter, text in shown.items()
                if any(whole.startswith(text) and is_right == right for whole, is_right in texts.items()))


def test_a_right_and_a_wrong_choice(ask, book):
    right, wrong = (letter_of(book, "3.12", one, ask) for one in (True, False))
    out, kept = ask([wrong], "--lang", "en", "--question", "3.12")
    assert f"Not right: it is {right}." in out and f"Why not {wrong}: " in out
    assert "Score: 0 out of 1." in out and "To repeat: 3.12" in out and kept["3.12"]["box"] == 1
    # Asked again the choices stand in another order, so that nobody learns a letter by heart.
    again, _ = ask(["q"], "--lang", "en", "--question", "3.12")
    assert set(letters(again).values()) == set(letters(out).values())


def test_several_right_choices_are_ticked_together(ask, book):
    number = next(number for number, one in book.questions.items() if one.several and one.worth == 2)
    shown = letters(ask(["q"], "--lang", "en", "--question", number)[0])
    texts = {choice.text.en.replace("`", ""): choice.right for choice in book.questions[number].choices}
    right, wrong = ([letter for letter, text in shown.items()
                     if any(whole.startswith(text) and is_right == wanted for whole, is_right in texts.items())]
                    for wanted in (True, False))
    out, kept = ask([",".join(right).lower()], "--lang", "en", "--question", number)
    assert "More than one answer is right." in out and "Right." in out and "Score: 1 out of 1" in out
    # The choices are in another order now; one that was asked already keeps its box, so start again elsewhere.
    for typed, said, score in ((right[0], f"Partly right, 1 of 2: they are {', '.join(right)}.", "0.5"),
                               (right[0] + wrong[0], f"Not right: they are {', '.join(right)}.", "0"),
                               ("".join(shown), "Not right: they are", "0")):
        with tempfile.TemporaryDirectory() as folder:
            out, _ = ask(["?", typed], "--lang", "en", "--question", number, state=Path(folder) / "quiz.json")
        assert said in " ".join(out.split()) and f"Score: {score} out of 1" in out
        assert ("Why not" in out) == (set(typed) & set(wrong) != set())


def test_open_questions_show_the_model_answer_and_ask_for_a_mark(ask, book):
    out, kept = ask(["", "x", "d"], "--question", "2.04")
    assert out.index("Modelantwoord") < out.index("Typ j, d, n of q.") < out.index("Score: 0,5 op 1.")
    assert book.questions["2.04"].points[2].nl in " ".join(out.split())  # however it is folded
    assert kept == {"2.04": {"box": 1, "right": 0, "wrong": 1, "asked": datetime.date.today().isoformat()}}


@pytest.mark.parametrize("typed", [[], ["q"], ["", "q"], ["z", "q"]])
def test_it_ends_cleanly_whenever_one_likes(ask, typed):
    out, kept = ask(typed, "--topic", "netron")
    assert "Er is niets gevraagd." in out and kept is None


def test_ctrl_c_keeps_what_was_answered(ask, monkeypatch, capsys, tmp_path):
    typed = iter(["", "j"])

    def reply(prompt):
        try:
            return next(typed)
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr("builtins.input", reply)
    assert quiz.main(["--question", "2.01", "2.02", "--state", str(tmp_path / "s.json")]) == 0
    assert "Score: 1 op 1." in capsys.readouterr().out
    assert json.loads((tmp_path / "s.json").read_text())["questions"]["2.01"]["box"] == 2


def test_enter_skips_without_a_score(ask):
    out, kept = ask(["", "q"], "--topic", "netron")
    assert "Er is niets gevraagd." in out and kept is None


def test_selection(book):
    def chosen(known=None, **changes):
        given = {"question": None, "topic": None, "level": None, "all": False, "seed": 0, "count": 10} | changes
        return quiz.select(book, known or Progress(), type("Args", (), given), TODAY)

    assert chosen(question=["2.04"]) == ["2.04"]
    assert len(chosen()) == 10 and chosen() == chosen() != chosen(seed=1)
    first = [book.questions[number] for number in chosen()]
    assert {one.level for one in first} == {1} and first[0].script == "01", "easy ones of the first steps come first"
    assert [one.script or "99" for one in first] == sorted(one.script or "99" for one in first)
    assert {book.questions[number].topic for number in chosen(topic="energy")} == {"energy"}
    assert {book.questions[number].level for number in chosen(level=3)} == {3}
    known = Progress()
    known.answered("3.16", WRONG, TODAY)
    known.answered("3.17", RIGHT, TODAY)
    assert chosen(known, topic="energy")[0] == "3.16", "what went wrong comes first"
    assert "3.17" not in chosen(known, topic="energy") and "3.17" in chosen(known, topic="energy", all=True)
    with pytest.raises(LabError, match="no question of level 3 on netron"):
        chosen(topic="netron", level=3)


def test_boxes():
    known = Progress()
    for box, days in ((2, 1), (3, 3), (4, 7), (5, 21), (5, 21)):
        known.answered("1.01", RIGHT, TODAY)
        assert known.box("1.01") == box
        assert not known.due("1.01", TODAY + datetime.timedelta(days - 1))
        assert known.due("1.01", TODAY + datetime.timedelta(days))
    known.answered("1.01", PARTLY, TODAY)
    assert known.box("1.01") == 5
    known.answered("1.01", WRONG, TODAY)
    assert known.box("1.01") == 1 and known.due("1.01", TODAY) and known.repeat(["1.01", "1.02"]) == ["1.01"]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema": "other"}',
                                  '{"schema": "whisper-onnx-lab/quiz/1", "questions": {"1.01": {"box": 9}}}',
                                  '{"schema": "whisper-onnx-lab/quiz/1", "questions": {"1.01": {"box": [1]}}}',
                                  '{"schema": "whisper-onnx-lab/quiz/1", "questions": {"2.05": {"box": 1, "right": 0, '
                                  '"wrong": 0, "asked": 20261121}}}',
                                  '{"schema": "whisper-onnx-lab/quiz/1", "questions": {"1.01": {"box": 1, "right": 0, '
                                  '"wrong": 0, "asked": "yesterday"}}}'])
def test_a_damaged_file_is_put_aside(tmp_path, text, ask):
    state = tmp_path / "quiz.json"
    state.write_text(text)
    _, kept = ask(["", "j"], "--question", "2.05", state=state)
    assert list(kept) == ["2.05"]
    assert (tmp_path / "quiz.damaged.json").read_text() == text


def test_where_the_scores_live(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert progress.place() == tmp_path / "whisper-onnx-lab" / "quiz.json"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert progress.place() == tmp_path / ".local" / "state" / "whisper-onnx-lab" / "quiz.json"


def test_a_folder_that_cannot_be_written_ends_in_one_error(ask, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LabError, match="cannot write"):
        ask(["", "j"], "--question", "2.05", state=tmp_path / "file" / "quiz.json")


@pytest.mark.parametrize("arguments, named", [(["--topic", "cooking"], "there are recording, "),
                                              (["--question", "9.99"], "no question 9.99; there are 1.01"),
                                              (["--count", "0"], "--count starts at 1"),
                                              (["--page", "--question", "2.04", "--all"],
                                               "--question, --all: not with --page, where each visitor chooses"),
                                              (["--port", "0", "--allow-host", "me"],
                                               "--port, --allow-host: only of --page")])
def test_wrong_usage_names_what_there_is(arguments, named, capsys):
    with pytest.raises(SystemExit) as ended:
        quiz.main(arguments)
    assert ended.value.code == 2 and named in capsys.readouterr().err


def test_every_question_can_be_asked_in_both_languages(ask, book):
    for language in questions.LANGUAGES:
        typed = [line for question in book.questions.values()
                 for line in (["", "n"] if question.open else ["A"])]
        out, kept = ask(typed, "--lang", language, "--question", *book.questions)
        assert set(kept) == set(book.questions)
        for question in book.questions.values():
            assert question.title[language] in out and "{" not in question.title[language]
