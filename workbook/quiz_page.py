"""The quiz as a page for the class: the same questions and rules as in the terminal, a score for every visitor.

What a visitor has to repeat is kept in that visitor's own browser (local storage), nowhere else; the server remembers
only the round that is going on, and forgets it after an hour.
"""

import re
import signal
import threading
from functools import partial

from whisper_lab import console
from whisper_lab.record import serve as pages
from workbook.progress import PARTLY, RIGHT, WRONG
from workbook.questions import LANGUAGES, LEVELS, Book
from workbook.quiz_round import Quiz, Round, explanation, model_answer, question_text, verdict
from workbook.values import Results
from workbook.view import Option, View, view
from workbook.wording import WORDS

KEEP_S = 3600  # how long the server remembers a round
CSS = """#options .wrap, #boxes .wrap { flex-direction: column; align-items: stretch } #start { align-self: center }
.gradio-container > main, .gradio-container > .main { max-width: 900px !important; margin: auto }
#figure { max-width: 640px; margin: auto }
:not(pre) > code { display: inline-block; max-width: 100% }"""
# Lines that can be read; a figure that leaves the button in sight; a line ends in front of `--share`, not in it.
JOINER = "\u2060"  # no line ends here, and nothing is seen: a radio button's label cannot be set as code
TO_QUESTION = "() => document.querySelector('#question').scrollIntoView({block: 'nearest'})"
STORAGE = ("whisper-onnx-lab-quiz", "scores, not secrets")  # name and key of what the browser keeps
SAY = {
    "nl": {"title": "Quiz bij het Whisper ONNX Lab", "start": "Nieuwe ronde", "topic": "Onderwerp", "level": "Niveau",
           "all": "alle", "check": "Controleer", "reveal": "Toon het modelantwoord", "next": "Volgende vraag",
           "marks": ("Had ik juist", "Deels juist", "Had ik niet"), "think": "Je antwoord (alleen voor jezelf)",
           "choose": "Kies eerst een antwoord.", "done": "Klaar! Start een nieuwe ronde om verder te gaan.",
           "empty": "Over dit onderwerp is er geen vraag van dit niveau. Kies een ander niveau of onderwerp."},
    "en": {"title": "Quiz of the Whisper ONNX Lab", "start": "New round", "topic": "Topic", "level": "Level",
           "all": "all", "check": "Check", "reveal": "Show the model answer", "next": "Next question",
           "marks": ("I had it", "Partly", "I missed it"), "think": "Your answer (for yourself only)",
           "choose": "Choose an answer first.", "done": "Done! Start a new round to go on.",
           "empty": "There is no question of this level on this topic. Choose another level or topic."},
}


def choices(book: Book, language: str) -> list[tuple[str, str]]:
    """The topics as (label, name), all of them first."""
    return [(SAY[language]["all"], ""), *((text[language], name) for name, text in book.topics.items())]


def levels(language: str) -> list[tuple[str, int]]:
    """The levels as (label, level), all of them first."""
    return [(SAY[language]["all"], 0), *((f"{n} {WORDS[language]['levels'][n]}", n) for n in LEVELS)]


def label(option: Option) -> str:
    """A choice as its button has it: plain text, in which no line ends behind a hyphen of its code."""
    text = re.sub("`[^`]+`", lambda code: code[0].strip("`").replace("-", f"-{JOINER}"), option.text)
    return f"{option.letter}. {text}"


