"""Configurations of mergekit, read as recipes where they mean exactly such a sum, and refused by the key elsewhere.

With δᵢ = modelᵢ − base_model, weights wᵢ, densities dᵢ and λ, mergekit defines

    task_arithmetic   base + λ·Σ wᵢ·δᵢ                              (normalize: divided by Σ wᵢ)
    dare_linear       base + λ·Σ wᵢ·drop(δᵢ, dᵢ)                    (normalize: divided by Σ wᵢ)
    ties              base + λ·Σ wᵢ·trim(δᵢ, dᵢ) over those of the elected sign, divided by the sum of their wᵢ
    dare_ties         the same with drop for trim; divided only where normalize is true

Source: https://github.com/arcee-ai/mergekit, docs/merge_methods.md and README.md.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from negmerge.checking import MistakesError, shown
from negmerge.errors import nearest

# What each method divides by the sum of the weights unless told otherwise.
NORMALISED = {"task_arithmetic": False, "dare_linear": False, "ties": True, "dare_ties": False}
ELECTING = ("ties", "dare_ties")
DTYPES = ("float32", "float16", "bfloat16", "float64")
KEYS = ("merge_method", "base_model", "models", "parameters", "dtype", "out_dtype", "random_seed")
OF_ALL = ("normalize", "lambda", "rescale", "int8_mask")
OF_MODELS = ("weight", "density")
# Keys of mergekit that no recipe has, and what is to be written instead.
ELSEWHERE = {
    "slices": "negmerge merges whole models: list them under models",
    "modules": "negmerge merges whole models: list them under models",
    "tokenizer_source": "OUT keeps the tokenizer of base_model: leave it out",
    "tokenizer": "OUT keeps the tokenizer of base_model: leave it out",
    "chat_template": "OUT keeps the chat template of base_model: leave it out",
    "name": "leave it out; OUT is named by -o",
    "gamma": "write a recipe of negmerge with method: breadcrumbs",
    "epsilon": "della is no method of negmerge; take dare_linear or ties",
    "rescale_norm": "negmerge's dare divides by the density: leave it out",
}


def is_mergekits(content: Mapping[str, Any]) -> bool:
    """Whether a mapping is a configuration of mergekit and no recipe."""
    return "terms" not in content and ("merge_method" in content or "models" in content)


def from_mergekit(config: Mapping[str, Any], where: str = "recipe") -> dict[str, Any]:
    """Return the recipe that a configuration of mergekit stands for.

    Raises MistakesError with a line for each key that has no counterpart, and says what to write instead.

    >>> model = {"model": "tuned", "parameters": {"weight": 0.5}}
    >>> from_mergekit({"merge_method": "task_arithmetic", "base_model": "base", "models": [model]})["terms"]
    [{'members': ['tuned'], 'method': 'task-arithmetic', 'settings': {'weights': [0.5]}, 'sign': '+', 'alpha': 1.0}]
    """
    reading = _Reading(config)
    recipe = reading.recipe()
    if reading.wrong:
        raise MistakesError(where, reading.wrong)
    return recipe


@dataclass(frozen=True)
class _Asked:
    """What a configuration asks for: its method, for each model a name, a weight and a density, and the rest."""

    method: str
    names: list[str]
    weights: list[float]
    densities: list[float]
    normalize: bool
    rescale: bool
    scale: float


class _Reading:
    """One configuration while it is read; `wrong` has a line for each mistake."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.wrong: list[str] = []

    def recipe(self) -> dict[str, Any]:
        """Return the recipe; of no use where `wrong` has lines."""
        config = self.config
        self._refuse_unknown(config, KEYS, "")
        method = config.get("merge_method")
        if method not in NORMALISED:
            known = ", ".join(NORMALISED)
            self.wrong.append(f"merge_method: {shown(method)} is none of {known}, which negmerge reads")
        base = config.get("base_model")
        if not isinstance(base, str):
            self.wrong.append(f"base_model must be a path or a hub id, got {shown(base)}")
        names, weights, densities = self._models(base)
        common = self._mapping(config.get("parameters"), "parameters", (*OF_ALL, *OF_MODELS))
        normalize = self._boolean(common, "normalize", NORMALISED.get(str(method), False))
        rescale = self._boolean(common, "rescale", True)
        self._boolean(common, "int8_mask", False)  # how mergekit stores a mask; it decides no number
        scale = self._number(common, "lambda", 1.0, "parameters")
        if self.wrong or len(names) == 0:
            return {}
        asked = _Asked(str(method), names, weights, densities, normalize, rescale, scale)
        terms = self._electing(asked) if method in ELECTING else self._linear(asked)
        return {"base": base, "terms": terms, **self._dtype()}

    def _models(self, base: Any) -> tuple[list[str], list[float], list[float]]:
        """Return the models beside the base, and the weight and the density of each."""
        names: list[str] = []
        weights: list[float] = []
        densities: list[float] = []
        models = self.config.get("models")
        common = self.config.get("parameters")
        common = common if isinstance(common, Mapping) else {}
        if not isinstance(models, list) or not models:
            self.wrong.append(f"models must be a list of models, got {shown(models)}")
            return names, weights, densities
        for i, entry in enumerate(models):
            place = f"models[{i}]"
            if not isinstance(entry, Mapping) or not isinstance(entry.get("model"), str):
                self.wrong.append(f"{place}.model must be a path or a hub id, got {shown(entry)}")
                continue
            self._refuse_unknown(entry, ("model", "parameters"), f"{place}.")
            if entry["model"] == base:
                continue  # mergekit takes no task vector of the base
            if "+" in entry["model"]:
                self.wrong.append(f"{place}.model: give the adapter itself in the place of {entry['model']}")
            own = self._mapping(entry.get("parameters"), f"{place}.parameters", OF_MODELS)
            parameters = {**{key: common[key] for key in OF_MODELS if key in common}, **own}
            if "weight" not in parameters:
                self.wrong.append(f"{place}.parameters.weight is missing")
            names.append(entry["model"])
            weights.append(self._number(parameters, "weight", 1.0, f"{place}.parameters"))
            densities.append(self._number(parameters, "density", 1.0, f"{place}.parameters"))
        if not names and not self.wrong:
            self.wrong.append("models: there is none beside base_model")
        return names, weights, densities

    def _linear(self, asked: _Asked) -> list[dict[str, Any]]:
        total = math.fsum(asked.weights)
        alpha = asked.scale / total if asked.normalize and abs(total) >= 1e-8 else asked.scale
        if asked.method == "task_arithmetic":
            if any(density != 1 for density in asked.densities):
                self.wrong.append("density: task_arithmetic drops nothing: leave it out, or take dare_linear or ties")
            settings = {"weights": asked.weights}
            return [
                {"members": asked.names, "method": "task-arithmetic", "settings": settings, "sign": "+", "alpha": alpha}
            ]
        # One term for each model: its own weight and density, and draws of its own.
        return [
            {
                "members": [name],
                "method": "dare",
                "settings": {"density": density, "rescale": asked.rescale},
                "sign": "+",
                "alpha": alpha * weight,
                "seed": self._seed() + i,
            }
            for i, (name, weight, density) in enumerate(zip(asked.names, asked.weights, asked.densities, strict=True))
        ]

    def _electing(self, asked: _Asked) -> list[dict[str, Any]]:
        density = asked.densities[0]
        if len(set(asked.weights)) > 1 or asked.weights[0] <= 0:
            self.wrong.append(
                f"weight: {asked.method} is read with one weight above 0 for all models, got {shown(asked.weights)}; "
                "give them the same, or take task_arithmetic or dare_linear"
            )
        if len(set(asked.densities)) > 1:
            self.wrong.append(
                f"density: {asked.method} is read with one density for all models, got {shown(asked.densities)}; "
                "give them the same"
            )
        if not asked.normalize:
            self.wrong.append(
                f"normalize: {asked.method} is read as the mean of those that agree; "
                "write parameters: {normalize: true}"
            )
        term = {"members": asked.names, "sign": "+", "alpha": asked.scale}
        if asked.method == "ties":
            return [{**term, "method": "ties", "settings": {"density": density}}]
        settings = {"density": density, "rescale": asked.rescale, "mean": "elected"}
        return [{**term, "method": "dare", "settings": settings, "seed": self._seed()}]

    def _dtype(self) -> dict[str, str]:
        """Return the dtype of OUT: out_dtype, else dtype, else that of the base."""
        for key in ("out_dtype", "dtype"):
            value = self.config.get(key)
            if value is not None and value not in DTYPES:
                self.wrong.append(f"{key} must be {', '.join(DTYPES[:-1])} or {DTYPES[-1]}, got {shown(value)}")
        found = self.config.get("out_dtype") or self.config.get("dtype")
        return {} if found is None else {"dtype": found}

    def _seed(self) -> int:
        seed = self.config.get("random_seed") or 0
        if type(seed) is not int:
            self.wrong.append(f"random_seed must be a whole number, got {shown(seed)}")
            return 0
        return seed

    def _mapping(self, value: Any, place: str, known: tuple[str, ...]) -> Mapping[str, Any]:
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            self.wrong.append(f"{place} must be a mapping, got {shown(value)}")
            return {}
        self._refuse_unknown(value, known, f"{place}.")
        return value

    def _number(self, values: Mapping[str, Any], key: str, default: float, place: str) -> float:
        value = values.get(key, default)
        if isinstance(value, list | Mapping):
            self.wrong.append(
                f"{place}.{key}: {shown(value)} differs between layers or tensors; give one number, or write a recipe "
                "of negmerge with settings for some tensors (density[REGEX])"
            )
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            self.wrong.append(f"{place}.{key} must be a number, got {shown(value)}")
            return default
        return float(value)

    def _boolean(self, values: Mapping[str, Any], key: str, default: bool) -> bool:
        value = values.get(key, default)
        if isinstance(value, int | float) and value in (0, 1):
            value = bool(value)
        if not isinstance(value, bool):
            self.wrong.append(f"parameters.{key} must be true or false, got {shown(value)}")
            return default
        return value

    def _refuse_unknown(self, values: Mapping[str, Any], known: tuple[str, ...], place: str) -> None:
        for key in values:
            if key in known:
                continue
            instead = ELSEWHERE.get(str(key))
            advice = (
                f": {instead}" if instead else f"{nearest(str(key), known)} is not read; it may have {', '.join(known)}"
            )
            self.wrong.append(f"{place}{key}{advice}")
