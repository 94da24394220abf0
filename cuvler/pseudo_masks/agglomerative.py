"""Agglomerative grouping: neighbouring patches merge, and the regions of every grain compete."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import scipy
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from cuvler.eigenvectors.grains import grains, next_merges
from cuvler.eigenvectors.needs import MergeTree
from cuvler.pseudo_masks.clusters import overlaps
from cuvler.pseudo_masks.crf import Crf, CrfSetting
from cuvler.pseudo_masks.methods import Backbones, Distinct, Method, NoRepeats
from cuvler.pseudo_masks.proposals import is_background, is_noise, resize_nearest
from cuvler.pseudo_masks.record import PseudoMask
from cuvler.pseudo_masks.refinement import refine

THRESHOLDS = (0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
MAX_MASKS = 50
_MAX_IOU = 0.7  # IoU above which a region repeats one of a higher score.


@dataclass(frozen=True, eq=False)
class Region:
    """A region of a grain: its mask on the patch grid (h, w), never empty, and its score."""

    mask: NDArray[np.bool_]
    score: float


def find_regions(tree: NDArray[np.floating], thresholds: Sequence[float]) -> Iterator[Region]:
    """Iterate over the regions of a merge tree that may be objects, each once.

    Regions that cover 2 or more corners of the image, or are smaller than 5 patches in height and
    width, are left out.

    Args:
        tree: (2, h, w), from :func:`cuvler.eigenvectors.merge_tree.merge_tree`.
        thresholds: the similarity of each grain.
    """
    known = set()
    for regions in grains(tree, thresholds):
        merges = next_merges(tree, regions)
        names, numbers = np.unique(regions, return_inverse=True)
        numbers = numbers.reshape(regions.shape)
        sizes = np.bincount(numbers.ravel())
        for number, box in enumerate(scipy.ndimage.find_objects(numbers + 1)):
            # A name can be that of smaller regions in other grains; the size distinguishes them.
            region = names[number], sizes[number]
            if is_noise(box) or region in known:
                continue
            known.add(region)
            mask = numbers == number
            if not is_background(mask):
                yield Region(mask, _score(mask, float(merges[names[number]])))


def _score(mask: NDArray[np.bool_], similarity: float) -> float:
    """Return the score of a region that merges with a neighbour at a similarity, in (0, 1].

    The geometric mean of three factors:
    - contrast, 1 - similarity;
    - compactness, 4 sqrt(area) / contour, which is 1 for squares, times the share of the contour
      that is not at the image's border. Backgrounds have long contours and end at the border;
    - size, the fourth root of the share of the image.
    """
    area = np.count_nonzero(mask)
    inside = np.count_nonzero(mask[1:] != mask[:-1]) + np.count_nonzero(mask[:, 1:] != mask[:, :-1])
    at_border = sum(np.count_nonzero(edge) for edge in (mask[0], mask[-1], mask[:, 0], mask[:, -1]))
    compactness = 4 * area**0.5 * inside / (inside + at_border) ** 2
    return float(((1 - max(similarity, 0)) * compactness * (area / mask.size) ** 0.25) ** (1 / 3))


def rank(
    trees: Mapping[str, NDArray[np.floating]], thresholds: Sequence[float], max_masks: int
) -> list[Region]:
    """Return the best regions of all backbones, best first, on the finest of their grids.

    A region is left out if its IoU with one of a higher score is above 0.7.

    Args:
        trees: backbone -> (2, h, w).
        thresholds: the similarity of each grain.
        max_masks: largest number of regions.
    """
    height = max((tree.shape[1] for tree in trees.values()), default=0)
    width = max((tree.shape[2] for tree in trees.values()), default=0)
    found = [
        Region(resize_nearest(region.mask, height, width), region.score)
        for tree in trees.values()
        for region in find_regions(tree, thresholds)
    ]
    found.sort(key=lambda region: -region.score)
    if not found:
        return []
    repeats = overlaps(np.stack([region.mask for region in found])) > _MAX_IOU
    kept: list[int] = []
    for index in range(len(found)):
        if len(kept) < max_masks and not repeats[index, kept].any():
            kept.append(index)
    return [found[index] for index in kept]


def agglomerate(
    image: Image.Image,
    trees: Mapping[str, NDArray[np.floating]],
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    max_masks: int = MAX_MASKS,
    crf: Crf = "fast",
) -> list[PseudoMask]:
    """Find an image's objects by agglomerative grouping (HASSOD, section 3.1; UniAP).

    Neighbouring regions of patches merge, the most similar ones first. At each threshold, the
    regions so far are candidates: wholes, parts, and objects that touch come apart.

    The papers have no score. Here, a region scores high if it differs from its neighbours, and is
    compact, large and not at the image's border. Scores of different images are comparable.

    Args:
        image: RGB, H x W pixels.
        trees: backbone -> (2, h, w), from :func:`cuvler.eigenvectors.merge_tree.merge_tree`.
        thresholds: similarities below which merging pauses, one for each grain.
        max_masks: largest number of masks.
        crf: implementation of the dense CRF.

    Returns:
        At most ``max_masks`` masks, best first; empty if nothing was found.
    """
    pixels = np.asarray(image.convert("RGB"))
    masks = []
    for region in rank(trees, thresholds, max_masks):
        coarse = resize_nearest(region.mask, *pixels.shape[:2])
        # In an image smaller than the grid, resizing can leave a mask without pixels.
        if not coarse.any():
            continue
        refined = refine(pixels, coarse, crf=crf)
        masks.append(
            PseudoMask(
                mask=coarse if refined is None else refined,
                vote_mask=region.mask,
                score=region.score,
                crf_success=refined is not None,
            )
        )
    return masks


class Agglomerative(Method):
    """Agglomerative grouping (HASSOD, UniAP): neighbouring patches merge while they are similar.

    See :func:`agglomerate`.
    """

    name: ClassVar[str] = "agglomerative"
    rate: ClassVar[tuple[float, str]] = (
        6,
        "measured on one core of an Intel Xeon: 165 ms per image, the CRF of 25 masks included",
    )

    backbones: Annotated[Backbones, Field(description="The backbones of the features.")] = (
        "dino_b8",
    )
    thresholds: Annotated[
        tuple[Annotated[float, Field(gt=-1, lt=1)], ...],
        Distinct,
        NoRepeats,
        Field(
            description="Neighbouring regions merge while the cosine of their features is above "
            "the threshold; one grain for each. HASSOD has 0.4, 0.2 and 0.1, UniAP 0.8 to 0.4."
        ),
    ] = THRESHOLDS
    max_masks: Annotated[int, Field(ge=1, description="Largest number of masks of an image.")] = (
        MAX_MASKS
    )
    crf: CrfSetting = "fast"

    def needs(self) -> dict[str, MergeTree]:
        """Return the merge tree of each backbone's features."""
        return dict.fromkeys(self.backbones, MergeTree())

    def masks(
        self, image: Image.Image, vectors: Mapping[str, NDArray[np.float32]]
    ) -> list[PseudoMask]:
        """Compute an image's masks by :func:`agglomerate`."""
        return agglomerate(
            image, vectors, thresholds=self.thresholds, max_masks=self.max_masks, crf=self.crf
        )

    @property
    def masks_per_image(self) -> float:
        """The number of masks measured with hand-made descriptors, if the setting allows it."""
        return min(self.max_masks, 25)
