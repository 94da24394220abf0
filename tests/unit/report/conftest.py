import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cuvler.eigenvectors.store import STATUSES, ShardEigenvectors, write_eigenvectors
from cuvler.evaluation import evaluate_all
from cuvler.masks import encode, geometry
from cuvler.report import Inputs, make_report

SIZES = {2: (60, 40), 3: (40, 60), 5: (60, 40), 8: (50, 50), 9: (60, 40)}  # width, height


def square(image_id, left, top, side, **more):
    width, height = SIZES[image_id]
    mask = np.zeros((height, width), bool)
    mask[top : top + side, left : left + side] = True
    rle = encode(mask)
    return {"image_id": image_id, "category_id": 1, "segmentation": rle, **geometry(rle), **more}


@dataclass
class Trial:
    """A folder with everything a run leaves behind, and a way to write more into it."""

    folder: Path
    sizes = SIZES
    square = staticmethod(square)

    def write(self, name, content):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path


def write_images(trial):
    records = []
    for image_id, (width, height) in SIZES.items():
        records.append(
            {"id": image_id, "file_name": f"{image_id}.png", "width": width, "height": height}
        )
        # Smooth, so that WebP keeps it well.
        across, down = np.linspace(0, 200, width), np.linspace(0, 200, height)
        pixels = np.zeros((height, width, 3), np.uint8)
        pixels[..., 0], pixels[..., 1] = across, down[:, None]
        (trial.folder / "images").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(trial.folder / f"images/{image_id}.png")
    return records


def bump():
    """An eigenvector of 6 x 8 patches with one object in the middle."""
    rows, columns = np.mgrid[:6, :8]
    return np.exp(-((rows - 2.5) ** 2 + (columns - 3.5) ** 2) / 8)


def write_eigenvector_shards(trial):
    ids = np.array(sorted(SIZES), dtype=np.int64)
    for shard, part in enumerate((ids[:2], ids[2:])):
        content = ShardEigenvectors.empty(part, 1, (6, 8))
        content.eigenvectors[:] = bump()
        content.status[:] = STATUSES.index("ok")
        path = trial.folder / f"eigenvectors/pixels_p8/{shard}.zarr.zip"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_eigenvectors(path, content, {"backbone": "pixels_p8"})
    return trial.folder / "eigenvectors/pixels_p8"


SCORES = [json.dumps({"iteration": n, "bbox/AP": n / 4, "segm/AP": n / 5}) for n in (49, 99)]


def loss_line(iteration, total):
    parts = {"loss_cls_stage0": 0.2, "loss_cls_stage1": 0.3, "loss_mask": 0.1, "loss_rpn_cls": 0.1}
    return json.dumps({"iteration": iteration, "total_loss": total, **parts, "skipped_batches": 2})


@pytest.fixture
def trial(tmp_path):
    return Trial(tmp_path)


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    """Five images: detections get better from round 0 to 1; one image could not be read.

    Shared by all tests: they must not change the files.
    """
    trial = Trial(tmp_path_factory.mktemp("run"))
    images = write_images(trial)
    objects = [
        square(image_id, 10, 10, 20, id=n, iscrowd=0) for n, image_id in enumerate(SIZES, start=1)
    ]
    truth = {"images": images, "categories": [{"id": 1}], "annotations": objects}
    masks = [
        square(i, 8, 8, 18, id=n, score=0.5, cluster_size=4, crf_success=n > 1)
        for n, i in enumerate((2, 3, 8), start=1)
    ]
    annotations = {
        "info": {"method": "votecut", "backbones": ["pixels_p8"], "ks": [2, 3], "tau_m": 0.2},
        "images": images[:4],
        "annotations": masks,
        "excluded": [
            {"id": 9, "file_name": "9.png", "status": "unreadable", "reason": "9.png: truncated"}
        ],
    }
    rounds = [
        [square(i, 10 - shift * n, 10, 20, score=0.9) for n, i in enumerate(SIZES)]
        for shift in (2, 1)
    ]
    metrics = {"votecut": evaluate_all(truth, annotations)}
    metrics |= {f"cuvler_round{n}": evaluate_all(truth, found) for n, found in enumerate(rounds)}
    evaluations = {
        ("demo_val", name): trial.write(f"evaluation/{name}.json", entry)
        for name, entry in metrics.items()
    }
    classes = {"AP-dog": 12.5, "AP-teddy bear": None}
    counts = {"num_images": 5, "num_ground_truth": 5, "num_results": 5}
    learned = {name: {"segm": of["segm"] | classes, **counts} for name, of in metrics.items()}
    for n, found in enumerate(rounds):
        trial.write(f"predictions/round{n}.json", found)
    trial.write(
        "detectors/round0/metrics.json",
        "\n".join([*(loss_line(i, 3 - i / 60) for i in range(19, 100, 20)), *SCORES]),
    )
    Image.new("RGB", (1600, 900), "teal").save(trial.folder / "detectors/round0/augmented.png")
    header = "s\th:m:s\tmax_rss\tcpu_time\n"
    trial.write("benchmarks/detector/round0.tsv", header + "3700.5\t1:01:40\t5120.2\t7200\n")
    trial.write("benchmarks/pseudo_masks/demo/0.tsv", header + "62.1\t0:01:02\t300\t61\n")
    trial.write("benchmarks/pseudo_masks/demo/1.tsv", header + "0.4\t0:00:00\t-\tNA\n")
    return Inputs(
        metrics={"demo_val": trial.write("metrics.json", metrics)},
        evaluations=evaluations,
        fine_tuning={"demo_val": trial.write("fine_tuning.json", learned)},
        image_roots={"demo_val": trial.folder / "images"},
        ground_truth={"demo_val": trial.write("truth.json", truth)},
        eigenvectors={("demo_val", "votecut", "pixels_p8"): write_eigenvector_shards(trial)},
        annotations={("demo_val", "votecut"): trial.write("votecut.json", annotations)},
        predictions={
            ("demo_val", f"cuvler_round{n}"): trial.folder / f"predictions/round{n}.json"
            for n in (0, 1)
        },
        detectors={"cuvler_round0": trial.folder / "detectors/round0"},
        benchmarks=trial.folder / "benchmarks",
        gpus={"detector": 8},
        config="train: demo_train\n",
        images=3,
    )


@pytest.fixture(scope="session")
def page(inputs):
    """The page of all inputs."""
    return make_report(inputs)
