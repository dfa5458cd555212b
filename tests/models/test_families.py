"""The contract of every model family, and the real models."""

import pytest
import torch
from pydantic import ValidationError

from negmerge import registry
from negmerge.checkpoints import read_state_dict, write_state_dict
from negmerge.errors import InputError
from negmerge.evaluation import predict
from negmerge.metrics import accuracy
from negmerge.models._classifier import Classifier

FAMILIES = registry.names("families")
CASES = [(name, {}) for name in FAMILIES] + [("cifar-resnet", {"depth": 18})]


@pytest.fixture(autouse=True)
def two_threads():
    """Small models on more threads than there are free cores wait for one another: 3 seconds become 50."""
    before = torch.get_num_threads()
    torch.set_num_threads(min(before, 2))
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("name", "settings"), CASES)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32)])
def test_build_prepare_logits(name, settings, shape):
    classifier = Classifier(name, settings, 7, shape)
    before = torch.random.get_rng_state()
    model, twin, other = classifier.build(1), classifier.build(1), classifier.build(2)
    assert torch.equal(torch.random.get_rng_state(), before)
    states = [m.state_dict() for m in (model, twin, other)]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert not all(torch.equal(states[0][k], states[2][k]) for k in states[0])
    images = torch.randint(0, 256, (4, *shape), dtype=torch.uint8)
    prepared = classifier.prepare(images)
    assert prepared.dtype == torch.float32 and prepared.abs().max() < 4
    assert classifier.logits(model, prepared).shape == (4, 7)


def test_grey_and_black_pixels_by_hand():
    classifier = Classifier("cifar-resnet", {"mean": [0.5], "std": [0.25]}, 2, (3, 2, 2))
    images = torch.tensor([0, 255], dtype=torch.uint8)[:, None, None, None].expand(2, 3, 2, 2)
    assert classifier.prepare(images)[:, 0, 0, 0].tolist() == [-2.0, 2.0]
    with pytest.raises(InputError, match=r"model.mean and model.std must have 1 or 3 values, got 2 and 3"):
        Classifier("cifar-resnet", {"mean": [0.5, 0.5]}, 2, (3, 2, 2)).prepare(images)


def test_a_checkpoint_must_fit(tmp_path):
    classifier = Classifier("small-cnn", {}, 10, (1, 8, 8))
    state = classifier.build().state_dict()
    write_state_dict(tmp_path / "good.safetensors", state)
    classifier.load(tmp_path / "good.safetensors")
    state["11.weight"] = torch.ones(5, 5)
    state["more"] = torch.ones(1)
    del state["0.weight"]
    write_state_dict(tmp_path / "bad.safetensors", state)
    with pytest.raises(InputError) as caught:
        classifier.load(tmp_path / "bad.safetensors")
    text = str(caught.value)
    assert "does not fit small-cnn with 10 classes" in text and "3 tensors differ" in text
    for line in ("missing: 0.weight", "unexpected: more", r"11.weight: shape [5, 5], expected [10, 256]"):
        assert line in text


def test_resnet18_has_the_published_size():
    model = Classifier("cifar-resnet", {"depth": 18}, 10, (3, 32, 32)).build()
    assert sum(p.numel() for p in model.parameters()) == 11_173_962


@pytest.fixture(scope="module")
def cifar_test(shared, tmp_path_factory):
    """The test table of CIFAR-10; the large train table is not read."""
    folder = tmp_path_factory.mktemp("cifar10")
    for part in ("train", "test"):
        (folder / f"{part}.parquet").symlink_to(shared / "data" / "cifar10" / "test.parquet")
    module = registry.load("sources", "parquet")
    return module.load(module.Settings(path=folder)).test


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("original", 84.78),
        pytest.param("retrain", 83.70, marks=pytest.mark.heavy),
        pytest.param("10k-original", 69.04, marks=pytest.mark.heavy),
        pytest.param("10k-retrain", 67.09, marks=pytest.mark.heavy),
    ],
)
def test_real_models_have_their_stated_accuracy(shared, cifar_test, name, expected):
    classifier = Classifier("cifar-resnet", {}, 10, (3, 32, 32))
    file = shared / "models" / f"resnet20-cifar10-{name}.safetensors"
    model = classifier.load(file)
    assert set(model.state_dict()) == set(read_state_dict(file))
    assert accuracy(predict(classifier, model, cifar_test.images), cifar_test.labels) == pytest.approx(
        expected, abs=0.011
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_keeps_the_contract(name):
    module = registry.load("families", name)
    assert module.SUMMARY and "\n" not in module.SUMMARY
    assert all(field.description for field in module.Settings.model_fields.values())
    for wrong in ({"deepth": 20}, {"std": [0.0]}, {"mean": []}):
        with pytest.raises(ValidationError):
            module.Settings(**wrong)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", FAMILIES)
def test_building_leaves_the_accelerators_random_numbers_alone(name):
    before = torch.cuda.get_rng_state()
    Classifier(name, {}, 10, (1, 8, 8)).build(3)
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_cifars_statistics_are_for_three_channels_only():
    black = torch.zeros(1, 3, 1, 1, dtype=torch.uint8)
    colour = Classifier("cifar-resnet", {}, 10, (3, 1, 1)).prepare(black).flatten().tolist()
    assert colour == pytest.approx([-0.4914 / 0.2470, -0.4822 / 0.2435, -0.4465 / 0.2616])
    assert Classifier("cifar-resnet", {}, 10, (1, 1, 1)).prepare(black[:, :1]).item() == -1.0


def test_resnet18_has_the_usual_tensor_names():
    names = set(Classifier("cifar-resnet", {"depth": 18}, 10, (3, 32, 32)).build().state_dict())
    assert {"conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "layer4.1.bn2.bias", "linear.weight"} <= names
    assert {"layer2.0.shortcut.0.weight", "layer2.0.shortcut.1.running_mean"} <= names
    assert not any(name.startswith(("layer1.0.shortcut", "layer2.1.shortcut")) for name in names)


def test_the_shortcut_without_weights_by_hand():
    from negmerge.models.cifar_resnet import Padding

    x = torch.arange(32.0).reshape(1, 2, 4, 4)
    out = Padding(1, 2)(x)
    assert out.shape == (1, 4, 2, 2) and not out[0, [0, 3]].any()
    assert out[0, 1].tolist() == [[0, 2], [8, 10]] and out[0, 2].tolist() == [[16, 18], [24, 26]]


def test_a_small_network_learns_the_digits():
    module = registry.load("sources", "digits")
    source = module.load(module.Settings())
    classifier = Classifier("small-cnn", {}, 10, (1, 8, 8))
    model = classifier.build(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(8):
        for rows in torch.randperm(len(source.train), generator=generator).split(64):
            scores = classifier.logits(model, classifier.prepare(source.train.images[rows]))
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(scores, source.train.labels[rows]).backward()
            optimizer.step()
    assert accuracy(predict(classifier, model, source.test.images), source.test.labels) >= 97
