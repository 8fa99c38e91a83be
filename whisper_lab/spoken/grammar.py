"""The small language that whisper-nano knows: every sentence in English and in Dutch.
"""

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass

from whisper_lab import console, flags

# Words and templates --------------------------------------------------------------------------------------------------

# What the grammar is made of: names, words for its slots, and sentences with slots; English = Dutch.

NAMES = (
    "alexander anna ben charlotte daniel david elena emma eva felix fatima george hannah hugo ines jack james jan "
    "julia karim laura leo lisa louis lucas maria martin max maya mia mohamed nathan nina noah nora oliver olivia "
    "omar oscar paul peter rosa sam sarah simon sofia sophie thomas tom victor william yara zoe"
).split()

Pair = tuple[str, str]  # English, Dutch


def _pairs(text: str) -> list[Pair]:
    """Lines of `english = dutch`."""
    return [tuple(side.strip() for side in line.split("=")) for line in text.strip().splitlines()]


SLOTS: dict[str, list[Pair]] = {
    "device": _pairs("""
        the light = het licht
        the lights = de lampen
        the lamp = de lamp
        the radio = de radio
        the television = de televisie
        the heating = de verwarming
        the fan = de ventilator
        the coffee machine = het koffiezetapparaat
        the washing machine = de wasmachine
        the alarm = het alarm
        the music = de muziek
        the computer = de computer"""),
    "room": _pairs("""
        the kitchen = de keuken
        the bedroom = de slaapkamer
        the living room = de woonkamer
        the bathroom = de badkamer
        the garage = de garage
        the garden = de tuin
        the office = het kantoor
        the hall = de gang
        the basement = de kelder
        the classroom = de klas"""),
    "opening": _pairs("""
        the door = de deur
        the window = het raam
        the curtains = de gordijnen
        the blinds = de rolluiken
        the gate = de poort
        the front door = de voordeur"""),
    "item": _pairs("""
        milk = melk
        bread = brood
        butter = boter
        eggs = eieren
        apples = appels
        coffee = koffie
        cheese = kaas
        sugar = suiker
        tomatoes = tomaten
        chocolate = chocolade
        water = water
        soap = zeep"""),
    "task": _pairs("""
        call the doctor = de dokter te bellen
        feed the cat = de kat eten te geven
        walk the dog = met de hond te wandelen
        water the plants = de planten water te geven
        take out the trash = het vuilnis buiten te zetten
        pay the rent = de huur te betalen
        buy some flowers = bloemen te kopen
        charge the phone = de telefoon op te laden"""),
    "day": _pairs("""
        today = vandaag
        tomorrow = morgen
        tonight = vanavond
        on monday = op maandag
        on tuesday = op dinsdag
        on wednesday = op woensdag
        on thursday = op donderdag
        on friday = op vrijdag
        on saturday = op zaterdag
        on sunday = op zondag"""),
    "city": _pairs("""
        brussels = brussel
        ghent = gent
        bruges = brugge
        antwerp = antwerpen
        kortrijk = kortrijk
        leuven = leuven
        london = londen
        paris = parijs
        amsterdam = amsterdam
        berlin = berlijn"""),
    "job": _pairs("""
        teacher = leraar
        student = student
        nurse = verpleegkundige
        engineer = ingenieur
        doctor = dokter
        baker = bakker
        driver = chauffeur
        farmer = boer
        lawyer = advocaat
        writer = schrijver"""),
    "place": _pairs("""
        the university = de universiteit
        the hospital = het ziekenhuis
        the library = de bibliotheek
        the station = het station
        the bakery = de bakkerij
        vives university of applied sciences = hogeschool vives"""),
    "genre": _pairs("""
        jazz = jazz
        classical = klassieke
        rock = rock
        dance = dans
        quiet = rustige"""),
    "colour": _pairs("""
        red = rood
        green = groen
        blue = blauw
        yellow = geel
        white = wit
        orange = oranje
        purple = paars"""),
    "unit": _pairs("""
        seconds = seconden
        minutes = minuten
        hours = uur"""),
}

