"""Data sets known by name: where the hub has them, how many classes they have, and how these are worded.

Class names and prompt templates are those of CLIP's zero-shot evaluation (Radford et al., Learning Transferable Visual
Models From Natural Language Supervision, 2021, arXiv 2103.00020; the published list of prompts).
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import Field, field_validator

from negmerge.errors import InputError, listing
from negmerge.requests.rules import ValidationRule
from negmerge.tasks.image_classification.images import Source
from negmerge.tasks.image_classification.sources import hub, image_folder, parquet
from negmerge.tasks.image_classification.tables import TableSettings
from negmerge.tasks.split_names import SPLITS, Splits

PLACEHOLDER = "{}"


class NamedSettings(TableSettings):
    """What can be changed about a data set that is known by name."""

    path: Path | None = Field(None, description="a local folder (parquet, or class folders) instead of the hub")
    splits: Splits = Field(default_factory=dict, description=f"{SPLITS} (`negmerge list sources` has the names)")
    class_names: list[str] | Path | None = Field(
        None,
        description="how the classes are worded in prompts, in their order: a list, or a file with one a line; or with "
        "the class's own name, a tab and its wording, as in Tiny-ImageNet's words.txt",
    )

    @field_validator("class_names", mode="before")
    @classmethod
    def _text(cls, value: object) -> object:
        return [str(item) for item in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class NamedSet:
    """A data set by its facts.

    `words` maps the classes' own names (plain: see `plain_name`) to CLIP's wording, in the order of the labels unless
    `numbered` is off; where it is empty or does not know all classes, the wording is made of the own names by `word`.
    `own` is what `word` makes of the hub's names, in the order of the labels, where `words` has other keys. `count` is
    the number of classes.
    """

    title: str
    hub: str
    count: int
    templates: tuple[str, ...]
    words: Mapping[str, str] = field(default_factory=dict)
    word: Callable[[str], str] | None = None
    own: tuple[str, ...] = ()
    numbered: bool = True
    config: str | None = None
    columns: Mapping[str, str] = field(default_factory=lambda: {"image": "image", "label": "label"})
    splits: Mapping[str, str] = field(default_factory=lambda: {"train": "train", "test": "test"})
    most: int | None = None

    @property
    def summary(self) -> str:
        """One line for `negmerge list sources`."""
        rows = f", a seeded {self.most:,} of its training rows unless `most` says otherwise" if self.most else ""
        return f"{self.title}: {self.count} classes, {len(self.templates)} prompt templates; hub id {self.hub}{rows}"

    @property
    def details(self) -> tuple[str, ...]:
        """Further lines for `negmerge list sources`: where rows come from, how they are worded, what is held out."""
        columns = ", ".join(f"{role}={name}" for role, name in self.columns.items())
        config = f"; configuration {self.config}" if self.config else ""
        names = _first(list(self.words.values()), 4) if self.words else "worded from the data set's own names"
        rule = ValidationRule()
        return (
            f"splits train={self.splits['train']}, test={self.splits['test']}; columns {columns}{config}",
            f"classes: {names}",
            f"templates: {_first(self.templates, 3)}",
            f"validation: a seeded {100 * rule.fraction:g} % of the train rows, at most {rule.most:,}, "
            "unless data.validation says otherwise",
        )


def _first(items: Sequence[str], count: int) -> str:
    return " | ".join(items[:count]) + (" | …" if len(items) > count else "")


def load_named(facts: NamedSet, settings: NamedSettings) -> Source:
    """Load a named data set from the hub or from a local folder, its classes worded as prompts want them.

    A folder with `train*.parquet` is read as parquet, any other as class folders. Its splits serve as on the hub, a
    validation split being spelt val, valid or validation; where that is not there, `test` is the test table. Raises
    InputError for a folder that is not there, a missing column, another number of classes, and class names that cannot
    be worded.
    """
    settings = settings.model_copy(update={"most": settings.most or facts.most})
    source = _from_hub(facts, settings) if settings.path is None else _from_folder(facts, settings.path, settings)
    classes = source.train.classes
    where = f"{facts.title} ({settings.path or facts.hub})"
    if len(classes) != facts.count:
        raise InputError(
            f"{where} has {len(classes)} classes, {facts.title} has {facts.count}; is it another data set?"
        )
    words = _given(settings.class_names, classes, facts, where) or word_classes(classes, facts, where)
    return replace(source, **{part: replace(getattr(source, part), classes=words) for part in ("train", "test")})


def word_classes(classes: Sequence[str], facts: NamedSet, where: str) -> tuple[str, ...]:
    """Return the wording of classes given by their own names, which may also be their numbers or CLIP's wording.

    Classes that CLIP's own list words alike stay so (ImageNet has two such pairs). Raises InputError for names that are
    not known, and for wordings that are not distinct for another reason.
    """
    found = _by_table(classes, facts)
    unknown = [name for name, worded in zip(classes, found, strict=True) if not worded]
    alike = Counter(facts.words.values())
    if unknown and (facts.word or not facts.words):
        silent = [name for name in classes if not re.search("[A-Za-z]{2}", name) or re.fullmatch(r"n\d{8}", name)]
        unknown = [name for name in silent if name in unknown] or silent
        found, alike = _by_rule(classes, facts.word or plain_name), Counter()
    if unknown:
        headline = f"{where}: {len(unknown)} classes have names that say nothing to a text encoder; give class_names:"
        raise InputError(listing(headline, unknown))
    twice = sorted(name for name, times in Counter(found).items() if times > max(1, alike[name]))
    if twice:
        raise InputError(f"{where}: several classes would be worded {twice[0]!r}; give class_names")
    return tuple(found)


def plain_name(name: str) -> str:
    """Return a class name as words: camel case and the signs _ / - as spaces, in small letters.

    >>> plain_name("AnnualCrop"), plain_name("baseball_diamond"), plain_name("apartment_building/outdoor")
    ('annual crop', 'baseball diamond', 'apartment building outdoor')
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return " ".join(re.sub(r"[_/\-]", " ", spaced).lower().split())


