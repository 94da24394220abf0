import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer

from cuvler.eigenvectors.backbones import VIT_FEATURES, backbone_spec
from cuvler.eigenvectors.vit import ViTFeatures, create_vit, load_vit, prepare_image
from cuvler.errors import ConfigError, DataError

MEAN_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OWN = {"timm": "test_vit", "feature": "key", "size": 64, "patch": 16}


def spec(**changes):
    return backbone_spec("mine", {"mine": OWN | changes})


def images(size=64):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("feature", VIT_FEATURES)
def test_features_are_what_the_whole_model_computes(feature):
    torch.manual_seed(0)
    model = create_vit(spec()).eval()
    seen = {}
    attention = model.blocks[-1].attn
    attention.qkv.register_forward_hook(lambda _m, _i, out: seen.update(qkv=out))
    mean, std = ([[[255 * v]] for v in values] for values in MEAN_STD)
    with torch.no_grad():
        tokens = model.forward_features((images() - torch.tensor(mean)) / torch.tensor(std))
    query, key, value = seen["qkv"].chunk(3, dim=-1)
    # test_vit normalises nothing in its heads, so projections are what attention sees.
    assert isinstance(attention.k_norm, torch.nn.Identity)
    every = {"query": query, "key": key, "value": value, "patch_tokens": tokens}
    every["key_query_value"] = torch.cat([key, query, value], dim=-1)
    expected = every[feature][:, model.num_prefix_tokens :]

    features = ViTFeatures(model, feature)(images())
    assert features.shape == (2, 16, 192 if feature == "key_query_value" else 64)
    torch.testing.assert_close(features, expected)


def test_keys_pass_the_norm_of_models_that_have_one():
    torch.manual_seed(0)
    model = VisionTransformer(
        img_size=64, embed_dim=32, depth=1, num_heads=2, num_classes=0, qk_norm=True
    ).eval()
    seen = {}
    model.blocks[-1].attn.k_norm.register_forward_hook(lambda _m, _i, out: seen.update(key=out))
    with torch.no_grad():
        model.forward_features((images().float() - 128) / 64)
    features = ViTFeatures(model, "key")
    features.mean.fill_(128)
    features.std.fill_(64)
    expected = seen["key"].transpose(1, 2).flatten(2)[:, 1:]
    torch.testing.assert_close(features(images()), expected)


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
        ({"timm": "no_such_model"}, "timm model 'no_such_model'"),
        ({"timm": "resnet18"}, "resnet18"),
        ({"patch": 8}, "has patches of 16 pixels, not 8"),
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
