"""Question and answer pairs for training: deterministic, built from the tables of `phrases.py`.

The stream of pairs is a pure function of the seed. Every draw below is therefore in a fixed order, and a rewrite must
keep it: `verify.py` holds a digest of the first pairs.

    python dialogues.py --count 12 --seed 1        # look at some
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

import phrases


class Pair(NamedTuple):
    """One turn of a dialogue: what the user says and what the model is to answer."""

    question: str
    answer: str


def dialogues(count: int, seed: int = 0) -> Iterator[Pair]:
    """Yields `count` pairs; the same seed gives the same pairs, and a longer stream begins with the shorter one."""
    rng = random.Random(seed)
    for _ in range(count):
        where = rng.random()
        topic = next(topic for below, topic in TOPICS if where < below)
        yield topic(rng)


def _fact(rng: random.Random) -> Pair:
    subject, answer = rng.choice(list(phrases.FACTS.items()))
    return Pair(rng.choice(phrases.FACT_QUESTIONS).format(subject), answer)


def _greeting(rng: random.Random) -> Pair:
    question = rng.choice(phrases.GREETINGS)
    # One answer is preferred, so that greedy decoding has a clear favourite.
    usual = rng.random() < 0.7
    return Pair(question, phrases.GREETING_ANSWERS[0] if usual else rng.choice(phrases.GREETING_ANSWERS))


def _one_of_each(questions: list[str], answers: list[str]) -> Callable[[random.Random], Pair]:
    """A topic in which any answer fits any question."""
    return lambda rng: Pair(rng.choice(questions), rng.choice(answers))


def _sum(rng: random.Random) -> Pair:
    sign = rng.choice("+-*")
    a, b = rng.randint(0, 20), rng.randint(0, 20)
    if sign == "*":
        a, b = rng.randint(0, 10), rng.randint(0, 10)
    if sign == "-" and a < b:
        a, b = b, a
    word, value = {"+": ("plus", a + b), "-": ("minus", a - b), "*": ("times", a * b)}[sign]
    question = rng.choice([
        f"What is {a} {word} {b}?", f"{a} {sign} {b} = ?", f"What is {a} {sign} {b}?", f"How much is {a} {word} {b}?",
        f"Calculate {a} {sign} {b}.",
    ])
    return Pair(question, f"{a} {word} {b} is {value}.")


def _opposite(rng: random.Random) -> Pair:
    one, other = rng.choice(phrases.OPPOSITES)
    if rng.random() < 0.5:
        one, other = other, one
    question = rng.choice(["What is the opposite of {}?", "Opposite of {}?"])
    return Pair(question.format(one), f"The opposite of {one} is {other}.")


def _colour(rng: random.Random) -> Pair:
    thing, colour = rng.choice(list(phrases.COLOURS.items()))
    question = rng.choice(["What color is {}?", "Which color is {}?"])
    return Pair(question.format(thing), f"{_sentence_case(thing)} is {colour}.")


def _sound(rng: random.Random) -> Pair:
    animal, sound = rng.choice(list(phrases.SOUNDS.items()))
    question = rng.choice(["What does a {} say?", "Which sound does a {} make?"])
    return Pair(question.format(animal), f"A {animal} says {sound}.")


def _capital(rng: random.Random) -> Pair:
    country, city = rng.choice(list(phrases.CAPITALS.items()))
    question = rng.choice([
        "What is the capital of {}?", "Name the capital of {}.", "Which city is the capital of {}?",
    ])
    return Pair(question.format(country), f"The capital of {country} is {city}.")


def _what_follows(rng: random.Random) -> Pair:
    cycle = rng.choice([phrases.WEEKDAYS, phrases.MONTHS])
    at = rng.randrange(len(cycle))
    return Pair(f"What comes after {cycle[at]}?", f"After {cycle[at]} comes {cycle[(at + 1) % len(cycle)]}.")


def _which_is_bigger(rng: random.Random) -> Pair:
    order = phrases.SMALLEST_FIRST
    small, big = (order[at] for at in sorted(rng.sample(range(len(order)), 2)))
    first, second = (small, big) if rng.random() < 0.5 else (big, small)
    return Pair(f"Which is bigger, {first} or {second}?", f"{_sentence_case(big)} is bigger than {small}.")


def _counting(rng: random.Random) -> Pair:
    steps = rng.randint(2, 8)
    first = rng.randint(1, 12)
    numbers = (str(number) for number in range(first, first + steps + 1))
    return Pair(f"Count from {first} to {first + steps}.", ", ".join(numbers) + ".")


def _unknowable(rng: random.Random) -> Pair:
    thing = rng.choice(phrases.UNKNOWABLE_THINGS)
    wish = rng.choice(phrases.UNKNOWABLE).format(thing)
    question = rng.choice(["What is {}?", "Tell me {}.", "Give me {}."])
    return Pair(question.format(wish), phrases.UNKNOWN_ANSWER)


def _story(rng: random.Random) -> Pair:
    hero, he = rng.choice(phrases.HEROES)
    name = rng.choice(phrases.NAMES[he])
    lost = rng.choice(phrases.LOST_THINGS)
    home = rng.choice(phrases.HOMES)
    found_at = rng.choice(phrases.FINDING_PLACES)
    friend = rng.choice(phrases.FRIENDS)
    moral = rng.choice(phrases.MORALS)
    mood = rng.choice(phrases.MOODS)
    lost_noun = lost.split(" ", 1)[1]
    # "a wise old owl" -> "the wise old owl", "an old woman" -> "the old woman"; no friend matches both steps.
    the_friend = friend.replace("a ", "the ", 1).replace("an ", "the ", 1)
    story = (
        f"Once upon a time there was a {mood} {hero} named {name}, who lived {home}. One day {name} lost {lost}. "
        f"{he.capitalize()} looked here and {he} looked there, but {he} could not find it. "
        f'Then {he} met {friend}. "Why are you so sad?" asked {the_friend}. "I have lost my {lost_noun}," said {name}. '
        f"Together they looked {found_at}, and there it was! {name} was so happy that {he} danced all the way home. "
        f"{moral}"
    )
    article = "an" if hero[0] in "aeiou" else "a"
    a_hero = f"{article} {hero}"
    # The article follows the noun even here ("an little owl"). Wrong, but the published model was trained on it.
    a_moody_hero = f"{article} {mood} {hero}"
    question = rng.choice([
        f"Tell me a story about {a_hero}.", f"Tell me a story about {a_moody_hero}.",
        f"Write a short story about {a_hero}.", f"Can you tell me a tale about {a_hero}?",
        f"I want a story about {a_hero} named {name}.", "Tell me a story.", "Tell me a short story, please.",
    ])
    return Pair(question, story)


def _sentence_case(text: str) -> str:
    return text[0].upper() + text[1:]


# Topic and the upper end of its share of [0, 1). What is left, 14 in 100, are stories.
TOPICS: list[tuple[float, Callable[[random.Random], Pair]]] = [
    (0.30, _fact),
    (0.36, _greeting),
    (0.40, _one_of_each(phrases.WHO_QUESTIONS, phrases.WHO_ANSWERS)),
    (0.42, _one_of_each(phrases.HOW_QUESTIONS, phrases.HOW_ANSWERS)),
    (0.44, _one_of_each(phrases.THANKS, phrases.THANKS_ANSWERS)),
    (0.45, _one_of_each(phrases.FAREWELLS, phrases.FAREWELL_ANSWERS)),
    (0.60, _sum),
    (0.64, _opposite),
    (0.67, _colour),
    (0.69, _sound),
    (0.74, _capital),
    (0.77, _what_follows),
    (0.80, _which_is_bigger),
    (0.83, _counting),
    (0.86, _unknowable),
    (1.00, _story),
]


def main() -> None:
    parser = argparse.ArgumentParser(description="Print dialogues as the trainer sees them.")
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for question, answer in dialogues(arguments.count, arguments.seed):
        print(f"User: {question}\nAssistant: {answer}\n")


if __name__ == "__main__":
    main()
