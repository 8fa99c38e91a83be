"""The workbook's source and what is made from it: every fault in one is named, no drift in the other goes unseen."""

import csv
import io
import json
import re
import sys
from types import SimpleNamespace

import pytest
import yaml

from tests.helpers import workbook_tiny
from whisper_lab.console import LabError
from workbook import generate, questions, values
from workbook.questions import HERE, LANGUAGES, SOURCE
from workbook.values import Results
from workbook.view import evidence, view
from workbook.wording import WORDS


@pytest.fixture(scope="module")
def book():
    return questions.load()


@pytest.fixture(scope="module")
def results(book, tmp_path_factory):
    """A value for every placeholder."""
    return Results(workbook_tiny.write(tmp_path_factory.mktemp("results"), book))


@pytest.fixture(scope="module")
def made(book, results):
    return generate.generate(book, results)


@pytest.fixture
def small(tmp_path):
    """A function change -> Book: a source of two questions, loaded from a file after `change` has had its way."""
    both = {"nl": "een", "en": "one"}
    first = {"id": "1.01", "topic": "export", "level": 1, "title": both, "ask": both, "short": both, "long": both,
             "label": "measured", "evidence": ["toy"],
             "choices": [{**both, "correct": True}, *({**both, "why": both, "mistake": both} for _ in range(2))]}
    second = {key: value for key, value in first.items() if key != "choices"} | {"id": "1.02", "points": [both]}

    def load(change=lambda document: None, text=None):
        document = {"title": both, "intro": both, "parts": {"1": both}, "topics": {"export": both},
                    "questions": [json.loads(json.dumps(one)) for one in (first, second)]}
        change(document)
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.yaml"
        path.write_text(text or yaml.safe_dump(document), encoding="utf-8")
        return questions.load(path)

    return load


# The source ----------------------------------------------------------------------------------------------------------

def test_the_command_about_precisions_hears_the_clips_of_its_evidence(book):
    from workbook.evidence import common, quantization_edge

    clips = re.findall(r"media/(\S+)", book.questions["1.02"].command)
    assert {*clips} == {*common.english(), "long.flac"} and clips[0] == quantization_edge.CLIP  # the one that 04 times


def test_the_source_holds_what_was_promised(book):
    ids = list(book.questions)
    assert {"1.01", "1.02", "1.03"} <= set(ids) and [f"2.{i:02d}" for i in range(1, 11)] == [
        number for number in ids if number[0] == "2"]
    assert len(ids) >= 13 + 20 and {one.level for one in book.questions.values()} == {1, 2, 3}
    assert {one.topic for one in book.questions.values()} == set(book.topics)
    assert {one.script for one in book.questions.values()} >= {f"0{i}" for i in range(1, 10)}


@pytest.mark.parametrize("change, named", [
    (lambda one: one["long"].pop("nl"), "question 1.01, field 'long': has no text in the language nl"),
    (lambda one: one["title"].update(en=" "), "question 1.01, field 'title': has no text in the language en"),
    (lambda one: one["ask"].update(fr="un"), "field 'ask': has languages"),
    (lambda one: one["choices"][1]["why"].pop("en"), "question 1.01, choice 2, field 'why'"),
    (lambda one: one["choices"][1].pop("why"), "question 1.01, choice 2, field 'why': a wrong choice says why"),
    (lambda one: one["choices"][2].update(correct=True), "choice 3, field 'why'"),
    (lambda one: one["choices"][2].pop("mistake"), "choice 3, field 'mistake': a wrong choice names the misconception"),
    (lambda one: one.update(several=True), "field 'several': needs 2 or more right choices and as many wrong ones"),
    (lambda one: one.update(vary={"nl": "een", "en": "one"}), "field 'seen': what to change (vary) and what is then"),
    (lambda one: one["choices"].pop(0), "field 'choices': needs 3 or more with 1 right one, has 2 with 0"),
    (lambda one: one.pop("choices"), "field 'points': an open question lists"),
    (lambda one: one.pop("evidence"), "field 'evidence': a measured answer names"),
    (lambda one: one.update(label="documented"), "field 'sources': an answer from documentation names it"),
    (lambda one: one.update(label="guessed"), "field 'label': is 'guessed', must be one of measured"),
    (lambda one: one.update(topic="cooking"), "field 'topic'"),
    (lambda one: one.update(level="1"), "field 'level'"),
    (lambda one: one.update(id="1.02"), "question 1.02, field 'id': two questions have it"),
    (lambda one: one.update(id=2.04), "field 'id'"),
    (lambda one: one.update(id="7.01"), "question 7.01, field 'id'"),
    (lambda one: one.update(holds=["a"]), "field 'holds': must be a list of NAME.id"),
    (lambda one: one.update(holds=["other.a"]), "field 'holds': names a claim of evidence that the question does not"),
    (lambda one: one.update(script="3"), "field 'script': '3' is not the number of a script"),
    (lambda one: one.update(shrot="x"), "field 'shrot': there is no such field"),
    (lambda one: one.update(evidence=[], label="derived"), "field 'evidence'"),
])
def test_a_fault_in_the_source_is_named(small, change, named):
    with pytest.raises(LabError) as raised:
        small(lambda document: change(document["questions"][0]))
    assert named in raised.value.problem and "questions.yaml" in raised.value.remedy


