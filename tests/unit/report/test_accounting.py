import json

import pytest

from cuvler.errors import DataError
from cuvler.report import Inputs, make_report
from cuvler.report.accounting import account
from cuvler.report.training import read_losses


def test_every_image_is_counted_once(inputs):
    counted = account(inputs.annotations["demo_val", "votecut"])
    assert counted.statuses == {"ok": 3, "no_mask": 1, "unreadable": 1}
    assert (counted.num_images, counted.num_masks) == (5, 3)
    assert counted.masks_per_image.tolist() == [0, 1, 1, 1]
    assert counted.info["tau_m"] == 0.2
    assert [image["file_name"] for image in counted.excluded] == ["9.png"]


def test_masks_are_measured(inputs):
    counted = account(inputs.annotations["demo_val", "votecut"])
    assert counted.sizes.tolist() == pytest.approx([18 / 2400**0.5] * 2 + [18 / 50])
    assert counted.scores.tolist() == [0.5] * 3
    assert counted.cluster_sizes.tolist() == [4] * 3
    assert counted.crf_success.tolist() == [0, 1, 1]


def test_annotations_without_masks_or_scores_are_counted_too(trial):
    counted = account(trial.write("a.json", {"images": [], "annotations": []}))
    assert (counted.num_images, counted.num_masks, counted.scores.size) == (0, 0, 0)


@pytest.mark.parametrize("value", [10**400, float("nan"), "5", None, [1]])
def test_numbers_of_a_mask_that_are_none_are_named(trial, value):
    rle = {"size": [4, 4], "counts": [12, 4]}
    mask = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": rle, "area": 4}
    images = [{"id": 1, "file_name": "1.jpg", "width": 4, "height": 4}]
    path = trial.write(
        "a.json", {"images": images, "annotations": [mask | {"cluster_size": value}]}
    )
    with pytest.raises(DataError, match=r"a\.json: .* 0 \(.*image 1\): 'cluster_size' must be"):
        account(path)


def test_only_the_first_of_many_excluded_images_are_named(trial):
    excluded = [{"id": i, "file_name": f"{i}.jpg", "status": "missing"} for i in range(100)]
    counted = account(
        trial.write("a.json", {"images": [], "annotations": [], "excluded": excluded})
    )
    assert counted.statuses["missing"] == 100
    assert len(counted.excluded) == 20


def test_losses_are_summed_by_part(inputs):
    losses = read_losses(inputs.detectors["cuvler_round0"])
    assert losses.iterations.tolist() == [19, 39, 59, 79, 99]
    assert list(losses.curves) == ["total", "classification", "masks", "proposals"]
    assert losses.curves["classification"].tolist() == [0.5] * 5
    assert (losses.broken_lines, losses.skipped_batches) == (0, 2)
    assert {name: [part.tolist() for part in curve] for name, curve in losses.scores.items()} == {
        "boxes": [[49, 99], [12.25, 24.75]],
        "masks": [[49, 99], [9.8, 19.8]],
    }


def test_a_resumed_run_counts_its_later_lines_and_broken_ones_are_reported(trial):
    lines = [{"iteration": i, "total_loss": loss} for i, loss in ((19, 3.0), (39, 2.0))]
    again = [{"iteration": i, "total_loss": loss} for i, loss in ((39, 1.9), (59, 1.5))]
    # The last batch was skipped: its line has no losses.
    other = [{"iteration": 59, "bbox/AP": 12.0}, {"iteration": 60, "skipped_batches": 1}]
    text = "\n".join(map(json.dumps, lines)) + '\n{"iteration": 59, "tot\n'
    text += "\n".join(map(json.dumps, [*again, *other]))
    trial.write("detector/metrics.json", text)
    losses = read_losses(trial.folder / "detector")
    assert losses.iterations.tolist() == [19, 39, 59]
    assert losses.curves["total"].tolist() == [3.0, 1.9, 1.5]
    assert (losses.broken_lines, losses.skipped_batches) == (1, 1)
    assert list(losses.scores) == ["boxes"]


def test_detectors_without_losses_are_named(trial):
    with pytest.raises(DataError, match=r"metrics\.json: no such file"):
        read_losses(trial.folder)
    trial.write("metrics.json", '{"iteration": 1}\n')
    with pytest.raises(DataError, match="no line with a total_loss"):
        read_losses(trial.folder)


def test_what_only_some_masks_have_is_left_out(trial):
    masks = [
        trial.square(2, 8, 8, 18, id=1, score=0.5, cluster_size=4, crf_success=True),
        trial.square(3, 8, 8, 18, id=2, score=0.9),
    ]
    images = [
        {"id": i, "file_name": "x", "width": width, "height": height}
        for i, (width, height) in list(trial.sizes.items())[:2]
    ]
    path = trial.write("mixed.json", {"images": images, "annotations": masks})
    counted = account(path)
    assert counted.scores.tolist() == [0.5, 0.9]
    assert counted.crf_success.size == counted.cluster_sizes.size == 0
    assert make_report(Inputs(annotations={("d", "cutler_round1"): path}))
