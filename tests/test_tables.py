"""Tables as people have them: names, units, formats, and the bad ones, each refused with one sentence or read with a word about it."""

import datetime
import gzip
import json
import time

import numpy as np
import pandas as pd
import polars as pl
import pytest

from lawbook.artifacts import files
from lawbook.artifacts.headers import NAMES, Reading, read_header, read_unit, resolve, spellings
from lawbook.artifacts.tables import RunsTable, read_curves, read_runs
from lawbook.contract import LawbookError

HEADERS = {
    "params": "N n params n_params Model|Size num_params non_embedding_params Parameters model.n_params params|(non-embedding)",
    "tokens": "D tokens train_tokens Training|tokens train/num_input_tokens_seen tokens_seen",
    "compute": "C flops Training|FLOP compute_flops total_flos Training|compute|(FLOP)",
    "loss": "loss val_loss eval/loss validation|loss final_loss loss/val run-7|-|eval/loss loss|(nats) L train/loss",
    "learning_rate": "lr learning|rate peak_lr max_lr config.lr optimizer.lr train/learning_rate learningRate",
    "batch_size": "bs batch batch_size global_batch_size bsz",
    "batch_tokens": "batch_tokens batch|size|(tokens)",
    "weight_decay": "wd weight_decay",
    "step": "step iteration Step _step train/global_step",
    "epochs": "epoch epochs Epoch num_train_epochs",
    "unique_tokens": "unique_tokens unique_training_tokens",
    "vocab_size": "vocab_size",
    "seed": "seed",
}
UNITS = {
    "Model Size (B)": ("params", 1e9),
    "#Params (B)": ("params", 1e9),
    "params_m": ("params", 1e6),
    "params_billions": ("params", 1e9),
    "params in millions": ("params", 1e6),
    "N (B)": ("params", 1e9),
    "Pretraining Data Size (T)": ("tokens", 1e12),
    "Training tokens (B)": ("tokens", 1e9),
    "tokens [1e9]": ("tokens", 1e9),
    "tokens_b": ("tokens", 1e9),
    "k tokens": ("tokens", 1e3),
    "batch size (M tokens)": ("batch_tokens", 1e6),
    "FLOPs (1E21)": ("compute", 1e21),
    "Compute (EFLOP)": ("compute", 1e18),
    "pf_days": ("compute", 8.64e19),
    "Compute (PFLOP/s-days)": ("compute", 8.64e19),
    "compute_pf_days": ("compute", 8.64e19),
    "lr (1e-4)": ("learning_rate", 1e-4),
    "coverage (%)": ("coverage", 1e-2),
    "loss (bits)": ("loss", np.log(2)),
}
NOT_OURS = ["d_model", "n_layers", "dense_params", "tokens_per_param", "tokens/s", "tflops", "step_time", "test/tokens", "lossy", "x", "MMLU", "B", "T", "l"]
NOT_OURS += ["loss (M)", "loss (1)", "tokens (GB)", "N_b", "tokens (10^999)", "compute (PFLOP/s)"]


@pytest.mark.parametrize("name", HEADERS)
def test_headers_are_understood(name):
    for header in HEADERS[name].split():
        found = read_header(header.replace("|", " "))
        assert found and (found.name, found.factor) == (name, 1), header


@pytest.mark.parametrize("header", UNITS)
def test_units_of_headers(header):
    found = read_header(header)
    assert found and found.name == UNITS[header][0] and found.factor == pytest.approx(UNITS[header][1], rel=1e-12)


def test_other_headers_keep_their_names():
    assert [header for header in NOT_OURS if read_header(header)] == []
    assert read_unit("GB") is None and read_unit("") is None


def test_every_spelling_leads_to_its_name():
    for name in NAMES:
        for word in spellings(name):
            assert read_header(word).name == name, word


def test_the_exact_name_wins_and_a_tie_is_not_guessed():
    table = read_runs({"N": [1e6], "params": [2e6], "loss": [3.0], "val_loss": [4.0]})
    assert table.numbers("params") == [2e6] and table.numbers("N") == [1e6] and table.numbers("val_loss") == [4.0]
    assert any("'N' kept under its own name" in s for s in table.said)
    readings, said = resolve(["a - eval/loss", "b - eval/loss", "Step"])
    assert [*readings] == ["Step"] and "none is read" in said[0]
    assert resolve(["x", "unigram_normalized_loss"])[0]["unigram_normalized_loss"].name == "loss"
    assert resolve(["loss_prose", "other_loss", "one_loss"])[0] == {}
    assert resolve(["_step", "train/global_step"])[0] == {"train/global_step": Reading("step", 1.0, 4)}


