"""Image folders as people have them, and tables with what is not an image file in them."""

import datasets
import numpy as np
import pytest
from PIL import Image

from negmerge.errors import InputError
from negmerge.tasks.image_classification.source_file import source_file


def load(name, **settings):
    file = source_file(name)
    return file.load(file.Settings(**settings))


def fill(folder, *names, count=3):
    for i, name in enumerate(names):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for j in range(count):
            Image.new("L", (4, 4), 20 * i + j).save(folder / name / f"{j}.png")


def test_hidden_folders_are_passed_over_at_any_depth(tmp_path):
    fill(tmp_path, "cat", "dog", "dog/puppies")
    for hidden in (".git", "cat/.ipynb_checkpoints", "dog/puppies/__MACOSX", "__MACOSX/cat", ".cache/train"):
        fill(tmp_path, hidden)
    (tmp_path / "dog" / "._0.png").write_text("of a file system")
    source = load("image-folder", path=tmp_path)
    assert source.train.classes == ("cat", "dog") and len(source.train) + len(source.test) == 9
    assert source.notes == ()


def test_what_is_skipped_is_counted_by_ending(tmp_path):
    fill(tmp_path, "cat", "dog")
    for name in ("cat/a.heic", "dog/b.HEIC", "dog/notes.txt", "dog/README", "dog/Thumbs.db", "dog/.DS_Store"):
        (tmp_path / name).write_text("x")
    Image.new("L", (4, 4)).save(tmp_path / "loose.png")
    source = load("image-folder", path=tmp_path)
    assert source.notes == (
        f"{tmp_path}: 4 files are not read as images: 2 .heic, 1 .txt, 1 without ending",
        f"{tmp_path}: 1 images lie in no class folder and are not read",
    )


@pytest.mark.parametrize(
    ("train", "test"), [("Train", "Test"), ("train", "testing"), ("TRAINING", "test"), ("training", "Testing")]
)
def test_splits_in_any_spelling(tmp_path, train, test):
    fill(tmp_path / train, "cat", "dog")
    fill(tmp_path / test, "cat", "dog", count=2)
    source = load("image-folder", path=tmp_path)
    assert source.train.classes == ("cat", "dog") and (len(source.train), len(source.test)) == (6, 4)
    assert source.train.ids[0] == f"{train}/cat/0.png" and source.test.ids[-1] == f"{test}/dog/1.png"


def test_a_split_in_two_spellings_must_be_named(tmp_path):
    fill(tmp_path / "Train", "cat")
    fill(tmp_path / "training", "cat")
    with pytest.raises(InputError, match=r"holds Train and training; say which one it is: splits: \{train: Train\}"):
        load("image-folder", path=tmp_path)
    assert len(load("image-folder", path=tmp_path, splits={"train": "Train"}, test_fraction=0.4).train) == 2


def test_a_class_called_train(tmp_path):
    fill(tmp_path, "bus", "car", "train")
    assert load("image-folder", path=tmp_path).train.classes == ("bus", "car", "train")
    fill(tmp_path, "train/steam")
    source = load("image-folder", path=tmp_path)
    assert source.train.classes == ("steam",) and "the folders beside train/ are not read (bus, car)" in source.notes[0]
    assert load("image-folder", path=tmp_path, splits={"train": "."}).train.classes == ("bus", "car", "train")


def test_splits_without_class_folders_are_told(tmp_path):
    fill(tmp_path, "train", "test")
    with pytest.raises(InputError, match="train holds no class folders; put each class's images into a folder of its"):
        load("image-folder", path=tmp_path)


def test_folders_behind_links_are_read_once(tmp_path):
    fill(tmp_path / "elsewhere", "more")
    fill(tmp_path / "data", "cat", "dog")
    (tmp_path / "data" / "cat" / "more").symlink_to(tmp_path / "elsewhere" / "more")
    (tmp_path / "data" / "cat" / "round").symlink_to(tmp_path / "data" / "cat")
    source = load("image-folder", path=tmp_path / "data")
    assert len(source.train) + len(source.test) == 9


def test_all_damaged_files_are_listed(tmp_path):
    fill(tmp_path, "cat", "dog", count=20)
    bad = ["cat/3.png", "cat/9.png", *(f"dog/{i}.png" for i in range(12))]
    for name in bad:
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:20])
    with pytest.raises(InputError, match="14 images cannot be decoded; remove or replace them:") as caught:
        load("image-folder", path=tmp_path)
    assert sorted(line.split(" (")[0].strip() for line in str(caught.value).splitlines()[1:]) == sorted(
        str(tmp_path / name) for name in bad
    )


