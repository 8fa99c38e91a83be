"""The workbook in Markdown, answers folded away, and the answer key for instructors."""

from workbook.questions import Book
from workbook.values import Results
from workbook.view import View
from workbook.wording import WORDS

# For instructors: way of transcribing -> evidence and key of its peak memory, MB.
MEMORY = {"PyTorch (02)": ("runtimes", "torch_rss_mb"), "the fp32 graphs": ("quantization_edge", "rss_fp32_mb"),
          "the int8 graphs": ("quantization_edge", "rss_int8_mb")}


def workbook(book: Book, views: list[View], results: Results) -> str:
    """nl.md or en.md."""
    language = views[0].language
    words = WORDS[language]
    lines = [f"<!-- {words['made']} -->", f"# {book.title[language]}", book.intro[language], contents(book, views)]
    part = None
    for view in views:
        if view.question.id[0] != part:
            part = view.question.id[0]
            lines.append(f"## {book.parts[part][language]}")
        lines.append(entry(book, view, results))
    return "\n\n".join(lines) + "\n"


def contents(book: Book, views: list[View]) -> str:
    """A table with a row for each question."""
    words = WORDS[views[0].language]
    rows = [f"| {words['question']} | | {words['topic']} | {words['level']} | {words['kind']} |",
            "|---|---|---|---|---|"]
    for view in views:
        question = view.question
        rows.append(f"| [{question.id}](#{anchor(view)}) | {view.title} | {book.topics[question.topic][view.language]} "
                    f"| {words['levels'][question.level]} | {words['open' if question.open else 'choice']} |")
    return f"## {words['contents']}\n\n" + "\n".join(rows)


def anchor(view: View) -> str:
    """Where the table of contents leads; an explicit anchor, since every site makes its own from headings."""
    return f"q{view.question.id.replace('.', '-')}"


def asked(view: View, bullet: str) -> list[str]:
    """What a question shows below its text: code, a word where several choices are right, the choices."""
    question, shown = view.question, []
    if question.code:
        shown.append(f"```python\n{question.code.rstrip()}\n```")
    if question.several:
        shown.append(f"*{WORDS[view.language]['several']}*")
    if view.options:
        shown.append("\n".join(f"{bullet} **{option.letter}** {option.text}" for option in view.options))
    return shown


def entry(book: Book, view: View, results: Results) -> str:
    """One question: asked openly, answered behind a fold."""
    words, question = WORDS[view.language], view.question
    facts = [book.topics[question.topic][view.language], words["levels"][question.level],
             words["labels"][question.label]]
    if question.script:
        facts.insert(0, f"{words['script']} {question.script}")
    lines = [f'<a id="{anchor(view)}"></a>\n\n### {question.id} {view.title}', f"*{' · '.join(facts)}*", view.ask]
    lines += asked(view, "-")
    if command := question.command:
        lines.append(f"**{words['try']}**\n\n```bash\n{command}\n```")
    lines += [f"<details>\n<summary>{words['unfold']}</summary>", answer(view), origin(view, results), "</details>"]
    return "\n\n".join(lines)


def answer(view: View) -> str:
    """Short, long, the wrong choices, the points, a variation and what it shows."""
    words = WORDS[view.language]
    letter = f"{view.answer}. " if view.answer else ""
    lines = [f"**{words['short']}.** {letter}{view.short}", view.long]
    if view.options:
        wrong = [f"- **{option.letter}** {option.why}" for option in view.options if not option.right]
        lines.append(f"**{words['wrong']}**\n\n" + "\n".join(wrong))
    if view.points:
        lines.append(f"**{words['points']}**\n\n" + "\n".join(f"- {point}" for point in view.points))
    if view.vary:
        lines.append(f"**{words['vary']}.** {view.vary}\n\n**{words['seen']}.** {view.seen}")
    return "\n\n".join(lines)


