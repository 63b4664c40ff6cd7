"""Which samples are held out of training, alone and when data sets are joined."""

import pytest
import torch
from host_training import (
    random_dataset,
    with_samples,
)


def test_all_cuts_of_a_picture_are_taught_or_held_out(tmp_path):
    from cologen.training.data.encoded.dataset import choose_val_ids, concat_datasets, hold_out, load_dataset
    from cologen.training.data.encoded.samples import TENSORS

    mixed = with_samples(random_dataset("edit", 6), ids=tuple("abcabc"))
    parted = hold_out(mixed, choose_val_ids(mixed.samples.ids))
    assert parted.samples.ids == tuple("ababcc") and parted.train_count == 4
    assert all(
        torch.equal(getattr(parted.samples, name), getattr(mixed.samples, name)[[0, 1, 3, 4, 2, 5]]) for name in TENSORS
    )
    parted.save(tmp_path / "lessons.safetensors")
    assert load_dataset(tmp_path / "lessons.safetensors").train_count == 4
    both = concat_datasets(
        parted, with_samples(random_dataset("edit", 3), ids=tuple("cda"))
    )  # which itself holds out a
    assert (both.samples.ids[: both.train_count], both.samples.ids[both.train_count :]) == (
        tuple("bbd"),
        tuple("aaccca"),
    )
    assert choose_val_ids(["a"] * 5) == set() and choose_val_ids([str(i) for i in range(5000)]) == set(
        map(str, range(4936, 5000))
    )


def test_what_is_held_out_stays_held_out_when_data_are_joined():
    from cologen.training.data.encoded.dataset import concat_datasets

    a, b = random_dataset("edit", 20), with_samples(random_dataset("edit", 10), ids=tuple("abcdefghij"))
    both = concat_datasets(a, b)
    assert both.samples.ids[both.train_count :] == ("18", "19", "j")
    with pytest.raises(ValueError, match="is 64 x 64 and 32 x 32 pixels, expected one size"):
        concat_datasets(a, with_samples(b, target=b.samples.target[..., :4, :4]))
