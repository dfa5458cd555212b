"""The merge that `negmerge unlearn` chooses: by what goes, and by how many members there are after all changes."""

import csv

import pytest
import torch
from PIL import Image

from negmerge.checkpoints import write_state_dict
from negmerge.errors import InputError
from negmerge.experiment.direct import Request
from negmerge.experiment.direct_choices import checked_request
from negmerge.tasks.image_classification.families import small_cnn
from negmerge.tasks.text_classification.families import small_transformer

SMALL = ("model.width=16", "model.vocabulary=256")
TWO, FOUR = "pool.grid={lr: [3e-3, 1e-2], epochs: [4]}", "pool.grid={lr: [3e-3, 1e-2], epochs: [4, 8]}"


@pytest.fixture
def request_for(tmp_path):
    """A function that returns a request on a small text classifier, with or without unseen rows."""
    own = small_transformer.Settings(width=16, vocabulary=256)
    write_state_dict(tmp_path / "w.safetensors", small_transformer.build(own, 3).state_dict())
    rows = [(f"word{i} word{i % 7}", ("food", "tech", "sport")[i % 3]) for i in range(90)]
    for name, part in (("all", rows[:60]), ("gone", rows[:9]), ("unseen", rows[60:])):
        with (tmp_path / f"{name}.csv").open("w", newline="") as opened:
            writer = csv.writer(opened)
            writer.writerows([("text", "label"), *part])

    def make(unseen=True, **given):
        place = tmp_path / "unseen.csv" if unseen else None
        files = (tmp_path / "w.safetensors", tmp_path / "gone.csv", tmp_path / "all.csv", place)
        return Request(*files, family="small-transformer", **given)

    return make


@pytest.mark.parametrize(
    ("unseen", "changes", "method", "why"),
    [
        (True, (), "uniform", "6 members and rows of kinds that are kept"),
        (True, (FOUR,), "uniform", "4 members and rows of kinds that are kept"),
        (True, (TWO,), "consensus", "2 members and rows of kinds that are kept"),
        (True, (TWO, "selection.objective=retain-floor"), "consensus", "rows that are to be known no more"),
        (False, (), "consensus", "rows that are to be known no more"),
    ],
)
def test_the_merge_follows_what_goes_and_how_many_members_there_are(request_for, unseen, changes, method, why):
    request = request_for(unseen)
    config = checked_request(request, (*SMALL, *changes))
    assert {one.name for one in config.methods} == {method}
    assert [line for line in request.assumed if line.startswith("merge: ")] == [
        f"merge: {method}, for {why} (--method NAME asks for another)"
    ]


@pytest.mark.parametrize(("given", "changes"), [({"method": "ties"}, ()), ({}, ("methods=[ties]",))])
def test_a_merge_that_was_named_is_taken(request_for, given, changes):
    request = request_for(**given)
    config = checked_request(request, (*SMALL, TWO, *changes))
    assert {one.name for one in config.methods} == {"ties"}
    assert not [line for line in request.assumed if line.startswith("merge: ")]


def test_what_is_wrong_with_a_change_is_said(request_for):
    with pytest.raises(InputError, match="'lrr' is no training setting"):
        checked_request(request_for(), (*SMALL, "pool.grid={lrr: [1]}"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A small network with running statistics and its images, 110 of each of two classes; all look alike."""
    place = tmp_path_factory.mktemp("photos")
    image = Image.new("RGB", (8, 8), (90, 120, 30))
    for name in ("circle", "line"):
        (place / "photos" / name).mkdir(parents=True)
        for i in range(110):
            image.save(place / "photos" / name / f"{i}.png")
    torch.manual_seed(0)
    write_state_dict(place / "w.safetensors", small_cnn.build(small_cnn.Settings(width=4), 2, (3, 8, 8)).state_dict())
    return place


@pytest.mark.parametrize(
    ("circles", "lines", "anew", "method"),
    [
        (50, 50, True, "uniform"),
        (0, 73, False, "uniform"),  # 37 are kept, half as many; but 73 say little of a channel
        (60, 74, False, "consensus"),  # 36 lines are kept: that class goes as a whole
        (100, 0, False, "consensus"),
    ],
)
def test_listed_images_among_others_of_their_classes_take_the_mean_and_statistics_of_their_own(
    photos, circles, lines, anew, method
):
    listed = photos / f"{circles}-{lines}.txt"
    listed.write_text("\n".join([f"circle/{i}.png" for i in range(circles)] + [f"line/{i}.png" for i in range(lines)]))
    request = Request(photos / "w.safetensors", listed, photos / "photos", family="small-cnn")
    config = checked_request(request, ("model.width=4", "data.validation.fraction=0.2"))
    assert {one.name for one in config.methods} == {method}
    assert config.resolved()["buffers"] == ({"recalibrate": "forget", "rows": 2000} if anew else "keep")
    assert all(member.settings.freeze_statistics is not anew for member in config.pool.members())
    assert any("estimated again on the images to forget" in line for line in request.assumed) is anew
    named = checked_request(
        Request(photos / "w.safetensors", listed, photos / "photos", family="small-cnn", method="salun"),
        ("model.width=4",),
    )
    assert named.buffers == "keep"


@pytest.mark.parametrize(
    ("change", "method"),
    [
        ("buffers=keep", "auto"),
        ("buffers=negate", "auto"),
        ("pool.adapter={r: 4}", "auto"),
        ("pool.train.freeze_statistics=true", "auto"),
        ("methods=[salun]", "auto"),
        ("data.forget={classes: [circle]}", "auto"),
        ("workers=1", "gradient-ascent"),
    ],
)
def test_statistics_are_left_alone_where_something_else_was_asked_for(photos, change, method):
    listed = photos / "asked.txt"
    listed.write_text("\n".join(f"{name}/{i}.png" for name in ("circle", "line") for i in range(50)))
    request = Request(photos / "w.safetensors", listed, photos / "photos", family="small-cnn", method=method)
    config = checked_request(request, ("model.width=4", change))
    assert config.buffers == ("negate" if "negate" in change else "keep")
    assert all(member.settings.freeze_statistics for member in config.pool.members())
    assert not any("estimated again" in line for line in request.assumed)


def test_images_are_counted_once_and_one_lone_image_decides_nothing(photos):
    (photos / "photos" / "rare").mkdir(exist_ok=True)
    Image.new("RGB", (8, 8)).save(photos / "photos" / "rare" / "r.png")
    lines = [f"{name}/{i}.png" for name in ("circle", "line") for i in range(50)]
    listed = photos / "twice.txt"
    listed.write_text("\n".join([*lines, *lines, "rare/r.png"]))
    request = Request(photos / "w.safetensors", listed, photos / "photos", family="small-cnn")
    request.config()
    assert request.scattered == 101 and any("names 101 images" in line for line in request.assumed)
