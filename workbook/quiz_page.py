"""The quiz as a page for the class: the same questions and rules as in the terminal, a score for every visitor.

What a visitor has to repeat is kept in that visitor's own browser (local storage), nowhere else; the server remembers
only the round that is going on, and forgets it after an hour.
"""

import datetime
import random
import signal
import threading
from argparse import Namespace
from dataclasses import dataclass, field

from whisper_lab import console
from whisper_lab.record import serve as pages
from workbook import quiz
from workbook.progress import PARTLY, RIGHT, WRONG, Progress
from workbook.questions import LANGUAGES, LEVELS, Book
from workbook.values import Results
from workbook.view import View, view

KEEP_S = 3600  # how long the server remembers a round
CSS = "#options .wrap { flex-direction: column; align-items: stretch } #start { align-self: center }"
STORAGE = ("whisper-onnx-lab-quiz", "scores, not secrets")  # name and key of what the browser keeps
SAY = {
    "nl": {"title": "Quiz bij het Whisper ONNX Lab", "start": "Begin", "topic": "Onderwerp", "level": "Niveau",
           "all": "alle", "check": "Controleer", "reveal": "Toon het modelantwoord", "next": "Volgende vraag",
           "marks": ("Had ik", "Deels", "Had ik niet"), "think": "Je antwoord (alleen voor jezelf)",
           "choose": "Kies eerst een antwoord.", "done": "Klaar!", "welcome": "Kies een onderwerp en begin."},
    "en": {"title": "Quiz of the Whisper ONNX Lab", "start": "Start", "topic": "Topic", "level": "Level",
           "all": "all", "check": "Check", "reveal": "Show the model answer", "next": "Next question",
           "marks": ("Had it", "Partly", "Did not"), "think": "Your answer (for yourself only)",
           "choose": "Choose an answer first.", "done": "Done!", "welcome": "Choose a topic and start."},
}


@dataclass
class Round:
    """One visitor's round: what is asked in which language, and the scores so far."""

    language: str = "nl"
    numbers: list[str] = field(default_factory=list)
    at: int = 0
    seed: int = 0
    scores: dict[str, float] = field(default_factory=dict)

    @property
    def number(self) -> str | None:
        """The question on show, None before the first and after the last."""
        return self.numbers[self.at] if self.at < len(self.numbers) else None


def known(stored: object) -> Progress:
    """What the browser kept, or nothing where it is damaged or not there."""
    try:
        return Progress.from_json(stored)
    except ValueError:
        return Progress()


class Quiz:
    """The rules, without any widget: what to ask next, what an answer is worth, what to say about it."""

    def __init__(self, book: Book, results: Results):
        self.book, self.results = book, results

    def start(self, language: str, topic: str | None, level: int | None, stored: object) -> Round:
        """A round of questions that are due; where none is, all of the selection."""
        progress, today, seed = known(stored), datetime.date.today(), random.randrange(2**31)
        wanted = Namespace(question=None, topic=topic, level=level, all=False, seed=seed, count=quiz.HOW_MANY)
        if not any(topic in (None, one.topic) and level in (None, one.level) for one in self.book.questions.values()):
            return Round(language)
        numbers = quiz.select(self.book, progress, wanted, today)
        return Round(language, numbers or quiz.select(self.book, progress, Namespace(**vars(wanted) | {"all": True}),
                                                      today), seed=seed)

    def shown(self, one: Round) -> View | None:
        """The question on show; its choices stay in place for the whole round."""
        return one.number and view(self.book.questions[one.number], one.language, self.results,
                                   f"{one.seed} {one.number}")

    def note(self, one: Round, score: float, stored: object) -> dict:
        """Count an answer, once; returns what the browser is to keep."""
        progress = known(stored)
        if one.number not in one.scores:
            one.scores[one.number] = score
            progress.answered(one.number, score, datetime.date.today())
        return progress.as_json()

    def score(self, one: Round, stored: object) -> str:
        """The score of the round, and what to repeat."""
        say = quiz.SAY[one.language]
        points = f"{sum(one.scores.values()):g}".replace(".", "," if one.language == "nl" else ".")
        text = say["score"].format(points=points, asked=len(one.scores)) if one.scores else ""
        again = known(stored).repeat(list(self.book.questions))
        return text + ("  \n" + say["repeat"].format(numbers=", ".join(again)) if again else "")


