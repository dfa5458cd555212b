"""The data sets known by name, on small files in the form of the hub's, and the real ones where they are at hand."""

import datasets
import pytest
import torch
from PIL import Image

from negmerge import registry
from negmerge.data import named
from negmerge.errors import InputError
from negmerge.models._clip_prompts import Prompts

COUNTS = {
    "cars": 196, "cifar10": 10, "cub200": 200, "dtd": 47, "eurosat": 10, "gtsrb": 43, "imagenet": 1000, "mnist": 10,
    "resisc45": 45, "sun397": 397, "svhn": 10, "tiny-imagenet": 200,
}  # fmt: skip
TEMPLATES = {
    "cars": 8, "cifar10": 18, "cub200": 1, "dtd": 8, "eurosat": 3, "gtsrb": 3, "imagenet": 80, "mnist": 1,
    "resisc45": 18, "sun397": 2, "svhn": 1, "tiny-imagenet": 80,
}  # fmt: skip
HOLD_WORDS = {"cifar10", "dtd", "eurosat", "gtsrb", "mnist", "resisc45", "svhn"}


def module(name):
    return registry.load("sources", name)


def load(name, **settings):
    return module(name).load(module(name).Settings(**settings))


def save(folder, names, rows=None, label="label"):
    """Write train.parquet and test.parquet with one image of each class, or with `rows` images."""
    folder.mkdir(exist_ok=True)
    labels = [i % len(names) for i in range(rows or len(names))]
    pictures = [Image.new("RGB", (6, 4), (i % 256, 0, 0)) for i in range(len(labels))]
    features = datasets.Features({"image": datasets.Image(), label: datasets.ClassLabel(names=list(names))})
    table = datasets.Dataset.from_dict({"image": pictures, label: labels}, features=features)
    for part in ("train", "test"):
        table.to_parquet(folder / f"{part}.parquet")
    return folder


@pytest.mark.parametrize("name", COUNTS)
def test_every_named_sources_facts_are_complete(name):
    facts = module(name).FACTS
    assert facts.count == COUNTS[name] and len(facts.templates) == TEMPLATES[name]
    assert facts.hub.count("/") == 1 and set(facts.columns) == {"image", "label"}
    assert set(facts.splits) == {"train", "test"} and f"{facts.count} classes" in module(name).SUMMARY
    Prompts(("cat",), facts.templates)  # raises unless each holds its place once
    assert len(set(facts.templates)) == len(facts.templates) and not any("  " in t for t in facts.templates)
    assert (len(facts.words) == facts.count) == (name in HOLD_WORDS) != (facts.word is not None)
    assert len(set(facts.words.values())) == len(facts.words)


@pytest.mark.parametrize(
    ("name", "number", "expected"),
    [
        ("mnist", 7, 'a photo of the number: "7".'),
        ("svhn", 0, 'a photo of the number: "0".'),
        ("cifar10", 1, "a photo of a automobile."),
        ("eurosat", 9, "a centered satellite photo of lake or sea."),
        ("dtd", 30, "a photo of a polka-dotted texture."),
        ("resisc45", 36, "satellite imagery of ship."),
        ("gtsrb", 14, 'a zoomed in photo of a "stop" traffic sign.'),
        ("gtsrb", 42, 'a zoomed in photo of a "white circle with gray strike bar indicating no passing for trucks has '
         'ended" traffic sign.'),
    ],
)  # fmt: skip
def test_prompts_of_the_zero_shot_evaluation(name, number, expected):
    facts = module(name).FACTS
    assert Prompts(tuple(facts.words.values()), facts.templates).texts[number][0] == expected


@pytest.mark.parametrize(
    ("name", "own", "worded"),
    [
        ("cars", "AM General Hummer SUV 2000", "AM General Hummer SUV 2000"),
        ("sun397", "/a/apartment_building/outdoor", "apartment building outdoor"),
        ("sun397", "airplane_cabin", "airplane cabin"),
        ("cub200", "001.Black_footed_Albatross", "Black footed Albatross"),
        ("imagenet", "great white shark, white shark, man-eater", "great white shark"),
    ],
)
def test_wording_of_a_data_sets_own_names(name, own, worded):
    assert module(name).FACTS.word(own) == worded