class Page:
    """The widgets, and what a click does to them: every handler returns {widget: what it shows now}."""

    def __init__(self, game: Quiz, language: str):
        import gradio

        self.game, self.ui = game, gradio
        self.hide, self.show = gradio.update(visible=False), gradio.update(visible=True)
        with gradio.Blocks(title=SAY[language]["title"], analytics_enabled=False) as self.blocks:
            self.one_round = gradio.State(Round(language), time_to_live=KEEP_S)
            self.kept = gradio.BrowserState({}, storage_key=STORAGE[0], secret=STORAGE[1])
            self._head(language)
            self._ask(SAY[language])
            self._answer(SAY[language])
            self._wire()

    # -- layout --------------------------------------------------------------------------------------------------------

    def _head(self, language: str) -> None:
        ui, say = self.ui, SAY[language]
        self.title = ui.Markdown(f"# {say['title']}", elem_id="title")
        with ui.Row(equal_height=True):
            self.spoken = ui.Radio([("Nederlands", "nl"), ("English", "en")], value=language, show_label=False,
                                   container=False, elem_id="language")
            self.topic = ui.Dropdown(choices(self.game.book, language), value="", label=say["topic"], elem_id="topic")
            self.level = ui.Dropdown(levels(language), value=0, label=say["level"], elem_id="level")
            self.start = ui.Button(say["start"], variant="primary", elem_id="start")

    def _ask(self, say: dict) -> None:
        ui = self.ui
        self.question = ui.Markdown(elem_id="question")
        self.options = ui.Radio([], show_label=False, visible=False, interactive=True, elem_id="options")
        self.boxes = ui.CheckboxGroup([], show_label=False, visible=False, interactive=True, elem_id="boxes")
        self.thought = ui.Textbox(label=say["think"], lines=3, visible=False, interactive=True, elem_id="thought")
        self.check = ui.Button(say["check"], variant="primary", visible=False, elem_id="check")
        self.reveal = ui.Button(say["reveal"], variant="primary", visible=False, elem_id="reveal")

    def _answer(self, say: dict) -> None:
        ui = self.ui
        self.feedback = ui.Markdown(elem_id="feedback")
        self.figure = ui.Image(visible=False, interactive=False, show_label=False, buttons=["fullscreen"],
                               elem_id="figure")
        with ui.Row(visible=False) as self.row:
            self.marks = [ui.Button(text, elem_id=name) for name, text in
                          zip(("had", "partly", "missed"), say["marks"], strict=True)]
        self.after = ui.Button(say["next"], variant="primary", visible=False, elem_id="next")
        self.score = ui.Markdown(elem_id="score")

    def _wire(self) -> None:
        everything = [self.one_round, self.kept, self.title, self.topic, self.level, self.start, self.question,
                      self.options, self.boxes, self.thought, self.check, self.reveal, self.feedback, self.row,
                      *self.marks, self.after, self.figure, self.score]
        own, wanted = [self.one_round, self.kept], [self.spoken, self.topic, self.level, self.kept]
        self.blocks.load(self.begin, wanted, everything)  # a first question is there at once
        self.spoken.input(self.speak, wanted, everything)
        self.start.click(self.begin, wanted, everything)
        self.check.click(self.checked, [self.one_round, self.options, self.boxes, self.kept], everything)
        self.reveal.click(self.revealed, self.one_round, everything)
        for button, worth in zip(self.marks, (RIGHT, PARTLY, WRONG), strict=True):
            button.click(partial(self.marked, worth), own, everything)
        self.after.click(self.onward, own, everything).then(None, js=TO_QUESTION)

    # -- what a click does ---------------------------------------------------------------------------------------------

    def speak(self, language: str, topic: str, level: int, stored) -> dict:
        """Every word in another language, and a new round in it."""
        update, say = self.ui.update, SAY[language]
        asked = self.begin(language, topic, level, stored)
        words = {self.start: "start", self.check: "check", self.reveal: "reveal", self.after: "next"}
        return asked | {
            self.title: f"# {say['title']}", **{one: asked.get(one, {}) | update(value=say[key])
                                                for one, key in words.items()},
            self.topic: update(label=say["topic"], choices=choices(self.game.book, language)),
            self.level: update(label=say["level"], choices=levels(language)),
            self.thought: asked[self.thought] | update(label=say["think"]),
            **{one: update(value=text) for one, text in zip(self.marks, say["marks"], strict=True)}}

    def begin(self, language: str, topic: str, level: int, stored) -> dict:
        return self.present(self.game.start(language, topic or None, level or None, stored), stored)

    def present(self, one: Round, stored) -> dict:
        """The question that is next, or that there is none."""
        update, shown = self.ui.update, self.game.shown(one)
        clear = {self.feedback: "", self.figure: self.hide, self.row: self.hide, self.after: self.hide,
                 self.one_round: one, self.score: self.game.score(one, stored)}
        if shown is None:
            text = SAY[one.language]["done" if one.numbers else "empty"]
            hidden = (self.options, self.boxes, self.check, self.reveal, self.thought)
            return clear | {self.question: text, **dict.fromkeys(hidden, self.hide)}
        letters = [(label(option), option.letter) for option in shown.options]
        is_open, several = shown.question.open, shown.question.several
        return clear | {self.question: question_text(shown, one, self.game.book.topics),
                        self.check: update(visible=not is_open),
                        self.options: update(choices=letters, value=None, visible=not (is_open or several),
                                             interactive=True),
                        self.boxes: update(choices=letters, value=[], visible=several, interactive=True),
                        self.reveal: update(visible=is_open), self.thought: update(visible=is_open, value="")}

    def checked(self, one: Round, letter: str | None, letters: list[str], stored) -> dict:
        """Choices are judged: a radio button's, or several boxes'."""
        shown = self.game.shown(one)
        ticked = letters if shown and shown.question.several else [letter] if letter else []
        if not ticked:
            return {self.feedback: SAY[one.language]["choose"]}
        worth, text = verdict(shown, ticked)
        return self._noted(one, worth, stored) | {
            self.feedback: f"{text}\n\n{explanation(shown)}", self.figure: self._evidence(shown),
            self.check: self.hide, self.options: self.ui.update(interactive=False),
            self.boxes: self.ui.update(interactive=False)}

    def revealed(self, one: Round) -> dict:
        """The model answer, and the visitor judges."""
        shown = self.game.shown(one)
        return {self.feedback: model_answer(shown), self.figure: self._evidence(shown), self.reveal: self.hide,
                self.row: self.show}

    def marked(self, worth: float, one: Round, stored) -> dict:
        return self._noted(one, worth, stored) | {self.row: self.hide}

    def onward(self, one: Round, stored) -> dict:
        one.at += 1
        return self.present(one, stored)

    def _noted(self, one: Round, worth: float, stored) -> dict:
        stored = self.game.note(one, worth, stored)
        return {self.after: self.show, self.one_round: one, self.kept: stored, self.score: self.game.score(one, stored)}

    def _evidence(self, shown: View):
        names = shown.question.evidence
        return self.ui.update(value=str(self.game.results.figure(names[0])), visible=True) if names else self.hide


def build(book: Book, results: Results, language: str = "nl"):
    """The page as gradio.Blocks."""
    return Page(Quiz(book, results), language).blocks


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
            "quiet": True, "show_error": True}, pages.rules(args, uploads=None))
        threading.Thread(target=pages.keep_clean, args=(folder, stop), daemon=True).start()
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
