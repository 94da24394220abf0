"""Eigenvector files: one Zarr v3 zip per backbone and shard, written atomically."""

import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray
from zarr.storage import MemoryStore, ZipStore

from cuvler.eigenvectors.needs import Need
from cuvler.errors import DataError
from cuvler.files import StrPath, atomic_path
from cuvler.image_status import ImageStatus
from cuvler.images import Size
from cuvler.listing import listed_images, listing_sha256

_FORMAT_VERSION = 2
# Worst last; the file holds positions in this list.
STATUSES = (
    ImageStatus.OK,
    ImageStatus.EIGENSOLVER_FAILED,
    ImageStatus.WRONG_SIZE,
    ImageStatus.UNREADABLE,
    ImageStatus.MISSING,
)
# Approximate chunk size: few zip members, but small enough to read one at a time.
_CHUNK_BYTES = 2**20
# What zipfile and zarr raise on damaged files: wrong checksums, and also invalid flags
# (encryption, compression) and metadata.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    KeyError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
_FIX = "delete the file and run again to recreate it"
# Settings that must be equal in all backbones' files of a shard.
_SHARED = ("problem", "k")
# The zip format's earliest timestamp, so that a file's bytes do not depend on the time of writing.
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class ShardEigenvectors:
    """One backbone's eigenvectors of the n images of a shard.

    Attributes:
        image_id: (n,) int64, ascending.
        status: (n,) uint8, indices into ``STATUSES``.
        dense: (n,) bool, True where Lanczos did not converge and the vectors are from the dense
            solver.
        eigenvectors: (n, k, h, w) float32 on the patch grid; NaN where the status is not ok.
    """

    image_id: NDArray[np.int64]
    status: NDArray[np.uint8]
    dense: NDArray[np.bool_]
    eigenvectors: NDArray[np.float32]

    @classmethod
    def empty(cls, image_id: NDArray[np.int64], k: int, grid: tuple[int, int]) -> Self:
        """Create the arrays of a shard, with every image ``missing``."""
        n = len(image_id)
        return cls(
            image_id=image_id,
            status=np.full(n, STATUSES.index(ImageStatus.MISSING), dtype=np.uint8),
            dense=np.zeros(n, dtype=np.bool_),
            eigenvectors=np.full((n, k, *grid), np.nan, dtype=np.float32),
        )