@pytest.mark.parametrize("form", [str, lambda n: f"{n:05d}", lambda n: module("gtsrb").FACTS.words[LIST[n]]])
def test_labels_by_number_or_by_wording_are_known(tmp_path, form):
    words = tuple(module("gtsrb").FACTS.words.values())
    source = load("gtsrb", path=save(tmp_path / "signs", [form(n) for n in range(43)]))
    assert source.train.classes == source.test.classes == words
    assert source.train.labels.tolist() == list(range(43))


LIST = list(module("gtsrb").FACTS.words)


def test_labels_keep_their_own_order(tmp_path):
    own = ["SeaLake", "River", "Residential", "PermanentCrop", "Pasture", "Industrial", "Highway"]
    own += ["HerbaceousVegetation", "Forest", "AnnualCrop"]
    classes = load("eurosat", path=save(tmp_path / "land", own)).train.classes
    assert classes[0] == "lake or sea" and classes[-1] == "annual crop land" and len(classes) == 10


def test_class_folders_stand_in_too(tmp_path):
    for part in ("train", "test"):
        for digit in range(10):
            (tmp_path / part / str(digit)).mkdir(parents=True)
            for i in range(3):
                Image.new("L", (4, 4), digit).save(tmp_path / part / str(digit) / f"{i}.png")
    source = load("mnist", path=tmp_path, mode="rgb", most=20)
    assert len(source.train) == 20 and len(source.test) == 30 and source.train.images.shape[1:] == (3, 4, 4)
    assert source.train.classes == tuple("0123456789")
    assert torch.equal(source.train.images[:, 0, 0, 0].long(), source.train.labels)


def test_a_seeded_sample_of_the_training_rows(tmp_path):
    folder = save(tmp_path / "digits", [str(d) for d in range(10)], rows=50)
    first, again = (load("mnist", path=folder, most=20) for _ in range(2))
    assert len(first.train) == 20 and len(first.test) == 50
    assert torch.equal(first.train.labels, again.train.labels)
    pixels = first.train.images[:, 0, 0, 0]
    assert len(set(pixels.tolist())) == 20 and pixels.tolist() != list(range(20))
    assert torch.equal(pixels.long() % 10, first.train.labels)


