"""PEP 517 backend: detectron2 v0.6 as a pure-Python wheel.

The package index has no release of detectron2. It has an sdist, ``pb1-detectron2``, with the same
Python files as the official v0.6, but without the C++ sources, so it does not build. Cascade Mask
R-CNN needs no compiled code. This backend downloads the sdist from the index configured for the
user's pip or uv, checks its SHA-256, applies ``patches.py`` and writes the wheel, in seconds and
without a compiler or git.
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
# The zip format's earliest date, so that equal sources give equal wheels.
_EPOCH = (1980, 1, 1, 0, 0, 0)


class UnsupportedOperation(Exception):  # noqa: N818 -- named by PEP 517
    """This backend does not build sdists (PEP 517)."""


class BuildError(Exception):
    """The wheel cannot be built; the message has the reason and the fix."""


def prepare_metadata_for_build_wheel(
    metadata_directory: str, config_settings: dict[str, Any] | None = None
) -> str:
    """Write the ``.dist-info`` folder without a download, so that resolving is fast."""
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
    """Build the wheel and return its file name (PEP 517)."""
    sources = read_sdist(fetch_sdist())
    name = f"{_distribution()}-{TAG}.whl"
    Path(wheel_directory, name).write_bytes(pack_wheel(sources))
    return name


def build_sdist(sdist_directory: str, config_settings: dict[str, Any] | None = None) -> str:
    """Raise: the sdist is the one on the package index."""
    raise UnsupportedOperation(f"the sdist of this package is {REQUIREMENT} on the package index")


def fetch_sdist() -> bytes:
    """Download the sdist from the user's index and check its SHA-256.

    Raises:
        BuildError: the sdist cannot be found or downloaded, or its SHA-256 differs.
    """
    # Build requirements, installed only during a build.
    from httpx2 import HTTPError
    from unearth import Link, PackageFinder

    settings = read_index_settings()
    # Without a configured index, the finder uses its default.
    finder = PackageFinder(index_urls=settings.indexes, trusted_hosts=settings.trusted_hosts)
    for url in settings.extra_indexes:
        finder.add_index_url(url)
    for place in settings.find_links:
        finder.add_find_links(place)
    # Folders first, and unreachable sources are skipped: an air-gapped machine has a folder but no
    # index. All sources are equivalent, because the SHA-256 is checked.
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
            tried.append(f"{name} (not found)")
    raise BuildError(
        f"{REQUIREMENT} not downloaded; tried {', '.join(tried)}. Check the index settings of "
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
    """Return the content, or raise BuildError if its SHA-256 is not the pinned one."""
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        raise BuildError(f"{origin}: sha256 is {found}, expected {SHA256}")
    return content


def read_sdist(archive: bytes) -> dict[str, bytes]:
    """Read an sdist's files: path relative to its top folder -> content."""
    files = {}
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        for member in tar:
            stream = tar.extractfile(member)
            if stream is not None:
                files["/".join(PurePosixPath(member.name).parts[1:])] = stream.read()
    return files


def pack_wheel(sources: dict[str, bytes]) -> bytes:
    """Patch the sources and pack the ``detectron2`` package with its model zoo and licence.

    The add-on projects (PointRend, DeepLab, Panoptic-DeepLab) are not included.
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
