"""What logs are: their kinds, the roles of their fields, and the names that people give to these; the file to edit where a name is not understood."""

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Kind:
    """A kind of log. A file is of it that has the roles of one of `needs`; a role is looked for under its spellings, those that win first."""

    name: str
    about: str
    needs: tuple[str, ...]  # each the roles that suffice together
    roles: dict[str, str]

    def spellings(self, role):
        """The names under which a role is looked for, the role itself first."""
        return [role, *(word for word in self.roles[role].split() if word != role)]


QUESTION = "question_id qid prompt_id query_id question prompt query instruction task_id item_id item"
MODEL = "model model_name model_id"
PAIRS = (("accepted", "refused"), ("safe", "unsafe"), ("x", "y"))  # of embeddings
KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            "answers",
            "answers of several to a question, with scores by people",
            ("question answers",),
            {"question": "prompt instruction query", "answers": "", "category": "topic subject", "id": "question_id qid"},
        ),
        Kind(
            "texts",
            "texts that people accepted and refused",
            ("accepted refused",),
            {
                "prompt": "question instruction query input",
                "accepted": "chosen acc_responses accepted_responses chosen_response response_chosen preferred safe_responses safe_response",
                "refused": "rejected rej_responses rejected_responses rejected_response response_rejected dispreferred refused_responses unsafe_responses unsafe_response",
            },
        ),
        Kind(
            "evidence",
            "log-probabilities of answers under their skeletons",
            ("log_target log_skeletons", "log_target event_probabilities"),
            {
                "log_target": "log_p_target target_logprob target_log_probability",
                "log_skeletons": "skeleton_logprobs log_p_skeletons skeleton_log_probabilities",
                "event_probabilities": "event_probs events",
                "answer": "",
                "correct": "is_correct",
            },
        ),
        Kind(
            "tokens",
            "log-probabilities of the tokens of texts",
            ("logprobs", "step_probabilities tokens", "entropies", "completion"),
            {
                "logprobs": "log_probs token_logprobs token_log_probs logps log_probabilities token_log_probabilities",
                "tokens": "token_ids token_strings output_tokens input_ids ids",
                "entropies": "token_entropies entropy_per_token",
                "variances": "token_variances varentropies varentropy",
                "advantages": "token_advantages advantage",
                "mask": "response_mask loss_mask attention_mask completion_mask",
                "top_logprobs": "top_log_probs top_logprob",
                "group": "prompt_id group_id prompt question_id",
                "step_probabilities": "step_probs",
                "completion": "choices response.body.choices response.choices logprobs_result choices.logprobs",
            },
        ),
        Kind("rewards", "rewards of several heads", ("prompt rewards", "prompt reward_*"), {"prompt": QUESTION, "rewards": "reward_heads head_rewards", "weight": "weights"}),
        Kind(
            "logits",
            "logits or probabilities of classes with labels",
            ("logits labels", "probabilities labels"),
            {
                "logits": "logit outputs",
                "probabilities": "probs softmax predicted_probabilities y_prob y_proba proba",
                "labels": "label target targets y_true y true_label class",
            },
        ),
        Kind(
            "embeddings",
            "embeddings of things, perhaps of two groups",
            ("embeddings", "accepted refused", "safe unsafe", "x y"),
            {
                "embeddings": "embedding embedding_vector vectors vector features representations hidden_states emb embs",
                "group": "groups label labels split source",
                "target": "targets",
                **dict.fromkeys(("accepted", "refused", "safe", "unsafe", "x", "y"), ""),
            },
        ),
        Kind(
            "judgments",
            "scores or verdicts of a judge",
            (
                "question answer score",
                "question answer score_probabilities",
                "question answer score_logprobs",
                "first second verdict",
                "first second verdict_swapped",
                "first second verdict_probabilities",
            ),
            {
                "question": QUESTION,
                "answer": f"answer_id {MODEL} response response_id candidate system assistant output",
                "score": "rating grade judge_score judgement_score judgment_score",
                "score_probabilities": "score_probs score_distribution score_dist rating_probabilities",
                "score_logprobs": "score_log_probs score_top_logprobs rating_logprobs top_logprobs",
                "first": "model_1 model_a answer_a answer_1 response_a response_1 assistant_a candidate_a shown_first left",
                "second": "model_2 model_b answer_b answer_2 response_b response_2 assistant_b candidate_b shown_second right",
                "verdict": "g1_winner winner preference preferred judgment judgement choice",
                "verdict_swapped": "g2_winner",
                "verdict_probabilities": "verdict_probs preference_probabilities winner_probabilities",
                "perplexity": "ppl judgment_perplexity judgement_perplexity",
                "cumulative_logprob": "cumulative_log_prob sum_logprob judgment_logprob",
                "tokens": "n_tokens num_tokens token_count",
                "turn": "",
                "judge": "judge_model judge_name annotator evaluator",
            },
        ),
        Kind(
            "samples",
            "samples per prompt with whether each is right",
            ("prompt correct", "prompt samples correct"),
            {
                "prompt": "prompt_id problem_id question_id task_id doc_id question problem instance_id query_id item_id doc task idx",
                "correct": """is_correct exact_match pass passed success solved acc accuracy correctness pass@1 acc_norm resolved label_correct right
                    n_correct num_correct successes n_pass reward score""",
                "samples": "n_samples num_samples n_trials trials attempts n_attempts num_attempts total",
                "sample": "sample_id completion_id attempt rollout_id sample_index sample_idx attempt_id seed",
                "model": f"{MODEL} policy checkpoint",
                "stage": "phase variant",
                "filter": "",
            },
        ),
        Kind("comparisons", "who won against whom", ("winner loser",), {"winner": "won winning winner_id winner_name", "loser": "lost losing loser_id loser_name"}),
        Kind(
            "training",
            "a run of training with rewards",
            ("step reward", "step success_rate"),
            {
                "step": "global_step train_step training_step training/global_step train/global_step iteration iter update steps _step",
                "reward": """mean_reward reward_mean rewards/mean train/reward critic/rewards/mean critic/score/mean train_reward avg_reward objective/scores
                    rollout/ep_rew_mean episode_reward""",
                "entropy": "policy_entropy mean_entropy actor/entropy actor/entropy_loss objective/entropy train/entropy token_entropy entropy_mean",
                "score": "val_score validation_score eval_score val/score eval/score val_accuracy validation_accuracy eval_accuracy val_acc eval_reward test_score accuracy",
                "learning_rate": "lr actor/lr train/learning_rate",
                "kl": "kl_divergence approx_kl objective/kl actor/ppo_kl actor/kl_loss train/kl mean_kl kl_mean",
                "clip_fraction": "clipfrac clip_frac clip_ratio clip_ratio/region_mean actor/pg_clipfrac policy/clipfrac_avg train/clip_ratio",
                "success_rate": "pass_rate solve_rate train_accuracy train/accuracy",
                "group_size": "num_generations rollouts rollouts_per_prompt",
            },
        ),
        Kind(
            "records",
            "people or units",
            ("sensitive", "client", "prediction", "label", "estimated", "treatment outcome"),
            {
                "sensitive": "protected sensitive_attribute protected_attribute sensitive_feature sex gender race ethnicity",
                "client": "client_id site_id silo",
                "prediction": "predicted y_pred y_hat predicted_label",
                "label": "y_true true_label ground_truth",
                "score": "y_score y_prob predicted_probability",
                "treatment": "treated treat intervention",
                "outcome": "",
                "estimated": "estimated_attribute attribute_estimate",
                "propensity": "propensity_score",
                "weight": "sample_weight",
            },
        ),
    )
}
for _kind in KINDS.values():
    if _kind.name not in ("samples", "training"):
        _kind.roles.setdefault("id", "uid uuid row_id record_id")  # which should not come twice
