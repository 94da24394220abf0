import pytest
import timm

from cuvler.eigenvectors.backbones import BACKBONES, backbone_spec
from cuvler.errors import ConfigError

OWN = {"timm": "test_vit.r160_in1k", "feature": "value", "size": 64, "patch": 16}


def test_table_holds_the_backbones_of_the_paper():
    grids = {name: spec.grid[0] for name, spec in BACKBONES.items()}
    assert grids == {
        "dino_s16": 30,
        "dino_s8": 60,
        "dino_b16": 30,
        "dino_b8": 60,
        "dinov2_s14": 34,
        "dinov2_b14": 34,
        "pixels_p16": 30,
        "pixels_p14": 34,
        "pixels_p8": 60,
    }
    for spec in BACKBONES.values():
        if spec.timm is not None:
            assert timm.models.get_pretrained_cfg(spec.timm).hf_hub_id == f"timm/{spec.timm}"
        if spec.name.startswith("dino_"):
            assert spec.feature == "key"


def test_users_can_define_their_own():
    spec = backbone_spec("mine", {"mine": OWN})
    assert (spec.name, spec.timm, spec.grid) == ("mine", OWN["timm"], (4, 4))
    assert spec.settings() == {"backbone": "mine", **OWN}


def test_an_unknown_name_is_named_with_the_nearest():
    with pytest.raises(ConfigError, match=r"'dino_s61' is not known; did you mean dino_s16\?"):
        backbone_spec("dino_s61")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"feature": "keys"},
            "feature must be one of key, query, value, key_query_value, patch_tokens",
        ),
        ({"size": 100}, "size 100 .*patch 16"),
        ({"size": 16}, "size 16"),
        ({"size": "64"}, "size must be of type int"),
        ({"patch": 0}, "patch 0"),
        ({"colour": "red"}, "define exactly the keys timm, feature, size, patch"),
    ],
)
def test_a_wrong_definition_is_refused(change, message):
    with pytest.raises(ConfigError, match=f"'mine': .*{message}"):
        backbone_spec("mine", {"mine": OWN | change})
