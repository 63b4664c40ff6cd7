"""Writes subgraphs/: `python tests/tools/make_blueprints.py` with a ComfyUI at hand. tests/server/test_blueprints.py opens them."""

import blueprints_flux
import blueprints_flux2
import support_path  # noqa: F401
from blueprint import Blueprint
from graph_files import write_graphs
from pack import ROOT

FOLDER = ROOT / "subgraphs"
BLUEPRINTS = blueprints_flux.BLUEPRINTS | blueprints_flux2.BLUEPRINTS


def build(name: str, info: dict) -> Blueprint:
    canvas = Blueprint(info, name)
    BLUEPRINTS[name](canvas)
    return canvas


def main() -> None:
    write_graphs(FOLDER, BLUEPRINTS, build)


if __name__ == "__main__":
    main()
