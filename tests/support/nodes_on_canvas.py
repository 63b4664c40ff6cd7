"""A node of a graph that is written in Python: its inputs as the host describes them, its values, and the size that it needs."""

from collections.abc import Iterator
from typing import Any, NamedTuple

WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "BOUNDING_BOXES")
SEEDS = ("seed", "noise_seed")
"""Widgets behind which the frontend puts one of its own: what becomes of the number after a run."""
GROWS = "COMFY_AUTOGROW_V3"
NOTE = "MarkdownNote"
WIDE, NARROW = 300, 230
SMALL = (
    "VAEDecode",
    "VAEEncode",
    "KSamplerSelect",
    "GetImageSize",
    "RandomNoise",
    "CFGGuider",
    "GrowMask",
    "InvertMask",
)
"""Nodes that are legible when narrow."""
MIDDLE = 14
"""Of a slot."""
FRAME, SLOT, ROW, LINES, BADGE, FOLD, BUTTON = 20, 20, 28, 90, 26, 40, 30
"""Heights below a title, as the new drawing has them; the classic one needs less."""
PREVIEWS = {
    "SaveImage": 300, "PreviewImage": 270, "LoadImage": 260, "PreviewAny": 90, "ImageCompare": 300, "CoLoGenControlMap": 270,
    "CoLoGenCropForInpaint": 270, "CoLoGenReadGrounding": 270, "CoLoGenBestOf": 270, "CoLoGenRouteMap": 290, "CoLoGenBranchMap": 290,
    "CoLoGenUsagePlot": 270, "CoLoGenTrainStage": 270, "CoLoGenTrainSubject": 270, "CoLoGenTrainCurriculum": 270,
    "CoLoGenInspectExperts": 240, "CoLoGenEvaluate": 200, "CoLoGenAttentionMap": 600, "CreateBoundingBoxes": 430,
}  # fmt: skip
"""Room for what a run shows in a node."""


class Output(NamedTuple):
    node: "Node"
    slot: int


class Node:
    """`size` is without the title; a box that is given is the least there may be."""

    def __init__(self, number: int, kind: str, info: dict, title: str = "", box=(0, 0), models=(), section: str = ""):
        self.number, self.kind, self.info, self.title, self.models = number, kind, info, title, models
        self.box, self.section = box, section
        self.pos, self.column = [0.0, 0.0], 0
        self.values: dict[str, Any] = {}
        self.kept: dict[str, Any] = {}
        """Of linked knobs, what stands on the node, where that is not its default."""
        self.after, self.text = "fixed", ""

    def __getitem__(self, output: str | int) -> Output:
        return Output(self, output if isinstance(output, int) else self.info["output_name"].index(output))

    @property
    def types(self) -> dict[str, Any]:
        """Input names in their order -> type, options."""
        groups = self.info["input"]
        order = [name for group in ("required", "optional") for name in self.info["input_order"].get(group, [])]
        described = {**groups.get("required", {}), **groups.get("optional", {})}
        return dict(entry for name in order for entry in self._grow(name, described[name]))

    def _grow(self, name: str, described: list) -> Iterator[tuple[str, Any]]:
        """An input, or as many as were given of one that grows, and one more."""
        if described[0] != GROWS:
            yield name, described
            return
        template = described[1]["template"]
        (kind,) = template["input"]["required"].values()
        for i in range(sum(given.startswith(f"{name}.") for given in self.values) + 1):
            yield f"{name}.{template['prefix']}{i}", kind

    def options(self, name: str) -> dict:
        return self.types[name][1] if len(self.types[name]) > 1 else {}

    def is_widget(self, name: str) -> bool:
        kind = self.types[name][0]
        return isinstance(kind, list) or (kind in WIDGETS and not self.options(name).get("forceInput"))

    def choices(self, name: str) -> list | None:
        kind = self.types[name][0]
        return kind if isinstance(kind, list) else self.options(name)["options"] if kind == "COMBO" else None

    def accepts(self, name: str, value: Any) -> bool:
        """Files need not be here."""
        choices = self.choices(name)
        return isinstance(value, Output) or choices is None or value in choices or "." in str(value)

    def default(self, name: str) -> Any:
        kind, options, choices = self.types[name][0], self.options(name), self.choices(name)
        if choices is not None:
            return options.get("default", choices[0] if choices else "")
        return options.get("default", {"STRING": "", "BOOLEAN": False}.get(kind, 0))

    def filled(self) -> dict[str, Any]:
        """What it is given, and defaults where nothing is."""
        return {name: self.default(name) for name in self.types if self.is_widget(name)} | self.values

    def sockets(self) -> list[str]:
        """Names of what the frontend lists as inputs: those without a widget, and widgets that a link feeds."""
        return [name for name in self.types if not self.is_widget(name) or isinstance(self.values.get(name), Output)]

    def sources(self) -> Iterator["Node"]:
        """The nodes that this one takes from."""
        return (value.node for value in self.values.values() if isinstance(value, Output))

    @property
    def size(self) -> list[float]:
        """What both drawings need, or the box where that is more."""
        wide, high = self.box
        least = NARROW if self.kind in SMALL else WIDE
        return [wide or least, max(high, 0 if self.kind == NOTE else self._height())]

    def input_y(self, name: str) -> float:
        """Where a link arrives; roughly, if that is at a widget."""
        sockets = [known for known in self.types if not self.is_widget(known)]
        return self.pos[1] + MIDDLE + SLOT * (sockets.index(name) if name in sockets else len(sockets) + 1)

    def output_y(self, slot: int) -> float:
        return self.pos[1] + MIDDLE + SLOT * slot

    def _height(self) -> float:
        widgets = [name for name in self.types if self.is_widget(name)]
        folded = [name for name in widgets if self.options(name).get("advanced")]
        shown = [name for name in widgets if name not in folded]
        lines = sum(bool(self.options(name).get("multiline")) for name in shown)
        slots = max(len(self.types) - len(widgets), len(self.info["output_name"]))
        height = FRAME + SLOT * slots + ROW * (len(shown) - lines) + LINES * lines + FOLD * bool(folded)
        height += BUTTON * any(self.options(name).get("image_upload") for name in shown)
        return height + BADGE * self.kind.startswith("CoLoGen") + PREVIEWS.get(self.kind, 0)
