import functools

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from cuvler.eigenvectors.backbones import backbone_spec
from cuvler.eigenvectors.vit import ViTFeatures, create_vit, load_vit, prepare_image
from cuvler.errors import ConfigError, DataError

OWN = {"timm": "test_vit", "feature": "key", "size": 64}


def spec(**changes):
    return backbone_spec("mine", {"mine": OWN | changes})


def images(size=64):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8, generator=generator)


# One model of each kind of block, attention and tokens that timm has -> what makes it small.
SMALL = {"depth": 2, "embed_dim": 48, "num_heads": 2}
DYNAMIC = SMALL | {"dynamic_img_size": True}
SIZED = SMALL | {"img_size": 80}
FAMILIES = {
    "vit_small_patch16_224": DYNAMIC,
    "vit_small_patch14_reg4_dinov2": DYNAMIC,
    "vit_medium_patch16_gap_240": DYNAMIC,  # without a class token
    "vit_base_patch16_xp_224": DYNAMIC,  # attention and MLP in one projection; norm of q and k
    "vit_base_patch16_rpn_224": DYNAMIC,  # the norm behind attention
    "vit_dwee_patch16_reg1_gap_256": DYNAMIC,  # differential attention
    "deit_tiny_distilled_patch16_224": DYNAMIC,
    "vit_small_patch16_dinov3": DYNAMIC,
    "vit_small_patch16_dinov3_qkvb": DYNAMIC,
    "eva02_base_patch14_224": DYNAMIC,  # a projection for each of q, k and v
    "eva02_enormous_patch14_clip_224": DYNAMIC,  # the norm behind attention
    "vit_base_patch16_sapiens2": DYNAMIC | {"num_kv_heads": 1},
    "vit_small_patch16_rope_mixed_224": DYNAMIC,
    "beit_base_patch16_224": SIZED,
    "vit_relpos_small_patch16_224": SIZED,
    "vit_relpos_small_patch16_rpn_224": SIZED,
    "cait_xxs24_224": SIZED,
    "xcit_nano_12_p16_224": SIZED,
    "samvit_base_patch16_224": SIZED | {"window_size": 0, "global_attn_indexes": (0, 1)},
}


def small(name):
    """A small model of a family, in which no bias and no scale is zero or one."""
    model = timm.create_model(name, num_classes=0, **FAMILIES[name]).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in model.parameters():
            value.normal_(0.3 * (value.ndim == 1), 0.3, generator=generator)
    return model


def normalised(model, batch):
    config = timm.data.resolve_model_data_config(model)
    mean, std = (torch.tensor(config[name])[:, None, None] for name in ("mean", "std"))
    return (batch / 255 - mean) / std


def by_timm(model, batch, monkeypatch):
    """The patch tokens that timm gives, and q, k and v of the last block's attention."""
    seen, attention = {}, getattr(model.blocks[-1], "attn", model.blocks[-1])
    real = torch.nn.functional.scaled_dot_product_attention

    def attend(q, k, v, *args, **kwargs):
        seen.update(zip("qkv", (q, k, v), strict=True))
        return real(q, k, v, *args, **kwargs)

    def split(_module, _inputs, out):  # for attention that torch does not have
        heads = out.unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
        seen.update(zip("qkv", heads, strict=True))

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attend)
    if type(attention).__name__ in ("TalkingHeadAttn", "XCA"):
        attention.qkv.register_forward_hook(split)
    before = {}
    for letter in "qk":  # before they are rotated
        norm = getattr(attention, f"{letter}_norm", None)
        if norm is not None:
            norm.register_forward_hook(lambda _m, _i, out, at=letter: before.update({at: out}))
    with torch.no_grad():
        (grid,) = model.forward_intermediates(
            normalised(model, batch), indices=1, norm=True, intermediates_only=True
        )
    if "k" in before:  # where two heads share a key, the value was repeated
        seen["v"] = seen["v"][:, :: getattr(attention, "num_kv_groups", 1)]
    flat = {}
    for letter, heads in (seen | before).items():
        heads = heads.reshape(len(batch), -1, *heads.shape[-2:])
        if heads.shape[2] >= 25:  # (b, heads, n, d), as in most
            heads = heads.transpose(1, 2)
        flat[letter] = heads.flatten(2)[:, -grid[0, 0].numel() :]
    return grid.flatten(2).transpose(1, 2), flat


@pytest.mark.parametrize("name", FAMILIES)
def test_features_are_those_of_timms_own_forward_pass(name, monkeypatch):
    size = 5 * (14 if "patch14" in name else 16)
    model = small(name)
    tokens, attended = by_timm(model, images(size), monkeypatch)
    features = ViTFeatures(model, "patch_tokens")(images(size))
    torch.testing.assert_close(features, tokens, rtol=0, atol=1e-5 * float(tokens.abs().max()))
    every = {}
    for feature in ("key", "query", "value"):
        every[feature] = ViTFeatures(small(name), feature)(images(size))
        expected = attended[feature[0]]
        near = 1e-5 * max(1, float(expected.abs().max()))
        torch.testing.assert_close(every[feature], expected, rtol=0, atol=near)
    together = ViTFeatures(small(name), "key_query_value")(images(size))
    torch.testing.assert_close(together, torch.cat(list(every.values()), -1))


