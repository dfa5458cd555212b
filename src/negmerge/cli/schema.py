"""`negmerge schema`: what a config may hold and what results hold, as JSON schemas."""

import json
from enum import StrEnum
from typing import Annotated, Any

import typer


class Document(StrEnum):
    """The documents that have a schema."""

    config = "config"
    results = "results"


def schema(document: Annotated[Document, typer.Argument(help="Which document.")]) -> None:
    """Print the JSON schema of a config, or of the results.json of a run."""
    made: dict[str, Any]
    if document is Document.config:
        from negmerge.experiment.config import Config

        made = Config.model_json_schema()
    else:
        from negmerge.report.inputs import results_schema

        made = results_schema()
    print(json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **made}, indent=1))
