"""Training data: detectron2 batches of the images of a COCO json.

Batch k depends only on the seed, the annotations and k. It does not depend on the number of
data-loading processes, and a resumed training gets the batches of an uninterrupted one.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.structures import BitMasks, Boxes, Instances
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask
from torch.utils.data import DataLoader, Dataset, Sampler

from cuvler import masks as rle_masks
from cuvler.decoded_images import DecodedImages
from cuvler.detector.copy_paste import Sample, bounding_boxes, copy_paste_batch
from cuvler.detector.training_file import Instance, Record, Records
from cuvler.errors import DataError, ImageError
from cuvler.images import open_resized

Batch = list[dict[str, Any]]
_T = TypeVar("_T", bound=np.generic)
_BILINEAR = Image.Resampling.BILINEAR
# Memory, in all data-loading processes together, for large photographs decoded at a fraction.
_DECODED_BYTES = 2**29
_PART = 4096
# Boxes of sides up to this length, in pixels, are empty (detectron2's threshold).
_EMPTY_SIDE = 1e-5


def resized_shape(height: int, width: int, shortest: int, longest: int) -> tuple[int, int]:
    """Scale (height, width) to a shortest side, or to a longest side if that would exceed it."""
    scale = min(shortest / min(height, width), longest / max(height, width))
    # A side of a very narrow image may round to zero.
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


@dataclass(frozen=True)
class View:
    """The size an image is resized to, and whether it is then flipped left to right."""

    height: int
    width: int
    flipped: bool = False


def draw_view(record: Record, cfg: CfgNode, rng: np.random.Generator) -> View:
    """Draw the shortest side from the config's sizes, and flip with probability 1/2."""
    shortest = int(rng.choice(cfg.INPUT.MIN_SIZE_TRAIN))
    shape = resized_shape(record["height"], record["width"], shortest, cfg.INPUT.MAX_SIZE_TRAIN)
    return View(*shape, cfg.INPUT.RANDOM_FLIP == "horizontal" and rng.random() < 0.5)


def load_sample(
    record: Record, view: View | None = None, decoded: DecodedImages | None = None
) -> Sample:
    """Load a record's image, masks and boxes in a view; the default is the unchanged image.

    The result equals that of detectron2's ``DatasetMapper`` for the same resize and flip: polygons
    are rasterised afterwards, other masks are resized by nearest neighbour, and the annotations'
    boxes are clipped to the image. Only the pixels of large JPEGs differ, see
    :func:`cuvler.images.open_resized`. The default box is that of the mask. Instances without a
    pixel or with an empty box are dropped.

    Raises:
        DataError: the image cannot be read, or the image or a mask differs in size from the
            annotations.
    """
    view = view or View(record["height"], record["width"])
    image = _read_image(record, view, decoded)
    instances: list[Instance] = record["instances"]
    masks = np.zeros((len(instances), view.height, view.width), dtype=bool)
    for mask, instance in zip(masks, instances, strict=True):
        mask[:] = _view_mask(instance.segmentation, record, view)
    extents = bounding_boxes(masks)
    boxes = _view_boxes(instances, record, view)
    boxes = np.where(np.isnan(boxes), extents, boxes)
    kept = (boxes[:, 2:] - boxes[:, :2] > _EMPTY_SIDE).all(axis=1) & (extents[:, 2] > 0)
    sample = Sample(
        np.ascontiguousarray(_flip(np.asarray(image), view)),
        masks,
        np.array([instance.label for instance in instances], dtype=np.int64),
        np.array([instance.score for instance in instances], dtype=np.float32),
        boxes.astype(np.float32),
    )
    return sample if kept.all() else sample.select(kept)


def _read_image(record: Record, view: View, decoded: DecodedImages | None) -> Image.Image:
    size = (record["width"], record["height"])
    wanted = (view.width, view.height)
    try:
        return open_resized(record["file_name"], lambda _: wanted, _BILINEAR, size, decoded)[0]
    except ImageError as error:
        # Only exceptions with a single argument can be re-raised from a data-loading process.
        raise DataError(f"{error} (listed in the annotations)") from error


def _view_mask(segmentation: Any, record: Record, view: View) -> NDArray[np.bool_]:
    if isinstance(segmentation, list):
        # Fewer than three points have no area, and pycocotools reads two points as a box.
        polygons = [np.array(one, dtype=np.float64) for one in segmentation if len(one) >= 6]
        return _rasterise([_view_points(one, record, view) for one in polygons], view)
    height, width = segmentation["size"]
    if (height, width) != (record["height"], record["width"]):
        raise DataError(
            f"{record['file_name']}: a mask of {width} x {height} pixels, but the "
            f"annotations state {record['width']} x {record['height']} for the image"
        )
    return _flip(rle_masks.decode_resized(segmentation, view.height, view.width), view)


def _rasterise(polygons: list[NDArray[np.float64]], view: View) -> NDArray[np.bool_]:
    if not polygons:
        return np.zeros((view.height, view.width), dtype=bool)
    rles = coco_mask.frPyObjects([one.tolist() for one in polygons], view.height, view.width)
    return rle_masks.decode(coco_mask.merge(rles))


def _view_boxes(instances: list[Instance], record: Record, view: View) -> NDArray[np.float64]:
    """Return (N, 4) boxes x0 y0 x1 y1, clipped to the view; NaN if an annotation has no box."""
    boxes = np.array([one.bbox or (np.nan,) * 4 for one in instances]).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    boxes = _view_points(boxes, record, view)
    if view.flipped:
        boxes[:, [0, 2]] = boxes[:, [2, 0]]
    return boxes.clip(0, [view.width, view.height] * 2)


