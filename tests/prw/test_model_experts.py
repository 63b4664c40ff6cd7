"""Experts that are whole models, on our own FLUX.2: what the base reads of them is the naive formula."""

import math

import pytest
import torch
from cologen.prw.attachment import Attachment
from cologen.prw.bank.edit import merge
from cologen.prw.bank.importers import open_experts
from cologen.prw.embedded_host import velocity
from cologen.prw.files.errors import BankError
from cologen.prw.source import Routing, Source
from naive_template import NaiveReader, NaiveTemplate
from tiny import latent, tiny_bank
from tiny_flux2 import TEXT_WIDTH, flux2_inputs, tiny_flux2
from tiny_template import save_template

CONTROL, EDIT = "Template-KleinBase4B-ControlNet", "Template-KleinBase4B-Edit"


@pytest.fixture(scope="module")
def flux():
    return tiny_flux2()


@pytest.fixture(scope="module")
def templates(tmp_path_factory):
    """Two templates: their banks, and their weights."""
    folder, out = tmp_path_factory.mktemp("templates"), {}
    for seed, name in enumerate((CONTROL, EDIT), 50):
        path, weights = save_template(folder, name, seed)
        out[name] = (open_experts(path), weights)
    return out


@pytest.fixture(scope="module")
def control(templates):
    return templates[CONTROL][0]


@pytest.fixture(scope="module")
def both(templates):
    return merge(bank for bank, _ in templates.values())


def text(seed=7, batch=1, tokens=5):
    return torch.randn(batch, tokens, TEXT_WIDTH, generator=torch.Generator().manual_seed(seed))


def picture(seed=3, height=3, width=5, batch=1):
    return latent(batch, height, width, seed, 128)


def source(seed=3, height=3, width=5, batch=1, task="control", expert="", **knobs):
    return Source(picture(seed, height, width, batch), Routing(task=task, expert=expert), **knobs)


def keep(templates, prompt, *latents, name=CONTROL):
    """What a template keeps, by the naive formula."""
    return NaiveTemplate(templates[name][1])(prompt, *latents)


def predict_naively(flux, *kept, **size):
    kept = [one if isinstance(one, tuple) else (one, 0.0) for one in kept]
    return NaiveReader(flux.state_dict())(kept, *flux2_inputs(**size))


def predict(flux, bank, *sources, cached=True, **size):
    return velocity(flux, *flux2_inputs(**size), Attachment(bank, cached=cached), sources)


def assert_close(found, expected):
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_the_naive_reader_without_templates_is_flux_2(flux):
    assert_close(predict_naively(flux, batch=2, height=3), flux(*flux2_inputs(batch=2, height=3)))


@pytest.mark.parametrize("batch, height, width", [(1, 4, 4), (2, 3, 7)])
def test_a_template_reads_the_bases_prompt(flux, templates, control, batch, height, width):
    size = dict(batch=batch, height=height, width=width)
    found = predict(flux, control, source(batch=batch), **size)
    kept = keep(templates, flux2_inputs(**size).context, picture(batch=batch))
    assert_close(found, predict_naively(flux, kept, **size))
    assert (found - flux(*flux2_inputs(**size))).abs().max() > 0.01


def test_a_template_reads_a_prompt_of_its_own(flux, templates, control):
    found = predict(flux, control, source(prompt=text()), batch=2)
    kept = keep(templates, text().expand(2, -1, -1), picture())
    assert_close(found, predict_naively(flux, kept, batch=2))


def test_pictures_of_one_template_see_each_other(flux, templates, control):
    found = predict(flux, control, source(), source(seed=9, height=2, width=2, number=2))
    kept = keep(templates, flux2_inputs().context, picture(), picture(9, 2, 2))
    assert_close(found, predict_naively(flux, kept))