def test_real_tables(real_data):
    table = read_runs(real_data / "leaderboard" / "data_v1.csv")
    assert "column '#Params (B)' is read as params, times 1e9" in table.said
    good = table.usable(["params", "tokens", "compute"], positive=["params", "tokens"])
    ratio = table.numbers("compute")[good] / (6 * table.numbers("params") * table.numbers("tokens"))[good]
    assert 0.9 < np.median(ratio) < 1.1 and {"Family", "Model"} <= table.columns.keys() and table.columns["Family"][0] == "yi-1.5"
    assert len(read_runs(real_data / "chinchilla-figure4" / "runs.csv").usable(["params", "tokens", "loss"])) == 245


CELLS = {
    "7B 125M": [7e9, 125e6],
    "1.3e9 125000000": [1.3e9, 125e6],
    "1,300,000 125,000": [1.3e6, 125e3],
    "7b 125m": [7e9, 125e6],
    "7|billion 125|million|params": [7e9, 125e6],
    "1_300_000 ?": [1.3e6, np.nan],
}


@pytest.mark.parametrize("cells", CELLS)
def test_cells_with_units(cells):
    table = read_runs({"params": [cell.replace("|", " ") for cell in cells.split()], "loss": [2, 3]})
    np.testing.assert_allclose(table.numbers("params"), CELLS[cells])


def test_a_unit_said_twice_counts_once():
    np.testing.assert_allclose(read_runs({"Model Size (B)": ["7B", "13B"], "loss": [2, 3]}).numbers("params"), [7e9, 13e9])
    np.testing.assert_allclose(read_runs({"tokens": ["2T tokens", "300B"], "loss": [2, 3]}).numbers("tokens"), [2e12, 3e11])
    np.testing.assert_allclose(read_runs({"coverage": ["45%", "60 %"], "samples": [1, 2]}).numbers("coverage"), [0.45, 0.6])


def test_what_two_say_of_the_third():
    n, d = np.array([1e6, 2e6]), np.array([1e8, 3e8])
    for given, missing in (({"N": n, "D": d}, "compute"), ({"N": n, "C": 6 * n * d}, "tokens"), ({"D": d, "C": 6 * n * d}, "params")):
        table = read_runs(given)
        np.testing.assert_allclose(table.numbers(missing), {"compute": 6 * n * d, "tokens": d, "params": n}[missing])
        assert table.derived == (missing,) and any("derived as" in s for s in table.said)
    assert any("compute is 1.5 times 6 params tokens" in s for s in read_runs({"N": n, "D": d, "C": 9 * n * d}).said)
    assert not any("times" in s for s in read_runs({"N": n, "D": d, "C": 6.6 * n * d}).said)
    assert np.isnan(read_runs({"N": [0, 1e6], "C": [6e14, 6e14]}).numbers("tokens")).tolist() == [True, False]


