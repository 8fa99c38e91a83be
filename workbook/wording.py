"""The generator's and the quiz's own words in both languages."""

WORDS = {
    "nl": {
        "made": "Gemaakt door `python -m workbook.generate` uit questions.yaml en results/; niet met de hand wijzigen.",
        "contents": "Inhoud", "question": "vraag", "level": "niveau", "topic": "onderwerp", "kind": "soort",
        "levels": ("", "kennen", "uitleggen", "beoordelen"), "open": "open", "choice": "meerkeuze",
        "unfold": "Antwoord", "short": "Kort", "wrong": "Waarom niet", "try": "Ga het zelf na",
        "vary": "Verander iets", "seen": "Wat je dan ziet", "mistake": "Denkfout",
        "measure": "Meet het opnieuw", "origin": "Waar de getallen vandaan komen",
        "holds": "Dit moet overal gelden", "sources": "Bronnen", "script": "script",
        "labels": {"measured": "gemeten", "derived": "afgeleid", "documented": "uit documentatie"},
        "measured_on": "Gemeten op {machine}.", "files": "uit {files}", "from_documents": "uit de bronnen hieronder",
        "computed": "volgt uit een berekening; het commando toont die", "points": "Eén punt per onderdeel",
        "key": "Correctiesleutel", "answer": "antwoord", "not_for": "Voor lesgevers: niet uitdelen.",
        "points_column": "punten", "everywhere": "overal gelijk",
        "name": "Naam", "date": "Datum", "page": "bladzijde", "figure": "figuur bij",
        "fair": "Waarden: {stable} overal gelijk; {varies} per machine verschillend: beoordeel richting en orde van "
                "grootte.",
    },
    "en": {
        "made": "Made by `python -m workbook.generate` from questions.yaml and results/; not to be edited by hand.",
        "contents": "Contents", "question": "question", "level": "level", "topic": "topic", "kind": "kind",
        "levels": ("", "know", "explain", "judge"), "open": "open", "choice": "multiple choice",
        "unfold": "Answer", "short": "In short", "wrong": "Why not", "try": "Show it yourself",
        "vary": "Change something", "seen": "What you see then", "mistake": "Misconception",
        "measure": "Measure it again", "origin": "Where the numbers come from",
        "holds": "Must hold everywhere", "sources": "Sources", "script": "script",
        "labels": {"measured": "measured", "derived": "derived", "documented": "from documentation"},
        "measured_on": "Measured on {machine}.", "files": "from {files}", "from_documents": "from the sources below",
        "computed": "follows from arithmetic; the command shows it", "points": "One point for each",
        "key": "Answer key", "answer": "answer", "not_for": "For instructors: do not hand out.",
        "points_column": "points", "everywhere": "the same everywhere",
        "name": "Name", "date": "Date", "page": "page", "figure": "figure of",
        "fair": "Values: {stable} the same everywhere; {varies} differing per machine: judge direction and order of "
                "magnitude.",
    },
}
