"""Rules download published files, once."""

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


def test_files_of_ones_own_have_an_address_and_a_digest(workplace):
    digest = "0f" * 32
    files = (
        f"{{mine.pth: {{url: 'gdrive:1aB', sha256: {digest}}}, other.pth: {{url: 'http://x/y'}}}}"
    )
    config = ["--config", f"download={files}"]
    names = [f"resources/downloads/{name}" for name in ("mine.pth", "other.pth")]
    commands = workplace.snakemake("-n", "--printshellcmds", *names, *config)
    commands = re.sub(r"\s+", " ", commands)
    assert f"cuvler download gdrive:1aB --sha256 {digest} --output {names[0]}" in commands
    assert f"cuvler download http://x/y --output {names[1]}" in commands
    wrong = "download={mine.pth: {url: 'ftp://x'}}"
    assert "download.mine.pth.url" in workplace.snakemake("-n", "--config", wrong, status=1)
