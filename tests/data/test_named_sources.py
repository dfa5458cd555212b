"""The data sets known by name, on small files in the form of the hub's, and the real ones where they are at hand."""

import datasets
import pytest
import torch
from PIL import Image

from negmerge import registry
from negmerge.errors import InputError
from negmerge.tasks.image_classification import named
from negmerge.tasks.zero_shot.prompts import Prompts

COUNTS = {
    "cars": 196, "cifar10": 10, "cub200": 200, "dtd": 47, "eurosat": 10, "gtsrb": 43, "imagenet": 1000, "mnist": 10,
    "resisc45": 45, "sun397": 397, "svhn": 10, "tiny-imagenet": 200,
}  # fmt: skip
TEMPLATES = {
    "cars": 8, "cifar10": 18, "cub200": 1, "dtd": 8, "eurosat": 3, "gtsrb": 3, "imagenet": 80, "mnist": 1,
    "resisc45": 18, "sun397": 2, "svhn": 1, "tiny-imagenet": 80,
}  # fmt: skip
HOLD_WORDS = {"cifar10", "dtd", "eurosat", "gtsrb", "mnist", "resisc45", "svhn"}
HOLD_BOTH = {"imagenet", "tiny-imagenet"}


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
    assert len(facts.words) == (facts.count if name in HOLD_WORDS | HOLD_BOTH else 0)
    assert (facts.word is None) == (name in HOLD_WORDS)
    assert len(set(facts.words.values())) == len(facts.words) - 2 * (name == "imagenet")


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
    assert load("mnist", path=folder, class_names=[*words[:9], "eight"]).train.classes[8:] == ("eight", "eight")
    with pytest.raises(InputError, match="class_names holds 9 names; MNIST has 10 classes"):
        load("mnist", path=folder, class_names=words[:9])
    with pytest.raises(InputError, match="class_names has no words for 1 classes:\n  9"):
        load("mnist", path=folder, class_names=[*words[:9], " "])
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
    with pytest.raises(InputError, match="class_names has no words for 50 classes:\n  n00000150"):
        load("tiny-imagenet", path=birds, class_names=names)
    alike = save(tmp_path / "alike", [f"cat_{i}" for i in range(198)] + ["003.dog", "003.dog,"])
    assert load("cub200", path=alike).train.classes[-2:] == ("dog", "dog,")
    alike = save(tmp_path / "same", [f"cat_{i}" for i in range(198)] + ["the_cat", "the cat"])
    with pytest.raises(InputError, match="several classes would be worded 'the cat'; give class_names"):
        load("cub200", path=alike)


CLIPS = {
    0: "tench", 1: "goldfish", 2: "great white shark", 7: "rooster", 8: "hen", 21: "kite (bird of prey)", 97: "duck",
    99: "goose", 134: "crane bird", 200: "Tibetan Terrier", 272: "coyote", 299: "meerkat", 399: "abaya",
    400: "academic gown", 499: "cleaver", 517: "construction crane", 599: "honeycomb", 600: "hook", 638: "tights",
    639: "one-piece bathing suit",
    657: "missile", 699: "pan flute", 744: "missile", 799: "sliding door", 836: "sunglasses", 837: "sunglasses",
    898: "water bottle", 900: "water tower", 998: "corn cob", 999: "toilet paper",
}  # fmt: skip


def hubs_names():
    """The names that the hub gives ImageNet's classes, with a synonym more, which `word` leaves out."""
    names = [f"{name}, synonym" for name in module("imagenet").FACTS.own]
    names[517], names[638] = "crane2", "maillot"
    return names


def test_imagenets_names_are_those_of_clips_notebook():
    words, own = module("imagenet").FACTS.words, module("imagenet").FACTS.own
    assert len(words) == len(own) == 1000 and list(words) == sorted(words)
    assert {number: list(words.values())[number] for number in CLIPS} == CLIPS
    assert words["n01514668"] == "rooster" and words["n03126707"] == "construction crane"
    assert own[134] == own[517] == "crane" and own[638] == own[639] == "maillot"
    assert all(word and word == word.strip() and "\t" not in word for word in (*words.values(), *own))
    repeated = {word for word in words.values() if list(words.values()).count(word) > 1}
    assert repeated == {"missile", "sunglasses"}
    # Most of CLIP's wordings share a word with the data set's first synonym: a shift by a line would show.
    pairs = [[set(named.plain_name(name).split()) for name in names] for names in zip(own, words.values(), strict=True)]
    assert all(sum(bool(a & b) for a, b in pairs[start : start + 50]) > 25 for start in range(0, 1000, 50))


@pytest.mark.parametrize("form", [hubs_names, lambda: [str(n) for n in range(1000)], lambda: list(WORDNET_IDS)])
def test_imagenets_classes_by_the_hubs_names_numbers_or_ids(form):
    facts = module("imagenet").FACTS
    assert named.word_classes(form(), facts, "x") == tuple(facts.words.values())


WORDNET_IDS = tuple(module("imagenet").FACTS.words)


def test_imagenets_classes_in_another_order():
    facts = module("imagenet").FACTS
    assert named.word_classes(WORDNET_IDS[::-1], facts, "x") == tuple(facts.words.values())[::-1]
    names = [*hubs_names()[1:], "tench"]
    by_rule = named.word_classes(names, facts, "x")
    assert by_rule[6] == "cock" and by_rule[-1] == "tench" and by_rule[637:639] == ("maillot", "maillot, synonym")
    with pytest.raises(InputError, match="several classes would be worded 'missile'; give class_names"):
        named.word_classes(["missile", "missile", "cock"], facts, "x")
    with pytest.raises(InputError, match=r"1 classes have names that say nothing .* give class_names:\n  n99999999"):
        named.word_classes([*WORDNET_IDS[1:], "n99999999"], facts, "x")


def test_tiny_imagenet_is_worded_by_its_name_alone(tmp_path):
    facts = module("tiny-imagenet").FACTS
    assert facts.words.items() <= module("imagenet").FACTS.words.items()
    source = load("tiny-imagenet", path=save(tmp_path / "tiny", list(facts.words)))
    assert source.train.classes == source.test.classes == tuple(facts.words.values())
    assert source.train.classes[:2] == ("goldfish", "fire salamander") and source.train.classes[-1] == "acorn"
    assert len(set(source.train.classes)) == 200 and "mountain" in source.train.classes
    numbers = [str(n) for n in range(200)]  # in which order is not known
    with pytest.raises(InputError, match="200 classes have names that say nothing"):
        named.word_classes(numbers, facts, "x")
    with pytest.raises(InputError, match="199 classes have names that say nothing"):
        named.word_classes([*list(facts.words)[1:], "a fish of gold"], facts, "x")


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
