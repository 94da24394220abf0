"""Published files are fetched by rules, once."""

import re

import pytest

pytestmark = pytest.mark.workflow


def test_published_files_are_made_by_name_and_no_others(workplace):
    output = workplace.snakemake("-n", "resources/downloads/cutler_cascade_final.pth")
    assert "cuvler download" in workplace.snakemake(
        "-n", "--printshellcmds", "resources/downloads/coco_20k_filenames.txt"
    )
    assert re.search(r"^download +1$", output, re.MULTILINE)
    output = workplace.snakemake("-n", "resources/downloads/nothing.pth", status=1)
    assert "MissingRuleException" in output


def test_weights_that_the_config_names_are_downloaded(workplace):
    weights = "resources/downloads/dino_RN50_pretrain_d2_format.pkl"
    output = workplace.snakemake("-n", "--config", f"detector={{weights: {weights}}}")
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", output, re.MULTILINE))
    assert (jobs["download"], jobs["weights"]) == ("1", "6")
