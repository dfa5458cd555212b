"""Rows named as people name them: by class, by file, by what stands in a column; and what a request says it found."""

import hashlib
import json

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from negmerge.errors import InputError
from negmerge.parsing import parse_yaml
from negmerge.requests.rules import ForgetRule, group_numbers
from negmerge.requests.splits import draw_split, load_split, save_split
from negmerge.tasks.image_classification.images import ImageSet

IDS = tuple(f"train/{'cat' if i % 2 == 0 else 'dog'}/{i // 2:03}.png" for i in range(40))
COLUMNS = {
    "person": ["ann" if i % 10 == 3 else "bob" for i in range(40)],
    "year": [2000 + i // 10 for i in range(40)],
    "blurred": [i % 4 == 1 for i in range(40)],
    "code": ["001" if i < 5 else "1.0" if i < 7 else None for i in range(40)],
}
LABELS = torch.arange(40) % 2
TRAIN = ImageSet(torch.arange(40, dtype=torch.uint8)[:, None, None, None], LABELS, ("cat", "dog"), IDS, (), COLUMNS)
TEST_IDS = tuple(f"test/cat/{i:03}.png" for i in range(40))
TEST = ImageSet(TRAIN.images, LABELS, TRAIN.classes, TEST_IDS)


def draw(**rule):
    return draw_split(TRAIN, TEST, forget=ForgetRule(**rule), seed=2)


def listed(tmp_path, *lines):
    file = tmp_path / "list.txt"
    file.write_text("\n".join(lines))
    return file


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("train/cat/003.png", [6]),
        ("./train/dog/000.png\r\n\r\ntrain/dog/000.png\r\n", [1]),
        ("/data/of/mine/train/cat/001.png", [2]),
        ("dog/004.png\ncat/004.png", [8, 9]),
        ("train\\dog\\002.png", [5]),
        ("\ufefftrain/cat/000.png", [0]),
    ],
    ids=["id", "twice", "absolute", "end", "backslash", "bom"],
)
def test_a_list_of_files(tmp_path, text, wanted):
    file = tmp_path / "list.txt"
    file.write_bytes(text.encode())
    split = draw(files=file)
    assert split.kind == "rows" and split.forget.tolist() == wanted
    assert not torch.isin(split.validation, split.forget).any() and len(split.validation) == 4


def test_all_lines_that_name_no_row_are_told_at_once(tmp_path):
    file = listed(tmp_path, "train/cat/003.png", "train/cow/1.png", "007.png", "test/cat/039.png", "3")
    with pytest.raises(InputError, match="4 of 5 lines name no row of the train table") as caught:
        draw(files=file)
    lines = str(caught.value).splitlines()[1:]
    assert lines[0] == "  train/cow/1.png" and lines[3] == "  3"
    assert lines[1] == "  007.png: names several rows (train/cat/007.png, train/dog/007.png); write more of the path"
    assert lines[2] == "  test/cat/039.png: in the test table, which no model is trained on"
    for content, message in ((b"\n \n", "is empty; give a path"), (b"\xff\xfe", "not a text; give a text file")):
        file.write_bytes(content)
        with pytest.raises(InputError, match=message):
            draw(files=file)


def test_rows_without_names_go_by_their_numbers(tmp_path):
    plain = ImageSet(TRAIN.images, LABELS, TRAIN.classes)
    split = draw_split(plain, plain, forget=ForgetRule(files=listed(tmp_path, "7", "12")))
    assert split.forget.tolist() == [7, 12]
    with pytest.raises(InputError, match=r"no column 'person'; this source has none"):
        draw_split(plain, plain, forget=ForgetRule(where={"person": ["ann"]}))