def question_text(shown: View, one: Round) -> str:
    """The question as Markdown."""
    code = f"\n\n```python\n{shown.question.code.rstrip()}\n```" if shown.question.code else ""
    return f"### {one.at + 1}/{len(one.numbers)} · {shown.question.id} {shown.title}\n\n{shown.ask}{code}"


def verdict(shown: View, letter: str) -> tuple[float, str]:
    """What a choice is worth, and why."""
    say = quiz.SAY[shown.language]
    option = next(one for one in shown.options if one.letter == letter)
    if option.right:
        return RIGHT, f"**{say['right']}** {shown.short}"
    wrong = say["wrong"].format(letter=shown.answer)
    return WRONG, f"**{wrong}** {shown.short}\n\n{say['why'].format(letter=letter, why=option.why)}"


def explanation(shown: View) -> str:
    """What follows every answer."""
    command = shown.question.command
    say = quiz.SAY[shown.language]
    return shown.long + (f"\n\n{say['shows'].format(command=f'`{command}`')}" if command else "")


def model_answer(shown: View) -> str:
    """What an open question's answer holds."""
    say = quiz.SAY[shown.language]
    return (f"**{say['model']}.** {shown.short}\n\n**{say['points']}**\n\n"
            + "\n".join(f"- {point}" for point in shown.points) + f"\n\n{explanation(shown)}")


