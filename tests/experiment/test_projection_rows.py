"""Rows of a projection that a file lists: looked at before anything is trained, and none of the request."""

import pytest
import torch
import yaml
from test_projection_run import TINY, config

from negmerge.cli import main
from negmerge.errors import InputError
from negmerge.experiment.pipeline import run
from negmerge.experiment.prepare import load_unwritten


@pytest.fixture(scope="module")
def digits():
    """The split of the small digits, and the class of each row."""
    material = load_unwritten(config(projection="none"))
    return material.split, material.task.rows().group_of


def listed(tmp_path, text, **data):
    """Load the data of a config whose projection lists these rows."""
    file = tmp_path / "mine.txt"
    file.write_text(text)
    made = {**TINY["data"], **data}
    return load_unwritten(config(data=made, projection={"rows": str(file)}))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must hold row numbers: a JSON list, or one a line"),
        ("[]", "must hold row numbers"),
        ("one two", "must hold row numbers"),
        ('{"forget_rows": [1]}', "must hold row numbers"),
        ("1.5", "must hold row numbers"),
        ("5 999999", "row 999999 is not in the train table"),
        ("5 -1", "must hold row numbers"),
        ("[5, -1]", "row -1 is not in the train table"),
        ("5 5", "row 5 stands twice"),
    ],
)
def test_what_is_no_list_of_rows_is_refused_by_the_key(tmp_path, text, said):
    with pytest.raises(InputError) as caught:
        listed(tmp_path, text)
    assert str(caught.value).startswith(f"projection.rows: {tmp_path / 'mine.txt'}")
    assert said in str(caught.value)
    assert "forget_rows" not in str(caught.value) and "\n" not in str(caught.value)


def test_rows_of_the_request_and_of_its_class_are_refused(tmp_path, digits):
    split, group_of = digits

    def words(rows):
        return " ".join(map(str, rows.tolist()))

    listed(tmp_path, words(split.retain[:9]))
    with pytest.raises(InputError, match="holds 3 rows that are to be forgotten"):
        listed(tmp_path, words(split.forget[:3]))
    with pytest.raises(InputError, match="holds 2 rows of a class that is to be forgotten as a whole"):
        listed(tmp_path, words(torch.cat([split.retain[:9], split.validation_forget[:2]])))
    # Rows of the class that are neither trained on nor held out.
    outside = torch.arange(800, 1000)
    outside = outside[group_of[outside] == 3][:4]
    validation = {"rows": [1000, 1200]}
    with pytest.raises(InputError, match="holds 4 rows of a class"):
        listed(tmp_path, words(outside), train_rows=[0, 800], validation=validation)
    # Of single rows to be forgotten others of their class may be protected.
    file = tmp_path / "forget.txt"
    file.write_text(words(split.forget[:5]))
    listed(tmp_path, words(split.forget[5:9]), forget={"rows": str(file)})


@pytest.mark.parametrize("place", ["config", "method"])
@pytest.mark.parametrize("word", ["test", "none.txt"])
def test_a_file_that_is_not_there_is_named_before_the_data_are_read(tmp_path, place, word):
    projection = {"rows": word}
    changes = {"projection": projection}
    if place == "method":
        changes = {"projection": "none", "methods": [{"name": "uniform", "projection": projection}]}
    made = config(**changes)
    said = f"^projection.rows: {word} is not there; give retain, validation, or a file of row numbers"
    with pytest.raises(InputError, match=said):
        load_unwritten(made)
    with pytest.raises(InputError, match=said):
        run(made, tmp_path / "run")
    assert not (tmp_path / "run" / "base").exists()


def test_a_dry_run_refuses_them_too(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("999999")
    made = {**TINY, "projection": {"rows": str(tmp_path / "mine.txt")}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(made))
    with pytest.raises(SystemExit) as stop:
        main(["run", str(tmp_path / "c.yaml"), "--dry-run"])
    assert stop.value.code == 2
    assert "row 999999 is not in the train table" in capsys.readouterr().err
