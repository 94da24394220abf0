import argparse
import hashlib
import pickle

import numpy as np
import pytest
import torch

pytest.importorskip("detectron2")

from detectron2 import model_zoo
from detectron2.modeling import build_model
from safetensors.torch import save_file
from torchvision.models import resnet18, resnet50

from cuvler.detector.checkpoints import (
    load_state,
    load_trained,
    load_weights,
    read_weights,
    save_model,
)
from cuvler.detector.config import load_detector_config
from cuvler.errors import DataError

# The published architecture with few channels: the same parameters, but smaller.
NARROW = {
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 16,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 4,
    "MODEL.FPN.OUT_CHANNELS": 16,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 16,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 8,
}


def narrow(detector_config="votecut_cad"):
    overrides = [str(word) for pair in NARROW.items() for word in pair]
    return build_model(load_detector_config(detector_config, num_gpus=0, overrides=overrides))


@pytest.fixture(scope="module")
def model():
    return narrow()


def test_parameter_names_are_detectron2s(model):
    cfg = model_zoo.get_config("Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml")
    cfg.merge_from_list([word for pair in NARROW.items() for word in pair])
    cfg.merge_from_list(["MODEL.RESNETS.NORM", "BN", "MODEL.FPN.NORM", "BN"])
    cfg.merge_from_list(["MODEL.BACKBONE.FREEZE_AT", 0])
    cfg.merge_from_list(["MODEL.ROI_HEADS.NUM_CLASSES", 1, "MODEL.DEVICE", "cpu"])
    plain = build_model(cfg)
    expected = {name: value.shape for name, value in plain.state_dict().items()}
    assert {name: value.shape for name, value in model.state_dict().items()} == expected


def test_published_layout_loads_completely(model, tmp_path):
    state = {name: torch.rand(value.shape) for name, value in model.state_dict().items()}
    published = {f"module.{name}": value for name, value in state.items()}
    # A full training checkpoint has more than the weights.
    published["module.pixel_mean"] = torch.zeros(3, 1, 1)
    published["module.proposal_generator.anchor_generator.cell_anchors.0"] = torch.zeros(3, 4)
    published = {n: v for n, v in published.items() if "num_batches_tracked" not in n}
    extra = {"optimizer": {"state": {0: torch.zeros(2)}}, "iteration": 159999}
    torch.save({"model": published, **extra}, tmp_path / "cutler_cascade_final.pth")
    fresh = narrow()
    load_trained(fresh, tmp_path / "cutler_cascade_final.pth")
    for name, value in fresh.state_dict().items():
        if "num_batches_tracked" not in name:
            torch.testing.assert_close(value, state[name].to(value.dtype))


def test_saved_models_load(model, tmp_path):
    save_model(model, tmp_path / "model_final.pth")
    save_model(model, tmp_path / "again.pth")
    assert (tmp_path / "model_final.pth").read_bytes() == (tmp_path / "again.pth").read_bytes()
    fresh = narrow()
    load_trained(fresh, tmp_path / "model_final.pth")
    for name, value in fresh.state_dict().items():
        assert torch.equal(value, model.state_dict()[name])
    assert set(load_state(tmp_path / "model_final.pth")) == {"model"}


def test_dino_resnet50_fills_the_backbone(tmp_path):
    torch.manual_seed(0)
    dino = resnet50().state_dict()  # DINO's file: this, without the classifier
    torch.save({n: v for n, v in dino.items() if not n.startswith("fc.")}, tmp_path / "dino.pth")
    detector = build_model(load_detector_config("votecut_cad", num_gpus=0))
    loaded = load_weights(detector, tmp_path / "dino.pth")
    assert not loaded.unexpected
    assert not loaded.mismatched
    assert not any(name.startswith("backbone.bottom_up") for name in loaded.missing)
    # The networks are equal: their last stages have the same output.
    images = torch.rand(1, 3, 64, 64)
    reference = resnet50()
    reference.load_state_dict(dino)
    reference.fc = reference.avgpool = torch.nn.Identity()
    with torch.no_grad():
        expected = reference.eval()(images).reshape(1, 2048, 2, 2)
        found = detector.backbone.bottom_up.eval()(images)["res5"]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_classifiers_are_dropped(tmp_path):
    torch.save(resnet18().state_dict(), tmp_path / "resnet18.pth")
    names = read_weights(tmp_path / "resnet18.pth")
    assert not any("fc" in name for name in names)
    assert "backbone.bottom_up.res3.0.shortcut.norm.running_var" in names
    assert "backbone.bottom_up.stem.conv1.norm.bias" in names


def test_pickles_of_arrays_load(model, tmp_path):
    arrays = {name: value.numpy() for name, value in model.state_dict().items()}
    content = {"model": arrays, "__author__": "somebody", "matching_heuristics": True}
    for protocol in (0, 2, 4):
        path = tmp_path / f"{protocol}.pkl"
        path.write_bytes(pickle.dumps(content, protocol=protocol))
        load_trained(narrow(), path)


def test_pickles_of_a_plain_backbone_load(tmp_path):
    state = {"stem.conv1.weight": np.zeros((8, 3, 7, 7)), "stem.fc.bias": np.zeros(3)}
    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps({"model": state}))
    assert list(read_weights(tmp_path / "R-50.pkl")) == ["backbone.bottom_up.stem.conv1.weight"]


