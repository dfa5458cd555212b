"""A competing method as a file of one's own: the base, its weights made smaller."""

from pydantic import BaseModel, ConfigDict, Field

from negmerge.checkpoints import read_state_dict, write_state_dict
from negmerge.unlearning.context import Outcome

KIND = "train"
NEEDS = ()
SUMMARY = "make every weight smaller"
REFERENCE = "a test"


class Settings(BaseModel):
    """How much."""

    model_config = ConfigDict(extra="forbid")

    share: float = Field(0.5, description="of each weight that is left")


def unlearn(context, settings):
    checkpoint = context.directory / "model.safetensors"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    state = read_state_dict(context.base)
    write_state_dict(checkpoint, {name: settings.share * value for name, value in state.items()})
    return Outcome(checkpoint=checkpoint, seconds={"training": 0.0})
