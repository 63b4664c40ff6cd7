"""`cologen bank extract`: a template of some GB as its difference to the base."""

from argparse import Namespace, _SubParsersAction
from pathlib import Path

from ...prw.bank.difference import DifferenceInfo, TemplateDifference
from ...prw.bank.extract import ExtractedTensors
from ...prw.base_model import Base
from ...prw.files.errors import FileError
from ...prw.files.safe_file import SafeFile
from ...prw.flux.checkpoint import build_flux, name_weights
from ...prw.flux.template_names import is_template, rename_template
from .bank import check_new
from .bank_edit import DTYPES


def add_commands(commands: _SubParsersAction) -> None:
    parser = commands.add_parser("extract", help="a template as its difference to the base, by SVD; prints the error")
    parser.add_argument("template", type=Path, help="a template's model.safetensors")
    parser.add_argument("--base", type=Path, required=True, help="the FLUX.2 file that it was trained from")
    parser.add_argument("--rank", type=int, default=64, help="the higher, the larger and the more exact")
    parser.add_argument("--out", type=Path, help="named after the template if not given")
    parser.add_argument("--dtype", choices=[name for name in DTYPES if name != "fp8"], default="bfloat16")
    parser.set_defaults(run=_extract)


def _extract(args: Namespace) -> str:
    template, base = SafeFile(args.template), SafeFile(args.base)
    if not is_template(template):
        raise FileError(f"{template.name} is no template that is a whole FLUX.2, expected its model.safetensors.")
    name = args.template.absolute().parent.name if args.template.stem == "model" else args.template.stem
    path = check_new(args.out or Path(f"{name}_rank{args.rank}.safetensors"))
    flux = build_flux(base, base.name)  # memory-mapped
    tensors = ExtractedTensors(rename_template(template), name_weights(base), args.rank, DTYPES[args.dtype])
    info = DifferenceInfo(Base.of(flux).with_probe(flux, args.base.stem), name, args.rank)
    TemplateDifference(info, tensors).save(path)
    before, after = (file.stat().st_size / 2**20 for file in (args.template, path))
    blocks = (f"{block:<32}{error:7.2%}" for block, error in tensors.error.group(name_block).items())
    return "\n".join((*sorted(blocks), f"{path}: {tensors.error}; {after:.1f} MiB, before {before:.1f}"))


def name_block(layer: str) -> str:
    """Names the block that a layer is in; one outside the blocks stands for itself."""
    return ".".join(layer.split(".")[:2]) if "_blocks." in layer else layer
