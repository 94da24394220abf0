"""Pseudo-masks: cutting objects out of an image with eigenvectors, by vote or one by one."""

from typing import TYPE_CHECKING, Any

from cuvler.pseudo_masks.record import PseudoMask

if TYPE_CHECKING:
    from cuvler.pseudo_masks.vote_cut import votecut

__all__ = ["PseudoMask", "votecut"]


def __getattr__(name: str) -> Any:
    # Importing the package must not pay for scipy and the CRF.
    if name == "votecut":
        from cuvler.pseudo_masks.vote_cut import votecut

        return votecut
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
