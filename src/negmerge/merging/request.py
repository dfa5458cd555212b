"""The arguments of a merge, checked before a file is opened: all mistakes in one error."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from negmerge.checking import MistakesError, checked, mistakes_of, shown
from negmerge.errors import InputError
from negmerge.merging.merger import Merger
from negmerge.merging.pool.selecting import compile_pattern

DEVICE = re.compile(r"cpu|mps|cuda(:(0|[1-9][0-9]?))?")


class Request(BaseModel):
    """What a merge is asked to do, but for the method; a caller gives what it takes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    base: str | os.PathLike[str] | None = Field(None, description="the path of the original model")
    members: Sequence[str | os.PathLike[str]] = Field((), description="the paths of the fine-tuned models")
    output: str | os.PathLike[str] | None = Field(None, description="the path of the result")
    alpha: float = Field(1.0, description="scale of the negation")
    add: bool = False
    origin: str | os.PathLike[str] | None = Field(None, description="the model that the members were trained from")
    weights: str | os.PathLike[str] | None = Field(None, description="a file of importance weights")
    include: Sequence[str] = Field((), description="regular expressions of tensor names")
    exclude: Sequence[str] = Field((), description="regular expressions of tensor names")
    buffers: Literal["keep", "negate"] = "keep"
    seed: int = Field(0, description="of the methods that draw at random")
    device: str = Field("cpu", description="where the arithmetic runs: cpu, cuda, cuda:1, mps")
    dtype: Literal["base", "float32", "float16", "bfloat16", "float64"] = "base"
    workers: int | None = Field(None, ge=1, description="threads")
    rank: int | None = Field(None, ge=1, description="rank of the adapter that --as-adapter writes")
    max_shard_size: str | None = Field(None, description="a size such as 500MB")
    hash_inputs: bool = True
    overwrite: bool = False


def check_request(method: str, settings: Mapping[str, Any] | None = None, **arguments: Any) -> Merger:
    """Check the arguments of a merge, each by its name in `Request`, and return the method with its settings.

    Raises MistakesError, an InputError with a line for each mistake, for values that are not of the type or in the
    range that `Request` or the method's `Settings` state, and a device that torch cannot use.
    """
    request, wrong = _request(arguments)
    try:
        if settings is not None and not isinstance(settings, Mapping):
            raise InputError(f"settings must be a mapping of names to values, got {shown(settings)}")
        merger = Merger(method, settings or {}, request.seed)
        if request.members:
            merger.check_members(len(request.members))
    except InputError as error:
        raise MistakesError("", [*wrong, *mistakes_of(error)]) from None
    if wrong:
        raise MistakesError("", wrong)
    return merger


def wrong_arguments(arguments: Mapping[str, Any]) -> list[str]:
    """Return a line for each mistake in arguments of a merge, each by its name in `Request`."""
    return _request(arguments)[1]


def _request(arguments: Mapping[str, Any]) -> tuple[Request, list[str]]:
    """Return the request as far as it is right, and a line for each mistake."""
    wrong: list[str] = []
    try:
        request = checked(Request, arguments)
    except MistakesError as error:
        wrong += error.lines
        request = Request.model_construct(**_sound(arguments))
    return request, [*wrong, *_wrong_device(request.device), *_wrong_texts(request)]


def _sound(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the arguments that are right, so that the rest of the request can be checked as well."""
    found = {}
    for key, value in arguments.items():
        try:
            found[key] = getattr(checked(Request, {key: value}), key)
        except MistakesError:
            continue
    return found


def _wrong_texts(request: Request) -> list[str]:
    """Return a line for each text that is not of its form: regular expressions, and the size of a shard."""
    wrong: list[str] = []
    for option in ("include", "exclude"):
        for text in getattr(request, option):
            try:
                compile_pattern(text, option)
            except InputError as error:
                wrong += mistakes_of(error)
    if request.max_shard_size is not None:
        from negmerge.merging.output.weights import parse_size

        try:
            parse_size(request.max_shard_size)
        except InputError as error:
            wrong += mistakes_of(error)
    return wrong


def _wrong_device(device: str) -> list[str]:
    """Return a line that says why torch cannot compute on a device, or nothing. The cpu needs no torch to say so."""
    if not DEVICE.fullmatch(device):
        return [f"--device {device}: choose cpu, cuda, cuda:NUMBER or mps"]
    if device == "cpu":
        return []
    import torch

    kind, _, number = device.partition(":")
    if kind == "mps":
        count = int(torch.backends.mps.is_available())
    else:
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count > int(number or 0):
        return []
    return [f"--device {device}: torch {torch.__version__} finds {count or 'no'} {kind} device here; choose cpu"]
