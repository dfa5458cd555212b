"""Scores that a config asks for by name (`evaluation: {scores: [loss-auc]}`): a file each, with SUMMARY and SCORE."""
