"""Every source on files made here, and on the real images where a checkout has them."""

import io
import logging
import os

import datasets
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from pydantic import ValidationError

from negmerge import registry
from negmerge.errors import InputError
from negmerge.tasks.image_classification.images import ImageSet, Source
from negmerge.tasks.rows.row_set import join_sources


def load(name, **settings):
    module = registry.load("sources", name)
    return module.load(module.Settings(**settings))


def picture(value, size=(6, 4), mode="RGB"):
    return Image.new(mode, size, value if mode == "L" else (value, 0, 255 - value))


def table(values, names=("cat", "dog"), typed=True, image="img", label="label", size=(6, 4)):
    columns = {image: [], label: []}
    for i, value in enumerate(values):
        buffer = io.BytesIO()
        picture(value, size).save(buffer, "PNG")
        columns[image].append({"bytes": buffer.getvalue(), "path": None})
        columns[label].append(i % len(names) if typed else names[i % len(names)])
    kind = datasets.ClassLabel(names=list(names)) if typed else datasets.Value("string")
    return datasets.Dataset.from_dict(columns, features=datasets.Features({image: datasets.Image(), label: kind}))


@pytest.fixture
def parquet(tmp_path):
    folder = tmp_path / "pictures"
    (folder / "data").mkdir(parents=True)
    table([10, 20, 30]).to_parquet(folder / "data" / "train-00000-of-00002.parquet")
    table([40, 50]).to_parquet(folder / "data" / "train-00001-of-00002.parquet")
    table([60, 70]).to_parquet(folder / "data" / "test-00000-of-00001.parquet")
    return folder


@pytest.mark.parametrize("name", ["parquet", "hub"])
def test_parquet_folders_in_the_hubs_layout(parquet, name):
    source = load(name, path=str(parquet))
    assert source.train.images.shape == (5, 3, 4, 6) and source.train.images.dtype == torch.uint8
    assert source.train.images[:, 0, 0, 0].tolist() == [10, 20, 30, 40, 50]
    assert source.train.labels.tolist() == [0, 1, 0, 0, 1] and source.train.classes == ("cat", "dog")
    assert source.test.images[:, 0, 0, 0].tolist() == [60, 70]


def test_size_and_mode(parquet):
    source = load("parquet", path=parquet, image_size=8, mode="gray")
    assert source.train.images.shape == (5, 1, 8, 8)
    assert load("digits", image_size=16, mode="rgb").train.images.shape[1:] == (3, 16, 16)


def test_text_labels_are_sorted_into_classes(tmp_path):
    for part in ("train", "test"):
        table([1, 2, 3], names=("zebra", "ant"), typed=False).to_parquet(tmp_path / f"{part}.parquet")
    source = load("parquet", path=tmp_path, columns={"label": "label"})
    assert source.train.classes == ("ant", "zebra") and source.train.labels.tolist() == [1, 0, 1]


def test_columns(tmp_path):
    for part in ("train", "test"):
        table([1, 2], image="picture", label="kind").to_parquet(tmp_path / f"{part}.parquet")
    assert load("parquet", path=tmp_path).train.labels.tolist() == [0, 1]  # found by their types
    with pytest.raises(
        InputError, match=r"has no column 'pictur' \(did you mean 'picture'\?\); there are picture, kind"
    ):
        load("parquet", path=tmp_path, columns={"image": "pictur"})
    with pytest.raises(InputError, match="'images' is not one of image, label and id"):
        load("parquet", path=tmp_path, columns={"images": "picture"})