def test_a_key_that_stands_twice_is_an_error(small):
    with pytest.raises(LabError, match="the key topics is there twice"):
        small(text="topics: {}\ntopics: {}\n")
    with pytest.raises(LabError, match="is not YAML"):
        small(text="a: [")


def said(book, number):
    """Everything that a question says, in both languages."""
    return "\n".join(f"{both.nl}\n{both.en}" for both in book.questions[number].texts.values())


def test_what_is_made_for_each_window_is_not_said_to_be_made_for_a_recording(book, monkeypatch, tmp_path):
    """The encoder, and the keys and values behind it: a recording has many windows."""
    from workbook import drawing

    once = re.compile("per opname|hele opname|(per|whole|MB a) recording")
    for number in book.questions:
        texts = said(book, number)
        if re.search(r"encoder_attn|cross-cache", texts):
            assert not once.search(texts), f"question {number}: {once.search(texts)[0]}"
    texts, write = [], drawing.Board.text
    monkeypatch.setattr(drawing.Board, "text", lambda board, x, y, text, *more, **how: (
        texts.append(text), write(board, x, y, text, *more, **how)))
    drawing.draw("base", tmp_path / "drawn.png")
    assert "runs once per window" in texts and not once.search("\n".join(texts))


def test_where_the_logits_are_a_matmul_they_are_not_forgotten(book):
    """Embedding and logits share their weight: who quantizes every MatMul has quantized the embedding too."""
    shares = Results().document("quantization_edge")["values"]
    left = (shares["embedding_percent_base"] + (100 - shares["embedding_percent_base"]) / 4) / 100
    right = next(choice for choice in book.questions["3.07"].choices if choice.right)
    assert abs(left - 2 / 3) < 0.03 and "two thirds" in right.text.en
    assert all("logits" in book.questions["3.07"].ask[language] for language in LANGUAGES)


def test_int4_is_said_to_have_what_its_recipe_gives_it(book, nano):
    """Layers of 4 bits, and layers of 8."""
    from tests.helpers.export_tiny import script

    config = SimpleNamespace(**json.loads((nano / "config.json").read_text(encoding="utf-8")))
    bits = script().recipe("int4", config)["block_sizes"]
    why = next(choice.why for choice in book.questions["3.09"].choices if choice.text.en == "`MatMulNBits`")
    assert all(re.search(rf"\b{number}\b", why[language]) for number in bits for language in LANGUAGES)


def test_tokenizers_is_named_for_prompts_alone(book):
    """That the runtime loads it for nothing else is in test_tokenizer.py."""
    for language in LANGUAGES:
        for sentence in re.split(r"(?<=[.:])\s", book.questions["3.32"].long[language]):
            assert "tokenizers" not in sentence or "--prompt" in sentence