SENSITIVE = ("sex", "gender", "race", "ethnicity")  # read as sensitive, which is said
WINNERS = {"A": "a first model_1 model_a answer_a assistant_a response_a 1 left", "B": "b second model_2 model_b answer_b assistant_b response_b 2 right"}
WINNERS |= {"C": "c tie draw equal both neither tie_(bothbad) bothbad"}
LETTERS = {word: letter for letter, words in WINNERS.items() for word in words.split()}


def plain_name(name):
    """A name without what people write in many ways: case, blanks, points, underscores."""
    return re.sub(r"[\s_.\-]+", "", str(name)).lower()


def matches(pattern, name):
    """Whether a pattern such as reward_* names a field, whatever its case."""
    return pattern.endswith("*") and name.lower().startswith(pattern[:-1].lower()) and len(name) >= len(pattern)


def is_number(value):
    """Whether a cell holds a number, also as text."""
    if isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return False
        return True
    if isinstance(value, int):
        return -LARGEST <= value <= LARGEST
    return isinstance(value, float) or (hasattr(value, "dtype") and value.dtype.kind in "biuf" and value.ndim == 0)


def is_numbers(value):
    """Whether a cell holds a list of numbers (None among them)."""
    return (isinstance(value, list | tuple) and all(v is None or (is_number(v) and not isinstance(v, str)) for v in value[:100])) or getattr(value, "ndim", 0) >= 1


