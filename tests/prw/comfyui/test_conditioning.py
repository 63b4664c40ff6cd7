"""Sources in the host's conditioning."""

from cologen.prw.comfyui.conditioning import add_source, list_sources, remove_sources
from cologen.prw.personalization.marked_prompt import MARKED_TOKENS
from tiny import source
from two_branches import CONCEPT, marked_conditioning


def test_the_superclass_is_the_prompt_without_its_sources():
    positive = add_source(add_source(marked_conditioning(), source()), source("inpaint", seed=9))
    ((text, options),) = remove_sources(positive)
    assert not list_sources(options) and options[MARKED_TOKENS] == CONCEPT and text is positive[0][0]
    assert len(list_sources(positive[0][1])) == 2
