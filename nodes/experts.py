"""Banks of experts: load, put on a MODEL, save."""

from comfy_api.latest import io, ui

from ..prw.bank.bank import Bank
from ..prw.bank.importers import open_experts
from ..prw.comfyui.patch import apply_bank
from ..training.comfyui.folders import bank_path, list_banks, new_bank_path, read_stamp
from .inputs.schema import CATEGORY, BankType, make_schema, slider

STRENGTH = "How far the experts bend every source, times its own expert strength. 0: FLUX's own reading; a whole model is then not read."


class CoLoGenLoadExperts(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="CoLoGenLoadExperts",
            display_name="Load CoLoGen Experts",
            category=CATEGORY,
            description="Opens a bank: the experts that let FLUX read a source image, and the routers that choose them.",
            search_aliases=[
                "bank",
                "load bank",
                "lora loader",
                "controlnet loader",
                "ip adapter",
                "diffsynth",
                "diffusion template",
            ],
            inputs=[bank_name_input()],
            outputs=[BankType.Output(display_name="experts", tooltip="For CoLoGen Apply.")],
        )

    @classmethod
    def fingerprint_inputs(cls, bank_name: str):
        return read_stamp(bank_path(bank_name))

    @classmethod
    def execute(cls, bank_name: str) -> io.NodeOutput:
        return io.NodeOutput(open_experts(bank_path(bank_name)))


class CoLoGenApply(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="CoLoGenApply",
            display_name="CoLoGen Apply",
            category=CATEGORY,
            description="Lets a FLUX model read the sources of CoLoGen Source. Without a source its pictures stay the same.",
            search_aliases=["apply experts", "apply controlnet", "apply ip adapter", "patch model"],
            inputs=[
                model_input(),
                BankType.Input(
                    "experts",
                    optional=True,
                    tooltip="From Load CoLoGen Experts. Left open, FLUX reads sources with its own weights, as FLUX.2 klein "
                    "9B-KV was trained to; other models do so only roughly.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="For the sampler.")],
        )

    @classmethod
    def execute(cls, model: io.Model.Type, experts: Bank | None = None) -> io.NodeOutput:
        return io.NodeOutput(apply_bank(model, experts))


class CoLoGenExperts(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="CoLoGenExperts",
            display_name="CoLoGen Experts",
            category=CATEGORY,
            description="Opens a bank and puts it on a MODEL: Load CoLoGen Experts and CoLoGen Apply in one.",
            search_aliases=["lora loader", "controlnet loader", "ip adapter", "bank", "experts", "apply"],
            inputs=[
                model_input(),
                bank_name_input(),
                slider("strength", 1.0, 0, 4, STRENGTH),
            ],
            outputs=[io.Model.Output(tooltip="For the sampler.")],
        )

    @classmethod
    def fingerprint_inputs(cls, bank_name: str, **rest):
        return read_stamp(bank_path(bank_name))

    @classmethod
    def execute(cls, model: io.Model.Type, bank_name: str, strength: float) -> io.NodeOutput:
        return io.NodeOutput(apply_bank(model, open_experts(bank_path(bank_name)), strength))


class CoLoGenSaveExperts(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="CoLoGenSaveExperts",
            display_name="Save CoLoGen Experts",
            category=CATEGORY,
            description="Writes a bank to models/cologen, where Load CoLoGen Experts finds it. Never overwrites a file.",
            search_aliases=["save bank", "save lora"],
            is_output_node=True,
            inputs=[
                BankType.Input("experts", tooltip="The bank to save."),
                io.String.Input("name", default="my_bank", tooltip="File name, with sub-folders if you like."),
            ],
            outputs=[],
        )

    @classmethod
    def execute(cls, experts: Bank, name: str) -> io.NodeOutput:
        path = experts.save(new_bank_path(name))
        return io.NodeOutput(ui=ui.PreviewText(f"Saved {path.name} ({path.stat().st_size / 2**20:.1f} MiB)"))


def model_input() -> io.Model.Input:
    return io.Model.Input(
        "model", tooltip="A FLUX.1, FLUX.2 or Chroma model from any loader; LoRAs may come before or after."
    )


def bank_name_input() -> io.Combo.Input:
    return io.Combo.Input(
        "bank_name",
        options=list_banks(),
        tooltip="A bank from models/cologen, an EasyControl file from models/loras, or a Diffusion Template from either or "
        "from models/diffusion_models. It must be made for the FLUX you load; the worlds that are built in have their own.",
    )
