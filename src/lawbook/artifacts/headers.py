"""What the columns of tables are called, and in which units: headers and cells as people write them."""

import math
import re
from dataclasses import dataclass

import numpy as np

from ..contract import LawbookError
from ..contract.numbers import NUMBER

# the book's name of a column: its spellings, those that win first; only words count, in any order, not case or punctuation
NAMES = {
    "params": """params, n_params, num_params, parameters, n_parameters, num_parameters, param_count, parameter_count, model_size, model_params, total_params,
        total_parameters, non_embedding_params, n_params_non_embedding, num_non_embedding_params, non_embedding_parameters, non_embedding_param_size, N""",
    "tokens": """tokens, train_tokens, training_tokens, n_tokens, num_tokens, total_tokens, n_train_tokens, num_train_tokens, tokens_seen, tokens_trained, consumed_tokens,
        num_input_tokens_seen, pretraining_tokens, data_size, train_data_size, training_data_size, pretraining_data_size, dataset_size, dataset_tokens, D""",
    "compute": """compute, flops, flop, training_flops, training_flop, train_flops, train_flop, total_flops, total_flop, total_flos, training_compute, train_compute,
        total_compute, compute_flops, compute_flop, pretraining_flops, pretraining_compute, C""",
    "loss": """loss, val_loss, validation_loss, valid_loss, eval_loss, test_loss, dev_loss, final_loss, final_val_loss, final_validation_loss, final_eval_loss, final_test_loss,
        lm_loss_validation, cross_entropy, ce_loss, nll, lm_loss, train_loss, training_loss, final_train_loss, L""",
    "learning_rate": "learning_rate, lr, peak_lr, peak_learning_rate, max_lr, max_learning_rate, base_lr",
    "batch_size": "batch_size, global_batch_size, total_batch_size, total_train_batch_size, train_batch_size, batch, global_batch, bs, bsz, gbs",
    "batch_tokens": "batch_tokens, batch_size_tokens, batch_size_in_tokens, tokens_per_batch, tokens_per_step, global_batch_size_tokens",
    "weight_decay": "weight_decay, wd",
    "step": """step, global_step, train_step, training_step, steps, train_steps, training_steps, total_steps, num_steps, n_steps, iteration, iterations, iter, iters,
        update, updates""",
    "epochs": "epochs, epoch, num_epochs, n_epochs, num_train_epochs",
    "unique_tokens": "unique_tokens, n_unique_tokens, num_unique_tokens, unique_train_tokens, unique_training_tokens, unique_data_tokens",
    "vocab_size": "vocab_size, vocabulary_size, n_vocab, vocab",
    "characters": "characters, n_characters, num_characters, chars, n_chars, num_chars, train_characters",
    "context_length": "context_length, sequence_length, seq_length, seq_len, max_seq_len, max_seq_length, ctx_len, n_ctx, block_size",
    "samples": "samples, n_samples, num_samples, train_samples, training_samples, num_examples, n_examples",
    "coverage": "coverage, pass@k",
    "pass_rate": "pass_rate",
    "warmup_steps": "warmup_steps, num_warmup_steps, lr_warmup_steps",
    "schedule": "schedule, lr_schedule, lr_scheduler, lr_scheduler_type, learning_rate_schedule, lr_decay_style",
    "seed": "seed, random_seed",
}
TEXT = {"schedule"}  # names whose columns hold no numbers
WRAPPERS = {"train", "training", "trainer", "config", "model", "optimizer", "optim", "data", "args", "hparams", "hyperparameters", "summary", "metrics"}  # as in train/global_step
SCALES = {1e3: "k thousand thousands kilo", 1e6: "m mn mio million millions mega", 1e9: "b bn billion billions g giga", 1e12: "t tn trillion trillions tera"}
SCALES |= {1e15: "p peta quadrillion", 1e18: "e exa", 1e21: "z zetta", 1e-2: "% percent pct", 1: ""}
FACTORS = {word: factor for factor, words in SCALES.items() for word in words.split() or [""]}
# nouns that a unit may end with: (its dimension, what one is worth there)
MEASURED = {
    ("params", 1.0): "params parameters param",
    ("tokens", 1.0): "tokens token toks tok",
    ("compute", 1.0): "flops flop flos",
    ("compute", 86400.0): "flopsdays flopdays flopsday flopday fdays fday",
    ("loss", 1.0): "nats nat",
    ("loss", math.log(2)): "bits bit",
    ("characters", 1.0): "characters chars",
    ("samples", 1.0): "samples examples",
    ("", 1.0): "",
}
NOUNS = sorted(((noun, measure) for measure, nouns in MEASURED.items() for noun in nouns.split() or [""]), key=lambda pair: -len(pair[0]))
DIMENSION = {"unique_tokens": "tokens", "batch_tokens": "tokens", "context_length": "tokens"}  # of names that are not their own
SCALED = {"params", "tokens", "compute", "unique_tokens", "batch_tokens", "samples", "characters"}  # names that a lone letter such as b may scale
COUNTS = SCALED | {"batch_size", "step", "vocab_size", "context_length", "warmup_steps"}  # names whose cells may have commas between thousands
MISSING = ("", "na", "n/a", "n.a.", "#n/a", "<na>", "nan", "null", "none", "-", "--", "?")  # cells without a number
# plain numbers of a column: below the first beside others a factor GAP away, they are in another unit; above the second, they have their unit twice
LIMITS = {"params": (1e4, 1e13), "tokens": (1e5, 1e15), "unique_tokens": (1e5, 1e15), "compute": (1e9, 1e29)}
GAP = 1e4


