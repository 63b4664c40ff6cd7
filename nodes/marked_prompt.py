"""A prompt whose subject is marked, so that its words can be found in FLUX's attention."""

from functools import partial

from comfy_api.latest import io

from ..prw.comfyui.make_source import check_clip
from ..prw.personalization.marked_prompt import MARKED_TOKENS, find_marked_tokens, remove_marks
from .inputs.schema import SAMPLING, make_schema


class CoLoGenMarkedPrompt(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return make_schema(
            node_id="CoLoGenMarkedPrompt",
            display_name="CoLoGen Marked Prompt",
            category=SAMPLING,
            description="Encodes a prompt as the stock node does, and remembers which words name its subject.",
            search_aliases=["clip text encode", "prompt", "subject words", "token", "noun"],
            inputs=[
                io.Clip.Input("clip", tooltip="Your FLUX's text encoder."),
                io.String.Input(
                    "text",
                    default="a [dog] on the beach",
                    multiline=True,
                    dynamic_prompts=True,
                    tooltip="The prompt, with its subject in brackets. FLUX does not see the brackets.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(tooltip="For the sampler, CoLoGen Dual Branch or CoLoGen Personal Guider.")
            ],
        )

    @classmethod
    def execute(cls, clip, text: str) -> io.NodeOutput:
        check_clip(clip)
        words = find_marked_tokens(text, partial(clip.tokenize, return_word_ids=True))
        tokens = clip.tokenize(remove_marks(text))
        return io.NodeOutput(clip.encode_from_tokens_scheduled(tokens, add_dict={MARKED_TOKENS: words}))
