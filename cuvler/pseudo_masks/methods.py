"""The ways of making masks from stored eigenvectors: what ``pseudo_masks.method`` can be."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cuvler.eigenvectors.partitions import partitions
from cuvler.errors import DataError
from cuvler.pseudo_masks.crf import Crf
from cuvler.pseudo_masks.mask_cut import refine_cuts
from cuvler.pseudo_masks.record import PseudoMask
from cuvler.pseudo_masks.vote_cut import votecut

Eigenvectors = Mapping[str, NDArray[np.float32]]


class Method(Protocol):
    """A way of making masks, with its settings; travels to worker processes."""

    name: ClassVar[str]
    # Attributes that its files of eigenvectors must have.
    needs: ClassVar[Mapping[str, Any]]

    def masks(self, image: Image.Image, vectors: Eigenvectors) -> list[PseudoMask]:
        """Find an RGB image's masks; ``vectors``: backbone -> (k, h, w) eigenvectors."""
        ...

    def settings(self, made_with: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Give what decides the masks, as JSON values.

        Args:
            made_with: the attributes of each file of eigenvectors.

        Raises:
            DataError: the method cannot work with these files.
        """
        ...


@dataclass(frozen=True)
class VoteCut:
    """Masks by the vote of backbones; see :func:`cuvler.pseudo_masks.votecut`."""

    name: ClassVar[str] = "votecut"
    needs: ClassVar[Mapping[str, Any]] = {"problem": "standard"}

    ks: tuple[int, ...] = (2, 3)
    tau_m: float = 0.2
    crf: Crf = "fast"

    def masks(self, image: Image.Image, vectors: Eigenvectors) -> list[PseudoMask]:
        """Vote with each backbone's first eigenvector."""
        maps = {backbone: found[0] for backbone, found in vectors.items()}
        return votecut(image, maps, ks=self.ks, tau_m=self.tau_m, crf=self.crf)

    def settings(self, made_with: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Give what decides the masks, as JSON values; any number of backbones may vote."""
        return {"ks": list(self.ks), "tau_m": self.tau_m, "crf": self.crf}


@dataclass(frozen=True)
class MaskCut:
    """Masks by one backbone's repeated cuts; see :func:`cuvler.pseudo_masks.maskcut`."""

    name: ClassVar[str] = "maskcut"
    needs: ClassVar[Mapping[str, Any]] = {"problem": "generalized"}

    crf: Crf = "fast"

    def masks(self, image: Image.Image, vectors: Eigenvectors) -> list[PseudoMask]:
        """Refine the cuts that were made of the one backbone's features."""
        (found,) = vectors.values()
        return refine_cuts(image, partitions(found), crf=self.crf)

    def settings(self, made_with: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Give what decides the masks, as JSON values: the cuts were made by one backbone."""
        if len(made_with) != 1:
            raise DataError(
                f"{len(made_with)} files of eigenvectors were given; MaskCut works with one"
            )
        return {"n": made_with[0]["k"], "crf": self.crf}
