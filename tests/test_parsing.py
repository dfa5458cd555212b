"""Values after KEY= and in configs: numbers in every spelling, and none of YAML's surprises."""

import pytest
import yaml

from negmerge.errors import InputError
from negmerge.parsing import dump_yaml, parse_change, parse_value, parse_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-1", 0.1), ("8e-1", 0.8), (".5", 0.5), ("5.", 5.0), ("-0.25", -0.25), ("+3", 3), ("1_000", 1000),
        ("1E3", 1000.0), ("12e03", 12000.0), ("0", 0), ("0.0", 0.0), ("true", True), ("False", False), ("null", None),
        ("0.5,0.5", [0.5, 0.5]), ("[0.5, 0.5]", [0.5, 0.5]), ("1, -2e-1,", [1, -0.2]), ("[a, 1]", ["a", 1]),
        ("{a: 1e-3, b: [yes]}", {"a": 0.001, "b": ["yes"]}), ("'0.5'", "0.5"), ("a b", "a b"),
    ],
)  # fmt: skip
def test_values(text, value):
    found = parse_value(text)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    "text",
    ["yes", "no", "on", "Off", "y", "0o7", "007", "0x1F", "0b1", "1:30", "190:20:30", "2024-05-01", "nan", ".inf",
     "1__0", "1.2.3", "a,b", "=", "none"],
)  # fmt: skip
def test_a_text_stays_a_text(text):
    assert parse_value(text) == text
    assert parse_value(f"[{text}]") == text.split(",") if "," in text else [text]
    assert parse_yaml(f"{text}: {text}") == {text: text}


@pytest.mark.parametrize("text", ["[1", "*x", "!!python/object:os.system x", "!!float yes", "{a: 1, a: 2}", "a: b: c"])
def test_what_is_no_value_is_refused(text):
    with pytest.raises(InputError, match="is not a YAML value; put a text with special characters in quotes"):
        parse_value(text)


def test_a_change_names_its_option():
    assert parse_change("a.b=1e-3", "[^=]+", "KEY=VALUE") == ("a.b", 0.001)
    assert parse_change("a=b=c", "[^=]+", "KEY=VALUE") == ("a", "b=c")
    with pytest.raises(InputError, match=r"--set a: write KEY=VALUE, for example"):
        parse_change("a", "[^=]+", "KEY=VALUE, for example a=1")
    with pytest.raises(InputError, match=r"--set a= : the value is missing"):
        parse_change("a= ", "[^=]+", "KEY=VALUE")
    with pytest.raises(InputError, match=r"--set a=\[: '\[' is not a YAML value"):
        parse_change("a=[", "[^=]+", "KEY=VALUE")


def test_anchors_and_merge_keys_of_a_config_still_hold():
    assert parse_yaml("a: &x {lr: 1e-3}\nb: {<<: *x, epochs: 2}")["b"] == {"lr": 0.001, "epochs": 2}


def test_what_is_dumped_is_read_as_it_was_by_every_reader():
    value = {"a": ["1e5", "yes", "007", "null", "text", "1:30", "2024-05-01"], "b": [1e-5, 3, True, None, -0.0]}
    text = dump_yaml(value)
    assert parse_yaml(text) == value and yaml.safe_load(text) == value
