"""The tokenizer: byte-level BPE with the pre-tokenizer that GGUF calls `llama-bpe`, and three control tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from corpus import Corpus
from dialogues import Pair
from shape import Shape

BEGIN_OF_TEXT = "<|begin_of_text|>"
END_OF_TEXT = "<|end_of_text|>"
END_OF_TURN = "<|eot_id|>"
# In the order of their ids, which are the last of the vocabulary: 4093, 4094, 4095.
CONTROL_TOKENS = (BEGIN_OF_TEXT, END_OF_TEXT, END_OF_TURN)

# How a text falls into words before any merge; part of the model, and the reason for the name `llama-bpe`.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    r"|[^\r\n\p{L}\p{N}]?\p{L}+"
    r"|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+"
    r"|\s+(?!\S)"
    r"|\s+"
)
# Dialogues of the training stream whose words also shape the merges.
TOKENIZER_DIALOGUES = 20_000
# Weight of a token's loss: answers are what the model is for, questions only a little.
ANSWER_WEIGHT = 1.0
QUESTION_WEIGHT = 0.1


def train_tokenizer(corpus: Corpus, pairs: Sequence[Pair]) -> Tokenizer:
    """Learns the merges from the training paragraphs and the first dialogues. Deterministic; a few seconds."""
    tokenizer = _byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=Shape.vocabulary - len(CONTROL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_training_texts(corpus, pairs[:TOKENIZER_DIALOGUES]), trainer)
    tokenizer.add_special_tokens(list(CONTROL_TOKENS))
    return tokenizer


def tokenizer_of(tokens: Sequence[str], merges: Sequence[str]) -> Tokenizer:
    """Rebuilds the tokenizer from the two lists that a GGUF file holds."""
    if tuple(tokens[-len(CONTROL_TOKENS):]) != CONTROL_TOKENS:
        raise ValueError("the last tokens of the file are not the control tokens of aria-tiny")
    vocabulary = {token: at for at, token in enumerate(tokens[:-len(CONTROL_TOKENS)])}
    pairs = [(left, right) for left, right in (merge.split(" ") for merge in merges)]
    tokenizer = _byte_level(models.BPE(vocab=vocabulary, merges=pairs))
    tokenizer.add_special_tokens(list(CONTROL_TOKENS))
    return tokenizer


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """The id of a token that must exist."""
    found = tokenizer.token_to_id(token)
    if found is None:
        raise ValueError(f"the tokenizer has no token {token}")
    return found


def encode_books(tokenizer: Tokenizer, corpus: Corpus) -> np.ndarray:
    """The training books as one stream of ids, an end-of-text after every document. [tokens] int32"""
    end = token_id(tokenizer, END_OF_TEXT)
    encodings = tokenizer.encode_batch(corpus.documents())
    return np.concatenate([np.array([*encoding.ids, end], np.int32) for encoding in encodings])


def encode_held_out_books(tokenizer: Tokenizer, corpus: Corpus) -> np.ndarray:
    """The held-out paragraphs as one stream of ids. [tokens] int32"""
    return np.array(tokenizer.encode("\n".join(corpus.held_out)).ids, np.int32)


def encode_dialogues(tokenizer: Tokenizer, pairs: Iterable[Pair]) -> tuple[np.ndarray, np.ndarray]:
    """Dialogues as one stream in the form of the chat template, with the loss weight of every token. [tokens] twice

    <begin> `User: ` question <end of turn> `Assistant: ` answer <end of turn>, and so on. The prefix `Assistant: `
    is encoded on its own, as the generation prompt of the template is, so that training and use see the same ids.
    """
    pairs = list(pairs)
    begin, end = token_id(tokenizer, BEGIN_OF_TEXT), token_id(tokenizer, END_OF_TURN)
    invitation = tokenizer.encode("Assistant: ").ids
    questions = tokenizer.encode_batch([f"User: {question}" for question, _ in pairs])
    answers = tokenizer.encode_batch([answer for _, answer in pairs])
    ids: list[int] = []
    weights: list[float] = []
    for question, answer in zip(questions, answers, strict=True):
        asked = [begin, *question.ids, end, *invitation]
        answered = [*answer.ids, end]
        ids += asked + answered
        weights += [QUESTION_WEIGHT] * len(asked) + [ANSWER_WEIGHT] * len(answered)
    return np.array(ids, np.int32), np.array(weights, np.float32)


def _training_texts(corpus: Corpus, pairs: Sequence[Pair]) -> Iterator[str]:
    yield from corpus.training
    yield from (f"User: {question}" for question, _ in pairs)
    yield from (f"Assistant: {answer}" for _, answer in pairs)


def _byte_level(model: models.BPE) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer
