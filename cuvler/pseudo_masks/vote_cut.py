"""VoteCut: self-supervised ViTs vote on the objects of an image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from cuvler.eigenvectors.needs import Eigenvectors
from cuvler.pseudo_masks.clusters import cluster, overlaps
from cuvler.pseudo_masks.crf import Crf, CrfSetting
from cuvler.pseudo_masks.methods import Backbones, Distinct, Method, NoRepeats
from cuvler.pseudo_masks.proposals import propose, resize_nearest
from cuvler.pseudo_masks.record import PseudoMask
from cuvler.pseudo_masks.refinement import refine


@dataclass(frozen=True, eq=False)
class Vote:
    """The mask of a cluster.

    Attributes:
        mask: (h, w) bool, never empty.
        size: number of proposals in the cluster.
    """

    mask: NDArray[np.bool_]
    size: int


def vote(proposals: NDArray[np.bool_], *, tau_m: float = 0.2, max_masks: int = 10) -> list[Vote]:
    """Cluster proposals and compute the masks of the first clusters.

    A pixel belongs to a mask if more than ``tau_m`` of the cluster's members contain it.

    Args:
        proposals: (n, h, w) bool, none empty.
        tau_m: fraction of the members, in [0, 1).
        max_masks: number of clusters used, in the order in which they are found.

    Returns:
        At most ``max_masks`` votes, largest cluster first.
    """
    votes = []
    for members in cluster(overlaps(proposals))[:max_masks]:
        count = np.count_nonzero(proposals[members], axis=0)
        votes.append(Vote(count > tau_m * len(members), len(members)))
    # With a high tau_m no pixel may reach the threshold.
    return sorted((v for v in votes if v.mask.any()), key=lambda v: -v.size)


def votecut(
    image: Image.Image,
    eigenvectors: Mapping[str, NDArray[np.floating]],
    *,
    ks: Sequence[int] = (2, 3),
    tau_m: float = 0.2,
    max_masks: int = 10,
    crf: Crf = "fast",
) -> list[PseudoMask]:
    """Find an image's objects by the vote of several backbones (CuVLER, section 3.1).

    Args:
        image: RGB, H x W pixels.
        eigenvectors: backbone -> (h, w), the normalized cut's eigenvector of the second smallest
            eigenvalue as a map, or (k, h, w), the maps of k eigenvectors from that one on; each
            map votes. Maps that are constant or not finite are skipped. The order of the
            backbones only breaks ties.
        ks: numbers of clusters for k-means, each at least 2.
        tau_m: fraction of a cluster's proposals that must be exceeded for a pixel to belong to
            the mask.
        max_masks: largest number of masks. Clusters are found by their number of neighbours, so
            the first ``max_masks`` are not always the largest.
        crf: implementation of the dense CRF.

    Returns:
        At most ``max_masks`` masks, largest cluster first; empty if nothing was found.
    """
    pixels = np.asarray(image.convert("RGB"))
    votes = [
        (v, mask)
        for v in vote(propose(eigenvectors, ks), tau_m=tau_m, max_masks=max_masks)
        # In an image smaller than the grid, resizing can leave a mask without pixels.
        if (mask := resize_nearest(v.mask, *pixels.shape[:2])).any()
    ]
    masks = []
    for v, mask in votes:
        refined = refine(pixels, mask, crf=crf)
        masks.append(
            PseudoMask(
                mask=mask if refined is None else refined,
                vote_mask=v.mask,
                score=v.size / votes[0][0].size,
                cluster_size=v.size,
                crf_success=refined is not None,
            )
        )
    return masks


class VoteCut(Method):
    """VoteCut (CuVLER): several backbones vote on the masks.

    See :func:`votecut`.
    """

    name: ClassVar[str] = "votecut"
    added: ClassVar[tuple[str, ...]] = ("num_eigenvectors", "max_masks")
    rate: ClassVar[tuple[float, str]] = (
        10,
        "measured on one core of an Intel Xeon: 95 ms per image, six backbones",
    )

    backbones: Annotated[Backbones, Field(description="The backbones that vote.")] = (
        "dino_s16",
        "dinov2_b14",
        "dinov2_s14",
        "dino_b16",
        "dino_s8",
        "dino_b8",
    )
    ks: Annotated[
        tuple[Annotated[int, Field(ge=2)], ...],
        Distinct,
        NoRepeats,
        Field(description="Numbers of clusters for k-means on each eigenvector."),
    ] = (2, 3)
    tau_m: Annotated[
        float,
        Field(
            ge=0,
            lt=1,
            description="A pixel belongs to a mask if more than this fraction of the cluster's "
            "proposals contain it.",
        ),
    ] = 0.2
    num_eigenvectors: Annotated[
        int, Field(ge=1, description="Number of eigenvectors of each backbone that vote.")
    ] = 1
    max_masks: Annotated[
        int, Field(ge=1, description="Largest number of masks of an image; 10 as published.")
    ] = 10
    crf: CrfSetting = "fast"

    def needs(self) -> dict[str, Eigenvectors]:
        """Return the first ``num_eigenvectors`` eigenvectors of each backbone."""
        return dict.fromkeys(self.backbones, Eigenvectors(self.num_eigenvectors))

    def masks(
        self, image: Image.Image, vectors: Mapping[str, NDArray[np.float32]]
    ) -> list[PseudoMask]:
        """Compute an image's masks by :func:`votecut`."""
        return votecut(
            image, vectors, ks=self.ks, tau_m=self.tau_m, max_masks=self.max_masks, crf=self.crf
        )

    def proposals(self, vectors: Mapping[str, NDArray[np.float32]]) -> NDArray[np.bool_]:
        """Return the proposals that are clustered."""
        return propose(vectors, self.ks)
