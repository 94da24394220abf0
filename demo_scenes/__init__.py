"""The demo's dataset: rendered still lifes with exact masks, in COCO format."""

from demo_scenes.dataset import generate

__all__ = ["generate"]
