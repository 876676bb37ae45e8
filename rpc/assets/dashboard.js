// The node's own page. It shows what JSON-RPC says and nothing else; text from outside is only ever set as text.

const $ = (id) => document.getElementById(id);
const short = (hash) => `${hash.slice(0, 8)}…${hash.slice(-4)}`;
let seen = 0; // when the node last answered

async function rpc(method, params = []) {
  const response = await fetch("/rpc", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ jsonrpc: "2.0", id: 1, method, params }),
  });
  const answer = await response.json();
  if (answer.error) throw new Error(answer.error.message);
  return answer.result;
}

function cell(row, text, className) {
  const td = row.insertCell();
  td.textContent = text;
  if (className) td.className = className;
  return td;
}

function ago(ms) {
  const s = Math.max(0, Math.round((Date.now() - ms) / 1000));
  return s < 60 ? `${s} s ago` : s < 3600 ? `${Math.round(s / 60)} min ago` : s < 172800 ? `${Math.round(s / 3600)} h ago` : `${Math.round(s / 86400)} days ago`;
}

function duration(seconds) {
  const h = Math.floor(seconds / 3600), m = Math.floor((seconds % 3600) / 60);
  return h ? `${h} h ${m} min` : m ? `${m} min` : `${Math.floor(seconds)} s`;
}

function energy(record) {
  const joules = record.energy_mj / 1000;
  return `${joules.toFixed(joules < 1 ? 3 : 1)} J ${record.energy_source}`;
}

async function showNow() {
  const [status, node, pending] = await Promise.all([rpc("chain_status"), rpc("node_status"), rpc("mempool_status")]);
  const facts = [
    ["chain", status.chain_id], ["height", status.height], ["peers", status.peers], ["model", node.model ?? "loading"],
    ["kernel", node.kernel ?? "–"], ["up for", duration(node.uptime_s ?? 0)], ["answers running", node.active ?? 0],
    ["waiting to be sealed", pending.pending], ["version", status.version], ["node", node.node_id],
  ];
  $("now").replaceChildren(...facts.map(([name, value]) => {
    const box = document.createElement("div"), dt = document.createElement("dt"), dd = document.createElement("dd");
    dt.textContent = name;
    dd.textContent = value;
    dd.title = value;
    box.append(dt, dd);
    return box;
  }));
  $("health").textContent = node.ready === false ? `not ready: ${node.reason ?? "starting"}` : `well, height ${status.height}, ${pending.pending} waiting`;
  return status.height;
}

async function showBlocks(height) {
  const wanted = Array.from({ length: Math.min(8, height + 1) }, (_, i) => height - i);
  const blocks = await Promise.all(wanted.map((h) => rpc("chain_getBlock", { block: h, verbosity: 0 })));
  const body = $("blocks").tBodies[0];
  body.replaceChildren();
  for (const block of blocks.filter(Boolean)) {
    const row = body.insertRow();
    cell(row, block.index);
    cell(row, short(block.hash)).title = block.hash;
    cell(row, ago(block.timestamp)).title = new Date(block.timestamp).toLocaleString();
    cell(row, block.record_count ?? block.records.length, "number");
  }
}

async function showProof(id) {
  $("proof").querySelector("pre").textContent = JSON.stringify(await rpc("chain_getRecordProof", [id]), null, 2);
  $("proof").showModal();
}

async function showRecords() {
  const page = await rpc("chain_listRecords", [{ limit: 10 }]);
  $("records").hidden = page.records.length === 0;
  $("records-empty").hidden = page.records.length > 0;
  const body = $("records").tBodies[0];
  body.replaceChildren();
  for (const record of page.records) {
    const row = body.insertRow();
    cell(row, record.height);
    const link = document.createElement("a");
    link.href = "#proof";
    link.textContent = short(record.id);
    link.title = `${record.id}: show its Merkle proof`;
    link.addEventListener("click", (event) => { event.preventDefault(); showProof(record.id); });
    row.insertCell().append(link);
    cell(row, record.status);
    cell(row, record.tokens_generated, "number");
    cell(row, (record.latency_ms / 1000).toFixed(2), "number");
    cell(row, energy(record), "number");
  }
}

let drawnHeight = -1;
async function refresh() {
  try {
    const height = await showNow();
    if (height !== drawnHeight) {
      await Promise.all([showBlocks(height), showRecords()]);
      drawnHeight = height;
    }
    seen = Date.now();
    $("live").textContent = "live";
  } catch (error) {
    $("live").textContent = seen ? `stale since ${new Date(seen).toLocaleTimeString()}` : "the node does not answer";
    $("health").textContent = String(error.message ?? error);
  }
  setTimeout(refresh, document.hidden ? 10000 : 1000);
}

function step(text) {
  const item = document.createElement("li");
  item.textContent = text;
  $("life").append(item);
}

let cancel = null;
$("stop").addEventListener("click", () => cancel?.abort());
$("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  cancel = new AbortController();
  $("answer").textContent = "";
  $("life").replaceChildren();
  $("stop").disabled = false;
  try {
    await ask($("question").value, cancel.signal);
  } catch (error) {
    step(cancel.signal.aborted ? "stopped; nothing was recorded" : String(error.message ?? error));
  }
  $("stop").disabled = true;
});

async function ask(question, signal) {
  const start = performance.now();
  const models = await (await fetch("/v1/models", { signal })).json();
  const response = await fetch("/v1/chat/completions", {
    method: "POST", signal, headers: { "content-type": "application/json" },
    body: JSON.stringify({ model: models.data[0].id, messages: [{ role: "user", content: question }], stream: true, stream_options: { include_usage: true } }),
  });
  if (!response.ok) throw new Error((await response.json()).error.message);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", first = 0, last = {};
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const line of events.filter((text) => text.startsWith("data: {"))) {
      const chunk = JSON.parse(line.slice(6));
      if (chunk.error) throw new Error(chunk.error.message);
      const text = chunk.choices[0]?.delta?.content;
      if (text) {
        first ||= performance.now();
        $("answer").textContent += text;
      }
      last = { ...last, ...(chunk.aria && { aria: chunk.aria }), ...(chunk.usage && { usage: chunk.usage }) };
    }
  }
  const seconds = (performance.now() - first) / 1000;
  step(`first token after ${Math.round(first - start)} ms, then ${(last.usage.completion_tokens / seconds).toFixed(0)} tokens a second`);
  step(`signed: record ${short(last.aria.record_id)}, ${energy(last.aria)}`);
  for (let tries = 0; tries < 100; tries++) {
    const record = await rpc("chain_getRecord", [last.aria.record_id]);
    if (record) {
      step(`in block ${record.height}: ${record.status}`);
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  step("not sealed within ten seconds: see the node's log");
}

refresh();