class NoNumber(LawbookError):
    """A cell that is not a number of any kind."""


@dataclass(frozen=True)
class Reading:
    """How a header is understood: the book's name, what one unit of the header is worth, and its rank among the headers that claim the name (0 is the name itself)."""

    name: str
    factor: float = 1.0
    rank: int = 0


def spellings(name):
    """The spellings under which a column is looked for, the name itself first."""
    return [word.strip() for word in NAMES.get(name, name).split(",")]


def resolve(headers):
    """(header -> Reading of the headers that are understood, sentences about those that claim the same name); every name is read from one header at most."""
    readings = {header: found for header in headers if (found := read_header(header))}
    if not any(found.name == "loss" for found in readings.values()):
        ending = [h for h in headers if h not in readings and _words(h)[-1:] == ["loss"]]
        readings |= {header: Reading("loss", rank=10**6) for header in ending if len(ending) == 1}
    said = []
    for name in dict.fromkeys(found.name for found in readings.values()):
        claims = sorted((found.rank, header) for header, found in readings.items() if found.name == name)
        if len(claims) > 1:
            tied = claims[0][0] == claims[1][0]
            losers = [repr(header) for _, header in claims[0 if tied else 1 :]]
            listed = ", ".join(losers[:5]) + (f" and {len(losers) - 5} more" if len(losers) > 5 else "")
            if tied:
                said.append(f"columns {listed} could all be {name}: none is read as it")
            else:
                said.append(f"{name} is column {claims[0][1]!r}; {listed} kept under {'their own names' if len(losers) > 1 else 'its own name'}")
            for _, header in claims[0 if tied else 1 :]:
                del readings[header]
    return readings, said


def read_header(header):
    """The Reading of one header, None where it is nothing that laws speak of: 'Model Size (B)' is params times 1e9, 'train/global_step' is step, 'PF-days' is compute."""
    text = str(header).strip().lstrip("\ufeff")
    if text in NAMES:
        return Reading(text)
    if text == "_step":  # a counter of calls to the logger, not of updates: any other step wins
        return Reading("step", rank=10**6)
    text = text.rsplit(" - ", 1)[-1]  # the exports of loggers: "name of the run - val_loss"
    unit = re.fullmatch(r"(.*?)\s*[(\[]([^()\[\]]*)[)\]]\s*", text) or re.fullmatch(r"(.*?)[\s_,]+(in[\s_]+.+)", text, re.IGNORECASE)
    base, inside = unit.groups() if unit else (text, "")
    worth = read_unit(inside) if unit else (1.0, "")
    if worth is None:  # a bracket that only describes
        return _named(f"{base} {inside}", 1.0, "")
    found = _named(base, *worth)
    if unit:
        lone = worth[0] > 1 and not worth[1] and not re.search(r"\d", inside)  # (M), which says how many of a count but nothing of a loss
        return None if found and lone and found.name not in COUNTS else found
    if found:
        return found
    words = re.split(r"[\s_]+", text.strip("_ "))
    for cut in range(1, len(words)):  # tokens_b, compute_pf_days; billion params
        for rest, scale in ((words[:cut], words[cut:]), (words[cut:], words[:cut])):
            worth = read_unit(" ".join(scale))
            found = worth and len("".join(rest)) > 1 and _named(" ".join(rest), *worth)
            if found and (found.name in SCALED or worth[0] == 1e-2):
                return found
    worth = read_unit(text)
    if worth and worth[1] == "compute" and worth[0] > 1e17:  # less is more often said of a rate
        return Reading("compute", worth[0], 10**5)
    return None