def test_a_published_size_has_the_parameters_that_were_counted(book):
    measured = json.loads((HERE.parent / "benchmarks" / "sizes.json").read_text(encoding="utf-8"))["rows"]
    millions = {row["size"]: round(row["parameters"] / 1e6) for row in measured}
    named = [(size, int(count)) for number in book.questions for size, count in
             re.findall(r"whisper-(\S+) (?:heeft|has) (\d+) m", said(book, number))]
    assert named and all(millions[size] == count for size, count in named)


# The numbers ---------------------------------------------------------------------------------------------------------

def test_placeholders_are_filled_and_dutch_has_its_comma(tmp_path):
    workbook_tiny.write_one(tmp_path, "toy", {"error": 0.000123, "mb": 1234.56, "n": 7, "word": "1.5 times", "f": 2.5})
    filled = Results(tmp_path)
    text = "{toy.mb:,.1f} {toy.error:.1e} {toy.n} {toy.word} {toy.f} {no_value} f\"{x}\""
    assert filled.fill(text, "en", "here") == "1,234.6 1.2e-04 7 1.5 times 2.5 {no_value} f\"{x}\""
    assert filled.fill(text, "nl", "here") == "1.234,6 1,2e-04 7 1.5 times 2,5 {no_value} f\"{x}\""


def test_a_share_is_shown_with_its_count_and_its_interval(tmp_path):
    from workbook.evidence import common

    made = common.Evidence()
    common.share(made, "top1", 41, 42)
    common.share(made, "all", 1500, 1500)
    workbook_tiny.write_one(tmp_path, "toy", made.values)
    filled = Results(tmp_path)
    assert filled.fill("{toy.top1:share} the same", "en", "here") == (
        "97.6 % (41 of 42; 95 % interval 87.4 to 99.9 %) the same")
    assert filled.fill("{toy.top1:share} gelijk", "nl", "hier") == (
        "97,6 % (41 van de 42; 95 %-interval 87,4 tot 99,9 %) gelijk")
    assert filled.fill("{toy.all:share}", "en", "here") == "100 % (1500 of 1500; 95 % interval 99.8 to 100 %)"
    with pytest.raises(LabError, match="toy.json holds no value 'top2_percent'"):
        filled.fill("{toy.top2:share}", "en", "here")


def test_a_number_that_nobody_measured_is_an_error_with_the_command(tmp_path, small):
    book = small(lambda document: document["questions"][1]["long"].update(nl="{toy.lost:.1f}"))
    with pytest.raises(LabError) as raised:
        view(book.questions["1.02"], "nl", Results(tmp_path))
    assert "question 1.02, long.nl needs the evidence toy" in raised.value.problem
    assert raised.value.remedy == "run python -m workbook.evidence.toy"
    workbook_tiny.write_one(tmp_path, "toy", {"found": 1})
    with pytest.raises(LabError, match=r"question 1.02, long.nl: toy.json holds no value 'lost'"):
        view(book.questions["1.02"], "nl", Results(tmp_path))
    workbook_tiny.write_one(tmp_path, "toy", {"lost": "text"})
    with pytest.raises(LabError, match=r"\{toy.lost:.1f\} does not fit"):
        view(book.questions["1.02"], "nl", Results(tmp_path))


def test_damaged_evidence_is_named(tmp_path):
    for text in ("{", "[]", '{"schema": "other/1"}'):
        (tmp_path / "toy.json").write_text(text)
        with pytest.raises(LabError, match="toy.json is") as raised:
            Results(tmp_path).document("toy")
        assert raised.value.remedy == "run python -m workbook.evidence.toy"


def test_a_figure_older_than_its_numbers_is_found(tmp_path):
    workbook_tiny.write_one(tmp_path, "toy", {"a": 1})
    assert Results(tmp_path).figure("toy").is_file()
    path = tmp_path / "toy.json"
    path.write_text(path.read_text().replace('"a": 1', '"a": 2'))
    with pytest.raises(LabError, match="drawn from other values"):
        Results(tmp_path).figure("toy")
    (tmp_path / "toy.png").unlink()
    with pytest.raises(LabError, match="there is no figure toy.png"):
        Results(tmp_path).figure("toy")


