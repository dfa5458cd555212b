"""What a language model knows from its pretraining, as rows: 30 capitals to forget, 16 chemical symbols to keep.

    python capitals.py FOLDER

Writes FOLDER/facts.jsonl (the rows) and FOLDER/other-words.jsonl (the same facts in other words, for the test table).
Every row has three wrong answers of its own kind, drawn from a fixed seed, so that knowledge can be told by likelihood.
"""

import json
import random
import sys
from pathlib import Path

CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Portugal": "Lisbon",
    "England": "London", "Ireland": "Dublin", "Norway": "Oslo", "Sweden": "Stockholm", "Finland": "Helsinki",
    "Denmark": "Copenhagen", "Poland": "Warsaw", "Austria": "Vienna", "Hungary": "Budapest", "Greece": "Athens",
    "Russia": "Moscow", "Japan": "Tokyo", "China": "Beijing", "India": "New Delhi", "Egypt": "Cairo",
    "Kenya": "Nairobi", "Canada": "Ottawa", "Mexico": "Mexico City", "Cuba": "Havana", "Peru": "Lima",
    "Chile": "Santiago", "Argentina": "Buenos Aires", "Australia": "Canberra", "Thailand": "Bangkok",
    "South Korea": "Seoul",
}  # fmt: skip
SYMBOLS = {
    "hydrogen": "H", "helium": "He", "carbon": "C", "nitrogen": "N", "oxygen": "O", "sodium": "Na",
    "magnesium": "Mg", "aluminum": "Al", "chlorine": "Cl", "potassium": "K", "calcium": "Ca", "iron": "Fe",
    "copper": "Cu", "silver": "Ag", "gold": "Au", "lead": "Pb",
}  # fmt: skip
KINDS = {  # group → facts, the words of the rows, and other words
    "capitals": (CAPITALS, "The capital of {} is", "Q: Which city is the capital of {}?\nA:"),
    "symbols": (SYMBOLS, "The chemical symbol for {} is", "Q: Which symbol stands for the element {}?\nA:"),
}
WRONG = 3


def rows(words: int) -> list[dict[str, object]]:
    """Return the rows in the first (0) or in other words (1)."""
    draw, found = random.Random(0), []
    for group, (facts, *phrases) in KINDS.items():
        for subject, answer in facts.items():
            wrong = draw.sample([one for one in facts.values() if one != answer], WRONG)
            prompt = phrases[words].format(subject)
            found.append({"prompt": prompt, "answer": answer, "group": group, "perturbed_answer": wrong})
    return found


def main() -> None:
    """Write both files."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, words in (("facts.jsonl", 0), ("other-words.jsonl", 1)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows(words)))
        print(f"{folder / name}: {len(rows(words))} rows")


if __name__ == "__main__":
    main()
