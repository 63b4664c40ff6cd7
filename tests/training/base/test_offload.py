"""A base whose blocks visit the device does to the bit what one does that lives there, and no block overstays."""

import pytest
import torch
from cologen.prw.weaving import named_blocks
from cologen.training.base.offload import RESIDENT_BLOCKS, OffloadedLinear
from cologen.training.base.placement import place_base
from cologen.training.bench.training import count_saved_bytes
from cologen.training.memory_estimate import estimate_memory
from cologen.training.recipes.curriculum import Settings
from tiny_run import SMALL, tiny_host, tiny_trainer

DEEP = dict(SMALL, depth=3, depth_single_blocks=3)


def visiting(**settings):
    host = tiny_host(DEEP)
    place_base(host.flux, Settings(offload=True, **settings), "cpu")
    (visits,) = {module.offloader for module in host.flux.modules() if isinstance(module, OffloadedLinear)}
    return host, visits


@pytest.mark.slow
@pytest.mark.parametrize("narrow", ["plain", "fp8", "nf4"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_steps_are_those_of_a_base_on_the_device(checkpointing, narrow):
    host, _ = visiting(base_weights=narrow)
    other = tiny_host(DEEP)
    place_base(other.flux, Settings(base_weights=narrow), "cpu")
    ours, theirs = (tiny_trainer(each, checkpointing=checkpointing, micro=2) for each in (host, other))
    for _ in range(3):
        assert ours.train_iteration() == theirs.train_iteration()
    assert all(torch.equal(tensor, theirs.trained[name]) for name, tensor in ours.trained.items())


@pytest.mark.parametrize("checkpointing", [False, True])
def test_outside_its_turn_a_block_has_nothing_on_the_device(checkpointing):
    host, visits = visiting()
    resting = {
        p.data_ptr()
        for module in host.flux.modules()
        if isinstance(module, OffloadedLinear)
        for p in module.parameters()
    }
    alive, most = {}, []
    usual = visits._load

    def watched(place):
        usual(place)
        for copies in visits.resident[place].values():
            for tensor in copies.values():
                assert tensor.data_ptr() not in resting
                alive.setdefault(place, []).append(
                    torch.multiprocessing.reductions.StorageWeakRef(tensor.untyped_storage())
                )
        most.append({known for known, refs in alive.items() if not all(ref.expired() for ref in refs)})

    visits._load = watched
    trainer = tiny_trainer(host, checkpointing=checkpointing)
    trainer.train_iteration()
    assert {place for some in most for place in some} == set(range(6))
    assert max(map(len, most)) == RESIDENT_BLOCKS


def test_autograd_keeps_none_of_its_weights():
    host, _ = visiting()
    plain = tiny_host(DEEP)
    kept = [count_saved_bytes(tiny_trainer(each).train_iteration, each.flux) for each in (host, plain)]
    assert kept[0] <= kept[1]


def test_what_rests_is_not_counted_on_the_device():
    host, _ = visiting()
    plain, found = estimate_memory(tiny_trainer(tiny_host(DEEP))), estimate_memory(tiny_trainer(host))
    layers = [sum(p.nbytes for n, p in b.named_parameters() if "norm" not in n) for _, b in named_blocks(host.flux)]
    assert sum(found.base.values()) == sum(plain.base.values()) - sum(layers)
    assert found.streamed == RESIDENT_BLOCKS * max(layers) and plain.streamed == 0


def test_a_base_is_not_shared_and_offloaded_at_once():
    with pytest.raises(ValueError, match="shard and offload are both true, expected one"):
        Settings(shard=True, offload=True)
