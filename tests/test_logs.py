"""Logs as people have them: recognised, said, streamed in one form; bad ones named or counted."""

import gzip
import itertools
import json
import math

import numpy as np
import polars as pl
import pytest

from lawbook.artifacts import log_lines
from lawbook.artifacts.log_fields import KINDS
from lawbook.artifacts.logs import open_log, rows
from lawbook.contract import LawbookError


@pytest.fixture
def write(tmp_path):
    """Records, text or bytes -> the path of a file with them."""

    def call(content, name="log.jsonl"):
        path = tmp_path / name
        if isinstance(content, list):
            content = "".join(json.dumps(row) + "\n" for row in content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return call


def read(path, *, most_rows=65536, after=None, **options):
    """(log, all its canonical columns joined, all faults)."""
    log = open_log(path, **options)
    batches = list(rows(log, most_rows=most_rows, after=after))
    faults = log_lines.Faults()
    for batch in batches:
        faults.merge(batch.faults)
    columns = {name: [*itertools.chain.from_iterable(batch.columns[name] for batch in batches)] for name in (batches[0].columns if batches else ())}
    return log, columns, faults


SAMPLES = [{"prompt": f"p{i % 7}", "correct": i % 3 == 0} for i in range(40)]


def test_samples_of_json_lines(write):
    log, columns, faults = read(write(SAMPLES))
    assert (log.kind, log.form, log.fields) == ("samples", "json lines", {"prompt": "prompt", "correct": "correct"}) and not faults
    assert columns["prompt"] == [row["prompt"] for row in SAMPLES] and columns["correct"] == [int(row["correct"]) for row in SAMPLES] and set(columns["samples"]) == {1}


def test_every_form_gives_the_same_samples(write, tmp_path):
    path = write(SAMPLES)
    expected = read(path)[1]
    frame = pl.DataFrame(SAMPLES)
    frame.write_csv(tmp_path / "log.csv")
    frame.write_parquet(tmp_path / "log.parquet")
    (tmp_path / "log.jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))
    (tmp_path / "log.json").write_text(json.dumps(SAMPLES, indent=1))
    (tmp_path / "nested.json").write_text(json.dumps({"samples": SAMPLES, "about": "x"}))
    (tmp_path / "columns.json").write_text(json.dumps({name: [row[name] for row in SAMPLES] for name in SAMPLES[0]}))
    (tmp_path / "semicolons.csv").write_text("Prompt;Is Correct\n" + "".join(f"{row['prompt']};{row['correct']}\n" for row in SAMPLES))
    (tmp_path / "wide.jsonl").write_bytes("\ufeff".encode("utf-16-le") + path.read_text().encode("utf-16-le"))
    (tmp_path / "marked.jsonl").write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    (tmp_path / "big.jsonl").write_bytes("\ufeff".encode("utf-16-be") + path.read_text().encode("utf-16-be"))
    np.savez(tmp_path / "log.npz", prompt=np.array([row["prompt"] for row in SAMPLES]), correct=np.array([row["correct"] for row in SAMPLES]))
    for name in ["log.csv", "log.parquet", "log.jsonl.gz", "log.json", "nested.json", "columns.json", "semicolons.csv", "wide.jsonl", "marked.jsonl", "big.jsonl", "log.npz"]:
        log, columns, faults = read(tmp_path / name, most_rows=11)
        assert log.kind == "samples" and columns == expected and not faults, name


@pytest.mark.parametrize("name", ["log.jsonl", "log.csv", "log.parquet", "log.json", "log.jsonl.gz", "wide.jsonl"])
def test_a_reader_goes_on_from_where_another_one_stopped(write, tmp_path, name):
    path = write(SAMPLES)
    if name == "log.csv":
        pl.DataFrame(SAMPLES).write_csv(tmp_path / name)
    elif name == "log.parquet":
        pl.DataFrame(SAMPLES).write_parquet(tmp_path / name)
    elif name == "log.jsonl.gz":
        (tmp_path / name).write_bytes(gzip.compress(path.read_bytes()))
    elif name == "wide.jsonl":
        (tmp_path / name).write_bytes("\ufeff".encode("utf-16-le") + path.read_text().encode("utf-16-le"))
    elif name == "log.json":
        (tmp_path / name).write_text(json.dumps(SAMPLES))
    log = open_log(tmp_path / name)
    whole = [prompt for batch in rows(log) for prompt in batch.columns["prompt"]]
    for batches in range(1, 6):
        stopped = list(itertools.islice(rows(log, most_rows=6), batches))
        assert [p for batch in stopped for p in batch.columns["prompt"]] == whole[: 6 * batches] or name == "log.csv"
        later = [p for batch in rows(log, after=stopped[-1].position, most_rows=9) for p in batch.columns["prompt"]]
        assert [p for batch in stopped for p in batch.columns["prompt"]] + later == whole


def test_lines_of_faults_are_right_after_a_stop(write):
    path = write("".join(json.dumps(row) + "\n" for row in SAMPLES[:9]) + "broken\n" + json.dumps(SAMPLES[0]) + "\n")
    log = open_log(path)
    first = next(rows(log, most_rows=4))
    (fault,) = [batch.faults for batch in rows(log, after=first.position, most_rows=4) if batch.faults]
    assert fault == {"no JSON": (1, 10)}


def test_progress_reaches_the_size(write):
    for name in ("log.jsonl", "log.csv"):
        path = write(SAMPLES if name == "log.jsonl" else "prompt,correct\na,1\nb,0\n", name)
        seen: list = []
        list(rows(open_log(path), progress=seen.append))
        assert seen[-1] == path.stat().st_size


@pytest.mark.parametrize(
    ("record", "samples", "correct"),
    [
        ({"prompt": "p", "correct": [0, 1, 1]}, 3, 2),
        ({"problem_id": 3, "is_correct": "true"}, 1, 1),
        ({"task_id": "HumanEval/0", "completion": "x", "passed": False}, 1, 0),
        ({"question": "q", "n": 1, "num_samples": 10, "num_correct": 4}, 10, 4),
        ({"prompt": [{"role": "user", "content": "hi"}], "score": 0.7}, 1, 1),
        ({"doc_id": 0, "doc": {"q": "?"}, "target": "4", "resps": [["4"]], "filtered_resps": ["4"], "exact_match": 1.0}, 1, 1),
        ({"doc_id": 0, "doc": {"q": "?"}, "target": "4", "resps": [["4"]], "filtered_resps": ["4"], "acc": 0.0, "acc_norm": 1.0}, 1, 0),
    ],
)
def test_samples_under_many_names(write, record, samples, correct):
    log, columns, faults = read(write([record, record]))
    assert log.kind == "samples" and not faults and columns["samples"] == [samples] * 2 and columns["correct"] == [correct] * 2


def test_scores_are_cut_at_a_threshold_that_is_said(write):
    path = write([{"prompt": "p", "score": score} for score in (0.2, 0.6, 0.9)])
    log, columns, _ = read(path)
    assert columns["correct"] == [0, 1, 1] and any("0.5" in sentence for sentence in log.said)
    assert read(path, threshold=0.8)[1]["correct"] == [0, 0, 1]
    with pytest.raises(LawbookError, match="threshold must be"):
        open_log(path, threshold=2)


def test_samples_of_a_harness_are_read_for_one_filter(write):
    path = write([{"doc_id": i // 2, "filter": ("strict", "flexible")[i % 2], "exact_match": i % 2} for i in range(8)])
    log, columns, faults = read(path)
    assert columns["correct"] == [0] * 4 and any("each filter (strict, flexible)" in s for s in log.said) and faults == {"another filter than strict": (4, 2)}


def test_samples_that_come_twice_are_kept_once_also_over_batches_and_stops(write):
    given = [{"prompt": f"p{i}", "sample_id": j, "correct": 1} for i in range(5) for j in range(4)]
    path = write([*given, *given[::2], {"prompt": "p0", "sample_id": None, "correct": 1}, {"prompt": "p0", "sample_id": None, "correct": 1}])
    for most in (3, 65536):
        _, columns, faults = read(path, most_rows=most)
        assert len(columns["prompt"]) == 22 and [*faults.values()] == [(10, 21)]
    log = open_log(path)
    stopped = list(itertools.islice(rows(log, most_rows=7), 3))
    assert sum(map(len, stopped)) + sum(map(len, rows(log, after=stopped[-1].position))) == 22


def test_samples_of_conversations_that_come_twice(write):
    chat = [{"role": "user", "content": "?"}]
    given = [{"prompt": prompt, "sample": 1, "correct": 1} for prompt in ("p", "q", chat, "p", chat, "q")]
    for most in (1, 2, 10):
        assert len(read(write(given), most_rows=most)[1]["prompt"]) == 3


def test_other_ids_that_come_twice_are_said_and_kept(write):
    _, columns, faults = read(write([{"id": i // 2, "winner": "a", "loser": "b"} for i in range(6)]))
    assert len(columns["winner"]) == 6 and faults == {"an id that was there before: the row is kept": (3, 2)}


def test_a_log_of_ten_thousand_keys_is_deduplicated_as_a_set_would(write):
    rng = np.random.default_rng(0)
    keys = [(f"p{a}", int(b)) for a, b in rng.integers(0, 60, (5000, 2))]
    _, columns, _ = read(write([{"prompt": p, "sample": s, "correct": 0} for p, s in keys]), most_rows=97)
    assert columns["prompt"] == [p for p, _ in dict.fromkeys(keys)]


def test_judgments_of_both_kinds_in_one_file(write):
    path = write(
        [
            {"question": "q", "answer": "a", "score": 3, "score_probabilities": {"3": 0.75, "4": 0.25}, "judge": "j"},
            {"question": "q", "first": "a", "second": "b", "verdict": "C", "verdict_probabilities": {"A": 0.2, "B": 0.3, "C": 0.5}, "cumulative_logprob": -4, "tokens": 8},
            {"question": "q", "first": "b", "second": "a", "verdict": "a"},
            {"question": "q", "first": "b", "second": "a", "verdict": "... My verdict: [[A]]"},
            {
                "question": "q",
                "answer": "b",
                "score_logprobs": [{"token": " 5", "logprob": math.log(0.3)}, {"token": "5", "logprob": math.log(0.3)}, {"token": "4", "logprob": math.log(0.2)}],
            },
            {"question": "q", "first": "b", "second": "a", "verdict": "neither did well"},
            {"note": "nothing"},
        ]
    )
    log, columns, faults = read(path)
    assert log.kind == "judgments" and columns["kind"] == ["score", "duel", "duel", "duel", "score"]
    assert columns["score"] == [3, None, None, None, 5] and columns["verdict"] == [None, "C", "B", "A", None] and columns["judge"][0] == "j"
    assert columns["score_probabilities"][0] == {3.0: 0.75, 4.0: 0.25} and columns["score_probabilities"][4] == pytest.approx({5.0: 0.75, 4.0: 0.25})
    assert columns["perplexity"][1] == pytest.approx(math.exp(0.5)) and columns["verdict_probabilities"][1] == {"A": 0.2, "B": 0.3, "C": 0.5}
    assert faults == {"a verdict that is neither of the two nor a tie": (1, 6), "no question": (1, 7)}


def test_judgments_of_mt_bench(write):
    single = [
        {"question_id": 81, "model": "m", "judge": ["gpt-4", "single-v1"], "user_prompt": "..", "judgment": "Rating: [[7]]", "score": s, "turn": t, "tstamp": 1.5}
        for s, t in ((7, 1), (-1, 2))
    ]
    log, columns, faults = read(write(single))
    assert log.kind == "judgments" and columns["question"] == ["81, turn 1"] and columns["answer"] == ["m"] and columns["score"] == [7] and columns["judge"] == ["gpt-4, single-v1"]
    assert [count for count, _ in faults.values()] == [1]
    pair = [
        {"question_id": 81, "model_1": "x", "model_2": "y", "g1_winner": a, "g2_winner": b, "judge": ["gpt-4", "pair-v2"], "turn": 1}
        for a, b in (("model_1", "model_1"), ("tie", "model_2"), ("error", "model_1"))
    ]
    _, columns, faults = read(write(pair))
    assert list(zip(columns["first"], columns["second"], columns["verdict"], strict=True)) == [("x", "y", "A"), ("y", "x", "B"), ("x", "y", "C"), ("y", "x", "A"), ("y", "x", "B")]
    assert faults == {"one verdict of two is none": (1, 3)}
    arena = [{"question_id": "a", "model_a": "x", "model_b": "y", "winner": w, "judge": "human_1", "turn": 1} for w in ("model_a", "model_b", "tie", "tie (bothbad)")]
    assert read(write(arena))[1]["verdict"] == ["A", "B", "C", "C"]


def test_probabilities_of_scores_must_sum_to_one(write):
    path = write([{"question": "q", "answer": "a", "score": 1, "score_probabilities": {"1": 0.5, "2": 0.3}}, {"question": "q", "answer": "b", "score": 1}])
    _, columns, faults = read(path)
    assert columns["answer"] == ["b"] and faults == {"score_probabilities sum to 0.80, not to 1": (1, 1)}
    assert read(path, renormalise=True)[1]["score_probabilities"][0] == pytest.approx({1.0: 0.625, 2.0: 0.375})


CHAT = {
    "choices": [
        {"logprobs": {"content": [{"token": t, "logprob": p, "top_logprobs": [{"token": t, "logprob": p}, {"token": "z", "logprob": -3}]} for t, p in (("a", -0.1), ("b", -2.0))]}}
    ]
}


@pytest.mark.parametrize(
    "record",
    [
        {"logprobs": [-0.1, -2.0], "tokens": ["a", "b"], "mask": [1, 0]},
        {"token_logprobs": [-0.1, -2.0], "tokens": ["a", "b"], "entropies": [0.3, 0.1]},
        CHAT,
        CHAT["choices"][0],
        {"custom_id": "x", "response": {"body": CHAT}},
        {"choices": [{"text": "ab", "logprobs": {"tokens": ["a", "b"], "token_logprobs": [-0.1, -2.0], "top_logprobs": [{"a": -0.1}, {"b": -2.0}]}}]},
    ],
)
def test_tokens_of_servers(write, record):
    log, columns, faults = read(write([record]))
    assert log.kind == "tokens" and not faults and columns["logprobs"] == [[-0.1, -2.0]] and columns["tokens"] == [["a", "b"]]
    if "choices" in record:
        assert columns["top_logprobs"][0][1]["b"] == -2.0
    assert read(write(json.dumps(record, indent=2), "log.json"))[1]["logprobs"] == [[-0.1, -2.0]]


def test_tokens_that_cannot_be(write):
    path = write([{"logprobs": [-1.0], "advantages": 2.5}, {"logprobs": [0.5]}, {"logprobs": [-1.0], "mask": [1, 1]}, {"logprobs": []}, {"logprobs": [None, -1.0]}])
    _, columns, faults = read(path)
    assert columns["advantages"] == [[2.5], None] and math.isnan(columns["logprobs"][1][0])
    assert faults == {"a log-probability above 0": (1, 2), "as many mask as tokens are needed": (1, 3), "no log-probabilities": (1, 4)}


def test_steps_in_arrays(tmp_path):
    p = np.full((5, 3), 1 / 3)
    np.savez_compressed(tmp_path / "log.npz", step_probabilities=p, tokens=np.arange(5) % 3)
    log, columns, _ = read(tmp_path / "log.npz", most_rows=2)
    assert log.kind == "tokens" and columns["tokens"] == [0, 1, 2, 0, 1] and np.shape(columns["step_probabilities"]) == (5, 3)


def test_steps_must_be_distributions(tmp_path):
    p = np.array([[0.5, 0.5], [0.5, 0.9], [np.nan, 1], [1, 0]])
    np.savez(tmp_path / "log.npz", step_probabilities=p, tokens=np.array([0, 1, 0, 7]))
    _, columns, faults = read(tmp_path / "log.npz")
    assert columns["tokens"] == [0]
    assert faults == {"a token that is no whole number from 0 to 1": (1, 4), "probabilities with NaN": (1, 3), "probabilities that do not sum to one": (1, 2)}
    assert np.allclose(read(tmp_path / "log.npz", renormalise=True)[1]["step_probabilities"], [[0.5, 0.5], [0.5 / 1.4, 0.9 / 1.4]])


def test_training_of_many_trainers(write):
    trl = {
        "log_history": [
            {"step": 1, "reward": 0.2, "kl": 0.01, "entropy": 1.1, "learning_rate": 1e-6, "clip_ratio/region_mean": 0.1},
            {"step": 2, "eval_reward": 0.4},
            {"train_runtime": 3.0, "step": 2},
        ]
    }
    log, columns, faults = read(write(json.dumps(trl), "trainer_state.json"))
    assert log.kind == "training" and columns["step"] == [1, 2] and columns["clip_fraction"][0] == 0.1 and columns["score"][1] == 0.4 and math.isnan(columns["reward"][1])
    assert faults == {"a step with nothing that is used": (1, 3)}
    log, columns, _ = read(write("training/global_step,critic/rewards/mean,actor/entropy,actor/pg_clipfrac\n1,0.5,2.0,0\n2,0.75,1.5,\n", "run.csv"))
    assert log.kind == "training" and columns["reward"] == [0.5, 0.75] and math.isnan(columns["clip_fraction"][1])


def _logits(tmp_path, values, labels, name="logits"):
    np.savez(tmp_path / "log.npz", **{name: np.array(values)}, labels=np.array(labels))
    return tmp_path / "log.npz"


def test_logits_and_what_is_refused(tmp_path):
    good = np.random.default_rng(0).normal(size=(6, 3))
    log, columns, _ = read(_logits(tmp_path, good, [0, 1, 2, 0, 1, 2]), most_rows=4)
    assert log.kind == "logits" and np.array_equal(columns["logits"], good) and columns["labels"] == [0, 1, 2, 0, 1, 2]
    spoilt = good.copy()
    spoilt[2, 1] = np.nan
    path = _logits(tmp_path, spoilt, [0, 1, 2, 0, 1, 3])
    with pytest.raises(LawbookError, match=r"no whole number from 0 to 2 \(1 row, first 6\).*NaN \(1 row, first 3\)"):
        open_log(path)
    assert read(path, drop=True)[1]["labels"] == [0, 1, 0, 1]
    assert any("one class, 1" in s for s in open_log(_logits(tmp_path, good, [1] * 6)).said)


def test_infinite_logits(tmp_path):
    """A class may be ruled out; all of them, or one that rules out the rest, leave no probabilities."""
    path = _logits(tmp_path, [[0.0, -np.inf], [np.inf, 0.0], [-np.inf, -np.inf]], [0, 1, 1])
    with pytest.raises(LawbookError, match=r"infinite \(2 rows, first 2\)"):
        open_log(path)
    assert read(path, drop=True)[1]["labels"] == [0]


def test_probabilities_that_miss_one(tmp_path):
    path = _logits(tmp_path, [[0.5, 0.5], [0.5, 0.3], [0.2, 0.4]], [0, 1, 1], "probabilities")
    with pytest.raises(LawbookError, match=r"do not sum to one in 2 rows \(first 2; by up to 0.4\)"):
        open_log(path)
    log, columns, _ = read(path, renormalise=True)
    assert np.allclose(columns["probabilities"], [[0.5, 0.5], [0.625, 0.375], [1 / 3, 2 / 3]]) and any("0.4" in s for s in log.said)


@pytest.mark.parametrize("name", ["log.jsonl", "log.csv", "lists.csv"])
def test_logits_of_tables(write, name):
    values = [[1.0, -2.0], [0.5, 0.25]]
    if name == "log.jsonl":
        content = [{"logits": v, "label": i} for i, v in enumerate(values)]
    elif name == "log.csv":
        content = "logit_0,logit_1,label\n1.0,-2.0,0\n0.5,0.25,1\n"
    else:
        content = 'logits,label\n"[1.0, -2.0]",0\n"[0.5, 0.25]",1\n'
    log, columns, _ = read(write(content, name))
    assert log.kind == "logits" and np.array_equal(columns["logits"], values) and columns["labels"] == [0, 1]


def test_embeddings(tmp_path, write):
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    np.savez(tmp_path / "log.npz", embeddings=x, group=np.array(["a", "b", "a", "b", "a"]), target=np.arange(5))
    log, columns, _ = read(tmp_path / "log.npz", most_rows=2)
    assert log.kind == "embeddings" and np.array_equal(columns["embeddings"], x) and columns["group"][1] == "b" and columns["target"] == [0, 1, 2, 3, 4]
    np.save(tmp_path / "log.npy", np.asfortranarray(x))
    assert np.array_equal(read(tmp_path / "log.npy")[1]["embeddings"], x)
    np.savez(tmp_path / "two.npz", accepted=x[:3], refused=np.asfortranarray(x[3:]))
    log = open_log(tmp_path / "two.npz")
    whole = list(rows(log, most_rows=2))
    assert [g for batch in whole for g in batch.columns["group"]] == ["accepted"] * 3 + ["refused"] * 2
    assert np.array_equal(np.concatenate([b.columns["embeddings"] for b in whole]), x)
    assert np.array_equal(np.concatenate([b.columns["embeddings"] for b in rows(log, after=whole[1].position)]), x[3:])
    np.savez(tmp_path / "xy.npz", x=x, y=np.arange(5))
    assert read(tmp_path / "xy.npz")[1]["target"] == [0, 1, 2, 3, 4]
    _, columns, _ = read(write([{"safe": [0.0, 1.0], "unsafe": [2.0, 3.0]}] * 2))
    assert columns["group"] == ["safe", "safe", "unsafe", "unsafe"] and np.array_equal(columns["embeddings"], [[0, 1], [0, 1], [2, 3], [2, 3]])


def test_texts_rewards_comparisons_evidence_answers(write):
    chat = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "no"}]
    _, columns, faults = read(write([{"prompt": "p", "chosen": "yes", "rejected": chat}, {"prompt": "p", "chosen": 3, "rejected": None}]))
    assert columns == {"prompt": ["p"], "accepted": [["yes"]], "refused": [["no"]]} and faults == {"neither accepted nor refused texts": (1, 2)}
    log, columns, _ = read(write([{"prompt": "p", "rewards": {"help": 1, "harm": -0.5}}, {"prompt": "q", "rewards": {"help": 2}}]))
    assert log.kind == "rewards" and columns["reward_help"] == [1, 2] and math.isnan(columns["reward_harm"][1])
    assert read(write("prompt,reward_help,reward_harm\np,1,2\n", "r.csv"))[1]["reward_harm"] == [2]
    _, columns, faults = read(write([{"winner": "a", "loser": 7}, {"winner": "a", "loser": "a"}]))
    assert columns == {"winner": ["a"], "loser": ["7"]} and len(faults) == 1
    _, columns, faults = read(write([{"log_target": -3.0, "log_skeletons": [-1.0, -2.0], "correct": True}, {"log_target": 1.0, "log_skeletons": [-1.0]}]))
    assert columns["correct"] == [1] and columns["log_skeletons"] == [[-1.0, -2.0]] and len(faults) == 1
    _, columns, faults = read(write([{"question": "q", "category": "c", "answers": [{"score": 1, "text": ["a", "b"]}, {"score": None, "text": ["c"]}]}]))
    assert columns["text"] == ["a", "b"] and columns["score"] == [1, 1] and faults == {"an answer without a score or a text": (1, 1)}


def test_records_name_what_is_sensitive(write):
    log, columns, faults = read(write("age,sex,race,y_pred,score\n40,F,x,1,0.75\n,M,y,0,0.5\n3,,y,0,0.5\n", "people.csv"))
    assert log.kind == "records" and columns["sensitive"] == ["F", "M"] and columns["prediction"] == [1, 0] and faults == {"no sensitive": (1, 4)}
    assert any("sex is taken as the sensitive attribute; race could be it too" in s for s in log.said)
    path = write("1,5.5,a\n0,6.5,b\n", "units.data")
    with pytest.raises(LawbookError, match=r"column 1, column 2, column 3.*kind="):
        open_log(path)
    log, columns, _ = read(path, fields={"treatment": 1, "outcome": "2"})
    assert columns == {"treatment": [1, 0], "outcome": [5.5, 6.5]} and any("no header" in s for s in log.said)


def test_kind_and_fields_override(write):
    path = write([{"a": "p", "b": 1, "winner": "x", "loser": "y"}])
    assert open_log(path).kind == "comparisons"
    log, columns, _ = read(path, kind="samples", fields={"prompt": "a", "correct": "b"})
    assert log.kind == "samples" and columns["prompt"] == ["p"]
    for options, words in (
        ({"kind": "sample"}, "samples"),
        ({"fields": {"sensitve": "a"}}, "sensitive"),
        ({"fields": {"prompt": "z"}}, "'z' for prompt is not in the log; it has 'a', 'b'"),
        ({"kind": "training"}, "needs the fields step, reward"),
        ({"kind": "samples", "fields": {"loser": "a"}}, "loser"),
    ):
        with pytest.raises(LawbookError, match=words):
            open_log(path, **options)


def test_nothing_is_recognised_in_a_table_of_other_things(write):
    with pytest.raises(LawbookError, match="cannot be recognised: its fields are height, weight"):
        open_log(write("height,weight\n1,2\n", "t.csv"))


def test_mixed_schemas_use_what_is_understood(write):
    given = [{"prompt": "p", "correct": 1}, {"event": "start"}, {"prompt": "q", "correct": "maybe"}, [1, 2], {"prompt": "r", "correct": 0}]
    _, columns, faults = read(write(given))
    assert columns["prompt"] == ["p", "r"]
    assert faults == {"correct is no flag or number from 0 to 1": (2, 2), "no prompt": (1, 2), "no JSON object": (1, 4)}


def test_a_truncated_last_line_is_counted(write):
    path = write("".join(json.dumps(row) + "\n" for row in SAMPLES) + '{"prompt": "p')
    log, columns, faults = read(path)
    assert len(columns["prompt"]) == 40 and faults == {"the last line is cut off": (1, 41)} and any("cut off" in s for s in log.said)


def test_one_bad_line_costs_one_line(write):
    lines = [json.dumps(row) for row in SAMPLES]
    lines[7] = '{"prompt": "p", "correct": 1}, {"prompt": "q", "correct": 1}'
    lines[20] = ""
    _, columns, faults = read(write("\n".join(lines) + "\n"))
    assert len(columns["prompt"]) == 38 and faults == {"no JSON": (1, 8)}


def test_lines_of_a_million_letters_are_read_like_any(write):
    path = write([{"prompt": "x" * 10**6, "correct": 1}, {"prompt": "y" * (9 * 10**6), "correct": 0}, *SAMPLES])
    _, columns, faults = read(path)
    assert [len(p) for p in columns["prompt"][:2]] == [10**6, 9 * 10**6] and len(columns["prompt"]) == 42 and not faults
    assert len(read(write(f"prompt,correct\n{'x' * 10**6},1\n", "long.csv"))[1]["prompt"][0]) == 10**6


def test_blocks_of_any_size_give_the_same_lines(write, monkeypatch):
    path = write(SAMPLES)
    expected = read(path)[1]
    wide = write("\ufeff".encode("utf-16-le") + path.read_text().replace("p1", "ਊpĊ1").encode("utf-16-le"), "wide.jsonl")
    for size in (7, 64, 1000):
        monkeypatch.setattr(log_lines, "BLOCK", size)
        assert read(path)[1] == expected
        assert len(read(wide)[1]["prompt"]) == 40


def test_wrong_encodings_name_the_byte(write):
    content = json.dumps(SAMPLES[0]) + "\n" + json.dumps({"prompt": "müde", "correct": 1}, ensure_ascii=False) + "\n"
    path = write(content.encode("latin-1"))
    with pytest.raises(LawbookError, match=r"Byte 14 of line 2 of the log .* \(fc\) is not UTF-8.*encoding=latin-1"):
        open_log(path)
    assert read(path, encoding="latin-1")[1]["prompt"][1] == "müde"
    with pytest.raises(LawbookError, match="encoding must be one that Python knows"):
        open_log(path, encoding="klingon")
    table = write("prompt,correct\nmüde,1\n".encode("latin-1"), "t.csv")
    with pytest.raises(LawbookError, match="UTF-8"):
        open_log(table)
    assert read(table, encoding="latin-1")[1]["prompt"] == ["müde"]


@pytest.mark.parametrize(
    ("content", "name", "words"),
    [
        (b"", "log.jsonl", "is empty"),
        (b"\n \n", "log.csv", "is empty"),
        (b"[]", "log.json", "no records"),
        (b"\x00\x01\x02\x00" * 50, "log.jsonl", "binary"),
        (b"\x80\x04\x95", "log.pkl", "binary"),
        (b"PK\x03\x04abc", "log.xlsx", "workbook"),
        (b"PK\x03\x04abc", "log.npz", "cannot be read as arrays"),
        (b"PAR1abc", "log.parquet", "cannot be read"),
        (b'{"a": \n', "log.json", "no JSON"),
        (b"not json\nat all\n", "log.jsonl", "no record"),
        (b"[1, 2]", "log.json", "no record"),
        (gzip.compress(b'{"prompt": "p", "correct": 1}\n' * 10**5)[:150], "log.jsonl.gz", "cannot be read"),
    ],
)
def test_files_that_are_no_logs(write, content, name, words):
    with pytest.raises(LawbookError, match=words):
        read(write(content, name))


def test_folders_and_missing_files(tmp_path):
    with pytest.raises(LawbookError, match="is a folder"):
        open_log(tmp_path)
    with pytest.raises(LawbookError, match="no file"):
        open_log(tmp_path / "none.jsonl")


def test_pickles_in_arrays_are_refused(tmp_path):
    np.savez(tmp_path / "log.npz", logits=np.array([{}], object), labels=np.zeros(1))
    with pytest.raises(LawbookError, match="Python objects"):
        open_log(tmp_path / "log.npz")


def test_rows_of_a_table_with_other_lengths_are_counted(write):
    _, columns, faults = read(write('prompt,correct\n"a, b",1\nc,0,9\n\nd,1\n"two\nlines",0\n', "t.csv"))
    assert columns["prompt"] == ["a, b", "d", "two\nlines"] and faults == {"not 2 cells": (1, 3)}


def test_a_quote_that_is_not_closed_is_said(write):
    _, columns, faults = read(write('prompt,correct\na,1\n"b,1\nc,0\nd,1\n', "t.csv"))
    assert columns["prompt"] == ["a"] and faults == {"not 2 cells but several lines: a quote is not closed": (1, 3)}


def test_tables_in_utf_16(write):
    log, columns, _ = read(write("prompt\tcorrect\nmüde\t1\nwach\t0\n".encode("utf-16"), "t.tsv"))
    assert columns["prompt"] == ["müde", "wach"] and columns["correct"] == [1, 0] and any("UTF-16" in s for s in log.said)


def test_zstandard_is_read_or_the_way_out_is_said(write):
    path = write(b"\x28\xb5\x2f\xfd" + b"x" * 20, "log.jsonl.zst")
    with pytest.raises(LawbookError, match=r"compressed by zstd|cannot be read"):
        open_log(path)


ODD = [
    None,
    True,
    1,
    -1,
    1e300,
    math.nan,
    10**400,
    "",
    "x",
    "7",
    "[1,2]",
    '{"a":1}',
    [],
    [1],
    [None],
    ["a"],
    {},
    {"a": 1},
    {"A": 0.5},
    [[1]],
    [{"token": "1", "logprob": -1}],
    "\ud800",
]


@pytest.mark.parametrize("seed", range(4))
def test_whatever_a_log_holds_is_read_counted_or_refused(write, seed):
    import random

    chance = random.Random(seed)
    for _ in range(100):
        kind = chance.choice([*KINDS.values()])
        names = [chance.choice(kind.spellings(role)) for role in chance.sample([*kind.roles], chance.randint(1, len(kind.roles)))]
        usual = {name: chance.choice(ODD) for name in names}
        records = [{name: chance.choice([usual[name], usual[name], chance.choice(ODD)]) for name in names if chance.random() < 0.95} for _ in range(6)]
        path = write(records)
        try:
            log = open_log(path, kind=chance.choice([None, kind.name]), drop=chance.random() < 0.5, renormalise=True)
        except LawbookError as error:
            assert "\n" not in str(error)
            continue
        for batch in rows(log, most_rows=chance.choice([1, 4, 100])):
            assert len({len(column) for column in batch.columns.values()}) <= 1


def test_what_kinds_need_they_know():
    for kind in KINDS.values():
        assert all(set(needs.replace("reward_*", "rewards").split()) <= kind.roles.keys() for needs in kind.needs), kind.name


def test_many_lines_in_bounded_memory(tmp_path):
    """What is held at once is a few blocks."""
    import tracemalloc

    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"prompt": "problem-1", "correct": true, "sample": 1, "model": "m"}\n' * 100_000)
    log = open_log(path)
    log.reading.pop("key")
    tracemalloc.start()
    assert sum(len(batch) for batch in rows(log, most_rows=10_000)) == 100_000
    assert tracemalloc.get_traced_memory()[1] < 30 * 2**20
    tracemalloc.stop()


def test_the_real_logs(real_data):
    log, columns, faults = read(real_data / "judged-answers" / "answers.jsonl")
    assert log.kind == "answers" and len(columns["text"]) == 20 and set(columns["score"]) == {1, 2, 3, 4, 5} and not faults
    log, columns, faults = read(real_data / "accept-reject" / "accept_reject.jsonl")
    assert log.kind == "texts" and len(columns["prompt"]) == 1256 and all(columns["accepted"]) and all(columns["refused"]) and not faults
    log, columns, faults = read(real_data / "adult" / "adult.data", fields={"sensitive": 10, "label": 15})
    assert len(columns["label"]) == 32561 and set(columns["sensitive"]) == {"Male", "Female"} and set(columns["label"]) == {"<=50K", ">50K"} and not faults
    log, columns, faults = read(real_data / "adult" / "adult.test", fields={"sensitive": 10, "label": 15})
    assert len(columns["label"]) == 16281 and faults == {"not 15 cells": (1, 1)}
    log, columns, faults = read(real_data / "ihdp" / "ihdp_npci_1.csv", fields={"treatment": 1, "outcome": 2})
    assert len(columns["outcome"]) == 747 and set(columns["treatment"]) == {0, 1} and np.mean(columns["treatment"]) == pytest.approx(139 / 747)