@pytest.mark.parametrize(
    ("where", "wanted"),
    [
        ({"person": ["ann"]}, [3, 13, 23, 33]),
        ({"person": "ann", "year": [2001, 2003]}, [13, 33]),
        ({"blurred": True, "year": 2002}, [21, 25, 29]),
        ({"code": ["001"]}, [0, 1, 2, 3, 4]),
        ({"code": ["1.0"]}, [5, 6]),
    ],
    ids=["text", "two", "truth", "zeros", "decimal"],
)
def test_rows_by_a_column(where, wanted):
    split = draw(where=where)
    assert split.kind == "rows" and split.forget.tolist() == wanted
    assert not torch.isin(split.validation, split.forget).any()


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"persn": ["ann"]}, r"no column 'persn' \(did you mean 'person'\?\); there are blurred, code, person, year"),
        ({"person": ["anne"]}, r"no row has 'anne' in person \(did you mean 'ann'\?\); it holds ann, bob"),
        ({"code": [1.0]}, "code holds texts, and 1.0 without quotes is none; write '1.0', as it is there"),
        ({"code": [1]}, r"no row has '1' in code"),
        ({"year": ["2001"]}, "year holds numbers, got '2001'; write it without quotes"),
        ({"blurred": ["yes"]}, "blurred holds true or false, got 'yes'"),
        ({"person": ["ann"], "year": [1999]}, "no row has all of person, year as asked for"),
        ({"person": ["ann", "bob"]}, "everything is forgotten"),
    ],
)
def test_conditions_that_find_nothing_or_everything_say_so(where, message):
    with pytest.raises(InputError, match=message):
        draw(where=where)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("[1.0]", r"1\.0 without quotes is no name; write '1\.0' \(in quotes\)"),
        ("[true]", r"true without quotes is no name; write 'true'"),
        ("[null]", r"null without quotes is no name; write 'null'"),
        ("[1e3]", r"1000\.0 without quotes is no name"),
    ],
)
@pytest.mark.parametrize("key", ["classes", "groups"])
def test_what_yaml_makes_of_a_name_is_refused(key, written, message):
    with pytest.raises(ValidationError, match=message):
        ForgetRule(**parse_yaml(f"{key}: {written}"))


def test_names_are_exact_texts():
    for written in ("[001]", "['001']", "[yes]", "[1:30]"):
        assert all(isinstance(name, str) for name in ForgetRule(**parse_yaml(f"classes: {written}")).classes)
    assert group_numbers(["001"], ("001", "1", "1.0")) == [0] and group_numbers([1], ("001", "1", "1.0")) == [1]
    assert group_numbers([0], ("a", "b")) == [0]
    with pytest.raises(InputError, match=r"unknown class 1; write '001' \(in quotes\) if that is meant"):
        group_numbers([1], ("001", "002", "003"))
    with pytest.raises(InputError, match=r"unknown group 'Ann' \(did you mean 'ann'\?\); the groups are ann, bob"):
        group_numbers(["Ann"], ("ann", "bob"), "group")


def test_groups_are_forgotten_as_a_whole():
    split = draw(groups=["dog"])
    assert split.kind == "class" and (LABELS[split.forget] == 1).all() and len(split.test_forget) == 20
    assert torch.equal(split.forget, draw(classes=["dog"]).forget)


def test_a_fraction_of_a_single_row_says_so():
    assert draw(fraction=0.01).notes == ("data.forget: fraction 0.01 of 36 rows is a single row",)
    assert draw(fraction=0.1).notes == ()


def test_the_split_lists_what_is_forgotten_by_id_and_hash(tmp_path):
    split = draw(where={"person": ["ann"]})
    save_split(tmp_path / "split.json", split, TRAIN)
    forgotten = json.loads((tmp_path / "split.json").read_text())["forgotten"]
    digest = hashlib.sha256(bytes([13])).hexdigest()  # one pixel
    assert forgotten[1] == {"row": 13, "id": "train/dog/006.png", "group": "dog", "hash": f"sha256:{digest}"}
    assert [one["row"] for one in forgotten] == split.forget.tolist()
    assert load_split(tmp_path / "split.json").hash() == split.hash()


def test_the_hash_of_a_row_is_that_of_its_file(tmp_path):
    from negmerge.tasks.image_classification.sources import image_folder

    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(6):
            Image.fromarray(np.full((4, 4), 10 * i, np.uint8)).save(tmp_path / name / f"{i}.png")
    (tmp_path / "metadata.csv").write_text("file_name,person\ncat/1.png,ann\ndog/5.png,ann\ndog/4.png,bob\n")
    source = image_folder.load(image_folder.Settings(path=tmp_path, test_fraction=0.1, seed=1))
    for row, name in enumerate(source.train.ids):
        assert source.train.row_hash(row) == f"sha256:{hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()}"
    tables = (source.train, source.test)
    person = {name: who for part in tables for name, who in zip(part.ids, part.columns["person"], strict=True)}
    assert person["cat/1.png"] == "ann" and person["cat/2.png"] is None
    assert set(source.train.columns) == {"class", "folder", "person"}


def test_a_class_alone_is_a_list_of_one():
    assert ForgetRule(classes="b").classes == ["b"] and ForgetRule(groups=3).groups == [3]
    with pytest.raises(ValueError, match=r"1\.0 without quotes is no name"):
        ForgetRule(classes=1.0)
