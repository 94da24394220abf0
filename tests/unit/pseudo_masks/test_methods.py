"""The registry: a method of another package is one module, and nothing else knows of it."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import cuvler
from cuvler.cli import cuvler as cli
from cuvler.commands.method_options import MethodCommand, method_arguments
from cuvler.config import check
from cuvler.errors import ConfigError, DataError
from cuvler.masks import decode
from cuvler.pseudo_masks import methods
from cuvler.pseudo_masks.agglomerative import Agglomerative
from cuvler.pseudo_masks.mask_cut import MaskCut
from cuvler.pseudo_masks.methods import find_method, make_method, method_names
from cuvler.pseudo_masks.vote_cut import VoteCut

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def installed(monkeypatch):
    """Put a folder with a package on the path, and forget it afterwards."""

    def install(folder):
        monkeypatch.syspath_prepend(folder)
        forget()

    def forget():
        methods._registered.cache_clear()
        methods.find_method.cache_clear()

    known = set(sys.modules)
    yield install
    monkeypatch.undo()
    forget()
    for name in set(sys.modules) - known:
        if name in ("toy", "halves"):
            del sys.modules[name]


@pytest.fixture
def toy(toy_package, installed):
    installed(toy_package)


@pytest.fixture
def config():
    content = yaml.safe_load((REPOSITORY / "config/config.yaml").read_text())
    known = yaml.safe_load((REPOSITORY / "config/datasets.yaml").read_text())
    return content | {"datasets": known["datasets"]}


@pytest.fixture
def photos(tmp_path):
    """Two pictures of a bright square on a dark ground, and where the square is."""
    truth = np.zeros((96, 128), dtype=bool)
    truth[32:64, 32:80] = True
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        pixels = rng.integers(0, 60, (*truth.shape, 3)) + 180 * truth[..., None]
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "photos" / name)
    return tmp_path / "photos", truth


def run(*words):
    result = CliRunner().invoke(cli, list(map(str, words)))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def iou(one, other):
    return (one & other).sum() / (one | other).sum()


def masks_of(folder, photos, method, eigenvectors, *options):
    """Run `cuvler pseudo-masks` and `cuvler annotations`; give the merged json."""
    listing = folder / "listing.parquet"
    words = ["pseudo-masks", "--method", method, "--listing", listing, "--image-root", photos]
    output = folder / "masks" / method
    done = run(*words, "--shard", 0, *eigenvectors, *options, "--output", output / "0.json")
    assert done.exit_code == 0, done.output
    merged = folder / f"{method}.json"
    assert run("annotations", "--listing", listing, output, "--output", merged).exit_code == 0
    return json.loads(merged.read_text())


def test_a_method_of_another_package_goes_through_the_commands(toy, photos, tmp_path):
    root, truth = photos
    listing, store = tmp_path / "listing.parquet", tmp_path / "0.zarr.zip"
    assert run("images", "--dataset", "d", "--image-root", root, "--output", listing).exit_code == 0
    words = ["eigenvectors", "--listing", listing, "--image-root", root, "--backbone", "pixels_p16"]
    assert run(*words, "--shard", 0, "--output", store).exit_code == 0
    merged = masks_of(
        tmp_path, root, "split", ["--eigenvectors", store], "--level", 0.9, "--no-largest"
    )
    assert {k: v for k, v in merged["info"].items() if k != "weights_sha256"} == {
        "method": "split",
        "backbones": ["pixels_p16"],
        "tau": 0.15,
        "eps": 1e-5,
        "level": 0.9,
        "largest": False,
    }
    assert merged["summary"]["images"] == {"ok": 2}
    mask = decode(merged["annotations"][0]["segmentation"])
    assert 0 < mask.mean() < 0.12

    alone = masks_of(tmp_path, root, "bright", [])
    assert alone["info"] == {"method": "bright", "backbones": [], "weights_sha256": []}
    assert iou(decode(alone["annotations"][1]["segmentation"]), truth) > 0.99
    with pytest.raises(ConfigError, match="bright works without backbones, not with pixels_p16"):
        masks_of(tmp_path, root, "bright", ["--eigenvectors", store])


def test_a_method_of_another_package_discovers(toy, photos, tmp_path):
    root, truth = photos
    words = ["discover", root / "a.png", "--output", tmp_path / "found", "--method"]
    assert run(*words, "bright").exit_code == 0
    (record,) = json.loads((tmp_path / "found/a.json").read_text())["annotations"]
    assert iou(decode(record["segmentation"]), truth) > 0.99
    assert not (tmp_path / "found/a.eigenvectors.png").exists()
    assert run(*words, "split", "--level", 0.75).exit_code == 0
    (record,) = json.loads((tmp_path / "found/a.json").read_text())["annotations"]
    assert 0.12 < decode(record["segmentation"]).mean() < 0.27
    (mask,) = cuvler.discover(Image.open(root / "a.png"), method="split", level=0.75)
    assert (mask.mask == decode(record["segmentation"])).all()


def test_the_documented_method_works(installed, photos, tmp_path):
    text = (REPOSITORY / "docs/extending.md").read_text()
    blocks = dict(re.findall(r"^```(python|toml)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    (tmp_path / "toy_halves-0.1.dist-info").mkdir()
    (tmp_path / "halves.py").write_text(blocks["python"])
    points = tomllib.loads(blocks["toml"])["project"]["entry-points"][methods.GROUP]
    ((name, value),) = points.items()
    entries = f"[{methods.GROUP}]\n{name} = {value}\n"
    (tmp_path / "toy_halves-0.1.dist-info/entry_points.txt").write_text(entries)
    installed(tmp_path)
    words = ["--method", "halves", "--share", 0.3, "--backbone", "pixels_p16"]
    assert run("discover", photos[0] / "a.png", *words, "--output", tmp_path).exit_code == 0
    (record,) = json.loads((tmp_path / "a.json").read_text())["annotations"]
    assert decode(record["segmentation"]).mean() < 0.32


def test_help_lists_the_settings_of_every_method(toy):
    text = run("pseudo-masks", "--help").output
    assert "[votecut|maskcut|agglomerative|bright|split]" in text
    assert "Options of --method split:" in text
    assert "The share that is left out." in text
    assert "0<x<1" in text


def change(config, **sections):
    return config | {"pseudo_masks": config["pseudo_masks"] | sections}


def test_the_config_check_knows_a_method_of_another_package(toy, config):
    recipe = config["recipes"]["cuvler"] | {"method": "split"}
    config |= {"recipe": "toy", "recipes": config["recipes"] | {"toy": recipe}}
    check(config)
    given = change(config, split={"level": 0.3})
    assert check(given).pseudo_masks.method("split") == make_method("split", {"level": 0.3})
    for section, message in (
        ({"level": 1}, r"pseudo_masks\.split\.level: 1 .* below 1"),
        ({"levle": 0.5}, r"pseudo_masks\.split\.levle: unknown key .*did you mean level\?"),
        ({"backbone": "pixels"}, r"pseudo_masks\.split\.backbone: 'pixels' is not known"),
        ({"level": 0.13}, r"pseudo_masks\.split\.level: 0\.13 .*brings bad luck"),
    ):
        with pytest.raises(ConfigError, match=message):
            check(change(config, split=section))


def test_without_the_package_its_method_is_not_known(config):
    recipe = config["recipes"]["cuvler"] | {"method": "split"}
    config |= {"recipes": config["recipes"] | {"toy": recipe}}
    with pytest.raises(
        ConfigError, match=r"toy\.method: 'split' is not known; known: agglomerative, maskcut"
    ):
        check(config)
    with pytest.raises(
        ConfigError, match="'split' is not known; known: votecut, maskcut, agglomerative"
    ):
        find_method("split")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("votecut", "toy:Split", "registered twice, as cuvler.* and toy:Split"),
        ("mine", "toy:Nothing", "'mine': cannot import toy:Nothing"),
        ("mine", "toy_nowhere:Split", "'mine': cannot import toy_nowhere:Split"),
        ("mine", "toy:np", "'mine': toy:np is not a subclass of Method"),
        ("mine", "toy:Split", "'mine': toy:Split must have name = 'mine'"),
        ("my method", "toy:Split", "'my method': .*letters, digits"),
        ("crf", "toy:Split", "'crf': .*pseudo_masks.crf"),
    ],
)
def test_a_wrong_entry_point_is_named(toy_package, installed, name, value, message):
    entries = toy_package / "toy-1.0.dist-info/entry_points.txt"
    entries.write_text(f"[cuvler.methods]\n{name} = {value}\n")
    installed(toy_package)
    with pytest.raises(ConfigError, match=message):
        find_method(name)


def test_a_setting_cannot_take_an_option_of_the_command(toy_package, installed):
    source = (toy_package / "toy.py").read_text()
    (toy_package / "toy.py").write_text(source.replace("largest", "workers"))
    installed(toy_package)
    with pytest.raises(ConfigError, match=r"'split': .*workers"):
        run("pseudo-masks", "--method", "split", "--help")


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("votecut", {"tau_m": 1}, r"votecut\.tau_m: 1 is not allowed"),
        ("votecut", {"ks": [2, 1]}, r"votecut\.ks\.1: 1 is not allowed"),
        ("votecut", {"ks": [2, 2]}, r"votecut\.ks: .*more than once: 2"),
        ("votecut", {"n": 3}, r"votecut\.n: no such setting; known: .*tau_m"),
        ("maskcut", {"crf": "fst"}, r"maskcut\.crf: 'fst' is not allowed .*'pydensecrf'"),
    ],
)
def test_a_wrong_setting_is_named(name, settings, message):
    with pytest.raises(ConfigError, match=message):
        make_method(name, settings)


@pytest.mark.parametrize(
    ("name", "backbones", "message"),
    [
        ("maskcut", [], "one backbone, not with none"),
        ("maskcut", ["a", "b"], "one backbone, not with a, b"),
        ("votecut", [], r"votecut\.backbones: "),
        ("votecut", ["a", "a"], r"votecut\.backbones: .*more than once: a"),
    ],
)
def test_a_wrong_number_of_backbones_is_named(name, backbones, message):
    with pytest.raises(ConfigError, match=message):
        make_method(name, {}, backbones=backbones)


def test_options_of_another_method_are_refused():
    result = run("discover", "--method", "maskcut", "--ks", 2, __file__)
    assert result.exit_code == 2
    assert "--ks" in result.output


SETTINGS = {
    "votecut": st.fixed_dictionaries(
        {
            "ks": st.lists(st.integers(2, 99), min_size=1, unique=True),
            "tau_m": st.floats(0, 1, exclude_max=True),
            "num_eigenvectors": st.integers(1, 9),
            "max_masks": st.integers(1, 99),
            "crf": st.sampled_from(["fast", "pydensecrf"]),
        }
    ),
    "maskcut": st.fixed_dictionaries(
        {"n": st.integers(1, 99), "crf": st.sampled_from(["fast", "pydensecrf"])}
    ),
    "agglomerative": st.fixed_dictionaries(
        {
            "thresholds": st.lists(
                st.floats(-1, 1, exclude_min=True, exclude_max=True), min_size=1, unique=True
            ),
            "max_masks": st.integers(1, 99),
            "crf": st.sampled_from(["fast", "pydensecrf"]),
        }
    ),
}


@pytest.mark.parametrize("name", SETTINGS)
@given(data=st.data())
def test_settings_go_through_a_command_unchanged(name, data):
    method = make_method(name, data.draw(SETTINGS[name]))
    found = {}
    command = MethodCommand("x", callback=lambda **values: found.update(values))
    command.main(["--method", name, *method_arguments(method)], standalone_mode=False)
    assert found.pop("method") == name
    assert make_method(name, found) == method


def test_the_config_has_the_methods_own_defaults(config):
    for method in (VoteCut(), MaskCut(), Agglomerative()):
        name = method.name
        assert check(config).pseudo_masks.method(name) == method
        assert config["pseudo_masks"][name].keys() | {"crf"} == type(method).model_fields.keys()


def test_the_registry_is_light():
    script = (
        "import sys; from cuvler.pseudo_masks.methods import find_method, method_names\n"
        "print({'scipy', 'torch'} & set(sys.modules))\n"
        "methods = [find_method(name)() for name in method_names()]\n"
        "needs = [method.needs() for method in methods]\n"
        "print({'torch', 'numba', 'zarr', 'pandas', 'pydensecrf'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stdout.split("\n")[:2] == ["set()", "set()"], result.stderr


@pytest.mark.slow
def test_eigenvectors_of_another_backbone_or_problem_are_refused(photos, tmp_path):
    root, _ = photos
    listing, store = tmp_path / "listing.parquet", tmp_path / "0.zarr.zip"
    run("images", "--dataset", "d", "--image-root", root, "--output", listing)
    words = ["eigenvectors", "--listing", listing, "--image-root", root, "--backbone", "pixels_p16"]
    run(
        *words, "--shard", 0, "--problem", "generalized", "--num-eigenvectors", 2, "--output", store
    )
    with pytest.raises(DataError, match=r"0\.zarr\.zip: .*problem='generalized', not 'standard'"):
        masks_of(tmp_path, root, "votecut", ["--eigenvectors", store])
    with pytest.raises(DataError, match=r"0\.zarr\.zip: .*k=2.* 3 are wanted"):
        masks_of(tmp_path, root, "maskcut", ["--eigenvectors", store])
    assert masks_of(tmp_path, root, "maskcut", ["--eigenvectors", store], "--n", 1)["images"]
    stopped = ["--eigenvectors", store, "--stop-at-background"]
    with pytest.raises(DataError, match=r"0\.zarr\.zip: .*stop_at_background=False, not True"):
        masks_of(tmp_path, root, "maskcut", stopped, "--n", 1)
    cut = [*words, "--shard", 0, "--stop-at-background", "--output", store]
    with pytest.raises(ConfigError, match="'generalized', not 'standard'"):
        run(*cut)
    run(*cut, "--problem", "generalized")
    file = masks_of(tmp_path, root, "maskcut", stopped, "--n", 1)
    assert file["info"]["stop_at_background"] is True


def test_settings_that_the_published_methods_lack_are_recorded_where_they_are_set():
    assert MaskCut().info() == {"n": 3, "crf": "fast"}
    assert MaskCut(stop_at_background=True).info()["stop_at_background"] is True
    assert VoteCut().info() == {"ks": [2, 3], "tau_m": 0.2, "crf": "fast"}


@pytest.mark.parametrize("thresholds", [(), (1.0,), (0.2, 0.2), (0.5, "a")])
def test_wrong_thresholds_are_named_once(thresholds):
    with pytest.raises(ConfigError, match=r"agglomerative\.thresholds.* is not allowed") as error:
        make_method("agglomerative", {"thresholds": thresholds})
    assert str(error.value).count("is not allowed") == 1


@pytest.mark.slow
def test_agglomerative_goes_through_the_commands(photos, tmp_path):
    root, truth = photos
    listing, store = tmp_path / "listing.parquet", tmp_path / "0.zarr.zip"
    run("images", "--dataset", "d", "--image-root", root, "--output", listing)
    words = ["eigenvectors", "--listing", listing, "--image-root", root, "--backbone", "pixels_p16"]
    with pytest.raises(ConfigError, match="merge tree has 2"):
        run(
            *words,
            "--shard",
            0,
            "--problem",
            "merge_tree",
            "--num-eigenvectors",
            3,
            "--output",
            store,
        )
    assert run(*words, "--shard", 0, "--problem", "merge_tree", "--output", store).exit_code == 0
    options = ["--thresholds", 0.5, "--thresholds", 0.9, "--max-masks", 3]
    merged = masks_of(tmp_path, root, "agglomerative", ["--eigenvectors", store], *options)
    assert {k: v for k, v in merged["info"].items() if k != "weights_sha256"} == {
        "method": "agglomerative",
        "backbones": ["pixels_p16"],
        "thresholds": [0.5, 0.9],
        "max_masks": 3,
        "crf": "fast",
    }
    best = merged["annotations"][0]
    assert iou(decode(best["segmentation"]), truth) > 0.8
    words = ["discover", root / "a.png", "--method", "agglomerative", "--backbone", "pixels_p16"]
    assert run(*words, *options, "--output", tmp_path / "found").exit_code == 0
    found = json.loads((tmp_path / "found/a.json").read_text())["annotations"]
    stored = [r for r in merged["annotations"] if r["image_id"] == best["image_id"]]
    assert [r["segmentation"] for r in found] == [r["segmentation"] for r in stored]
    assert (tmp_path / "found/a.eigenvectors.png").exists()


def test_every_name_is_registered():
    assert method_names() == ("votecut", "maskcut", "agglomerative")
    assert [find_method(name) for name in method_names()] == [VoteCut, MaskCut, Agglomerative]
