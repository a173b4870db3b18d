"""Write the two files of instructions of the laptop preset: examples, and held-out tasks.

An instruction is "Write about TOPIC." with two constraints that a program checks. Run
``python -m benchmarks.instructions``. No topic and no instruction is in both files; a third of the
tasks has a kind of constraint that no example has.
"""

import json
import random
import re
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path

from lsp_lightning.checks.constraints import parse_constraints

FOLDER = Path(__file__).parent.parent / "lsp_lightning/data"
EXAMPLES, TASKS = "instruction_examples.jsonl", "instruction_tasks.jsonl"

EXAMPLE_TOPICS = """
a river; the moon; a small village; winter; a bakery; learning to swim; an old bridge; the ocean;
a cat; bread; a train journey; the first day of school; honey bees; a library; a storm; tea;
friendship; a mountain; a birthday party; the desert; a bicycle; autumn leaves; a lighthouse; music;
a farmer; rain; a football match; an island; sleep; a clock; a garden; a doctor; snow; a market;
dreams; a dog; the night sky; a castle; cooking soup; a forest; an apple tree; a letter; robots;
the city at night; a fisherman; a holiday; painting; a volcano
"""

TASK_TOPICS = """
a tiger; the sun; a kitchen; a violin; a grandmother; coffee; a bus stop; the North Pole; a whale;
chess; a museum; a waterfall; a pilot; potatoes; a hospital; a spider; spring; a wedding; a camera;
an elephant; the desert at noon; a carpenter; glass; a school trip; a rainbow; an owl; cheese;
a football coach; the planet Mars; a tailor; a hotel; patience; a piano; an orchard; a thunderstorm;
a taxi driver; a mirror; rice; a canal; a poet; a beach; an airport; a fox; a treasure map;
a snowman; a newspaper; chocolate; a harbour; an engineer; a butterfly; a campfire; a sandwich;
a theatre; a wolf; an umbrella; a dentist; a kite; salt; a sailor; the wind; a puppet; a farm;
a neighbour; a tunnel; a suitcase; a nurse; a frog; a festival; a compass; oranges; a cave;
a bookshop; a horse; a balloon; a judge; an astronaut; a river boat; a picnic; a skyscraper;
an ant hill; a gardener; a lemon tree; a zoo; a barber; a parrot; a cloud; a playground; a monk;
a lake; an old photograph; a tractor; a lion; an ice rink; a teacher; a mushroom; a circus; a key;
a ship wreck; a rabbit; the equator; a firefighter; a pond; a quilt; a hedgehog; an aquarium;
a radio; a blacksmith; a pumpkin; a squirrel; a subway; an opera; a goat; a greenhouse;
a dictionary; a dolphin; a windmill; a watchmaker; a candle; a deer; a desert fox; a ferry;
gravity; a bell; a penguin; a hammer; a pilgrim; a storyteller; a turtle; an igloo; a valley;
a dragon; a map;
a chef; a swan; a glacier; a ladder; a jungle; a postman; a scarecrow; a telescope; a vineyard;
a boxer; a shadow; a comet; a crow; a detective; a donkey; a drum; a fountain; a ghost; a guitar;
a king; a laboratory; a lamp; a maze; a meadow; a miner; a mosque; a mouse; an eclipse; a nest;
an oak tree; a painter; a palace; a peacock; a pirate; a prison; a queen; a raft; a recipe;
a sculptor; a seed; a shepherd; a shoemaker; a soldier; a statue; a stranger; a street market;
a sunflower; a temple; a tent; a thief; a tower; a toy; a violinist; a wall; a water mill;
a whisper; a wizard; a wooden box; a young inventor; the alphabet; the Arctic; the colour blue;
the last day of summer; the number seven; the smell of bread; time; a bee keeper; a hummingbird
"""

#: Ways to ask for each kind of constraint, those of the examples first.
SEEN = {
    "words": (
        "at least {length} words",
        "between {length} and {more} words",
        "at least {length} words",
        "at most {short} words",
    ),
    "sentences": ("exactly {few} sentences", "at least {few} sentences"),
    "bullet points": ("exactly {few} bullet points", "at least {few} bullet points"),
    "numbered items": ("exactly {few} numbered items", "at least {few} numbered items"),
    "word": ('include the word "{word}"', 'do not include the word "{word}"'),
    "start": ('start with "{start}"',),
    "end": ('end with "{end}"',),
    "lower case": ("all lower case",),
    "quoted": ("wrapped in double quotes",),
    "questions": ("at least {one} question marks", "exactly {one} question marks"),
    "exclamation marks": ("no exclamation marks", "at least {one} exclamation marks"),
    "commas": ("no commas", "at least {few} commas"),
    "title": ("a title in <<double angle brackets>>",),
}
UNSEEN = {
    "paragraphs": ("exactly {few} paragraphs",),
    "lines": ("exactly {few} lines", "at least {few} lines"),
    "phrase": ('include the phrase "{phrase}"', 'do not include the phrase "{phrase}"'),
    "letter": (
        'do not include the letter "{letter}"',
        'include the letter "{letter}" at least 2 times',
    ),
    "digits": ("no digits", "at least {one} digits"),
    "capitals": ("all capitals",),
    "highlights": ("at least {one} highlighted sections *like this*",),
    "capitalized words": ("at least {one} words in all capitals",),
    "parts": ("exactly 2 parts separated by ***",),
    "placeholders": ("at least {one} placeholders in square brackets",),
}