TEMPLATES: dict[str, list[Pair]] = {
    "command": _pairs("""
        turn on {device} = zet {device} aan
        turn off {device} = zet {device} uit
        turn on {device} in {room} = zet {device} in {room} aan
        turn off {device} in {room} = zet {device} in {room} uit
        please turn off {device} = zet {device} uit alsjeblieft
        switch {device} on = doe {device} aan
        switch {device} off {day} = doe {device} {day} uit
        open {opening} = open {opening}
        close {opening} = sluit {opening}
        open {opening} in {room} = open {opening} in {room}
        close {opening} of {room} please = sluit {opening} van {room} alsjeblieft
        lock {opening} = doe {opening} op slot
        make the lights {colour} = maak de lampen {colour}
        set the temperature to {two} degrees = zet de temperatuur op {two} graden
        set the temperature in {room} to {two} degrees = zet de temperatuur in {room} op {two} graden
        set the volume to {two} percent = zet het volume op {two} procent
        turn the volume up = zet het volume hoger
        turn the volume down = zet het volume lager
        set a timer for {two} {unit} = zet een timer voor {two} {unit}
        stop the timer = stop de timer
        play some {genre} music = speel wat {genre} muziek
        play {genre} music in {room} = speel {genre} muziek in {room}
        pause the music = pauzeer de muziek
        play the next song = speel het volgende nummer
        add {item} to the shopping list = zet {item} op het boodschappenlijstje
        add {item} and {item2} to the list = zet {item} en {item2} op het lijstje
        buy {two} {item} = koop {two} {item}
        call {name} = bel {name}
        call {name} {day} = bel {name} {day}
        send a message to {name} = stuur een bericht naar {name}
        remind me to {task} = herinner me eraan {task}
        remind me to {task} {day} = herinner me eraan {task} {day}
        is {opening} open = staat {opening} open
        who is in {room} = wie is er in {room}
        where is {name} = waar is {name}
        what is the weather in {city} = wat voor weer is het in {city}
        what is the weather like {day} = wat voor weer is het {day}
        is it going to rain {day} = gaat het {day} regenen
        how far is {city} = hoe ver is {city}
        tell me a story = vertel me een verhaal
        tell me the news = vertel me het nieuws"""),
    "time": _pairs("""
        what time is it = hoe laat is het
        it is {hour} o'clock = het is {hour} uur
        it is half past {hour} = het is half {next}
        it is a quarter past {hour} = het is kwart over {hour}
        it is a quarter to {hour} = het is kwart voor {hour}
        it is {minute} past {hour} = het is {minute} over {hour}
        wake me up at {hour} {minute} = maak me wakker om {hour} uur {minute}
        wake me up at {hour} o'clock {day} = maak me {day} wakker om {hour} uur
        set the alarm for {hour} {minute} = zet de wekker om {hour} uur {minute}
        the train to {city} leaves at {hour} {minute} = de trein naar {city} vertrekt om {hour} uur {minute}
        the meeting is {day} at {hour} o'clock = de vergadering is {day} om {hour} uur
        the lesson starts at {hour} {minute} = de les begint om {hour} uur {minute}"""),
    "greeting": _pairs("""
        hello = hallo
        good morning = goedemorgen
        good evening = goedenavond
        good night = goedenacht
        goodbye = tot ziens
        thank you very much = dank je wel
        yes please = ja graag
        no thank you = nee bedankt
        hello my name is {name} = hallo mijn naam is {name}
        hi i am {name} = hoi ik ben {name}
        good morning {name} = goedemorgen {name}
        good evening {name} how are you = goedenavond {name} hoe gaat het
        how are you {name} = hoe gaat het {name}
        i am fine thank you = met mij gaat het goed dank je
        nice to meet you {name} = aangenaam kennis te maken {name}
        this is my friend {name} = dit is mijn vriend {name}
        my name is {name} and i am a {job} = mijn naam is {name} en ik ben {job}
        hello my name is {name} and i'm a {job} at {place} = hallo mijn naam is {name} en ik ben {job} aan {place}
        i am a {job} at {place} = ik ben {job} aan {place}
        i live in {city} = ik woon in {city}
        i live in {city} and i work at {place} = ik woon in {city} en ik werk aan {place}
        {name} lives in {city} = {name} woont in {city}
        see you {day} {name} = tot {day} {name}
        thank you {name} = dank je {name}
        welcome to {city} {name} = welkom in {city} {name}
        {name} and {name2} are at {place} = {name} en {name2} zijn aan {place}"""),
    "filler": _pairs("""
        i am ready = ik ben klaar
        one moment please = een ogenblik alstublieft
        that is a good idea = dat is een goed idee
        i do not know = ik weet het niet
        can you say that again = kan je dat herhalen
        this is a test = dit is een test
        let us begin = laten we beginnen
        the coffee is very good = de koffie is heel lekker
        we need {item} and {item2} = we hebben {item} en {item2} nodig
        i like {colour} and {colour2} = ik hou van {colour} en {colour2}
        my favourite colour is {colour} = mijn lievelingskleur is {colour}
        the answer is {any} = het antwoord is {any}
        i have {two} books and {two2} pens = ik heb {two} boeken en {two2} pennen
        page {any} = bladzijde {any}
        room {any} is free {day} = kamer {any} is {day} vrij"""),
}


# Numbers --------------------------------------------------------------------------------------------------------------

# Numbers from 0 to 9999 in English and Dutch words.

ENGLISH_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
ENGLISH_TENS = "- - twenty thirty forty fifty sixty seventy eighty ninety".split()
DUTCH_UNITS = (
    "nul een twee drie vier vijf zes zeven acht negen tien elf twaalf dertien veertien vijftien zestien "
    "zeventien achttien negentien"
).split()
DUTCH_TENS = "- - twintig dertig veertig vijftig zestig zeventig tachtig negentig".split()