def most(values, test):
    return len(values) > 0 and sum(map(test, values)) >= len(values) / 2  # most: a log may have bad rows


def _is_texts(value):
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(v, str | dict) for v in value))


def _is_share(value):
    if isinstance(value, list | tuple):
        return len(value) > 0 and all(_is_share(v) for v in value[:100])
    return isinstance(value, bool) or (str(value).strip().lower() in YES_NO) or (is_number(value) and 0 <= float(value) <= 1)


LARGEST = int(sys.float_info.max)
YES_NO = {"true": 1, "false": 0, "yes": 1, "no": 0, "correct": 1, "incorrect": 0, "right": 1, "wrong": 0, "pass": 1, "fail": 0, "passed": 1, "failed": 0}
WILD = {("rewards", "rewards"): ("reward_*", "rewards/*", "rewards.*"), ("logits", "logits"): ("logit_*",), ("logits", "probabilities"): ("prob_*", "probability_*", "proba_*")}
WILD |= {("embeddings", "embeddings"): ("embedding_*", "emb_*", "dim_*")}
TESTS: dict[tuple[str, str], Callable[[Any], bool]] = {
    ("answers", "answers"): lambda v: isinstance(v, list) and all(isinstance(a, dict) and "score" in a for a in v),
    ("texts", "accepted"): _is_texts,
    ("texts", "refused"): _is_texts,
    ("tokens", "logprobs"): lambda v: is_numbers(v) or isinstance(v, dict),
    ("tokens", "completion"): lambda v: isinstance(v, list) and any(isinstance(c, dict) and c.get("logprobs") for c in v),
    ("tokens", "advantages"): lambda v: is_numbers(v) or is_number(v),
    ("tokens", "step_probabilities"): is_numbers,
    ("tokens", "group"): lambda v: isinstance(v, str | int),
    ("rewards", "rewards"): lambda v: isinstance(v, dict) and all(map(is_number, v.values())),
    ("evidence", "log_target"): is_number,
    ("judgments", "score"): is_number,
    ("judgments", "score_probabilities"): lambda v: isinstance(v, dict | list),
    ("judgments", "score_logprobs"): lambda v: isinstance(v, dict | list),
    ("judgments", "verdict_probabilities"): lambda v: isinstance(v, dict),
    ("judgments", "verdict"): lambda v: str(v).strip().strip("[]").lower().replace(" ", "_") in LETTERS or isinstance(v, str),
    ("judgments", "tokens"): is_number,
    ("samples", "correct"): _is_share,
    ("samples", "prompt"): lambda v: not isinstance(v, list) or all(isinstance(m, dict) for m in v),
    ("samples", "samples"): is_number,
    **{("training", role): is_number for role in ("step", "reward", "entropy", "score", "learning_rate", "kl", "clip_fraction", "success_rate", "group_size")},
    ("tokens", "entropies"): is_numbers,
    ("tokens", "variances"): is_numbers,
    ("tokens", "mask"): is_numbers,
    ("evidence", "log_skeletons"): is_numbers,
    ("evidence", "event_probabilities"): is_numbers,
    ("logits", "logits"): is_numbers,
    ("logits", "probabilities"): is_numbers,
    ("embeddings", "embeddings"): is_numbers,
    **{("embeddings", role): is_numbers for role in ("accepted", "refused", "safe", "unsafe", "x")},
}