def read_unit(text):
    """(factor, dimension) of a unit such as B, M tokens, 1e9, in millions, EFLOP, PF-days, %; None where it is none. The dimension is "" where it isn't said."""
    text = re.sub(r"^(in|of|x|×|\*)\s*(?=[\s\d])", "", text.strip().lower().replace("_", " ")).strip()
    power = re.match(r"(?:10\s*(?:\^|\*\*)\s*\{?(-?\d{1,2})\}?|1e\+?(-?\d{1,2})|1(0{3,24}))(?!\d)\s*", text)
    factor = 1.0
    if power:
        factor, text = 10.0 ** int(power[1] or power[2] or len(power[3])), text[power.end() :]
    plain = re.sub(r"/s(?=[\s-]*days?$)|[\s-]", "", text)  # PFLOP/s-days are work, PFLOP/s a rate
    if not (power or plain):
        return None
    for noun, (dimension, worth) in NOUNS:
        if plain.endswith(noun) and (scale := FACTORS.get(plain[: len(plain) - len(noun)])) and not (power and scale != 1):
            return factor * scale * worth, dimension
    return None


def times(factor):
    """The factor of a unit in words."""
    return "times " + re.sub(r"e\+?(-?)0*", r"e\1", f"{factor:.6g}")


def numbers(column, name, header=None, factor=1.0):
    """(a column as floats in the plain unit, sentences about how it was read); NoNumber names the first row without one, LawbookError rows in another unit.

    `header` is what the table calls the column, and `factor` what its unit is worth. Cells may have suffixes (7B, 2T tokens, 45%) and commas between thousands.
    """
    header = name if header is None else header
    values, scales = _cells(column, name, header)
    said, lettered = [], scales > 0
    plain = ~lettered & np.isfinite(values) & (values != 0)
    if lettered.any():
        if plain.any():
            with_unit, without = column[lettered.argmax()], column[plain.argmax()]
            raise LawbookError(f"Column {header!r} mixes units: {_rows(lettered)} such as {with_unit!r}, but {_rows(plain)} such as {without} without a unit: write all in one.")
        if factor not in (1.0, *scales[lettered]) or (factor != 1 and len(set(scales[lettered])) > 1):
            raise LawbookError(f"Column {header!r} says {times(factor)}, but {_rows(lettered)} such as {column[lettered.argmax()]!r}: leave the unit to one of them.")
        said.append(f"cells of {header!r} such as {column[lettered.argmax()]!r} are read in plain units")
        values = values * np.where(lettered, scales, 1)
        factor = 1.0
    if name in LIMITS:
        _one_unit(values, name, header, factor, plain)
    return values if factor == 1 else values * factor, said


def looks_numeric(column):
    """Whether any of the first thousand cells begins like a number."""
    return column.dtype.kind in "iufb" or any(NUMBER.match(_plain_text(cell)) for cell in column[:1000])