def test_templates_do_not_see_each_other_and_number_their_own_pictures(flux, templates, both):
    """Sources of two templates in turn: each has its own pictures at 10 and 20."""
    sources = [
        source(task="edit"),
        source(seed=9, expert=CONTROL, number=2),
        source(seed=10, height=2, task="edit", number=3),
    ]
    context = flux2_inputs().context
    edit = keep(templates, context, picture(), picture(10, 2), name=EDIT)
    assert_close(predict(flux, both, *sources), predict_naively(flux, edit, keep(templates, context, picture(9))))


def test_a_template_beside_low_rank_experts(flux, templates, control):
    """Each task has its experts; the template serves those without a router."""
    bank = tiny_bank(flux)
    merged = merge([bank, control])
    routed, read = source(task="inpaint"), source(seed=9, expert=CONTROL, number=2)
    alone = predict(flux, bank, routed)
    assert torch.equal(predict(flux, merged, routed), alone)
    found = predict(flux, merged, routed, read)
    assert (found - alone).abs().max() > 0.01
    kept = keep(templates, flux2_inputs().context, picture(9))
    assert_close(predict(flux, merged, source(seed=9, task="edit")), predict_naively(flux, kept))


def test_strength_is_a_log_weight_of_all_its_keys_and_zero_is_no_source(flux, templates, control):
    kept = keep(templates, flux2_inputs().context, picture())
    for strength in (0.3, 2.5):
        found = predict(flux, control, source(strength=strength))
        assert_close(found, predict_naively(flux, (kept, math.log(strength))))
    assert torch.equal(predict(flux, control, source(strength=0.0)), flux(*flux2_inputs()))


def test_a_region_is_a_log_weight_of_all_its_keys(flux, templates, control):
    region = torch.rand(4, 4, generator=torch.Generator().manual_seed(5))
    bias = torch.cat([torch.zeros(6), region.flatten().log()])[:, None]
    kept = keep(templates, flux2_inputs().context, picture())
    assert_close(predict(flux, control, source(region=region)), predict_naively(flux, (kept, bias)))


def test_a_prompt_that_pictures_share_is_read_where_one_of_them_is(flux, templates, control):
    left, right = torch.zeros(4, 4), torch.zeros(4, 4)
    left[:, :1], right[:, 2:] = 1, 0.5
    kept = keep(templates, flux2_inputs().context, picture(), picture(9))
    columns = [torch.maximum(left, right).expand(6, 4, 4), left.expand(15, 4, 4), right.expand(15, 4, 4)]
    bias = torch.cat([torch.zeros(6, 36), torch.cat(columns).flatten(1).T.log()])
    found = predict(flux, control, source(region=left), source(seed=9, region=right, number=2))
    assert_close(found, predict_naively(flux, (kept, bias)))


@pytest.mark.parametrize("placement, tolerance", [("gpu", 0.0), ("cpu", 0.0), ("fp8", 0.2)])
def test_cached_is_uncached(flux, control, placement, tolerance):
    attachment, uncached = Attachment(control), Attachment(control, cached=False)
    args = flux2_inputs(batch=2)
    for step in (0.9, 0.5, 0.1):
        step_args = args._replace(x=args.x * step, times=torch.full((2,), step))
        given = [source(placement=placement, batch=2)]
        found, expected = (velocity(flux, *step_args, one, given) for one in (attachment, uncached))
        assert torch.equal(found, expected)
        exact = velocity(flux, *step_args, uncached, [source(batch=2)])
        assert (found - exact).abs().max() <= tolerance


class CountingBank:
    """A bank that counts how often its whole models are built, once for each pass."""

    def __init__(self, bank):
        self.bank, self.info, self.passes = bank, bank.info, 0

    def __getattr__(self, name):
        return getattr(self.bank, name)

    def model(self, name, base):
        self.passes += 1
        return self.bank.model(name, base)