IMAGES = [Image.fromarray(np.full((6, 5, 3), 10 * i, np.uint8)) for i in range(20)]
LABELS = [i % 2 for i in range(20)]
KIND = datasets.ClassLabel(names=["a", "b"])


def save(folder, columns, features, parts=("train", "test")):
    folder.mkdir(parents=True, exist_ok=True)
    table = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    for part in parts:
        table.to_parquet(folder / f"{part}-0.parquet")
    return folder


@pytest.mark.parametrize("source", ["parquet", "hub"])
def test_a_test_part_is_drawn_where_there_is_train_alone(tmp_path, source):
    folder = save(
        tmp_path / "x", {"image": IMAGES, "label": LABELS}, {"image": datasets.Image(), "label": KIND}, ["train"]
    )
    found = load(source, path=str(folder) if source == "hub" else folder)
    assert (len(found.train), len(found.test)) == (16, 4) and "there is no test split: 4 of the" in found.notes[0]
    values = [part.images[:, 0, 0, 0].tolist() for part in (found.train, found.test)]
    assert sorted(values[0] + values[1]) == [10 * i for i in range(20)] and values[1] == sorted(values[1])
    again = load(source, path=str(folder) if source == "hub" else folder, seed=1, test_fraction=0.5)
    assert len(again.test) == 10


def test_several_labels_a_row_are_refused(tmp_path):
    lists = {"image": datasets.Image(), "label": datasets.Sequence(datasets.Value("int64"))}
    folder = save(tmp_path / "x", {"image": IMAGES, "label": [[one, 0] for one in LABELS]}, lists)
    with pytest.raises(InputError, match="column 'label' holds several labels a row, or other lists"):
        load("parquet", path=folder)


@pytest.mark.parametrize("form", ["whole", "unit floats", "channels first"])
def test_images_as_arrays(tmp_path, form):
    arrays = [np.asarray(image) for image in IMAGES]
    shape, dtype = (6, 5, 3), "uint8"
    if form == "unit floats":
        arrays, dtype = [(array / 255).astype("float32") for array in arrays], "float32"
        arrays = [np.where(np.indices(array.shape).sum(0) == 0, np.float32(1), array) for array in arrays]
    if form == "channels first":
        arrays, shape = [array.transpose(2, 0, 1) for array in arrays], (3, 6, 5)
    features = {"image": datasets.Array3D(shape, dtype), "label": KIND}
    found = load(
        "parquet", path=save(tmp_path / "x", {"image": [a.tolist() for a in arrays], "label": LABELS}, features)
    )
    assert found.train.images.shape == (20, 3, 6, 5)
    assert found.train.images[:, 1, 3, 3].tolist() == [10 * i for i in range(20)]


def test_rows_of_tables_have_ids_and_columns(tmp_path):
    columns = {"image": IMAGES, "label": LABELS, "image_id": list(range(100, 120)), "by": ["ann", "bob"] * 10}
    features = {
        "image": datasets.Image(),
        "label": KIND,
        "image_id": datasets.Value("int64"),
        "by": datasets.Value("string"),
    }
    folder = save(tmp_path / "x", columns, features)
    found = load("parquet", path=folder).train
    assert found.ids[:2] == ("100", "101") and found.columns["by"][:2] == ["ann", "bob"]
    assert found.columns["label"][:2] == ["a", "b"] and found.hashes[0].startswith("sha256:")
    with pytest.raises(InputError, match="column 'by' does not tell rows apart"):
        load("parquet", path=folder, columns={"id": "by"})


def test_listed_files_stay_in_the_train_table_when_a_test_part_is_drawn(tmp_path):
    from PIL import Image

    from negmerge.tasks.image_classification.sources import image_folder

    names = [f"{label}/{i:02}.png" for label in "ab" for i in range(10)]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (8, 8)).save(tmp_path / name)
    plain = image_folder.load(image_folder.Settings(path=tmp_path))
    drawn = plain.test.ids
    (tmp_path / "gone.txt").write_text("\n".join(drawn))
    kept = image_folder.load(image_folder.Settings(path=tmp_path, train_files=tmp_path / "gone.txt", most=5))
    assert set(drawn) <= set(kept.train.ids) and not set(drawn) & set(kept.test.ids)
    assert len(kept.test.ids) == 3 and len(kept.train.ids) == len(drawn) + 5
