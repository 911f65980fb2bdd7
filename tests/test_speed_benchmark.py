"""The benchmark on this machine's processor: all of it at toy size."""

import subprocess
import sys
from pathlib import Path

import pytest
from synthtune import number_format

FILE = Path(__file__).parents[1] / "benchmarks" / "speed.py"


@pytest.mark.slow
def test_every_comparison_runs_and_both_sides_agree():
    written = [path.read_bytes() for path in sorted(FILE.parent.glob("speed.*"))]
    done = subprocess.run([sys.executable, str(FILE), "--quick"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for chosen in {"float32", number_format.of_machine()}:
        for what in ("greedy decoding", "nucleus sampling", "scoring 2 labels", "scoring 8 labels", "LoRA fine-tuning",
                     "student training, classifier", "student training, seq2seq"):
            assert f"{chosen}, {what}" in done.stdout
    assert "format, as it is" in done.stdout and "**NO**" not in done.stdout
    assert [path.read_bytes() for path in sorted(FILE.parent.glob("speed.*"))] == written
