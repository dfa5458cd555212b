"""Tests that a config asks for by name (`evidence: {tests: [offset]}`): a file each, with what `test.py` lists."""