def test_features_that_a_model_does_not_have_are_refused():
    model = timm.create_model("vit_small_patch16_18x2_224", **DYNAMIC)
    with pytest.raises(ConfigError, match=r"no key is known .*ParallelThingsBlock.*patch_tokens"):
        ViTFeatures(model, "key")  # of which of a block's two attention layers?


@pytest.mark.parametrize("layer", [0, 1, -2])
@pytest.mark.parametrize("feature", ["key", "patch_tokens"])
def test_features_of_a_layer_are_those_of_a_model_that_ends_there(feature, layer):
    whole, ends = (small("vit_small_patch16_dinov3_qkvb") for _ in range(2))
    ends.blocks = ends.blocks[: layer % 2 + 1]
    ends.feature_info = ends.feature_info[: layer % 2 + 1]
    expected = ViTFeatures(ends, feature)(images(80))
    torch.testing.assert_close(ViTFeatures(whole, feature, layer=layer)(images(80)), expected)


def test_keys_are_those_before_the_rotation():
    # Of patches that look the same, rotated ones would differ by their places.
    model = small("vit_small_patch16_dinov3")
    same = torch.full((1, 3, 80, 80), 99, dtype=torch.uint8)
    keys = ViTFeatures(model, "key", layer=0)(same)[0]
    torch.testing.assert_close(keys, keys[:1].expand_as(keys))


def test_images_are_normalised_as_the_model_was_trained():
    create = functools.partial(timm.create_model, **DYNAMIC)
    land = create("vit_large_patch16_dinov3.sat493m")
    features = ViTFeatures(land, "patch_tokens")
    assert features.mean.flatten().tolist() == pytest.approx([0.43 * 255, 0.411 * 255, 0.296 * 255])
    assert features.std.flatten().tolist() == pytest.approx([0.213 * 255, 0.156 * 255, 0.143 * 255])


def test_patches_come_row_by_row():
    # Without attention and positions a token depends on its own patch alone.
    model = create_vit(spec(feature="patch_tokens"))
    image = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    image[:, :, 16:32, 48:] = 255  # row 1, column 3
    features = ViTFeatures(model, "patch_tokens")
    with torch.no_grad():
        model.pos_embed.zero_()
        for block in model.blocks:
            block.attn.proj.weight.zero_()
            block.attn.proj.bias.zero_()
    tokens = features(image)[0]
    different = (tokens - tokens[0]).abs().amax(dim=1) > 1e-4
    assert different.nonzero().flatten().tolist() == [1 * 4 + 3]


def test_images_are_resized_without_keeping_the_aspect():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 50, 3), np.uint8))
    prepared = prepare_image(image, 64)
    assert prepared.shape == (3, 64, 64)
    assert prepared.dtype == torch.uint8
    expected = np.asarray(image.resize((64, 64), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(prepared.permute(1, 2, 0), expected)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_local_weights_are_loaded(tmp_path, suffix):
    model = create_vit(spec())
    path = tmp_path / f"weights{suffix}"
    state = model.state_dict() | {"head.weight": torch.zeros(3)}  # of no use here
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    loaded = load_vit(spec(), path).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in model.state_dict().items())


def test_weights_of_another_model_are_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    state = create_vit(spec()).state_dict()
    save_file({k: v for k, v in state.items() if "blocks.5." not in k}, path)
    with pytest.raises(DataError, match=r"w\.safetensors: does not fit test_vit; it lacks blocks"):
        load_vit(spec(), path)
    save_file(state | {"norm.weight": torch.zeros(7)}, path)
    with pytest.raises(DataError, match=r"(?s)does not fit test_vit: .*norm\.weight"):
        load_vit(spec(), path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer": 12}, "layer 12: test_vit has the layers 0 to 5"),
        ({"layer": -7}, "layer -7"),
    ],
)
def test_models_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ConfigError, match=f"'mine': .*{message}"):
        create_vit(spec(**changes))


def test_mixed_precision_is_near():
    torch.manual_seed(0)
    model = create_vit(spec())
    exact = ViTFeatures(model, "key")(images())
    torch.manual_seed(0)
    mixed = ViTFeatures(create_vit(spec()), "key", "float16")(images())
    assert mixed.dtype == torch.float32
    assert not torch.equal(mixed, exact)
    assert torch.nn.functional.cosine_similarity(mixed, exact, dim=-1).min() > 0.9999
