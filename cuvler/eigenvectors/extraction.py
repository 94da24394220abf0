"""Extract the eigenvectors of a shard's images with one backbone, and write them to a file."""

import logging
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cuvler.ahead import map_ahead
from cuvler.devices import Handed, Stream, gpu_memory, named_out_of_memory, on_device
from cuvler.eigenvectors.backbones import RESAMPLING
from cuvler.eigenvectors.features import Backbone
from cuvler.eigenvectors.merge_tree import MergeTrees
from cuvler.eigenvectors.needs import Need
from cuvler.eigenvectors.normalized_cut import Eigenpairs, SolverStatus
from cuvler.eigenvectors.store import STATUSES, ShardEigenvectors, write_eigenvectors
from cuvler.errors import ImageError
from cuvler.files import StrPath
from cuvler.image_access import image_path
from cuvler.image_status import ImageStatus
from cuvler.images import Size, open_resized
from cuvler.listing import listed_images, listing_sha256
from cuvler.loading import LoaderDiedError, noticing_dead_loaders
from cuvler.progress import Progress

logger = logging.getLogger(__name__)


# Batches computed while the eigenvectors of another are: one that is done, one in the making.
_AHEAD = 2


@dataclass(frozen=True)
class Prepared:
    """One image from the data loader; ``tensor`` is None unless ``status`` is ``ok``."""

    row: int
    status: ImageStatus
    tensor: Tensor | None


@dataclass(frozen=True)
class Batch:
    """Images from the data loader.

    Attributes:
        rows: rows of the m images that could be opened.
        images: (m, ...), what the backbone prepared of these.
        unopened: statuses of the others, by row.
    """

    rows: list[int]
    images: Tensor
    unopened: dict[int, ImageStatus]

    @classmethod
    def of(cls, images: list[Prepared]) -> Self:
        """Stack images; in the loader's processes, which so pass one tensor and not many."""
        opened = {image.row: image.tensor for image in images if image.tensor is not None}
        stacked = torch.stack(list(opened.values())) if opened else torch.empty(0)
        unopened = {image.row: image.status for image in images if image.row not in opened}
        return cls(list(opened), stacked, unopened)

    def __len__(self) -> int:
        return len(self.rows) + len(self.unopened)


def extract_shard(
    listing: pd.DataFrame,
    image_root: StrPath,
    backbone: Backbone,
    output: StrPath,
    *,
    need: Need,
    tau: float = 0.15,
    eps: float = 1e-5,
    batch_size: int = 0,
    workers: int = 0,
) -> ShardEigenvectors:
    """Extract the eigenvectors of a shard's images and write them to one file.

    The file has every image of the shard. Images that are missing or unreadable, or that have no
    eigenvector within the residual bound, have a status that says so. The file is written at the
    end: an interrupted extraction leaves none.

    Args:
        listing: the shard's rows, from :func:`cuvler.listing.read_listing`.
        image_root: folder that file names are relative to.
        backbone: the loaded backbone.
        output: the ``.zarr.zip`` file to write.
        need: the vectors to compute.
        tau: cosine similarity above which two patches are connected.
        eps: edge weight of patches that are not connected.
        batch_size: images per forward pass; 0 chooses it by the device's memory.
        workers: image-decoding processes; 0 decodes in the main process.
    """
    batch_size = batch_size or default_batch_size(backbone)
    image_id = listing["image_id"].to_numpy(dtype=np.int64)
    shard = ShardEigenvectors.empty(image_id, need.k, backbone.spec.grid)
    images = [
        (image_path(image_root, image.file_name), image.size) for image in listed_images(listing)
    ]
    with Progress(len(images)) as progress:
        solve = partial(need.solve, grid=backbone.spec.grid, tau=tau, eps=eps)
        extraction = _Extraction(shard, backbone, solve, progress)
        with named_out_of_memory(batch_size):
            extraction.run(_Images(images, backbone), batch_size, workers)
    graph = {"problem": need.problem, "k": need.k, **need.options()}
    if need.has_graph:
        graph |= {"tau": tau, "eps": eps}
    attributes = _attributes(backbone, graph, batch_size)
    write_eigenvectors(output, shard, attributes | {"images_sha256": listing_sha256(listing)})
    counts = [f"{(shard.status == code).sum()} {word}" for code, word in enumerate(STATUSES)]
    logger.info("%s: %s; %d solved densely", output, ", ".join(counts), shard.dense.sum())
    return shard


