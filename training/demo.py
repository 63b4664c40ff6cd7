"""`cologen demo`: the five tasks from picture to picture, on a machine with nothing but Python.

The weights are random until a trained set ships, so what comes out is noise of the right shape; every
step on the way is the real one. Sources are drawn here.
"""

import tempfile
from functools import partial
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from ..prw.attachment import Attachment
from ..prw.bank import random_bank
from ..prw.config import Base
from ..prw.embedded import LATENT_SCALE, LATENT_SHIFT, velocity
from ..prw.pick import columns_of
from ..prw.sampling import euler, timesteps
from ..prw.source import Routing, Source
from ..prw.tasks import TASKS
from .pixels import latent_of, picture_of
from .route_picture import draw_routes
from .shapes import bank_info, random_flux

SIDE, STEPS = 128, 8
GREY = (128, 128, 128)


def scene() -> Image.Image:
    picture = Image.new("RGB", (SIDE, SIDE), (96, 148, 196))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 84, SIDE, SIDE), (92, 138, 76))
    draw.ellipse((18, 40, 62, 84), (214, 72, 62))
    draw.polygon([(72, 84), (94, 36), (116, 84)], (236, 186, 66))
    return picture


def sources() -> dict[str, Image.Image]:
    """What each task is given, drawn from one scene."""
    whole = scene()
    hole = whole.copy()
    ImageDraw.Draw(hole).rectangle((66, 30, 120, 90), GREY)
    subject = Image.new("RGB", (SIDE, SIDE), (255, 255, 255))
    subject.paste(whole.crop((14, 36, 66, 88)), (38, 38))
    edges = whole.convert("L").filter(ImageFilter.FIND_EDGES).point(lambda value: 255 * (value > 40)).convert("RGB")
    given = {"inpaint": hole, "ground": whole, "control": edges, "subject": subject, "edit": whole}
    return {task: given.get(task, whole) for task in TASKS}


def demo(out: Path, comfy: bool = False) -> Path:
    """Runs all tasks and returns the path of one sheet: source, result and route for each."""
    out.mkdir(parents=True, exist_ok=True)
    if comfy:
        from .server import demo_pictures

        with tempfile.TemporaryDirectory() as folder:
            rows = demo_pictures(Path(folder), sources())
    else:
        rows = _embedded(sources())
    path = out / ("demo-comfy.png" if comfy else "demo.png")
    _sheet(rows).save(path)
    return path.resolve()


def _embedded(given: dict[str, Image.Image]) -> list[tuple[str, Image.Image, Image.Image, Image.Image]]:
    flux = random_flux(gain=1.0)
    bank = random_bank(bank_info(Base.of(flux), rank=8), up=0.3, router=0.3)
    generator = torch.Generator().manual_seed(0)
    context, pooled = torch.randn(1, 8, 32, generator=generator), torch.randn(1, 16, generator=generator)
    noise = torch.randn(1, 16, SIDE // 8, SIDE // 8, generator=generator)
    rows = []
    for task, picture in given.items():
        attachment, source = Attachment(bank), Source(latent_of(picture), Routing(task=task))

        def predict(x, timestep, progress, attachment=attachment, source=source):
            return velocity(flux, x, timestep, context, pooled, torch.full((1,), 3.5), attachment, [source], progress)

        with torch.inference_mode():
            latent = euler(predict, noise, timesteps(STEPS, tokens=(SIDE // 16) ** 2)) / LATENT_SCALE + LATENT_SHIFT
        (entry,) = attachment.cache.rows.values()
        routes = draw_routes([(task, columns_of(bank, source.routing)[1].experts, entry.row.routes)])
        rows.append((task, picture, picture_of(latent), routes))
    return rows


def _sheet(rows) -> Image.Image:
    margin, label = 12, 24
    widest = max(routes.width for *_, routes in rows)
    height = max(SIDE, *(routes.height for *_, routes in rows)) + label + margin
    sheet = Image.new("RGB", (2 * SIDE + widest + 4 * margin, height * len(rows) + margin), (24, 26, 31))
    write = partial(ImageDraw.Draw(sheet).text, fill=(222, 226, 232), font=ImageFont.load_default(size=14))
    for i, (task, source, result, routes) in enumerate(rows):
        top = margin + i * height
        write((margin, top), f"{TASKS[task].label}: source, result with random weights, chosen experts")
        for x, picture in ((margin, source), (SIDE + 2 * margin, result.resize((SIDE, SIDE)))):
            sheet.paste(picture, (x, top + label))
        sheet.paste(routes, (2 * SIDE + 3 * margin, top + label))
    return sheet
