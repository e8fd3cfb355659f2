"""Embeddings of texts by a BERT-style sentence encoder in a folder, computed in NumPy."""

import json
from pathlib import Path

import numpy as np

from ..contract import LawbookError
from .weights import open_weights

TOKENS = 4096  # padded tokens of a batch
POOLINGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max"}
LAYER = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "mixed": "attention.output.dense",
    "attended": "attention.output.LayerNorm",
    "wide": "intermediate.dense",
    "narrow": "output.dense",
    "out": "output.LayerNorm",
}


class Embedder:
    """The encoder of a folder with config.json, model.safetensors and tokenizer.json; modules.json and 1_Pooling say how the vectors of tokens become that of a text.

    Attributes: size (of a vector), longest (tokens of a text that are read, the rest is cut off), pooling ("mean", "cls" or "max"), normalised, said (sentences).
    """

    def __init__(self, folder):
        self.folder = folder = Path(folder)
        config = _json(folder / "config.json")
        if config is None:
            raise LawbookError(f"The folder {folder} has no config.json that can be read: it must hold a sentence encoder.")
        if config.get("model_type") != "bert" or config.get("position_embedding_type", "absolute") != "absolute":
            raise LawbookError(f"The model in {folder} must be of the type bert with absolute positions; it is {config.get('model_type')}.")
        self.said: list[str] = []
        self.pooling, self.normalised = self._modules()
        self.heads, self.epsilon = int(config["num_attention_heads"]), float(config.get("layer_norm_eps", 1e-12))
        self.activation = _activation(config.get("hidden_act", "gelu"))
        tensors = {name.removeprefix("bert."): tensor for name, tensor in open_weights(folder).tensors.items()}
        self.words, self.positions, self.types = (self._tensor(tensors, f"embeddings.{name}_embeddings.weight") for name in ("word", "position", "token_type"))
        self.first = self._pair(tensors, "embeddings.LayerNorm")
        self.layers = [{part: self._pair(tensors, f"encoder.layer.{i}.{name}") for part, name in LAYER.items()} for i in range(int(config["num_hidden_layers"]))]
        self.size = self.words.shape[1]
        asked = (_json(folder / "sentence_bert_config.json") or {}).get("max_seq_length")
        self.longest = min(int(asked or len(self.positions)), len(self.positions))
        self.tokenizer = self._tokenizer()

    def embed(self, texts, progress=None):
        """matrix[n, size] of n texts in float32; `progress` is called with how many texts are done. A text that is longer than `longest` tokens is cut off."""
        if isinstance(texts, str):
            raise LawbookError("texts must be a list of text; it was one text.")
        texts = list(texts)
        for text in texts:
            if not isinstance(text, str):
                raise LawbookError(f"texts must be a list of text; it holds {str(text)[:60]!r}.")
        texts = [text if text.isascii() else text.encode(errors="replace").decode() for text in texts]  # halves of letters that JSON may hold
        ids = [np.array(encoding.ids, np.int32) for start in range(0, len(texts), 1024) for encoding in self.tokenizer.encode_batch(texts[start : start + 1024])]
        out = np.zeros((len(texts), self.size), np.float32)
        order = sorted(range(len(texts)), key=lambda i: len(ids[i]))
        done = 0
        while done < len(order):
            rows = order[done : done + TOKENS]
            while len(ids[rows[-1]]) * len(rows) > TOKENS and len(rows) > 1:
                rows = rows[: max(1, min(len(rows) - 1, TOKENS // len(ids[rows[-1]])))]
            out[rows] = self._pooled([ids[row] for row in rows])
            done += len(rows)
            if progress:
                progress(done)
        return out

    def _modules(self):
        """(pooling, whether vectors are normalised) by modules.json; without it the mean, not normalised."""
        modules = _json(self.folder / "modules.json")
        if modules is None:
            self.said.append("there is no modules.json: a text is the mean of its tokens, not normalised")
            return "mean", False
        kinds = [str(module.get("type", "")).rsplit(".", 1)[-1] for module in modules]
        if unknown := next((kind for kind in kinds if kind not in ("Transformer", "Pooling", "Normalize")), None):
            raise LawbookError(f"The model in {self.folder} has a module {unknown}; lawbook runs Transformer, Pooling and Normalize.")
        place = next((module.get("path", "") for module, kind in zip(modules, kinds, strict=True) if kind == "Pooling"), "1_Pooling")
        modes = [name for name, on in (_json(self.folder / place / "config.json") or {"pooling_mode_mean_tokens": True}).items() if name.startswith("pooling_mode_") and on is True]
        if len(modes) != 1 or modes[0] not in POOLINGS:
            raise LawbookError(f"The pooling of the model in {self.folder} must be one of {', '.join(POOLINGS.values())}; it is {', '.join(modes) or 'none'}.")
        return POOLINGS[modes[0]], "Normalize" in kinds

    def _tokenizer(self):
        try:
            from tokenizers import Tokenizer
        except ImportError:
            raise LawbookError("Texts are embedded with the tokenizers package, which is not installed: pip install tokenizers.") from None
        try:
            found = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        except Exception as error:  # the library raises no narrower one
            raise LawbookError(f"The tokenizer of {self.folder} cannot be read: {' '.join(str(error).split())[:120]}.") from None
        found.no_padding()
        found.enable_truncation(self.longest)
        return found

    def _tensor(self, tensors, name):
        if name not in tensors:
            raise LawbookError(f"The model in {self.folder} has no tensor {name}.")
        if tensors[name].fault:
            raise LawbookError(tensors[name].fault)
        return tensors[name].read().astype(np.float32, copy=False)

    def _pair(self, tensors, name):
        weight, bias = (self._tensor(tensors, f"{name}.{part}") for part in ("weight", "bias"))
        return np.ascontiguousarray(weight.T), bias

    def _norm(self, x, pair):
        x = x - x.mean(-1, keepdims=True)
        x /= np.sqrt(np.square(x).mean(-1, keepdims=True) + self.epsilon)
        return x * pair[0] + pair[1]

    def _pooled(self, ids):
        """Vectors of texts: matrix[n, size]."""
        length = max(map(len, ids))
        tokens = np.zeros((len(ids), length), np.int32)
        mask = np.arange(length) < np.array([len(row) for row in ids])[:, None]
        tokens[mask] = np.concatenate(ids)
        x = self._norm(self.words[tokens] + self.positions[:length] + self.types[0], self.first)
        hidden = np.where(mask, 0, -np.inf).astype(np.float32)[:, None, None, :]
        for layer in self.layers:
            x = self._layer(x, layer, hidden)
        if self.pooling == "cls":
            found = x[:, 0]
        elif self.pooling == "max":
            found = np.where(mask[:, :, None], x, -np.inf).max(1)
        else:
            found = (x * mask[:, :, None]).sum(1) / mask.sum(1, keepdims=True)
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12) if self.normalised else found

    def _layer(self, x, layer, hidden):
        n, length, size = x.shape

        def apply(part, values):
            weight, bias = layer[part]
            found = values.reshape(n * length, -1) @ weight
            found += bias
            return found.reshape(n, length, -1)

        query, key, value = (apply(part, x).reshape(n, length, self.heads, -1).transpose(0, 2, 1, 3) for part in ("query", "key", "value"))
        scores = query @ key.transpose(0, 1, 3, 2)
        scores /= np.float32(np.sqrt(size // self.heads))
        scores += hidden
        scores -= scores.max(-1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(-1, keepdims=True)
        x = self._norm(x + apply("mixed", (scores @ value).transpose(0, 2, 1, 3)), layer["attended"])
        return self._norm(x + apply("narrow", self.activation(apply("wide", x))), layer["out"])


def _json(path):
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def _activation(name):
    from scipy.special import erf

    half = np.float32(0.5)

    def gelu(x):
        found = erf(x * np.float32(np.sqrt(0.5)))
        found += 1
        found *= x
        found *= half
        return found

    known = {
        "gelu": gelu,
        "gelu_new": lambda x: half * x * (1 + np.tanh(np.float32(np.sqrt(2 / np.pi)) * (x + np.float32(0.044715) * x**3))),
        "relu": lambda x: np.maximum(x, 0),
    }
    if name not in known:
        raise LawbookError(f"The activation of the model must be one of {', '.join(known)}; it is {name}.")
    return known[name]
