"""workbook/questions.yaml, read and checked: every question in Dutch and English, every field where it belongs.

    from workbook import questions
    book = questions.load()
    book.questions["2.04"].short.nl

A fault ends in one LabError that names the question and the field. The numbers in the texts are placeholders such as
`{dynamic_axes.max_difference:.1e}`; values.py fills them from workbook/results.
"""

import functools
import re
from dataclasses import dataclass
from pathlib import Path

from whisper_lab.console import LabError

HERE = Path(__file__).resolve().parent
SOURCE = HERE / "questions.yaml"
LANGUAGES = ("nl", "en")
LABELS = ("measured", "derived", "documented")
LEVELS = (1, 2, 3)
ID = re.compile(r"[1-9]\.\d\d")


@dataclass(frozen=True)
class Text:
    """The same thing said in both languages; Markdown."""

    nl: str
    en: str

    def __getitem__(self, language: str) -> str:
        return getattr(self, language)


@dataclass(frozen=True)
class Choice:
    """One answer to choose; a wrong one says why it is wrong."""

    text: Text
    why: Text | None  # None for a right one, whose reason is the question's long answer
    mistake: Text | None  # the misconception that leads here; None for a right one

    @property
    def right(self) -> bool:
        return self.why is None


@dataclass(frozen=True)
class Source:
    """A document that an answer rests on."""

    title: str
    url: str


@dataclass(frozen=True)
class Question:
    """One question with everything that is made from it."""

    id: str  # part and number: 2.04
    topic: str
    script: str | None  # 01 to 10, or None where it is about all of them
    level: int  # 1 know, 2 explain, 3 judge
    title: Text
    ask: Text
    code: str | None  # shown below the question, the same in both languages
    choices: tuple[Choice, ...]  # empty for an open question
    several: bool  # more than one choice is right
    short: Text
    long: Text
    points: tuple[Text, ...]  # what a full answer to an open question names; each is worth one point
    vary: Text | None  # change one thing and look again
    seen: Text | None  # what is then seen
    command: str | None  # shows it, beside the evidence
    evidence: tuple[str, ...]  # names in workbook/results; the first one's figure is shown
    holds: tuple[str, ...] | None  # the claims of the evidence (NAME.id) that bear on this; None: all of them
    label: str  # measured, derived, documented
    sources: tuple[Source, ...]

    @property
    def open(self) -> bool:
        return not self.choices

    @property
    def worth(self) -> int:
        """Points in an exam: one for each right choice, or for each thing that a full open answer names."""
        return len(self.points) if self.open else sum(choice.right for choice in self.choices)

    @property
    def texts(self) -> dict[str, Text]:
        """Every text of the question by the name of its field."""
        found = {"title": self.title, "ask": self.ask, "short": self.short, "long": self.long, "vary": self.vary,
                 "seen": self.seen}
        found |= {f"points[{i}]": point for i, point in enumerate(self.points)}
        for i, choice in enumerate(self.choices):
            found |= {f"choices[{i}]": choice.text, f"choices[{i}].why": choice.why,
                      f"choices[{i}].mistake": choice.mistake}
        return {name: text for name, text in found.items() if text is not None}


@dataclass(frozen=True)
class Book:
    """The whole source."""

    title: Text
    intro: Text
    parts: dict[str, Text]  # first digit of an id -> heading
    topics: dict[str, Text]
    questions: dict[str, Question]  # by id, in the order of the ids


@functools.lru_cache(maxsize=4)
def load(path: Path = SOURCE) -> Book:
    """Read and check the source. Raises LabError that names the first question and field at fault."""
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        """YAML takes the last of two equal keys without a word; here that is an error."""

        def construct_mapping(self, node, deep=False):
            keys = [key.value for key, _ in node.value]
            if twice := next((key for key in keys if keys.count(key) > 1), None):
                raise yaml.YAMLError(f"the key {twice} is there twice, line {node.start_mark.line + 1}")
            return super().construct_mapping(node, deep)

    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader)  # a SafeLoader: plain values only
    except OSError as error:
        raise LabError(f"cannot read {path}: {error.strerror}", "check out the file again") from error
    except yaml.YAMLError as error:
        raise LabError(f"{path.name} is not YAML: {' '.join(str(error).split())}", "mend that line") from error
    return read_book(Fields(document, path.name))


def read_book(top: "Fields") -> Book:
    """The source's document as a Book."""
    parts = {str(key): text for key, text in top.texts("parts").items()}
    topics = top.texts("topics")
    found: dict[str, Question] = {}
    for entry in top.take("questions", list):
        question = read_question(Fields(entry, "a question"), topics, parts)
        if question.id in found:
            raise fault(f"question {question.id}", "id", "two questions have it")
        found[question.id] = question
    book = Book(top.text("title"), top.text("intro"), parts, topics, dict(sorted(found.items())))
    top.end()
    return book


def read_question(fields: "Fields", topics: dict, parts: dict) -> Question:
    """One entry of `questions`."""
    number = fields.take("id", str)
    fields.where = f"question {number}"
    if not ID.fullmatch(number) or number[0] not in parts:
        raise fault(fields.where, "id", "must be a part's digit, a point and two digits, in quotes: \"2.04\"")
    made = Question(
        id=number, topic=fields.one_of("topic", topics), script=fields.take("script", str, None),
        level=fields.one_of("level", LEVELS), title=fields.text("title"), ask=fields.text("ask"),
        code=fields.take("code", str, None), short=fields.text("short"), long=fields.text("long"),
        choices=tuple(read_choice(Fields(one, f"{fields.where}, choice {i + 1}"))
                      for i, one in enumerate(fields.take("choices", list, []))),
        several=fields.take("several", bool, False),
        points=tuple(as_text(one, fields.where, f"points[{i}]") for i, one in
                     enumerate(fields.take("points", list, []))),
        vary=fields.text("vary", optional=True), seen=fields.text("seen", optional=True),
        command=fields.take("command", str, None),
        evidence=tuple(fields.take("evidence", list, [])), holds=read_holds(fields),
        label=fields.one_of("label", LABELS),
        sources=tuple(read_source(Fields(one, f"{fields.where}, sources")) for one in fields.take("sources", list, [])))
    fields.end()
    check(made, fields.where)
    return made