def _by_table(classes: Sequence[str], facts: NamedSet) -> list[str]:
    """Return CLIP's wording of each class, empty where `words` does not know its name."""
    worded = list(facts.words.values())
    word = facts.word or plain_name
    if facts.own and [_bare(word(name)) for name in classes] == [_bare(name) for name in facts.own]:
        return worded
    known = {plain_name(word): word for word in worded} | dict(facts.words)
    numbered = facts.numbered and sorted(classes) == sorted({name for name in classes if name.isdecimal()})
    if numbered and not all(plain_name(name) in known for name in classes):
        known = {str(number): word for number, word in enumerate(worded)}
        classes = [str(int(name)) for name in classes]
    return [known.get(plain_name(name), "") for name in classes]


def _bare(name: str) -> str:
    # The hub calls ImageNet's second crane "crane2".
    return plain_name(name).rstrip("0123456789")


def _by_rule(classes: Sequence[str], word: Callable[[str], str]) -> list[str]:
    short = [word(name) for name in classes]
    # Of ImageNet's names "maillot" and "maillot, tank suit" the first synonym is the same: then the whole name.
    return [
        " ".join(n.replace("_", " ").split()) if short.count(s) > 1 else s for n, s in zip(classes, short, strict=True)
    ]


def _given(names: list[str] | Path | None, classes: Sequence[str], facts: NamedSet, where: str) -> tuple[str, ...]:
    """Return the wording that the settings give, if any: one for each class; classes may be worded alike."""
    if names is None:
        return ()
    if isinstance(names, Path):
        try:
            lines = [line.strip() for line in names.read_text().splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not a text"
            raise InputError(f"class_names: {names}: {reason}; give a file with a name a line") from None
        own = dict(line.split("\t", 1) for line in lines if "\t" in line)
        names = [(facts.word or str)(own.get(name, "")) for name in classes] if own else lines
    if len(names) != facts.count:
        raise InputError(f"{where}: class_names holds {len(names)} names; {facts.title} has {facts.count} classes")
    missing = [name for name, word in zip(classes, names, strict=True) if not word.strip()]
    if missing:
        raise InputError(listing(f"{where}: class_names has no words for {len(missing)} classes:", missing))
    return tuple(names)


def _from_hub(facts: NamedSet, settings: NamedSettings) -> Source:
    shared = _table_settings(settings) | {"columns": settings.columns or dict(facts.columns)}
    splits = {**facts.splits, **settings.splits}
    return hub.load(hub.Settings(path=facts.hub, config=facts.config, splits=splits, **shared))


def _from_folder(facts: NamedSet, folder: Path, settings: NamedSettings) -> Source:
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such folder; give data.path, or leave it out to fetch the data set from the hub"
        )
    splits = {**facts.splits, **settings.splits}
    in_tables = parquet.has_split(folder, splits["train"])
    has_split = parquet.has_split if in_tables else image_folder.has_split
    if "test" not in settings.splits and not has_split(folder, splits["test"]) and has_split(folder, "test"):
        splits["test"] = "test"
    if in_tables:
        return parquet.load(parquet.Settings(path=folder, splits=splits, **_table_settings(settings)))
    if settings.columns:
        raise InputError(f"{folder} holds no train*.parquet, so there are no columns to name; leave columns out")
    shared = settings.model_dump(include=set(image_folder.Settings.model_fields) - {"path", "splits"})
    return image_folder.load(image_folder.Settings(path=folder, splits=splits, **shared))


def _table_settings(settings: NamedSettings) -> dict[str, object]:
    return settings.model_dump(include=set(TableSettings.model_fields))