def write_eigenvectors(
    path: StrPath, shard: ShardEigenvectors, settings: Mapping[str, Any]
) -> None:
    """Write a shard as one zip file, atomically; equal content gives equal bytes.

    Args:
        path: the file, with suffix ``.zarr.zip``.
        shard: the arrays.
        settings: JSON values for the group's attributes, ``backbone`` included.
    """
    members: dict[str, Any] = {}
    group = zarr.create_group(
        MemoryStore(members),
        attributes={"format_version": _FORMAT_VERSION, "status_words": list(STATUSES), **settings},
    )
    for name, values in vars(shard).items():
        rows = max(1, _CHUNK_BYTES // max(1, values[:1].nbytes))
        array = group.create_array(
            name,
            shape=values.shape,
            dtype=values.dtype,
            chunks=(min(rows, max(1, len(values))), *values.shape[1:]),
            # zstd saves only a tenth of float noise and takes longer than writing it. float16
            # would save half but occasionally changes a mask: none of the 158 in
            # benchmarks/precision.py, one of 372 on other scenes.
            compressors=None,
            # Otherwise a chunk of fill values is not written, and looks like a lost one.
            config={"write_empty_chunks": True},
        )
        array[...] = values
    with atomic_path(path) as temporary:
        _write_zip(temporary, {key: value.to_bytes() for key, value in members.items()})


def _write_zip(path: Path, members: Mapping[str, bytes]) -> None:
    # zarr's ZipStore stores the current time in members, and their order is that of writing.
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for key, value in sorted(members.items()):
            member = zipfile.ZipInfo(key, date_time=_EPOCH)
            member.external_attr = 0o644 << 16
            archive.writestr(member, value)


def open_eigenvectors(
    path: StrPath,
    *,
    image_ids: NDArray[np.int64] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> "EigenvectorStore":
    """Open a file of ``write_eigenvectors``; eigenvectors are read on access.

    Args:
        path: the ``.zarr.zip`` file.
        image_ids: the ids that the file must have, in order (a shard of the dataset's listing).
        settings: attributes that must have these values, e.g. ``{"backbone": "dino_s16"}``.

    Raises:
        DataError: the file is missing or damaged, or its images or settings differ.
    """
    store = EigenvectorStore(Path(path))
    try:
        store.require(image_ids=image_ids, settings=settings or {})
    except DataError:
        store.close()
        raise
    return store


class EigenvectorStore:
    """A shard's eigenvectors on disk, opened by ``open_eigenvectors``; a context manager.

    Attributes:
        path: the file.
        attributes: the settings, the SHA-256 of the weights, and package versions.
        image_ids: (n,) int64, ascending.
        status: the n images' statuses.
        dense: (n,) bool, True where the vectors are from the dense solver.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            raise DataError(f"{path}: no such file; extract it with `cuvler eigenvectors`")
        try:
            self._store = ZipStore(path, mode="r")
            self._load()
        except _DAMAGE as error:
            raise self._damaged(error) from error

    def _load(self) -> None:
        group = zarr.open_group(self._store, mode="r", zarr_format=3)
        self.attributes: dict[str, Any] = dict(group.attrs)
        if self.attributes["format_version"] != _FORMAT_VERSION:
            raise ValueError(f"format version {self.attributes['format_version']}")
        words = self.attributes["status_words"]
        codes = np.asarray(_array(group, "status")[:])
        self.status = tuple(ImageStatus(words[code]) for code in codes)
        self.image_ids: NDArray[np.int64] = np.asarray(_array(group, "image_id")[:])
        self.dense: NDArray[np.bool_] = np.asarray(_array(group, "dense")[:])
        self._eigenvectors = _array(group, "eigenvectors")
        self._chunk = -1
        self._chunk_vectors: NDArray[np.float32] = np.empty((0, 0, 0, 0), np.float32)

    def _damaged(self, error: Exception) -> DataError:
        return DataError(f"{self.path}: damaged ({error}); {_FIX}")

    @property
    def backbone(self) -> str:
        """The backbone's name in the table of backbones."""
        return str(self.attributes["backbone"])

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the patch grid."""
        height, width = self._eigenvectors.shape[2:]
        return height, width

    @property
    def k(self) -> int:
        """Number of eigenvectors per image."""
        return int(self._eigenvectors.shape[1])

    def __len__(self) -> int:
        return len(self.image_ids)

    def vector(self, index: int) -> NDArray[np.float32]:
        """Return the eigenvectors of the image at ``index``, (k, h, w) float32.

        They are NaN if ``status[index]`` is not ``ok``. The last chunk is cached, so sequential
        access reads each byte once.

        Raises:
            DataError: the chunk is damaged.
        """
        rows = self._eigenvectors.chunks[0]
        chunk, row = divmod(index, rows)
        if chunk != self._chunk:
            try:
                vectors = np.asarray(self._eigenvectors[chunk * rows : (chunk + 1) * rows])
            except _DAMAGE as error:
                raise self._damaged(error) from error
            self._chunk, self._chunk_vectors = chunk, vectors
        image: NDArray[np.float32] = self._chunk_vectors[row]
        return image

    def require(
        self, *, image_ids: NDArray[np.int64] | None = None, settings: Mapping[str, Any]
    ) -> None:
        """Check the file's images and settings.

        Raises:
            DataError: they differ from the given ones.
        """
        if image_ids is not None and not np.array_equal(self.image_ids, image_ids):
            raise DataError(
                f"{self.path}: its images are not those of the dataset's listing; {_FIX}"
            )
        for name, value in settings.items():
            if self.attributes.get(name) != value:
                raise DataError(
                    f"{self.path}: made with {name}={self.attributes.get(name)!r}, "
                    f"not {value!r}; {_FIX}"
                )

    def require_need(self, need: Need) -> None:
        """Check that the file has the needed eigenvectors; it may have more.

        Raises:
            DataError: it has other or fewer eigenvectors.
        """
        self.require(settings={"problem": need.problem, **need.options()})
        if self.k < need.k:
            raise DataError(
                f"{self.path}: made with k={self.k}, too few {need.noun}s of an image: "
                f"{need.k} are wanted; {_FIX}"
            )

    def require_alike(self, other: "EigenvectorStore", images_sha256: str) -> None:
        """Check that this file matches the other backbones' files and the listing.

        Args:
            other: another backbone's file.
            images_sha256: :func:`cuvler.listing.listing_sha256` of the shard. Ids do not suffice:
                many datasets number their images from 1.

        Raises:
            DataError: it does not match.
        """
        if self.attributes.get("images_sha256", images_sha256) != images_sha256:
            raise DataError(f"{self.path}: its images are of another dataset; {_FIX}")
        for name in _SHARED:
            mine, its = self.attributes.get(name), other.attributes.get(name)
            if mine != its:
                raise DataError(
                    f"{self.path}: made with {name}={mine!r}, but {other.path} with {its!r}; "
                    "delete the older one and run again to recreate it"
                )

    def close(self) -> None:
        """Close the file."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    array = group[name]
    if not isinstance(array, zarr.Array):
        raise TypeError(f"{name} is not an array")
    # zarr silently reads a missing chunk as fill values.
    if array.nchunks_initialized != array.nchunks:
        raise ValueError(f"chunks of {name} are missing")
    return array


@dataclass(frozen=True)
class ImageEigenvectors:
    """The eigenvectors of one image.

    Attributes:
        image_id: from the listing.
        file_name: from the listing, relative to the image root.
        size: from the listing; see :class:`cuvler.listing.ListedImage`.
        status: the worst of the backbones' statuses.
        vectors: backbone -> (k, h, w) float32; empty unless ``status`` is ``ok``.
    """

    image_id: int
    file_name: str
    size: Size | None
    status: ImageStatus
    vectors: dict[str, NDArray[np.float32]]


def read_eigenvectors(
    paths: Sequence[StrPath],
    listing: pd.DataFrame,
    *,
    needs: Mapping[str, Need] | None = None,
    only: Collection[int] | None = None,
) -> Iterator[ImageEigenvectors]:
    """Iterate over a shard's images with every backbone's eigenvectors.

    One chunk per backbone is in memory.

    Args:
        paths: the shard's file of each backbone.
        listing: the shard's rows, as :func:`cuvler.listing.read_listing` gives them.
        needs: the vectors that are wanted of each backbone, one file per backbone; by default all
            vectors of all files.
        only: ids of the images to iterate over; by default all.

    Raises:
        DataError: a file is missing or damaged, its images differ from the listing's or its
            settings from the first file's, it lacks vectors that are wanted, or two files are of
            the same backbone.
    """
    image_ids = listing["image_id"].to_numpy(dtype=np.int64)
    images_sha256 = listing_sha256(listing)
    with ExitStack() as stack:
        stores: dict[str, EigenvectorStore] = {}
        for path in paths:
            store = open_eigenvectors(path, image_ids=image_ids)
            stack.enter_context(store)
            store.require_alike(next(iter(stores.values()), store), images_sha256)
            if store.backbone in stores:
                first = stores[store.backbone].path
                raise DataError(
                    f"{path}: is of backbone {store.backbone}, as is {first}; "
                    "give one file per backbone"
                )
            stores[store.backbone] = store
        wanted = _wanted(stores, needs)
        for index, image in enumerate(listed_images(listing)):
            if only is not None and image.image_id not in only:
                continue
            words = [STATUSES[0], *(store.status[index] for store in stores.values())]
            status = max(words, key=STATUSES.index)
            vectors = {name: s.vector(index)[: wanted[name]] for name, s in stores.items()}
            yield ImageEigenvectors(
                *image,
                status=status,
                vectors=vectors if status == ImageStatus.OK else {},
            )


def _wanted(
    stores: Mapping[str, EigenvectorStore], needs: Mapping[str, Need] | None
) -> dict[str, int]:
    """Return the number of vectors needed of each backbone, and check that the files have them."""
    if needs is None:
        return {name: store.k for name, store in stores.items()}
    for name, store in stores.items():
        if name not in needs:
            wanted = ", ".join(needs) or "none"
            raise DataError(f"{store.path}: of backbone {name}, but the wanted ones are {wanted}")
        store.require_need(needs[name])
    if missing := [name for name in needs if name not in stores]:
        raise DataError(f"eigenvectors are missing of the backbones {', '.join(missing)}")
    return {name: need.k for name, need in needs.items()}
