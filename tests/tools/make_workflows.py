"""Writes example_workflows/: `python tests/tools/make_workflows.py` with a ComfyUI at hand. tests/server/test_workflows.py runs them."""

import support_path  # noqa: F401
import workflows_chroma
import workflows_flux
import workflows_flux2
import workflows_flux2_train
import workflows_inpaint
import workflows_more
import workflows_sampling
import workflows_stickers
import workflows_subject
import workflows_templates
import workflows_toy
from canvas import Canvas
from graph_files import write_graphs
from make_help import add_languages
from nodes_on_canvas import NOTE
from pack import ROOT
from recipes import find_recipe

FOLDER = ROOT / "example_workflows"
WORKFLOWS = {
    name: build
    for module in (
        workflows_stickers,
        workflows_toy,
        workflows_sampling,
        workflows_flux,
        workflows_subject,
        workflows_flux2,
        workflows_flux2_train,
        workflows_chroma,
        workflows_templates,
        workflows_inpaint,
        workflows_more,
    )
    for name, build in module.WORKFLOWS.items()
}
BUILT_IN = [name for name in WORKFLOWS if name.startswith(("sticker", "toy"))]
"""These need no file but those that the pack brings."""

SAMPLERS = ("KSampler", "SamplerCustomAdvanced")
"""A template says beside these how to set them."""


def drawn(name: str, info: dict) -> Canvas:
    canvas = Canvas(info)
    WORKFLOWS[name](canvas)
    where = next(node.section for node in canvas.nodes if node.kind in SAMPLERS or node.kind in canvas.subgraphs)
    canvas.note(find_recipe(name), where, wide=300)
    for node in canvas.nodes:
        if node.kind == NOTE:
            node.text = add_languages(node.text)
    return canvas


def main() -> None:
    write_graphs(FOLDER, WORKFLOWS, drawn)


if __name__ == "__main__":
    main()
