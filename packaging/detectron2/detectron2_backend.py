"""PEP 517 backend: detectron2 v0.6 as a pure-Python wheel.

The package index holds no release of detectron2 itself, but an sdist, ``pb1-detectron2``, whose
Python files are those of the official v0.6; its C++ sources are missing, so it cannot be built
as it is. Cascade Mask R-CNN needs no compiled part. This backend fetches the sdist from the index
the user's own pip or uv is configured for, checks its sha256, applies ``patches.py`` and writes
the wheel: no compiler, no git, seconds.
"""

import base64
import hashlib
import io
import tarfile
import tomllib
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

from index_settings import read_index_settings
from patches import apply_patches

REQUIREMENT = "pb1-detectron2==0.6"
SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"
TAG = "py3-none-any"
# The zip format's earliest date: the same sources give the same bytes, whenever they are built.
_EPOCH = (1980, 1, 1, 0, 0, 0)


class UnsupportedOperation(Exception):  # noqa: N818 -- the name PEP 517 gives it
    """PEP 517: this backend does not make sdists."""


class BuildError(Exception):
    """The wheel cannot be built; the message says what the user can do."""


def prepare_metadata_for_build_wheel(
    metadata_directory: str, config_settings: dict[str, Any] | None = None
) -> str:
    """Write the ``.dist-info`` folder without fetching anything, so that resolving is quick."""
    folder = Path(metadata_directory) / f"{_distribution()}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(_metadata(), encoding="utf-8")
    (folder / "WHEEL").write_text(_wheel_file(), encoding="utf-8")
    return folder.name


def build_wheel(
    wheel_directory: str,
    config_settings: dict[str, Any] | None = None,
    metadata_directory: str | None = None,
) -> str:
    """Fetch, check, patch and pack; return the wheel's file name (PEP 517)."""
    sources = read_sdist(fetch_sdist())
    name = f"{_distribution()}-{TAG}.whl"
    Path(wheel_directory, name).write_bytes(pack_wheel(sources))
    return name


def build_sdist(sdist_directory: str, config_settings: dict[str, Any] | None = None) -> str:
    """Refuse: the sdist is the one on the index."""
    raise UnsupportedOperation(f"the sdist of this package is {REQUIREMENT} on the package index")


def fetch_sdist() -> bytes:
    """Download the sdist from the user's index and check its sha256.

    Raises:
        BuildError: it cannot be found, fetched, or is another file.
    """
    # Build requirements: only a build has them.
    from httpx2 import HTTPError
    from unearth import Link, PackageFinder

    settings = read_index_settings()
    # Without an index of the user's, the finder takes its own default.
    finder = PackageFinder(index_urls=settings.indexes, trusted_hosts=settings.trusted_hosts)
    for url in settings.extra_indexes:
        finder.add_index_url(url)
    for place in settings.find_links:
        finder.add_find_links(place)
    # Folders come first, and a source that cannot be reached does not hide the others: an
    # air-gapped machine has a folder and no index. The sha256 makes all sources equal.
    sources = sorted(finder.sources, key=lambda source: source["type"] != "find_links")
    tried = []
    for source in sources:
        finder.sources = [source]
        name = Link(source["url"]).redacted
        try:
            best = finder.find_best_match(REQUIREMENT).best
            if best is not None:
                return check_sha256(_download(finder, best.link), best.link.redacted)
        except (HTTPError, OSError, ValueError) as error:
            tried.append(f"{name} ({error})")
        else:
            tried.append(f"{name} (does not have it)")
    raise BuildError(
        f"{REQUIREMENT} cannot be fetched; tried {', '.join(tried)}. Check the index settings of "
        "pip or uv, or put the sdist into a folder named by PIP_FIND_LINKS or UV_FIND_LINKS."
    )


def _download(finder: Any, link: Any) -> bytes:
    if link.is_file:
        return Path(link.file_path).read_bytes()
    response = finder.session.get(link.normalized)
    response.raise_for_status()
    content: bytes = response.content
    return content


def check_sha256(content: bytes, origin: str) -> bytes:
    """Return the content, or raise BuildError where it is not the sdist that was examined."""
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        raise BuildError(f"{origin}: sha256 is {found}, expected {SHA256}")
    return content


def read_sdist(archive: bytes) -> dict[str, bytes]:
    """Read an sdist's files into {path below its top folder: content}."""
    files = {}
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        for member in tar:
            stream = tar.extractfile(member)
            if stream is not None:
                files["/".join(PurePosixPath(member.name).parts[1:])] = stream.read()
    return files


def pack_wheel(sources: dict[str, bytes]) -> bytes:
    """Patch the sources and pack the ``detectron2`` package, its model zoo and licence.

    The add-on projects beside it (PointRend, DeepLab, Panoptic-DeepLab) stay out.
    """
    files = {
        path: content
        for path, content in sorted(apply_patches(sources).items())
        if path.startswith("detectron2/")
    }
    info = f"{_distribution()}.dist-info"
    files[f"{info}/METADATA"] = _metadata().encode("utf-8")
    files[f"{info}/WHEEL"] = _wheel_file().encode("utf-8")
    files[f"{info}/licenses/LICENSE"] = sources["LICENSE"]
    record = "".join(_record_line(path, files[path]) for path in sorted(files))
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as wheel:
        for path, content in files.items():
            entry = zipfile.ZipInfo(path, date_time=_EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o100644 << 16
            wheel.writestr(entry, content)
    return buffer.getvalue()


def _record_line(path: str, content: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode("ascii")
    return f"{path},sha256={digest},{len(content)}\n"


def _project() -> dict[str, Any]:
    text = (Path(__file__).parent / "pyproject.toml").read_text(encoding="utf-8")
    project: dict[str, Any] = tomllib.loads(text)["project"]
    return project


def _distribution() -> str:
    project = _project()
    return f"{project['name']}-{project['version']}"


def _metadata() -> str:
    project = _project()
    lines = [
        "Metadata-Version: 2.4",
        f"Name: {project['name']}",
        f"Version: {project['version']}",
        f"Summary: {project['description']}",
        f"License-Expression: {project['license']}",
        "License-File: LICENSE",
        f"Requires-Python: {project['requires-python']}",
        *(f"Requires-Dist: {requirement}" for requirement in project["dependencies"]),
    ]
    return "\n".join(lines) + "\n"


def _wheel_file() -> str:
    return f"Wheel-Version: 1.0\nGenerator: detectron2_backend\nRoot-Is-Purelib: true\nTag: {TAG}\n"
