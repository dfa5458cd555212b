"""Zero-shot classifiers on CLIP's towers, as modules whose tensors are those that are trained and merged."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from negmerge.tasks.zero_shot.prompts import text_head


def cosine_logits(features: Tensor, head: Tensor) -> Tensor:
    """Return features [b, d], normalised, times head [c, d], float32 [b, c] whatever the precision of the features.

    Under autocast the product would be bf16, where logits between 16 and 32 are 0.125 apart, so that many would tie.
    """
    with torch.autocast(features.device.type, enabled=False):
        return functional.normalize(features.float(), dim=-1) @ head.float().T


class ImageTower(nn.Module):
    """The image encoder and its projection, with the tensor names of `CLIPModel`, under a fixed text head [c, d]."""

    def __init__(self, config: Any, head: Tensor, attention: str = "sdpa") -> None:
        from transformers import CLIPVisionModelWithProjection

        super().__init__()
        tower = CLIPVisionModelWithProjection._from_config(config, attn_implementation=attention)
        self.vision_model = tower.vision_model
        self.visual_projection = tower.visual_projection
        self.register_buffer("head", head, persistent=False)

    def features(self, images: Tensor) -> Tensor:
        """Return the projected image features [b, d] of images [b, C, H, W], not normalised."""
        features: Tensor = self.visual_projection(self.vision_model(pixel_values=images).pooler_output)
        return features

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [b, c]: exp(s) · cos(image features, class), the scale being part of the head."""
        assert isinstance(self.head, Tensor)
        return cosine_logits(self.features(images), self.head)


class LinearTower(ImageTower):
    """The image features as a linear function of the weights: f(x; θ₀) + ∇f(x; θ₀)·(θ − θ₀), by one forward-mode pass.

    The parameters are θ, under the same names; θ₀ is fixed when the module is made (`fix_origin`).
    Source: Ortiz-Jimenez et al., Task Arithmetic in the Tangent Space, NeurIPS 2023 (arXiv 2305.12827).
    """

    ONE_CALL_AT_A_TIME = True  # while it is differentiated, the module holds other weights

    def __init__(self, config: Any, head: Tensor) -> None:
        super().__init__(config, head, attention="eager")  # forward-mode derivatives of the fused kernels do not exist

    def fix_origin(self) -> None:
        """Make the present weights θ₀."""
        for i, parameter in enumerate(self.parameters()):
            self.register_buffer(f"origin{i}", parameter.detach().clone(), persistent=False)

    def features(self, images: Tensor) -> Tensor:
        """Return the features [b, d] of the first-order Taylor model at the present weights.

        At θ₀, where no gradient is asked for, this is one plain pass, so that hooks see what layers get.
        """
        named = dict(self.named_parameters())
        origin = {name: getattr(self, f"origin{i}") for i, name in enumerate(named)}
        steps = {name: value - origin[name] for name, value in named.items()}
        if not torch.is_grad_enabled() and not any(bool(step.any()) for step in steps.values()):
            return super().features(images)
        exact = _Call(self, super().features)

        def at(weights: dict[str, Tensor]) -> Tensor:
            features: Tensor = torch.func.functional_call(
                exact, {f"owner.{n}": w for n, w in weights.items()}, (images,)
            )
            return features

        value: Tensor
        change: Tensor
        value, change = torch.func.jvp(at, (origin,), (steps,))[:2]
        return value + change


class _Call(nn.Module):
    """A method of a module as a module, so that it can be called with other weights."""

    def __init__(self, owner: nn.Module, method: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.owner, self.method = owner, method

    def forward(self, images: Tensor) -> Tensor:
        """Call the method."""
        return self.method(images)


class TextTower(nn.Module):
    """The text encoder and its projection, trained by its prompts; the images' tower is trained too, or stands by.

    `tokens` int64 [m, length] are all prompts, `classes` int64 [m] their classes. A tower that stands by is no part of
    the state: it is neither trained nor merged. In evaluation the head is kept until a weight changes.
    """

    def __init__(self, config: Any, tokens: Tensor, classes: Tensor, scale: Tensor, images: ImageTower) -> None:
        from transformers import CLIPTextModelWithProjection

        super().__init__()
        tower = CLIPTextModelWithProjection._from_config(config)
        self.text_model = tower.text_model
        self.text_projection = tower.text_projection
        self.count = int(classes.max()) + 1
        for name, value in (("tokens", tokens), ("classes", classes), ("scale", scale)):
            self.register_buffer(name, value, persistent=False)
        self._aside = [images]  # in a list, so that its tensors are not this module's
        self._kept: tuple[tuple[int, ...], Tensor] | None = None

    def _apply(self, fn: Any, recurse: bool = True) -> "TextTower":
        aside: Any = self._aside[0]
        this: Any = super()
        aside._apply(fn)
        self._kept = None
        this._apply(fn, recurse)
        return self

    def image_features(self, images: Tensor) -> Tensor:
        """Return the features [b, d] of the tower that stands by."""
        with torch.no_grad():
            return self._aside[0].eval().features(images)

    def head(self) -> Tensor:
        """Return the head [c, d] of the present weights."""
        versions = tuple(parameter._version for parameter in self.parameters())
        if torch.is_grad_enabled() and self.training:
            return self._make_head()
        if self._kept is None or self._kept[0] != versions:
            with torch.no_grad():
                self._kept = versions, self._make_head()
        return self._kept[1]

    def _make_head(self) -> Tensor:
        tokens, classes, scale = (getattr(self, name) for name in ("tokens", "classes", "scale"))
        pooled = torch.cat([self.text_model(input_ids=part).pooler_output for part in tokens.split(256)])
        embeddings = self.text_projection(pooled)
        with torch.autocast(embeddings.device.type, enabled=False):
            return text_head(embeddings.float(), classes, self.count, scale)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [b, c]: exp(s) · cos(image features, class)."""
        return cosine_logits(self.image_features(images), self.head())


class BothTowers(TextTower):
    """Both encoders with their projections, trained together, with the tensor names of `CLIPModel`."""

    def __init__(self, config: Any, tokens: Tensor, classes: Tensor, scale: Tensor, images: ImageTower) -> None:
        super().__init__(config, tokens, classes, scale, images)
        self.vision_model = images.vision_model
        self.visual_projection = images.visual_projection

    def image_features(self, images: Tensor) -> Tensor:
        """Return the features [b, d] of the tower that is trained."""
        features: Tensor = self.visual_projection(self.vision_model(pixel_values=images).pooler_output)
        return features
