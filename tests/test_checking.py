"""Refused values: one line for each, which says what is wanted."""

from collections.abc import Sequence
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator

from negmerge.checking import MistakesError, checked, mistakes_of
from negmerge.errors import InputError


class Example(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    need: int
    share: float = Field(0.5, gt=0, le=1, description="of the elements")
    level: float = Field(0.5, ge=0, lt=1)
    count: int = Field(1, ge=1)
    cap: int = Field(1, le=9)
    free: float = 0.0
    kind: Literal["a", "b", "c"] = "a"
    flag: bool = True
    text: str = ""
    numbers: Annotated[Sequence[float] | None, "marked"] = None
    even: int = 2

    @field_validator("even")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("write an even number")
        return value


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"share": 0}, "share must be a number above 0 and at most 1, got 0: of the elements"),
        ({"share": "0.5"}, "share must be a number above 0 and at most 1, got '0.5': of the elements"),
        ({"share": True}, "share must be a number above 0 and at most 1, got True: of the elements"),
        ({"level": 1.0}, "level must be a number from 0 to below 1, got 1.0"),
        ({"count": 0}, "count must be a whole number from 1 on, got 0"),
        ({"count": 1.5}, "count must be a whole number from 1 on, got 1.5"),
        ({"cap": 10}, "cap must be a whole number at most 9, got 10"),
        ({"free": float("inf")}, "free must be a finite number, got inf"),
        ({"kind": "d"}, "kind must be a, b or c, got 'd'"),
        ({"flag": "yes"}, "flag must be true or false, got 'yes'"),
        ({"flag": 1}, "flag must be true or false, got 1"),
        ({"text": None}, "text must be text, got None"),
        ({"numbers": 0.5}, "numbers must be a list of finite numbers, got 0.5"),
        ({"numbers": "0.5"}, "numbers must be a list of finite numbers, got '0.5'"),
        ({"numbers": [1, "x"]}, "numbers must be a list of finite numbers, got 'x' in place 2"),
        ({"even": 3}, "even: write an even number"),
        ({"shar": 1}, "it does not take 'shar' (did you mean 'share'?); its settings: need, share, level, count, "
         "cap, free, kind, flag, text, numbers, even"),
        ({"text": ["x" * 100]}, f"text must be text, got ['{'x' * 58}…"),
    ],
)  # fmt: skip
def test_a_line_says_what_is_wanted(values, line):
    with pytest.raises(MistakesError) as caught:
        checked(Example, {"need": 1, **values}, "here")
    assert str(caught.value) == f"here: {line}"


def test_what_is_right_is_taken():
    found = checked(Example, {"need": 3, "share": 1, "numbers": (1, 2.5)})
    assert (found.share, list(found.numbers)) == (1.0, [1.0, 2.5])


def test_each_mistake_has_its_line():
    with pytest.raises(InputError) as caught:
        checked(Example, {"kind": 3, "shar": 2, "flag": "no"})
    lines = str(caught.value).splitlines()
    assert lines[0] == "4 settings are wrong:" and len(lines) == 5
    assert lines[1] == "  need is missing"
    assert [line.strip() for line in lines[1:]] == mistakes_of(caught.value)
    assert mistakes_of(InputError("one")) == ["one"]
