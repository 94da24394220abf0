"""Eigenvectors: a backbone's patch features, and the eigenvectors of their normalized cut."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cuvler.eigenvectors.normalized_cut import Eigenpairs, ncut

__all__ = ["Eigenpairs", "ncut"]


def __getattr__(name: str) -> Any:
    # Reading stored eigenvectors must not pay for importing torch.
    if name in __all__:
        from cuvler.eigenvectors import normalized_cut

        return getattr(normalized_cut, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
