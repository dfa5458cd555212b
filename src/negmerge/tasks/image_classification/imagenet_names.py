"""ImageNet's 1,000 classes in the order of their labels: WordNet id, the data set's first synonym, CLIP's wording.

The wording is the list of CLIP's notebook on ImageNet (openai/CLIP, notebooks/Prompt_Engineering_for_ImageNet.ipynb,
the edition with "kite (bird of prey)" and "red wolf or maned wolf"), which open_clip publishes as IMAGENET_CLASSNAMES.
It words two pairs of classes alike: 657 and 744 are "missile", 836 and 837 "sunglasses".
"""

from importlib.resources import files

_LINES = files("negmerge.tasks.image_classification").joinpath("imagenet_names.txt").read_text("utf-8").splitlines()
_ROWS = [line.split("\t") for line in _LINES]

SYNONYMS = tuple(synonym for _, synonym, _ in _ROWS)
WORDS = {wordnet_id: wording for wordnet_id, _, wording in _ROWS}
