"""The example of a service is a right config, and what is wrong with one is said in a line."""

from pathlib import Path

import pytest

from negmerge.errors import InputError
from negmerge.exact import load_exact

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "exact" / "tofu.yaml"


def test_the_example_is_read():
    config = load_exact(CONFIG)
    assert config.clients.groups == "all" and config.clients.train.epochs == 5 and config.base.pretrained
    assert config.data.forget.fraction == 0.5  # any split will do: all training rows are clients' rows


@pytest.mark.parametrize(
    ("was", "is_", "words"),
    [
        ("base: {pretrained: true}", "base: {}", "give either train or checkpoint"),
        ("groups: all", "groups: [a, a]", "give all, or different names of groups"),
        ("epochs: 5", "epoch: 5", r"clients.train.epoch: unknown key \(did you mean 'epochs'"),
        ("name: exact-tofu", "- name", "is not YAML"),
        ("unseen:", "unsene:", r"data: unsene: unknown key \(did you mean 'unseen'"),
    ],
)
def test_mistakes_are_one_line(was, is_, words, tmp_path):
    text = CONFIG.read_text()
    assert was in text
    (tmp_path / "c.yaml").write_text(text.replace(was, is_))
    with pytest.raises(InputError, match=words) as found:
        load_exact(tmp_path / "c.yaml")
    assert "\n" not in str(found.value)
