"""A library of experts: import what others trained, put banks together, look inside."""

from comfy_api.latest import io, ui

from ..prw.bank.bank import Bank
from ..prw.bank.edit import merge
from ..prw.bank.importers import CHOICES, FAMILY_CHOICES, open_experts
from ..prw.bank.summary import describe_bank
from ..training.comfyui.folders import import_path, list_importable, read_stamp
from .inputs.schema import CATEGORY, BankType, make_schema


class CoLoGenImportExperts(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="CoLoGenImportExperts",
            display_name="Import Experts (CoLoGen)",
            category=CATEGORY,
            description="Takes an EasyControl, OmniConsistency or LoRA file, or a Diffusion Template, as an expert. Chain it to stack "
            "several.",
            search_aliases=[
                "easycontrol",
                "omniconsistency",
                "lora to expert",
                "controlnet",
                "canny",
                "depth",
                "ghibli",
                "diffsynth",
                "diffusion template",
            ],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=list_importable(),
                    tooltip="From models/loras; a template also from models/cologen or models/diffusion_models. Nothing is copied: it is "
                    "read as it is used.",
                ),
                io.Combo.Input(
                    "kind",
                    options=list(CHOICES),
                    tooltip="What the file is for, which nothing in it says. auto goes by its name; partial takes what fits "
                    "of a LoRA that changes more than attention.",
                ),
                io.String.Input(
                    "name", default="", tooltip="What CoLoGen Source calls it as expert; empty: the file's name."
                ),
                BankType.Input("experts", optional=True, tooltip="A bank that it joins, imported or trained."),
                io.Combo.Input(
                    "family",
                    options=list(FAMILY_CHOICES),
                    optional=True,
                    tooltip="The FLUX that the file is for, where its layers leave that open. Chroma takes files of FLUX.1, whose blocks "
                    "it has: a loan, not what they were trained on.",
                ),
            ],
            outputs=[
                BankType.Output(
                    display_name="experts", tooltip="For CoLoGen Apply, CoLoGen Source and Save CoLoGen Experts."
                ),
                io.String.Output(
                    display_name="trigger", tooltip="Words that its authors want in the prompt; often none."
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str, **rest):
        return read_stamp(import_path(file))

    @classmethod
    def execute(
        cls, file: str, kind: str, name: str, experts: Bank | None = None, family: str = "auto"
    ) -> io.NodeOutput:
        bank = open_experts(import_path(file), name.strip(), kind, family)
        triggers = dict.fromkeys(word for expert in bank.info.experts.values() for word in expert.triggers)
        whole = bank if experts is None else merge([experts, bank])
        return io.NodeOutput(whole, ", ".join(triggers), ui=ui.PreviewText(describe_bank(bank, file)))


class CoLoGenMergeExperts(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="CoLoGenMergeExperts",
            display_name="Merge CoLoGen Experts",
            category=CATEGORY,
            description="One bank with the experts and routers of several. Each source still chooses which of them it uses.",
            search_aliases=["merge banks", "combine", "stack controls"],
            inputs=[
                BankType.Input("experts_1", tooltip="A bank."),
                BankType.Input("experts_2", tooltip="Another for the same FLUX, without experts of the same name."),
                BankType.Input("experts_3", optional=True, tooltip="One more, if you like."),
                BankType.Input("experts_4", optional=True, tooltip="One more, if you like."),
            ],
            outputs=[BankType.Output(display_name="experts", tooltip="For CoLoGen Apply and Save CoLoGen Experts.")],
        )

    @classmethod
    def execute(cls, **banks: Bank) -> io.NodeOutput:
        return io.NodeOutput(merge(bank for _, bank in sorted(banks.items()) if bank is not None))


class CoLoGenInspectExperts(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="CoLoGenInspectExperts",
            display_name="Inspect CoLoGen Experts",
            category=CATEGORY,
            description="Shows what is in a bank: experts, routers and their shares, base, licences, words for the prompt.",
            search_aliases=["bank info", "list experts", "metadata", "trigger words"],
            is_output_node=True,
            inputs=[BankType.Input("experts", tooltip="The bank to look into.")],
            outputs=[io.String.Output(display_name="text", tooltip="The same as text.")],
        )

    @classmethod
    def execute(cls, experts: Bank) -> io.NodeOutput:
        text = describe_bank(experts, "This bank")
        return io.NodeOutput(text, ui=ui.PreviewText(text))