def default_batch_size(backbone: Backbone) -> int:
    """Return a batch size that fits the device's memory; deterministic for each machine."""
    if backbone.device.type != "cuda":
        return 4
    # At the peak, about twenty float32 activations of 768 channels per patch are in memory.
    per_image = 20 * 4 * 768 * int(np.prod(backbone.spec.grid))
    return max(1, min(32, int(0.4 * gpu_memory(backbone.device)) // per_image))


def _attributes(backbone: Backbone, graph: dict[str, Any], batch_size: int) -> dict[str, Any]:
    return {
        **backbone.spec.settings(),
        **graph,
        "weights_sha256": backbone.weights_sha256,
        "device": backbone.device.type,
        "precision": backbone.precision,
        "batch_size": batch_size,
        "versions": {
            name: version(name) for name in ("cuvler", "numpy", "pillow", "timm", "torch")
        },
    }


class _Images(Dataset[Prepared]):
    """Dataset that opens and prepares images; failures become statuses."""

    def __init__(
        self,
        images: list[tuple[Path, Size | None]],
        backbone: Backbone,
    ) -> None:
        self._images = images
        self._prepare = backbone.prepare
        self._size = backbone.spec.size

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, row: int) -> Prepared:
        path, size = self._images[row]
        try:
            # Resized here, because a large JPEG need not be decoded at its full size for it.
            image, _ = open_resized(path, lambda _: (self._size, self._size), RESAMPLING, size)
        except ImageError as error:
            logger.warning("%s", error)
            return Prepared(row, error.status, None)
        return Prepared(row, ImageStatus.OK, self._prepare(image))


class _Extraction:
    """Fills in a shard.

    On a GPU, a thread copies images and starts the forward passes of the next batches, in streams
    of their own: the GPU computes them while the solver waits for its products or the CPU solves
    the small dense problems.
    """

    def __init__(
        self,
        shard: ShardEigenvectors,
        backbone: Backbone,
        solve: Callable[[Tensor], Eigenpairs[Tensor] | MergeTrees],
        progress: Progress,
    ) -> None:
        self._shard = shard
        self._backbone = backbone
        self._solve = solve
        self._progress = progress
        self._done = 0
        self._copying = Stream(backbone.device)
        self._forward = Stream(backbone.device)
        self._solving = Stream(backbone.device, urgent=True)

    def run(self, images: _Images, batch_size: int, workers: int) -> None:
        """Extract all images, in batches that do not depend on the number of workers.

        If a worker dies, most probably for want of memory, one worker opens the remaining images.

        Raises:
            LoaderDiedError: this one has died too.
        """
        try:
            self._go_on(images, batch_size, workers)
        except LoaderDiedError as error:
            if workers < 2:
                raise
            logger.warning("%s. After %d images, one process opens the others", error, self._done)
            self._go_on(images, batch_size, 1)

    def _go_on(self, images: _Images, batch_size: int, workers: int) -> None:
        rows = range(self._done, len(images))
        loader = DataLoader(
            images, sampler=rows, batch_size=batch_size, num_workers=workers, collate_fn=Batch.of
        )
        ahead = 0 if self._backbone.device.type == "cpu" else _AHEAD
        with (
            noticing_dead_loaders(),
            closing(map_ahead(self._features, loader, ahead)) as computed,
            self._solving.active(),
        ):
            for batch, features in computed:
                if features is not None:
                    _enter_pairs(self._shard, batch.rows, self._solve(features.take()))
                for row, status in batch.unopened.items():
                    self._shard.status[row] = STATUSES.index(status)
                self._done += len(batch)
                self._progress.update(len(batch))

    def _features(self, batch: Batch) -> tuple[Batch, Handed | None]:
        """Start computing the features of a batch's ``rows``; None without any."""
        if not batch.rows:
            return batch, None
        device = self._backbone.device
        with self._copying.active():
            images = self._copying.hand_over(on_device(batch.images, device))
        with self._forward.active():
            features = self._backbone.features(images.take())
            return batch, self._forward.hand_over(features)


def _enter_pairs(
    shard: ShardEigenvectors, rows: list[int], pairs: Eigenpairs[Tensor] | MergeTrees
) -> None:
    """Store the eigenvectors of a shard's rows, and whether they were found."""
    shape = (len(rows), *shard.eigenvectors.shape[1:])
    shard.eigenvectors[rows] = pairs.vectors.cpu().numpy().reshape(shape)
    shard.dense[rows] = pairs.status == SolverStatus.DENSE
    failed = np.where(pairs.failed, ImageStatus.EIGENSOLVER_FAILED, ImageStatus.OK)
    shard.status[rows] = [STATUSES.index(ImageStatus(word)) for word in failed]
