import json
import logging
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from huggingface_hub import constants
from PIL import Image, ImageDraw

import cuvler
from cuvler import masks
from cuvler.cli import cuvler as cli
from cuvler.commands.discover import in_options
from cuvler.commands.weights import command as weights_command
from cuvler.discovery import NoWeightsError
from cuvler.eigenvectors.backbones import backbone_spec, parse_definitions
from cuvler.errors import ConfigError
from cuvler.images import open_image

PIXELS = ("pixels_p16", "pixels_p14", "pixels_p8")


@pytest.fixture(scope="module")
def disc():
    """A red disc on a green, noisy ground, and its mask."""
    rng = np.random.default_rng(0)
    ground = rng.normal((70, 120, 60), 12, (150, 200, 3)).clip(0, 255).astype(np.uint8)
    image = Image.fromarray(ground)
    ImageDraw.Draw(image).ellipse((60, 40, 130, 110), fill=(200, 40, 40))
    rows, columns = np.mgrid[:150, :200]
    return image, (rows - 75) ** 2 + (columns - 95) ** 2 <= 35**2


def test_the_object_is_found(disc):
    image, truth = disc
    best = cuvler.discover(image, backbones=PIXELS)[0]
    assert best.score == 1
    assert (best.mask & truth).sum() / (best.mask | truth).sum() > 0.9


def test_the_object_is_cut(disc):
    image, truth = disc
    first = cuvler.discover(image, method="maskcut", backbones=["pixels_p8"])[0]
    assert (first.mask & truth).sum() / (first.mask | truth).sum() > 0.9


def test_maskcut_works_with_one_backbone(disc):
    with pytest.raises(ConfigError, match="one backbone, not with pixels_p16, pixels_p14"):
        cuvler.discover(disc[0], method="maskcut", backbones=PIXELS)


@pytest.mark.parametrize("size", [(1, 1), (300, 2), (64, 64)])
@pytest.mark.parametrize(
    "arguments", [{"backbones": PIXELS}, {"method": "maskcut", "backbones": ["pixels_p8"]}]
)
def test_a_uniform_image_has_no_object(size, arguments):
    assert cuvler.discover(Image.new("L", size, 90), **arguments) == []
    noise = np.random.default_rng(0).integers(0, 8, size[::-1], np.uint8)
    assert cuvler.discover(Image.fromarray(noise), **arguments) == []


@pytest.mark.parametrize("size", [(2, 1), (300, 2), (64, 64)])
def test_nothing_to_find_is_no_crash(size):
    image = Image.linear_gradient("L").resize(size)
    for mask in cuvler.discover(image, backbones=PIXELS):
        assert mask.mask.shape == size[::-1]
    for mask in cuvler.discover(image, method="maskcut", backbones=["pixels_p8"]):
        assert mask.mask.shape == size[::-1]


def test_bars_around_a_picture_are_no_object(disc):
    image, truth = disc
    boxed = Image.new("RGB", (200, 210))
    boxed.paste(image, (0, 30))
    whole = np.zeros((210, 200), bool)
    whole[30:180] = truth
    ious = [
        (found.mask & whole).sum() / (found.mask | whole).sum()
        for found in cuvler.discover(boxed, backbones=PIXELS)
    ]
    assert max(ious) > 0.8


@pytest.fixture
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.mark.parametrize(
    ("arguments", "choice"),
    [
        ({}, PIXELS),
        ({"method": "maskcut"}, PIXELS[-1:]),
        ({"backbones": ["pixels_p16", "dino_s16"]}, PIXELS),
    ],
)
def test_nothing_takes_the_place_of_weights_that_are_missing(offline, disc, arguments, choice):
    with pytest.raises(NoWeightsError, match="offline mode") as error:
        cuvler.discover(disc[0], **arguments)
    # What the message says to choose works.
    assert f"backbones={list(choice)}" in str(error.value)
    assert cuvler.discover(disc[0], **arguments | {"backbones": choice})


