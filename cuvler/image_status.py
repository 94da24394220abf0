"""What becomes of an image: the words of every stage's accounting."""

from enum import StrEnum


class ImageStatus(StrEnum):
    """The status of an image in eigenvector files, pseudo-masks and annotations."""

    OK = "ok"
    NO_MASK = "no_mask"
    UNIFORM = "uniform"
    MISSING = "missing"
    UNREADABLE = "unreadable"
    WRONG_SIZE = "wrong_size"
    EIGENSOLVER_FAILED = "eigensolver_failed"
    CRASHED = "crashed"
    NO_PREDICTION = "no_prediction"


# Images that count as processed; all others are excluded from the annotations.
USABLE = (ImageStatus.OK, ImageStatus.NO_MASK, ImageStatus.UNIFORM)
