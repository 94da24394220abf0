import json
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pycocotools.coco import COCO

from cuvler import masks
from cuvler.annotations import merge_shards
from cuvler.errors import DataError
from cuvler.files import write_json

STATUSES = ["ok", "no_mask", "ok", "unreadable", "ok", "ok", "eigensolver_failed", "ok"]
FAILED = {"width": None, "height": None, "reason": "out of luck"}


def listing(shards):
    count = len(STATUSES)
    sizes = [len(part) for part in np.array_split(np.arange(count), shards)]
    return pd.DataFrame(
        {
            "image_id": np.arange(10, 10 + count),
            "file_name": [f"{n} '\".jpg" for n in range(count)],
            "shard": np.repeat(np.arange(shards), sizes),
        }
    )


def write_shards(folder, rows, info=None):
    folder.mkdir(exist_ok=True)
    paths = []
    for shard in range(rows["shard"].max() + 1):
        images, annotations = [], []
        for row in rows[rows["shard"] == shard].itertuples():
            status = STATUSES[row.image_id - 10]
            image = {"id": row.image_id, "file_name": row.file_name, "status": status}
            usable = status in ("ok", "no_mask")
            image |= {"width": 8, "height": 6} if usable else FAILED
            images.append(image)
            for size in range(1, 3 if status == "ok" else 1):
                rle = masks.encode(np.tri(6, 8, size, dtype=bool))
                annotation = {"image_id": row.image_id, "segmentation": rle, "score": 1 / size}
                annotation |= {"cluster_size": 3, "crf_success": True}
                annotations.append(annotation | masks.geometry(rle))
        content = {"info": {"method": "votecut", **(info or {}), "shard": shard}}
        paths.append(folder / f"{shard}.json")
        write_json(paths[-1], content | {"images": images, "annotations": annotations})
    return paths


def test_the_output_is_coco_and_accounts_for_every_image(tmp_path):
    rows = listing(3)
    paths = write_shards(tmp_path / "shards", rows)
    statuses = merge_shards(rows, paths, tmp_path / "merged.json", max_failed=0.25)
    assert statuses == {"ok": 5, "no_mask": 1, "unreadable": 1, "eigensolver_failed": 1}
    merged = json.loads((tmp_path / "merged.json").read_text())
    assert [image["id"] for image in merged["images"]] == [10, 11, 12, 14, 15, 17]
    assert [image["id"] for image in merged["excluded"]] == [13, 16]
    assert [annotation["id"] for annotation in merged["annotations"]] == list(range(1, 11))
    counts = {"eigensolver_failed": 1, "no_mask": 1, "ok": 5, "unreadable": 1}
    assert merged["summary"] == {"images": counts, "annotations": 10}
    coco = COCO(tmp_path / "merged.json")
    for annotation in coco.loadAnns(coco.getAnnIds()):
        assert coco.annToMask(annotation).sum() == annotation["area"]


def test_the_output_does_not_depend_on_the_number_of_shards(tmp_path):
    results = set()
    for shards in (1, 2, 5, 8):
        rows = listing(shards)
        paths = write_shards(tmp_path / str(shards), rows)
        merge_shards(rows, paths, tmp_path / "merged.json", max_failed=1)
        results.add((tmp_path / "merged.json").read_bytes())
    assert len(results) == 1


def test_shards_without_masks_are_valid(tmp_path):
    rows = listing(1).iloc[1:2]
    merge_shards(rows, write_shards(tmp_path / "s", rows), tmp_path / "merged.json")
    merged = json.loads((tmp_path / "merged.json").read_text())
    assert (len(merged["images"]), merged["annotations"]) == (1, [])


