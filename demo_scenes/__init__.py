"""The demo's data: rendered still lifes with exact masks, in COCO's format."""

from demo_scenes.dataset import generate

__all__ = ["generate"]
