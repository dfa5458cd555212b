"""Sources of texts: three formats, columns, class names, and what is refused."""

import csv
import hashlib
import json

import pytest
import torch

from negmerge.errors import InputError
from negmerge.tasks.text_classification.preparing import load_source

pyarrow = pytest.importorskip("pyarrow")
from pyarrow import parquet  # noqa: E402

ROWS = [{"text": f"text {i}", "label": ("001", "1", "yes")[i % 3], "place": f"p{i}"} for i in range(30)]


def write(path, rows):
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    else:
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("name", ["rows.csv", "rows.json", "rows.jsonl", "rows.parquet"])
def test_formats_give_the_same_rows_and_exact_class_names(tmp_path, name):
    source = {"csv": "csv", "parquet": "parquet"}.get(name.split(".")[1], "json")
    found = load_source(source, {"path": write(tmp_path / name, ROWS), "test_fraction": 0.2})
    assert found.train.classes == ("001", "1", "yes") and len(found.train) == 24 and len(found.test) == 6
    pairs = zip(found.train.texts + found.test.texts, torch.cat([found.train.labels, found.test.labels]), strict=True)
    names = {text: found.train.classes[label] for text, label in pairs}
    assert names == {row["text"]: row["label"] for row in ROWS}


def test_a_folder_has_a_train_and_a_test_table_and_several_files_are_one_behind_the_other(tmp_path):
    write(tmp_path / "train-0.csv", ROWS[:9])
    write(tmp_path / "train-1.csv", ROWS[9:18])
    write(tmp_path / "test.csv", ROWS[18:])
    for name in (".train-old.csv", "readme.md", "validation.csv"):
        (tmp_path / name).write_text("text,label\n")
    (tmp_path / "test.csv").rename(tmp_path / "Test.csv")
    found = load_source("csv", {"path": tmp_path})
    assert found.notes == (f"{tmp_path}: 2 files are not read: readme.md, validation.csv",)
    (tmp_path / "Test.csv").rename(tmp_path / "test.csv")
    assert found.train.texts == tuple(row["text"] for row in ROWS[:18]) and len(found.test) == 12
    files = [tmp_path / "train-1.csv", tmp_path / "train-0.csv"]
    turned = load_source("csv", {"path": files, "test": tmp_path / "test.csv", "most": 10})
    assert len(turned.train) == 10 and set(turned.train.texts) <= set(found.train.texts)
    whole = load_source("csv", {"path": files, "test": tmp_path / "test.csv"}).train.texts
    assert whole == found.train.texts[9:] + found.train.texts[:9]


def test_rows_keep_their_ids_and_further_columns_in_every_order(tmp_path):
    found = load_source(
        "json", {"path": write(tmp_path / "rows.json", [{"id": f"r{i}", **r} for i, r in enumerate(ROWS)])}
    )
    for table in (found.train, found.test, found.train.counted_as((*found.train.classes, "other"))):
        numbers = [int(text.split()[1]) for text in table.texts]
        assert table.ids == tuple(f"r{number}" for number in numbers)
        assert table.columns["place"] == [f"p{number}" for number in numbers] and "text" not in table.columns
    first = found.train.texts[0]
    assert found.train.row_hash(0) == f"sha256:{hashlib.sha256(first.encode()).hexdigest()}"


def test_columns_are_found_or_named(tmp_path):
    rows = [{"id": str(i), "mail": f"m {i}", "spam": i % 2 == 0, "number": 3} for i in range(10)]
    file = write(tmp_path / "rows.json", rows)
    with pytest.raises(InputError, match="which column holds the label"):
        load_source("json", {"path": file})
    with pytest.raises(InputError, match=r"which column holds the text.*id, mail"):
        load_source("json", {"path": file, "columns": {"label": "spam"}})
    found = load_source("json", {"path": file, "columns": {"label": "spam", "text": "mail"}})
    assert found.train.classes == ("false", "true")
    with pytest.raises(InputError, match=r"no column 'mial' \(did you mean 'mail'\?\)"):
        load_source("json", {"path": file, "columns": {"label": "spam", "text": "mial"}})


def test_class_names_that_the_hub_keeps_in_parquet(tmp_path):
    datasets = pytest.importorskip("datasets")
    kind = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    rows = {"text": [f"t{i}" for i in range(10)], "label": [i % 2 for i in range(10)]}
    datasets.Dataset.from_dict(rows, features=kind).to_parquet(tmp_path / "train.parquet")
    assert load_source("parquet", {"path": tmp_path / "train.parquet"}).train.classes == ("neg", "pos")
    hub = tmp_path / "hub"
    hub.mkdir()
    for part in ("train", "test"):
        (hub / f"{part}.parquet").write_bytes((tmp_path / "train.parquet").read_bytes())
    assert load_source("hub", {"path": str(hub)}).test.classes == ("neg", "pos")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"text": "a", "label": ["x", "y"]}, {"text": "b", "label": ["x"]}], "multi-label data is not supported"),
        ([{"text": "a", "label": 0.5}, {"text": "b", "label": 0.25}], "a number for a regression"),
        ([{"text": "a", "label": "x"}, {"text": "b", "label": None}], "row 1 has no label"),
        ([{"text": "a", "label": "x"}, {"text": None, "label": "y"}, {"text": "c", "label": "x"}], "row 1 has no text"),
        ([{"text": "a", "label": "x"}, {"text": "b", "label": "x"}], "two at least can be told apart"),
        ([], "has no rows"),
        ([3], "row 0 is a number, not an object"),
    ],
)
def test_what_is_refused(tmp_path, rows, words):
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    with pytest.raises(InputError, match=words):
        load_source("json", {"path": tmp_path / "rows.json"})


def test_a_broken_csv_names_the_row(tmp_path):
    (tmp_path / "rows.csv").write_text("text,label\na,b\nc\n")
    with pytest.raises(InputError, match="row 2 has 1 values for 2 columns"):
        load_source("csv", {"path": tmp_path / "rows.csv"})
    with pytest.raises(InputError, match="no such file"):
        load_source("csv", {"path": tmp_path / "gone.csv"})


def test_a_file_of_rows_to_forget_is_named_in_what_is_said_of_the_request():
    from negmerge.experiment.prepare import _asked
    from negmerge.tasks.settings import DataConfig

    rule = {"where": {"requested": [True]}}
    several = DataConfig(source="csv", path=["a/gone.csv", "b/keep.csv"], distinct_first=3, forget=rule)
    assert _asked(several) == "gone.csv"
    assert _asked(DataConfig(source="json", path="keep.json", requested="a/asked.json", forget=rule)) == "asked.json"
    assert _asked(DataConfig(source="csv", path=["keep.csv"], forget=rule)) == ""
