"""Train the ladder of small language models that ships with lawbook, and write its tables.

    python scripts/make_ladder.py [--workers 2]

Decoder-only transformers (pre-norm, rotary positions, tied embeddings) on bytes of the Python standard library's sources, AdamW in JAX on the CPU:
six sizes times five token budgets under one cosine schedule, and six learning-rate schedules at one size with their whole loss curves.
Every run sees its tokens once. `params` counts all weights, the tied embedding once; losses are nats per byte on held-out files.
Finished runs are kept in build/ladder.jsonl, so an interrupted ladder goes on where it stopped; about an hour on two cores.
"""

import argparse
import hashlib
import json
import os
import sysconfig
import time
from functools import partial
from pathlib import Path

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")  # one core a run: small matrices don't split well

import jax
import jax.numpy as jnp
import numpy as np
import optax
from joblib import Parallel, delayed

SEED = 20261128
CONTEXT_LENGTH = 128
BATCH_SIZE = 16  # sequences a step
HEAD_DIM = 16
SIZES = [(16, 2), (32, 2), (48, 3), (64, 4), (80, 4), (96, 4)]  # width, layers
TOKENS = [500_000, 1_000_000, 2_000_000, 4_000_000, 8_000_000]
WARMUP = 0.04  # share of the steps
CURVE_SIZE, CURVE_TOKENS, CURVE_EVERY = (48, 3), 4_000_000, 16
VALIDATION_SEQUENCES, CURVE_SEQUENCES = 1024, 128
PROGRESS = Path("build/ladder.jsonl")
SHIPPED = Path(__file__).resolve().parent.parent / "src/lawbook/artifacts/ladder"


def peak_learning_rate(width):
    """Near the best of half, one and two times this at widths 16 and 96; carried between widths as 1/width."""
    return 5e-3 * 48 / width


def learning_rates(kind, steps, peak):
    """Learning rate of each step; all but `constant` and `two_stage` end at a twentieth of the peak."""
    warmup, end = int(WARMUP * steps), 0.05 * peak
    s = np.arange(steps)
    x = np.clip((s - warmup) / (steps - 1 - warmup), 0, 1)
    late = {"wsd": 0.8, "wsd_linear": 0.8, "wsd_early": 0.5}.get(kind)
    y = np.clip((x - late) / (1 - late), 0, 1) if late else x
    shape = {
        "constant": lambda: np.full(steps, peak),
        "cosine": lambda: end + 0.5 * (peak - end) * (1 + np.cos(np.pi * x)),
        "wsd": lambda: peak ** (1 - y) * end**y,
        "wsd_early": lambda: peak ** (1 - y) * end**y,
        "wsd_linear": lambda: peak + (end - peak) * y,
        "two_stage": lambda: np.where(x < 0.5, peak, 0.2 * peak),
    }[kind]()
    return np.minimum(shape, peak * (s + 1) / warmup)


