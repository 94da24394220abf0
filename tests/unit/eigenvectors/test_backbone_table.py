import pytest
import timm

from cuvler.eigenvectors.backbones import (
    BACKBONES,
    BackboneDefinition,
    backbone_spec,
    own_graph,
    parse_definitions,
)
from cuvler.eigenvectors.timm_models import find_timm_model
from cuvler.errors import ConfigError

OWN = {"timm": "test_vit.r160_in1k", "feature": "value", "size": 64}


def test_table_holds_the_backbones_of_the_paper():
    grids = {name: spec.grid[0] for name, spec in BACKBONES.items()}
    paper = {"dino_s16": 30, "dino_s8": 60, "dino_b16": 30, "dino_b8": 60}
    paper |= {"dinov2_s14": 34, "dinov2_b14": 34}
    pixels = {"pixels_p16": 30, "pixels_p14": 34, "pixels_p8": 60}
    pixels |= {"colours_p8": 60, "colours_p4": 120}
    assert grids.items() >= (paper | pixels).items()
    for name in paper:
        assert BACKBONES[name].feature == ("key" if name.startswith("dino_") else "patch_tokens")
        assert BACKBONES[name].graph() == {"tau": 0.15, "eps": 1e-5}


def table():
    """The ViTs; most are made of the same few architectures, and the large ones take long."""
    quick = ("dino_s8", "dinov2_s14_reg", "dinov3_s16", "deit_s16")
    for name, spec in BACKBONES.items():
        if spec.timm:
            yield pytest.param(spec, id=name, marks=() if name in quick else pytest.mark.slow)


@pytest.mark.parametrize("spec", list(table()))
def test_the_table_says_what_timm_says(spec):
    assert timm.models.get_pretrained_cfg(spec.timm).hf_hub_id == f"timm/{spec.timm}"
    assert find_timm_model(spec.timm).patch == spec.patch
    assert spec.name[-1] == "g" or spec.name.endswith(str(spec.patch))
    assert spec.size % spec.patch == 0


def test_users_can_define_their_own():
    spec = backbone_spec("mine", {"mine": OWN | {"layer": 2, "tau": 0.5}})
    assert (spec.name, spec.timm, spec.patch, spec.grid) == ("mine", OWN["timm"], 16, (4, 4))
    assert spec.settings() == {"backbone": "mine", **OWN, "patch": 16, "layer": 2}


def test_a_definition_changes_a_backbone_of_the_table():
    changed = backbone_spec("dinov3_s16", {"dinov3_s16": {"tau": 0.4, "size": 512}})
    assert (changed.timm, changed.grid) == (BACKBONES["dinov3_s16"].timm, (32, 32))
    assert changed.graph() == {"tau": 0.4, "eps": 1e-5}
    other = backbone_spec("dino_s16", {"dino_s16": {"timm": "vit_small_patch8_224.dino"}})
    assert other.patch == 8
    assert backbone_spec("pixels_p8", {"pixels_p8": {"size": 64}}).grid == (8, 8)


def test_what_is_given_goes_before_what_is_the_backbones_own():
    spec = BACKBONES["dinov3_b16"]
    assert 0.15 < spec.graph()["tau"] < spec.graph(tau=0.9)["tau"] == 0.9
    assert own_graph("dinov3_b16", {}) == {"tau": spec.tau}
    assert own_graph("dino_s8", {}) == {}
    own = {"dino_s8": BackboneDefinition(eps=1e-4), "mine": BackboneDefinition(**OWN, tau=0.3)}
    assert own_graph("dino_s8", own) == {"eps": 1e-4}
    assert own_graph("mine", own) == {"tau": 0.3}


def test_an_unknown_name_is_named_with_the_nearest():
    with pytest.raises(ConfigError, match=r"'dino_s61' is not known; did you mean dino_s16\?"):
        backbone_spec("dino_s61")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"feature": "keys"}, "feature: 'keys' is not allowed.*'patch_tokens'"),
        ({"size": 100}, "size 100 .*patch 16; choose 96 or 112"),
        ({"size": 16}, "size 16 .*choose 32 or 48"),
        ({"size": "64"}, "size: '64' is not allowed"),
        ({"tau": 1.5}, "tau: 1.5 is not allowed"),
        ({"colour": "red"}, "colour: unknown key"),
        ({"siez": 64}, r"siez: unknown key; did you mean size\?"),
        ({"timm": None}, "timm missing"),
        ({"timm": "vit_smal_patch16_224"}, r"did you mean vit_small_patch16_224\?"),
        ({"timm": "resnet18"}, r"'resnet18' \(timm's ResNet\).*grids of its layers differ"),
        ({"timm": "swin_tiny_patch4_window7_224"}, "no plain vision transformer.*4, 8, 16, 32"),
    ],
)
def test_a_wrong_definition_is_refused(change, message):
    with pytest.raises(ConfigError, match=f"'mine': .*{message}"):
        backbone_spec("mine", {"mine": OWN | change})


@pytest.mark.parametrize(
    ("name", "definition", "message"),
    [
        ("dinov3_s61", {"tau": 0.5}, r"timm, feature, size missing.*did you mean dinov3_s16\?"),
        ("dino_s16", {"size": 100}, "'dino_s16': size 100"),
        ("pixels_p8", {"feature": "key"}, "pixel backbone has no feature"),
    ],
)
def test_a_wrong_change_of_the_table_is_refused(name, definition, message):
    with pytest.raises(ConfigError, match=message):
        backbone_spec(name, {name: definition})


def test_a_definition_of_another_backbone_is_checked_too():
    with pytest.raises(ConfigError, match=r"'pixels_p61': timm, feature, size missing"):
        backbone_spec("pixels_p16", {"pixels_p61": {"tau": 0.2}})


@pytest.mark.parametrize("text", ["[]", "{", '{"tiny": 1}'])
def test_definitions_that_define_nothing_are_refused(text):
    with pytest.raises(ConfigError, match="defin"):
        parse_definitions(text)