def test_parquet_errors(tmp_path, parquet):
    with pytest.raises(InputError, match=r"no such folder; give data\.path"):
        load("parquet", path=tmp_path / "none")
    with pytest.raises(InputError, match=r"holds no train\*\.parquet"):
        load("parquet", path=tmp_path)
    (parquet / "data" / "test-00000-of-00001.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match="cannot be read; fetch them again"):
        load("parquet", path=parquet)


def test_different_sizes_need_image_size(tmp_path):
    folder = tmp_path / "train" / "a"
    folder.mkdir(parents=True)
    picture(1).save(folder / "1.png")
    picture(2, (5, 5)).save(folder / "2.png")
    with pytest.raises(InputError, match=r"a/2\.png has 5 × 5 pixels, the first image 6 × 4; set image_size"):
        load("image-folder", path=tmp_path)
    assert load("image-folder", path=tmp_path, image_size=4).train.images.shape[1:] == (3, 4, 4)


def test_image_folders(tmp_path):
    for part, count in (("train", 3), ("test", 1)):
        for label, name in enumerate(("cat", "dog")):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(count):
                picture(100 * label + i, mode="L").save(tmp_path / part / name / f"{i}.png")
    source = load("image-folder", path=tmp_path)
    assert source.train.images[:, 0, 0, 0].tolist() == [0, 1, 2, 100, 101, 102]
    assert source.train.labels.tolist() == [0, 0, 0, 1, 1, 1] and len(source.test) == 2
    parts = load("image-folder", path=tmp_path / "train", test_fraction=0.5)
    assert (len(parts.train), len(parts.test)) == (3, 3)
    again = load("image-folder", path=tmp_path / "train", test_fraction=0.5)
    assert parts.train.fingerprint() == again.train.fingerprint()
    (tmp_path / "test" / "cow").mkdir()
    with pytest.raises(InputError, match="has the class 'cow', which train/ does not have"):
        load("image-folder", path=tmp_path)
    (tmp_path / "train" / "cat" / "1.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"cat/1\.png is not an image that can be decoded \(.*remove or replace it"):
        load("image-folder", path=tmp_path / "train")


def test_a_validation_folder_is_not_passed_over(tmp_path):
    for part, value in (("train", 1), ("val", 2)):
        (tmp_path / part / "cat").mkdir(parents=True)
        for i in range(3):
            picture(value, mode="L").save(tmp_path / part / "cat" / f"{i}.png")
    message = (
        r"has no test/ but val/, which would be ignored: write splits: \{test: val\} to test on it, or give .*train"
    )
    with pytest.raises(InputError, match=message):
        load("image-folder", path=tmp_path)
    source = load("image-folder", path=tmp_path, splits={"test": "val"})
    assert source.train.images.max() == 1 and source.test.images.min() == 2
    assert len(load("image-folder", path=tmp_path / "train").test) == 1


@pytest.mark.parametrize("parts", [["train"], ["train", "test"]])
def test_a_sample_of_a_folder_is_drawn_before_images_are_decoded(tmp_path, monkeypatch, parts):
    from negmerge.tasks.image_classification.sources import image_folder

    for part in parts:
        (tmp_path / part / "cat").mkdir(parents=True)
        for i in range(20):
            picture(i, mode="L").save(tmp_path / part / "cat" / f"{i:02}.png")
    whole = load("image-folder", path=tmp_path).train
    decoded = []
    decode = image_folder.decode_hashed
    monkeypatch.setattr(image_folder, "decode_hashed", lambda files, *a: decoded.extend(files) or decode(files, *a))
    source = load("image-folder", path=tmp_path, most=5)
    rows = torch.randperm(len(whole), generator=torch.Generator().manual_seed(0))[:5].sort().values
    assert torch.equal(source.train.images, whole.images[rows]) and len(source.train) == 5
    assert len(decoded) == 5 + len(source.test) == (9 if parts == ["train"] else 25)


def test_a_hub_id_that_cannot_be_reached(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="'nobody/nothing', split 'train', cannot be loaded"):
        load("hub", path="nobody/nothing")
    with pytest.raises(ValidationError, match="splits: 'train2' is not one of train and test"):
        load("hub", path="nobody/nothing", splits={"train2": "a"})


def test_digits_are_fixed_and_stratified():
    source = load("digits")
    assert (len(source.train), len(source.test)) == (1437, 360)
    assert source.test.labels.bincount().tolist() == [36] * 10
    assert source.train.images.max() == 255 and source.train.images.shape[1:] == (1, 8, 8)
    assert source.train.fingerprint() == load("digits").train.fingerprint() != source.test.fingerprint()


def test_the_retries_of_an_unreachable_hub_are_not_printed(monkeypatch):
    client = logging.getLogger("huggingface_hub")
    levels = []

    def unreachable(*_, **__):
        levels.append(client.getEffectiveLevel())
        raise ConnectionError("no\nnetwork")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    before = client.level
    with pytest.raises(InputError, match=r"\(ConnectionError: no network\); check the id, the splits and the network"):
        load("hub", path="uoft-cs/cifar10")
    assert levels == [logging.ERROR] and client.level == before


def test_the_hub_takes_other_split_names(parquet):
    for file in (parquet / "data").glob("test*"):
        file.rename(file.with_name(file.name.replace("test", "validation")))
    source = load("hub", path=str(parquet), splits={"test": "validation"})
    assert (len(source.train), len(source.test)) == (5, 2)
    with pytest.raises(InputError, match="split 'test', cannot be loaded"):
        load("hub", path=str(parquet))
    with pytest.raises(
        InputError, match=r"holds no test\*\.parquet.*its validation\*\.parquet, write splits: \{test: "
    ):
        load("parquet", path=parquet)
    assert len(load("parquet", path=parquet, splits={"test": "val"}).test) == 2


def test_a_hub_snapshot_names_its_folder_after_the_config(tmp_path, parquet):
    (parquet / "data").rename(parquet / "plain_text")
    assert len(load("parquet", path=parquet).train) == 5
    (parquet / "more").mkdir()
    (parquet / "more" / "train.parquet").touch()
    with pytest.raises(InputError, match=r"train\*\.parquet in several folders \(more, plain_text\)"):
        load("parquet", path=parquet)


def test_labels_must_be_there_and_mean_the_same_in_both_tables(tmp_path):
    table([1, 2]).to_parquet(tmp_path / "train.parquet")
    table([1, 2], names=("dog", "cat")).to_parquet(tmp_path / "test.parquet")
    with pytest.raises(InputError, match=r"\(test\): column 'label' counts other classes than the train table"):
        load("parquet", path=tmp_path)
    features = table([1]).features
    table([1, 2]).map(lambda row: {**row, "label": -1}, features=features).to_parquet(tmp_path / "test.parquet")
    with pytest.raises(InputError, match=r"\(test\): row 0 has no label in column 'label'"):
        load("parquet", path=tmp_path)
    table([1, 2], names=("zebra",), typed=False).to_parquet(tmp_path / "train.parquet")
    table([1, 2], names=("zebra", "ant"), typed=False).to_parquet(tmp_path / "test.parquet")
    with pytest.raises(InputError, match="label 'ant' of row 1 does not stand in the train table"):
        load("parquet", path=tmp_path, columns={"label": "label"})


def test_two_columns_of_classes_must_be_told_apart(tmp_path):
    both = table([1, 2]).add_column("coarse", [0, 0], feature=datasets.ClassLabel(names=["animal"]))
    for part in ("train", "test"):
        both.to_parquet(tmp_path / f"{part}.parquet")
    message = r"which column holds the label\? write columns: \{label: NAME\}; there are img, label, coarse"
    with pytest.raises(InputError, match=message):
        load("parquet", path=tmp_path)
    assert load("parquet", path=tmp_path, columns={"label": "coarse"}).train.classes == ("animal",)


def test_tables_without_typed_columns(tmp_path):
    plain = table([1, 2], image="image").cast_column("label", datasets.Value("int64"))
    plain = plain.map(lambda row, i: {"label": 10 - i}, with_indices=True).to_pandas()  # no note of the types is kept
    for part in ("train", "test"):
        plain.to_parquet(tmp_path / f"{part}.parquet")
    source = load("parquet", path=tmp_path)
    assert source.train.classes == ("9", "10") and source.train.labels.tolist() == [1, 0]


def test_reading_parquet_leaves_no_cache_and_the_progress_bars_as_they_were(parquet, monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    before = datasets.is_progress_bar_enabled()
    load("parquet", path=parquet)
    assert not (tmp_path / "cache").exists() and datasets.is_progress_bar_enabled() == before


@pytest.mark.parametrize("name", registry.names("sources"))
def test_every_source_keeps_the_contract(name):
    module = registry.load("sources", name)
    assert module.SUMMARY and "\n" not in module.SUMMARY
    assert all(field.description for field in module.Settings.model_fields.values())
    assert {"image_size", "mode"} <= set(module.Settings.model_fields)
    with pytest.raises(ValidationError, match="imagesize"):
        module.Settings(path=".", imagesize=3)


def test_joining_unites_classes_by_name():
    def tiny(classes, labels, value):
        images = torch.full((len(labels), 1, 2, 2), value, dtype=torch.uint8)
        one = ImageSet(images, torch.tensor(labels), classes)
        return Source(one, one)

    joined = join_sources(tiny(("a", "b"), [0, 1], 1), tiny(("c", "b"), [0, 1, 1], 2))
    assert joined.source.train.classes == ("a", "b", "c")
    assert joined.source.train.labels.tolist() == [0, 1, 2, 1, 1]
    assert joined.train_is_other.tolist() == [False, False, True, True, True]
    alike = join_sources(tiny(("a", "b"), [0, 1], 1), tiny(("b", "a", "b"), [0, 1, 2], 2))
    assert alike.source.train.classes == ("a", "b", "b") and alike.source.train.labels.tolist() == [0, 1, 1, 0, 2]
    with pytest.raises(InputError, match=r"\[1, 2, 2\] and \[1, 8, 8\] cannot be joined.*image_size and mode"):
        join_sources(tiny(("a",), [0], 1), load("digits"))


@pytest.fixture(scope="module")
def mnist(shared):
    return load("parquet", path=shared / "data" / "mnist")


def test_real_mnist(mnist):
    source = mnist
    assert source.train.images.shape[1:] == (1, 28, 28) and source.train.classes == tuple("0123456789")
    assert 0.1 < np.mean(source.test.images.numpy() > 127) < 0.2


def test_digits_and_mnist_can_be_joined(mnist):
    digits = load("digits", image_size=28)
    joined = join_sources(digits, mnist).source
    assert joined.train.classes == tuple("0123456789") and len(joined.train) == 21_437


def test_the_real_test_images_of_cifar(shared, tmp_path):
    for part in ("train", "test"):  # the large table of training images is left to the next test
        (tmp_path / f"{part}.parquet").symlink_to(shared / "data" / "cifar10" / "test.parquet")
    source = load("parquet", path=tmp_path)
    assert source.test.images.shape == (10_000, 3, 32, 32) and source.train.classes[3] == "cat"
    assert source.test.labels.bincount().tolist() == [1000] * 10
    mean = source.test.images.float().div(255).mean((0, 2, 3))
    assert torch.allclose(mean, torch.tensor([0.4942, 0.4851, 0.4504]), atol=5e-4)


@pytest.mark.heavy(8)
def test_real_cifar(shared):
    source = load("parquet", path=shared / "data" / "cifar10")
    assert source.train.images.shape == (50_000, 3, 32, 32) and source.train.classes[3] == "cat"
    assert source.test.labels.bincount().tolist() == [1000] * 10
    mean = source.train.images.float().div(255).mean((0, 2, 3))
    assert torch.allclose(mean, torch.tensor([0.4914, 0.4822, 0.4465]), atol=5e-4)


def test_sources_with_heads_of_their_own_keep_their_classes_apart():
    images = torch.zeros(2, 1, 2, 2, dtype=torch.uint8)
    first, other = (ImageSet(images, torch.tensor([0, 1]), names) for names in (("a", "b"), ("b", "c")))
    joined = join_sources(Source(first, first), Source(other, other), unite=False)
    assert joined.source.train.classes == ("a", "b", "b", "c") and joined.source.train.labels.tolist() == [0, 1, 2, 3]


def test_a_folder_is_not_answered_from_another_of_its_name(tmp_path):
    files = [{"split": part, "path": f"{part}.parquet"} for part in ("train", "test")]
    card = f"---\n{yaml.safe_dump({'configs': [{'config_name': 'default', 'data_files': files}]})}---\n"
    for place, values in (("a", [1, 2]), ("b", [3, 4, 5])):
        folder = tmp_path / place / "images"
        folder.mkdir(parents=True)
        (folder / "README.md").write_text(card)
        for part in ("train", "test"):
            table(values, image=f"picture-{place}").to_parquet(folder / f"{part}.parquet")
            os.utime(folder / f"{part}.parquet", (1e9, 1e9))
        assert len(load("hub", path=str(folder)).train.labels) == len(values)
