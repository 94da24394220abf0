"""What a method of making pseudo-masks needs of a backbone: which vectors, and how many.

Importing this is light; torch is imported when something is solved.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cuvler.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from cuvler.eigenvectors.normalized_cut import Eigenpairs


@dataclass(frozen=True)
class _Vectors:
    k: int
    noun: ClassVar[str]

    def titles(self, backbone: str) -> list[str]:
        """Name each of a backbone's vectors, for pictures."""
        if self.k <= 1:
            return [backbone] * self.k
        return [f"{backbone}, {self.noun} {number}" for number in range(1, self.k + 1)]


@dataclass(frozen=True)
class Eigenvectors(_Vectors):
    """The first ``k`` eigenvectors of an image's graph, from the second smallest eigenvalue on."""

    k: int = 1
    problem: ClassVar[str] = "standard"
    noun: ClassVar[str] = "eigenvector"

    def solve(
        self, features: "Tensor", _grid: tuple[int, int], *, tau: float, eps: float
    ) -> "Eigenpairs[Tensor]":
        """Solve a batch of images' features (b, n, d); see ``ncut``.

        Raises:
            ConfigError: an image has too few patches for ``k`` eigenvectors.
        """
        from cuvler.eigenvectors.normalized_cut import ncut

        patches = features.shape[-2]
        if self.k >= patches:
            raise ConfigError(
                f"{self.k} eigenvectors of each image (num_eigenvectors, --k): an image has "
                f"{patches} patches, so choose less than {patches}"
            )
        return ncut(features, tau=tau, eps=eps, k=self.k)


@dataclass(frozen=True)
class Cuts(_Vectors):
    """The eigenvectors of ``k`` successive cuts, each without the patches that were cut before."""

    k: int = 3
    problem: ClassVar[str] = "generalized"
    noun: ClassVar[str] = "cut"

    def solve(
        self, features: "Tensor", grid: tuple[int, int], *, tau: float, eps: float
    ) -> "Eigenpairs[Tensor]":
        """Solve a batch of images' features (b, h * w, d) on (h, w); see ``cut_repeatedly``."""
        from cuvler.eigenvectors.cuts import cut_repeatedly

        return cut_repeatedly(features, grid, n=self.k, tau=tau, eps=eps)


Need = Eigenvectors | Cuts
# By the name that stored files record.
NEEDS: Mapping[str, type[Need]] = {need.problem: need for need in (Eigenvectors, Cuts)}
