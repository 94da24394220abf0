"""Nothing that comes from outside is run: weights, configs, archives, names."""

import ast
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

import cuvler
from cuvler.detector.checkpoints import load_state, read_weights
from cuvler.detector.config import base_config, merge_file
from cuvler.eigenvectors.store import open_eigenvectors
from cuvler.eigenvectors.weights import read_state
from cuvler.errors import ConfigError, DataError
from cuvler.tensor_files import read_tensors

REPOSITORY = Path(__file__).parents[2]
SOURCES = [
    path
    for folder in (Path(cuvler.__file__).parent, REPOSITORY / "packaging")
    for path in sorted(folder.rglob("*.py"))
]


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def sprung(tmp_path):
    return tmp_path / "sprung"


@pytest.mark.parametrize("read", [read_state, read_weights, load_state, read_tensors])
@pytest.mark.parametrize("suffix", [".pth", ".pt"])
def test_torch_files_run_no_code(tmp_path, sprung, read, suffix):
    torch.save({"model": {"weight": Trap(sprung)}}, tmp_path / f"weights{suffix}")
    with pytest.raises(DataError, match="weights"):
        read(tmp_path / f"weights{suffix}")
    assert not sprung.exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("suffix", [".pkl", ".pth"])
def test_bare_pickles_run_no_code(tmp_path, sprung, suffix):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(pickle.dumps({"model": {"weight": Trap(sprung)}}))
    with pytest.raises(DataError, match="weights"):
        read_weights(path)
    assert not sprung.exists()


def test_a_detectors_config_runs_no_code(tmp_path, sprung):
    path = tmp_path / "config.yaml"
    path.write_text(f'MODEL: !!python/object/apply:pathlib.Path.touch ["{sprung}"]\n')
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        merge_file(base_config(), path)
    assert not sprung.exists()


def test_a_shard_reaches_no_file_outside(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("secret")
    with zipfile.ZipFile(tmp_path / "0.zarr.zip", "w") as archive:
        archive.writestr("../outside", "overwritten")
        archive.writestr("/tmp/outside", "overwritten")
    with pytest.raises(DataError, match="damaged"):
        open_eigenvectors(tmp_path / "0.zarr.zip")
    assert outside.read_text() == "secret"


def calls():
    """Every call in the sources: (file, what is called, keywords)."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
                yield path, ast.unparse(node.func), keywords


def test_the_sources_have_calls():
    assert len(list(calls())) > 1000


def test_nothing_is_evaluated_or_handed_to_a_shell():
    banned = {
        *("eval", "exec", "os.system", "os.popen", "subprocess.getoutput", "torch.hub.load"),
        *("yaml.load", "yaml.unsafe_load", "yaml.full_load", "shutil.unpack_archive"),
    }
    assert [(path.name, name) for path, name, _ in calls() if name in banned] == []
    assert [path.name for path, _, keywords in calls() if keywords.get("shell") == "True"] == []
    assert all("allow_pickle" not in keywords for _, _, keywords in calls())


def test_only_known_places_unpickle():
    unpickling = sorted(
        (path.name, name)
        for path, name, keywords in calls()
        if name in ("pickle.load", "pickle.loads")
        or (name == "torch.load" and keywords.get("weights_only") != "True")
    )
    # Files of which the user gives the sha256, asking for it.
    assert unpickling == [
        ("tensor_files.py", "pickle.load"),
        ("tensor_files.py", "torch.load"),
    ]
