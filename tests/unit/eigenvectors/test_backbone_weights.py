import hashlib
import pickle

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from cuvler.cli import cuvler
from cuvler.download import http
from cuvler.download.digests import verified_sha256
from cuvler.download.errors import FetchError
from cuvler.eigenvectors.backbones import backbone_spec
from cuvler.eigenvectors.weights import (
    FetchWeightsError,
    fetch_backbone,
    fetch_dino_resnet50,
    read_state,
)
from cuvler.errors import ConfigError, DataError

from .conftest import STATE


def test_weights_are_fetched_whole_with_their_digest_beside(hub, tmp_path):
    path = tmp_path / "new" / "dino_s16.safetensors"
    digest = fetch_backbone(backbone_spec("dino_s16"), path)
    assert ("timm/vit_small_patch16_224.dino", "model.safetensors") in hub
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest() == verified_sha256(path)
    recorded = path.with_name("dino_s16.safetensors.sha256").read_text()
    assert recorded == f"{digest}  dino_s16.safetensors\n"  # what `sha256sum --check` reads
    assert torch.equal(read_state(path)["weight"], STATE["weight"])


@pytest.mark.usefixtures("hub")
def test_a_pinned_digest_is_checked(tmp_path):
    path = tmp_path / "w.safetensors"
    digest = fetch_backbone(backbone_spec("dino_s16"), path)
    assert fetch_backbone(backbone_spec("dino_s16"), path, sha256=digest.upper()) == digest
    path.unlink()
    with pytest.raises(DataError, match="not the pinned 00"):
        fetch_backbone(backbone_spec("dino_s16"), path, sha256="00")
    assert not path.exists()


@pytest.mark.parametrize("no_hub", ["refused"], indirect=True)
@pytest.mark.usefixtures("no_hub")
def test_without_network_the_message_says_what_to_fetch_and_where_to_put_it(tmp_path):
    path = tmp_path / "w.safetensors"
    with pytest.raises(FetchWeightsError) as caught:
        fetch_backbone(backbone_spec("dinov2_b14"), path)
    parts = ("model.safetensors", "timm/vit_base_patch14_dinov2.lvd142m", str(path))
    for part in (*parts, caught.value.reason):
        assert part in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_detectors_resnet_is_kept_as_safetensors(tmp_path, monkeypatch):
    monkeypatch.setattr(http, "fetch_http", lambda _url, path: torch.save(STATE, path))
    path = tmp_path / "dino_resnet50.safetensors"
    digest = fetch_dino_resnet50(path)
    assert torch.equal(load_file(path)["weight"], STATE["weight"])
    assert digest == verified_sha256(path)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_resnet_that_cannot_be_had_says_where_to_put_it(tmp_path, monkeypatch):
    def fetch(_url, path):
        path.write_bytes(b"half of it")
        raise FetchError("no network")

    monkeypatch.setattr(http, "fetch_http", fetch)
    path = tmp_path / "dino_resnet50.safetensors"
    with pytest.raises(DataError, match=rf"no network.*put it at {path}"):
        fetch_dino_resnet50(path)
    assert [p.name for p in tmp_path.iterdir()] == ["dino_resnet50.pth.part"]  # to go on from


def test_pixels_have_nothing_to_fetch(tmp_path):
    with pytest.raises(ConfigError, match=r"pixels_p8.*no weights"):
        fetch_backbone(backbone_spec("pixels_p8"), tmp_path / "w.safetensors")


@pytest.mark.parametrize("timm_name", ["test_vit.mine", "no_such_model"])
def test_models_without_a_published_file_are_named(tmp_path, timm_name):
    own = {"timm": timm_name, "feature": "key", "size": 64}
    with pytest.raises(ConfigError, match=timm_name):
        fetch_backbone(backbone_spec("mine", {"mine": own}), tmp_path / "w.safetensors")


@pytest.mark.usefixtures("hub")
def test_a_file_that_changed_since_it_was_fetched_is_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    fetch_backbone(backbone_spec("dino_s16"), path)
    save_file({"weight": torch.ones(3)}, path)
    with pytest.raises(DataError, match=r"w\.safetensors: .*w\.safetensors\.sha256"):
        verified_sha256(path)


class Trap:
    def __reduce__(self):
        return print, ("loading this file ran code",)


@pytest.mark.parametrize(
    "content", [b"", b"not weights", b"root:x:0", b"}X\xff", pickle.dumps(Trap(), protocol=2)]
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_that_are_no_weights_are_refused(tmp_path, content, suffix):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"w\{suffix}: not a file of tensors"):
        read_state(path)


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    path = tmp_path / "w.pth"
    torch.save({"weight": torch.ones(1), "more": Trap()}, path)
    with pytest.raises(DataError, match=r"w\.pth: .*asks for print"):
        read_state(path)
    torch.save({"weight": torch.ones(1), "epoch": 3}, path)
    with pytest.raises(DataError, match=r"w\.pth: not a state dict.*epoch"):
        read_state(path)
    with pytest.raises(DataError, match="no such file"):
        read_state(tmp_path / "nothing.pth")


@pytest.mark.usefixtures("hub")
def test_the_command_fetches(tmp_path, caplog):
    caplog.set_level("INFO")
    path = tmp_path / "w.safetensors"
    arguments = ["weights", "--backbone", "dino_b8", "--output", str(path)]
    result = CliRunner().invoke(cuvler, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert read_state(path).keys() == STATE.keys()
    assert "licence of the weights: apache-2.0" in caplog.text
    with pytest.raises(ConfigError, match=r"--output .*\.safetensors"):
        CliRunner().invoke(cuvler, [*arguments[:-1], "w.pth"], catch_exceptions=False)
