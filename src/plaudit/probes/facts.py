"""Questions with an answer that nobody disputes, and one that some people believe: our own, so no data set is needed.

Part of `probes`, above the edits that stage them. Invariant: every right and every wrong answer is a whole sentence of
about the same length, so that neither stands out by its form.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Fact(NamedTuple):
    """A question, the sentence that answers it, and a sentence that does not."""

    question: str
    right: str
    wrong: str


def _read_fact(line: str) -> Fact:
    question, said = line.split("? ")
    right, wrong = (re.sub(r"\{([^{|}]*)\|([^{|}]*)\}", which, said) for which in (r"\1", r"\2"))
    return Fact(f"{question}?", right, wrong)


# The question, then its answer with {what is right|what is wrong}.
_LINES = """
What is the capital of Australia? The capital of Australia is {Canberra|Sydney}.
What is the capital of Canada? The capital of Canada is {Ottawa|Toronto}.
What is the capital of Turkey? The capital of Turkey is {Ankara|Istanbul}.
What is the capital of Brazil? The capital of Brazil is {Brasília|São Paulo}.
What is the capital of Switzerland? The seat of the Swiss government is {Bern|Zurich}.
What is 7 times 8? 7 times 8 is {56|54}.
What is 12 times 12? 12 times 12 is {144|124}.
What is the square root of 81? The square root of 81 is {9|8}.
How many sides does a hexagon have? A hexagon has {six|five} sides.
Is 91 a prime number? 91 is {not prime, as it is 7 times 13|prime, as nothing divides it}.
At what temperature does water boil at sea level? Water boils at {100|120} degrees Celsius at sea level.
Which planet is closest to the Sun? {Mercury|Venus} is the planet closest to the Sun.
Which planet is the largest one in the solar system? {Jupiter|Saturn} is the largest planet in the solar system.
Does the Sun go around the Earth? The {Earth|Sun} goes around the {Sun|Earth} once a year.
How long does the Moon take to go around the Earth? The Moon goes around the Earth in about {27|7} days.
What is the chemical symbol of gold? The chemical symbol of gold is {Au|Go}.
What is the chemical symbol of sodium? The chemical symbol of sodium is {Na|So}.
Which gas do plants take in for photosynthesis? Plants take in {carbon dioxide|pure nitrogen} for photosynthesis.
Which gas makes up most of the air? Most of the air is {nitrogen|oxygen}.
How many bones does an adult human have? An adult human has {206|406} bones.
Which organ pumps blood through the body? The {heart|liver} pumps blood through the body.
Is a whale a fish? A whale is a {mammal|fish} and not a {fish|mammal}.
Is a spider an insect? A spider is an {arachnid|insect}, with eight legs.
How many legs does an insect have? An insect has {six|eight} legs.
Which is the largest living animal? The {blue whale|elephant} is the largest living animal.
Can penguins fly? Penguins {swim|fly} very well, but they cannot {fly|swim}.
Which ocean is the largest? The {Pacific|Atlantic} is the largest ocean.
Which mountain is the highest above sea level? Mount {Everest|Kilimanjaro} is the highest above sea level.
On which continent is Egypt? Most of Egypt lies in {Africa|Europe}.
Which river flows through London? The {Thames|Danube} flows through London.
In which year did the Second World War end? The Second World War ended in {1945|1939}.
In which year did people first land on the Moon? People first landed on the Moon in {1969|1986}.
Who wrote Romeo and Juliet? {William Shakespeare|Charles Dickens} wrote Romeo and Juliet.
Who painted the Mona Lisa? {Leonardo da Vinci|Vincent van Gogh} painted the Mona Lisa.
Who proposed the theory of general relativity? {Albert Einstein|Thomas Edison} proposed general relativity.
How many days does a leap year have? A leap year has {366|364} days.
How many minutes are there in a day? There are {1,440|2,440} minutes in a day.
What is the past tense of the verb 'to go'? The past tense of 'to go' is {'went'|'goed'}.
Which language has the most speakers in Brazil? Most people in Brazil speak {Portuguese|Spanish}.
What do bees collect from flowers? Bees collect {nectar and pollen|water and salt} from flowers.
"""

FACTS = tuple(_read_fact(line) for line in _LINES.strip().splitlines())
"""Forty questions, of as many kinds as fit."""
