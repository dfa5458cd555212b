"""Small talk by topic, as a table: the English conversations of the package chatterbot-corpus (BSD), a row each.

    pip download --no-deps chatterbot-corpus && python topics.py chatterbot_corpus-*.whl topics.csv

A row is what is asked and what is answered, its label the topic; topics with fewer than 40 conversations, and repeated
texts, are left out.
"""

import csv
import sys
import zipfile
from pathlib import Path
from typing import Any

import yaml

LEAST = 40


def topics(wheel: Path) -> dict[str, list[str]]:
    """Return the texts of every topic that has enough of them."""
    found: dict[str, list[str]] = {}
    seen: set[str] = set()
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            if "/english/" not in name or not name.endswith((".yml", ".yaml")):
                continue
            content: dict[str, Any] = yaml.safe_load(archive.read(name))
            texts = [" ".join(str(line) for line in lines) for lines in content["conversations"]]
            new = [text for text in dict.fromkeys(texts) if text not in seen]
            seen.update(new)
            if len(new) >= LEAST:
                found[Path(name).stem] = new
    return found


def main() -> None:
    """Write the table."""
    wheel, target = map(Path, sys.argv[1:3])
    with target.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for label, texts in topics(wheel).items():
            writer.writerows([text, label] for text in texts)
            print(f"{label}: {len(texts)}")


if __name__ == "__main__":
    main()