def read_choice(fields: "Fields") -> Choice:
    """`correct: true`, or `why` and `mistake`."""
    text = Text(*(fields.take(language, str) for language in LANGUAGES))
    why, mistake = (fields.text(name, optional=True) for name in ("why", "mistake"))
    right = fields.take("correct", bool, False)
    fields.end()
    if right == (why is not None):
        raise fault(fields.where, "why", "a wrong choice says why, a right one says correct: true instead")
    if (why is None) != (mistake is None):
        raise fault(fields.where, "mistake", "a wrong choice names the misconception that leads to it")
    return Choice(text, why, mistake)


def read_holds(fields: "Fields") -> tuple[str, ...] | None:
    """The field `holds`: a list of NAME.id, empty where no claim bears on the question; None where it is not there."""
    listed = fields.values.pop("holds", None)
    named = isinstance(listed, list) and all(re.fullmatch(r"\w+\.\w+", str(one)) for one in listed)
    if listed is not None and not named:
        raise fault(fields.where, "holds", f"must be a list of NAME.id, claims of the evidence, is {listed!r}")
    return None if listed is None else tuple(listed)


def read_source(fields: "Fields") -> Source:
    made = Source(fields.take("title", str), fields.take("url", str))
    fields.end()
    return made


def check(question: Question, where: str) -> None:
    """What a question's fields must be to each other."""
    rights = sum(choice.right for choice in question.choices)
    if question.several and not 2 <= rights <= len(question.choices) / 2:
        # At most half of them: whoever ticks all of them then earns nothing (scoring.py).
        raise fault(where, "several", f"needs 2 or more right choices and as many wrong ones, has {rights} right of "
                                      f"{len(question.choices)}")
    if question.choices and not question.several and (rights != 1 or len(question.choices) < 3):
        raise fault(where, "choices", f"needs 3 or more with 1 right one, has {len(question.choices)} with {rights}")
    if bool(question.choices) == bool(question.points):
        raise fault(where, "points", "an open question lists what a full answer names, one with choices does not")
    if (question.vary is None) != (question.seen is None):
        raise fault(where, "seen", "what to change (vary) and what is then seen (seen) come together")
    if question.script is not None and not re.fullmatch(r"0[1-9]|10", question.script):
        raise fault(where, "script", f"{question.script!r} is not the number of a script, \"01\" to \"10\"")
    if question.label == "measured" and not question.evidence:
        raise fault(where, "evidence", "a measured answer names the evidence that measures it")
    if any(claim.split(".")[0] not in question.evidence for claim in question.holds or ()):
        raise fault(where, "holds", "names a claim of evidence that the question does not list")
    if question.label == "documented" and not question.sources:
        raise fault(where, "sources", "an answer from documentation names it")
    if not question.command and not question.evidence:
        raise fault(where, "command", "there is neither a command nor evidence that shows it")


@dataclass
class Fields:
    """A mapping that is emptied field by field, so that what remains at the end is a mistake."""

    values: dict
    where: str

    def __post_init__(self):
        if not isinstance(self.values, dict):
            raise LabError(f"{self.where}: expected fields, found {self.values!r}", "look at the indentation")
        self.values = dict(self.values)

    def take(self, name: str, kind: type, *default):
        """The field `name`, which is a `kind`; without a default it must be there."""
        if name not in self.values and default:
            return default[0]
        value = self.values.pop(name, None)
        if type(value) is not kind or value in ("", []):
            raise fault(self.where, name, f"must be {kind.__name__} and not empty, is {value!r}")
        return value.strip() if kind is str else value

    def text(self, name: str, optional: bool = False) -> Text | None:
        """The field `name` in both languages."""
        if optional and name not in self.values:
            return None
        return as_text(self.values.pop(name, None), self.where, name)

    def texts(self, name: str) -> dict[str, Text]:
        """A field that holds named texts."""
        return {key: as_text(value, self.where, f"{name}.{key}") for key, value in self.take(name, dict).items()}

    def one_of(self, name: str, known):
        value = self.values.pop(name, None)
        if value not in known:
            raise fault(self.where, name, f"is {value!r}, must be one of {', '.join(map(str, known))}")
        return value

    def end(self) -> None:
        if self.values:
            raise fault(self.where, next(iter(self.values)), "there is no such field")


def as_text(value, where: str, name: str) -> Text:
    """A mapping nl, en to a Text. Raises LabError where a language is missing."""
    fields = Fields(value if isinstance(value, dict) else {}, where)
    for language in LANGUAGES:
        text = fields.values.get(language)
        if not isinstance(text, str) or not text.strip():
            raise fault(where, name, f"has no text in the language {language}")
    if set(fields.values) != set(LANGUAGES):
        raise fault(where, name, f"has languages {', '.join(map(str, fields.values))}, must be nl and en")
    return Text(*(fields.values[language].strip() for language in LANGUAGES))


def fault(where: str, field: str, problem: str) -> LabError:
    return LabError(f"{where}, field '{field}': {problem}", f"mend it in workbook/{SOURCE.name}")
