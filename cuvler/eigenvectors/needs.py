"""The vectors that a pseudo-mask method needs from a backbone: which kind, and how many.

This module is cheap to import: torch is imported by ``solve``.
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

    def options(self) -> dict[str, bool]:
        """Return the settings that the vectors depend on, besides their kind and number."""
        return {}

    def titles(self, backbone: str) -> list[str]:
        """Return a title for each of a backbone's vectors, for pictures."""
        if self.k <= 1:
            return [backbone] * self.k
        return [f"{backbone}, {self.noun} {number}" for number in range(1, self.k + 1)]


@dataclass(frozen=True)
class Eigenvectors(_Vectors):
    """The first ``k`` eigenvectors of an image's graph after the smallest eigenvalue's."""

    k: int = 1
    problem: ClassVar[str] = "standard"
    noun: ClassVar[str] = "eigenvector"

    def solve(
        self, features: "Tensor", _grid: tuple[int, int], *, tau: float, eps: float
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


Need = Eigenvectors | Cuts
# By ``problem``, the name recorded in stored files.
NEEDS: Mapping[str, type[Need]] = {need.problem: need for need in (Eigenvectors, Cuts)}
