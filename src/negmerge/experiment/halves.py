"""Which rows shadow models see: halves of the forget rows; and whether the judged row can be made again on them."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from negmerge.errors import InputError
from negmerge.evidence.protocol import read_test
from negmerge.experiment.config import RunConfig
from negmerge.experiment.methods import describe
from negmerge.experiment.prepare import Material
from negmerge.plug_in import short_name
from negmerge.requests.hardest import deal_halves
from negmerge.seeding import derive_seed
from negmerge.training import TrainSettings


def asks_for_shadows(config: RunConfig) -> bool:
    """Return whether a test has models made as the judged one was."""
    return any(read_test(test.name).SHADOWS for test in config.evidence.tests)


def check_shadows(config: RunConfig, row: str) -> None:
    """Raise InputError where a test asks for shadow models, and the judged row cannot be made again on other rows."""
    asking = next((test.name for test in config.evidence.tests if read_test(test.name).SHADOWS), None)
    if asking is None or config.reference is None:
        return
    name = short_name(asking)
    if not isinstance(config.base.train, TrainSettings):
        raise InputError(
            f"evidence: {name} trains further bases as the base was trained, and this one was given: leave {name} out, "
            "or give base.train"
        )
    method = next(one for one in config.methods if one.row == row)
    if describe(method.name).kind != "merge":
        raise InputError(
            f"evidence: {name} merges pools as the judged row does, and {row} is no merge of the pool: let "
            f"evidence.method name a row that is, or leave {name} out"
        )
    if method.projected is not None and isinstance(method.projected.rows, Path):
        raise InputError(
            f"evidence: {name} takes retain rows into its halves, and {row} is projected by rows of a file, which may "
            f"be among these: let evidence.method name another row, or leave {name} out"
        )


def rows_of_shadow(config: RunConfig, material: Material) -> int:
    """Return on how many rows one shadow model is trained, its pool included."""
    assert config.base.train is not None
    forget, companions = len(material.split.forget), count_companions(material)
    asked = (forget + companions) // 2
    members = config.pool.members()
    pool = sum(member.settings.count_rows(asked) for member in members)
    return config.base.train.count_rows(len(material.split.retain) - companions + asked) + pool


def count_companions(material: Material) -> int:
    """Return how many retain rows take part in the halves, so that a shadow unlearns as many rows as the judged model.

    As many as there are forget rows, half of the retain rows at most; none where groups are forgotten as a whole: the
    halves are then of rows of these groups alone.
    """
    if material.split.kind in ("class", "source") or material.about.forgotten:
        return 0
    return min(len(material.split.forget), len(material.split.retain) // 2)


@dataclass(frozen=True)
class Halves:
    """Which rows the shadows see: each a half of the forget rows and of their companions, and the `retain` rows."""

    seen: tuple[Tensor, ...]
    retain: Tensor


def deal_shadows(material: Material, count: int, seed: int) -> Halves:
    """Return the halves of `count` shadows, in pairs; more of them begin with the same ones."""
    forget, retain = material.parts["forget"], material.parts["retain"]

    def draw(*parts: str) -> torch.Generator:
        return torch.Generator().manual_seed(derive_seed(seed, "shadows", *parts))

    companions = retain[torch.randperm(len(retain), generator=draw("companions"))[: count_companions(material)]]
    inside = [deal_halves(len(rows), count, draw(part)) for part, rows in (("", forget), ("halves", companions))]
    seen = tuple(
        torch.cat([rows[half[i]] for rows, half in zip((forget, companions), inside, strict=True)]).sort().values
        for i in range(count)
    )
    return Halves(seen, retain[~torch.isin(retain, companions)])
