import json
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
            image |= {"width": 8, "height": 6} if usable else {"width": None, "height": None}
            images.append(image)
            for size in range(1, 3 if status == "ok" else 1):
                rle = masks.encode(np.tri(6, 8, size, dtype=bool))
                annotation = {"image_id": row.image_id, "segmentation": rle, "score": 1 / size}
                annotations.append(annotation | masks.geometry(rle))
        content = {"info": {"method": "votecut", **(info or {}), "shard": shard}}
        paths.append(folder / f"{shard}.json")
        write_json(paths[-1], content | {"images": images, "annotations": annotations})
    return paths


def test_merged_is_coco_and_accounts_for_every_image(tmp_path):
    rows = listing(3)
    paths = write_shards(tmp_path / "shards", rows)
    statuses = merge_shards(rows, paths, tmp_path / "merged.json", max_failed=0.25)
    assert statuses == {"ok": 5, "no_mask": 1, "unreadable": 1, "eigensolver_failed": 1}
    merged = json.loads((tmp_path / "merged.json").read_text())
    assert [image["id"] for image in merged["images"]] == [10, 11, 12, 14, 15, 17]
    assert [image["id"] for image in merged["excluded"]] == [13, 16]
    assert [annotation["id"] for annotation in merged["annotations"]] == list(range(1, 11))
    coco = COCO(tmp_path / "merged.json")
    for annotation in coco.loadAnns(coco.getAnnIds()):
        assert coco.annToMask(annotation).sum() == annotation["area"]


def test_the_bytes_do_not_depend_on_the_shards(tmp_path):
    results = set()
    for shards in (1, 2, 5, 8):
        rows = listing(shards)
        paths = write_shards(tmp_path / str(shards), rows)
        merge_shards(rows, paths, tmp_path / "merged.json", max_failed=1)
        results.add((tmp_path / "merged.json").read_bytes())
    assert len(results) == 1


def test_no_mask_anywhere_is_still_valid(tmp_path):
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
        (lambda c: c["images"].pop(0), r"1\.json: 1 images of the listing are missing: 3 '\"\.jpg"),
        (lambda c: c["images"].append({"id": 99}), r"1\.json: .*does not have in this shard.*99"),
        (lambda c: c["images"].append(c["images"][0]), r"1\.json: images are listed twice"),
        (lambda c: c.pop("images"), r"1\.json: not a shard of pseudo-masks"),
        (lambda c: c["info"].update(tau_m=0.3), r"1\.json: made with other settings.*tau_m: 0\.3"),
    ],
)
def test_a_wrong_shard_is_named_and_nothing_written(tmp_path, change, message):
    rows = listing(3)
    paths = write_shards(tmp_path / "shards", rows)
    edit(paths[1], change)
    with pytest.raises(DataError, match=message):
        merge_shards(rows, paths, tmp_path / "merged.json", max_failed=1)
    assert not (tmp_path / "merged.json").exists()


def test_a_first_shard_that_is_something_else_is_named(tmp_path):
    rows = listing(2)
    paths = write_shards(tmp_path / "shards", rows)
    paths[0].write_text("[]")
    with pytest.raises(DataError, match=r"0\.json: not a shard of pseudo-masks"):
        merge_shards(rows, paths, tmp_path / "merged.json")


def test_a_cut_off_shard_is_named(tmp_path):
    rows = listing(2)
    paths = write_shards(tmp_path / "shards", rows)
    paths[1].write_text(paths[1].read_text()[:-50])
    with pytest.raises(DataError, match=r"1\.json: not valid JSON.*delete"):
        merge_shards(rows, paths, tmp_path / "merged.json")


def test_a_missing_shard_is_named(tmp_path):
    rows = listing(2)
    paths = write_shards(tmp_path / "shards", rows)
    with pytest.raises(DataError, match="1 shard files were given, but the listing has 2"):
        merge_shards(rows, paths[:1], tmp_path / "merged.json")


def test_too_many_failures_stop_the_merge_and_are_named(tmp_path):
    rows = listing(2)
    paths = write_shards(tmp_path / "shards", rows)
    with pytest.raises(DataError, match=r"2 of 8.*3 '\"\.jpg \(unreadable\).*max_failed|2 of 8"):
        merge_shards(rows, paths, tmp_path / "merged.json", max_failed=0.24)
    assert not (tmp_path / "merged.json").exists()