def edit(path: Path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["images"].pop(0), r"1 images of the listing are missing: 3 '\""),
        (lambda c: c["images"].append({"id": 99, "file_name": "x"}), r"image ids 99"),
        (lambda c: c["images"].append(c["images"][0]), r"'id' 13 is listed twice"),
        (lambda c: c.update(images=[], annotations=[]), r"3 images of the listing are missing"),
        (lambda c: c.pop("images"), r"it has no 'images'"),
        (lambda c: c.pop("info"), r"not a shard of pseudo-masks"),
        (lambda c: c["images"][0].pop("status"), r"image 0 .*'status'"),
        (lambda c: c["images"][0].update(status="fine"), r"image 0 .*'status' .*'fine'"),
        (lambda c: c["images"][0].pop("reason"), r"image 0 .*'reason'"),
        (lambda c: c["images"][1].update(width=None), r"image 1 \(id 14\): 'width'"),
        (lambda c: c["images"][1].update(width=None, height=None), r"image 1 .*'width'"),
        (lambda c: c["images"][1].update(height="six"), r"image 1 .*'height' .* not 'six'"),
        (lambda c: c.update(annotations=[7]), r"annotation 0: .* not 7"),
        (lambda c: c["annotations"][0].update(segmentation=[]), r"annotation 0 .*'segmentation'"),
        (lambda c: c["annotations"][0].pop("score"), r"annotation 0 .*'score'"),
        (lambda c: c["annotations"][0].update(scor=1), r"annotation 0 .*keys .*'scor'"),
        (lambda c: c["annotations"][0].pop("crf_success"), r"annotation 0 .*'crf_success'"),
        (
            lambda c: c["annotations"][0]["segmentation"].update(counts=[48]),
            r"annotation 0 .*'area'",
        ),
        (lambda c: c["images"][0].update(file_name="b"), r"image 13 is 'b', but .*other"),
        (lambda c: c.update(annotations=c["annotations"][2:]), r"the masks of 4 '\""),
        (lambda c: c.update(annotations=c["annotations"][:2]), r"the masks of 5 '\""),
        (lambda c: c["annotations"].reverse(), r"the masks of 4 '\""),
        (lambda c: c["annotations"].append(c["annotations"][0]), r"a mask of image 14"),
        (lambda c: c["annotations"][0].update(image_id=99), r"'image_id' is 99"),
        (lambda c: c["annotations"][0].update(image_id=13), r"a mask of 3 '\".* none was found"),
        (lambda c: c["info"].update(tau_m=0.3), r"tau_m: 0\.3"),
    ],
)
def test_a_wrong_shard_is_named_and_nothing_written(tmp_path, change, message):
    rows = listing(3)
    paths = write_shards(tmp_path / "shards", rows)
    edit(paths[1], change)
    with pytest.raises(DataError, match=rf"1\.json: .*{message}.*delete"):
        merge_shards(rows, paths, tmp_path / "merged.json", max_failed=1)
    assert not (tmp_path / "merged.json").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda mask: mask["segmentation"].update(size=[8, 6]),
        lambda mask: mask["segmentation"].update(size=[6, 9]),
        lambda mask: mask["segmentation"].update(counts=mask["segmentation"]["counts"][:-1]),
        lambda mask: mask["segmentation"].update(counts=mask["segmentation"]["counts"] + "1"),
        lambda mask: mask["segmentation"].update(counts=""),
        lambda mask: mask["segmentation"].update(counts="~~"),
        lambda mask: mask["segmentation"].update(counts="ünï"),
        lambda mask: mask.update(area=mask["area"] + 1),
    ],
)
def test_a_mask_that_does_not_decode_to_its_image_is_named(tmp_path, change):
    rows = listing(2)
    paths = write_shards(tmp_path / "shards", rows)
    edit(paths[1], lambda content: change(content["annotations"][-1]))
    with pytest.raises(DataError, match=r"1\.json: annotation 5 \(image 17\): .*delete"):
        merge_shards(rows, paths, tmp_path / "merged.json", max_failed=1)
    assert not (tmp_path / "merged.json").exists()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_masks(tmp_path, monkeypatch):
    monkeypatch.setattr("cuvler.coco.stream._CHUNK", 2**12)
    rows = listing(1).iloc[[0]]
    (path,) = write_shards(tmp_path / "shards", rows)
    peaks = []
    for repeats in (3000, 3000, 12000):  # the first compiles and imports
        content = json.loads(path.read_text())
        content["annotations"] = content["annotations"][:1] * repeats
        path.write_text(json.dumps(content))
        del content
        tracemalloc.start()
        merge_shards(rows, [path], tmp_path / "merged.json")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert path.stat().st_size > 1_000_000
    assert peaks[2] < 1.1 * peaks[1] < 500_000


def test_left_out_images_are_logged_with_their_reason(tmp_path, caplog):
    rows = listing(2)
    merge_shards(rows, write_shards(tmp_path / "s", rows), tmp_path / "m.json", max_failed=1)
    assert [record.getMessage() for record in caplog.records] == [
        "left out: 3 '\".jpg (unreadable: out of luck)",
        "left out: 6 '\".jpg (eigensolver_failed: out of luck)",
    ]


def test_a_first_shard_of_another_format_is_named(tmp_path):
    rows = listing(2)
    paths = write_shards(tmp_path / "shards", rows)
    paths[0].write_text("[]")
    with pytest.raises(DataError, match=r"0\.json: COCO results"):
        merge_shards(rows, paths, tmp_path / "merged.json")


def test_a_truncated_shard_is_named(tmp_path):
    rows = listing(2)
    paths = write_shards(tmp_path / "shards", rows)
    paths[1].write_text(paths[1].read_text()[:-50])
    with pytest.raises(DataError, match=r"1\.json: not valid COCO json"):
        merge_shards(rows, paths, tmp_path / "merged.json")


def test_a_missing_shard_is_named(tmp_path):
    rows = listing(2)
    paths = write_shards(tmp_path / "shards", rows)
    with pytest.raises(DataError, match=r"1 shard files, .* 2 shards"):
        merge_shards(rows, paths[:1], tmp_path / "merged.json")


def test_too_many_failures_stop_the_merge_and_are_named(tmp_path):
    rows = listing(2)
    paths = write_shards(tmp_path / "shards", rows)
    with pytest.raises(DataError, match=r"2 of 8.*3 '\"\.jpg \(unreadable\).*max_failed|2 of 8"):
        merge_shards(rows, paths, tmp_path / "merged.json", max_failed=0.24)
    assert not (tmp_path / "merged.json").exists()