_FILLERS: dict[str, Sequence[int | str]] = {
    "length": [20, 25, 30, 35],
    "more": [40, 50, 60],
    "short": [20, 30, 40, 50],
    "few": [2, 3, 4],
    "one": [1, 2],
    "word": ["small", "light", "always", "quiet", "water", "people", "together", "good", "very"],
    "start": ["Every day", "Once upon a time", "Nobody knows", "In the morning", "Look at"],
    "end": ["That is all.", "The end.", "Who knows?", "Come and see.", "Good night."],
    "phrase": ["long ago", "of course", "at last", "in the end", "once again"],
    "letter": ["z", "q", "x", "j", "k"],
}
#: Kinds that demand a certain length of an answer.
_LENGTHS = ("words", "sentences", "paragraphs", "lines", "bullet points", "numbered items")
#: Pairs that the parser lets pass although hardly any text has both.
_AWKWARD = (
    {"lower case", "start"},
    {"lower case", "end"},
    {"lower case", "capitalized words"},
    {"capitals", "start"},
    {"capitals", "end"},
    {"capitals", "lower case"},
    {"quoted", "start"},
    {"quoted", "end"},
    {"quoted", "title"},
    {"title", "start"},
    {"bullet points", "numbered items"},
    {"bullet points", "sentences"},
    {"lines", "sentences"},
    {"numbered items", "sentences"},
    {"bullet points", "start"},
    {"numbered items", "start"},
    {"bullet points", "quoted"},
    {"numbered items", "quoted"},
    {"bullet points", "end"},
    {"numbered items", "end"},
    {"lines", "bullet points"},
    {"lines", "numbered items"},
    {"paragraphs", "sentences"},
    {"paragraphs", "bullet points"},
    {"digits", "numbered items"},
    {"paragraphs", "numbered items"},
    {"lines", "paragraphs"},
    {"parts", "paragraphs"},
    {"lines", "title"},
    {"lines", "parts"},
    {"parts", "quoted"},
    {"parts", "bullet points"},
)


def instructions(
    topics: Sequence[str], pairs: Sequence[tuple[str, str]], rng: random.Random
) -> list[str]:
    """One instruction about each topic, with the next pair of kinds of constraints."""
    ways = {**SEEN, **UNSEEN}
    asked: dict[str, int] = {}
    texts = []
    for topic, pair in zip(topics, islice(cycle(pairs), len(topics)), strict=True):
        lines = []
        for kind in pair:
            way = ways[kind][asked.get(kind, 0) % len(ways[kind])]
            asked[kind] = asked.get(kind, 0) + 1
            filled = way.format(**{name: rng.choice(values) for name, values in _FILLERS.items()})
            lines.append(re.sub(r"\b1 ((?:\w+ )?\w+)s\b", r"1 \1", f"- {filled}"))
        text = f"Write about {topic}.\nConstraints:\n" + "\n".join(lines)
        if parse_constraints(text) is None:
            raise ValueError(f"a malformed instruction: {text!r}")
        texts.append(text)
    return texts


def pairs_of(
    kinds: Sequence[str], partners: Sequence[str], rng: random.Random
) -> list[tuple[str, str]]:
    """Pairs of a kind and a partner that go together; half of them demand a length."""
    found = {(min(a, b), max(a, b)) for a in kinds for b in partners if a != b}
    pairs = [pair for pair in sorted(found) if {*pair} not in _AWKWARD]
    pairs = [(b, a) if rng.random() < 0.5 else (a, b) for a, b in pairs]
    rng.shuffle(pairs)
    long = [pair for pair in pairs if set(pair) & set(_LENGTHS)]
    rest = [pair for pair in pairs if not set(pair) & set(_LENGTHS)]
    return [pair for both in zip(long, cycle(rest), strict=False) for pair in both]


def names(text: str) -> list[str]:
    """The topics of a list above."""
    return [" ".join(name.split()) for name in text.strip().rstrip(";").split(";")]


def main() -> None:
    """Write both files."""
    rng = random.Random(0)
    seen, unseen = tuple(SEEN), tuple(UNSEEN)
    examples = instructions(names(EXAMPLE_TOPICS), pairs_of(seen, seen, rng), rng)
    topics = names(TASK_TOPICS)[:200]
    third = len(topics) // 3
    tasks = instructions(topics[third:], pairs_of(seen, seen, rng), rng)
    tasks += instructions(topics[:third], pairs_of(unseen, seen + unseen, rng), rng)
    assert not set(names(EXAMPLE_TOPICS)) & set(topics)
    assert len(tasks) == len({*tasks}) == 200
    for name, texts in ((EXAMPLES, examples), (TASKS, tasks)):
        rows = (json.dumps({"query": text}) for text in texts)
        (FOLDER / name).write_text("\n".join(rows) + "\n", encoding="utf-8")
        print(f"{len(texts)} instructions in {name}")


if __name__ == "__main__":
    main()
