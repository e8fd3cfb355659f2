"""Logs made by simulation: a judge with a bias for a position, a classifier on digits, a tabular run of group-relative training, and others."""

import json

import numpy as np

LETTERS = "ABC"


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def judge(path, questions=60, answers=4, bias=0.6, seed=0):
    """Scores with their distribution and verdicts in both orders, of a judge that sees qualities through noise and favours the first shown."""
    rng = np.random.default_rng(seed)
    lines = []
    for q in range(questions):
        quality = rng.normal(size=answers)
        for a in range(answers):
            p = softmax(-((np.arange(1, 6) - 3 - quality[a] + 0.3 * rng.normal()) ** 2) / 0.8)
            lines.append({"question_id": q, "model": f"m{a}", "score": int(np.argmax(p)) + 1, "score_probabilities": {str(s + 1): round(float(p[s]), 6) for s in range(5)}})
        for a in range(answers):
            for b in range(a + 1, answers):
                for first, second in ((a, b), (b, a)):
                    gap = quality[first] - quality[second] + 0.8 * rng.normal()
                    p = softmax(np.array([gap + bias, -gap, -0.5]))
                    row = {"question_id": q, "model_a": f"m{first}", "model_b": f"m{second}", "verdict": LETTERS[int(np.argmax(p))]}
                    lines.append({**row, "verdict_probabilities": dict(zip(LETTERS, np.round(p, 6).tolist(), strict=True))})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return lines


def samples(path, prompts=120, each=32, seed=0, stages=("",)):
    """One line a sample, with success rates of a Beta law."""
    rng = np.random.default_rng(seed)
    rates, lines = rng.beta(0.4, 1.2, prompts), []
    for stage in stages:
        for q in range(prompts):
            for s in range(each):
                lines.append({"problem_id": f"p{q}", "sample_id": s, "correct": bool(rng.uniform() < rates[q]), **({"stage": stage} if stage else {})})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return lines


def digits(path, sharpened=6.0):
    """Logits of a small network on scikit-learn's digits, made over-confident."""
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    train, held = order[:600], order[600:]
    model = LogisticRegression(C=0.002, max_iter=2000).fit(x[train], y[train])
    logits = sharpened * model.decision_function(x[held])
    np.savez(path, logits=logits, labels=y[held])
    return logits, y[held]


def group_relative_run(path, steps=500, states=40, actions=8, group=8, learning_rate=2.0, seed=0):
    """A softmax policy trained on rewards of 0 and 1 with group-relative advantages: step, reward, entropy, success_rate, group_size."""
    rng = np.random.default_rng(seed)
    chance = rng.uniform(0.05, 0.95, (states, actions))
    logits, rows = np.zeros((states, actions)), []
    for step in range(steps):
        p = softmax(logits)
        drawn = (rng.uniform(size=(states, group, 1)) > np.cumsum(p, 1)[:, None, :-1]).sum(2)
        reward = (rng.uniform(size=(states, group)) < np.take_along_axis(chance, drawn, 1)).astype(float)
        advantage = reward - reward.mean(1, keepdims=True)
        gradient = np.zeros_like(logits)
        np.add.at(gradient, (np.arange(states)[:, None], drawn), advantage / group)
        gradient -= p * (advantage.sum(1, keepdims=True) / group)
        entropy = -np.sum(p * np.log(p), 1).mean()
        rows.append((step, reward.mean(), entropy, reward.mean(), group))
        logits += learning_rate * gradient
    np.savetxt(path, rows, delimiter=",", header="step,reward,entropy,success_rate,group_size", comments="", fmt="%.8g")
    return np.array(rows)


def texts_of_a_model(path, texts=40, length=200, foreign=8, vocab=50, seed=0):
    """Token log-probabilities, entropies and variances of texts of a Markov model; the last `foreign` come from a hotter one."""
    rng = np.random.default_rng(seed)
    rows = 0.98 * rng.dirichlet(np.full(vocab, 0.2), vocab) + 0.02 / vocab
    hot = rows ** (1 / 2.0)
    hot /= hot.sum(1, keepdims=True)
    entropy = -np.sum(rows * np.log(rows), 1)
    variance = np.sum(rows * np.log(rows) ** 2, 1) - entropy**2
    lines = []
    for i in range(texts):
        law = hot if i >= texts - foreign else rows
        state, record = 0, {"logprobs": [], "entropies": [], "variances": [], "tokens": []}
        for _ in range(length):
            token = int(rng.choice(vocab, p=law[state]))
            for name, value in zip(record, (np.log(rows[state, token]), entropy[state], variance[state], token), strict=True):
                record[name].append(float(value) if name != "tokens" else value)
            state = token
        record["advantages"] = float(rng.normal())
        lines.append(record)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return lines


def reward_heads(path, prompts=200, group=8, seed=0):
    """Three heads of very different spread."""
    rng = np.random.default_rng(seed)
    lines = [{"prompt_id": q, "rewards": {"helpful": 3 * rng.normal(), "safe": 0.3 * rng.normal(), "polite": 0.5 * rng.normal() + 5}} for q in range(prompts) for _ in range(group)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return lines


def evidence(path, questions=80, skeletons=6, seed=0):
    """Log-probabilities under skeletons, with the truth."""
    rng = np.random.default_rng(seed)
    lines = []
    for _ in range(questions):
        known = rng.uniform() < 0.6
        target = -0.1 if known else -1.5
        q = np.clip(rng.beta(2, 6, skeletons), 0.02, 0.9)
        lines.append({"log_target": target, "log_skeletons": np.log(q).tolist(), "event_probabilities": q.tolist(), "correct": bool(rng.uniform() < (0.95 if known else 0.3))})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return lines
