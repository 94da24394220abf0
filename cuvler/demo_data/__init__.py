"""The demo's data: rendered still lifes with exact masks, in COCO's format."""

from cuvler.demo_data.dataset import generate

__all__ = ["generate"]
