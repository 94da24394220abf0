"""Weight files in the layouts in which the ViTs were published, with models of two small layers."""

import functools

import pytest
import timm
import torch
from safetensors.torch import save_file

from cuvler.eigenvectors.backbones import backbone_spec
from cuvler.eigenvectors.timm_models import find_timm_model
from cuvler.eigenvectors.vit import create_vit, load_vit, vit_features
from cuvler.errors import DataError

WIDTH, DEPTH = 24, 2


@pytest.fixture(autouse=True)
def small_models(monkeypatch):
    small = {"embed_dim": WIDTH, "depth": DEPTH, "num_heads": 2}
    find_timm_model.cache_clear()
    monkeypatch.setattr(timm, "create_model", functools.partial(timm.create_model, **small))
    yield
    find_timm_model.cache_clear()


def spec(timm_name, size=64):
    definition = {"timm": timm_name, "feature": "patch_tokens", "size": size}
    return backbone_spec("mine", {"mine": definition})


def linear(name, inputs, outputs):
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def norm(name):
    return {f"{name}.weight": (WIDTH,), f"{name}.bias": (WIDTH,)}


def tensors(shapes):
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def blocks(scale=False):
    shapes = {}
    for number in range(DEPTH):
        block = f"blocks.{number}"
        shapes |= norm(f"{block}.norm1") | norm(f"{block}.norm2")
        shapes |= linear(f"{block}.attn.qkv", WIDTH, 3 * WIDTH)
        shapes |= linear(f"{block}.attn.proj", WIDTH, WIDTH)
        shapes |= linear(f"{block}.mlp.fc1", WIDTH, 4 * WIDTH)
        shapes |= linear(f"{block}.mlp.fc2", 4 * WIDTH, WIDTH)
        if scale:
            shapes |= {f"{block}.ls1.gamma": (WIDTH,), f"{block}.ls2.gamma": (WIDTH,)}
    return shapes


def embeddings(patch, grid):
    projection = {"patch_embed.proj.weight": (WIDTH, 3, patch, patch)}
    projection |= {"patch_embed.proj.bias": (WIDTH,), "cls_token": (1, 1, WIDTH)}
    return projection | ({"pos_embed": (1, grid * grid + 1, WIDTH)} if grid else {})


def dino():
    return tensors(embeddings(16, 14) | blocks() | norm("norm"))


def dinov2(registers):
    shapes = embeddings(14, 37) | blocks(scale=True) | norm("norm") | {"mask_token": (1, WIDTH)}
    return tensors(shapes | ({"register_tokens": (1, 4, WIDTH)} if registers else {}))


def dinov3(biased=True):
    shapes = embeddings(16, None) | blocks(scale=True) | norm("norm")
    shapes |= {"storage_tokens": (1, 4, WIDTH), "mask_token": (1, WIDTH)}
    state = tensors(shapes) | {"rope_embed.periods": torch.rand(3)}
    mask = torch.ones(3, WIDTH)
    mask[1] = 0  # of keys, which have no bias
    for number in range(DEPTH):
        state[f"blocks.{number}.attn.qkv.bias_mask"] = mask.flatten()
        state[f"blocks.{number}.attn.qkv.bias"] *= float(biased)
    return state


def loaded(path, state, timm_name, size=64):
    torch.save(state, path)
    return load_vit(spec(timm_name, size), path).state_dict()


def test_dinos_files_have_timms_names(tmp_path):
    state = dino()
    for content in (state, {"model": state}, {"state_dict": state, "epoch": 300}):
        found = loaded(tmp_path / "w.pth", content, "vit_small_patch16_224.dino")
        assert found.keys() == state.keys()
        assert all(torch.equal(found[name], value) for name, value in state.items())


@pytest.mark.parametrize("registers", [False, True])
def test_dinov2s_files(tmp_path, registers):
    state = dinov2(registers)
    kind = "reg4_dinov2" if registers else "dinov2"
    found = loaded(tmp_path / "w.pth", state, f"vit_small_patch14_{kind}.lvd142m", size=56)
    assert torch.equal(found["blocks.1.ls2.gamma"], state["blocks.1.ls2.gamma"])
    if registers:  # timm's model has no position of the class token
        assert torch.equal(found["reg_token"], state["register_tokens"])
        position = state["pos_embed"][:, :1]
        assert torch.equal(found["cls_token"], state["cls_token"] + position)
        assert torch.equal(found["pos_embed"], state["pos_embed"][:, 1:])
    else:
        assert torch.equal(found["pos_embed"], state["pos_embed"])


def test_dinov3s_files(tmp_path, capsys):
    state = dinov3()
    found = loaded(tmp_path / "w.pth", state, "vit_small_patch16_dinov3_qkvb.lvd1689m")
    assert torch.equal(found["reg_token"], state["storage_tokens"])
    assert torch.equal(found["blocks.1.gamma_2"], state["blocks.1.ls2.gamma"])
    query, _, value = state["blocks.0.attn.qkv.bias"].chunk(3)
    assert torch.equal(found["blocks.0.attn.q_bias"], query)
    assert torch.equal(found["blocks.0.attn.v_bias"], value)
    features = vit_features(spec("vit_small_patch16_dinov3_qkvb.lvd1689m"), tmp_path / "w.pth")
    assert features(torch.zeros(1, 3, 64, 64, dtype=torch.uint8)).shape == (1, 16, WIDTH)

    plain = loaded(tmp_path / "w.pth", dinov3(biased=False), "vit_small_patch16_dinov3.lvd1689m")
    assert torch.equal(plain["cls_token"], state["cls_token"])
    assert capsys.readouterr().out == ""


def test_biases_that_the_model_has_no_place_for_are_not_dropped(tmp_path):
    with pytest.raises(DataError, match=r"w\.pth: .*no blocks\.0\.attn\.qkv\.bias.*_qkvb"):
        loaded(tmp_path / "w.pth", dinov3(), "vit_small_patch16_dinov3.lvd1689m")


@pytest.mark.parametrize(
    "timm_name", ["vit_small_patch16_dinov3.lvd1689m", "beit_base_patch16_224.in22k_ft_in22k"]
)
def test_timms_own_files(tmp_path, timm_name):
    state = create_vit(spec(timm_name)).state_dict()
    save_file(state, tmp_path / "w.safetensors")
    found = load_vit(spec(timm_name), tmp_path / "w.safetensors").state_dict()
    assert all(torch.equal(found[name], value) for name, value in state.items())
