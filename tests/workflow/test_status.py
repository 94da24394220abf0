"""`cuvler status` during a run."""

import csv
import re
import subprocess
from pathlib import Path

import pytest

from cuvler.layout import FILES

pytestmark = pytest.mark.workflow


def test_status_of_a_part_and_of_the_whole(workplace, tiny):
    flags = workplace.configure(**tiny)
    part = "results/demo/annotations/demo_val/votecut.json"
    workplace.snakemake(part, *flags)
    workplace.snakemake("-n", part, *flags)

    def status(*words):
        command = workplace.command() | {"args": ["cuvler", "status", *words, *flags]}
        result = subprocess.run(**command)
        assert result.returncode == 0, result.stdout
        return result.stdout

    assert "All is done." in status(part)
    whole = status("all")
    lines = dict(re.findall(r"^(\S+(?: demo_\S+)?) +(\S+)", whole, re.MULTILINE))
    assert lines["images"] == "1/2"
    assert lines["pseudo_masks demo_val/votecut"] == "1/1"
    assert lines["pseudo_masks demo_train/votecut"] == "0/3"
    assert lines["detector"] == "0/2"
    assert "not counting " in whole

    # The names of logs and benchmarks that status expects are those of the rules.
    summary = workplace.snakemake("--summary", part, *flags)
    table = csv.DictReader(summary[summary.index("output_file") :].splitlines(), delimiter="\t")
    results = Path("results/demo")
    rows = [row for row in table if row["log-file(s)"]]
    assert len(rows) == 5  # images, two backbones, masks, annotations
    for row in rows:
        file = FILES[row["rule"]]
        assert row["log-file(s)"] == str(file.log_of(row["output_file"], results))
        if row["rule"] != "images":
            benchmark = file.benchmark_of(row["output_file"], results)
            assert (workplace.folder / benchmark).exists(), benchmark