def _one_unit(values, name, header, factor, plain):
    """Refuses plain numbers of which some can only be in other units than the rest, or than the header says."""
    small, most = LIMITS[name]
    known = np.sort(values[plain & (values > 0)])
    jump = np.diff(np.log(known))
    if len(jump) and jump.max() >= np.log(GAP) and known[jump.argmax()] < small and known[jump.argmax() + 1] >= 1e6:
        low, high = (plain & (values > 0) & side for side in (values <= known[jump.argmax()], values > known[jump.argmax()]))
        raise LawbookError(
            f"Column {header!r} mixes units: {_rows(low)} such as {values[low][0]:g}, but {_rows(high)} such as {values[high][0]:g}, and nothing between: write all in one."
        )
    beyond = plain & (values * factor > most)
    if factor > 1 and beyond.any():
        raise LawbookError(
            f"Column {header!r} says {times(factor)}, but {_rows(beyond)} such as {values[beyond][0]:g}, which look like plain {name}: correct the header or the cells."
        )


def _cells(column, name, header):
    """(values, scales) of the cells; a scale is 0 where the cell has no suffix."""
    import polars as pl

    if column.dtype.kind in "iufb":
        return column.astype(float), np.zeros(len(column))
    words = pl.Series([_plain_text(cell) for cell in column], dtype=pl.String)
    values = words.cast(pl.Float64, strict=False)
    odd = np.flatnonzero(values.is_null().to_numpy())
    values, scales = values.fill_null(np.nan).to_numpy(writable=True), np.zeros(len(column))
    known = {}
    for row in odd:
        word = words[int(row)]
        if word not in known:
            known[word] = _cell(word, name, header, row)
        values[row], scales[row] = known[word]
    return values, scales


def _plain_text(cell):
    return "" if cell is None else str(int(cell)) if isinstance(cell, bool | np.bool_) else str(cell).strip()


def _cell(word, name, header, row):
    if word.lower() in MISSING:
        return np.nan, 0
    if re.fullmatch(r"[+-]?\d+(,\d+)+(\.\d+)?", word):
        if re.fullmatch(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?", word) and (name in COUNTS or word.count(",") > 1):
            return float(word.replace(",", "")), 0
        raise LawbookError(f"Column {header} must have decimal points, not commas; row {row + 1} holds {word!r}.")
    match = NUMBER.match(word)
    if match and re.match(r",\d", match[2]):
        raise LawbookError(f"Column {header} must have decimal points, not commas; row {row + 1} holds {word!r}.")
    unit = read_unit(match[2]) if match else None
    if match is None or (match[2] and (unit is None or unit[1] not in ("", DIMENSION.get(name, name)))):
        raise NoNumber(f"Column {header} must hold numbers; row {row + 1} holds {word!r}.")
    return float(match[1].replace("_", "")), unit[0] if unit else 0


def _words(text):
    return re.findall(r"[a-z0-9@]+", re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", str(text)).lower())


def _ranks():
    """Spelling without punctuation -> (name, rank, spelling), and the same for its words in alphabetical order."""
    table: dict = {}
    for name in NAMES:
        for i, word in enumerate(spellings(name)):
            for key in ("".join(_words(word)), " ".join(sorted(_words(word)))):
                table.setdefault(key, (name, 2 * i + 1, word))
    return table


SPELLED = _ranks()


def _named(base, factor, dimension):
    """The Reading of a header without its unit, whole or without the wrappers of loggers, if its unit can be one of the name's."""
    parts = [part for part in re.split(r"/|\.(?=[A-Za-z_])", base) if part.strip()]
    inner = [part for i, part in enumerate(parts) if part.strip().lower() not in WRAPPERS or i == len(parts) - 1]
    for words in (_words(base), _words(" ".join(inner))):
        for more in ([dimension], []) if dimension else ([],):
            found = SPELLED.get("".join([*words, *more])) or SPELLED.get(" ".join(sorted([*words, *more])))
            if found:
                name, rank, spelling = found
                fits = dimension in ("", DIMENSION.get(name, name)) and (factor == 1 or name not in TEXT) and (spelling != "L" or base.strip() == "L")
                return Reading(name, factor, rank + (base.strip() != spelling)) if fits else None
    return None


def _rows(chosen):
    rows = np.flatnonzero(chosen) + 1
    listed = ", ".join(map(str, rows[:5]))
    return f"row {listed} holds a value" if len(rows) == 1 else f"rows {listed}{f' and {len(rows) - 5} more' if len(rows) > 5 else ''} hold values"
