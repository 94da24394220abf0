"""Training data: a COCO json and its images as detectron2's batches.

Batch number k is a function of the seed, the annotations and k alone: it does not depend on the
number of data-loading processes, and a resumed training goes on with the batches it would have
seen.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.structures import BitMasks, Boxes, Instances
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from torch.utils.data import DataLoader, Dataset, Sampler

from cuvler import masks as rle_masks
from cuvler.detector.copy_paste import (
    Sample,
    bounding_boxes,
    copy_paste_batch,
    resize_sample,
)
from cuvler.detector.records import Record, Records
from cuvler.errors import DataError, ImageError
from cuvler.images import open_image

Batch = list[dict[str, Any]]


def resized_shape(height: int, width: int, shortest: int, longest: int) -> tuple[int, int]:
    """Give (height, width) scaled to a shortest side, unless the longest would exceed its limit."""
    scale = min(shortest / min(height, width), longest / max(height, width))
    # A side may come out as nothing where an image is a thousand times longer than wide.
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def load_sample(record: Record) -> Sample:
    """Read a record's image and decode its masks.

    Raises:
        DataError: the image cannot be read, or has another size than the annotations say.
    """
    name = record["file_name"]
    try:
        image = np.asarray(open_image(name))
    except ImageError as error:
        # Only exceptions with a single argument survive the way out of a data-loading process.
        raise DataError(f"{error} (the annotations name it)") from error
    height, width = record["height"], record["width"]
    if image.shape[:2] != (height, width):
        found = f"{image.shape[1]} x {image.shape[0]}"
        raise DataError(f"{name}: is {found} pixels, its annotations say {width} x {height}")
    masks = np.zeros((len(record["instances"]), height, width), dtype=bool)
    for mask, (segmentation, _, _) in zip(masks, record["instances"], strict=True):
        mask[:] = _decode(segmentation, height, width)
    return Sample(
        image,
        masks,
        np.array([label for _, label, _ in record["instances"]], dtype=np.int64),
        np.array([score for _, _, score in record["instances"]], dtype=np.float32),
    )


def _decode(segmentation: Any, height: int, width: int) -> NDArray[np.bool_]:
    if isinstance(segmentation, dict) and isinstance(segmentation["counts"], str):
        return rle_masks.decode(segmentation)  # type: ignore[arg-type]
    rles = coco_mask.frPyObjects(segmentation, height, width)
    merged = rles if isinstance(rles, dict) else coco_mask.merge(rles)
    decoded: NDArray[np.bool_] = coco_mask.decode(merged).astype(bool)
    return decoded


def augment(sample: Sample, cfg: CfgNode, rng: np.random.Generator) -> Sample:
    """Resize to a shortest side drawn from the config's, and flip with probability 1/2."""
    shortest = int(rng.choice(cfg.INPUT.MIN_SIZE_TRAIN))
    height, width = sample.image.shape[:2]
    sample = resize_sample(
        sample, *resized_shape(height, width, shortest, cfg.INPUT.MAX_SIZE_TRAIN)
    )
    if cfg.INPUT.RANDOM_FLIP == "horizontal" and rng.random() < 0.5:
        flipped = np.ascontiguousarray(sample.image[:, ::-1])
        masks = np.ascontiguousarray(sample.masks[:, :, ::-1])
        sample = Sample(flipped, masks, sample.classes, sample.scores)
    return sample.without_empty()


def to_detectron2(sample: Sample, record: Record) -> dict[str, Any]:
    """Give the dict detectron2's models train on; boxes are those of the masks."""
    instances = Instances(sample.image.shape[:2])
    instances.gt_masks = BitMasks(torch.from_numpy(np.ascontiguousarray(sample.masks)))
    boxes = bounding_boxes(sample.masks).astype(np.float32)
    instances.gt_boxes = Boxes(torch.from_numpy(boxes))
    instances.gt_classes = torch.from_numpy(sample.classes)
    instances.gt_scores = torch.from_numpy(sample.scores)
    return {
        "image": torch.from_numpy(np.ascontiguousarray(sample.image.transpose(2, 0, 1))),
        "instances": instances,
        "file_name": record["file_name"],
        "image_id": record["image_id"],
    }


class BatchStream(Sampler[tuple[int, list[int]]]):
    """Endless batches, (number, image indices), of images that are all wide or all high.

    Every epoch is a new permutation. Of the stream's batches process r of n takes numbers
    r, r + n, r + 2n, ...

    Args:
        wide: (N,) bool, which images are wider than high.
        size: images in a batch, of one process.
        seed: of the permutations.
        start: iterations already done.
        rank: this process.
        world: the number of processes.
    """

    def __init__(
        self,
        wide: NDArray[np.bool_],
        size: int,
        *,
        seed: int,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.wide = wide
        self.size = size
        self.seed = seed
        self.first = start * world + rank
        self.step = world

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        """Start from the first batch of this process."""
        return itertools.islice(enumerate(self._batches()), self.first, None, self.step)

    def _batches(self) -> Iterator[list[int]]:
        waiting: tuple[list[int], list[int]] = ([], [])
        for epoch in itertools.count():
            permutation = np.random.default_rng([self.seed, epoch]).permutation(len(self.wide))
            for index in permutation.tolist():
                group = waiting[int(self.wide[index])]
                group.append(index)
                if len(group) == self.size:
                    yield group.copy()
                    group.clear()


class TrainingBatches(Dataset[Batch]):
    """Loads, augments and copy-pastes the images of a batch."""

    def __init__(self, records: Sequence[Record], cfg: CfgNode, seed: int) -> None:
        self.records = records
        self.cfg = cfg
        self.seed = seed

    def __getitem__(self, key: tuple[int, list[int]]) -> Batch:
        """Load the batch ``(number, image indices)``."""
        number, indices = key
        # The third word keeps this stream of random numbers apart from the permutations'.
        rng = np.random.default_rng([self.seed, number, 1])
        records = [self.records[index] for index in indices]
        samples = [augment(load_sample(record), self.cfg, rng) for record in records]
        options = self.cfg.INPUT.COPY_PASTE
        if options.ENABLED:
            samples = copy_paste_batch(
                samples,
                rng,
                scale=tuple(options.SCALE),
                random_count=options.RANDOM_COUNT,
                max_cover=options.MAX_COVER,
            )
        return [to_detectron2(s, r) for s, r in zip(samples, records, strict=True)]


def training_loader(
    records: Records,
    cfg: CfgNode,
    *,
    seed: int,
    start: int = 0,
    rank: int = 0,
    world: int = 1,
) -> DataLoader[Batch]:
    """Build the loader of one training process; it never ends.

    Args:
        records: see :class:`cuvler.detector.records.Annotations`.
        cfg: gives batch, sizes, copy-paste and ``DATALOADER.NUM_WORKERS``.
        seed: of everything drawn.
        start: iterations already done, where training goes on.
        rank: this process.
        world: the number of processes.
    """
    stream = BatchStream(
        records.wide,
        cfg.SOLVER.IMS_PER_BATCH // world,
        seed=seed,
        start=start,
        rank=rank,
        world=world,
    )
    return DataLoader(
        TrainingBatches(records, cfg, seed),
        batch_size=None,
        sampler=stream,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        collate_fn=_as_it_is,
        # Its own: the loader's start must not move the training's random numbers.
        generator=torch.Generator().manual_seed(seed),
        worker_init_fn=_one_thread,
    )


def _as_it_is(batch: Batch) -> Batch:
    return batch


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)