def origin(view: View, results: Results) -> str:
    """The figure, what must hold on every machine, and where the numbers come from."""
    words, question, lines = WORDS[view.language], view.question, []
    if question.evidence:
        figure = results.figure(question.evidence[0])
        lines.append(f"![{words['figure']} {question.id}](results/{figure.name})")
    if found := claims(view, results):
        lines.append(f"**{words['holds']}**\n\n" + "\n".join(f"- {claim}" for claim in found))
    if view.evidence:
        where = ", ".join(f"[{name}.json](results/{name}.json)" for name in view.evidence)
    elif question.label == "documented":
        where = words["from_documents"]
    else:
        where = words["computed"]
    lines.append(f"**{words['origin']}**: {words['origins'][question.label]} ({where}).")
    if view.evidence:
        commands = "\n".join(f"python -m workbook.evidence.{name}" for name in view.evidence)
        lines.append(f"**{words['measure']}**\n\n```bash\n{commands}\n```")
        machines = results.machines(view.evidence, view.language)
        lines += [f"*{words['measured_on'].format(machine=name)}*" for name in machines]
    if question.sources:
        lines.append(f"**{words['sources']}**: " + "; ".join(f"[{one.title}]({one.url})" for one in question.sources))
    return "\n\n".join(lines)


def claims(view: View, results: Results) -> list[str]:
    """What the question's own evidence claims for every reasonable machine, as far as it bears on the question."""
    wanted = view.question.holds
    return [claim[f"text_{view.language}"] for name in view.question.evidence
            for claim in results.document(name)["claims"] if wanted is None or f"{name}.{claim['id']}" in wanted]


def key(book: Book, views: list[View], results: Results) -> str:
    """The answer key: letters at a glance, then what to grade every answer by."""
    language = views[0].language
    words = WORDS[language]
    rows = [f"| {words['question']} | {words['answer']} | {words['points_column']} |", "|---|---|---|"]
    rows += [f"| {view.question.id} | {view.answer or words['open']} | {view.question.worth} |" for view in views]
    lines = [f"<!-- {words['made']} -->", f"# {words['key']}: {book.title[language]}", words["not_for"],
             "\n".join(rows)]
    for view in views:
        letter = f"**{view.answer}.** " if view.answer else ""
        lines.append(f"### {view.question.id} {view.title}\n\n{letter}{view.short}")
        if view.points:
            lines.append("\n".join(f"- ☐ {point}" for point in view.points))
        if found := claims(view, results):
            lines.append(f"{words['holds']}:\n\n" + "\n".join(f"- {claim}" for claim in found))
        if view.question.evidence:
            lines.append(fairness(view, results))
    used = list(dict.fromkeys(name for view in views for name in view.evidence))
    lines += [words["measured_on"].format(machine=one) for one in results.machines(used, language)]
    return "\n\n".join(lines) + "\n"


def fairness(view: View, results: Results) -> str:
    """How many of the values are the same on every machine, and which ones: those may be asked to the digit."""
    words, stable, varies = WORDS[view.language], [], 0
    for name in view.question.evidence:
        document = results.document(name)
        stable += [f"`{name}.{key}`" for key in document["stable"]]
        varies += len(set(document["values"]) - set(document["stable"]))
    listed = f" ({words['everywhere']}: {', '.join(stable)})" if stable else ""
    return words["fair"].format(stable=len(stable), varies=varies) + listed


def memory(results: Results, students: int = 20) -> str:
    """For instructors: what one student takes and what a class does, by way of running the model."""
    rows = [f"| way of transcribing | MB a student | MB for {students} |", "|---|---|---|"]
    for way, (name, key) in MEMORY.items():
        size = results.value(name, key, "instructors.md")
        rows.append(f"| {way} | {size:.0f} | {students * size:.0f} |")
    names = list(dict.fromkeys(name for name, _ in MEMORY.values()))
    line = WORDS["en"]["measured_on"]
    return "\n".join([*rows, "", *(line.format(machine=one) for one in results.machines(names, "en"))])