def test_only_the_weights_that_are_not_here_are_missing(offline, disc, tmp_path):
    folder = tmp_path / "cuvler/weights"
    folder.mkdir(parents=True)
    (folder / "dino_b16.safetensors").touch()
    with pytest.raises(NoWeightsError) as error:
        cuvler.discover(
            disc[0], backbones=["dino_s8", "dino_b16", "dino_s16"], weights={"dino_s8": "w.pth"}
        )
    assert error.value.missing == {"dino_s16": "dino_s16.safetensors"}
    assert error.value.folder == folder


def test_the_weights_of_a_users_own_backbone_are_fetched_with_its_definition(offline, disc):
    defined = {"mine": {"timm": "deit_tiny_patch16_224", "feature": "key", "size": 64}}
    with pytest.raises(NoWeightsError) as error:
        cuvler.discover(disc[0], backbones=["mine"], definitions=defined)
    command = str(in_options(error.value, json.dumps(defined)))
    (fetch,) = re.findall("cuvler (weights .*)", command)
    with weights_command.make_context("weights", shlex.split(fetch)[1:]) as context:
        given = context.params
    assert backbone_spec(given["backbone"], parse_definitions(given["definitions"]))
    # Where it is looked for.
    assert given["output"] == Path("deit_tiny_patch16_224.safetensors")


def test_a_method_without_a_graph_has_no_tau(disc):
    with pytest.raises(ConfigError, match=r"0\.4: agglomerative has no graph"):
        cuvler.discover(disc[0], method="agglomerative", backbones=["pixels_p14"], tau=0.4)


