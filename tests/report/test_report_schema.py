"""The printed schemas describe what is read and written."""

import json

import pytest
from report_example import class_results, random_results, seeds_results

from negmerge.cli import main
from negmerge.experiment.config import Config
from negmerge.report import markdown_table, summary_table
from negmerge.report.inputs import check_results, results_schema
from negmerge.report.scores import gap_names, noun, nouns, scores_of

KINDS = {"string": str, "number": int | float, "object": dict, "array": list, "null": type(None)}


def faults(value, schema, place=""):
    """The places where a value is not of the type that a schema names."""
    if "const" in schema and value != schema["const"]:
        yield place
    kinds = schema.get("type", [])
    if kinds and not any(isinstance(value, KINDS[kind]) for kind in ([kinds] if isinstance(kinds, str) else kinds)):
        yield place
        return
    if isinstance(value, dict):
        for key, inner in value.items():
            below = schema.get("properties", {}).get(key, schema.get("additionalProperties", {}))
            yield from faults(inner, below, f"{place}.{key}")
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from faults(inner, schema.get("items", {}), f"{place}[{i}]")


@pytest.mark.parametrize("make", [class_results, random_results, seeds_results])
def test_results_have_the_printed_schema(make):
    results = make()
    check_results(results)
    assert list(faults(results, results_schema())) == []
    name = next(iter(results["methods"]))
    results["methods"][name]["forget"] = "low"
    results["pool"]["members"] = 3
    wrong = {f".methods.{name}.forget", ".pool.members", ".format"}
    assert set(faults({**results, "format": 2}, results_schema())) == wrong


def test_the_command_prints_both(capfd):
    printed = {}
    for document in ("config", "results"):
        with pytest.raises(SystemExit) as stop:
            main(["schema", document])
        assert not stop.value.code
        printed[document] = json.loads(capfd.readouterr()[0])
    assert set(printed["config"]["properties"]) == set(Config.model_fields)
    assert printed["config"]["required"] and printed["results"]["required"] == [
        "format",
        "name",
        "task",
        "base",
        "methods",
    ]
    assert all("2020-12" in one["$schema"] for one in printed.values())


def test_results_that_list_their_scores_are_shown_by_them():
    results = class_results()
    assert gap_names(results) == ["forget", "retain", "test", "membership"] and nouns(results) == "images"
    results["task"]["noun"] = "query"
    results["scores"] = [
        {"name": "forget", "title": "asked", "about": "Asked", "in_gap": True, "shown": True},
        {"name": "retain", "title": "kept", "about": "Kept", "in_gap": True, "shown": False},
    ]
    assert gap_names(results) == ["forget", "retain"] and (noun(results), nouns(results)) == ("query", "queries")
    assert [(score.title, score.shown) for score in scores_of(results)] == [("asked", True), ("kept", False)]
    assert summary_table(results)[0] == ["label", "forget", "retain", "gap", "alpha", "seconds"]
    assert markdown_table(results).startswith("| method | data it needs | asked | ")
