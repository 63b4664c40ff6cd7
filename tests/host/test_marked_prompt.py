"""Words marked in a prompt are found among FLUX's text tokens, by the host's own T5 tokenizer."""

import pytest
from cologen.prw.personalization.marked_prompt import MARKED_TOKENS, MarkedTokens, find_marked_tokens, remove_marks
from cologen.training.toy.store import TOY
from cologen.training.toy.text import LANGUAGE

pytestmark = pytest.mark.usefixtures("comfy")


@pytest.fixture(scope="module")
def tokenizer(comfy):
    from comfy.text_encoders.flux import FluxTokenizer

    return FluxTokenizer()


def pieces(tokenizer, text):
    return tokenizer.t5xxl.tokenizer.tokenize(text)


@pytest.mark.parametrize(
    "text, noun",
    [
        ("a [dog] on the beach", ["▁dog"]),
        ("[corgi plush] in times square", ["▁cor", "g", "i", "▁plus", "h"]),
        ("a photo of a [corgi]", ["▁cor", "g", "i"]),
        ("a [dog], running", ["▁dog"]),
        ("a ([dog]:1.2), running (very fast)", ["▁dog"]),
        ("a (happy [dog] with a ball:1.4) here", ["▁dog"]),
        ("a [dog] and a [cat]", ["▁dog", "▁cat"]),
        ("a [thing] in a circle", ["▁thing"]),
        ("one thing, one [circle thing]", ["▁circle", "▁thing"]),
        ("[dog] dog", ["▁dog"]),
    ],
)
def test_marked_words_are_their_tokens(tokenizer, text, noun):
    from comfy.sd1_clip import token_weights

    plain = "".join(part for part, _ in token_weights(remove_marks(text), 1.0))
    words = find_marked_tokens(text, lambda text: tokenizer.tokenize_with_weights(text, return_word_ids=True))
    row = tokenizer.tokenize_with_weights(remove_marks(text))["t5xxl"][0]
    names = tokenizer.t5xxl.tokenizer.convert_ids_to_tokens([token for token, _ in row])
    assert [names[i] for i in words.noun] == noun
    assert names[words.prompt_length] == "</s>" and "</s>" not in names[: words.prompt_length]
    assert len(row) >= 256 and [name for name in names[: words.prompt_length] if name != "▁"] == [
        name for name in pieces(tokenizer, plain) if name != "▁"
    ]


def test_the_toy_world_s_words_are_facts():
    from cologen.training.comfyui.built_in import WorldTokenizer

    tokenize = WorldTokenizer(LANGUAGE).tokenize_with_weights

    def found(text):
        return find_marked_tokens(text, lambda text: tokenize(text, return_word_ids=True))

    assert found("red circle top left, a [blue square] at the bottom right and on sand") == MarkedTokens((1,), 3)
    assert found("[red circle top left]. on sand") == MarkedTokens((0,), 2)
    assert tokenize("", return_word_ids=True) == {"toy": [[(0, 1.0, 0)]]}


def test_a_marked_prompt_is_encoded_as_the_stock_node_does():
    import nodes
    import torch
    from cologen.nodes.marked_prompt import CoLoGenMarkedPrompt
    from cologen.training.comfyui.built_in import load_clip

    clip = load_clip(TOY)
    (((text, options),),) = CoLoGenMarkedPrompt.execute(clip, "a [red circle] top left, on sand").result
    (((expected, stock),),) = nodes.CLIPTextEncode().encode(clip, "a red circle top left, on sand")
    assert torch.equal(text, expected) and torch.equal(options["pooled_output"], stock["pooled_output"])
    assert options.keys() - stock.keys() == {MARKED_TOKENS} and options[MARKED_TOKENS] == MarkedTokens((0,), 2)


@pytest.mark.parametrize("text", ["a dog", "a [] dog", ""])
def test_a_prompt_without_a_mark_is_a_sentence(tokenizer, text):
    with pytest.raises(ValueError, match="marks no word, expected one in brackets"):
        find_marked_tokens(text, lambda text: tokenizer.tokenize_with_weights(text, return_word_ids=True))


def test_an_encoder_that_is_not_flux_s_is_a_sentence(comfy):
    from comfy.sd1_clip import SD1Tokenizer

    tokenizer = SD1Tokenizer()
    with pytest.raises(ValueError, match="The text encoder is of l, expected FLUX.1's"):
        find_marked_tokens("a [dog]", lambda text: tokenizer.tokenize_with_weights(text, return_word_ids=True))
