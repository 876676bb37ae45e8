"""The openai package for Python against a node. Prints one JSON object of what it saw; any surprise is an exception."""

import json
import sys

import openai

base_url = sys.argv[1]
client = openai.OpenAI(base_url=base_url, api_key="none", max_retries=0)
question = [{"role": "user", "content": "What is 7 plus 5?"}]

models = [model.id for model in client.models.list()]
assert models, "no model is listed"
model = models[0]
assert client.models.retrieve(model).id == model

plain = client.chat.completions.create(model=model, messages=question, temperature=0, max_tokens=32)
text = plain.choices[0].message.content
assert plain.usage.total_tokens == plain.usage.prompt_tokens + plain.usage.completion_tokens

pieces, finish, usage, last = [], None, None, None
stream = client.chat.completions.create(
    model=model, messages=question, temperature=0, max_tokens=32, stream=True, stream_options={"include_usage": True}
)
for chunk in stream:
    last = chunk
    if chunk.usage is not None:
        assert chunk.choices == [], "the usage chunk has no choices"
        usage = chunk.usage
    for choice in chunk.choices:
        pieces.append(choice.delta.content or "")
        finish = choice.finish_reason or finish
assert "".join(pieces) == text, ("".join(pieces), text)
assert finish == plain.choices[0].finish_reason
assert usage.completion_tokens == plain.usage.completion_tokens

scored = client.chat.completions.create(
    model=model, messages=question, temperature=0, max_tokens=4, logprobs=True, top_logprobs=2, n=2
)
assert len(scored.choices) == 2
first = scored.choices[0].logprobs.content[0]
assert first.logprob <= 0 and len(first.top_logprobs) == 2 and first.top_logprobs[0].token == first.token

completion = client.completions.create(model=model, prompt="Once upon a time", temperature=0, max_tokens=8)
assert completion.choices[0].text

seeded = [
    client.chat.completions.create(model=model, messages=question, temperature=1.0, seed=7, max_tokens=16).choices[0].message.content
    for _ in range(2)
]
assert seeded[0] == seeded[1], seeded

refusals = {}
for name, arguments in {
    "unknown_model": {"model": "no-such-model"},
    "negative_max_tokens": {"max_tokens": -1},
    "too_long": {"messages": [{"role": "user", "content": "word " * 20000}]},
}.items():
    try:
        client.chat.completions.create(**({"model": model, "messages": question} | arguments))
    except openai.APIStatusError as error:
        refusals[name] = [error.status_code, error.body["code"], error.body["param"]]

print(
    json.dumps(
        {
            "text": text,
            "usage": plain.usage.model_dump(exclude_none=True),
            "aria": plain.model_extra["aria"],
            "stream_aria": last.model_extra["aria"],
            "fingerprint": plain.system_fingerprint,
            "refusals": refusals,
        }
    )
)
