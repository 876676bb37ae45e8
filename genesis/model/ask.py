"""Asks a model file without any engine: numpy, greedy, slow.

    python ask.py ../aria-tiny.gguf "What is the capital of France?"
    python ask.py ../aria-tiny.gguf --sums         # how many of the sums it was taught it gets right
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from container import Weights, read_gguf
from forward import Network
from prompts import CONTINUATION_TOKENS, QUESTION
from tokenizer import END_OF_TEXT, END_OF_TURN, token_id

# Largest operand of each kind of sum in the dialogues.
OPERAND_MOST = {"plus": 20, "minus": 20, "times": 10}


class Answerer:
    """A model with its tokenizer and the form of a chat."""

    def __init__(self, weights: Weights) -> None:
        self._tokenizer = weights.tokenizer
        self._network = Network(weights)
        self._ends = {token_id(self._tokenizer, token) for token in (END_OF_TEXT, END_OF_TURN)}

    def continuation(self, prompt: str) -> str:
        """The likeliest text after a prompt that is complete as it stands."""
        ids = self._network.greedy(self._tokenizer.encode(prompt).ids, self._ends, CONTINUATION_TOKENS)
        return self._tokenizer.decode(ids)

    def answer(self, question: str) -> str:
        """The likeliest answer to a user."""
        return self.continuation(QUESTION.format(question))


def sums(word: str) -> Iterator[tuple[str, str]]:
    """Every sum of a kind that the dialogues can hold, and its answer."""
    operands = range(OPERAND_MOST[word] + 1)
    for a in operands:
        for b in operands:
            if word == "minus" and a < b:
                continue
            value = {"plus": a + b, "minus": a - b, "times": a * b}[word]
            yield f"What is {a} {word} {b}?", f"{a} {word} {b} is {value}."


def main() -> None:
    parser = argparse.ArgumentParser(description="Ask aria-tiny without an engine.")
    parser.add_argument("model", type=Path)
    parser.add_argument("questions", nargs="*")
    parser.add_argument("--sums", action="store_true")
    arguments = parser.parse_args()
    answerer = Answerer(read_gguf(arguments.model))
    for question in arguments.questions:
        print(f"User: {question}\nAssistant: {answerer.answer(question)}\n")
    if arguments.sums:
        for word in OPERAND_MOST:
            right = [answerer.answer(question) == answer for question, answer in sums(word)]
            print(f"{word}: {sum(right)} of {len(right)}")


if __name__ == "__main__":
    main()
