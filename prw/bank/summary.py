"""A bank described for people: in the terminal and in a node."""

from ..config import BankInfo
from ..files.validate import escape_controls
from ..flux.families import FAMILIES
from .bank import Bank, select_model
from .shapes import list_expert_keys


def describe_bank(bank: Bank, title: str) -> str:
    """Describes a text of tables: base, experts, routers, and what a user of each expert should know."""
    info, base = bank.info, bank.info.base
    models = f", {len(info.models)} whole models" if info.models else ""
    lines = [
        f"{title}: {len(info.experts)} experts, {len(info.routers)} routers{models}",
        f"base     {base.name or 'unnamed'} ({FAMILIES[base.family].label}): width {base.hidden_size}, "
        f"{base.double_blocks} double and {base.single_blocks} single blocks, {base.in_channels} channels in",
        f"source   time {info.source.time}{' (runs in every step)' if info.source.follows_time else ''}, guidance {info.source.guidance:g}"
        + (f", position {info.source.position}" if info.source.position else ""),
        f"licence  {info.licence or 'not stated'}",
    ]
    if info.experts or not info.models:
        lines += [
            "",
            *align_columns(
                [["expert", "task", "role", "rank", "alpha", "changes", "type", "iterations"], *_expert_rows(bank)]
            ),
        ]
    if info.routers:
        lines += [
            "",
            *align_columns(
                [["router", "task", "per", "chooses among (share of the blocks, where known)"], *_router_rows(bank)]
            ),
        ]
    if info.models:
        lines += ["", *align_columns([["whole model", "numbers", "GiB", "type", "file"], *_model_rows(bank)])]
    for name in info.experts:
        lines += _note_lines(info, name)
    return "\n".join(map(escape_controls, lines))


def align_columns(rows: list[list[str]]) -> list[str]:
    """Joins each row's cells to a line, columns as wide as their longest cell."""
    rows = [[escape_controls(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def _expert_rows(bank: Bank) -> list[list[str]]:
    """Makes a row an expert; those that add to another stand below it, further in."""
    places = {name: place for place, name in enumerate(bank.info.experts)}
    families = {name: [each for each in bank.info.list_family(name)[::-1] if each in places] for name in places}
    return [
        [
            "  " * (len(families[name]) - 1) + name,
            expert.task or "-",
            expert.role or "-",
            str(expert.rank),
            f"{expert.alpha:g}",
            ", ".join(f"{target} ({where})" for target, where in expert.targets.items()),
            _describe_type(bank, name),
            str(expert.iterations or "-"),
        ]
        for name in sorted(families, key=lambda name: [places[each] for each in families[name]])
        for expert in [bank.info.experts[name]]
    ]


def _model_rows(bank: Bank) -> list[list[str]]:
    rows = []
    for name, model in bank.info.models.items():
        tensors = list(select_model(bank.tensors, name).values())
        numbers, size = sum(t.numel() for t in tensors), sum(t.nbytes for t in tensors)
        kinds = dict.fromkeys(str(t.dtype).removeprefix("torch.") for t in tensors)
        rows.append([name, f"{numbers / 1e9:.2f} billion", f"{size / 2**30:.2f}", ", ".join(kinds), model.data or "-"])
    return rows


def _describe_type(bank: Bank, name: str) -> str:
    kind = str(bank.tensors[list_expert_keys(bank.info, name)[0]].dtype).removeprefix("torch.")
    return kind + (f", down shared in {shared}" if (shared := bank.info.experts[name].shared) else "")


def _router_rows(bank: Bank) -> list[list[str]]:
    rows = []
    for stage, router in bank.info.routers.items():
        shares = [f" {share:.0%}" for share in router.usage] or [""] * len(router.experts)
        among = ", ".join(name + share for name, share in zip(router.experts, shares))
        rows.append([stage, router.task or "-", router.per, among])
    return rows


def _note_lines(info: BankInfo, name: str) -> list[str]:
    """Says what a user of an expert should know, if anything."""
    expert = info.experts[name]
    source_format, notes = expert.source_format, []
    if parents := info.list_family(name)[1:]:
        ranks = [info.experts[each].rank for each in (name, *parents) if each in info.experts]
        known = f"rank {sum(ranks)} together" if len(ranks) > len(parents) else "which is in another file"
        notes.append(f"adds to {', '.join(parents)}, {known}")
    if source_format.side:
        notes.append(f"sources of {source_format.side} x {source_format.side}, {source_format.fit or 'any shape'}")
    if source_format.hole:
        notes.append(f"holes {source_format.hole}")
    if expert.triggers:
        notes.append(f"prompt with: {'; '.join(expert.triggers)}")
    if expert.licence:
        notes.append(f"licence: {expert.licence}")
    return ["", f"{name}: {', '.join(notes)}"] if notes else []
