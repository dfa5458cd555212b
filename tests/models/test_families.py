"""The contract of every model family, and the real models."""

import pytest
import torch
from pydantic import ValidationError

from negmerge import registry
from negmerge.checkpoints import read_state_dict, write_state_dict
from negmerge.errors import InputError
from negmerge.scores import accuracy
from negmerge.tasks.image_classification.classifier import Classifier
from negmerge.tasks.image_classification.inference import predict

FAMILIES = registry.names("families")
SMALL = {"swin": {"image_size": 32, "window_size": 4, "width": 12, "depths": [1, 1], "heads": [1, 2]}}
# Those that read a model from disk, or classify by prompts, have tests of their own.
NAMED = {n for n in FAMILIES for f in registry.load("families", n).Settings.model_fields.values() if f.is_required()}
CASES = [
    (n, SMALL.get(n, {}))
    for n in FAMILIES
    if n not in NAMED and not hasattr(registry.load("families", n), "prepare_head")
]
CASES += [("cifar-resnet", {"depth": 18}), ("imagenet-resnet", {"depth": 34}), ("vgg", {"depth": 11})]


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


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_gradients_reach_the_pixels(name, settings):
    classifier = Classifier(name, settings, 7, (3, 32, 32))
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    pixels = images.to(torch.float32).requires_grad_()
    prepared = classifier.prepare(pixels.clone())
    assert torch.equal(prepared, classifier.prepare(images))
    (gradient,) = torch.autograd.grad(prepared.sum(), pixels)
    assert gradient.shape == images.shape and (gradient > 0).all()  # brighter pixels, larger values


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


@pytest.mark.parametrize(
    ("family", "parameters"),
    [("imagenet-resnet", 11_689_512), ("swin", 28_288_354), ("vgg", 14_728_266 + 513 * 990)],
)
def test_families_have_the_published_sizes(family, parameters):
    model = Classifier(family, {}, 1000, (3, 224, 224)).build()
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_vgg16_is_thirteen_convolutions_with_five_poolings():
    model = Classifier("vgg", {}, 10, (3, 32, 32)).build()
    kinds = [type(layer).__name__ for layer in model.features]
    assert kinds.count("Conv2d") == kinds.count("BatchNorm2d") == 13
    ends = [i for i, kind in enumerate(kinds) if kind == "MaxPool2d"]
    assert [sum(k == "Conv2d" for k in kinds[:end]) for end in ends] == [2, 4, 7, 10, 13]
    assert model.features(torch.zeros(1, 3, 32, 32)).shape == (1, 512, 1, 1)


def test_resnet18_for_imagenet_has_the_published_tensor_names_and_sizes():
    model = Classifier("imagenet-resnet", {}, 1000, (3, 224, 224)).build().eval()
    state = model.state_dict()
    assert len(state) == 122 and state["conv1.weight"].shape == (64, 3, 7, 7)
    assert {"layer1.1.bn2.running_var", "layer4.0.downsample.0.weight", "layer2.0.downsample.1.bias"} <= set(state)
    x = torch.zeros(1, 3, 224, 224)
    sizes = [x.shape[-1] for x in [model.maxpool(model.conv1(x))]]
    x = model.maxpool(model.conv1(x))
    for stage in range(1, 5):
        x = getattr(model, f"layer{stage}")(x)
        sizes.append(x.shape[-1])
    assert sizes == [56, 56, 28, 14, 7]


def test_swin_enlarges_images_on_the_way_in():
    classifier = Classifier("swin", SMALL["swin"], 3, (3, 8, 8))
    constant = torch.full((2, 3, 8, 8), 255, dtype=torch.uint8)
    out = classifier.prepare(constant)
    assert out.shape == (2, 3, 32, 32)
    assert out[0, :, 5, 7].tolist() == pytest.approx([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225])
    same = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    assert torch.equal(classifier.prepare(same), Classifier("imagenet-resnet", {}, 3, (3, 32, 32)).prepare(same))


@pytest.mark.parametrize(("family", "settings"), [("imagenet-resnet", {}), ("swin", SMALL["swin"])])
def test_a_training_may_start_from_published_weights(family, settings, tmp_path):
    published = Classifier(family, settings, 5, (3, 32, 32)).build(7).state_dict()
    write_state_dict(tmp_path / "published.safetensors", {k: v for k, v in published.items() if v.is_floating_point()})
    classifier = Classifier(family, {**settings, "pretrained": str(tmp_path / "published.safetensors")}, 3, (3, 32, 32))
    head = classifier.contents.HEAD
    drawn, started = classifier.build(1).state_dict(), classifier.start(1).state_dict()
    assert {name for name in started if torch.equal(started[name], drawn[name])} >= {f"{head}weight", f"{head}bias"}
    trunk = [name for name in published if not name.startswith(head)]
    assert len(trunk) > 10 and all(torch.equal(started[name], published[name]) for name in trunk)
    del published[trunk[0]]
    write_state_dict(tmp_path / "published.safetensors", {**published, "more": torch.ones(1)})
    with pytest.raises(InputError, match=r"(?s)model.pretrained: .* 2 tensors differ:.*missing: .*unexpected: more"):
        classifier.start(1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"heads": [1]}, "depths and heads need a value for each stage"),
        ({"heads": [1, 5]}, "must be a multiple of heads"),
        ({"image_size": 30}, "must be a multiple of patch_size"),
        ({"window_size": 5}, "the last stage has 4 patches a side, fewer than window_size"),
    ],
)
def test_swins_settings_must_fit(wrong, message):
    with pytest.raises(ValidationError, match=message):
        registry.load("families", "swin").Settings(**{**SMALL["swin"], **wrong})


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
        ("retrain", 83.70),
        ("10k-original", 69.04),
        ("10k-retrain", 67.09),
    ],
)
@pytest.mark.heavy(12)
def test_real_models_have_their_stated_accuracy(shared, cifar_test, name, expected):
    classifier = Classifier("cifar-resnet", {}, 10, (3, 32, 32))
    file = shared / "models" / f"resnet20-cifar10-{name}.safetensors"
    model = classifier.load(file)
    assert set(model.state_dict()) == set(read_state_dict(file))
    assert accuracy(predict(classifier, model, cifar_test.images).argmax(1) == cifar_test.labels) == pytest.approx(
        expected, abs=0.011
    )


@pytest.mark.heavy(7)
def test_a_real_model_on_the_first_thousand_images(shared, cifar_test):
    classifier = Classifier("cifar-resnet", {}, 10, (3, 32, 32))
    model = classifier.load(shared / "models" / "resnet20-cifar10-original.safetensors")
    logits = predict(classifier, model, cifar_test.images[:1000])
    assert int((logits.argmax(1) == cifar_test.labels[:1000]).sum()) == 871  # where all 10,000 give the stated 84.78 %


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_keeps_the_contract(name):
    module = registry.load("families", name)
    assert module.SUMMARY and "\n" not in module.SUMMARY
    assert all(field.description for field in module.Settings.model_fields.values())
    for wrong in ({"deepth": 20}, {"std": [0.0]}, {"mean": []}):
        with pytest.raises(ValidationError):
            module.Settings(**wrong)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", [name for name, _ in CASES])
def test_building_leaves_the_accelerators_random_numbers_alone(name):
    before = torch.cuda.get_rng_state()
    Classifier(name, SMALL.get(name, {}), 10, (1, 8, 8)).build(3)
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
    from negmerge.tasks.image_classification.families.cifar_resnet import Padding

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
    assert accuracy(predict(classifier, model, source.test.images).argmax(1) == source.test.labels) >= 97