def _view_points(points: NDArray[np.float64], record: Record, view: View) -> NDArray[np.float64]:
    """Scale and flip points given as x y x y ... along the last axis."""
    viewed = points.copy()
    viewed[..., 0::2] *= view.width / record["width"]
    viewed[..., 1::2] *= view.height / record["height"]
    if view.flipped:
        viewed[..., 0::2] = view.width - viewed[..., 0::2]
    return viewed


def _flip(array: NDArray[_T], view: View) -> NDArray[_T]:
    return array[:, ::-1] if view.flipped else array


def to_detectron2(sample: Sample, record: Record) -> dict[str, Any]:
    """Convert a sample to the input of a detectron2 model in training."""
    instances = Instances(sample.image.shape[:2])
    instances.gt_masks = BitMasks(torch.from_numpy(np.ascontiguousarray(sample.masks)))
    boxes = bounding_boxes(sample.masks) if sample.boxes is None else sample.boxes
    instances.gt_boxes = Boxes(torch.from_numpy(boxes.astype(np.float32)))
    instances.gt_classes = torch.from_numpy(sample.classes)
    instances.gt_scores = torch.from_numpy(sample.scores)
    return {
        "image": torch.from_numpy(np.ascontiguousarray(sample.image.transpose(2, 0, 1))),
        "instances": instances,
        "file_name": record["file_name"],
        "image_id": record["image_id"],
    }


class BatchStream(Sampler[tuple[int, list[int]]]):
    """Endless batches (number, image indices) of images that are all wide or all high.

    Every epoch is a new permutation. Process r of n takes the batches r, r + n, r + 2n, ...

    Args:
        wide: (N,) bool, true for images wider than high.
        size: number of images per batch and process.
        seed: seed of the permutations.
        start: number of iterations already done.
        stop: number of iterations in all; None is endless.
        rank: rank of this process.
        world: the number of processes.
    """

    def __init__(
        self,
        wide: NDArray[np.bool_],
        size: int,
        *,
        seed: int,
        start: int = 0,
        stop: int | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.wide = wide
        self.size = size
        self.seed = seed
        self.first = start * world + rank
        self.end = None if stop is None else stop * world
        self.step = world

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        """Iterate over the batches of this process, from the first."""
        return itertools.islice(enumerate(self._batches()), self.first, self.end, self.step)

    def _batches(self) -> Iterator[list[int]]:
        waiting: tuple[list[int], list[int]] = ([], [])
        for epoch in itertools.count():
            permutation = np.random.default_rng([self.seed, epoch]).permutation(len(self.wide))
            # In parts: a list of all indices takes 40 bytes per image for the whole epoch.
            parts = (
                permutation[at : at + _PART].tolist() for at in range(0, len(self.wide), _PART)
            )
            for index in itertools.chain.from_iterable(parts):
                group = waiting[int(self.wide[index])]
                group.append(index)
                if len(group) == self.size:
                    yield group.copy()
                    group.clear()


class TrainingBatches(Dataset[Batch]):
    """Load the images of a batch, augment them and apply copy-paste."""

    def __init__(self, records: Sequence[Record], cfg: CfgNode, seed: int) -> None:
        self.records = records
        self.cfg = cfg
        self.seed = seed
        self.decoded = DecodedImages(_DECODED_BYTES // max(1, cfg.DATALOADER.NUM_WORKERS))

    def __getitem__(self, key: tuple[int, list[int]]) -> Batch:
        """Load the batch ``(number, image indices)``."""
        number, indices = key
        # The third word makes this stream differ from the permutations'.
        rng = np.random.default_rng([self.seed, number, 1])
        records = [self.records[index] for index in indices]
        samples = [
            load_sample(record, draw_view(record, self.cfg, rng), self.decoded)
            for record in records
        ]
        # Drawn last, so that the views do not depend on whether copy-paste is applied.
        options = self.cfg.INPUT.COPY_PASTE
        if options.ENABLED and rng.random() < options.RATE:
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
    stop: int | None = None,
    rank: int = 0,
    world: int = 1,
) -> DataLoader[Batch]:
    """Build the loader of one training process.

    Args:
        records: of the training images.
        cfg: provides batch size, image sizes, copy-paste and ``DATALOADER.NUM_WORKERS``.
        seed: seed of all random numbers.
        start: number of iterations already done.
        stop: number of iterations in all, after which nothing is loaded; None is endless.
        rank: rank of this process.
        world: the number of processes.
    """
    stream = BatchStream(
        records.wide,
        cfg.SOLVER.IMS_PER_BATCH // world,
        seed=seed,
        start=start,
        stop=stop,
        rank=rank,
        world=world,
    )
    return DataLoader(
        TrainingBatches(records, cfg, seed),
        batch_size=None,
        sampler=stream,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        collate_fn=_unchanged,
        # Its own generator: starting the loader must not advance the training's.
        generator=torch.Generator().manual_seed(seed),
        worker_init_fn=_one_thread,
    )


def _unchanged(batch: Batch) -> Batch:
    return batch


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)
    # 0, not 1: with 1, OpenCV waits for the parent's threads, which a forked process lacks.
    cv2.setNumThreads(0)
