"""`cologen eval BENCHMARK` from drawing to the page, also stopped, gone on with, and by several processes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmark_layouts import LAYOUTS
from cologen.prw.bank.bank import Bank
from cologen.training.cli import eval_benchmarks as tables
from cologen.training.cli.main import main
from cologen.training.distributed import ranks
from cologen.training.evaluation.generate import claim_answers, generate_answers, list_paths, read_answers
from cologen.training.evaluation.image_generator import WORLD_SETTINGS, make_host_generator, open_world_generator
from cologen.training.evaluation.measure import Score
from cologen.training.evaluation.metrics import METRICS
from cologen.training.evaluation.networks import CHECKPOINTS, MetricNetworks
from cologen.training.evaluation.protocols import PROTOCOLS
from cologen.training.evaluation.report import write_report
from cologen.training.evaluation.toy_cases import make_toy_cases
from cologen.training.from_scratch.store import BANK
from cologen.training.toy.store import TOY
from cologen.training.toy.tasks import make_questions
from PIL import Image
from tiny_networks import tiny_clip, tiny_dino

OVERLAP = np.ones(3), np.full(3, 2.0)
COLOGEN = ("-m", "cologen.training")


def run(capsys, *argv):
    code = main(["eval", *map(str, argv), "--device", "cpu"])
    captured = capsys.readouterr()
    return code, captured.out.strip(), captured.err.strip()


def pictures(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*.png"))}


def scribble(task, source, prompt, size, seed):
    """Draws what follows from all that it is told."""
    rng = np.random.default_rng((seed, len(prompt), int(source.sum())))
    return rng.integers(0, 256, (*size, 3), dtype=np.uint8)


def drawn_by(paint, name, out, cases=5, side=64):
    protocol = PROTOCOLS[name]
    generate_answers(
        paint, protocol, make_toy_cases(protocol.task, protocol.kind, cases, 0), out, side, 0, lambda line: None
    )
    return pictures(out)


class TestCommand:
    def test_a_fresh_clone_measures_the_toy_world(self, capsys, tmp_path):
        code, said, _ = run(capsys, "magicbrush", "--cases", 2, "--out", tmp_path / "out", "--checkpoints", tmp_path)
        assert code == 0 and said.endswith("report.html")
        scores = json.loads((tmp_path / "out/scores.json").read_text())["scores"]
        assert (
            scores["l1"]["pictures"] == 2 and 0 < scores["l1"]["total"] < 0.5 and scores["l1_source"]["paper"] == 0.063
        )
        assert scores["dino_source"]["total"] is None and "There is no dino-vits16 in" in scores["dino_source"]["why"]
        assert "| L1 to the source ↓ |" in said and "| 0.063 | Table 2 |" in said
        assert "pictures of the toy world" in said

    @pytest.mark.slow
    def test_an_ablation_is_measured_case_by_case(self, capsys, tmp_path):
        words = ["magicbrush", "--cases", 2, "--steps", 2, "--out", tmp_path / "out", "--checkpoints", tmp_path]
        code, said, _ = run(capsys, *words, "--ablate")
        assert code == 0 and "## Older experts" in said and (tmp_path / "out/report.html").stat().st_size > 1000
        emptied = {
            key: torch.zeros_like(tensor) if key.endswith(".up") and not key.startswith("experts.edit.") else tensor
            for key, tensor in Bank.open(TOY.folder / BANK).tensors.items()
        }
        Bank(Bank.open(TOY.folder / BANK).info, emptied).save(tmp_path / "emptied.safetensors")
        words[words.index("--out") + 1] = tmp_path / "other"
        assert run(capsys, *words, "--bank", tmp_path / "emptied.safetensors")[0] == 0
        assert pictures(tmp_path / "out/older-none") == pictures(tmp_path / "other")
        before, after = (json.loads((tmp_path / name / "scores.json").read_text()) for name in ("out", "other"))
        (row,) = (
            row
            for row in before["ablation"]
            if row["measure"] == "L1 to the reference" and row["older experts' blocks go"] == "to none"
        )
        l1 = [found["scores"]["l1"]["each"] for found in (before, after)]
        changes = [l1[1][key] - l1[0][key] for key in l1[0]]
        assert float(row["change"]) == pytest.approx(np.mean(changes), rel=1e-3)
        assert row["95 %"] == f"{min(changes):+.4g} to {max(changes):+.4g}"
        code, _, error = run(capsys, *words[:-4], "--out", tmp_path / "out/older-none", "--measure")
        assert code == 1 and "answers that were drawn otherwise (bank: " in error

    @pytest.mark.parametrize("name", ["flux", "vae", "clip_l", "t5xxl"])
    def test_answers_of_other_files_under_the_same_name_are_not_mixed(self, capsys, tmp_path, name):
        files = {each: tmp_path / each for each in ("flux", "vae", "clip_l", "t5xxl")}
        for path in files.values():
            path.write_bytes(b"weights")
        words = ["magicbrush", "--cases", 1, "--out", tmp_path / "out", "--checkpoints", tmp_path, "--measure"]
        words += ["--flux", files["flux"], "--vae", files["vae"], "--clip", files["clip_l"], files["t5xxl"]]
        answer = tmp_path / "out/drawn/some/answer.png"
        answer.parent.mkdir(parents=True)
        Image.new("RGB", (64, 64)).save(answer)
        assert "drawn otherwise" not in run(capsys, *words)[2]
        files[name].write_bytes(b"changed")
        code, _, error = run(capsys, *words)
        assert code == 1 and "answers that were drawn otherwise (files: {'flux': '" in error

    @pytest.mark.parametrize("name", ["magicbrush", "dreambench", "multigen-depth"])
    def test_a_benchmark_as_published_is_drawn_and_measured(self, capsys, tmp_path, name):
        LAYOUTS[name](tmp_path / "data")
        tiny_clip(tmp_path / "nets" / CHECKPOINTS["clip"].name)
        tiny_dino(tmp_path / "nets/other", "Dinov2")
        benchmark, _, kind = name.partition("-")
        words = [benchmark, *(["--kind", kind] if kind else []), "--data", tmp_path / "data", "--cases", 2]
        words += ["--out", tmp_path / "out", "--checkpoints", tmp_path / "nets", "--steps", 1, "--side", 32]
        code, said, _ = run(capsys, *words, "--model", f"dino={tmp_path / 'nets/other'}")
        assert code == 0
        protocol = PROTOCOLS[name]
        assert len(pictures(tmp_path / "out")) == 2 * protocol.images_per_case
        assert f"2 of {protocol.count} cases: not comparable with the paper" in said
        scores = json.loads((tmp_path / "out/scores.json").read_text())["scores"]
        assert {*protocol.paper, *protocol.extra_metrics} == scores.keys()
        measured = {metric for metric, score in scores.items() if score["total"] is not None}
        assert measured == {m for m in scores if METRICS[m].network in ("", "clip", "dino")}
        if "dino" in {METRICS[m].network for m in scores}:
            assert "other instead of dino-vits16: figures of another network" in said and "| other |" in said

    @pytest.mark.parametrize("name, measured", [("inpainting", {"clip_i", "l1"}), ("refcoco+", {"box_iou", "box_hit"})])
    def test_benchmarks_of_our_own_have_no_row_of_the_paper(self, capsys, tmp_path, name, measured):
        LAYOUTS[name](tmp_path / "data")
        tiny_clip(tmp_path / "nets" / CHECKPOINTS["clip"].name)
        words = ["--checkpoints", tmp_path / "nets", "--steps", 1, "--cases", 2]
        for data, side in ((tmp_path / "data", 32), ("toy", 64)):
            out = tmp_path / f"out{side}"
            code, said, _ = run(capsys, name, "--data", data, "--side", side, "--out", out, *words)
            assert code == 0 and "our choice: the paper has no table for this task" in said
            assert "not comparable with the paper" not in said
            scores = json.loads((out / "scores.json").read_text())["scores"]
            assert {key for key, score in scores.items() if score["total"] is not None} >= measured
            assert {score["paper"] for key, score in scores.items() if key in measured} == {None}
            assert all(score["pictures"] == 2 for key, score in scores.items() if key in measured)

    @pytest.mark.parametrize(
        "words, sentence",
        [
            (
                ["magicbrush", "--data", "nowhere"],
                "There is no folder nowhere: download the benchmark from https://github",
            ),
            (["gedit", "--measure"], "There is no answer in"),
            (["gedit", "--flux", "x"], "--flux is given, expected --bank, --vae and --clip"),
            (["gedit", "--bank", "x"], "There is no bank x: check the name"),
            (["gedit", "--model", "dino"], "--model is 'dino', expected KEY=PATH"),
            (["gedit", "--model", "eye=x"], "--model is 'eye', expected one of 'clip'"),
            (["gedit", "--steps", "9999"], "--steps is 9999, expected 1 to 1000"),
        ],
    )
    def test_mistakes_are_one_sentence(self, capsys, tmp_path, words, sentence):
        code, _, error = run(capsys, *words, "--out", tmp_path / "out")
        assert code == 1 and sentence in error and "\n" not in error

    def test_the_terminal_knows_every_protocol(self):
        kinds = tables.KINDS
        names = [f"{n}-{k}" for n in tables.BENCHMARKS for k in kinds.get(n, ())]
        assert {*names, *(n for n in tables.BENCHMARKS if n not in kinds)} == PROTOCOLS.keys()

    def test_what_is_drawn_otherwise_goes_elsewhere(self, capsys, tmp_path):
        claim_answers(tmp_path, {"seed": 0, "steps": 11})
        claim_answers(tmp_path, {"seed": 0, "steps": 12})  # nothing was drawn yet
        (tmp_path / "drawn/first").mkdir(parents=True)
        (tmp_path / "drawn/first/one.png").touch()
        claim_answers(tmp_path, {"seed": 0, "steps": 12})
        with pytest.raises(ValueError, match=r"drawn otherwise \(steps: 12 there, 13 here\): choose another folder"):
            claim_answers(tmp_path, {"seed": 0, "steps": 13})


class TestDrawing:
    def test_a_picture_that_is_there_is_not_made_again(self, tmp_path):
        whole = drawn_by(scribble, "multigen-canny", tmp_path / "whole")
        assert len(whole) == 5 * 4 and len(set(whole.values())) == 20
        left = 7

        def tired(*asked):
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            return scribble(*asked)

        with pytest.raises(KeyboardInterrupt):
            drawn_by(tired, "multigen-canny", tmp_path / "parts")
        assert len(pictures(tmp_path / "parts")) == 7
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "parts").rglob("*.png")}
        calls = []
        assert drawn_by(lambda *a: calls.append(a) or scribble(*a), "multigen-canny", tmp_path / "parts") == whole
        assert len(calls) == 13 and all(path.stat().st_mtime_ns == time for path, time in before.items())

    def test_shares_of_ranks_are_the_whole(self, tmp_path, monkeypatch):
        whole = drawn_by(scribble, "gedit", tmp_path / "one")
        monkeypatch.setattr(ranks, "world_size", lambda: 3)
        shares = []
        for rank in range(3):
            monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
            before = set(pictures(tmp_path / "three"))
            shares.append(len(set(drawn_by(scribble, "gedit", tmp_path / "three")) - before))
        assert shares == [2, 2, 1] and pictures(tmp_path / "three") == whole

    def test_more_cases_leave_the_first_as_they_are(self, tmp_path):
        few, more = (drawn_by(scribble, "dreambench", tmp_path / str(n), n) for n in (2, 4))
        assert len(more) == 4 and few.items() <= more.items()

    def test_every_id_names_a_file_within_the_folder(self, tmp_path):
        ids = ["a-1", "../../x", "", ".", "con/aux", "a" * 400, "ünï", "a b", ".hidden"]
        case = make_toy_cases("edit", "", 1, 0)[0]
        found = [list_paths(PROTOCOLS["gedit"], case._replace(id=id), tmp_path)[0] for id in ids]
        assert len(set(found)) == len(ids)
        assert all(path.resolve().parent == (tmp_path / "drawn/0").resolve() and len(path.name) < 120 for path in found)
        assert found[0].name == "a-1.png"

    def test_sources_are_fitted_and_subjects_get_a_square(self, tmp_path):
        sizes = []
        for name in ("magicbrush", "dreambench", "ade20k"):
            LAYOUTS[name](tmp_path / name)
            protocol = PROTOCOLS[name]
            case = next(iter(protocol.read(tmp_path / name, 64, MetricNetworks(tmp_path))))

            def note(task, source, prompt, size, seed):
                sizes.append((task, source.shape[:2], size))
                return np.zeros((*size, 3), np.uint8)

            generate_answers(note, protocol, [case], tmp_path / "out" / name, 64, 0, lambda line: None)
        edit, subject, *control = sizes
        assert edit == ("edit", (48, 80), (48, 80)) and subject == ("subject", (48, 80), (64, 64))
        assert control == [("control", (64, 64), (64, 64))] * 4

    @pytest.mark.slow
    def test_a_kill_and_two_processes_change_nothing(self, capsys, tmp_path):
        words = ["eval", "gedit", "--cases", "4", "--steps", "2", "--device", "cpu", "--out"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, *COLOGEN, *words, str(tmp_path / "killed")]
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
        while not pictures(tmp_path / "killed"):
            assert process.poll() is None, process.stderr.read().decode()
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kept = pictures(tmp_path / "killed")
        (tmp_path / "killed/drawn/0/.stray.png.1.part").write_bytes(b"half")
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        command = [*launcher, *COLOGEN, *words, str(tmp_path / "killed")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1500)
        assert done.returncode == 0 and done.stdout.count("report.html") == 1, done.stderr
        assert run(capsys, *words[1:-1], "--out", tmp_path / "whole")[0] == 0
        whole, gone_on = pictures(tmp_path / "whole"), pictures(tmp_path / "killed")
        assert 0 < len(kept) and kept.items() <= whole.items() and gone_on == whole and len(whole) == 4
        assert not list((tmp_path / "killed").rglob("*.part"))


class TestPainter:
    def test_the_toy_painter_draws_what_was_asked(self):
        """As `cologen eval toy` does, but for its noise."""
        paint, question = (
            open_world_generator(TOY, None, WORLD_SETTINGS, "cpu"),
            make_questions("edit", 1, 77)[0].example,
        )
        picture = paint("edit", question.source, question.prompt, (64, 64), 3)
        assert picture.shape == (64, 64, 3) and picture.dtype == np.uint8
        assert (picture == paint("edit", question.source, question.prompt, (64, 64), 3)).all()
        assert (picture != paint("edit", question.source, question.prompt, (64, 64), 4)).any()
        far = np.abs(picture.astype(int) - question.source).mean()
        assert far < 60, "the source is not read"

    @pytest.mark.usefixtures("comfy")
    def test_the_hosts_loaders_draw_the_same_picture(self):
        from cologen.training.comfyui.built_in import load_clip, load_model, load_vae

        ours, question = (
            open_world_generator(TOY, None, WORLD_SETTINGS, "cpu"),
            make_questions("control", 1, 78)[0].example,
        )
        theirs = make_host_generator(load_model(TOY, {}), load_vae(TOY), load_clip(TOY), ours.bank, WORLD_SETTINGS)
        a, b = (paint("control", question.source, question.prompt, (64, 64), 5) for paint in (ours, theirs))
        assert np.abs(a.astype(int) - b).max() <= 3  # fp16 weights, cast on the way


class TestReport:
    @pytest.mark.parametrize("name", PROTOCOLS)
    def test_the_papers_row_stands_beside_ours(self, tmp_path, name):
        protocol = PROTOCOLS[name]
        assert protocol.paper.keys() | set(protocol.extra_metrics) <= METRICS.keys()
        drawn_by(scribble, name, tmp_path, 2)
        cases = make_toy_cases(protocol.task, protocol.kind, 2, 0)
        found = list(read_answers(protocol, cases, tmp_path))
        values = {"judge": ("group", 0.5), "ade20k": OVERLAP, "cocostuff": OVERLAP}
        metrics = (*protocol.paper, *protocol.extra_metrics)
        scores = [Score(metric, 0.5, {"0/x": values.get(METRICS[metric].network, 0.5)}) for metric in metrics]
        settings = {"data": "<folder>", "bank": "mine"}
        path = write_report(tmp_path, protocol, scores, found, MetricNetworks(tmp_path), settings)
        html, text = path.read_text(), (tmp_path / "report.md").read_text()
        for metric in metrics:
            quoted = "{:g} | {}".format(*protocol.paper[metric]) if metric in protocol.paper else " | "
            used = CHECKPOINTS[METRICS[metric].network].name if METRICS[metric].network else "the pixels alone"
            row = f"0.5 | 1 | {quoted} | {used}"
            assert f"| {row} |" in text and f"<td>{row.replace(' | ', '</td><td>')}</td>" in html
        assert all(note in text for note in protocol.notes)
        assert (f"2 of {protocol.count} cases: not comparable" in text) == bool(protocol.paper)
        assert (
            html.count("<figcaption>result") == 2 * protocol.images_per_case and html.count("<figcaption>source") == 2
        )
        assert "&lt;folder&gt;" in html and "<folder>" not in html
        assert not re.search(r"(src|href)=.(?!data:)", html), "the page needs nothing beside it"

    def test_figures_stand_under_their_pictures(self, tmp_path):
        drawn_by(scribble, "gedit", tmp_path, 3)
        cases = make_toy_cases("edit", "", 3, 0)
        found = list(read_answers(PROTOCOLS["gedit"], cases, tmp_path))
        keys = [f"0/{case.id}" for case in cases]
        scores = [
            Score("sc", 6.0, {keys[0]: ("g", 7.25), keys[1]: ("g", 4.0)}, missing=1),
            Score("pq", reason="there is <none>"),
            Score("l1", 0.25, dict.fromkeys(keys, 0.25)),
        ]
        html = write_report(
            tmp_path, PROTOCOLS["gedit"], scores, found, MetricNetworks(tmp_path), {"data": "x"}
        ).read_text()
        assert html.count("SC 7.25") == html.count("SC 4<") == 1 and html.count("L1 to the reference 0.25") == 3
        assert "sc: 1 pictures have none" in html and "PQ: there is &lt;none&gt;" in html
        assert json.loads((tmp_path / "scores.json").read_text())["scores"]["sc"]["each"] == {
            keys[0]: 7.25,
            keys[1]: 4.0,
        }

    def test_reasons_that_are_the_same_are_said_once(self, tmp_path):
        scores = [
            Score("clip_i", reason="no network"),
            Score("clip_out", reason="no network"),
            Score("dino", reason="none"),
        ]
        found = list(read_answers(PROTOCOLS["gedit"], [], tmp_path))
        write_report(tmp_path, PROTOCOLS["gedit"], scores, found, MetricNetworks(tmp_path), {"data": "x"})
        assert "- CLIP-I to the reference, CLIP-T (out): no network\n- DINO" in (tmp_path / "report.md").read_text()

    def test_a_page_of_many_shows_the_first(self, tmp_path):
        protocol = PROTOCOLS["emuedit"]
        cases = [make_toy_cases("edit", "", 1, 0)[0]._replace(id=f"c{i}") for i in range(60)]
        for case in cases:
            (path,) = list_paths(protocol, case, tmp_path)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(case.source).save(path)
        html = write_report(
            tmp_path, protocol, [], read_answers(protocol, cases, tmp_path), MetricNetworks(tmp_path), {"data": "x"}
        ).read_text()
        assert "Pictures (48 of 60 cases)" in html and html.count("<figcaption>result") == 48
        assert "60 of 3589 cases" in html
