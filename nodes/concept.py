"""One's own subject in a prompt and on a MODEL."""

import comfy.sd
from comfy_api.latest import io

from ..prw.base_model import Base
from ..prw.comfyui.check_host import check_flux
from ..prw.personalization.concept import Concept, insert_vectors
from ..prw.personalization.marked_prompt import MARKED_TOKENS
from ..training.comfyui.folders import CONNECTED, concept_path, list_concepts, read_stamp
from .inputs.schema import SAMPLING, ConceptType, schema, slider


class CoLoGenConceptTokens(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
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
            None if model is None else with_weights(model, concept, strength), told(conditioning, concept)
        )


def with_weights(model, concept: Concept, strength: float):
    """A clone of MODEL with the concept's LoRA, by the host's own patches."""
    flux = model.get_model_object("diffusion_model")
    check_flux(flux)
    if concept.info.base.refusal(Base.of(flux)):
        raise ValueError(
            f"The MODEL is of another shape than the FLUX that the concept was trained on, expected "
            f"{concept.info.base.name or 'the same'}: load that one, or choose another concept."
        )
    return comfy.sd.load_lora_for_models(model, None, concept.make_lora(), strength, 0)[0]


def told(conditioning: list, concept: Concept) -> list:
    """Every entry's text with the concept's vectors: before its marked noun, behind all where none is."""
    found = []
    for text, options in conditioning:
        if text.shape[-1] != concept.info.width:
            raise ValueError(
                f"The prompt's vectors have {text.shape[-1]} numbers, expected {concept.info.width} as the concept's: encode "
                f"it with the text encoders of the FLUX that the concept was trained on."
            )
        text, words = insert_vectors(text, options.get(MARKED_TOKENS), concept.vectors)
        found.append([text, {**options, MARKED_TOKENS: words} if words else dict(options)])
    return found