BAD = {
    "suffixes and plain": ("params,loss\n7B,2\n7000000000,3\n", "'params' mixes units: row 1 holds a value such as '7B', but row 2"),
    "billions and units": ("params,loss\n7,2\n13,2\n7e9,3\n70,3\n", "'params' mixes units: rows 1, 2, 4 hold values such as 7, but row 3 holds a value such as 7e+09"),
    "billions under a header": ("Model Size (B),loss\n7,2\n7e9,3\n", "'Model Size (B)' mixes units: row 1"),
    "trillions of tokens": ("tokens,loss\n2,2\n3e11,3\n", "'tokens' mixes units"),
    "header against numbers": ("Model Size (B),loss\n7e9,2\n13e9,3\n", "says times 1e9, but rows 1, 2 hold values such as 7e+09"),
    "header against suffixes": ("Model Size (B),loss\n7B,2\n125M,3\n", "leave the unit to one of them"),
    "decimal commas": ("params;loss\n1e6;2,51\n1e6;3,1\n", "Column loss must have decimal points, not commas; row 1 holds '2,51'"),
    "decimal commas like thousands": ("params;loss\n1e6;2,514\n", "decimal points"),
    "decimal commas and powers": ('params,loss\n"1,3e9",2\n', "decimal points"),
    "text among the sizes": ("params,tokens,loss\n1e6,1e8,3\n1e6,lots,3\n", "Column tokens must hold numbers; row 2 holds 'lots'"),
    "two columns of a name": ("loss,params,loss\n1,2,3\n", "two columns called 'loss'"),
    "short rows": ("params,tokens,loss\n1e6,1e8,3\n1e6,2e8\n", "Row 2 of the table"),
    "long rows": ("params,tokens,loss\n1e6,1e8,3\n\n1e6,2e8,2,9\n", "has 4 cells where the header has 3"),
    "an open quote": ('params,loss\n"1,2\n3,4\n', "separators and quotes"),
    "no header": ("1e6,3\n1e6,3\n", "numbers only"),
    "header only": ("params,tokens,loss\n", "no rows"),
    "empty": ("", "is empty"),
    "blank": ("\n  \n", "is empty"),
    "binary": (b"\x00\x01\x02" * 99, "zero bytes"),
    "workbook by another name": (b"PK\x03\x04" + b"\1" * 99, "workbook or an archive"),
    "UTF-16": ("params,loss\n1,2\n".encode("utf-16"), "UTF-16"),
    "carriage returns": ("params,loss\r1,2\r", "carriage returns"),
    "an endless line": ("a" * 300_000, "longer than 256 KiB"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_tables_are_refused_with_one_sentence(case, tmp_path):
    content, said = BAD[case]
    path = tmp_path / "runs.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(LawbookError) as refused:
        read_runs(path)
    assert said in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("case", ["suffixes and plain", "decimal commas", "short rows", "binary", "empty"])
def test_the_shell_refuses_them_too(case, shell, tmp_path):
    content, said = BAD[case]
    path = tmp_path / "runs.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    status, out, err = shell("fit", path)
    assert status == 2 and out == "" and said in err and len(err.strip().splitlines()) == 1


def test_other_files(tmp_path):
    for name, content, said in (
        ("runs.xlsx", b"PK", "spreadsheet"),
        ("runs.doc", b"x", "must be a .csv"),
        ("runs.parquet", b"PAR1 no", "cannot be read"),
        ("cut.csv.gz", gzip.compress(b"params,loss\n1,2\n" * 999)[:-30], "cannot be read"),
        ("torn.csv.gz", gzip.compress(b"params,loss\n1,2\n" * 999)[:20] + b"\xff" * 40, "cannot be read"),
        ("runs.json", b'{"params": [1, 2', "cannot be read"),
        ("deep.json", b"[" * 100_000, "cannot be read"),
        ("long.json", b"[" + b"9" * 9000 + b"]", "cannot be read"),
        ("three.json", b"3", "list of records"),
        ("runs.jsonl", b'{"params": 1, "tok', "cannot be read"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(LawbookError, match=said):
            read_runs(tmp_path / name)
    with pytest.raises(LawbookError, match="is a folder"):
        read_runs(tmp_path)
    with pytest.raises(LawbookError, match="There is no file"):
        read_runs(tmp_path / "none.csv")
    assert [*read_runs({"params": [1, 2], "uneven": [[1, 2], [3]], "one": 3}).columns] == ["params"]
    for source in (3, {"params": [1, 2], "loss": [1]}, {}, []):
        with pytest.raises(LawbookError):
            read_runs(source)


def test_odd_but_readable_files(tmp_path):
    plain = "params,tokens,loss,family\n1300000,2e8,2.51,hé\n125000,3e8,3.1,b\n"
    written = {
        "bom.csv": b"\xef\xbb\xbf" + plain.encode(),
        "crlf.csv": plain.replace("\n", "\r\n\r\n").encode(),
        "semicolons.csv": plain.replace(",", ";").encode(),
        "tabs.txt": plain.replace(",", "\t").encode(),
        "latin.csv": plain.encode("latin-1"),
        "packed.csv.gz": gzip.compress(plain.encode()),
        "latin.csv.gz": gzip.compress(plain.encode("latin-1")),
        "spaces.csv": plain.replace(",", " , ").encode(),
        "index.csv": plain.replace("params", ",params").replace("\n1", "\n0,1").encode(),
        "trailing.csv": plain.replace("\n", ",\n").encode() + b",,,,\n",
    }
    for name, content in written.items():
        (tmp_path / name).write_bytes(content)
        table = read_runs(tmp_path / name)
        assert [*table.columns] == ["params", "tokens", "loss", "family", "compute"], name
        assert table.numbers("params").tolist() == [1300000, 125000] and table.columns["family"].tolist() == ["hé", "b"], name
    assert any("Latin-1" in s for s in read_runs(tmp_path / "latin.csv").said)


def test_rows_without_values_are_dropped_and_counted(tmp_path):
    (tmp_path / "runs.csv").write_text("N,D,loss\n1e6,1e8,NA\n1e6,2e8,\n1e6,3e8,inf\n1e6,4e8,3\nnan,5e8,3\n")
    table = read_runs(tmp_path / "runs.csv")
    assert table.usable(["params", "loss"], positive=["params", "loss"]).tolist() == [3]
    sentence = "4 of 5 rows are left out: params has no value in row 5; loss has no value in rows 1, 2; loss is infinite in row 3"
    assert sentence in table.said
    table.usable(["params", "loss"])
    assert table.said.count(sentence) == 1


@pytest.mark.parametrize("wrong", [0, -1e6])
def test_zeros_and_negatives_are_named(wrong):
    with pytest.raises(LawbookError, match=r"params \(rows 1, 3\) must be a number above 0"):
        read_runs({"N": [wrong, 1e6, wrong], "loss": [1, 2, 3]}).usable(["params"], positive=["params"])


def test_missing_columns_say_what_was_looked_for():
    table = read_runs({"params": [1e6], "loss": [2.0]})
    sentence = table.lacks(["params", "tokens"])
    assert sentence.startswith("the table has no column for tokens (looked for tokens, train_tokens,") and sentence.endswith("it has params, loss")
    with pytest.raises(LawbookError, match="looked for step, global_step"):
        table.numbers("step")


def test_what_is_legal_but_seldom_meant_is_said():
    table = read_runs({"N": [7, 13, 7], "batch_size": [64, 64, 64], "loss": [2, 3, 2]})
    assert len(table) == 3 and "1 of 3 rows repeat another one; they are kept" in table.said
    assert "the same in all rows: batch_size = 64" in table.said and any("at most 13" in s for s in table.said)
    assert read_runs({"C": ["high", "low"], "loss": [2, 3]}).columns.keys() == {"C", "loss"}, "text is no compute"


def test_frames():
    frame = pd.DataFrame(
        {
            "N": pd.array([1, None, 3], dtype="Int64"),
            "family": pd.Categorical(["a", "b", None]),
            "tuned": pd.array([True, None, False], dtype="boolean"),
            "date": pd.to_datetime(["2024-01-01", None, "2024-02-01"]),
            "size": ["7B", None, "x"],
        }
    )
    table = read_runs(frame)
    np.testing.assert_array_equal(table.numbers("params"), [1, np.nan, 3])
    np.testing.assert_array_equal(table.numbers("tuned"), [1, np.nan, 0])
    assert table.columns["family"].tolist()[:2] == ["a", "b"] and str(table.columns["date"][0]).startswith("2024-01-01")
    with pytest.raises(LawbookError, match="row 1 holds '2024"):
        table.numbers("date")
    frame = pl.DataFrame(
        {"Model Size (B)": [7, None], "day": [datetime.date(2024, 1, 1)] * 2, "cat": pl.Series(["a", "b"], dtype=pl.Categorical), "many": [[1, 2], [3]], "ok": [True, False]}
    )
    for source in (frame, frame.lazy()):
        table = read_runs(source)
        np.testing.assert_array_equal(table.numbers("params"), [7e9, np.nan])
        assert table.columns.keys() == {"params", "day", "cat", "ok"} and table.numbers("ok").tolist() == [1, 0]
        assert any("'many' holds more than one value a row" in s for s in table.said)


def test_a_runs_table_is_returned_as_it_is():
    table = RunsTable({"params": np.array([1e6])}, ["so it was"])
    assert read_runs(table) is table


def test_json_and_trainer_logs(tmp_path):
    log = [{"loss": 3.0 - s / 10, "learning_rate": 1e-3, "step": s, "epoch": s / 9} for s in (1, 2, 3)] + [{"eval_loss": 2.9, "step": 3}]
    (tmp_path / "trainer_state.json").write_text(json.dumps({"best_metric": None, "log_history": log}))
    table = read_curves([tmp_path / "trainer_state.json"])
    assert any("1 of 4 rows" in s for s in table.said)
    np.testing.assert_allclose(table.numbers("loss")[1:], [2.9, 2.8, 2.7])
    (tmp_path / "columns.json").write_text('{"N": [1e6, 2e6], "loss": ["3", null]}')
    np.testing.assert_array_equal(read_runs(tmp_path / "columns.json").numbers("loss"), [3, np.nan])
    np.testing.assert_array_equal(read_runs([{"N": 1e6}, {"loss": 2}]).numbers("loss"), [np.nan, 2])


@pytest.mark.parametrize(("steps", "said"), [([1, 2.5], "whole numbers"), ([1, 10**12], "at most"), ([1, 1], "different"), ([1, np.nan], "row 2 lacks one")])
def test_bad_curves(steps, said):
    with pytest.raises(LawbookError, match=said):
        read_curves([{"step": steps, "lr": [1e-3, 1e-3], "loss": [3, 2]}])


def test_a_huge_file_is_refused_before_it_is_read(tmp_path):
    empty, real = tmp_path / "empty.csv", tmp_path / "real.csv"
    rows = b"N,D,loss\n" + b"1234567.0,123456789.0,3.14159\n" * 10_000
    with empty.open("wb") as file:
        file.truncate(3 * 10**9)
    with real.open("wb") as file:  # rows where samples are taken, holes between
        file.truncate(3 * 10**9)
        for part in range(9):
            file.seek(max(part * (3 * 10**9 - files.SAMPLE) // 8 - 100, 0))
            file.write(rows)
        file.truncate(3 * 10**9)
    for path, said in ((empty, "zero bytes"), (real, "rows; lawbook reads at most 5,000,000: keep every k-th row")):
        started = time.perf_counter()
        with pytest.raises(LawbookError, match=said):
            read_runs(path)
        assert time.perf_counter() - started < 1


def test_limits_of_rows_and_cells(tmp_path, monkeypatch):
    frame = pl.DataFrame({"N": np.arange(1, 101) * 1e5, "loss": np.linspace(3, 2, 100), "other": np.arange(100.0), "split": ["train"] * 100})
    paths = {kind: tmp_path / f"runs.{kind}" for kind in ("csv", "csv.gz", "jsonl", "parquet")}
    frame.write_csv(paths["csv"])
    paths["csv.gz"].write_bytes(gzip.compress(paths["csv"].read_bytes()))
    frame.write_ndjson(paths["jsonl"])
    frame.write_parquet(paths["parquet"])
    monkeypatch.setattr(files, "MOST_CELLS", 399)
    for kind in ("csv", "csv.gz", "jsonl", "parquet"):
        table = read_runs(paths[kind])
        assert [*table.columns] == ["params", "loss", "split"] and any("of its 4 columns only N, loss, split are read" in s for s in table.said)
    frame.select("other", more="other", yet="other", text=pl.lit("a")).write_csv(tmp_path / "strange.csv")
    with pytest.raises(LawbookError, match="laws speak of none"):
        read_runs(tmp_path / "strange.csv")
    monkeypatch.setattr(files, "MOST_ROWS", 99)
    for path in paths.values():
        with pytest.raises(LawbookError, match="reads at most 99"):
            read_runs(path)


def test_a_million_rows_in_bounded_memory(tmp_path):
    """In a process of its own: the whole of it, libraries included, stays below 2 GiB."""
    import subprocess
    import sys

    path = tmp_path / "runs.csv"
    size = np.exp(np.random.default_rng(0).uniform(13, 24, 10**6))
    pl.DataFrame({"N": size, "D": 20 * size, "loss": 1.7 + 400 / size**0.34, "name": ["run"] * 10**6}).write_csv(path)
    code = (
        "import sys; from lawbook.artifacts.tables import read_runs; table = read_runs(sys.argv[1]);"
        "print(len(table), table.numbers('compute').min() > 0, next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmHWM')) * 1024 < 2**31)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1000000", "True", "True"]