def english_number(n: int, conjunction: bool = False) -> str:
    """`n` in English words without hyphens; `conjunction` puts the British "and" after the hundreds."""
    if n < 20:
        return ENGLISH_UNITS[n]
    if n < 100:
        tens, rest = ENGLISH_TENS[n // 10], n % 10
        return tens if not rest else f"{tens} {ENGLISH_UNITS[rest]}"
    size, name = (1000, "thousand") if n >= 1000 else (100, "hundred")
    head, rest = f"{english_number(n // size)} {name}", n % size
    if not rest:
        return head
    joint = " and " if conjunction and rest < 100 else " "
    return head + joint + english_number(rest, conjunction)


def dutch_number(n: int) -> str:
    """`n` in Dutch words as the Taalunie writes them: one word up to thousand, a space after it."""
    if n < 20:
        return DUTCH_UNITS[n]
    if n < 100:
        unit = DUTCH_UNITS[n % 10]
        joint = "ën" if unit in ("twee", "drie") else "en"  # the diaeresis keeps the vowels apart
        return DUTCH_TENS[n // 10] if n % 10 == 0 else unit + joint + DUTCH_TENS[n // 10]
    if n < 1000:
        head = ("" if n < 200 else DUTCH_UNITS[n // 100]) + "honderd"
        return head + (dutch_number(n % 100) if n % 100 else "")
    head = ("" if n < 2000 else DUTCH_UNITS[n // 1000]) + "duizend"
    return head + (" " + dutch_number(n % 1000) if n % 1000 else "")


# Sentences ------------------------------------------------------------------------------------------------------------

# How often each kind of sentence is drawn.
WEIGHTS = {"digits": 26, "number": 16, "command": 28, "time": 10, "greeting": 14, "filler": 6}


@dataclass(frozen=True)
class Sentence:
    """What a voice says, in which language, and what it means in English."""

    kind: str
    language: str
    text: str
    translation: str

    @property
    def held_out(self) -> bool:
        """One sentence in twenty, by its words, is kept from training (the same ones for ever)."""
        return len(self.text.split()) > 2 and hashlib.sha256(self.text.encode()).digest()[0] % 20 == 0


def sentence(draw: random.Random, language: str = "en") -> Sentence:
    """One random sentence of the grammar in `language` ("en" or "nl")."""
    kind = draw.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    if kind == "digits":
        pair = digits(draw, draw.randint(1, 8))
    elif kind == "number":
        pair = number(draw, draw.choice((99, 999, 9999)))
    else:
        pair = _fill(draw, draw.choice(TEMPLATES[kind]))
    english, dutch = pair
    return Sentence(kind, language, english if language == "en" else dutch, english)


def digits(draw: random.Random, count: int) -> Pair:
    """A string of `count` random digits, spoken one by one."""
    values = [draw.randrange(10) for _ in range(count)]
    return " ".join(map(english_number, values)), " ".join(map(dutch_number, values))


def number(draw: random.Random, largest: int) -> Pair:
    """A number up to `largest`; English with or without "and"."""
    n = draw.randint(0, largest)
    return english_number(n, conjunction=draw.random() < 0.4), dutch_number(n)


def _fill(draw: random.Random, template: Pair) -> Pair:
    values: dict[str, Pair] = {slot: draw.choice(pairs) for slot, pairs in SLOTS.items()}
    values["item2"], values["colour2"] = draw.choice(SLOTS["item"]), draw.choice(SLOTS["colour"])
    for slot in ("name", "name2"):
        values[slot] = (draw.choice(NAMES),) * 2
    numeric: dict[str, Callable[[], Pair]] = {
        "two": lambda: number(draw, 99), "two2": lambda: number(draw, 20), "any": lambda: number(draw, 999),
    }
    values |= {slot: make() for slot, make in numeric.items()}
    hour, minute = draw.randint(1, 12), draw.choice((5, 10, 15, 20, 25, 30, 40, 45, 50, 55))
    values["hour"] = english_number(hour), dutch_number(hour)
    values["minute"] = english_number(minute), dutch_number(minute)
    values["next"] = ("", dutch_number(hour % 12 + 1))  # "half past six" is "half zeven" in Dutch
    english, dutch = (
        side.format(**{slot: pair[i] for slot, pair in values.items()}) for i, side in enumerate(template)
    )
    return english, dutch


def main(argv: list[str] | None = None) -> int:
    parser = flags.parser(__doc__, "seed", "quiet", "log_level")
    parser.add_argument("--count", type=flags.whole(1), default=10, metavar="N",
                        help="how many sentences (default: %(default)s)")
    parser.add_argument("--language", choices=["en", "nl"], default="en", help="default: %(default)s")
    args = flags.parse(parser, argv)
    draw = random.Random(args.seed)
    for _ in range(args.count):
        made = sentence(draw, args.language)
        console.result(made.text if args.language == "en" else f"{made.text}  =  {made.translation}")
    return 0


if __name__ == "__main__":
    console.run(main)
