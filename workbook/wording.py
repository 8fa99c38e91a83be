"""The generator's and the quiz's own words in both languages."""

WORDS = {
    "nl": {
        "made": "Gemaakt door `python -m workbook.generate` uit questions.yaml en results/; niet met de hand wijzigen.",
        "contents": "Inhoud", "question": "vraag", "level": "niveau", "topic": "onderwerp", "kind": "soort",
        "levels": ("", "kennen", "uitleggen", "beoordelen"), "open": "open", "choice": "meerkeuze",
        "several": "Meer dan één antwoord is juist. Elk juist antwoord dat je aankruist, levert +1 punt op, elk fout "
                   "antwoord −1, met 0 als minimum.",
        "unfold": "Antwoord", "short": "Kort", "wrong": "Waarom niet", "try": "Ga het zelf na",
        "vary": "Verander iets", "seen": "Wat je dan ziet", "mistake": "Denkfout",
        "measure": "Meet het opnieuw", "origin": "Waar de getallen vandaan komen",
        "holds": "Dit moet overal gelden", "sources": "Bronnen", "script": "script",
        "labels": {"measured": "gemeten", "derived": "afgeleid", "documented": "uit documentatie"},
        "measured_on": "Gemeten op {machine}.",
        "origins": {"measured": "metingen", "derived": "een berekening", "documented": "documentatie"},
        "from_documents": "de bronnen hieronder", "computed": "het commando toont ze",
        "points": "Eén punt per onderdeel",
        "key": "Correctiesleutel", "answer": "antwoord", "not_for": "Voor lesgevers: niet uitdelen.",
        "lab": "Whisper ONNX Lab", "exam": "Examen", "exam_key": "Correctiesleutel bij het examen",
        "drawn": "reeks {seed}",
        "exam_facts": "{questions} vragen, {points} punten", "point": "punt", "point_many": "punten",
        "exam_rules": "Kruis bij een meerkeuzevraag één antwoord aan. Staat erbij dat er meer dan één juist is, dan "
                      "levert elk juist kruisje +1 punt op en elk fout kruisje −1, met 0 als minimum. Bij een open "
                      "vraag telt de uitleg: noem wat je weet, en zeg waarom.",
        "again": "Dezelfde vragen in dezelfde volgorde: `{command}`",
        "rubric": "Punten", "rubric_choice": "{letters}: 1 punt; al de rest 0.",
        "rubric_several": "{letters}: elk +1; elk ander kruisje −1; minimum 0.",
        "rubric_open": "Per onderdeel: 1 punt als het juist is en uitgelegd, ½ als het alleen genoemd is, 0 als het "
                       "ontbreekt of tegengesproken wordt.",
        "explained": "Uitleg", "points_column": "punten", "everywhere": "overal gelijk",
        "name": "Naam", "date": "Datum", "page": "bladzijde", "figure": "figuur bij",
        "fair": "Waarden: {stable} zijn overal gelijk, {varies} verschillen per machine: beoordeel daarvan de richting "
                "en de orde van grootte.",
    },
    "en": {
        "made": "Made by `python -m workbook.generate` from questions.yaml and results/; not to be edited by hand.",
        "contents": "Contents", "question": "question", "level": "level", "topic": "topic", "kind": "kind",
        "levels": ("", "know", "explain", "judge"), "open": "open", "choice": "multiple choice",
        "several": "More than one answer is right. Each right one that you tick earns +1 point, each wrong one −1, "
                   "with 0 as the minimum.",
        "unfold": "Answer", "short": "In short", "wrong": "Why not", "try": "Show it yourself",
        "vary": "Change something", "seen": "What you see then", "mistake": "Misconception",
        "measure": "Measure it again", "origin": "Where the numbers come from",
        "holds": "Must hold everywhere", "sources": "Sources", "script": "script",
        "labels": {"measured": "measured", "derived": "derived", "documented": "from documentation"},
        "measured_on": "Measured on {machine}.",
        "origins": {"measured": "measurements", "derived": "arithmetic", "documented": "documentation"},
        "from_documents": "the sources below", "computed": "the command shows it",
        "points": "One point for each",
        "key": "Answer key", "answer": "answer", "not_for": "For instructors: do not hand out.",
        "lab": "Whisper ONNX Lab", "exam": "Exam", "exam_key": "Answer key of the exam", "drawn": "series {seed}",
        "exam_facts": "{questions} questions, {points} points", "point": "point", "point_many": "points",
        "exam_rules": "In a multiple-choice question tick one answer. Where it says that more than one is right, each "
                      "right tick earns +1 point and each wrong one −1, with 0 as the minimum. In an open question the "
                      "explanation counts: name what you know, and say why.",
        "again": "The same questions in the same order: `{command}`",
        "rubric": "Points", "rubric_choice": "{letters}: 1 point; anything else 0.",
        "rubric_several": "{letters}: +1 each; −1 for any other tick; minimum 0.",
        "rubric_open": "For each part: 1 point where it is right and explained, ½ where it is only named, 0 where it "
                       "is missing or contradicted.",
        "explained": "Explanation", "points_column": "points", "everywhere": "the same everywhere",
        "name": "Name", "date": "Date", "page": "page", "figure": "figure of",
        "fair": "Values: {stable} are the same everywhere, {varies} differ per machine: of those, judge the direction "
                "and the order of magnitude.",
    },
}
