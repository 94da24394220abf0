"""The vectors that a pseudo-mask method needs from a backbone: which kind, and how many.

This module is cheap to import: torch is imported by ``solve``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from cuvler.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from cuvler.eigenvectors.merge_tree import MergeTrees
    from cuvler.eigenvectors.normalized_cut import Eigenpairs


@dataclass(frozen=True)
class _Vectors:
    k: int
    noun: ClassVar[str]
    has_graph: ClassVar[bool] = True  # made of the graph that tau and eps define

    def options(self) -> dict[str, bool]:
        """Return the settings that the vectors depend on, besides their kind and number."""
        return {}

    @classmethod
    def pictures(
        cls, backbone: str, vectors: NDArray[np.float32]
    ) -> dict[str, NDArray[np.float32]]:
        """Return the maps to draw of a backbone's vectors (k, h, w): title -> (h, w).

        Maps that are 0, of cuts that were not made, are left out.
        """
        if len(vectors) == 1:
            return {backbone: vectors[0]}
        titled = enumerate(vectors, start=1)
        return {f"{backbone}, {cls.noun} {number}": map_ for number, map_ in titled if map_.any()}


@dataclass(frozen=True)
class Eigenvectors(_Vectors):
    """The first ``k`` eigenvectors of an image's graph after the smallest eigenvalue's."""

    k: int = 1
    problem: ClassVar[str] = "standard"
    noun: ClassVar[str] = "eigenvector"

    def solve(
        self, features: "Tensor", grid: tuple[int, int], *, tau: float, eps: float
    ) -> "Eigenpairs[Tensor]":
        """Compute the eigenpairs of a batch of features (b, n, d) with ``ncut``.

        Raises:
            ConfigError: an image has too few patches for ``k`` eigenvectors.
        """
        from cuvler.eigenvectors.normalized_cut import ncut

        patches = features.shape[-2]
        if self.k >= patches:
            raise ConfigError(
                f"{self.k} eigenvectors: an image has {patches} patches; choose fewer than "
                f"{patches}",
                parameter="num_eigenvectors",
            )
        return ncut(features, tau=tau, eps=eps, k=self.k)


@dataclass(frozen=True)
class Cuts(_Vectors):
    """The eigenvectors of ``k`` successive cuts, each without the patches of the previous ones.

    With ``stop_at_background``, cutting ends earlier where what is left is background.
    """

    k: int = 3
    stop_at_background: bool = False
    problem: ClassVar[str] = "generalized"
    noun: ClassVar[str] = "cut"

    def options(self) -> dict[str, bool]:
        """Return when cutting ends."""
        return {"stop_at_background": self.stop_at_background}

    def solve(
        self, features: "Tensor", grid: tuple[int, int], *, tau: float, eps: float
    ) -> "Eigenpairs[Tensor]":
        """Compute the eigenpairs of a batch (b, h * w, d) with ``cut_repeatedly``."""
        from cuvler.eigenvectors.cuts import cut_repeatedly

        return cut_repeatedly(
            features,
            grid,
            n=self.k,
            tau=tau,
            eps=eps,
            stop_at_background=self.stop_at_background,
        )


@dataclass(frozen=True)
class MergeTree(_Vectors):
    """The tree in which an image's patches merge: the maps of parents and of similarities."""

    k: int = 2
    problem: ClassVar[str] = "merge_tree"
    noun: ClassVar[str] = "map"
    has_graph: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check that ``k`` is 2.

        Raises:
            ConfigError: it is not.
        """
        if self.k != 2:
            raise ConfigError(
                f"{self.k} vectors: a merge tree has 2; leave the number out",
                parameter="num_eigenvectors",
            )

    @classmethod
    def pictures(
        cls, backbone: str, vectors: NDArray[np.float32]
    ) -> dict[str, NDArray[np.float32]]:
        """Return the map of the similarities at which the patches' regions merge."""
        return {f"{backbone}, similarity": vectors[1]}

    def solve(
        self, features: "Tensor", grid: tuple[int, int], *, tau: float, eps: float
    ) -> "MergeTrees":
        """Compute the merge trees of a batch (b, h * w, d); ``tau`` and ``eps`` have no effect."""
        from cuvler.eigenvectors.merge_tree import merge_trees

        return merge_trees(features, grid)


Need = Eigenvectors | Cuts | MergeTree
# By ``problem``, the name recorded in stored files.
NEEDS: Mapping[str, type[Need]] = {need.problem: need for need in (Eigenvectors, Cuts, MergeTree)}
