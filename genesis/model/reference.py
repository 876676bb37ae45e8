"""An independent opinion on a model file: the same weights in Hugging Face transformers, in float32.

    python reference.py build/aria-tiny.gguf reference

Writes `hf/` (safetensors, config, tokenizer) for anyone's use with `BitNetForCausalLM`, and `reference.json` with
prompts, ids, greedy continuations and the names of the files that hold the logits of every position.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import BitNetConfig, BitNetForCausalLM
from transformers.integrations.bitnet import ActQuant

from container import Weights, read_gguf
from prompts import CONTINUATION_TOKENS, CONTINUATIONS
from shape import tensor_name
from tokenizer import BEGIN_OF_TEXT, END_OF_TEXT, END_OF_TURN, token_id

# Part of a layer in a GGUF file -> its module in transformers.
MODULES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_sub_norm": "self_attn.attn_sub_norm",
    "ffn_sub_norm": "mlp.ffn_sub_norm",
}


def state_of(weights: Weights) -> dict[str, Tensor]:
    """The tensors under their names in transformers, widened to float32."""
    state = {
        "model.embed_tokens.weight": torch.from_numpy(weights.embedding.astype(np.float32)),
        "model.norm.weight": torch.tensor(weights.output_norm),
    }
    for layer in range(weights.shape.layers):
        for part, module in MODULES.items():
            name = tensor_name(layer, part)
            array = weights.matrices[name].widened() if name in weights.matrices else weights.norms[name]
            state[f"model.layers.{layer}.{module}.weight"] = torch.tensor(array)
    return state


def config_of(weights: Weights) -> BitNetConfig:
    shape, tokenizer = weights.shape, weights.tokenizer
    return BitNetConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=shape.context,
        rope_theta=shape.rope_theta,
        rms_norm_eps=shape.norm_eps,
        hidden_act="relu2",
        tie_word_embeddings=True,
        bos_token_id=token_id(tokenizer, BEGIN_OF_TEXT),
        eos_token_id=token_id(tokenizer, END_OF_TEXT),
    )


def reference_model(config: BitNetConfig, state: dict[str, Tensor], rope_theta: float) -> BitNetForCausalLM:
    """Loads the weights and puts the reference's own activation quantiser before every projection.

    The matrices are exact multiples of their scale already, so no weight quantiser is needed.
    """
    model = BitNetForCausalLM(config).float().eval()
    # The library has moved this field before, and a model with another base still answers, only worse.
    found = model.config.rope_parameters["rope_theta"]
    if abs(found - rope_theta) > 1e-6:
        raise ValueError(f"transformers took {found} as rope base, the file says {rope_theta}")
    tied = {"lm_head.weight": state["model.embed_tokens.weight"]}
    missing, unexpected = model.load_state_dict({**state, **tied}, strict=False)
    if missing or unexpected:
        raise ValueError(f"tensors missing {missing}, unexpected {unexpected}")
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name.endswith("_proj"):
            module.register_forward_pre_hook(lambda _, inputs: (ActQuant.apply(inputs[0]),))
    return model


@torch.no_grad()
def continuation(model: BitNetForCausalLM, prompt: list[int], ends: set[int]) -> tuple[list[int], np.ndarray]:
    """Greedy ids after the prompt, and the logits of every position of both."""
    ids = list(prompt)
    while len(ids) < len(prompt) + CONTINUATION_TOKENS:
        ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] in ends:
            break
    logits = model(torch.tensor([ids])).logits[0].float().numpy()
    return ids[len(prompt):], logits


def main() -> None:
    parser = argparse.ArgumentParser(description="Run a model file of aria-tiny in transformers.")
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    weights = read_gguf(arguments.model)
    tokenizer = weights.tokenizer
    config, state = config_of(weights), state_of(weights)
    model = reference_model(config, state, weights.shape.rope_theta)

    hf = arguments.out / "hf"
    hf.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, hf / "model.safetensors")
    config.save_pretrained(hf)
    tokenizer.save(str(hf / "tokenizer.json"))

    ends = {token_id(tokenizer, token) for token in (END_OF_TEXT, END_OF_TURN)}
    cases = []
    for at, prompt in enumerate(CONTINUATIONS):
        prompt_ids = tokenizer.encode(prompt).ids
        greedy_ids, logits = continuation(model, prompt_ids, ends)
        file = f"logits_{at}.npy"
        np.save(arguments.out / file, logits)
        cases.append({
            "prompt": prompt,
            "prompt_ids": prompt_ids,
            "greedy_ids": greedy_ids,
            "text": tokenizer.decode(greedy_ids),
            "logits_file": file,
            "logits_rows": len(logits),
        })
        print(f"{prompt[-40:]!r} -> {cases[-1]['text']!r}")
    document = {
        "model": "aria-tiny",
        "model_sha256": hashlib.sha256(arguments.model.read_bytes()).hexdigest(),
        "reference": "transformers BitNetForCausalLM, float32",
        "cases": cases,
    }
    (arguments.out / "reference.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