def test_both_languages_use_the_same_numbers(book):
    for number, question in book.questions.items():
        for name, both in question.texts.items():
            taken = [sorted((match["name"], match["key"]) for match in values.PLACEHOLDER.finditer(both[language]))
                     for language in LANGUAGES]
            assert taken[0] == taken[1], f"question {number}, {name}"


def test_an_interval_that_is_said_to_hold_0_does(book):
    """Question 3.14 draws its conclusion from every interval that it shows."""
    shown = {(match["name"], match["key"].removeprefix("low_")) for match in values.PLACEHOLDER.finditer(
        said(book, "3.14")) if match["key"].startswith("low_")}
    found = Results()
    bounds = [[found.value(name, f"{bound}_{key}", "3.14") for bound in ("low", "high")] for name, key in shown]
    assert bounds and all(low < 0 < high for low, high in bounds)


def test_slow_runs_alone_make_the_mean_what_it_is_said_to_be():
    from workbook.evidence.monitoring import SLOW_TIMES

    measured = Results().document("monitoring")["values"]
    added = measured["slow_share_percent"] * SLOW_TIMES * measured["p95_ms"] / measured["mean_ms"]
    assert measured["mean_change_percent"] == pytest.approx(added, abs=0.1)


def test_a_simulation_is_told_with_everything_that_it_simulates(book):
    told = {match["key"] for match in values.PLACEHOLDER.finditer(book.questions["2.02"].long.en)}
    assert {"load_ms", "stall_ms", "stall_share_percent"} <= told


def test_measured_answers_hold_measured_numbers(book):
    for number, question in book.questions.items():
        if question.label == "measured":
            taken = {name for both in (question.short, question.long) for name in values.names_in(both.nl)}
            assert taken & set(question.evidence), f"question {number} measures nothing"


# What is made --------------------------------------------------------------------------------------------------------

def test_the_committed_files_say_what_their_sources_say(book):
    """Also fails where a number is missing, or a figure was drawn from other numbers."""
    for name, contents in generate.generate(book, Results()).items():
        path = HERE / name
        assert path.is_file() and generate.same(name, path.read_bytes(), contents), (
            f"{name} has drifted: python -m workbook.generate")


def test_evidence_holds_on_the_machine_that_wrote_it(book):
    for name in {name for question in book.questions.values() for name in evidence(question)}:
        document = Results().document(name)
        assert document["claims"] and all(claim["holds"] for claim in document["claims"]), name
        assert (HERE / "evidence" / f"{name}.py").is_file()


