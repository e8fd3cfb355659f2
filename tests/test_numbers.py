import math

import pytest

from lawbook.contract import DomainError, either, listing, real, record, table, vector
from lawbook.contract.encoding import decode_number, dumps, encode
from lawbook.contract.numbers import parse_number, show_number


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("70B", "params", 70_000_000_000),
        ("70B params", "params", 70_000_000_000),
        ("128Ki", "tokens", 131_072),
        ("128k", "tokens", 128_000),
        ("1e21", "FLOP", 10**21),
        ("50%", "", 0.5),
        ("15T", "tokens", 15_000_000_000_000),
        ("1.5M", "", 1_500_000),
        ("80GiB", "bytes", 80 * 2**30),
        ("80GB", "bytes", 80_000_000_000),
        ("80B", "bytes", 80),  # where bytes are meant, B is a byte
        ("312 TFLOP/s", "FLOP/s", 312e12),
        ("3.35TB/s", "bytes/s", 3.35e12),
        ("20ms", "seconds", 0.02),
        ("2h", "seconds", 7200),
        ("1_000", "", 1000),
        ("-3.5", "", -3.5),
        (".5", "", 0.5),
        ("inf", "", math.inf),
    ],
)
def test_human_numbers(text, unit, value):
    assert parse_number(text, "x", unit) == pytest.approx(value, rel=1e-15)


def test_whole_numbers_stay_exact():
    assert parse_number("123456789012345678", "x") == 123456789012345678
    assert isinstance(parse_number("128Ki", "x"), int)


@pytest.mark.parametrize(("text", "unit"), [("15GB", "tokens"), ("seven", ""), ("3q", ""), ("", ""), ("5 m", "tokens"), ("1..2", ""), ("7B FLOP", "params")])
def test_wrong_suffixes_are_named(text, unit):
    with pytest.raises(DomainError, match=r"^size "):
        parse_number(text, "size", unit)


@pytest.mark.parametrize("quantity", [listing(real()), vector("n"), record(a=real()), table(a=real()), either(listing(real()), vector("n"))])
def test_json_that_breaks_off_is_refused_in_a_sentence(quantity):
    for broken in ("[1", '{"a": ', '["x", '):
        with pytest.raises(DomainError, match="must be"):
            quantity.read(broken, "value")


def test_one_rule_for_values_without_a_number():
    assert encode({"a": math.nan, "b": [math.inf, -math.inf], "c": 1 + 2j}) == {"a": None, "b": ["inf", "-inf"], "c": {"re": 1.0, "im": 2.0}}
    for value in (1.5, math.inf, -math.inf, 1 + 2j):
        assert decode_number(encode(value)) == value
    assert math.isnan(decode_number(encode(math.nan)))
    assert dumps([0.1, True, None, "x"]) == '[0.1, true, null, "x"]'


def test_shown_numbers():
    assert show_number(131072, "tokens") == "131,072 tokens"
    assert show_number(math.nan, "s") == "–"
    assert show_number(True) == "yes"
    assert show_number(1 - 2j) == "1-2i"
