"""A small transformer on hashed words: trained in seconds on a CPU, no tokenizer, no download."""

import re
import zlib
from collections.abc import Sequence

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from negmerge.seeding import seeded

SUMMARY = "a transformer of a layer or two on hashed words, about 0.3 million parameters; for tests and small sets"
WORD = re.compile(r"\w+|[^\w\s]")
START = 1  # the token before every text, so that none is empty; 0 is padding


class Settings(BaseModel):
    """Sizes."""

    model_config = ConfigDict(extra="forbid")

    vocabulary: int = Field(4096, ge=8, description="rows of the embedding, into which words are hashed")
    width: int = Field(64, ge=2, description="numbers of a token's vector")
    layers: int = Field(1, ge=1, description="blocks of attention and a perceptron")
    heads: int = Field(4, ge=1, description="attention heads of a block")
    max_length: int = Field(128, ge=2, description="tokens of a text that are read")
    dropout: float = Field(0.1, ge=0, lt=1, description="share of a block's outputs left out in training")

    @model_validator(mode="after")
    def _fit(self) -> "Settings":
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads, got {self.width} and {self.heads}")
        return self


class Block(nn.Module):
    """Attention and a perceptron, each on normalised inputs and added to them."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.inputs, self.outputs = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return x [b, L, d] after the block; tokens look at those where mask, bool [b, L], is true."""
        b, length, width = x.shape
        parts = self.inputs(self.norm1(x)).view(b, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None, :])
        x = x + self.dropout(self.outputs(seen.transpose(1, 2).reshape(b, length, width)))
        out: Tensor = x + self.dropout(self.down(functional.gelu(self.up(self.norm2(x)))))
        return out


class SmallTransformer(nn.Module):
    """Blocks on embedded words and positions, the mean over tokens, one linear layer."""

    def __init__(self, settings: Settings, classes: int) -> None:
        super().__init__()
        self.words = nn.Embedding(settings.vocabulary, settings.width)
        self.places = nn.Embedding(settings.max_length, settings.width)
        self.blocks = nn.ModuleList(
            Block(settings.width, settings.heads, settings.dropout) for _ in range(settings.layers)
        )
        self.norm = nn.LayerNorm(settings.width)
        self.classifier = nn.Linear(settings.width, classes)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return logits [b, classes] of ids, int64 [b, L], where mask [b, L] is not 0."""
        real = mask.bool()
        x = self.words(ids) + self.places(torch.arange(ids.shape[1], device=ids.device))
        for block in self.blocks:
            x = block(x, real)
        x = self.norm(x).masked_fill(~real[:, :, None], 0.0)
        logits: Tensor = self.classifier(x.sum(1) / real.sum(1, keepdim=True))
        return logits


def build(settings: Settings, classes: int, seed: int = 0) -> nn.Module:
    """Return the network, initialised from the seed."""
    return seeded(lambda: SmallTransformer(settings, classes), seed)


def encode(settings: Settings, texts: Sequence[str]) -> list[list[int]]:
    """Return the token numbers of each text: words and signs, in small letters, by their CRC-32.

    >>> encode(Settings(), ["Hello, hello!", ""])
    [[1, 2420, 580, 2420, 4045], [1]]
    """
    rows = []
    for text in texts:
        words = WORD.findall(text.lower())[: settings.max_length - 1]
        rows.append([START, *(2 + zlib.crc32(word.encode()) % (settings.vocabulary - 2) for word in words)])
    return rows


def logits(model: nn.Module, ids: Tensor, mask: Tensor) -> Tensor:
    """Return logits [b, classes]."""
    outputs: Tensor = model(ids, mask)
    return outputs
