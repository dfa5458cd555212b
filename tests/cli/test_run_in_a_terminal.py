"""A run as somebody watches it: quiet, verbose, and stopped by Ctrl-C."""

import signal
import subprocess
import sys
import time

import pytest
import yaml

CONFIG = {
    "name": "x",
    "model": {"family": "small-cnn", "width": 4},
    "data": {"source": "digits", "forget": {"classes": ["3"]}, "train_rows": [0, 200]},
    "base": {"train": {"epochs": 1}},
    "pool": {"train": {"epochs": 1}, "grid": {"lr": [1e-3]}},
    "methods": ["consensus"],
    "workers": 1,
    "threads": 1,
}


@pytest.mark.heavy(12)
def test_quiet_and_verbose_may_stand_anywhere(tmp_path):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(CONFIG))
    out = {}
    for option in ("-q", "", "-v"):
        place = tmp_path / f"run{option}"
        words = [sys.executable, "-m", "negmerge", *option.split(), "run", str(tmp_path / "c.yaml"), "-o", str(place)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0 and "consensus" in done.stdout, done.stderr
        out[option] = done.stderr
    assert out["-q"] == "" and "pool" in out[""]
    assert "I stage-started stage=base" in out["-v"] and "I trained name=base" in out["-v"]


@pytest.mark.heavy(8)
def test_ctrl_c_says_how_to_go_on(tmp_path):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({**CONFIG, "base": {"train": {"epochs": 50_000}}}))
    words = [sys.executable, "-m", "negmerge", "run", str(tmp_path / "c.yaml"), "-o", str(tmp_path / "r")]
    # Whoever runs the tests in the background ignores SIGINT, and hands that down.
    process = subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    events = tmp_path / "r" / "events.jsonl"
    deadline = time.monotonic() + 120
    while not (events.exists() and '"training"' in events.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err
    assert err.rstrip().endswith(f"To go on: negmerge run {tmp_path / 'c.yaml'} -o {tmp_path / 'r'}")
