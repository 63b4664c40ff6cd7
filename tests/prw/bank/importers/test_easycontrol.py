"""EasyControl's files as experts: equal to their own design, beside each other and beside routed experts."""

import time

import pytest
import torch
from cologen.prw.attachment import Attachment
from cologen.prw.bank.bank import Bank
from cologen.prw.bank.edit import merge
from cologen.prw.bank.importers import open_experts
from cologen.prw.bank.importers.easycontrol import HEADER_BYTES, KINDS, looks_like_easycontrol
from cologen.prw.embedded_host import velocity
from cologen.prw.files import safe_file
from cologen.prw.files.errors import FileError
from cologen.prw.files.regular_file import open_regular
from naive_easycontrol import RANK, WIDTH, NaiveEasyControl, below, over, random_file
from safetensors.torch import save_file
from tiny import inputs, latent, source, tiny_bank


def bank_of(folder, name="canny", seed=0, **layout) -> Bank:
    path = folder / f"{name}.safetensors"
    save_file(random_file(seed, **layout), path)
    return open_experts(path)


def naive_source(name, seed, size, target, weight=1.0, pixels=3):
    rows, columns = size[0] // 2, size[1] // 2
    positions = below(rows, columns) if name == "subject" else over(rows, columns, *(-(-side // 2) for side in target))
    return dict(latent=latent(1, *size, pixels), positions=positions, file=random_file(seed), weight=weight)


def close(found, expected):
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("target", [(8, 8), (6, 12), (10, 4)], ids=str)
@pytest.mark.parametrize("name, weight", [("canny", 1.0), ("canny", 0.4), ("depth", 0.0), ("subject", 1.0)])
def test_an_imported_expert_is_the_peer_s_own_design(flux, tmp_path, name, weight, target):
    bank = bank_of(tmp_path, name, seed=5)
    args, size = inputs(2, *target), (8, 8)
    task = bank.info.experts[name].task
    found = velocity(flux, *args, Attachment(bank), [source(task, 1, *size, strength=weight)])
    expected = NaiveEasyControl(flux.state_dict())(*args, [naive_source(name, 5, size, target, weight)], bank)
    close(found, expected)
    assert (found - flux(*args)).abs().max() > 1e-2


@pytest.mark.parametrize("guidance", [1.0, 3.5, 30.0])
def test_subject_and_spatial_together_at_several_guidances(flux, tmp_path, guidance):
    bank = merge([bank_of(tmp_path, "subject", 5), bank_of(tmp_path, "seg", 6)])
    *args, _ = inputs(2, 6, 10)
    args.append(torch.full((2,), guidance))
    sources = [source("subject", seed=3), source("control", seed=9, strength=0.7)]
    naive = [naive_source("subject", 5, (8, 8), (6, 10)), naive_source("seg", 6, (8, 8), (6, 10), 0.7, 9)]
    close(velocity(flux, *args, Attachment(bank), sources), NaiveEasyControl(flux.state_dict())(*args, naive, bank))


def test_two_guidances_in_a_batch_have_rows_of_their_own(flux, tmp_path):
    bank = bank_of(tmp_path)
    x, t, context, pooled, _ = inputs(2)
    pooled = pooled[:1].expand(2, -1)
    together = velocity(flux, x, t, context, pooled, torch.tensor([1.0, 30.0]), Attachment(bank), [source()])
    for i, guidance in enumerate((1.0, 30.0)):
        one = (x[i : i + 1], t[i : i + 1], context[i : i + 1], pooled[:1], torch.tensor([guidance]))
        close(together[i : i + 1], velocity(flux, *one, Attachment(bank), [source()]))


def test_a_second_control_changes_nothing_in_the_first_one_s_keys_and_values(flux, tmp_path):
    bank = merge([bank_of(tmp_path, "canny", 5), bank_of(tmp_path, "depth", 6)])
    alone, both = Attachment(bank), Attachment(bank)
    first, second = source(expert="canny", seed=3), source(expert="depth", seed=9)
    velocity(flux, *inputs(), alone, [first])
    velocity(flux, *inputs(), both, [first, second])
    (row,) = [entry.sample for entry in alone.cache.entries.values()]
    (same,) = [entry.sample for slot, entry in both.cache.entries.items() if slot in alone.cache.entries]
    for block in row.kv:
        assert all(torch.equal(a, b) for a, b in zip(row.kv[block], same.kv[block]))
    assert len(both.cache.entries) == 2
    assert torch.equal(velocity(flux, *inputs(), both, []), flux(*inputs())), "none: the plain picture"


def test_imported_stands_beside_routed(flux, tmp_path):
    routed, imported = tiny_bank(flux), bank_of(tmp_path, "pose", 6)
    bank = merge([routed, imported])
    for task, expert, parent in (("control", "", routed), ("ground", "", routed), ("control", "pose", imported)):
        one = [source(task, expert=expert)]
        assert torch.equal(
            velocity(flux, *inputs(), Attachment(bank), one), velocity(flux, *inputs(), Attachment(parent), one)
        )


def test_import_saved_as_a_bank_is_the_import(flux, tmp_path):
    bank = bank_of(tmp_path, "hedsketch")
    saved = Bank.open(bank.save(tmp_path / "bank.safetensors"))
    assert saved.info == bank.info and saved.info.experts["hedsketch"].source_format.position == "corner"
    assert all(torch.equal(saved.tensors[name], bank.tensors[name]) for name in bank.tensors)


@pytest.mark.parametrize("renamed", ["processor.", "transformer.", "cond_"])
def test_other_spellings_of_the_same_file(flux, tmp_path, renamed):
    tensors = random_file(5)
    spell = {
        "processor.": lambda key: key.replace("processor.", ""),
        "transformer.": lambda key: f"transformer.{key}",
        "cond_": lambda key: key.replace("processor.", "processor.cond_"),
    }[renamed]
    save_file({spell(key): tensor for key, tensor in tensors.items()}, tmp_path / "canny.safetensors")
    kind = "canny" if renamed == "cond_" else "auto"
    found, expected = (
        open_experts(tmp_path / "canny.safetensors", kind=kind),
        bank_of(tmp_path / "..", "canny_again", 5),
    )
    names = zip(sorted(found.tensors), sorted(expected.tensors))
    assert all(torch.equal(found.tensors[a], expected.tensors[b]) for a, b in names)
    assert len(found.tensors) == len(expected.tensors)


def test_a_fork_s_names_ask_for_a_kind(tmp_path):
    save_file(
        {key.replace("processor.", "processor.cond_"): t for key, t in random_file().items()},
        tmp_path / "canny.safetensors",
    )
    with pytest.raises(FileError, match=r"has the names of a fork of EasyControl \(cond_q_loras\), .* choose a kind"):
        open_experts(tmp_path / "canny.safetensors")


@pytest.mark.parametrize("path", ["seethrough3d_release/lora", "SeeThrough3D-canny"])
def test_seethrough3d_is_known_by_its_name_and_asks_for_a_kind(flux, tmp_path, path):
    """As its repository names it: a folder with a file that says nothing."""
    file = tmp_path / f"{path}.safetensors"
    file.parent.mkdir(exist_ok=True)
    save_file(random_file(5), file)
    with pytest.raises(
        FileError, match="is SeeThrough3D's, whose condition also reads the prompt's words .*kind spatial"
    ):
        open_experts(file)
    bank = open_experts(file, "cuboids", "spatial")
    assert bank.info.experts["cuboids"].source_format == KINDS["spatial"].source_format


def test_a_video_model_s_file_is_said_to_be_one(tmp_path):
    save_file(
        {key: t for key, t in random_file().items() if not key.startswith("single")}, tmp_path / "canny.safetensors"
    )
    with pytest.raises(
        FileError,
        match=r"is for a model without single blocks \(as Omni-Effects' files for CogVideoX are\), expected FLUX",
    ):
        open_experts(tmp_path / "canny.safetensors")


def test_a_file_can_be_lent_to_chroma_but_not_to_flux_2(tmp_path):
    path = tmp_path / "canny.safetensors"
    save_file(random_file(), path)
    mine, lent = open_experts(path), open_experts(path, family="Chroma")
    assert (mine.info.base.family, lent.info.base.family) == ("flux1", "chroma")
    assert all(torch.equal(lent.tensors[key], mine.tensors[key]) for key in mine.tensors)
    with pytest.raises(FileError, match="family is 'FLUX.2', expected one of 'auto', 'FLUX.1', 'Chroma'"):
        open_experts(path, family="FLUX.2")


@pytest.mark.parametrize(
    "name, kind", [("my-Depth_v2", "depth"), ("OmniConsistency", "omniconsistency"), ("seg512", "seg")]
)
def test_a_whole_word_of_the_name_says_what_a_file_is_for(tmp_path, name, kind):
    (expert,) = bank_of(tmp_path, name).info.experts.values()
    assert (expert.task, expert.source_format) == (KINDS[kind].task, KINDS[kind].source_format)


@pytest.mark.parametrize("name", ["purpose", "segmented", "inpainting_or_subject"])
def test_a_part_of_a_word_and_two_words_say_nothing(tmp_path, name):
    with pytest.raises(FileError, match="does not say what it is for"):
        bank_of(tmp_path, name)


ONE = "transformer_blocks.1.attn.processor.q_loras.0.down.weight"
PROJ = f"single_{ONE}".replace("q_loras", "proj_loras")
SPOILT = {
    "gone": ({ONE: None}, f"canny.safetensors lacks {ONE}: download it again"),
    "far block": ({ONE.replace(".1.", ".999."): torch.ones(RANK, WIDTH)}, "lacks transformer_blocks.2.attn"),
    "far condition": (
        {ONE.replace("s.0.", "s.7."): torch.ones(RANK, WIDTH)},
        "lacks transformer_blocks.0.attn.*_loras.7",
    ),
    "twice": ({f"transformer.{ONE}": torch.ones(RANK, WIDTH)}, f"holds transformer.{ONE} and {ONE}, expected one of"),
    "twice, by number": ({ONE.replace(".1.", ".01."): torch.ones(RANK, WIDTH)}, "both are the same matrix"),
    "other rank": ({ONE: torch.ones(2, WIDTH)}, rf"{ONE} has shape \(2, 256\), expected \(4, 256\): download"),
    "whole numbers": (
        {ONE: torch.ones(RANK, WIDTH, dtype=torch.int8)},
        f"{ONE} is I8 of shape .*, expected a matrix of num",
    ),
    "no rank": (
        {key: torch.ones(0, WIDTH) for key in random_file()},
        r"shape \(0, 256\), expected a matrix of numbers",
    ),
    "single proj": ({PROJ: torch.ones(RANK, WIDTH)}, f"holds {PROJ} beside EasyControl's tensors"),
    "wide": (random_file(width=65537, rank=1), "hidden_size is 65537, expected 1 to 65536"),
}


@pytest.mark.parametrize("what", SPOILT)
def test_what_is_wrong_with_a_file_is_said_in_the_file_s_own_words(tmp_path, what):
    change, sentence = SPOILT[what]
    tensors = {key: tensor for key, tensor in {**random_file(), **change}.items() if tensor is not None}
    save_file(tensors, tmp_path / "canny.safetensors")
    with pytest.raises(FileError, match=sentence) as caught:
        open_experts(tmp_path / "canny.safetensors")
    assert "canny.safetensors" in str(caught.value) and "experts." not in str(caught.value)


def test_no_header_keeps_the_list_of_files_waiting(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"transformer_blocks.0.attn." * (HEADER_BYTES // 26))
    began = time.process_time()
    assert not looks_like_easycontrol(tmp_path / "x.safetensors")
    assert time.process_time() - began < 0.5  # it was seconds


def test_a_listed_file_is_read_again_only_when_it_changes(tmp_path, monkeypatch):
    path, read = tmp_path / "x.safetensors", []
    monkeypatch.setattr(safe_file, "open_regular", lambda path: read.append(path) or open_regular(path))
    path.write_bytes(b"nothing")
    assert [looks_like_easycontrol(path) for _ in range(3)] == [False] * 3 and len(read) == 1
    save_file(random_file(), path)
    assert [looks_like_easycontrol(path) for _ in range(3)] == [True] * 3 and len(read) == 2


def test_a_file_is_known_by_its_first_64_kib(tmp_path):
    """So that a list of many large files needs little of each."""
    from cologen.prw.bank.importers.easycontrol import HEADER_BYTES, looks_like_easycontrol

    save_file(random_file(double=19, single=38), tmp_path / "whole.safetensors")
    beginning = (tmp_path / "whole.safetensors").read_bytes()[:HEADER_BYTES]
    (tmp_path / "cut.safetensors").write_bytes(beginning)
    assert looks_like_easycontrol(tmp_path / "cut.safetensors")
    (tmp_path / "other.safetensors").write_bytes(beginning.replace(b"_loras", b"_words"))
    assert not looks_like_easycontrol(tmp_path / "other.safetensors")
    assert not looks_like_easycontrol(tmp_path / "missing.safetensors")
