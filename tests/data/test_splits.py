"""Which rows go where."""

import json

import pytest
import torch
from pydantic import ValidationError

from negmerge.errors import InputError
from negmerge.requests.rules import ForgetRule, RetainRule, ValidationRule, group_numbers
from negmerge.requests.splits import draw_split, load_split, save_split, split_from_file
from negmerge.tasks.image_classification.images import ImageSet, Source
from negmerge.tasks.rows.row_set import join_sources


def images(count, classes=("a", "b", "c")):
    labels = torch.arange(count) % len(classes)
    return ImageSet(torch.zeros(count, 1, 2, 2, dtype=torch.uint8), labels, classes)


TRAIN, TEST = images(90), images(30)


def draw(forget, **more):
    return draw_split(TRAIN, TEST, forget=ForgetRule(**forget), **more)


def parts(split):
    return [split.retain, split.forget, split.validation, split.validation_forget]


def test_class_forgetting_splits_validation_and_test_by_class():
    split = draw({"classes": ["b"]})
    assert split.kind == "class"
    counts = split.describe()
    assert (counts["test"], counts["test_forget"]) == (20, 10)
    assert counts["validation"] + counts["validation_forget"] == 9
    assert counts["forget"] + counts["validation_forget"] == 30
    for rows, table, is_b in (
        (split.forget, TRAIN, True), (split.validation_forget, TRAIN, True), (split.test_forget, TEST, True),
        (split.retain, TRAIN, False), (split.validation, TRAIN, False), (split.test, TEST, False),
    ):  # fmt: skip
        assert len(rows) and ((table.labels[rows] == 1) == is_b).all()
    assert torch.equal(torch.cat(parts(split)).sort().values, torch.arange(90))


def test_random_forgetting_draws_from_what_is_left_after_validation():
    split = draw({"fraction": 0.1}, validation=ValidationRule(fraction=0.2), seed=3)
    assert split.kind == "random"
    assert split.describe() == {
        "retain": 65, "forget": 7, "validation": 18, "validation_forget": 0, "test": 30, "test_forget": 0,
    }  # fmt: skip
    assert torch.equal(torch.cat(parts(split)).sort().values, torch.arange(90))
    assert split.hash() == draw({"fraction": 0.1}, validation=ValidationRule(fraction=0.2), seed=3).hash()
    assert split.hash() != draw({"fraction": 0.1}, validation=ValidationRule(fraction=0.2), seed=4).hash()


def test_validation_has_at_most_so_many_rows():
    assert len(draw({"fraction": 0.1}, validation=ValidationRule(most=5)).validation) == 5


def test_ranges_of_rows():
    split = draw({"fraction": 0.5}, train_rows=(0, 40), validation=ValidationRule(rows=(80, 90)))
    assert split.validation.tolist() == list(range(80, 90))
    assert torch.cat([split.retain, split.forget]).sort().values.tolist() == list(range(40))


@pytest.mark.parametrize("text", ["[5, 3, 30]", '{"forget_rows": [5, 3, 30], "more": 1}', "3\n30\n5\n"])
def test_row_files(tmp_path, text):
    file = tmp_path / "rows"
    file.write_text(text)
    split = draw({"rows": file}, validation=ValidationRule(rows=(80, 90)))
    assert split.kind == "rows" and split.forget.tolist() == [3, 5, 30]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[90]", "row 90 is not in the train table, which has rows 0 to 89"),
        ("[-1]", "row -1 is not in the train table"),
        ("[1, 1]", "row 1 stands twice"),
        ("[]", "must hold row numbers"),
        ("", "must hold row numbers"),
        ("a b", "must hold row numbers"),
        ('{"rows": [1]}', "must hold row numbers"),
        ("[1.5]", "must hold row numbers"),
        ("[85]", "row 85 is not among the 80 rows it may be taken from"),
    ],
)
def test_bad_row_files(tmp_path, text, message):
    file = tmp_path / "rows"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        draw({"rows": file}, validation=ValidationRule(rows=(80, 90)))


def test_retain_can_be_narrowed():
    whole = draw({"classes": ["b"]})
    narrowed = draw({"classes": ["b"]}, retain=RetainRule(fraction=0.5))
    assert len(narrowed.retain) == round(0.5 * len(whole.retain))
    assert torch.isin(narrowed.retain, whole.retain).all()
    assert (TRAIN.labels[draw({"classes": ["b"]}, retain=RetainRule(classes=["c"])).retain] == 2).all()


def test_forgetting_another_source():
    other = Source(images(20, ("x", "b")), images(10, ("x", "b")))
    joined = join_sources(Source(TRAIN, TEST), other)
    split = draw_split(
        joined.source.train, joined.source.test, forget=ForgetRule(source="other"), other=joined,
        validation=ValidationRule(fraction=0.2),
    )  # fmt: skip
    assert split.kind == "source"
    assert (split.forget >= 90).all() and (split.validation_forget >= 90).all() and (split.retain < 90).all()
    assert split.test_forget.tolist() == list(range(30, 40)) and split.test.tolist() == list(range(30))


def test_a_name_of_two_classes_stands_for_both():
    assert group_numbers(["b", 2], ("b", "a", "c", "b")) == [0, 2, 3]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"forget": {"classes": ["bb"]}}, r"unknown class 'bb' \(did you mean 'b'\?\); the classes are a, b, c"),
        ({"forget": {"classes": [7]}}, "unknown class 7"),
        ({"forget": {"classes": ["a", "b", "c"]}}, "has no retain rows"),
        ({"train_rows": (0, 91)}, r"data.train_rows must be \[start, stop\] within 0 and 90"),
        ({"train_rows": (5, 5)}, "data.train_rows must be"),
        (
            {"train_rows": (0, 50), "validation": ValidationRule(rows=(40, 60))},
            "overlap; validation must not be trained on",
        ),
    ],
)
def test_splits_that_make_no_sense(more, message):
    forget = more.pop("forget", {"fraction": 0.1})
    with pytest.raises(InputError, match=message):
        draw(forget, **more)


