// The openai package for Node against a node. Prints one JSON object of what it saw; any surprise is an exception.
import assert from "node:assert/strict";
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "none", maxRetries: 0 });
const models = [];
for await (const model of client.models.list()) models.push(model.id);
const model = models[0];
const messages = [{ role: "user", content: "What is 7 plus 5?" }];

const plain = await client.chat.completions.create({ model, messages, temperature: 0, max_tokens: 32 });
const text = plain.choices[0].message.content;

let streamed = "";
let last;
const stream = await client.chat.completions.create({
  model, messages, temperature: 0, max_tokens: 32, stream: true, stream_options: { include_usage: true },
});
for await (const chunk of stream) {
  last = chunk;
  streamed += chunk.choices[0]?.delta?.content ?? "";
}
assert.equal(streamed, text);
assert.equal(last.usage.completion_tokens, plain.usage.completion_tokens);
assert.ok(last.aria.record_id);

await assert.rejects(client.chat.completions.create({ model: "no-such-model", messages }), { status: 404, code: "model_not_found" });
console.log(JSON.stringify({ text, aria: plain.aria }));