def test_imagenet_is_sampled_unless_told_otherwise(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(named.hub, "load", seen.append)
    for settings in ({}, {"most": 7}):
        with pytest.raises(AttributeError):
            load("imagenet", **settings)
    assert [s.most for s in seen] == [50_000, 7] and seen[0].path == "ILSVRC/imagenet-1k"
    assert seen[0].splits == {"train": "train", "test": "validation"}


@pytest.mark.parametrize(
    ("name", "spelt"), [("tiny-imagenet", "valid"), ("imagenet", "validation"), ("imagenet", "val")]
)
def test_a_clone_of_the_hubs_files_is_split_as_on_the_hub(tmp_path, name, spelt):
    folder = tmp_path / "clone" / "data"
    folder.parent.mkdir()
    save(folder, [f"thing {i}" for i in range(COUNTS[name])])
    (folder / "test.parquet").rename(folder / f"{spelt}-00000-of-00001.parquet")
    table = datasets.Dataset.from_parquet(str(folder / "train.parquet"), keep_in_memory=True)
    features = table.features
    table.select([0]).map(lambda row: {**row, "label": -1}, features=features).to_parquet(folder / "test-0.parquet")
    source = load(name, path=folder.parent)
    assert len(source.test) == COUNTS[name]


def test_class_folders_of_imagenets_layout(tmp_path):
    for part, level in (("train", 10), ("val", 20), ("test", 30)):
        for i in range(1000):
            (tmp_path / part / f"thing {i:03}").mkdir(parents=True)
        for i in range(3):
            Image.new("L", (4, 4), level + i).save(tmp_path / part / "thing 000" / f"{i}.png")
    source = load("imagenet", path=tmp_path, most=2)
    assert len(source.train) == 2 and source.train.images.max() < 20
    assert source.test.images[:, 0, 0, 0].tolist() == [20, 21, 22]
    other = load("imagenet", path=tmp_path, splits={"test": "test"})
    assert other.test.images[:, 0, 0, 0].tolist() == [30, 31, 32]


def test_class_names_can_be_given(tmp_path):
    folder = save(tmp_path / "digits", [str(d) for d in range(10)])
    words = "zero one two three four five six seven eight nine".split()  # noqa: SIM905
    assert load("mnist", path=folder, class_names=words).train.classes == tuple(words)
    file = tmp_path / "names.txt"
    file.write_text("\n".join(words) + "\n")
    assert load("mnist", path=folder, class_names=str(file)).train.classes == tuple(words)
    for wrong in (words[:9], [*words[:9], "eight"]):
        with pytest.raises(InputError, match=r"class_names holds \d+ names, 9 of them distinct; MNIST has 10 classes"):
            load("mnist", path=folder, class_names=wrong)
    with pytest.raises(InputError, match="No such file or directory; give a file with a name a line"):
        load("mnist", path=folder, class_names=str(tmp_path / "none.txt"))


def test_what_is_no_such_data_set_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"nowhere: no such folder; give data\.path, or leave it out"):
        load("mnist", path=tmp_path / "nowhere")
    few = save(tmp_path / "few", ["0", "1"])
    with pytest.raises(InputError, match="has 2 classes, MNIST has 10; is it another data set"):
        load("mnist", path=few)
    with pytest.raises(InputError, match=r"has no column 'digit'.*there are image, label"):
        load("mnist", path=few, columns={"label": "digit"})
    birds = save(tmp_path / "birds", [f"n{i:08d}" for i in range(200)])
    with pytest.raises(InputError, match="200 classes have names that say nothing to a text encoder; give class_names"):
        load("tiny-imagenet", path=birds)
    names = tmp_path / "words.txt"
    names.write_text("".join(f"n{i:08d}\tbird {i}, synonym\n" for i in range(300)))
    assert load("tiny-imagenet", path=birds, class_names=names).train.classes[7] == "bird 7"
    names.write_text("".join(f"n{i:08d}\tbird {i}, synonym\n" for i in range(150)))
    with pytest.raises(InputError, match="class_names holds 200 names, 151 of them distinct"):
        load("tiny-imagenet", path=birds, class_names=names)
    alike = save(tmp_path / "alike", [f"cat_{i}" for i in range(198)] + ["003.dog", "003.dog,"])
    assert load("cub200", path=alike).train.classes[-2:] == ("dog", "dog,")
    alike = save(tmp_path / "same", [f"cat_{i}" for i in range(198)] + ["the_cat", "the cat"])
    with pytest.raises(InputError, match="several classes would be worded 'the cat'; give class_names"):
        load("cub200", path=alike)


def test_of_equal_first_synonyms_the_whole_names_are_kept():
    facts = module("imagenet").FACTS
    assert named.word_classes(["maillot", "maillot, tank suit", "tench, Tinca tinca"], facts, "x") == (
        "maillot", "maillot, tank suit", "tench"
    )  # fmt: skip
    with pytest.raises(InputError, match=r"unknown source 'mnits' \(did you mean 'mnist'\?\)"):
        load("mnits")


def test_the_real_data_sets(shared):
    mnist = load("mnist", path=shared / "data" / "mnist", image_size=32, mode="rgb", most=100)
    cifar = load("cifar10", path=shared / "data" / "cifar10", most=100)
    assert mnist.train.images.shape == cifar.train.images.shape == (100, 3, 32, 32)
    assert mnist.train.classes == tuple("0123456789") and cifar.train.classes[3] == "cat"
