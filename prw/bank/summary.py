"""What is in a bank, as a text that people read: in the terminal and in a node."""

from ..config import ExpertInfo
from .bank import Bank
from .shapes import keys_of


def described(bank: Bank, title: str) -> str:
    info, base = bank.info, bank.info.base
    lines = [
        f"{title}: {len(info.experts)} experts, {len(info.routers)} routers",
        f"base     {base.name or 'unnamed'}: width {base.hidden_size}, {base.double_blocks} double and "
        f"{base.single_blocks} single blocks, {base.in_channels} channels in",
        f"source   time {info.source.time}, guidance {info.source.guidance:g}",
        f"licence  {info.licence or 'not stated'}",
        "",
        *aligned([["expert", "task", "role", "rank", "alpha", "bends", "type", "iterations"], *_experts(bank)]),
    ]
    if info.routers:
        lines += [
            "",
            *aligned([["router", "task", "per", "chooses among (share of the blocks, where known)"], *_routers(bank)]),
        ]
    for name, expert in info.experts.items():
        lines += _notes(name, expert)
    return "\n".join(lines)


def aligned(rows: list[list[str]]) -> list[str]:
    """Columns as wide as their longest entry."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def _experts(bank: Bank) -> list[list[str]]:
    return [
        [
            name,
            expert.task or "-",
            expert.role or "-",
            str(expert.rank),
            f"{expert.alpha:g}",
            ", ".join(f"{target} ({where})" for target, where in expert.targets.items()),
            _type(bank, name),
            str(expert.iterations or "-"),
        ]
        for name, expert in bank.info.experts.items()
    ]


def _type(bank: Bank, name: str) -> str:
    kind = str(bank.tensors[keys_of(bank.info, name)[0]].dtype).removeprefix("torch.")
    return kind + (f", down shared in {shared}" if (shared := bank.info.experts[name].shared) else "")


def _routers(bank: Bank) -> list[list[str]]:
    rows = []
    for stage, router in bank.info.routers.items():
        shares = [f" {share:.0%}" for share in router.usage] or [""] * len(router.experts)
        among = ", ".join(name + share for name, share in zip(router.experts, shares))
        rows.append([stage, router.task or "-", router.per, among])
    return rows


def _notes(name: str, expert: ExpertInfo) -> list[str]:
    """What a user of the expert should know, if anything."""
    habits, said = expert.habits, []
    if habits.side:
        said.append(f"sources of {habits.side} x {habits.side}, {habits.fit or 'any shape'}")
    if habits.hole:
        said.append(f"holes {habits.hole}")
    if expert.triggers:
        said.append(f"prompt with: {'; '.join(expert.triggers)}")
    if expert.licence:
        said.append(f"licence: {expert.licence}")
    return ["", f"{name}: {', '.join(said)}"] if said else []