def discover_alone(tmp_path, hub):
    """Run the command as in a shell, and return its message and the seconds it took."""
    disc = Image.new("RGB", (60, 40), "red")
    disc.save(tmp_path / "x.png")
    home = {"XDG_CACHE_HOME": str(tmp_path), "HF_HOME": str(tmp_path / "hf")}
    home |= {"HF_ENDPOINT": hub, "HF_HUB_ETAG_TIMEOUT": "1"}
    start = time.perf_counter()
    result = subprocess.run(
        [sys.executable, "-c", "from cuvler.cli import main; main()", "discover", "x.png"],
        cwd=tmp_path,
        env=os.environ | home,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    return result.stderr, time.perf_counter() - start


def test_without_a_network_the_command_says_so_soon(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        message, seconds = discover_alone(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert seconds < 4  # of which it waits for one; torch and timm alone take as long to import
    assert "no answer within 1 s" in message
    for name in ("dino_s16", "dino_b8"):
        assert f"--weights {name}=FILE" in message
        assert f"cuvler weights --backbone {name} --output {name}.safetensors" in message
    assert str(tmp_path / "cuvler/weights") in message
    assert "--backbone pixels_p16 --backbone pixels_p14 --backbone pixels_p8" in message


def test_an_unknown_backbone_is_named(disc):
    with pytest.raises(ConfigError, match=r"pixel_p16.*did you mean pixels_p16"):
        cuvler.discover(disc[0], backbones=["pixel_p16"])


def test_weights_that_nobody_uses_are_refused(disc):
    with pytest.raises(ConfigError, match=r"'dino_s61'.* used: pixels_p16"):
        cuvler.discover(disc[0], backbones=["pixels_p16"], weights={"dino_s61": "w.pth"})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_missed(disc):
    with pytest.raises(ConfigError, match="torch finds no GPU here"):
        cuvler.discover(disc[0], backbones=["pixels_p16"], device="cuda")


def test_tau_and_the_number_of_cuts_are_the_callers(disc):
    one = {"method": "maskcut", "backbones": ["pixels_p8"], "n": 1}
    assert len(cuvler.discover(disc[0], **one)) == 1
    assert cuvler.discover(disc[0], **one, tau=-1) == []  # all patches are joined


def test_a_backbone_can_have_settings_of_its_own(disc):
    one = {"method": "maskcut", "backbones": ["pixels_p8"], "n": 1}
    own = {"pixels_p8": {"tau": -1, "size": 240}}
    assert cuvler.discover(disc[0], **one, definitions=own) == []
    assert len(cuvler.discover(disc[0], **one, definitions=own, tau=0.15)) == 1


def run(folder, *images):
    options = [option for name in PIXELS for option in ("--backbone", name)]
    arguments = ["discover", *options, "--output", str(folder / "found"), *map(str, images)]
    return CliRunner().invoke(cli, arguments)


def test_the_command_writes_pictures_and_json(disc, tmp_path):
    image, truth = disc
    image.save(tmp_path / "it's red.png")
    result = run(tmp_path, tmp_path / "it's red.png")
    assert result.exit_code == 0, result.output
    found = tmp_path / "found"
    content = json.loads((found / "it's red.json").read_text())
    assert content["images"] == [
        {"id": 1, "file_name": "it's red.png", "width": 200, "height": 150}
    ]
    best = masks.decode(content["annotations"][0]["segmentation"])
    assert (best & truth).sum() / (best | truth).sum() > 0.9
    assert open_image(found / "it's red.masks.png").size == (200, 150)
    assert open_image(found / "it's red.eigenvectors.png").size == (824, 180)


def test_the_command_cuts(disc, tmp_path):
    disc[0].save(tmp_path / "x.png")
    arguments = ["discover", "--method", "maskcut", "--n", "2", "--tau", "0.2"]
    arguments += ["--backbone", "pixels_p8", "--output"]
    result = CliRunner().invoke(cli, [*arguments, str(tmp_path / "found"), str(tmp_path / "x.png")])
    assert result.exit_code == 0, result.output
    # The image, and the eigenvector of each cut.
    assert open_image(tmp_path / "found/x.eigenvectors.png").size == (616, 180)
    assert json.loads((tmp_path / "found/x.json").read_text())["annotations"]


def test_a_folder_stands_for_its_images(disc, tmp_path):
    (tmp_path / "photos/more").mkdir(parents=True)
    (tmp_path / "photos/notes.txt").write_text("no image")
    disc[0].save(tmp_path / "photos/b.PNG")
    disc[0].save(tmp_path / "photos/a.jpg")
    arguments = ["discover", "--backbone", "pixels_p16", "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(cli, [*arguments, str(tmp_path / "photos")])
    assert result.exit_code == 0, result.output
    assert {path.stem for path in (tmp_path / "out").glob("*.json")} == {"a", "b"}
    (tmp_path / "photos/a.jpg").write_bytes(b"no image")
    (tmp_path / "out/b.json").unlink()
    result = CliRunner().invoke(cli, [*arguments, str(tmp_path / "photos")])
    assert result.exit_code == 1
    assert "of 2 images 1 could not be opened" in str(result.exception)
    assert (tmp_path / "out/b.json").exists()
    result = CliRunner().invoke(cli, [*arguments, str(tmp_path / "photos/more")])
    assert re.search(r"more: no image files \(.jpg.*.heif\)", str(result.exception))


def test_images_of_one_name_do_not_overwrite_each_other(disc, tmp_path):
    for name in ("a/x.png", "b/x.png", "b/x.webp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        disc[0].save(tmp_path / name)
    result = run(tmp_path, tmp_path / "a/x.png", tmp_path / "b")
    assert result.exit_code == 0, result.output
    written = {path: json.loads(path.read_text()) for path in (tmp_path / "found").rglob("*.json")}
    named = {
        path.relative_to(tmp_path / "found").as_posix(): content["images"][0]["file_name"]
        for path, content in written.items()
    }
    assert named == {
        "a/x.json": "a/x.png",
        "b/x.png.json": "b/x.png",
        "b/x.webp.json": "b/x.webp",
    }


def test_an_output_that_cannot_be_written_costs_one_image(disc, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    for name in ("a", "b", "x" * 240):
        disc[0].save(tmp_path / f"{name}.png")
    (tmp_path / "found/a.masks.png").mkdir(parents=True)
    result = run(tmp_path, tmp_path)
    assert result.exit_code == 1
    assert "of 3 images 1 could not be written" in str(result.exception)
    assert f"drawn in {tmp_path / 'found/b'}" in caplog.text
    assert f"drawn in {tmp_path / 'found/a'}" not in caplog.text
    assert len(list((tmp_path / "found").glob("[bx]*.json"))) == 2
    # The results of the first run are not images of the second one.
    assert "of 3 images" in str(run(tmp_path, tmp_path).exception)
