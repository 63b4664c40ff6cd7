"""Experts that add to a parent, in the real host: every picture against the naive formula sampled by the same host."""

import pytest
from sampling import add_sources, apply_bank, assert_close, conditioning, naive_model, sample
from tiny import host_model, source
from tiny_tree import LEAVES, NaiveTree, naive_leaf, tree_bank

pytestmark = pytest.mark.usefixtures("comfy")


@pytest.mark.parametrize("stage", LEAVES)
def test_a_picture_is_the_naive_one_with_both_differences(comfy, flux, stage):
    model, bank = host_model(flux), tree_bank(flux)
    found = sample(apply_bank(model, bank), add_sources(conditioning(4), source(stage)), steps=1)
    naive = naive_model(model, flux.state_dict(), bank, {4: [naive_leaf(stage)]}, formula=NaiveTree)
    assert_close(found, sample(naive, conditioning(4), steps=1), 1e-5)


def test_a_node_s_run_counts_parents_among_the_earlier_stages(comfy, flux):
    from cologen.training.comfyui.run import extend_curriculum
    from cologen.training.recipes.curriculum import Settings, Stage

    found = extend_curriculum(tree_bank(flux), Stage(name="mine", task="edit"), Settings())
    assert [stage.name for stage in found.stages] == ["inpaint", "control", "canny", "depth", "mine"]
