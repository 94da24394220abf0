import base64
import csv
import hashlib
import io
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[3] / "packaging" / "detectron2"


@pytest.fixture(scope="module")
def modules():
    """The backend as pip imports it: with its own folder on the path."""
    sys.path.insert(0, str(FOLDER))
    writes = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        import detectron2_backend
        import index_settings
        import patches
    finally:
        sys.path.remove(str(FOLDER))
        sys.dont_write_bytecode = writes
    return detectron2_backend, patches, index_settings


@pytest.fixture
def sources(modules):
    """A made-up sdist that holds what the patches look for and nothing else."""
    _, patches, _ = modules
    texts: dict[str, str] = {"LICENSE": "Apache\n", "setup.py": "", "detectron2/__init__.py": ""}
    for path, count in patches.NUMPY_ALIASES.items():
        texts[path] = "x.astype(np.bool)  # np.bool_ and np.float32 stay\n"
        texts[path] += "y = np.float\n" * (count - 1)
    for patch in patches.PATCHES:
        texts[patch.path] = texts.get(patch.path, "") + f"# a\n{patch.old}\n" * patch.count
    return {path: text.encode() for path, text in texts.items()}


def test_patches_replace_what_they_name(modules, sources):
    _, patches, _ = modules
    patched = patches.apply_patches(sources)
    assert b"Image.LINEAR" not in patched["detectron2/data/transforms/transform.py"]
    assert b"pkg_resources" not in patched["detectron2/model_zoo/model_zoo.py"]
    assert patched["detectron2/structures/masks.py"].startswith(
        b"x.astype(bool)  # np.bool_ and np.float32 stay\ny = float\n"
    )
    assert patched["LICENSE"] == sources["LICENSE"]


def test_every_patch_insists_on_its_place(modules, sources):
    _, patches, _ = modules
    for path in {patch.path for patch in patches.PATCHES} | set(patches.NUMPY_ALIASES):
        with pytest.raises(patches.PatchError, match=path):
            patches.apply_patches({**sources, path: b"another version\n"})
        with pytest.raises(patches.PatchError, match=path):
            patches.apply_patches({**sources, path: sources[path] * 2})
        rest = {other: text for other, text in sources.items() if other != path}
        with pytest.raises(patches.PatchError, match=f"{path}: not in the source"):
            patches.apply_patches(rest)


def test_stub_extension_imports_and_says_what_is_missing(modules, tmp_path, monkeypatch):
    _, patches, _ = modules
    (tmp_path / "stub_extension.py").write_text(patches.STUB_EXTENSION)
    monkeypatch.syspath_prepend(str(tmp_path))
    import stub_extension

    with pytest.raises(AttributeError, match=r"deform_conv_forward needs .*compiled extension"):
        stub_extension.deform_conv_forward  # noqa: B018
    # The patched COCO evaluation falls back on this.
    with pytest.raises(ImportError, match="COCOevalAccumulate"):
        from stub_extension import COCOevalAccumulate  # noqa: F401
    assert not stub_extension.has_cuda()


def test_wheel_records_every_file_with_its_hash(modules, sources):
    backend, _, _ = modules
    wheel = zipfile.ZipFile(io.BytesIO(backend.pack_wheel(sources)))
    assert wheel.testzip() is None
    record = wheel.read("detectron2-0.6.dist-info/RECORD").decode()
    rows = {path: (digest, size) for path, digest, size in csv.reader(record.splitlines())}
    assert set(rows) == set(wheel.namelist())
    assert rows.pop("detectron2-0.6.dist-info/RECORD") == ("", "")
    for path, (digest, size) in rows.items():
        content = wheel.read(path)
        expected = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
        assert digest == f"sha256={expected.decode()}"
        assert int(size) == len(content)
    assert "detectron2/_C.py" in rows
    assert "setup.py" not in rows


def test_wheel_is_the_same_whenever_it_is_built(modules, sources, monkeypatch):
    backend, _, _ = modules
    first = backend.pack_wheel(sources)
    monkeypatch.setattr("time.time", lambda: 2e9)
    assert backend.pack_wheel(dict(reversed(sources.items()))) == first


def test_metadata_is_that_of_pyproject(modules, tmp_path, sources):
    backend, _, _ = modules
    name = backend.prepare_metadata_for_build_wheel(str(tmp_path))
    metadata = (tmp_path / name / "METADATA").read_text()
    project = tomllib.loads((FOLDER / "pyproject.toml").read_text())["project"]
    for requirement in project["dependencies"]:
        assert f"Requires-Dist: {requirement}\n" in metadata
    assert "Name: detectron2\nVersion: 0.6\n" in metadata
    wheel = zipfile.ZipFile(io.BytesIO(backend.pack_wheel(sources)))
    assert wheel.read(f"{name}/METADATA").decode() == metadata
    assert wheel.read(f"{name}/WHEEL").decode() == (tmp_path / name / "WHEEL").read_text()


def test_sdist_is_read_below_its_top_folder(modules, sources):
    backend, _, _ = modules
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for path, content in sources.items():
            member = tarfile.TarInfo(f"pb1-detectron2-0.6/{path}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    assert backend.read_sdist(buffer.getvalue()) == sources


def test_another_file_than_the_examined_one_is_refused(modules):
    backend, _, _ = modules
    with pytest.raises(backend.BuildError, match=r"somewhere: sha256 is .*, expected 5d2e9e51"):
        backend.check_sha256(b"something else", "somewhere")


def test_index_settings_follow_the_users_own(modules, tmp_path):
    _, _, index_settings = modules
    (tmp_path / ".config" / "pip").mkdir(parents=True)
    (tmp_path / ".config" / "pip" / "pip.conf").write_text(
        "[global]\nindex-url = https://pip.test/simple\n[install]\nfind-links = /w1\n  /w2\n"
    )
    (tmp_path / "uv.toml").write_text(
        '[[index]]\nurl = "https://mirror.test/simple"\ndefault = true\n'
        '[[index]]\nurl = "https://more.test/simple"\n'
    )
    settings = index_settings.read_index_settings(
        {
            "HOME": str(tmp_path),
            "UV_CONFIG_FILE": str(tmp_path / "uv.toml"),
            "UV_DEFAULT_INDEX": "corp=https://corp.test/simple?x=1",
        }
    )
    assert settings.indexes == (
        "https://corp.test/simple?x=1",
        "https://mirror.test/simple",
        "https://pip.test/simple",
    )
    assert "https://more.test/simple" in settings.extra_indexes
    assert settings.find_links[:2] == ("/w1", "/w2")
