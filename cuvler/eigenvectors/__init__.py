"""Eigenvectors of the normalized cut of a backbone's patch features."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cuvler.eigenvectors.normalized_cut import Eigenpairs, ncut

__all__ = ["Eigenpairs", "ncut"]


def __getattr__(name: str) -> Any:
    # Imported lazily: reading stored eigenvectors does not need torch.
    if name in __all__:
        from cuvler.eigenvectors import normalized_cut

        return getattr(normalized_cut, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
