# ruff: noqa: E501 (a sentence a line)
"""What the profiler's clips say, by class: simple, conversational, complex, technical. No digits: "two" is not "2"."""

SHORT = """
The window is open and the room is cold.
Please put the blue cup on the table.
My sister works in a small shop near the river.
The bus was late again this morning.
We had bread and soup for lunch.
The dog is asleep under the chair.
It rained all night, but the sun is out now.
Can you hold the door for me?
Her new bicycle is red and very fast.
The children are playing in the garden.
He reads a book every week.
There is some milk left in the fridge.
"""

MEDIUM = """
So I called the garage, and they said the car would be ready by the end of the week.
Did you hear that the bakery on the corner is closing after all those years?
I told her I would come along, but only if we can take the early train home.
Honestly, I have no idea where I left my keys, I must have looked everywhere.
Well, the doctor said it was nothing serious and that I should simply rest a little.
We could cook something together, or just order in and watch that film you mentioned.
Do you remember the neighbours who moved to the coast? They send their regards.
My brother keeps saying he will fix the roof, and every winter the bucket comes out again.
The meeting went better than I expected, although nobody had read the report beforehand.
If the weather stays like this, we might as well have the party outside.
She asked me whether I wanted the job, and I said I would think about it until Monday.
You should have seen his face when the cake finally arrived, an hour after the guests had left.
I usually walk to work, but when it is this windy I take the tram.
What I like about this place is that nobody minds how long you sit with one cup of coffee.
"""

LONG = """
The committee acknowledged that its earlier estimate had rested on assumptions which subsequent observations did not bear out.
Although the expedition returned without the manuscript, its careful description of the archive proved invaluable to later historians.
Economists disagree about whether the subsidy encouraged innovation or merely rewarded those who had already invested.
Beneath the cathedral, archaeologists uncovered a labyrinth of cisterns whose origin remains a matter of considerable speculation.
The novelist's correspondence reveals a temperament far more melancholy than her exuberant prose would suggest.
Migratory birds apparently combine celestial cues with the magnetic field in ways that physiologists have only begun to unravel.
A constitution endures, the philosopher argued, not because it is perfect but because it permits its own correction.
The orchestra rehearsed the symphony's notoriously treacherous final movement until every entrance had become instinctive.
Municipal authorities postponed the demolition, citing unforeseen irregularities in the environmental assessment.
Glaciologists attribute the accelerating retreat to warmer currents that erode the ice from underneath.
Her testimony, though hesitant at first, gradually acquired a precision that impressed even the most sceptical of the jurors.
The restoration of the fresco demanded patience, chemistry, and an almost archaeological respect for earlier mistakes.
Diplomats spoke of cautious optimism, a phrase which experienced correspondents translated as the absence of any agreement.
What distinguishes a living language from a dead one is not its vocabulary but the disputes of those who speak it.
Vaccination campaigns succeeded wherever physicians had earned the confidence of teachers, midwives, and village elders.
The astronomer spent a decade cataloguing faint, unremarkable stars, one of which turned out to possess a planetary system.
"""

TECHNICAL = """
The encoder turns the log mel spectrogram into a sequence of hidden states, one for every twenty milliseconds of audio.
Quantizing the weights to eight bit integers reduces memory bandwidth, while the accumulator stays in thirty two bits.
Cross attention projects the queries of the decoder onto the keys and values of the encoder.
A low pass filter before the analog to digital converter prevents aliasing above the Nyquist frequency.
Dynamic voltage and frequency scaling trades clock speed for energy on the graphics processor.
The scheduler allocates two accelerators per node and pins every process to its own memory domain.
Layer normalization precedes each residual block, which stabilizes the gradients of deep transformers.
The compiler fuses the matrix multiplication with the bias and the activation into a single kernel.
Beam search keeps the most probable hypotheses and ranks them by length normalized log probability.
Interrupt latency depends on the cache hierarchy, the kernel preemption model, and the bus arbitration.
"""

ENGLISH = {"short": SHORT, "medium": MEDIUM, "long": LONG, "technical": TECHNICAL}


def english(kind: str) -> list[str]:
    """The sentences of a class: short, medium, long or technical."""
    return ENGLISH[kind].strip().splitlines()