def test_check_finds_every_kind_of_drift(results, tmp_path, made, monkeypatch):
    monkeypatch.setattr(generate, "generate", lambda *_: made)  # what it makes is tested below, once
    arguments = ["--results", str(results.folder), "--output-dir", str(tmp_path), "--quiet"]
    assert generate.main(arguments) == 0 and generate.main([*arguments, "--check"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == set(made)
    for name in made:
        whole = (tmp_path / name).read_bytes()
        changed = whole.replace(b"/Title", b"/Titel") if name.endswith(".pdf") else whole[:-2] + b"!\n"
        assert changed != whole
        (tmp_path / name).write_bytes(changed)
        with pytest.raises(LabError, match=name):
            generate.main([*arguments, "--check"])
        assert (tmp_path / name).read_bytes() == changed, "--check writes nothing"
        generate.main(arguments)
        assert (tmp_path / name).read_bytes() == whole


def test_the_same_sources_give_the_same_bytes(book, results, made):
    assert generate.generate(book, results) == made


def test_answers_are_folded_away_and_every_question_stands_in_both_languages(book, made):
    for language in LANGUAGES:
        text = made[f"{language}.md"].decode()
        open_text = re.sub(r"<details>.*?</details>", "", text, flags=re.S)
        for number, question in book.questions.items():
            assert f"### {number} {question.title[language]}" in open_text
            assert f'<a id="q{number.replace(".", "-")}">' in text and f"(#q{number.replace('.', '-')})" in text
        assert text.count("<details>") == text.count("</details>") == len(book.questions)
        assert "In short" not in open_text and "**Kort.**" not in open_text
        assert not values.PLACEHOLDER.search(text)


def test_origins_read_as_a_sentence(book, made):
    """`Where the numbers come from: from documentation, from ...` was one too many, or two."""
    for language, word in (("en", "from"), ("nl", "uit")):
        lines = re.findall(rf"^\*\*{WORDS[language]['origin']}\*\*: (.*)$", made[f"{language}.md"].decode(), re.M)
        assert len(lines) == len(book.questions)
        assert not [line for line in lines if re.search(rf"\b{word}\b", line)]


def test_the_dutch_pages_name_the_machine_in_dutch():
    for name in ("nl.md", "answer-key-nl.md"):
        text = (HERE / name).read_text(encoding="utf-8")
        assert "; geen GPU; " in text and "no GPU" not in text and not re.search(r"\d cores, \d thread", text)


def test_the_right_letter_moves_and_is_the_same_everywhere(book, results, made):
    letters = {view(one, language, results).answer for one in book.questions.values() for language in LANGUAGES}
    assert {one for letter in letters if letter for one in letter.split(", ")} >= set("ABCDEF")
    rows = list(csv.DictReader(io.StringIO(made["cards.csv"].decode())))
    for number, question in book.questions.items():
        shown = {language: view(question, language, results) for language in LANGUAGES}
        assert shown["nl"].answer == shown["en"].answer
        for language, one in shown.items():
            key = made[f"answer-key-{language}.md"].decode()
            if one.answer:
                assert f"| {number} | {one.answer} | {question.worth} |" in key
                card = next(row for row in rows if (row["id"], row["language"]) == (number, language))
                assert card["back"].startswith(f"{one.answer}. ") and f"\n{one.answer[0]}. " in card["front"]
                first = one.options[ord(one.answer[0]) - 65]
                assert f"**{first.letter}** {first.text}" in made[f"{language}.md"].decode()
            else:
                assert f"| {number} | open | {len(question.points)} |" in key


def test_cards_import_as_csv(book, made):
    rows = list(csv.DictReader(io.StringIO(made["cards.csv"].decode())))
    assert len(rows) == 2 * len(book.questions)
    assert all(row["front"].strip() and row["back"].strip() for row in rows)


def test_the_pdf_holds_the_questions_alone(made):
    """Counts its pages and looks for answers; what it looks like was looked at."""
    pdf = made["questions-en.pdf"]
    assert pdf.startswith(b"%PDF-") and 8 <= len(re.findall(rb"/Type /Page\b", pdf)) <= 24
    assert b"/CreationDate (D:20000101000000Z)" in pdf


def test_without_the_package_that_prints_two_lines_say_how_to_get_it(book, results, monkeypatch):
    monkeypatch.setitem(sys.modules, "fpdf", None)
    with pytest.raises(LabError, match="need the package fpdf2") as caught:
        generate.generate(book, results)
    assert caught.value.remedy == "pip install -r requirements-dev.txt"
    assert "\nfpdf2==" in (HERE.parent / "requirements-dev.txt").read_text(encoding="utf-8")


def test_the_drawing_is_made_by_the_code_that_stands_here(tmp_path):
    from PIL import Image, ImageChops

    from workbook import drawing

    committed = HERE.parent / "media" / "whisper-architecture.png"
    assert committed.stat().st_size < 250_000
    again = drawing.draw("base", tmp_path / "again.png")
    with Image.open(committed) as one, Image.open(again) as two:
        difference = ImageChops.difference(one.convert("L"), two.convert("L"))
        assert one.size == two.size == (1600, 900)
        assert sum(difference.histogram()[64:]) < 1600 * 900 / 200, "media/whisper-architecture.png has drifted"


def test_there_is_one_source():
    assert SOURCE.name == "questions.yaml" and [path.name for path in HERE.glob("*.yaml")] == [SOURCE.name]
