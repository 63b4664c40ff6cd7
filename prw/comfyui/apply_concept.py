"""A concept on a MODEL and in a prompt of the host."""

import comfy.sd

from ..base_model import Base
from ..files.validate import shorten
from ..flux.families import FAMILIES
from ..personalization.concept import Concept, insert_vectors
from ..personalization.marked_prompt import MARKED_TOKENS
from .check_host import check_flux


def apply_concept_lora(model, concept: Concept, strength: float):
    """Puts the concept's LoRA on a clone of MODEL, by the host's own patches."""
    flux = model.get_model_object("diffusion_model")
    check_flux(flux)
    if concept.info.base.describe_incompatibility(Base.of(flux)):
        raise ValueError(
            f"The MODEL is of another shape than the FLUX that the concept was trained on, expected "
            f"{shorten(concept.info.base.name) or 'the same'}: load that one, or choose another concept."
        )
    return comfy.sd.load_lora_for_models(model, None, concept.make_lora(), strength, 0)[0]


def insert_concept(conditioning: list, concept: Concept) -> list:
    """Inserts the concept's vectors into every entry's text: before its marked noun, behind all where none is.

    Where text has positions (FLUX.2) they come behind all in any case, where they were trained.
    """
    entries, orders_text = [], FAMILIES[concept.info.base.family].orders_text
    for text, options in conditioning:
        if text.shape[-1] != concept.info.width:
            raise ValueError(
                f"The prompt's vectors have {text.shape[-1]} numbers, expected {concept.info.width} as the concept's: encode "
                f"it with the text encoders of the FLUX that the concept was trained on."
            )
        place = None if orders_text else options.get(MARKED_TOKENS)
        text, marked = insert_vectors(text, place, concept.vectors)
        entries.append([text, {**options, MARKED_TOKENS: marked} if marked else dict(options)])
    return entries
