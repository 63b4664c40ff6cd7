"""The tensors of a bank: which there are, and of what shape.

`experts.<name>.<block>.<target>.<down|up>`, where scaled also `.scale`; `shared.<group>.<block>.<target>.down` for
experts of one down matrix; `routers.<stage>.<block>.<weight|noise>`.
"""

from dataclasses import replace

from ..config import BankInfo, ExpertInfo
from ..files.errors import BankError
from ..files.safe_file import SafeFile, check_tensors


def check_bank(info: BankInfo, file: SafeFile) -> None:
    """Raises if a file's tensors are not exactly those that its metadata promises."""
    if (count := count_tensors(info)) > 4 * len(file) + 4096:  # before a table is built of what a file may claim
        raise BankError(
            f"{file.name} holds {len(file)} tensors, but its metadata promises {count}: it is no valid bank."
        )
    check_tensors(file, list_shapes(info))


def count_tensors(info: BankInfo) -> int:
    """Counts how many tensors `list_shapes` names, at most, without naming them."""
    pairs = sum(
        (3 if e.scaled else 2) * info.base.count(where) for e in info.experts.values() for where in e.targets.values()
    )
    return pairs + 2 * len(info.routers) * info.base.count()


def list_shapes(info: BankInfo) -> dict[str, tuple[int, ...]]:
    """Lists all tensors of a bank with their shapes."""
    dim = info.base.hidden_size
    shapes: dict[str, tuple[int, ...]] = {}
    for name, expert in info.experts.items():
        for target, where in expert.targets.items():
            for block in info.base.blocks(where):
                place = f"{block}.{target}"
                shapes[down_key(name, expert, place)] = (expert.rank, dim)
                shapes[f"experts.{name}.{place}.up"] = (dim, expert.rank)
                if expert.scaled:
                    shapes[f"experts.{name}.{place}.scale"] = ()
    for stage, router in info.routers.items():
        for block in info.base.blocks():
            for kind in ("weight", "noise"):
                shapes[f"routers.{stage}.{block}.{kind}"] = (dim, len(router.experts))
    return shapes


def list_expert_keys(info: BankInfo, name: str) -> list[str]:
    """Names of one expert's tensors, shared down matrices among them."""
    return list(list_shapes(replace(info, experts={name: info.experts[name]}, routers={})))


def parse_place(key: str) -> str:
    """Parses the block and target in a tensor's name: double_blocks.0.k of experts.NAME.double_blocks.0.k.down."""
    return key.split(".", 2)[2].rsplit(".", 1)[0]


def down_key(name: str, expert: ExpertInfo, place: str) -> str:
    """Returns the name of the tensor that holds an expert's down matrix of a place (block and target)."""
    return f"shared.{expert.shared}.{place}.down" if expert.shared else f"experts.{name}.{place}.down"