def corpus():
    """Bytes of the standard library's sources, whole files shuffled by the seed: (training, held-out)."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(p for p in root.rglob("*.py") if "site-packages" not in p.parts)
    order = np.random.default_rng(SEED).permutation(len(files))
    texts = [files[i].read_bytes() for i in order]
    held = len(texts) // 20
    train, test = (np.frombuffer(b"\n".join(part), np.uint8) for part in (texts[held:], texts[:held]))
    return train, test


def initial(key, width, layers):
    def dense(key, *shape):
        return jax.random.normal(key, shape) * shape[-2] ** -0.5

    keys = jax.random.split(key, 5)
    return {
        "embed": jax.random.normal(keys[0], (256, width)) * 0.02,
        "qkv": dense(keys[1], layers, width, 3 * width),
        "out": dense(keys[2], layers, width, width) / (2 * layers) ** 0.5,
        "up": dense(keys[3], layers, width, 4 * width),
        "down": dense(keys[4], layers, 4 * width, width) / (2 * layers) ** 0.5,
        "norms": jnp.ones((layers, 2, width)),
        "last_norm": jnp.ones(width),
    }


def norm(x, gain):
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6) * gain


def rotate(x):
    half = HEAD_DIM // 2
    angle = jnp.arange(x.shape[1])[:, None] * 10_000.0 ** (-jnp.arange(half) / half)
    cos, sin = jnp.cos(angle)[None, :, None], jnp.sin(angle)[None, :, None]
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], -1)


def losses(weights, tokens):
    """Mean next-byte loss; tokens int[batch, CONTEXT_LENGTH + 1]."""
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    batch, length = inputs.shape
    mask = jnp.tril(jnp.ones((length, length), bool))
    x = weights["embed"][inputs]
    for layer in range(weights["qkv"].shape[0]):
        gains = weights["norms"][layer]
        q, k, v = jnp.split((norm(x, gains[0]) @ weights["qkv"][layer]).reshape(batch, length, -1, HEAD_DIM), 3, axis=2)
        scores = jnp.einsum("blhd,bmhd->bhlm", rotate(q), rotate(k)) * HEAD_DIM**-0.5
        probs = jax.nn.softmax(jnp.where(mask, scores, -1e9))
        x = x + jnp.einsum("bhlm,bmhd->blhd", probs, v).reshape(batch, length, -1) @ weights["out"][layer]
        x = x + jax.nn.gelu(norm(x, gains[1]) @ weights["up"][layer]) @ weights["down"][layer]
    logits = norm(x, weights["last_norm"]) @ weights["embed"].T
    return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()


def sequences(text, count, rng):
    """`count` disjoint sequences in random order, each overlapping the next by the one byte it predicts."""
    starts = rng.permutation((len(text) - 1) // CONTEXT_LENGTH)[:count] * CONTEXT_LENGTH
    if len(starts) < count:
        raise SystemExit(f"the corpus has {len(text):,} bytes, {count * CONTEXT_LENGTH:,} are needed")
    return text[starts[:, None] + np.arange(CONTEXT_LENGTH + 1)].astype(np.int32)


@jax.jit
def mean_loss(weights, batches):
    return jax.lax.map(partial(losses, weights), batches).mean()


def train(run):
    """One run of the ladder: its row, with the curve on held-out text where `run` asks for one."""
    (width, layers), steps = run["size"], run["tokens"] // (BATCH_SIZE * CONTEXT_LENGTH)
    peak = peak_learning_rate(width) * run.get("peak_factor", 1.0)
    rates = learning_rates(run["schedule"], steps, peak)
    train_text, test_text = corpus()
    data = sequences(train_text, steps * BATCH_SIZE, np.random.default_rng(SEED + run["seed"])).reshape(steps, BATCH_SIZE, -1)
    held_out = sequences(test_text, VALIDATION_SEQUENCES, np.random.default_rng(SEED)).reshape(-1, 32, CONTEXT_LENGTH + 1)
    weights = initial(jax.random.key(SEED + run["seed"]), width, layers)
    optimizer = optax.inject_hyperparams(optax.adamw)(learning_rate=0.0, b1=0.9, b2=0.98, weight_decay=0.1)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optimizer)
    state = optimizer.init(weights)

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(weights, state, tokens, rate):
        gradients = jax.grad(losses)(weights, tokens)
        state[1].hyperparams["learning_rate"] = rate
        updates, state = optimizer.update(gradients, state, weights)
        return optax.apply_updates(weights, updates), state

    began, curve = time.time(), []
    for index in range(steps):
        weights, state = step(weights, state, data[index], rates[index])
        if run["curve"] and (index % CURVE_EVERY == CURVE_EVERY - 1 or index == steps - 1):
            curve.append((index, float(mean_loss(weights, held_out[: CURVE_SEQUENCES // 32]))))
    params = sum(w.size for w in jax.tree.leaves(weights))
    tokens = steps * BATCH_SIZE * CONTEXT_LENGTH
    return {
        **run,
        "row": {
            "params": params,
            "tokens": tokens,
            "compute": 6 * params * tokens,
            "learning_rate": peak,
            "batch_size": BATCH_SIZE * CONTEXT_LENGTH,
            "schedule": run["schedule"],
            "loss": float(mean_loss(weights, held_out)),
            "seed": run["seed"],
        },
        "rates": [float(f"{r:.7g}") for r in rates] if run["curve"] else None,
        "curve_points": curve,
        "seconds": time.time() - began,
    }


def work(run):
    result = train(run)
    with PROGRESS.open("a") as out:  # one short write a run: appends from two workers don't mix
        out.write(json.dumps(result) + "\n")
    print(f"{run['size']} {run['tokens']:>9,} {run['schedule']:10s} loss {result['row']['loss']:.4f}  {result['seconds']:.0f} s", flush=True)


def planned():
    ladder = [{"size": list(size), "tokens": tokens, "schedule": "cosine", "seed": 0, "curve": False} for size in SIZES for tokens in TOKENS]
    kinds = ("constant", "cosine", "two_stage", "wsd", "wsd_linear", "wsd_early")
    curves = [{"size": list(CURVE_SIZE), "tokens": CURVE_TOKENS, "schedule": kind, "seed": 1, "curve": True} for kind in kinds]
    return curves + sorted(ladder, key=lambda r: -(r["size"][0] ** 2) * r["size"][1] * r["tokens"])


def finished():
    return [json.loads(line) for line in PROGRESS.read_text().splitlines()] if PROGRESS.exists() else []


def same(a, b):
    return all(a[key] == b[key] for key in ("size", "tokens", "schedule", "seed", "curve"))


def write_tables():
    import csv

    done = finished()
    with (SHIPPED / "runs.csv").open("w", newline="") as out:
        rows = [next(d["row"] for d in done if same(d, run)) for run in planned() if not run["curve"]]
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda r: (r["params"], r["tokens"])))
    with (SHIPPED / "curves.csv").open("w", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["schedule", "step", "learning_rate", "loss"])
        for run in planned():
            if run["curve"]:
                result = next(d for d in done if same(d, run))
                losses_at = dict(map(tuple, result["curve_points"]))
                writer.writerows([run["schedule"], step, rate, f"{losses_at[step]:.6f}" if step in losses_at else ""] for step, rate in enumerate(result["rates"]))
    train_text, test_text = corpus()
    digest = hashlib.sha256(train_text.tobytes() + test_text.tobytes()).hexdigest()
    print(f"wrote {SHIPPED}; corpus {len(train_text):,} + {len(test_text):,} bytes, sha256 {digest}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--limit", type=int, help="train at most this many runs, write no tables")
    options = parser.parse_args()
    PROGRESS.parent.mkdir(exist_ok=True)
    todo = [run for run in planned() if not any(same(run, d) for d in finished())]
    Parallel(n_jobs=options.workers)(delayed(work)(run) for run in todo[: options.limit])
    if options.limit is None:
        write_tables()
