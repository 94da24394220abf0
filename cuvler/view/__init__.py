"""Looking at a COCO json: its masks over a few of its images, as one HTML page."""

from cuvler.view.content import choose, read_content
from cuvler.view.page import make_page

__all__ = ["choose", "make_page", "read_content"]