CHANGES = {
    "noise": (lambda a: a._replace(x=a.x + 1), {}, 0),
    "time": (lambda a: a._replace(times=a.times / 2), {}, 0),
    "size": (lambda a: a._replace(x=a.x[..., :2]), {}, 0),
    "strength": (lambda a: a, dict(strength=0.5), 0),
    "region": (lambda a: a, dict(region=torch.ones(4, 4) / 2), 0),
    "number": (lambda a: a, dict(number=4), 0),
    "task": (lambda a: a, dict(task="edit"), 0),
    "picture": (lambda a: a, dict(seed=4), 1),
    "placement": (lambda a: a, dict(placement="fp8"), 1),
    "base's prompt": (lambda a: a._replace(context=text(8, tokens=6)), {}, 1),
    "own prompt": (lambda a: a, dict(prompt=text(8)), 1),
}


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_a_pass_is_made_anew_only_for_what_it_depends_on(flux, control, change, keep):
    bank, (change_args, knobs, passes) = CountingBank(control), CHANGES[change]
    attachment, args = Attachment(bank), flux2_inputs()
    velocity(flux, *args, attachment, [source(keep=keep)])
    if keep:
        attachment.cleanup()
    assert bank.passes == 1
    args, given = change_args(args), [source(**dict(keep=keep) | knobs)]
    found = velocity(flux, *args, attachment, given)
    assert bank.passes == 1 + passes
    assert torch.equal(found, velocity(flux, *args, Attachment(control), given))


def test_with_a_prompt_of_its_own_nothing_depends_on_the_bases(flux, control):
    bank, args = CountingBank(control), flux2_inputs()
    attachment, given = Attachment(bank), [source(prompt=text())]
    velocity(flux, *args, attachment, given)
    found = velocity(flux, *args._replace(context=text(8, tokens=3)), attachment, given)
    assert bank.passes == 1
    assert torch.equal(found, velocity(flux, *args._replace(context=text(8, tokens=3)), Attachment(control), given))
    velocity(tiny_flux2(seed=9), *args, attachment, given)  # another base, the same template
    assert bank.passes == 1


def test_other_weights_of_the_template_are_another_pass(flux, tmp_path):
    path, _ = save_template(tmp_path, seed=60)
    first = predict(flux, open_experts(path), source())
    path, weights = save_template(tmp_path, seed=61)
    kept = NaiveTemplate(weights)(flux2_inputs().context, picture())
    found = predict(flux, open_experts(path), source())
    assert_close(found, predict_naively(flux, kept))
    assert (found - first).abs().max() > 0.01


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn])
def test_a_file_in_fewer_bits_is_computed_with_as_it_is(flux, tmp_path, dtype):
    path, weights = save_template(tmp_path, dtype=dtype)
    kept = NaiveTemplate(weights)(flux2_inputs().context, picture())
    assert_close(predict(flux, open_experts(path), source()), predict_naively(flux, kept))


def test_two_sides_of_cfg_read_their_own_prompts(flux, templates, control):
    """A batch of two conds, as hosts join them."""
    args = flux2_inputs(batch=2)
    attachment = Attachment(control)
    found = velocity(flux, *args, attachment, [source()])
    for i in range(2):
        one = [part[i : i + 1] if isinstance(part, torch.Tensor) else part for part in args]
        kept = keep(templates, one[2], picture())
        expected = NaiveReader(flux.state_dict())([(kept, 0.0)], *one)
        assert_close(found[i : i + 1], expected)
    assert len(attachment.cache.entries) == 2


def test_sentences(flux, both, control):
    with pytest.raises(
        ValueError, match="^The model has hidden_size 128, the bank was made for 256: load the FLUX that it"
    ):
        predict(tiny_flux2(hidden_size=128, num_heads=1), control, source())
    with pytest.raises(BankError, match=f"several whole models .{CONTROL}, {EDIT}., expected one that is named for"):
        predict(flux, both, source(task="inpaint"))
    with pytest.raises(BankError, match=f"The bank has no expert Depth, expected one of {CONTROL}, {EDIT}: choose"):
        predict(flux, both, source(expert="Depth"))
    with pytest.raises(ValueError, match=f"prompt are 4 wide, {CONTROL} expects 48: encode its prompt"):
        predict(flux, control, source(prompt=torch.ones(1, 2, 4)))
    with pytest.raises(ValueError, match="prompt has shape .2, 4., expected .batch, tokens, width."):
        source(prompt=torch.ones(2, 4))
