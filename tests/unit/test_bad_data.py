"""A folder of everything that can be wrong with images, through extraction, voting and merging."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from cuvler.annotations import merge_shards
from cuvler.eigenvectors.backbones import backbone_spec
from cuvler.eigenvectors.extraction import extract_shard
from cuvler.eigenvectors.features import load_backbone
from cuvler.eigenvectors.needs import Eigenvectors
from cuvler.errors import DataError
from cuvler.listing import list_images
from cuvler.pseudo_masks.shard import info_of, process_shard, read_attributes, write_shard
from cuvler.pseudo_masks.vote_cut import VoteCut
from cuvler.report.accounting import account


def scene(width=120, height=90):
    pixels = np.random.default_rng(0).integers(0, 50, (height, width, 3), dtype=np.uint8)
    pixels[height // 4 : height // 2, width // 4 : width // 2] += 180
    return Image.fromarray(pixels)


def save_good(folder):
    """Images that look strange but are images: name -> (width, height) upright."""
    scene().save(folder / "plain.jpg")
    scene().convert("CMYK").save(folder / "cmyk.jpg")
    scene().convert("L").save(folder / "grey.png")
    scene().convert("1").save(folder / "bilevel.png")
    scene().convert("P").save(folder / "palette.png", transparency=0)
    scene().convert("RGBA").save(folder / "alpha.png")
    scene().convert("LA").save(folder / "grey_alpha.png")
    deep = np.asarray(scene().convert("L")).astype(np.uint16) * 256
    Image.fromarray(deep).save(folder / "sixteen_bits.png")
    frames = [scene(), scene().rotate(90)]
    frames[0].save(folder / "animated.webp", save_all=True, append_images=frames[1:])
    frames[0].save(folder / "animated_png.png", save_all=True, append_images=frames[1:])
    frames[0].save(folder / "gif_in_disguise.jpg", "GIF", save_all=True, append_images=frames[1:])
    exif = Image.Exif()
    exif[0x0112] = 6
    scene().save(folder / "turned.jpg", exif=exif)
    scene(1, 1).save(folder / "one_pixel.png")
    Image.new("RGB", (120, 90)).save(folder / "black.jpg")
    scene(3, 2).save(folder / "six_pixels.png")
    scene(20_000, 1).save(folder / "long.png")
    scene(1, 20_000).save(folder / "high.png")
    for name in (
        "-dash.jpg",
        "sp ace.jpg",
        "qu'o\"te.jpg",
        "new\nline.jpg",
        "ünï日本.jpg",
        "plain.png",
    ):
        scene().save(folder / name)
    (folder / "link.jpg").symlink_to(folder / "plain.jpg")
    sizes = {path.name: (120, 90) for path in folder.iterdir()}
    return sizes | {
        "turned.jpg": (90, 120),
        "one_pixel.png": (1, 1),
        "six_pixels.png": (3, 2),
        "long.png": (20_000, 1),
        "high.png": (1, 20_000),
    }


def save_bad(folder):
    """Files with an image's name that are none, and images that go away: name -> status."""
    whole = (folder / "plain.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "header_only.jpg").write_bytes(whole[:20])
    (folder / "empty.jpg").touch()
    (folder / "zeros.png").write_bytes(bytes(1000))
    (folder / "page.jpg").write_text("<html>404</html>")
    Image.new("1", (20_000, 20_000)).save(folder / "huge.png")
    (folder / "folder.jpg").symlink_to(folder)
    (folder / "dangling.jpg").symlink_to(folder / "nowhere")
    shutil.copy(folder / "plain.jpg", folder / "vanishing.jpg")
    unreadable = ("truncated", "header_only", "empty", "page")
    return {
        **{f"{name}.jpg": "unreadable" for name in unreadable},
        "zeros.png": "unreadable",
        "huge.png": "unreadable",
        "dangling.jpg": "missing",
        "vanishing.jpg": "missing",
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The listing, the shard, and what is expected of it."""
    folder = tmp_path_factory.mktemp("photos")
    sizes, statuses = save_good(folder), save_bad(folder)
    listing = list_images(folder)
    (folder / "vanishing.jpg").unlink()
    results = tmp_path_factory.mktemp("results")
    backbone = load_backbone(backbone_spec("pixels_p16"))
    stores = [results / "0.zarr.zip"]
    extract_shard(listing, folder, backbone, stores[0], need=Eigenvectors())
    method = VoteCut(backbones=("pixels_p16",))
    records = process_shard(listing, folder, stores, method)
    write_shard(results / "0.json", info_of(read_attributes(stores), method), records)
    return listing, results, sizes, statuses


def test_every_file_is_accounted_for(run):
    _, results, sizes, statuses = run
    shard = json.loads((results / "0.json").read_text())
    found = {image["file_name"]: image for image in shard["images"]}
    assert found.keys() == sizes.keys() | statuses.keys()
    for name, status in statuses.items():
        assert found[name]["status"] == status, found[name]
        assert found[name]["reason"]
    for name, size in sizes.items():
        assert found[name]["status"] in ("ok", "no_mask", "uniform"), found[name]
        assert (found[name]["width"], found[name]["height"]) == size
    uniform = {name for name, image in found.items() if image["status"] == "uniform"}
    assert uniform == {"black.jpg", "one_pixel.png"}
    assert found["plain.jpg"]["status"] == "ok"


def test_the_same_picture_has_the_same_masks_in_any_dress(run):
    _, results, _, _ = run
    shard = json.loads((results / "0.json").read_text())
    ids = {image["file_name"]: image["id"] for image in shard["images"]}
    masks = {
        name: [a["bbox"] for a in shard["annotations"] if a["image_id"] == image_id]
        for name, image_id in ids.items()
    }
    assert masks["plain.png"]
    for name in ("alpha.png", "animated_png.png"):
        assert masks[name] == masks["plain.png"]
    assert masks["link.jpg"] == masks["plain.jpg"] == masks["-dash.jpg"]


def test_the_merge_names_what_is_left_out_and_the_report_counts_it(run):
    listing, results, sizes, statuses = run
    share = len(statuses) / len(listing)
    with pytest.raises(DataError, match=rf"{len(statuses)} of {len(listing)} images.*max_failed"):
        merge_shards(
            listing, [results / "0.json"], results / "merged.json", max_failed=share - 0.01
        )
    assert not (results / "merged.json").exists()
    merge_shards(listing, [results / "0.json"], results / "merged.json", max_failed=share)
    counted = account(results / "merged.json")
    assert counted.num_images == len(listing) == len(sizes) + len(statuses)
    assert {item["file_name"]: item["status"] for item in counted.excluded} == statuses
    assert counted.statuses["unreadable"] == 6
    assert counted.statuses["missing"] == 2
    assert counted.statuses["uniform"] == 2
