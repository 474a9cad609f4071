"""Which files does the on-premises server hold? 200 small pictures: real, different, the same on every machine."""

from __future__ import annotations

import colorsys
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

COUNT = 200
WIDTH, HEIGHT = 160, 120  # pixels
FIRST_TAKEN = 1_740_819_600  # 2025-03-01T09:00:00Z; one picture a minute
EDITION = "images-1"  # the cache's folder; another name when the drawing changes


def name(number: int) -> str:
    """The file of a picture: 00001.jpg is the first."""
    return f"{number:05d}.jpg"


def lay_out(folder: Path, cache: Path) -> None:
    """Put all pictures in a new folder, with their times. They are drawn once and copied from `cache` later."""
    drawn = cache / EDITION
    if not drawn.is_dir():
        _draw_all(drawn)
    folder.mkdir()
    for number in range(1, COUNT + 1):
        target = folder / name(number)
        shutil.copyfile(drawn / name(number), target)  # no links: whoever writes to the export leaves the cache alone
        target.chmod(0o644)
        taken = FIRST_TAKEN + 60 * number
        os.utime(target, (taken, taken))
    folder.chmod(0o755)
    os.utime(folder, (FIRST_TAKEN + 60 * COUNT,) * 2)


def _draw_all(folder: Path) -> None:
    """Draw into a folder that appears when it is complete."""
    half_made = folder.with_name(folder.name + ".new")
    shutil.rmtree(half_made, ignore_errors=True)
    half_made.mkdir(parents=True)
    for number in range(1, COUNT + 1):
        _draw(number, half_made / name(number))
    half_made.rename(folder)


def _draw(number: int, path: Path) -> None:
    """A sun over hills below its number. Bytes may vary with Pillow's build, the picture does not."""
    from PIL import Image, ImageDraw

    hue = number * 0.618 % 1
    sky = Image.linear_gradient("L").resize((WIDTH, HEIGHT))
    picture = Image.composite(_solid(hue, 0.35, 1.0), _solid(hue + 0.08, 0.75, 0.75), sky)
    draw = ImageDraw.Draw(picture)
    x, y = 15 + number * 37 % (WIDTH - 30), 40 + number * 13 % 30
    draw.ellipse((x - 12, y - 12, x + 12, y + 12), fill=(255, 240, 130))
    for hill in range(3):
        middle, top = (number * (29 + 14 * hill) + 60 * hill) % WIDTH, 70 + hill * 12
        draw.ellipse((middle - 70, top, middle + 70, top + 120), fill=_colour(hue + 0.3, 0.5, 0.6 - 0.15 * hill))
    draw.text((6, 4), f"No. {number}", fill=(20, 20, 20), font_size=22)
    picture.save(path, "JPEG", quality=85)


def _solid(hue: float, saturation: float, value: float) -> Image.Image:
    from PIL import Image

    return Image.new("RGB", (WIDTH, HEIGHT), _colour(hue, saturation, value))


def _colour(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)
