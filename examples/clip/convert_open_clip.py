"""Turn an open_clip checkpoint into the folder of a CLIPModel, which the family clip and negmerge merge can read.

    python examples/clip/convert_open_clip.py open_clip_pytorch_model.bin -o clip-folder --activation gelu

Then copy tokenizer.json and tokenizer_config.json of openai/clip-vit-base-patch32 into the folder.
"""

import argparse
from pathlib import Path

from negmerge.tasks.zero_shot.open_clip import convert_open_clip


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--activation", choices=["gelu", "quick_gelu"], required=True)
    for tower in ("vision", "text"):
        parser.add_argument(f"--{tower}-heads", type=int, help="attention heads, for widths that no known model has")
    given = parser.parse_args(arguments)
    convert_open_clip(
        given.checkpoint,
        given.output,
        activation=given.activation,
        vision_heads=given.vision_heads,
        text_heads=given.text_heads,
    )


if __name__ == "__main__":
    main()
