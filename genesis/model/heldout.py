"""Held-out loss: how many nats a token costs on text that was kept from training.

    python heldout.py ../aria-tiny.gguf            # numpy only, some ten seconds

Two streams: every hundredth paragraph of the books, and dialogues under a seed of their own, where only the tokens of
answers count. The trainer measures on the first windows; the whole streams are printed as well.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from corpus import Corpus, read_corpus
from dialogues import dialogues
from tokenizer import ANSWER_WEIGHT, encode_dialogues, encode_held_out_books

# Tokens of one window; nothing before it is seen.
WINDOW = 256
# Windows of a stream that the trainer looks at.
TRAINER_WINDOWS = 24
HELD_OUT_DIALOGUES = 400
HELD_OUT_SEED = 12345


@dataclass(frozen=True)
class Stream:
    """Tokens and which of them count (1) or only give context (0)."""

    name: str
    ids: np.ndarray
    counts: np.ndarray

    def windows(self, most: int | None) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Input ids, target ids and counts of the targets, window after window, without overlap."""
        end = len(self.ids) - WINDOW - 1
        if most is not None:
            end = min(end, most * WINDOW)
        for start in range(0, end, WINDOW):
            target = slice(start + 1, start + WINDOW + 1)
            yield self.ids[start:start + WINDOW], self.ids[target], self.counts[target]


@dataclass(frozen=True)
class Loss:
    """`per_window` is the trainer's figure: the mean of the windows' means. `per_token` weighs every token alike."""

    per_window: float
    per_token: float
    tokens: int


def held_out_streams(tokenizer: Tokenizer, corpus: Corpus) -> tuple[Stream, Stream]:
    """Books and dialogues."""
    books = encode_held_out_books(tokenizer, corpus)
    chat, weights = encode_dialogues(tokenizer, dialogues(HELD_OUT_DIALOGUES, HELD_OUT_SEED))
    return (
        Stream("books", books, np.ones(len(books), np.float32)),
        Stream("answers", chat, (weights == np.float32(ANSWER_WEIGHT)).astype(np.float32)),
    )


def mean_loss(stream: Stream, losses: Callable[[np.ndarray, np.ndarray], np.ndarray], most: int | None) -> Loss:
    """Runs `losses(inputs, targets) -> [WINDOW] nats` over the windows. `most` None takes the whole stream."""
    means, total, tokens = [], 0.0, 0
    for inputs, targets, counts in stream.windows(most):
        nats = losses(inputs, targets)
        window_total, window_tokens = float((nats * counts).sum()), int(counts.sum())
        means.append(window_total / window_tokens)
        total += window_total
        tokens += window_tokens
    return Loss(sum(means) / len(means), total / tokens, tokens)


def cross_entropy(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Nats of every target. [positions, vocabulary], [positions] -> [positions]"""
    shifted = logits - logits.max(-1, keepdims=True)
    return np.log(np.exp(shifted).sum(-1)) - shifted[np.arange(len(targets)), targets]


def main() -> None:
    from container import read_gguf
    from forward import Network

    parser = argparse.ArgumentParser(description="Held-out loss of a GGUF file of aria-tiny.")
    parser.add_argument("model", type=Path)
    arguments = parser.parse_args()
    weights = read_gguf(arguments.model)
    network = Network(weights)
    for stream in held_out_streams(weights.tokenizer, read_corpus()):
        for title, most in (("trainer's windows", TRAINER_WINDOWS), ("whole stream", None)):
            loss = mean_loss(stream, lambda ids, targets: cross_entropy(network.logits(ids), targets), most)
            print(
                f"{stream.name:8} {title:17} {loss.per_window:.4f} nats by windows,"
                f" {loss.per_token:.4f} by tokens ({loss.tokens:,} tokens)"
            )


if __name__ == "__main__":
    main()