@pytest.mark.parametrize(
    "rule", [{}, {"classes": ["a"], "fraction": 0.1}, {"fraction": 1.5}, {"classes": []}, {"fracton": 0.1}]
)
def test_rules_are_checked(rule):
    with pytest.raises(ValidationError):
        ForgetRule(**rule)


def test_a_saved_split_loads_and_a_changed_one_does_not(tmp_path):
    file = tmp_path / "split.json"
    split = draw({"classes": ["b"]})
    save_split(file, split)
    assert load_split(file).hash() == split.hash() == split_from_file(file, TRAIN, TEST).hash()
    raw = json.loads(file.read_text())
    raw["forget"][0] += 1
    file.write_text(json.dumps(raw))
    with pytest.raises(InputError, match="was changed after it was written"):
        load_split(file)


def test_a_split_by_ranges(tmp_path):
    file = tmp_path / "split.json"
    file.write_text(json.dumps({"train_rows": [0, 50], "validation_rows": [60, 70], "forget_rows": [3, 4]}))
    split = split_from_file(file, TRAIN, TEST)
    assert (len(split.retain), split.forget.tolist(), split.validation.tolist()) == (48, [3, 4], list(range(60, 70)))
    file.write_text(json.dumps({"train_rows": [0, 50], "validation_rows": [60, 70], "forget_rows": [55]}))
    with pytest.raises(InputError, match="row 55 is not among the 50"):
        split_from_file(file, TRAIN, TEST)
    file.write_text("{}")
    with pytest.raises(InputError, match="is no split: it lacks train_rows, validation_rows, forget_rows"):
        split_from_file(file, TRAIN, TEST)


def test_validation_comes_from_what_the_base_has_not_seen():
    split = draw({"fraction": 0.1}, train_rows=(10, 70))
    assert len(split.validation) == 9 and ((split.validation < 10) | (split.validation >= 70)).all()
    assert torch.cat([split.retain, split.forget]).sort().values.tolist() == list(range(10, 70))
    split = draw({"fraction": 0.1}, train_rows=(0, 85))
    assert split.validation.tolist() == list(range(85, 90))  # all that there is


def test_rows_of_a_file_are_never_held_out(tmp_path):
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(list(range(0, 90, 2))))
    for seed in range(5):
        split = draw({"rows": file}, seed=seed)
        assert split.forget.tolist() == list(range(0, 90, 2)) and len(split.validation) == 9
        assert (split.validation % 2 == 1).all()
    file.write_text(json.dumps(list(range(90))))
    with pytest.raises(InputError, match="the split has no retain rows: everything is forgotten"):
        draw({"rows": file})


def test_ranges_count_in_the_first_source_when_another_is_forgotten():
    joined = join_sources(Source(TRAIN, TEST), Source(images(20), images(10)))
    split = draw_split(
        joined.source.train, joined.source.test, forget=ForgetRule(source="other"), other=joined,
        train_rows=(0, 60), validation=ValidationRule(rows=(60, 90), fraction=0.25),
    )  # fmt: skip
    assert split.retain.tolist() == list(range(60)) and split.validation.tolist() == list(range(60, 90))
    assert (len(split.forget), len(split.validation_forget)) == (15, 5)
    assert torch.cat([split.forget, split.validation_forget]).sort().values.tolist() == list(range(90, 110))
    with pytest.raises(InputError, match="join the two sources first"):
        draw({"source": "other"})


def test_a_split_is_bound_to_its_images(tmp_path):
    file = tmp_path / "split.json"
    save_split(file, draw({"classes": ["b"]}))
    with pytest.raises(InputError, match="drawn from other data, or from the same in another order or form"):
        split_from_file(file, TRAIN.take(torch.arange(90).flip(0)), TEST)
    with pytest.raises(InputError, match="test: row 29 is not in the test table, which has rows 0 to 9"):
        split_from_file(file, TRAIN, TEST.take(torch.arange(10)))
    raw = json.loads(file.read_text())
    assert raw["kind"] == "class" and raw["source"] == f"{TRAIN.fingerprint()}+{TEST.fingerprint()}"
    assert len(raw["hash"]) == 64 and raw["test_forget"] == list(range(1, 30, 3))


@pytest.mark.parametrize("text", ["no JSON", "[]", "{}", '{"kind": "class"}', '{"kind": "class", "retain": "x"}'])
def test_a_damaged_split_file(tmp_path, text):
    file = tmp_path / "split.json"
    file.write_text(text)
    with pytest.raises(InputError, match=r"split\.json is (damaged|not a readable JSON object)"):
        load_split(file)
    with pytest.raises(InputError, match=r"not a readable JSON object; give a split\.json"):
        load_split(tmp_path / "missing.json")


def test_a_file_that_validates_on_training_rows(tmp_path):
    file = tmp_path / "split.json"
    file.write_text(json.dumps({"train_rows": [0, 50], "validation_rows": [40, 70], "forget_rows": [3]}))
    with pytest.raises(InputError, match="train_rows and validation_rows overlap"):
        split_from_file(file, TRAIN, TEST)


def test_real_splits(shared):
    train, test = images(50_000), images(10_000)
    for name, retain, forget in (("resnet20-cifar10", 40_500, 4_500), ("resnet20-cifar10-10k", 9_000, 1_000)):
        split = split_from_file(shared / "models" / f"{name}-split.json", train, test)
        assert (len(split.retain), len(split.forget), len(split.validation)) == (retain, forget, 5_000)