def build(book: Book, results: Results, language: str = "nl"):
    """The page as gradio.Blocks."""
    import gradio

    game, hide, show = Quiz(book, results), gradio.update(visible=False), gradio.update(visible=True)

    def choices(language: str) -> list[tuple[str, str]]:
        return [(SAY[language]["all"], ""), *((text[language], name) for name, text in book.topics.items())]

    def say_all(language: str) -> dict:
        say = SAY[language]
        texts = {start: say["start"], check: say["check"], reveal: say["reveal"], after: say["next"]}
        marks = dict(zip((had, partly, missed), say["marks"], strict=True))
        return {title: f"# {say['title']}", thought: gradio.update(label=say["think"], value="", visible=False),
                topic: gradio.update(label=say["topic"], choices=choices(language)),
                level: gradio.update(label=say["level"], choices=[(say["all"], 0), *((str(n), n) for n in LEVELS)]),
                question: say["welcome"], feedback: "", figure: hide, options: hide, row: hide, score: "",
                **{button: gradio.update(value=text, visible=button is start) for button, text in texts.items()},
                **{button: gradio.update(value=text) for button, text in marks.items()}}

    def present(one: Round, stored) -> dict:
        shown, clear = game.shown(one), {feedback: "", figure: hide, row: hide, after: hide, one_round: one,
                                         score: game.score(one, stored)}
        if shown is None:
            nothing = quiz.SAY[one.language]["none"]
            return clear | {question: SAY[one.language]["done"] if one.numbers else nothing, options: hide, check: hide,
                            reveal: hide, thought: hide}
        letters = [(f"{option.letter}. {option.text}".replace("`", ""), option.letter) for option in shown.options]
        is_open = shown.question.open
        return clear | {question: question_text(shown, one), check: gradio.update(visible=not is_open),
                        options: gradio.update(choices=letters, value=None, visible=not is_open, interactive=True),
                        reveal: gradio.update(visible=is_open), thought: gradio.update(visible=is_open, value="")}

    def begin(language, topic, level, stored):
        return present(game.start(language, topic or None, level or None, stored), stored)

    def evidence_figure(shown: View):
        names = shown.question.evidence
        return gradio.update(value=str(results.figure(names[0])), visible=True) if names else hide

    def checked(one: Round, letter, stored):
        shown = game.shown(one)
        if shown is None or letter is None:
            return {feedback: SAY[one.language]["choose"]}
        worth, text = verdict(shown, letter)
        stored = game.note(one, worth, stored)
        return {feedback: f"{text}\n\n{explanation(shown)}", figure: evidence_figure(shown), check: hide, after: show,
                options: gradio.update(interactive=False), one_round: one, kept: stored,
                score: game.score(one, stored)}

    def revealed(one: Round):
        shown = game.shown(one)
        return {feedback: model_answer(shown), figure: evidence_figure(shown), reveal: hide, row: show}

    def marked(worth: float):
        def mark(one: Round, stored):
            stored = game.note(one, worth, stored)
            return {row: hide, after: show, one_round: one, kept: stored, score: game.score(one, stored)}
        return mark

    def onward(one: Round, stored):
        one.at += 1
        return present(one, stored)

    with gradio.Blocks(title=SAY[language]["title"], analytics_enabled=False) as page:
        one_round = gradio.State(Round(language), time_to_live=KEEP_S)
        kept = gradio.BrowserState({}, storage_key=STORAGE[0], secret=STORAGE[1])
        title = gradio.Markdown(f"# {SAY[language]['title']}", elem_id="title")
        with gradio.Row(equal_height=True):
            spoken = gradio.Radio([("Nederlands", "nl"), ("English", "en")], value=language, show_label=False,
                                  container=False, elem_id="language")
            topic = gradio.Dropdown(choices(language), value="", label=SAY[language]["topic"], elem_id="topic")
            level = gradio.Dropdown([(SAY[language]["all"], 0), *((str(n), n) for n in LEVELS)], value=0,
                                    label=SAY[language]["level"], elem_id="level")
            start = gradio.Button(SAY[language]["start"], variant="primary", elem_id="start")
        question = gradio.Markdown(SAY[language]["welcome"], elem_id="question")
        options = gradio.Radio([], show_label=False, visible=False, interactive=True, elem_id="options")
        thought = gradio.Textbox(label=SAY[language]["think"], lines=3, visible=False, interactive=True,
                                 elem_id="thought")
        check = gradio.Button(SAY[language]["check"], variant="primary", visible=False, elem_id="check")
        reveal = gradio.Button(SAY[language]["reveal"], variant="primary", visible=False, elem_id="reveal")
        feedback = gradio.Markdown(elem_id="feedback")
        with gradio.Row(visible=False) as row:
            had, partly, missed = (gradio.Button(text, elem_id=name) for name, text in
                                   zip(("had", "partly", "missed"), SAY[language]["marks"], strict=True))
        after = gradio.Button(SAY[language]["next"], variant="primary", visible=False, elem_id="next")
        figure = gradio.Image(visible=False, interactive=False, show_label=False, buttons=["fullscreen"],
                              elem_id="figure")
        score = gradio.Markdown(elem_id="score")
        everything = [one_round, kept, title, topic, level, start, question, options, thought, check, reveal, feedback,
                      row, had, partly, missed, after, figure, score]
        spoken.change(say_all, spoken, everything)
        start.click(begin, [spoken, topic, level, kept], everything)
        check.click(checked, [one_round, options, kept], everything)
        reveal.click(revealed, one_round, everything)
        for button, worth in ((had, RIGHT), (partly, PARTLY), (missed, WRONG)):
            button.click(marked(worth), [one_round, kept], everything)
        after.click(onward, [one_round, kept], everything)
    return page


def serve(book: Book, args) -> int:
    """Serve the page until Ctrl-C, the way 01 serves its own."""
    results = Results(args.results)
    for language in LANGUAGES:  # a missing number or figure is said here, not to a class
        for question in book.questions.values():
            view(question, language, results)
            for name in question.evidence:
                results.figure(name)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    auth, port = pages.credentials(args), pages.choose_port(args.host, args.port)
    with pages.own_folder() as folder:
        pages.environment(folder)
        page = build(book, results, args.lang)
        pages.launch(page, {
            "server_name": args.host, "server_port": port, "auth": auth and pages.checker(*auth), "share": False,
            "allowed_paths": [str(results.folder)], "run_history": False, "enable_monitoring": False,
            "ssr_mode": False, "mcp_server": False, "pwa": False, "footer_links": [], "prevent_thread_lock": True,
            "css": CSS,
            "quiet": True, "show_error": True})
        try:
            console.result(f"* Running on local URL:  http://{args.host}:{port}")
            if auth:
                console.result(f"  user {auth[0]}, password {auth[1]}")
            console.note("running", "Ctrl-C ends it", "VS Code forwards the port: panel Ports; scores stay in each "
                         "visitor's browser")
            stop.wait()
        finally:
            page.close()
    return 0
