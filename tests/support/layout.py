"""Where nodes of a graph stand: sections from left to right, in each of them a column for every step from given to made.

Heights are what the frontend needs in either of its two drawings, so that no node grows when it is opened; previews have their room
before a run. Links over more than one column run where nothing stands (lanes.py).
"""

from collections.abc import Sequence

from nodes_on_canvas import NOTE, Node

MODEL, GIVEN, TRAINING, ASKED, DRAWING, RESULT, NOTES = (
    "Model",
    "Given",
    "Training",
    "Prompt and task",
    "Drawing",
    "Result",
    "",
)
BLOCKS = ((NOTES,), (MODEL, GIVEN), (TRAINING,), (ASKED,), (DRAWING,), (RESULT,))
"""From left to right; sections of a block stand below each other."""
KINDS = {
    MODEL: (
        "UNETLoader", "DualCLIPLoader", "CLIPLoader", "VAELoader", "CoLoGenLoadFlux", "CoLoGenLoadExperts", "CoLoGenImportExperts",
        "CoLoGenMergeExperts", "CoLoGenApply", "CoLoGenExperts", "CoLoGenFeatures", "CoLoGenLearnedKeys",
    ),
    ASKED: (
        "CLIPTextEncode", "FluxGuidance", "ConditioningZeroOut", "CoLoGenMarkedPrompt", "CoLoGenSourceOptions", "CoLoGenRouting",
        "CoLoGenExpertSchedule", "CoLoGenSource", "CoLoGenEdit", "CoLoGenControl", "CoLoGenSubject", "CoLoGenInpaint", "CoLoGenGround",
        "CoLoGenConceptTokens",
    ),
    DRAWING: (
        "KSampler", "VAEDecode", "VAEEncode", "EmptySD3LatentImage", "EmptyFlux2LatentImage", "SetLatentNoiseMask", "GrowMask", "RandomNoise",
        "CFGGuider", "KSamplerSelect", "BasicScheduler", "Flux2Scheduler", "SamplerCustomAdvanced", "CoLoGenDualBranch",
        "CoLoGenPersonalGuider",
    ),
    RESULT: (
        "SaveImage", "PreviewImage", "PreviewAny", "ImageCompare", "CoLoGenPasteBack", "CoLoGenStitch", "CoLoGenReadGrounding", "CoLoGenRouteMap",
        "CoLoGenBranchMap", "CoLoGenAttentionMap", "CoLoGenUsagePlot", "CoLoGenBestOf", "CoLoGenSaveExperts", "CoLoGenInspectExperts", "CoLoGenEvaluate",
    ),
    TRAINING: ("CoLoGenTrainingData", "CoLoGenTrainStage", "CoLoGenTrainSubject", "CoLoGenTrainCurriculum"),
    NOTES: (NOTE,),
}  # fmt: skip
"""Section -> nodes that stand there if nothing else is said; all others are given."""
SECTIONS = {kind: section for section, kinds in KINDS.items() for kind in kinds}
GAP, SPACE, PADDING, HEADER = 90, 40, 20, 60
"""Between columns, between nodes of a column, and round the nodes of a group."""
HIGHEST = 1150
"""Of a last column."""
TITLE = 30
"""A node's title bar, which stands above its place."""


def group_sections(nodes: Sequence[Node], blocks: Sequence[Sequence[str]]) -> list[list[tuple[str, list[list[Node]]]]]:
    """Block -> its sections and their columns."""
    known = [section for block in blocks for section in block]
    missing = {node.section for node in nodes} - set(known)
    assert not missing, f"no block has the sections {missing}"
    return [
        [(name, split_columns(found)) for name in block if (found := [node for node in nodes if node.section == name])]
        for block in blocks
    ]


def split_columns(nodes: list[Node]) -> list[list[Node]]:
    """Each node right of those it takes from, and no further left of those it gives to than it must be."""
    after: dict[Node, list[Node]] = {node: [] for node in nodes}
    for node in nodes:
        for source in node.sources():
            if source in after:
                after[source].append(node)
    depth = {node: 0 for node in nodes}
    for _ in nodes:
        for node in nodes:
            depth[node] = max([depth[node], *(depth[source] + 1 for source in node.sources() if source in depth)])
    for node in sorted(nodes, key=lambda node: -depth[node]):
        if after[node]:
            depth[node] = min(depth[target] for target in after[node]) - 1
    columns = [[node for node in nodes if depth[node] == i] for i in range(max(depth.values()) + 1)]
    return [*columns[:-1], *wrap_column(columns[-1])]


def wrap_column(nodes: list[Node]) -> list[list[Node]]:
    """What is too high for one column, in several; nobody waits for these nodes."""
    columns, height = [[]], 0.0
    for node in nodes:
        height += node.size[1] + TITLE + SPACE
        if columns[-1] and height > HIGHEST:
            columns.append([])
            height = node.size[1] + TITLE + SPACE
        columns[-1].append(node)
    return columns


def arrange(nodes: Sequence[Node], blocks: Sequence[Sequence[str]] = BLOCKS) -> list[dict]:
    """Places the nodes, tells each its column, and gives the groups of the sections."""
    groups, left, first = [], 0.0, 0
    for block in group_sections(nodes, blocks):
        count = max((len(columns) for _, columns in block), default=0)
        widths = [
            max((node.size[0] for _, columns in block if i < len(columns) for node in columns[i]), default=0)
            for i in range(count)
        ]
        top = 0.0
        for name, columns in block:
            bottom = place_columns(columns, widths, left, top, first)
            if name:
                right = left + sum(widths[: len(columns)]) + GAP * (len(columns) - 1)
                groups.append(make_group(name, left, top, right, bottom))
            top = bottom + 2 * PADDING + HEADER
        left, first = left + sum(widths) + GAP * count, first + count
    for node in nodes:
        for source in node.sources():
            assert source not in nodes or source.column < node.column, (
                f"a link leads back from {source.kind} to {node.kind}"
            )
    return groups


def place_columns(columns: list[list[Node]], widths: list[float], left: float, top: float, first: int) -> float:
    """The lowest edge of what was placed."""
    lowest = top
    for i, (nodes, width) in enumerate(zip(columns, widths)):
        y = top
        for node in nodes:
            node.pos, node.column = [left, y + TITLE], first + i
            y += node.size[1] + TITLE + SPACE
        left, lowest = left + width + GAP, max(lowest, y - SPACE)
    return lowest


def make_group(title: str, left: float, top: float, right: float, bottom: float) -> dict:
    x, y = left - PADDING, top - HEADER
    box = [x, y, right + PADDING - x, bottom + PADDING - y]
    return {"title": title, "bounding": box, "color": COLOURS.get(title, "#88A"), "font_size": 28, "flags": {}}


COLOURS = {MODEL: "#8AA", GIVEN: "#8A8", ASKED: "#b58b2a", TRAINING: "#A88", DRAWING: "#8f7fb8", RESULT: "#3f789e"}
