"""The tables for the terminal and the docs, and how numbers are written."""

import pytest
from report_example import class_results, random_results

from negmerge.errors import InputError
from negmerge.report import markdown_table, numbers, summary_table
from negmerge.report.tables import gap_table, method_table


def test_summary_table():
    rows = summary_table(random_results())
    assert rows[0] == ["label", "forget", "retain", "test", "membership", "gap", "alpha", "seconds"]
    assert rows[1] == ["Original", "99.8", "99.9", "75.9", "8.1", "15.7", "–", "6.1"]
    assert rows[2] == ["consensus", "88.0", "96.1", "71.0", "24.0", "10.3", "1.35", "33.2"]
    assert [row[0] for row in rows[3:]] == ["uniform", "best-single", "Retrained without it"]


def test_markdown_table_leaves_empty_columns_out():
    lines = markdown_table(class_results()).splitlines()
    assert lines[0] == "| method | data it needs | forget | forget (unseen) | retain | test | consensus | α | seconds |"
    assert lines[1] == "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    assert lines[3] == "| consensus | the pool, forget | 1.9 | 2.7 | 95.3 | 94.4 | 24.7 | 1.35 | 33.2 |"
    assert len(lines) == 6


def test_markdown_table_escapes():
    results = class_results()
    results["methods"]["uniform"]["label"] = "a|b<c>"
    assert "| a\\|b&lt;c> |" in markdown_table(results)


def test_tables_check_what_they_are_given():
    with pytest.raises(InputError, match="'methods' is missing"):
        summary_table({"format": 1, "name": "x", "task": {}, "base": {}})


def test_best_is_marked_only_where_one_stands_alone():
    def marked(results):
        return [(row.name, row.best) for row in method_table(results)[1] if row.best]

    assert marked(class_results()) == [("consensus", {"forget"})]
    assert marked(random_results()) == [("uniform", {"gap"})]
    tied = class_results()
    tied["methods"]["uniform"]["forget"] = 1.94
    assert marked(tied) == []
    broken = class_results()
    broken["methods"]["consensus"]["retain"] = 50.0  # the floor is 94.6
    assert marked(broken) == [("best-single", {"forget"})]


def test_targets_come_last_and_retrain_stands_once():
    results = random_results()
    again = {**results["reference"], "label": "retrain", "kind": "train", "method": "retrain"}
    other = {**again, "label": "another seed", "forget": again["forget"] - 1.0}
    results["methods"] = {"retrain": again, "retrain-1": other, **results["methods"]}
    rows = method_table(results)[1]
    assert [row.group for row in rows] == ["base", "methods", "methods", "methods", "target", "target"]
    assert [row.label for row in rows[-2:]] == ["another seed", "Retrained without it"]
    assert rows[1].main and rows[1].needs == "the pool, forget"


def test_gap_table_has_four_parts_and_the_mean():
    assert gap_table(class_results()) == []
    rows = gap_table(random_results())
    assert rows[1] == ("consensus", True, ["13.9", "3.8", "3.6", "20.0", "10.3"])
    results = random_results()
    results["methods"]["consensus"] |= {"gap": None, "gap_parts": None}
    assert gap_table(results)[1] == rows[1]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.44, "0.4 s"),
        (12.3, "12 s"),
        (59.7, "1 min"),
        (61, "1 min 01 s"),
        (200, "3 min 20 s"),
        (3900, "1 h 05 min"),
    ],
)
def test_seconds(value, text):
    assert numbers.seconds(value).replace("\xa0", " ") == text


def test_other_numbers():
    assert [numbers.percent(v) for v in (None, 0.0, -0.0, 0.01, 9.96, 100.0)] == [
        "–",
        "0.0",
        "0.0",
        "<0.1",
        "10.0",
        "100.0",
    ]
    assert numbers.size(11_200_000).replace("\xa0", " ") == "11.2 MB"
    assert numbers.many(11_173_962).replace("\xa0", " ") == "11.2 million"
    assert numbers.shorten("abcdefghij", 5) == "ab…ij"
    assert numbers.listed(["a", "b", "c"]) == "a, b and c"
    assert numbers.listed(["a"]) == "a" and numbers.listed([]) == ""
    assert numbers.setting({"lr": 0.001, "on": True, "sizes": [1, 2]}) == "lr 0.001, on yes, sizes 1, 2"
