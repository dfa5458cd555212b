"""Train a small CLIP from scratch on CIFAR-10 and MNIST, and save it in the hub's format.

    python examples/clip/train_clip.py --cifar10 FOLDER --mnist FOLDER -o clip-small

The folders hold train*.parquet and test*.parquet, as on the hub. The image tower has 1.2 M parameters; the vocabulary
is made of the captions. Rows that `negmerge run` holds out for validation (data.seed 0) are held out here too. After
every epoch the state is saved, and the same command goes on from there.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from byte_pairs import build_tokenizer
from torch import Tensor
from torch.nn import functional
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from negmerge import registry
from negmerge.checkpoints import atomic_write, write_bytes_atomic
from negmerge.requests.rules import ValidationRule
from negmerge.requests.splits import hold_out
from negmerge.seeding import derive_seed
from negmerge.tasks.image_classification.augmentation import augment
from negmerge.tasks.image_classification.images import ImageSet
from negmerge.training import TrainSettings
from negmerge.training.loop import Epoch, fit

AUGMENT = {"cifar10": "crop+flip", "mnist": "crop2"}  # a digit in the mirror is another sign
CAPTIONS = {
    "cifar10": ("a picture of a {}.", "an image of the {}.", "{}"),
    "mnist": ('the number "{}".', "the digit {}.", "a handwritten {}.", "a photo of the number {}.", "{}"),
}
PIXEL_MEAN, PIXEL_STD = 0.48, 0.26


@dataclass
class Table:
    """One data set of the training: images, labels counted over all data sets, captions of each class."""

    name: str
    images: ImageSet
    test: ImageSet
    first_label: int
    captions: list[list[str]]
    held_out: Tensor
    templates: tuple[str, ...]


def load_tables(folders: dict[str, Path], rows: int | None) -> list[Table]:
    """Read both data sets at 32 × 32 in colour, without the rows that a run would hold out."""
    tables, first = [], 0
    for name, folder in folders.items():
        source = registry.load("sources", name)
        loaded = source.load(source.Settings(path=folder, image_size=32, mode="rgb"))
        held_out, trained = hold_out(len(loaded.train), ValidationRule(), seed=0)
        templates = (*source.TEMPLATES, *CAPTIONS[name])
        captions = [[t.replace("{}", c) for t in templates] for c in loaded.train.classes]
        train = loaded.train.take(trained[:rows])
        held = loaded.train.take(held_out)
        tables.append(Table(name, train, loaded.test, first, captions, held, source.TEMPLATES))
        first += len(captions)
    return tables


def build_model(tokenizer: CLIPTokenizer, length: int, seed: int) -> CLIPModel:
    """Return a CLIPModel with an image tower of 1.2 M parameters (32 × 32, patch 8) and a text tower of 0.5 M."""
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": length, "hidden_size": 128, "num_hidden_layers": 2}
    vision = {"image_size": 32, "patch_size": 8, "hidden_size": 128, "num_hidden_layers": 6}
    shared = {"intermediate_size": 512, "num_attention_heads": 4}
    config = CLIPConfig(
        text_config={**text, **shared, **ends, "pad_token_id": tokenizer.pad_token_id},
        vision_config={**vision, **shared},
        projection_dim=64,
    )
    torch.manual_seed(seed)
    return CLIPModel(config)


def contrastive_loss(model: CLIPModel, pixels: Tensor, labels: Tensor, tokens: Tensor, classes: Tensor) -> Tensor:
    """Return the supervised contrastive loss of b images and m captions, averaged over both directions.

    For an image, every caption of its class is a positive: −mean over them of log softmax(s · cos). For a caption the
    images of its class likewise; captions without an image in the batch count in the first direction only.

    Source: Khosla et al., Supervised Contrastive Learning, 2020 (arXiv 2004.11362); CLIP's temperature.
    """
    image = functional.normalize(model.get_image_features(pixel_values=pixels).pooler_output, dim=-1)
    text = functional.normalize(model.get_text_features(input_ids=tokens).pooler_output, dim=-1)
    logits = model.logit_scale.clamp(max=4.6052).exp() * image @ text.T
    same = (labels[:, None] == classes[None, :]).float()
    to_text = -(logits.log_softmax(1) * same).sum(1) / same.sum(1)
    shown = same.sum(0) > 0
    to_image = -(logits.log_softmax(0) * same).sum(0)[shown] / same.sum(0)[shown]
    return (to_text.mean() + to_image.mean()) / 2


def scale_pixels(images: Tensor) -> Tensor:
    """Return uint8 images as float32 of about zero mean and unit variance."""
    return (images.float() / 255 - PIXEL_MEAN) / PIXEL_STD


class Batches:
    """Seeded batches over all tables: images, their labels, and two captions of every class."""

    def __init__(self, tables: list[Table], tokens: list[list[Tensor]], settings: TrainSettings) -> None:
        self.tables, self.tokens, self.settings = tables, tokens, settings
        sizes = [len(t.images) for t in tables]
        self.ends = torch.tensor(sizes).cumsum(0)
        self.steps = sum(sizes) // settings.batch_size

    def __call__(self, epoch: int):
        generator = torch.Generator().manual_seed(derive_seed(self.settings.seed, "epoch", epoch))
        order = torch.randperm(int(self.ends[-1]), generator=generator)
        for rows in order.split(self.settings.batch_size)[: self.steps]:
            images, labels = [], []
            start = 0
            for table, end in zip(self.tables, self.ends.tolist(), strict=True):
                mine = rows[(rows >= start) & (rows < end)] - start
                images.append(augment(table.images.images, AUGMENT[table.name], generator, mine))
                labels.append(table.images.labels[mine] + table.first_label)
                start = end
            picked = [torch.randperm(len(t), generator=generator)[:2].tolist() for t in self.tokens]
            tokens = torch.stack([self.tokens[c][i] for c, pair in enumerate(picked) for i in pair])
            classes = torch.arange(len(self.tokens)).repeat_interleave(2)
            yield scale_pixels(torch.cat(images)), torch.cat(labels), tokens, classes


@torch.no_grad()
def zero_shot_accuracy(model: CLIPModel, tokenizer: CLIPTokenizer, table: Table, images: ImageSet) -> float:
    """Return the zero-shot accuracy in percent with the data set's own class names and templates."""
    model.eval()
    rows = []
    for name in images.classes:
        prompts = tokenizer([t.replace("{}", name) for t in table.templates], padding=True, return_tensors="pt")
        text = functional.normalize(model.get_text_features(input_ids=prompts.input_ids).pooler_output, dim=-1)
        rows.append(functional.normalize(text.mean(0), dim=-1))
    head = torch.stack(rows)
    right = 0
    for pixels, labels in zip(images.images.split(500), images.labels.split(500), strict=True):
        features = model.get_image_features(pixel_values=scale_pixels(pixels)).pooler_output
        right += int(((features @ head.T).argmax(1) == labels).sum())
    return 100 * right / len(images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cifar10", type=Path, required=True)
    parser.add_argument("--mnist", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--rows", type=int, help="at most so many rows of each data set, for a trial")
    parser.add_argument("--vocabulary", type=int, default=800)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    started = time.perf_counter()
    args.output.mkdir(parents=True, exist_ok=True)
    tables = load_tables({"cifar10": args.cifar10, "mnist": args.mnist}, args.rows)
    captions = [group for table in tables for group in table.captions]
    tokenizer = build_tokenizer([text for group in captions for text in group], args.vocabulary)
    length = max(len(ids) for group in captions for ids in tokenizer(group).input_ids)
    encoded = [
        list(tokenizer(g, padding="max_length", max_length=length, return_tensors="pt").input_ids) for g in captions
    ]
    model = build_model(tokenizer, length, seed=0)
    settings = TrainSettings(
        lr=1e-3, weight_decay=0.1, epochs=args.epochs, batch_size=256, warmup_steps=200, clip=1.0, schedule="cosine"
    )
    batches = Batches(tables, encoded, settings)
    state_file = args.output / "last-epoch.pt"
    start, spent = None, 0.0  # seconds of the earlier processes, up to the epochs that they saved
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state.pop("model"))
        spent = state.pop("seconds", 0.0)
        start = Epoch(**state)

    def after(done: Epoch) -> None:
        accuracies = {t.name: zero_shot_accuracy(model, tokenizer, t, t.held_out) for t in tables}
        shown = ", ".join(f"{name} {value:.2f} %" for name, value in accuracies.items())
        seconds = spent + time.perf_counter() - started
        print(f"epoch {done.number}: loss {done.loss:.4f}, validation {shown}, {seconds:.0f} s", flush=True)
        with atomic_write(state_file) as file:
            torch.save({"model": model.state_dict(), "seconds": seconds, **vars(done)}, file)
        model.train()

    fit(
        model,
        batches,
        lambda m, b: contrastive_loss(m, *b),
        settings,
        steps_per_epoch=batches.steps,
        start=start,
        on_epoch=after,
    )
    model.save_pretrained(args.output)
    tokenizer.save_pretrained(args.output)
    pixels = {"image_mean": [PIXEL_MEAN] * 3, "image_std": [PIXEL_STD] * 3, "size": {"shortest_edge": 32}}
    kind = {"image_processor_type": "CLIPImageProcessor", "crop_size": {"height": 32, "width": 32}}
    write_bytes_atomic(args.output / "preprocessor_config.json", json.dumps({**kind, **pixels}, indent=1).encode())
    facts = {
        "zero_shot": {t.name: zero_shot_accuracy(model, tokenizer, t, t.test) for t in tables},
        "image_tower": sum(p.numel() for n, p in model.named_parameters() if n.startswith("vis")),
        "parameters": sum(p.numel() for p in model.parameters()),
        "vocabulary": len(tokenizer),
        "settings": settings.model_dump(mode="json"),
        "rows": {t.name: len(t.images) for t in tables},
        "seconds": spent + time.perf_counter() - started,
        "threads": args.threads,
    }
    write_bytes_atomic(args.output / "training.json", json.dumps(facts, indent=1).encode())
    print(json.dumps(facts["zero_shot"]))


if __name__ == "__main__":
    main()
