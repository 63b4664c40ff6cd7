"""One's own subject in a prompt and on a MODEL."""

from comfy_api.latest import io

from ..prw.comfyui.apply_concept import apply_concept_lora, insert_concept
from ..prw.personalization.concept import Concept
from ..training.comfyui.folders import CONNECTED, concept_path, list_concepts, read_stamp
from .inputs.schema import SAMPLING, ConceptType, make_schema, slider


class CoLoGenConceptTokens(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="CoLoGenConceptTokens",
            display_name="CoLoGen Concept Tokens",
            category=SAMPLING,
            description="Puts a subject of your own, from CoLoGen Train Subject, beside its noun in a prompt, and its LoRA on "
            "the model. With CoLoGen Dual Branch it comes where other subjects go.",
            search_aliases=["textual inversion", "dreambooth", "lora loader", "embedding", "personalization"],
            inputs=[
                io.Conditioning.Input(
                    "conditioning", tooltip="A prompt that names the subject's kind: a dog on the beach."
                ),
                io.Combo.Input(
                    "file",
                    options=[CONNECTED, *list_concepts()],
                    tooltip="A concept from models/loras, or a finished run; not asked where one is connected.",
                ),
                slider(
                    "strength", 1.0, -4, 4, "How strongly its LoRA acts. 0 leaves model and prompt as they are."
                ),
                io.Model.Input(
                    "model", optional=True, tooltip="The FLUX it was trained on. Open: another of these nodes did it."
                ),
                ConceptType.Input("concept", optional=True, tooltip="From CoLoGen Train Subject."),
            ],
            outputs=[
                io.Model.Output(tooltip="For the sampler."),
                io.Conditioning.Output(tooltip="For the sampler, or CoLoGen's other nodes; marked words stay marked."),
            ],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, file: str = CONNECTED, **_):
        return file if file == CONNECTED else read_stamp(concept_path(file))

    @classmethod
    def execute(cls, conditioning, file: str, strength: float, model=None, concept: Concept | None = None):
        if concept is None and file == CONNECTED:
            raise ValueError(
                "There is no concept, expected one: connect CoLoGen Train Subject's, or choose a file of its."
            )
        concept = concept or Concept.open(concept_path(file))
        if strength == 0:
            return io.NodeOutput(model, conditioning)
        return io.NodeOutput(
            None if model is None else apply_concept_lora(model, concept, strength),
            insert_concept(conditioning, concept),
        )
