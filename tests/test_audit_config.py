"""Audits of configurations: what is read of released models, counted by hand, published elsewhere, or measured; and what is refused."""

import itertools
import json
import os

import numpy as np
import pytest

from lawbook.artifacts.configs import BITS, dtype_bits, read_config
from lawbook.artifacts.devices import DEVICES, device
from lawbook.chapters.decoding.speculative_speedup import best_gamma, speedup
from lawbook.chapters.serving.long_context_serving import serving_report
from lawbook.chapters.serving.moe_offload_throughput import throughput_upper_bound
from lawbook.contract import LawbookError
from lawbook.jobs.audit_config import _scores, audit_config, distinct_experts

MiB = 2**20


def llama(hidden_size, num_hidden_layers, num_attention_heads, num_key_value_heads, intermediate_size, vocab_size, max_position_embeddings, **more):
    names = {k: v for k, v in locals().items() if k != "more"}
    return {"model_type": "llama", "torch_dtype": "bfloat16", **names, **more}


MODELS = {
    "Llama-2-7B": (llama(4096, 32, 32, 32, 11008, 32000, 4096), 6738415616),
    "Llama-3-8B": (llama(4096, 32, 32, 8, 14336, 128256, 8192, rope_theta=5e5), 8030261248),
    "Llama-3.1-405B": (
        llama(16384, 126, 128, 8, 53248, 128256, 131072, rope_theta=5e5, rope_scaling={"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}),
        405853388800,
    ),
    "Yi-34B": (llama(7168, 60, 56, 8, 20480, 64000, 4096, rope_theta=5e6), 34388917248),
    "SmolLM2-135M": (llama(576, 30, 9, 3, 1536, 49152, 8192, tie_word_embeddings=True, rope_theta=1e5), 134515008),
    "Mistral-7B-v0.1": (llama(4096, 32, 32, 8, 14336, 32000, 32768, model_type="mistral", sliding_window=4096), 7241732096),
    "Mixtral-8x7B": (
        llama(4096, 32, 32, 8, 14336, 32000, 32768, model_type="mixtral", num_local_experts=8, num_experts_per_tok=2, sliding_window=None, rope_theta=1e6),
        46702792704,
    ),
    "Qwen2.5-7B": (
        llama(3584, 28, 28, 4, 18944, 152064, 131072, model_type="qwen2", use_sliding_window=False, sliding_window=131072, max_window_layers=28, rope_theta=1e6),
        7615616512,
    ),
    "Qwen1.5-MoE-A2.7B": (
        llama(
            2048,
            24,
            16,
            16,
            5632,
            151936,
            8192,
            model_type="qwen2_moe",
            num_experts=60,
            num_experts_per_tok=4,
            moe_intermediate_size=1408,
            shared_expert_intermediate_size=5632,
            decoder_sparse_step=1,
            use_sliding_window=False,
        ),
        14315784192,
    ),
    "Qwen3-8B": (llama(4096, 36, 32, 8, 12288, 151936, 40960, model_type="qwen3", head_dim=128, rope_theta=1e6), 8190735360),
    "Qwen3-0.6B": (llama(1024, 28, 16, 8, 3072, 151936, 40960, model_type="qwen3", head_dim=128, rope_theta=1e6, tie_word_embeddings=True), 596049920),
    "Qwen3-30B-A3B": (
        llama(
            2048,
            48,
            32,
            4,
            6144,
            151936,
            40960,
            model_type="qwen3_moe",
            head_dim=128,
            num_experts=128,
            num_experts_per_tok=8,
            moe_intermediate_size=768,
            decoder_sparse_step=1,
            mlp_only_layers=[],
            rope_theta=1e6,
        ),
        30532122624,
    ),
    "Qwen3-Next-80B-A3B": (
        llama(
            2048,
            48,
            16,
            2,
            5120,
            151936,
            262144,
            model_type="qwen3_next",
            head_dim=256,
            full_attention_interval=4,
            linear_conv_kernel_dim=4,
            linear_key_head_dim=128,
            linear_num_key_heads=16,
            linear_num_value_heads=32,
            linear_value_head_dim=128,
            num_experts=512,
            num_experts_per_tok=10,
            moe_intermediate_size=512,
            shared_expert_intermediate_size=512,
            decoder_sparse_step=1,
            partial_rotary_factor=0.25,
            rope_theta=1e7,
        ),
        79674391296,
    ),
    "Gemma-7B": (llama(3072, 28, 16, 16, 24576, 256000, 8192, model_type="gemma", head_dim=256), 8537680896),
    "Gemma-2-9B": (llama(3584, 42, 16, 8, 14336, 256000, 8192, model_type="gemma2", head_dim=256, sliding_window=4096), 9241705984),
    "Gemma-3-1B": (llama(1152, 26, 4, 1, 6912, 262144, 32768, model_type="gemma3_text", head_dim=256, sliding_window=512, sliding_window_pattern=6, rope_theta=1e6), 999885952),
    "Phi-2": (
        {
            "model_type": "phi",
            "hidden_size": 2560,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "intermediate_size": 10240,
            "vocab_size": 51200,
            "max_position_embeddings": 2048,
            "partial_rotary_factor": 0.4,
            "torch_dtype": "float16",
        },
        2779683840,
    ),
    "Phi-3-mini-4k": (llama(3072, 32, 32, 32, 8192, 32064, 4096, model_type="phi3", sliding_window=2047), 3821079552),
    "GPT-NeoX-20B": (
        {
            "model_type": "gpt_neox",
            "hidden_size": 6144,
            "num_hidden_layers": 44,
            "num_attention_heads": 64,
            "intermediate_size": 24576,
            "vocab_size": 50432,
            "max_position_embeddings": 2048,
            "rotary_pct": 0.25,
            "rotary_emb_base": 10000,
            "torch_dtype": "float16",
        },
        20554567680,
    ),
    "GPT-2": ({"model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024, "n_ctx": 1024, "vocab_size": 50257}, 124439808),
    "DeepSeek-V2-Lite": (
        llama(
            2048,
            27,
            16,
            16,
            10944,
            102400,
            163840,
            model_type="deepseek_v2",
            kv_lora_rank=512,
            q_lora_rank=None,
            qk_nope_head_dim=128,
            qk_rope_head_dim=64,
            v_head_dim=128,
            first_k_dense_replace=1,
            moe_layer_freq=1,
            n_routed_experts=64,
            n_shared_experts=2,
            num_experts_per_tok=6,
            moe_intermediate_size=1408,
        ),
        15706484224,
    ),
    "DeepSeek-V3": (
        llama(
            7168,
            61,
            128,
            128,
            18432,
            129280,
            163840,
            model_type="deepseek_v3",
            kv_lora_rank=512,
            q_lora_rank=1536,
            qk_nope_head_dim=128,
            qk_rope_head_dim=64,
            v_head_dim=128,
            first_k_dense_replace=3,
            moe_layer_freq=1,
            n_routed_experts=256,
            n_shared_experts=1,
            num_experts_per_tok=8,
            moe_intermediate_size=2048,
            rope_theta=10000,
            rope_scaling={"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096},
            quantization_config={"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]},
        ),
        671026419200,
    ),
    "gpt-oss-20b": (
        llama(
            2880,
            24,
            64,
            8,
            2880,
            201088,
            131072,
            model_type="gpt_oss",
            head_dim=64,
            attention_bias=True,
            num_local_experts=32,
            num_experts_per_tok=4,
            experts_per_token=4,
            sliding_window=128,
            layer_types=["sliding_attention", "full_attention"] * 12,
            rope_theta=150000,
            rope_scaling={"rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096},
            quantization_config={"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]},
        ),
        20914757184,
    ),
    "gpt-oss-120b": (
        llama(
            2880,
            36,
            64,
            8,
            2880,
            201088,
            131072,
            model_type="gpt_oss",
            head_dim=64,
            attention_bias=True,
            num_local_experts=128,
            num_experts_per_tok=4,
            sliding_window=128,
            layer_types=["sliding_attention", "full_attention"] * 18,
            quantization_config={"quant_method": "mxfp4"},
        ),
        116829156672,
    ),
    "Jamba-v0.1": (
        llama(
            4096,
            32,
            32,
            8,
            14336,
            65536,
            262144,
            model_type="jamba",
            attn_layer_period=8,
            attn_layer_offset=4,
            expert_layer_period=2,
            expert_layer_offset=1,
            num_experts=16,
            num_experts_per_tok=2,
            mamba_d_conv=4,
            mamba_d_state=16,
            mamba_dt_rank=256,
            mamba_expand=2,
        ),
        51570323328,
    ),
    "mamba-130m": (
        {
            "model_type": "mamba",
            "hidden_size": 768,
            "num_hidden_layers": 24,
            "state_size": 16,
            "conv_kernel": 4,
            "expand": 2,
            "intermediate_size": 1536,
            "time_step_rank": 48,
            "vocab_size": 50280,
            "torch_dtype": "float32",
        },
        129135360,
    ),
    "mamba2-130m": (
        {
            "model_type": "mamba2",
            "hidden_size": 768,
            "num_hidden_layers": 24,
            "state_size": 128,
            "conv_kernel": 4,
            "expand": 2,
            "head_dim": 64,
            "num_heads": 24,
            "n_groups": 1,
            "vocab_size": 50288,
            "torch_dtype": "float32",
        },
        128989632,
    ),
    "all-MiniLM-L6-v2": (
        {
            "model_type": "bert",
            "hidden_size": 384,
            "num_hidden_layers": 6,
            "num_attention_heads": 12,
            "intermediate_size": 1536,
            "vocab_size": 30522,
            "max_position_embeddings": 512,
            "type_vocab_size": 2,
        },
        22713216,
    ),
    "bert-base": (
        {
            "model_type": "bert",
            "hidden_size": 768,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "intermediate_size": 3072,
            "vocab_size": 30522,
            "max_position_embeddings": 512,
            "type_vocab_size": 2,
        },
        109482240,
    ),
    "Qwen3.5-27B": (
        {
            "model_type": "qwen3_5",
            "tie_word_embeddings": False,
            "text_config": {
                "model_type": "qwen3_5_text",
                "dtype": "bfloat16",
                "hidden_size": 5120,
                "num_hidden_layers": 64,
                "num_attention_heads": 24,
                "num_key_value_heads": 4,
                "head_dim": 256,
                "intermediate_size": 17408,
                "vocab_size": 248320,
                "max_position_embeddings": 262144,
                "full_attention_interval": 4,
                "linear_num_value_heads": 48,
                "linear_num_key_heads": 16,
                "linear_key_head_dim": 128,
                "linear_value_head_dim": 128,
                "linear_conv_kernel_dim": 4,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e7, "partial_rotary_factor": 0.25},
            },
        },
        None,
    ),
}


HYBRID_9B = {**MODELS["Qwen3.5-27B"][0]["text_config"], "num_hidden_layers": 32, "hidden_size": 4096, "num_attention_heads": 16, "linear_num_value_heads": 32}
CACHES = {  # tokens, bytes of keys and values in 16 bits: layers x tokens kept x values x 2
    "Llama-2-7B": (4096, 2_147_483_648),  # 32 x 4096 x (2 x 32 x 128) x 2
    "Llama-3-8B": (131_072, 17_179_869_184),  # 32 x 131072 x (2 x 8 x 128) x 2
    "Mistral-7B-v0.1": (32_768, 536_870_912),  # all 32 layers keep 4096
    "Mixtral-8x7B": (32_768, 4_294_967_296),
    "Qwen2.5-7B": (131_072, 7_516_192_768),
    "Qwen3-0.6B": (32_768, 3_758_096_384),  # 28 x 32768 x (2 x 8 x 128) x 2, though width / heads is 64
    "Qwen3-8B": (40_960, 6_039_797_760),
    "Gemma-2-9B": (8192, 2_113_929_216),  # 21 x (4096 + 8192) x (2 x 8 x 256) x 2
    "Gemma-3-1B": (32_768, 145_752_064),  # (22 x 512 + 4 x 32768) x (2 x 256) x 2
    "Phi-3-mini-4k": (4096, 804_913_152),  # 32 x 2047 x (2 x 32 x 96) x 2
    "GPT-NeoX-20B": (2048, 2_214_592_512),
    "DeepSeek-V2-Lite": (32_768, 1_019_215_872),  # 27 x 32768 x (512 + 64) x 2
    "DeepSeek-V3": (131_072, 9_210_691_584),  # 61 x 131072 x (512 + 64) x 2
    "gpt-oss-20b": (131_072, 3_224_371_200),  # 12 x (128 + 131072) x (2 x 8 x 64) x 2
    "gpt-oss-120b": (131_072, 4_836_556_800),
    "Qwen3-Next-80B-A3B": (262_144, 6_442_450_944),  # 12 of 48 layers x 262144 x (2 x 2 x 256) x 2
    "Jamba-v0.1": (262_144, 4_294_967_296),  # 4 of 32 layers
    "mamba-130m": (262_144, 0),
}


@pytest.mark.parametrize("name", [name for name, (_, total) in MODELS.items() if total])
def test_parameters_are_those_of_the_released_checkpoint(name):
    config, total = MODELS[name]
    found = read_config(config)
    assert found.params == total and not found.missing and not any("not understood" in s for s in found.said)


@pytest.mark.parametrize(
    ("name", "active", "within"),
    [("gpt-oss-20b", 3.61e9, 2e-3), ("gpt-oss-120b", 5.13e9, 0.01), ("Mixtral-8x7B", 12.9e9, 0.02), ("DeepSeek-V3", 37e9, 0.02), ("Jamba-v0.1", 12e9, 0.02)],
)
def test_parameters_of_a_token_are_those_that_the_makers_state(name, active, within):
    assert read_config(MODELS[name][0]).active_params == pytest.approx(active, rel=within)


@pytest.mark.parametrize("name", CACHES)
def test_cache_is_that_computed_by_hand(name):
    tokens, size = CACHES[name]
    found = audit_config(MODELS[name][0], context_length=tokens, kv_dtype="fp16", device="h200", count=8)
    assert found["cache_bytes"] == size
    assert audit_config(MODELS[name][0], context_length=tokens, kv_dtype="fp8")["cache_bytes"] == size / 2
    assert audit_config(MODELS[name][0], context_length=tokens, kv_dtype="q8_0")["cache_bytes"] == size / 2 * 1.0625
    assert audit_config(MODELS[name][0], context_length=tokens, kv_dtype="q4_0")["cache_bytes"] == size / 2 * 0.5625


def test_hybrids_are_those_of_published_logs():
    """llama.cpp on Qwen3.5-27B: 16 of 64 layers attend, with 4 heads of 256; 48 keep 48 matrices of 128 x 128 and 3 columns of a convolution over 10240 channels, in fp32."""
    found = audit_config(MODELS["Qwen3.5-27B"][0], context_length=262_144)
    assert found["cache_bytes"] == 16_384 * MiB == 16 * 262_144 * 2 * 4 * 256 * 2
    assert 4 * found["state_bytes"] == 598.5 * MiB == 4 * 48 * 4 * (48 * 128 * 128 + 3 * (2 * 16 * 128 + 48 * 128))
    smaller = read_config(HYBRID_9B)  # R 2.25 MiB and S 48 MiB for one sequence of 32 layers
    assert smaller.state * 4 == 50.25 * MiB and [layer.kind for layer in smaller.layers].count("full") == 8


def test_the_worked_example_of_the_long_context_paper():
    """34B on one A100: 11.4 GiB at 50K, one session there and some twenty at 4K, 250 tokens in 9.8 s and 8.5 s, 1.2 s and .1 s for a switch, .89 s to read 4K."""
    long, short = (audit_config(MODELS["Yi-34B"][0], device="a100", context_length=n, host_link="20GB/s") for n in (50_000, 4000))
    assert round(long["cache_bytes"] / 2**30, 1) == 11.4 and round(short["cache_bytes"] / 2**30, 2) == 0.92
    assert long["largest_batch"] == 1 and short["largest_batch"] == 17
    assert round(250 * long["decode_least_seconds"], 1) == 9.8 and 250 * short["decode_least_seconds"] == pytest.approx(8.5, abs=0.1)
    assert round(long["switch_seconds"], 2) == 1.23 and round(short["switch_seconds"], 2) == 0.10
    assert short["prefill_seconds"] == pytest.approx(0.89, abs=0.02)
    theirs = serving_report("Yi-34B", "A100-80", [4000, 50_000])  # of 34e9 parameters, tables and all
    for mine, i in ((short, 0), (long, 1)):
        assert mine["cache_bytes"] == theirs["kv_bytes"][i]
        assert mine["prefill_least_seconds"] == pytest.approx(theirs["prefill_seconds"][i], rel=0.02)
        assert 250 * mine["decode_least_seconds"] == pytest.approx(theirs["decode_seconds"][i], rel=0.01)


# llm-analysis, examples/llama/outputs_infer_ideal and its w8a8 and w4a16: per device, 512 tokens read and 32 generated on A100s of 80 GB
LLAMAS = {  # layers, width, heads, MLP, devices; weights, cache, prefill FLOP, seconds of the layers' matrices, seconds of a token; weights of 8 and 4 bits (on one device)
    "7B": ((32, 4096, 32, 11008, 1), (13147045888, 285212672, 6868726448128, 0.0074886609 + 0.0140963029, 0.0067307048), (6704594944, 3483369472)),
    "13B": ((40, 5120, 40, 13824, 1), (25493504000, 445644800, 13267422412800, 0.0144542169 + 0.0275318416, 0.0129447348), (12910592000, 6619136000)),
    "30B": ((60, 6656, 52, 17920, 1), (64221347840, 869007360, 33300089405440, 0.0362387866 + 0.0697932186, 0.0323573006), (32323665920, 16374824960)),
    "65B": ((80, 8192, 64, 22016, 2), (64686653440, 713031680, 66926327889920, 0.0363420310 + 0.0704815146, 0.0338492128), (64948797440, 32736542720)),
}


def layers_reading(found):
    """Seconds that the layers take for the prompt."""
    rows = zip(*(found.parts[column] for column in ("phase", "part", "seconds")), strict=True)
    return sum(seconds for phase, part, seconds in rows if phase == "prompt" and part not in ("logits", "all-reduce"))


@pytest.mark.parametrize("name", LLAMAS)
def test_published_outputs_of_llm_analysis(name):
    """Within 5 % where its assumptions are ours: one table of tokens, all else as in the models; the cache to the last integer."""
    (layers, width, heads, mlp, devices), published, quantized = LLAMAS[name]
    config = llama(width, layers, heads, heads, mlp, 32000, 2048, tie_word_embeddings=True, torch_dtype="float16")
    found = audit_config(config, device="A100-80", count=devices, context_length=544, prompt_length=512)
    weights, cache, flops, reading, token = published
    assert found["cache_bytes"] == cache * devices
    assert found["weight_bytes"] == pytest.approx(weights * devices, rel=0.02)
    assert found["prefill_flops"] == pytest.approx(flops, rel=0.05)
    assert layers_reading(found) == pytest.approx(reading, rel=0.05)
    assert found["decode_seconds"] == pytest.approx(token, rel=0.05)
    for dtype, size in zip(("int8", "int4"), quantized, strict=True):
        assert audit_config(config, device="A100-80", dtype=dtype, context_length=544)["weight_bytes"] == pytest.approx(size, rel=0.02)
    fast = audit_config(config, device="A100-80", count=devices, dtype="int8", context_length=544, prompt_length=512)  # w8a8 computes at the peak of int8
    assert layers_reading(fast) == pytest.approx(reading / 2, rel=0.05)


@pytest.mark.parametrize(
    ("name", "quantization", "size"),
    [
        ("gpt-oss-20b", {}, 13_761_264_768),
        ("gpt-oss-120b", {}, 65_248_815_744),
        ("Qwen2.5-7B", {"quant_method": "gptq", "bits": 4, "group_size": 128}, 5.57e9),
        ("Qwen2.5-7B", {"quant_method": "awq", "bits": 4, "group_size": 128}, 5.57e9),
        ("DeepSeek-V3", {}, 673e9),
        ("Llama-3-8B", {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_use_double_quant": True}, 5.7e9),
        ("Llama-3-8B", {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {"num_bits": 8}}}}, 9.08e9),
        ("Llama-3-8B", {"quant_method": "fp8"}, 9.08e9),
        ("Llama-3-8B", {"group_size": 64, "bits": 4}, 4.52e9),  # MLX, tables too
    ],
)
def test_quantised_checkpoints_have_their_size(name, quantization, size):
    config = MODELS[name][0] | ({"quantization_config": quantization} if quantization else {})
    assert audit_config(config, context_length=4096)["weight_bytes"] == pytest.approx(size, rel=0.01)


def test_a_quantisation_that_is_not_understood_is_named():
    found = audit_config(MODELS["Llama-3-8B"][0] | {"quantization_config": {"quant_method": "quip"}}, context_length=64)
    assert any("quip" in warning for warning in found.warnings) and found["weight_bytes"] == 2 * 8030261248


def test_distinct_experts_are_those_of_a_simulation():
    rng = np.random.default_rng(0)
    for experts, active, tokens in ((8, 2, 3), (64, 6, 20), (256, 8, 32)):
        reached = [len({e for _ in range(tokens) for e in rng.choice(experts, active, replace=False)}) for _ in range(400)]
        assert abs(distinct_experts(experts, active, tokens) - np.mean(reached)) < 5 * np.std(reached) / 20 + 1e-9
    assert distinct_experts(8, 2, 1) == pytest.approx(2) and distinct_experts(0, 0, 9) == 0 and distinct_experts(4, 4, 1) == 4


def test_a_mixture_reads_the_experts_it_reaches_and_computes_those_of_its_tokens():
    one, many = (audit_config(MODELS["DeepSeek-V3"][0], count=16, context_length=1024, batch_size=b) for b in (1, 4096))
    model = read_config(MODELS["DeepSeek-V3"][0])
    assert one["decode_bytes"] - one["sequence_bytes"] == pytest.approx(one["weight_bytes"] * model.active_params / model.params, rel=0.03)
    assert many["decode_bytes"] - 4096 * many["sequence_bytes"] == pytest.approx(many["weight_bytes"], rel=0.01)
    assert many["decode_flops"] == pytest.approx(4096 * one["decode_flops"], rel=1e-12)
    latent = 61 * 2 * 128 * (576 + 512) * 1024  # scores and answers on the latents
    assert one["decode_flops"] == pytest.approx(2 * model.active_params + latent, rel=1e-3)


@pytest.mark.parametrize(("tokens", "causal"), [(50, True), (700, True), (700, False)])
def test_scores_are_counted_pair_by_pair(tokens, causal):
    for layer in (read_config(MODELS[name][0]).layers[0] for name in ("Llama-3-8B", "gpt-oss-20b", "DeepSeek-V3")):
        q, k = np.indices((tokens, tokens))
        seen = (k <= q) & (k > q - (layer.window or tokens)) if causal else np.ones((tokens, tokens), bool)
        near = min(tokens, layer.window or tokens)
        if causal or not layer.window:
            pairs = seen.sum() - (near / 2 if causal else 0)  # the paper leaves out half of the diagonal
            assert _scores(layer, tokens, causal) == pytest.approx(4 * layer.read_width * pairs, rel=1e-12)


SETTINGS = list(itertools.product(("Llama-3-8B", "gpt-oss-20b", "Qwen3.5-27B", "DeepSeek-V2-Lite", "Jamba-v0.1", "mamba-130m"), ("h100", "mi300x", "m3-max"), (1, 7, 200)))


@pytest.mark.parametrize(("name", "where", "batch"), SETTINGS)
def test_nothing_beats_the_bounds(name, where, batch):
    found = audit_config(MODELS[name][0], device=where, count=2, batch_size=batch, context_length=8192)
    assert found["decode_least_seconds"] <= found["decode_seconds"] * (1 + 1e-12) and found["prefill_least_seconds"] <= found["prefill_seconds"] * (1 + 1e-12)
    facts = device(where)
    bandwidth, peak = 2 * facts.bandwidth, 2 * facts.peak("fp32" if name == "mamba-130m" else "bf16")
    assert found["decode_least_seconds"] == pytest.approx(max(found["decode_bytes"] / bandwidth, found["decode_flops"] / peak), rel=1e-12)
    if found["largest_batch"] >= batch:
        assert found["tokens_per_second"] <= found["best_tokens_per_second"] * (1 + 1e-12)
        assert found["memory_needed"] <= found["memory_bytes"]
    shares = np.array(found.parts["share"])
    assert shares[np.array(found.parts["phase"]) == "token"].sum() == pytest.approx(1)
    json.dumps(found.to_dict(), allow_nan=False)
    assert all(sentence.endswith(".") for sentence in [*found.sentences, *found.warnings, *found.notes])


def test_the_largest_batch_fits_and_one_more_does_not():
    found = audit_config(MODELS["Llama-3-8B"][0], device="a100", context_length=8192, reserve_bytes="2GB")
    fit = found["largest_batch"]
    assert fit > 0 and found["weight_bytes"] + 2e9 + fit * found["sequence_bytes"] <= found["memory_bytes"] < found["weight_bytes"] + 2e9 + (fit + 1) * found["sequence_bytes"]


def test_savings_save_and_say_what():
    found = audit_config(MODELS["Llama-2-7B"][0], device="4090", context_length=4096, batch_size=4, acceptance_rate=0.8, draft_params="68M")
    table = {name: dict(zip(found.savings, row, strict=True)) for name, *row in zip(found.savings["saving"], *found.savings.values(), strict=True)}
    plain = table["as it is"]
    assert table["weights in 4 bits"]["weight_bytes"] < table["weights in 8 bits"]["weight_bytes"] < plain["weight_bytes"]
    assert table["cache in 8 bits"]["sequence_bytes"] == plain["sequence_bytes"] / 2 and table["cache compressed 4 times"]["sequence_bytes"] == plain["sequence_bytes"] / 4
    assert table["8 query heads to a key-value head"]["sequence_bytes"] == plain["sequence_bytes"] / 8
    assert all(row["gain"] >= 1 and row["largest_batch"] >= plain["largest_batch"] for row in table.values())
    assert "8 query heads to a key-value head" not in audit_config(MODELS["Llama-3-8B"][0]).savings["saving"]


def test_speculation_is_that_of_its_paper_where_memory_binds():
    found = audit_config(MODELS["Llama-3-8B"][0], device="h100", context_length=64, acceptance_rate=0.7, draft_params=8e8)
    ratio = 2 * 8e8 / 3.35e12 / found["decode_seconds"]
    best = best_gamma(0.7, ratio)
    assert found.savings["gain"][-1] == pytest.approx(best["speedup"], rel=2e-3) and found.savings["saving"][-1].startswith(f"{best['gamma']} tokens")
    busy = audit_config(MODELS["Llama-3-8B"][0], device="h100", context_length=64, acceptance_rate=0.7, batch_size=4096)
    assert busy.savings["gain"][-1] == 1 and "does not pay" in busy.savings["saving"][-1]
    mixture = audit_config(MODELS["Mixtral-8x7B"][0], count=2, context_length=64, acceptance_rate=0.7)  # verifying reaches more experts than decoding
    assert mixture.savings["gain"][-1] < 0.8 * float(speedup(0.7, 4, 0.0))


def test_offloaded_experts_are_bounded_by_their_paper():
    found = audit_config(MODELS["Mixtral-8x7B"][0], device="l40s", context_length=4096, prompt_length=98, output_tokens=32, host_link=19.5e9, host_memory="70GB")
    experts = 32 * 8 * 3 * 4096 * 14336 * 2
    again = throughput_upper_bound(98, 32, experts, 19.5e9, 70e9, 131072, read_config(MODELS["Mixtral-8x7B"][0]).active_params, 362e12)
    assert found.offload["generated_tokens_per_s"] == pytest.approx(again["generated_tokens_per_s"]) and found.offload["bound_by"] == again["bound_by"] == "memory"
    enough = audit_config(MODELS["Mixtral-8x7B"][0], device="l40s", context_length=4096, prompt_length=98, output_tokens=32, host_link=19.5e9)
    assert enough.offload["bound_by"] == "gpu" and enough.offload["host_cache_bytes"] > 70e9
    assert audit_config(MODELS["Llama-3-8B"][0]).offload is None
    two = audit_config(MODELS["Mixtral-8x7B"][0], device="l40s", count=2, context_length=4096)  # each with its link
    assert two.offload["transfer_seconds"] == pytest.approx(experts / 64e9) and two["switch_seconds"] == pytest.approx(2 * two["sequence_bytes"] / 64e9)


def test_warnings_say_what_is_wrong():
    long = audit_config(MODELS["Llama-3-8B"][0], context_length="32Ki")
    assert any("beyond the 8,192" in w for w in long.warnings)
    assert any("do not fit" in w and "3 x A100-80" in w for w in audit_config(MODELS["Llama-3.1-405B"][0] | {"num_hidden_layers": 60}, device="a100", dtype="fp8").warnings)
    assert any("Not so many" in w for w in audit_config(MODELS["Llama-3-8B"][0], batch_size=1000).warnings)
    assert any("does not compute in fp8" in w for w in audit_config(MODELS["DeepSeek-V3"][0], device="a100").warnings)
    assert any("cannot be split evenly" in w for w in audit_config(MODELS["DeepSeek-V2-Lite"][0], count=8).warnings)
    assert not audit_config(MODELS["Llama-3-8B"][0], device="h100").warnings


def test_rope_is_judged_in_words():
    fine = audit_config(MODELS["Llama-3-8B"][0] | {"rope_theta": 5e6})
    short = audit_config(MODELS["Llama-3-8B"][0] | {"rope_theta": 1e4}, context_length=131_072)
    assert fine.rope["feasible"] and any("stays true" in s for s in fine.sentences)
    assert short.rope["binding"] == "wrap" and any("turns all the way round" in s for s in short.sentences)
    windowed = audit_config(MODELS["Mistral-7B-v0.1"][0], context_length=32_768)
    assert any("over 4,096 tokens" in s for s in windowed.sentences)
    assert audit_config(MODELS["GPT-2"][0]).rope is None and any("No RoPE" in s for s in audit_config(MODELS["GPT-2"][0]).sentences)
    assert read_config(MODELS["DeepSeek-V3"][0]).rope.dimensions == 64 and read_config(MODELS["Llama-3.1-405B"][0]).rope.scale == 8


def test_contexts_that_scaling_reaches():
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    assert read_config(MODELS["Qwen3-8B"][0] | {"rope_scaling": yarn}).context == 131_072
    assert read_config(MODELS["Llama-3.1-405B"][0]).context == 131_072 and read_config(MODELS["DeepSeek-V3"][0]).context == 163_840


def test_an_encoder_has_no_cache():
    found = audit_config(MODELS["all-MiniLM-L6-v2"][0], device="cpu", batch_size=32)
    assert "cache_bytes" not in found.quantities and not found.savings and any("encoder" in s for s in found.sentences)
    both_ways = 2 * 12 * (32 + 32) * 512**2 * 6 * 32
    assert found["prefill_flops"] == pytest.approx(2 * 6 * 12 * 384**2 * 512 * 32 + both_ways, rel=1e-3)


def test_of_unknown_families_what_can_be_read_is_read():
    found = audit_config({"model_type": "novel", "hidden_size": 1024, "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 2}, context_length=1000)
    assert found["cache_bytes"] == 8 * 1000 * 2 * 2 * 128 * 2
    assert any("intermediate_size" in w and "vocab_size" in w for w in found.warnings) and any("novel" in note for note in found.notes)
    more = read_config(MODELS["Llama-3-8B"][0] | {"model_type": "novel", "global_head_dim": 512, "mtp_num_hidden_layers": 2, "bos_token_id": 7})
    assert any("not counted: global_head_dim, mtp_num_hidden_layers" in s for s in more.said)
    odd = read_config(MODELS["Llama-3-8B"][0] | {"layer_types": ["full_attention"] * 31 + ["wavelet"]})
    assert odd.layers[-1].kind == "none" and any("wavelet" in each for each in odd.missing)


def test_windows_that_are_switched_off():
    assert {layer.kind for layer in read_config(MODELS["Qwen2.5-7B"][0]).layers} == {"full"}
    on = MODELS["Qwen2.5-7B"][0] | {"use_sliding_window": True, "sliding_window": 4096, "max_window_layers": 20}
    assert [layer.kind for layer in read_config(on).layers].count("window") == 8


def test_multimodal_configs_are_read_for_their_language_model():
    """gemma-3-4b-it leaves heads, head_dim and vocabulary to its family; its 4,300,079,472 parameters are also those of a vision tower and a projection."""
    text = {"model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34, "sliding_window": 1024}
    found = read_config({"model_type": "gemma3", "torch_dtype": "bfloat16", "text_config": text, "vision_config": {"hidden_size": 1152}})
    assert found.params == 4_300_079_472 - 416_866_032 - 2_950_272 and any("text_config" in s for s in found.said) and any("num_attention_heads" in s for s in found.said)


GGUF = {
    "Qwen3.5-27B": {
        "general.architecture": "qwen35",
        "qwen35.block_count": 65,
        "qwen35.nextn_predict_layers": 1,
        "qwen35.embedding_length": 5120,
        "qwen35.feed_forward_length": 17408,
        "qwen35.context_length": 262144,
        "qwen35.attention.head_count": 24,
        "qwen35.attention.head_count_kv": 4,
        "qwen35.attention.key_length": 256,
        "qwen35.attention.value_length": 256,
        "qwen35.rope.dimension_count": 64,
        "qwen35.rope.freq_base": 1e7,
        "qwen35.full_attention_interval": 4,
        "qwen35.ssm.conv_kernel": 4,
        "qwen35.ssm.inner_size": 6144,
        "qwen35.ssm.state_size": 128,
        "qwen35.ssm.time_step_rank": 48,
        "qwen35.ssm.group_count": 16,
        "tokenizer.ggml.tokens": [None] * 248320,
    },
    "DeepSeek-V2-Lite": {
        "general.architecture": "deepseek2",
        "deepseek2.block_count": 27,
        "deepseek2.embedding_length": 2048,
        "deepseek2.feed_forward_length": 10944,
        "deepseek2.context_length": 163840,
        "deepseek2.vocab_size": 102400,
        "deepseek2.attention.head_count": 16,
        "deepseek2.attention.head_count_kv": 1,
        "deepseek2.attention.key_length": 576,
        "deepseek2.attention.value_length": 512,
        "deepseek2.attention.key_length_mla": 192,
        "deepseek2.attention.value_length_mla": 128,
        "deepseek2.attention.kv_lora_rank": 512,
        "deepseek2.rope.dimension_count": 64,
        "deepseek2.leading_dense_block_count": 1,
        "deepseek2.expert_count": 64,
        "deepseek2.expert_used_count": 6,
        "deepseek2.expert_shared_count": 2,
        "deepseek2.expert_feed_forward_length": 1408,
    },
    "gpt-oss-20b": {
        "general.architecture": "gpt-oss",
        "general.file_type": 38,
        "gpt-oss.block_count": 24,
        "gpt-oss.embedding_length": 2880,
        "gpt-oss.feed_forward_length": 2880,
        "gpt-oss.context_length": 131072,
        "gpt-oss.vocab_size": 201088,
        "gpt-oss.attention.head_count": 64,
        "gpt-oss.attention.head_count_kv": 8,
        "gpt-oss.attention.key_length": 64,
        "gpt-oss.attention.value_length": 64,
        "gpt-oss.attention.sliding_window": 128,
        "gpt-oss.expert_count": 32,
        "gpt-oss.expert_used_count": 4,
        "gpt-oss.expert_feed_forward_length": 2880,
        "gpt-oss.rope.freq_base": 150000.0,
        "gpt-oss.rope.scaling.type": "yarn",
        "gpt-oss.rope.scaling.factor": 32.0,
        "gpt-oss.rope.scaling.original_context_length": 4096,
    },
    "Jamba-v0.1": {
        "general.architecture": "jamba",
        "jamba.block_count": 32,
        "jamba.embedding_length": 4096,
        "jamba.feed_forward_length": 14336,
        "jamba.context_length": 262144,
        "jamba.vocab_size": 65536,
        "jamba.attention.head_count": 32,
        "jamba.attention.head_count_kv": [8 if i % 8 == 4 else 0 for i in range(32)],
        "jamba.ssm.conv_kernel": 4,
        "jamba.ssm.inner_size": 8192,
        "jamba.ssm.state_size": 16,
        "jamba.ssm.time_step_rank": 256,
        "jamba.expert_count": 16,
        "jamba.expert_used_count": 2,
    },
    "mamba-130m": {
        "general.architecture": "mamba",
        "mamba.block_count": 24,
        "mamba.embedding_length": 768,
        "mamba.feed_forward_length": 0,
        "mamba.context_length": 1048576,
        "mamba.vocab_size": 50280,
        "mamba.attention.head_count": 0,
        "mamba.ssm.conv_kernel": 4,
        "mamba.ssm.inner_size": 1536,
        "mamba.ssm.state_size": 16,
        "mamba.ssm.time_step_rank": 48,
    },
}


@pytest.mark.parametrize("name", GGUF)
def test_metadata_of_gguf_say_the_same_as_a_config(name):
    one, other = read_config(MODELS[name][0]), read_config(GGUF[name])
    tokens = 100_000
    assert [layer.kind for layer in one.layers] == [layer.kind for layer in other.layers]
    assert one.cached(tokens) == other.cached(tokens) and one.state == other.state
    assert other.params == pytest.approx(one.params, rel=1e-6) and other.active_params == pytest.approx(one.active_params, rel=1e-6)  # the third version's correction of routers
    if one.rope:
        assert (one.rope.base, one.rope.dimensions, one.rope.scale) == (other.rope.base, other.rope.dimensions, other.rope.scale)


def test_a_gguf_file_is_read_with_the_sizes_of_its_tensors(tmp_path):
    from gguf import GGMLQuantizationType, GGUFWriter, quants

    rng = np.random.default_rng(0)
    path = tmp_path / "small.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(128)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_context_length(512)
    writer.add_token_list([f"t{i}" for i in range(96)])
    shapes = {"token_embd": (96, 64), "blk.0.attn_q": (64, 64), "blk.0.attn_k": (32, 64), "blk.0.attn_v": (32, 64), "blk.0.attn_output": (64, 64)}
    shapes |= {"blk.0.ffn_gate": (128, 64), "blk.0.ffn_up": (128, 64), "blk.0.ffn_down": (64, 128)}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", quants.quantize(rng.normal(size=shape).astype(np.float32), GGMLQuantizationType.Q8_0), raw_dtype=GGMLQuantizationType.Q8_0)
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(64, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = read_config(path)
    assert found.tied and found.params == found.stored_params == 96 * 64 + 64 * 64 * 2 + 2 * 32 * 64 + 3 * 64 * 128 + 3 * 64
    audit = audit_config(tmp_path, device="cpu")  # the folder holds no config.json, and one GGUF file
    assert audit["weight_bytes"] == pytest.approx(found.stored_bytes) and not audit.warnings
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(LawbookError, match="cut off"):
        read_config(path)


def test_a_folder_is_read_and_its_files_compared(tmp_path):
    folder = tmp_path / "tiny-model"
    folder.mkdir()
    config = llama(64, 2, 4, 2, 128, 1000, 512)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8-sig")
    total = read_config(folder).params
    (folder / "model.safetensors").write_bytes(b"\0" * 4 * total)
    found = audit_config(folder)
    assert found.architecture.name == "tiny-model" and any("another dtype" in w for w in found.warnings)
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "torch_dtype"}))
    assert read_config(folder).dtype == "fp32" and not audit_config(folder).warnings


def test_devices_are_found_as_people_write_them():
    spoken = {"h100": "H100-SXM", "A100": "A100-80", "NVIDIA A100-SXM4-40GB": "A100-40", "NVIDIA H100 80GB HBM3": "H100-SXM", "rtx 4090": "RTX-4090", "v5e": "TPU-v5e"}
    spoken |= {"NVIDIA GeForce RTX 4090": "RTX-4090", "m3-max": "M3-Max", "Apple M3 Max": "M3-Max", "mi300x": "MI300X", "h100 pcie": "H100-PCIe", "l4": "L4", "cpu": "EPYC-9654"}
    for name, known in spoken.items():
        assert device(name).name == known
    for facts in DEVICES.values():
        assert facts.source and facts.peak_flops > 0 and facts.memory_bytes > 8e9 and facts.bandwidth > 5e10
        assert facts.peak("fp32") <= facts.peak("bf16") <= facts.peak("fp8") <= facts.peak("fp4") and facts.peak("bf16") <= facts.peak("int8")
    assert device("B200").peak("fp4") == 9000e12 and device("a100").peak("fp8") == 312e12


def test_number_formats_are_found_as_people_write_them():
    assert dtype_bits("torch.bfloat16") == ("bf16", 16) and dtype_bits("Q4_K") == ("q4_k", 4.5) and dtype_bits("float8_e4m3fn")[1] == 8 and BITS["mxfp4"] == 4.25


TINY = llama(64, 2, 4, 2, 128, 1000, 512)
BAD = {
    "no heads": ({k: v for k, v in TINY.items() if k != "num_attention_heads"}, {}, "neither num_attention_heads nor head_dim"),
    "no layers": ({k: v for k, v in TINY.items() if k != "num_hidden_layers"}, {}, "no num_hidden_layers"),
    "empty": ({}, {}, "no num_hidden_layers"),
    "heads that do not divide": (TINY | {"num_attention_heads": 5, "num_key_value_heads": 5}, {}, "no multiple of the 5 heads"),
    "negative width": (TINY | {"hidden_size": -64}, {}, "hidden_size of the config must be a whole number of at least 1; it was -64"),
    "layers as text": (TINY | {"num_hidden_layers": "two"}, {}, "num_hidden_layers of the config must be a whole number"),
    "far too many layers": (TINY | {"num_hidden_layers": 10**9}, {}, "at most 10,000"),
    "a half head": (TINY | {"num_attention_heads": 2.5}, {}, "num_attention_heads"),
    "more key-value heads than heads": (TINY | {"num_key_value_heads": 8}, {}, "at most the 4 heads"),
    "no number": (TINY | {"vocab_size": float("nan")}, {}, "vocab_size"),
    "a base below 0": (TINY | {"rope_theta": -1}, {}, "rope_theta of the config must be a number above 0"),
    "layer types of another length": (TINY | {"layer_types": ["full_attention"]}, {}, "must list 2 layers"),
    "sliding layers without a window": (TINY | {"layer_types": ["sliding_attention"] * 2}, {}, "no sliding_window"),
    "experts without a choice": (TINY | {"num_local_experts": 8}, {}, "num_experts_per_tok"),
    "scaling that is no object": (TINY | {"rope_scaling": "yarn"}, {}, "rope_scaling of the config must be an object"),
    "unknown dtype of the config": (TINY | {"torch_dtype": "float12"}, {}, "There is no dtype 'float12'"),
    "unknown dtype": (TINY, {"dtype": "int3"}, "There is no dtype 'int3'"),
    "unknown cache dtype": (TINY, {"kv_dtype": "bf17"}, "did you mean bf16"),
    "a dtype like no other": (TINY, {"compute_dtype": "posit"}, "There is no dtype 'posit'; there is fp32, bf16"),
    "a device like no other": (TINY, {"device": "abacus"}, "There is no device 'abacus'; there is A100-40"),
    "unknown device": (TINY, {"device": "H1000"}, "There is no device 'H1000'; did you mean H100"),
    "context of 0": (TINY, {"context_length": 0}, "context_length must be a whole number of at least 1; it was 0"),
    "half a token": (TINY, {"prompt_length": 2.5}, "prompt_length must be a whole number"),
    "no devices": (TINY, {"count": 0}, "count must be a whole number of at least 1"),
    "negative batch": (TINY, {"batch_size": -3}, "batch_size must be a whole number of at least 1; it was -3"),
    "acceptance above 1": (TINY, {"acceptance_rate": 1.2}, "acceptance_rate must be at least 0 and at most 1"),
    "a draft that nobody keeps": (TINY, {"draft_params": 1e6}, "draft_params needs acceptance_rate"),
    "a link of 0": (TINY, {"host_link": 0}, "host_link must be a number above 0"),
    "negative reserve": (TINY, {"reserve_bytes": -1}, "reserve_bytes must be a number of at least 0"),
    "no language model": ({"general.architecture": "clip"}, {}, "no block_count"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_one_sentence(name):
    config, options, sentence = BAD[name]
    with pytest.raises(LawbookError) as refused:
        audit_config(config, **options)
    assert sentence in str(refused.value) and "\n" not in str(refused.value)


STRANGE = (None, -1, 0, 1, 3, 2.5, 1e300, float("inf"), "many", True, [], [2], {}, {"a": 1}, [1] * 1000)


@pytest.mark.parametrize("name", ["DeepSeek-V2-Lite", "gpt-oss-20b", "mamba2-130m", "Qwen3.5-27B", "GPT-2"])
def test_strange_values_are_read_or_refused_in_one_sentence(name):
    """Every entry replaced by what does not belong there: an audit in finite numbers, or a sentence; never anything else."""
    config = MODELS[name][0]
    inner = config.get("text_config", config)
    quantized, scaled = {"quant_method": "compressed-tensors", "bits": 4}, {"rope_type": "yarn", "factor": 2.0}
    changes = [{key: value} for key, value in itertools.product([*inner, "rope_scaling", "layer_types", "moe_layer_freq", "quantization_config"], STRANGE)]
    changes += [{"quantization_config": quantized | {key: value}} for key, value in itertools.product(("quant_method", "config_groups", "modules_to_not_convert"), STRANGE)]
    changes += [{"rope_scaling": scaled | {key: value}} for key, value in itertools.product(("factor", "original_max_position_embeddings", "rope_theta"), STRANGE)]
    for change in changes:
        try:
            found = audit_config(inner | change, context_length=128)
        except LawbookError as refused:
            assert "\n" not in str(refused) and len(str(refused)) < 700, change
        else:
            json.dumps(found.to_dict(), allow_nan=False)


def test_bad_files_are_refused_in_one_sentence(tmp_path):
    (tmp_path / "text.json").write_text("hidden_size: 64")
    (tmp_path / "list.json").write_text("[1, 2]")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty.json").touch()
    (tmp_path / "empty.gguf").touch()
    (tmp_path / "other.gguf").write_bytes(b"PK\3\4" * 100)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "folder").mkdir()
    (tmp_path / "looped").mkdir()
    (tmp_path / "looped" / "config.json").symlink_to(tmp_path / "looped" / "config.json")
    os.mkfifo(tmp_path / "pipe")
    cases = {
        "text.json": "is not JSON",
        "list.json": "must be a JSON object",
        "deep.json": "is not JSON",
        "bytes.json": "is not JSON",
        "empty.json": "is empty",
        "loop": "symbolic",
    }
    cases |= {"empty.gguf": "is empty", "other.gguf": "is no GGUF file", "folder": "holds no config.json", "looped": "symbolic", "nowhere": "There is no file or folder"}
    cases |= {"pipe": "neither a file nor a folder"}
    for name, sentence in cases.items():
        with pytest.raises(LawbookError) as refused:
            read_config(tmp_path / name)
        assert sentence in str(refused.value) and "\n" not in str(refused.value), name
