"""`negmerge list`: what is registered."""

from enum import StrEnum
from typing import Annotated

import typer


class Kind(StrEnum):
    """What can be listed."""

    methods = "methods"
    sources = "sources"
    families = "families"


def list_names(kind: Annotated[Kind, typer.Argument(help="What to list.")]) -> None:
    """List methods, data sources or model families, with what is known of each."""
    from negmerge import registry

    names = registry.names(kind.value)
    width = max(len(name) for name in names)
    for name in names:
        if kind is Kind.methods:
            from negmerge.experiment.methods import describe

            info = describe(name)
            settings = ", ".join(f"{key}={value}" for key, value in info.settings.items())
            print(f"{name:<{width}}  {info.kind:<6}  {info.summary}")
            print(f"{'':<{width}}          needs {', '.join(info.needs)}; settings: {settings or 'none'}")
            for key, values in info.search.items():
                print(f"{'':<{width}}          {key} is searched unless given: {', '.join(f'{v:g}' for v in values)}")
            print(f"{'':<{width}}          {info.reference}")
        else:
            from negmerge.tasks.image_classification.family import family_of
            from negmerge.tasks.image_classification.source_file import SourceFile, source_file

            found = source_file(name) if kind is Kind.sources else family_of(name)
            print(f"{name:<{width}}  {found.SUMMARY}")
            for line in found.FACTS.details if isinstance(found, SourceFile) and found.FACTS else ():
                print(f"{'':<{width}}  {line}")
