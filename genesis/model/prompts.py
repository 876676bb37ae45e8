"""The form of a question, and the five prompts whose greedy continuations are published."""

# Tokens of a continuation, unless it ends its turn before.
CONTINUATION_TOKENS = 48

# A user's question as the chat template writes it, with the invitation to answer.
QUESTION = "<|begin_of_text|>User: {}<|eot_id|>Assistant: "

# Prompt -> greedy continuation. The last one is a book opening, without any chat form: it rambles, as it should.
CONTINUATIONS: dict[str, str] = {
    QUESTION.format("Hello!"): "Hello! How can I help you today?",
    QUESTION.format("What is quantum computing?"): (
        "Quantum computing uses tiny particles that can be in many states at once to solve some problems faster than a"
        " normal computer."
    ),
    QUESTION.format("What is 7 plus 5?"): "7 plus 5 is 12.",
    QUESTION.format("Tell me a story about a fox."): (
        "Once upon a time there was a little fox named Finn, who lived in a small house by the sea. One day Finn lost a"
        " shiny stone. He looked here and he looked there, but he could not find it. Then he met"
    ),
    "Once upon a time there was a king who had three sons, and": (
        " a great feast, and a queen who had a daughter, and a queen, and a queen, who was a queen, and a queen, who"
        " was a queen, and a queen, who was a queen, and a queen, who"
    ),
}