def test_safetensors_load(tmp_path):
    path = tmp_path / "resnet.safetensors"
    save_file(resnet18().state_dict(), path)
    weights = read_weights(path)
    assert "backbone.bottom_up.res5.1.conv2.norm.weight" in weights
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"resnet\.safetensors: not a file of tensors"):
        read_weights(path)
    with pytest.raises(DataError, match=r"none\.safetensors: no such file"):
        read_weights(tmp_path / "none.safetensors")


class Bomb:
    """Unpickling this object creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.fixture(params=[".pkl", ".pth"])
def bomb(request, tmp_path):
    """A file with one parameter that runs code when unpickled, and the file the code creates."""
    victim = tmp_path / "victim"
    path = tmp_path / f"bomb{request.param}"
    weight = np.ones(2, np.float32) if request.param == ".pkl" else torch.ones(2)
    content = {"model": {"weight": weight}, "settings": Bomb(victim)}
    if request.param == ".pkl":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    return path, victim


def test_files_that_need_unpickling_are_refused(bomb):
    path, victim = bomb
    with pytest.raises(DataError, match=r"bomb.*it asks for .*open.*unpickle_sha256"):
        read_weights(path)
    assert not victim.exists()


@pytest.mark.parametrize("sha256", ["0" * 64, "yes", "*"])
def test_a_wrong_sha256_does_not_unpickle(bomb, sha256):
    path, victim = bomb
    with pytest.raises(DataError, match=r"has the sha256 [0-9a-f]{64}, not .*; it was not unpick"):
        read_weights(path, unpickle_sha256=sha256)
    assert not victim.exists()


# Nothing closes the file that the code opens.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_sha256_permits_unpickling(bomb):
    path, victim = bomb
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    weights = read_weights(path, unpickle_sha256=digest.upper())
    assert weights["weight"].tolist() == [1, 1]
    assert victim.exists()


def test_a_sha256_does_not_unpickle_without_need(tmp_path, model, monkeypatch):
    save_model(model, tmp_path / "model_final.pth")
    monkeypatch.setattr(pickle, "load", None)
    monkeypatch.setattr("cuvler.tensor_files._unpickle", None)
    load_trained(narrow(), tmp_path / "model_final.pth", unpickle_sha256="0" * 64)


def test_checkpoints_with_an_argparse_namespace_are_read_if_trusted(tmp_path):
    """Like DINO's full checkpoints, which contain an argparse.Namespace."""
    path = tmp_path / "full.pth"
    state = {"model": {"weight": torch.ones(2)}, "args": argparse.Namespace(arch="resnet50")}
    torch.save(state, path)
    with pytest.raises(DataError, match=r"asks for argparse\.Namespace\)"):
        read_weights(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert list(read_weights(path, unpickle_sha256=digest)) == ["weight"]
    path.write_bytes(b"no zip")
    digest = hashlib.sha256(b"no zip").hexdigest()
    with pytest.raises(DataError, match=r"full\.pth: not a pickle"):
        read_weights(path, unpickle_sha256=digest)


def test_unusable_files_are_named(model, tmp_path):
    path = tmp_path / "weights.pth"
    with pytest.raises(DataError, match=r"weights\.pth: no such file"):
        read_weights(path)
    path.write_bytes(b"no zip")
    with pytest.raises(DataError, match=r"weights\.pth: not a file of tensors"):
        read_weights(path)
    torch.save({"model": model.state_dict()}, path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"weights\.pth: damaged"):
        read_weights(path)
    torch.save({"model": {"a": "text"}}, path)
    with pytest.raises(DataError, match="a is not a tensor but str"):
        read_weights(path)
    torch.save([1], path)
    with pytest.raises(DataError, match=r"weights\.pth: not a state dict"):
        read_weights(path)
    torch.save({"blocks.0.weight": torch.zeros(2)}, path)
    with pytest.raises(DataError, match=r"none of its 1 parameters .* blocks\.0\.weight"):
        load_weights(model, path)


def test_weights_that_are_not_finite_are_damaged(model, tmp_path):
    name = "backbone.bottom_up.stem.conv1.weight"
    state = model.state_dict() | {name: torch.full_like(model.state_dict()[name], torch.nan)}
    torch.save({"model": state}, tmp_path / "weights.pth")
    with pytest.raises(DataError, match=rf"weights\.pth: damaged \({name} .*NaN"):
        load_weights(narrow(), tmp_path / "weights.pth")


def test_trained_weights_must_match_completely(model, tmp_path):
    name = "roi_heads.box_predictor.1.cls_score.weight"
    path = tmp_path / "weights.pth"
    state = model.state_dict()
    torch.save({"model": {n: v for n, v in state.items() if n != name}}, path)
    with pytest.raises(DataError, match=f"lacks {name}"):
        load_trained(narrow(), path)
    torch.save({"model": {**state, "roi_heads.other": torch.zeros(1)}}, path)
    with pytest.raises(DataError, match=r"weights\.pth: .*unexpected roi_heads\.other"):
        load_trained(narrow(), path)
    torch.save({"model": {**state, name: torch.zeros(81, 16)}}, path)
    with pytest.raises(DataError, match=f"shape {name}"):
        load_trained(narrow(), path)
    # As initial weights they are accepted, for fine-tuning on other classes.
    assert load_weights(narrow(), path).mismatched == (name,)
