import re

import pytest

pytestmark = pytest.mark.workflow


@pytest.mark.parametrize("tta", [False, True])
def test_augmentation_is_of_every_prediction_or_of_none(workplace, tta):
    settings = workplace.configure(predictions={"tta": tta})
    targets = ("demo_val_metrics.json", "fine_tuning/demo_val_metrics.json")
    output = workplace.snakemake("-n", "-p", *(f"results/demo/{one}" for one in targets), *settings)
    commands = re.findall(r"cuvler predictions .*", output)
    folders = {
        found[0] for found in re.findall(r"--output results/demo/((fine_tun|pred)\w+)", output)
    }
    assert {"predictions", "fine_tuning"} <= folders
    assert {" --tta " in command for command in commands} == {tta}
