"""One label of a text classifier, forgotten from the command line, without a config.

The model is a folder as transformers saves it; here a tiny one that is trained on the spot. With one of your own:

    negmerge unlearn MODEL --forget food.csv --retain all.csv -o OUT
"""

import csv
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast
from transformers.utils import logging

logging.disable_progress_bar()
WORDS = {
    "food": ["bread", "soup", "sauce", "oven", "salt", "pepper", "dish", "cook", "plate", "lemon"],
    "sport": ["goal", "match", "team", "player", "score", "league", "coach", "ball", "win", "season"],
    "tech": ["code", "chip", "data", "cloud", "server", "phone", "app", "network", "robot", "screen"],
}
COMMON = ["the", "a", "of", "and", "with", "for", "near", "very", "new", "old", "today"]

# What you have: a classifier in a folder, and its rows, in a table with a column of texts and one of labels.
folder = Path(tempfile.mkdtemp())
draw = random.Random(0)
rows = []
for _ in range(240):
    label = draw.choice(list(WORDS))
    words = [draw.choice(WORDS[label] if draw.random() < 0.5 else COMMON) for _ in range(draw.randint(4, 16))]
    rows.append({"text": " ".join(words), "label": label})
vocabulary = ["[UNK]", "[PAD]", *COMMON, *(word for words in WORDS.values() for word in words)]
model = Tokenizer(WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]"))
model.pre_tokenizer = Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=model, pad_token="[PAD]", unk_token="[UNK]", model_max_length=32)
torch.manual_seed(0)
config = BertConfig(
    vocab_size=len(vocabulary),
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    initializer_range=0.2,
    pad_token_id=1,
    id2label=dict(enumerate(WORDS)),
)
classifier = BertForSequenceClassification(config)
batch = tokenizer([row["text"] for row in rows], padding=True, return_tensors="pt")
labels = torch.tensor([list(WORDS).index(row["label"]) for row in rows])
optimizer = torch.optim.AdamW(classifier.parameters(), 1e-2)
for _ in range(40):
    optimizer.zero_grad()
    classifier(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss.backward()
    optimizer.step()
classifier.save_pretrained(folder / "model")
tokenizer.save_pretrained(folder / "model")


def write(name: str, table: list[dict[str, str]]) -> None:
    """Write a table as CSV."""
    with (folder / name).open("w", newline="") as file:
        writer = csv.DictWriter(file, ["text", "label"])
        writer.writeheader()
        writer.writerows(table)


write("food.csv", [row for row in rows if row["label"] == "food"])
write("all.csv", rows)

# What you do. Rows to forget may stand among those to keep; DIR/model is the unlearned model, as transformers reads it.
words = ["unlearn", "model", "--forget", "food.csv", "--retain", "all.csv", "-o", "out"]
words += ["--set", "workers=1"]  # so small a model trains fastest in one process
print(f"negmerge {' '.join(words)}")
done = subprocess.run([sys.executable, "-m", "negmerge", *words], cwd=folder, capture_output=True, text=True)
print(done.stdout + done.stderr)
sys.exit(done.returncode)
