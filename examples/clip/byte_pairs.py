"""A byte-pair vocabulary learned from a few texts, for CLIP's tokenizer.

The trainer of the tokenizers library numbers symbols by the order of a hash table, which changes from process to
process; here ties go to the pair that comes first in the alphabet, so equal texts give equal tokenizers.
Source: Sennrich et al., Neural Machine Translation of Rare Words with Subword Units, 2016 (arXiv 1508.07909).
"""

import itertools
import string
from collections import Counter
from collections.abc import Iterable

from transformers import CLIPTokenizer

END = "</w>"  # what the last symbol of a word ends with
SPECIAL = ("<|startoftext|>", "<|endoftext|>")


def learn_pairs(words: Counter, symbols: int) -> list[tuple[str, str]]:
    """Return the pairs to merge, in their order: each the most frequent one in the words as merged so far.

    >>> learn_pairs(Counter({"low": 5, "lot": 2}), 2)
    [('l', 'o'), ('lo', 'w</w>')]
    """
    split = {word: (*word[:-1], word[-1] + END) for word in words}
    pairs: list[tuple[str, str]] = []
    while len(pairs) < symbols:
        counts: Counter = Counter()
        for word, parts in split.items():
            for pair in itertools.pairwise(parts):
                counts[pair] += words[word]
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        pairs.append(best)
        split = {word: merge(parts, best) for word, parts in split.items()}
    return pairs


def merge(parts: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """Return the parts of a word with every occurrence of a pair made one, from the left.

    >>> merge(("a", "a", "a"), ("a", "a"))
    ('aa', 'a')
    """
    found: list[str] = []
    for part in parts:
        if found and (found[-1], part) == pair:
            found[-1] += part
        else:
            found.append(part)
    return tuple(found)


def build_tokenizer(texts: Iterable[str], size: int) -> CLIPTokenizer:
    """Return CLIP's tokenizer with at most `size` tokens learned from the texts; any ASCII text can be written."""
    blank = CLIPTokenizer().backend_tokenizer
    words: Counter = Counter()
    for text in texts:
        cut = blank.pre_tokenizer.pre_tokenize_str(blank.normalizer.normalize_str(text))
        words.update(word for word, _ in cut)
    signs = {sign for word in words for sign in word} | set(string.ascii_lowercase + string.digits + string.punctuation)
    alphabet = [sign + end for sign in sorted(signs) for end in ("", END)]
    pairs = learn_pairs(words, size - len(SPECIAL) - len(alphabet))
    vocabulary = [*SPECIAL, *alphabet, *("".join(pair) for pair in pairs)]
    numbers = {token: i for i, token in enumerate(dict.fromkeys(vocabulary))}
    return CLIPTokenizer(vocab=numbers, merges=pairs)
