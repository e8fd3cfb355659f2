"""The audit of a config against two roofline tools, same models and devices: ours over theirs, and why where they differ.

Usage: LLM_ANALYSIS=CHECKOUT LLM_VIEWER=CHECKOUT python benchmarks/roofline.py
with checkouts of cli99/llm-analysis and hahnyuan/LLM-Viewer; one that is not named is left out, and said to be.
"""

import contextlib
import io
import logging
import os
import sys
import types

from lawbook.jobs.audit_config import audit_config

PROMPT, GENERATED = 512, 32
# layers, width, heads, key-value heads, MLP, vocabulary
MODELS = {
    "LLaMA-7B": (32, 4096, 32, 32, 11008, 32000),
    "LLaMA-13B": (40, 5120, 40, 40, 13824, 32000),
    "LLaMA-30B": (60, 6656, 52, 52, 17920, 32000),
    "Llama-3-8B": (32, 4096, 32, 8, 14336, 128256),
}
DEVICES = {"A100-80": ("a100-sxm-80gb", "nvidia_A100_80G"), "H100-SXM": ("h100-sxm-80gb", "nvidia_H100_SXM")}
NAMES = ("weights", "cache", "prefill FLOP", "prefill time", "decode time")


def ours(model, device, batch):
    """Our figures in the tools' terms: the cache of prompt and answer, all else at the end of the prompt."""
    layers, width, heads, kv_heads, mlp, vocabulary = MODELS[model]
    config = {"model_type": "llama", "num_hidden_layers": layers, "hidden_size": width, "num_attention_heads": heads, "num_key_value_heads": kv_heads}
    config |= {"intermediate_size": mlp, "vocab_size": vocabulary, "max_position_embeddings": 4096, "torch_dtype": "float16"}
    found = audit_config(config, device=device, batch_size=batch, context_length=PROMPT)
    longer = audit_config(config, device=device, context_length=PROMPT + GENERATED)
    figures = (found["weight_bytes"], batch * longer["cache_bytes"], found["prefill_flops"], found["prefill_seconds"], found["decode_seconds"])
    return dict(zip(NAMES, figures, strict=True))


def stub(name, **entries):
    """A module that a tool imports and our calls never reach, where it is not installed."""
    try:
        __import__(name)
    except ImportError:
        sys.modules[name] = types.ModuleType(name)
        for key, value in entries.items():
            setattr(sys.modules[name], key, value)


def llm_analysis(checkout):
    """The figures of llm-analysis, run from its checkout."""
    sys.path.insert(0, checkout)
    stub("fire")
    logging.disable(logging.CRITICAL)
    from llm_analysis.analysis import LLMAnalysis
    from llm_analysis.config import ModelConfig, get_gpu_config_by_name

    def figures(model, device, batch):
        layers, width, heads, kv_heads, mlp, vocabulary = MODELS[model]
        config = ModelConfig(
            name=model, num_layers=layers, n_head=heads, hidden_dim=width, vocab_size=vocabulary, num_key_value_heads=kv_heads, ffn_embed_dim=mlp, mlp_gated_linear_units=True
        )
        tool = LLMAnalysis(config, get_gpu_config_by_name(DEVICES[device][0]), flops_efficiency=1, hbm_memory_efficiency=1)
        with contextlib.redirect_stdout(io.StringIO()):
            found = tool.inference(batch_size_per_gpu=batch, seq_len=PROMPT, num_tokens_to_generate=GENERATED)
        keys = ("weight_memory_per_gpu", "kv_cache_memory_per_gpu", "prefill_num_flops_fwd_total", "prefill_latency", "decode_latency")
        return dict(zip(NAMES, (found[key] for key in keys), strict=True))

    return figures


def llm_viewer(checkout):
    """The figures of LLM-Viewer, run from its checkout on configs of our own."""
    sys.path.insert(0, checkout)
    stub("transformers", AutoTokenizer=None, AutoConfig=None, AutoModelForCausalLM=None)
    import model_analyzer

    def figures(model, device, batch):
        layers, width, heads, kv_heads, mlp, vocabulary = MODELS[model]
        config = types.SimpleNamespace(
            num_hidden_layers=layers, hidden_size=width, num_attention_heads=heads, num_key_value_heads=kv_heads, intermediate_size=mlp, vocab_size=vocabulary
        )
        model_analyzer.AutoConfig = types.SimpleNamespace(from_pretrained=lambda *_, **__: config)
        with contextlib.redirect_stdout(io.StringIO()):
            tool = model_analyzer.ModelAnalyzer(model, DEVICES[device][1], "configs/Llama.py")
        found = tool.analyze(PROMPT, batch)["total_results"]
        longer = tool.analyze(PROMPT + GENERATED, batch)["total_results"]
        prefill, decode = found["prefill"], found["decode"]
        values = prefill["memory_consumption_weight"], longer["prefill"]["memory_consumption_kv_cache"], prefill["OPs"], prefill["inference_time"], decode["inference_time"]
        return dict(zip(NAMES, values, strict=True))

    return figures


WHY = {
    "llm-analysis": """Weights: it counts one table of tokens where the models have two. Prompts: it counts scores with the future, and the logits of every token, we the
causal half and the last logits. Decoding: in each step it reads and writes all of the cache at its final length, which tells for large batches; we read it once.""",
    "LLM-Viewer": """Weights: layers alone. Times: it writes and reads scores and activations, as attention that is not fused does; we count the least that must move. Its H100
has 3.07e12 bytes/s, ours the datasheet's 3.35e12.""",
}


def compare(name, theirs):
    print(f"\nours / {name}, prompts of {PROMPT} tokens, {GENERATED} generated, 16 bits\n{'':14}{'device':10}{'batch':>6}" + "".join(f"{each:>14}" for each in NAMES))
    for model in MODELS:
        for device in DEVICES:
            for batch in (1, 16):
                mine, other = ours(model, device, batch), theirs(model, device, batch)
                print(f"{model:14}{device:10}{batch:6}" + "".join(f"{mine[each] / other[each]:14.3f}" for each in NAMES))
    print(WHY[name])


if __name__ == "__main__":
    for name, variable, make in (("llm-analysis", "LLM_ANALYSIS", llm_analysis), ("LLM-Viewer", "LLM_VIEWER", llm_viewer)):
        if place := os.environ.get(variable):
            compare(name, make(place))
        else:
            print(f"{name} is left out: {variable} names no checkout of it.")
