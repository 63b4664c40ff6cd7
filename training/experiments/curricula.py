"""The paper's experiments on the toy world, where every answer can be measured.

An experiment is a table of curricula. All rows of one are trained from the same base on the same lessons for the same
number of iterations in all, with several seeds, and asked the same questions.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ...prw.bank.bank import Bank
from ...prw.coredi.features import SUFFIX, Features
from ...prw.files.atomic_write import atomic_write
from ...prw.files.validate import build
from ..checkpoint.run_folder import RunFolder, fingerprint
from ..coredi.sampling import FeatureSampler
from ..recipes.curriculum import BUDGETS, Curriculum, Stage, load_curriculum, scaled
from ..run import Run
from ..runner import label
from ..sampling import sample_latents
from ..setup.stage_data import StageDatasets, toy_data
from ..toy.evaluate import evaluate
from ..toy.make import ToyRecipe, shorten_recipe
from ..toy.store import NAME, SHIPPED, open_set

Rows = Mapping[str, Curriculum]
CONCEPT, LOCALISATION = "inpaint", "ground"
"""The stages that the paper calls R_c and R_l."""
MEASURED = ("subject", "edit")
"""What the paper's ablations look at."""
TOY_FEATURES = 16
"""Of the 64 channels that a token of the toy world has."""
HELD_OUT = 10**7
"""Apart from every other seed of questions."""


@dataclass(frozen=True)
class Experiment:
    says: str
    """What the paper claims."""
    rows: Callable[[Curriculum], Rows]
    tasks: tuple[str, ...] = MEASURED
    common: int = 0
    """Stages in which no row differs from the first: it trains them for all."""
    along: Mapping[str, float] = field(default_factory=dict)
    """Rows whose pictures are drawn along with their features, and their weight."""


def fresh(curriculum: Curriculum) -> Curriculum:
    """Every expert begins anew, as the paper's do: a row may lack what the recipe's stages begin as."""
    return replace(curriculum, stages=tuple(replace(stage, start="") for stage in curriculum.stages))


def without(curriculum: Curriculum, *names: str) -> Curriculum:
    """Fewer stages, and as many iterations in all."""
    kept = [stage for stage in curriculum.stages if stage.name not in names]
    stretch = total(curriculum) / sum(stage.iterations for stage in kept)
    stages = [replace(stage, iterations=round(stage.iterations * stretch)) for stage in kept]
    first = replace(stages[0], rho=1.0, veteran=0.0)  # the first expert has nobody to leave blocks to
    return replace(curriculum, stages=(first, *stages[1:]))


def total(curriculum: Curriculum) -> int:
    return sum(stage.iterations for stage in curriculum.stages)


def together(curriculum: Curriculum) -> Curriculum:
    """Co-training: all experts and one free router on all tasks at once."""
    *older, last = curriculum.stages
    begun = [replace(stage, iterations=1, rho=1.0, veteran=0.0) for stage in older]
    along = tuple(stage.name for stage in older)
    rest = total(curriculum) - len(older)
    mixed = replace(last, iterations=rest, veteran=0.0, along=along, replay=len(older) / len(curriculum.stages))
    return replace(curriculum, stages=(*begun, mixed))


def table5(curriculum: Curriculum) -> Rows:
    return {
        "neither": without(curriculum, CONCEPT, LOCALISATION),
        "localisation only": without(curriculum, CONCEPT),
        "concept only": without(curriculum, LOCALISATION),
        "co-training": together(curriculum),
        "curriculum": curriculum,
    }


def each_stage(curriculum: Curriculum, **changes) -> Curriculum:
    """Changes for every stage but the first, which has no router to hold."""
    first, *rest = curriculum.stages
    return replace(curriculum, stages=(first, *(replace(stage, **changes) for stage in rest)))


def rho(curriculum: Curriculum) -> Rows:
    return {f"rho {value}": each_stage(curriculum, rho=value) for value in (0.5, 0.65, 0.8, 0.95)}


def alpha(curriculum: Curriculum) -> Rows:
    return {f"alpha {value}": each_stage(curriculum, veteran=value) for value in (0.0, 0.25, 0.5, 1.0, 2.0)}


def rank(curriculum: Curriculum) -> Rows:
    return {
        f"rank {value}": replace(curriculum, settings=replace(curriculum.settings, rank=value, alpha=2.0 * value))
        for value in (8, 16, 32, 64)
    }


def coredi(curriculum: Curriculum) -> Rows:
    """Twins that differ in nothing but what the stages that are measured learn besides."""
    narrow = replace(curriculum.settings, feature_size=TOY_FEATURES)

    def row(features: str) -> Curriculum:
        stages = [replace(s, features=features) if s.name in MEASURED else s for s in curriculum.stages]
        return replace(curriculum, settings=narrow, stages=tuple(stages))

    ways = {"auxiliary": "auxiliary", "self-conditioned": "self", "CoReDi": "coredi"}
    names = [*ways, *GUIDED]
    return {"plain": curriculum, **{name: row(ways[name.split(",")[0]]) for name in names}}


GUIDED = {
    "self-conditioned, read": 1.0,
    "self-conditioned, guided": 1.5,
    "CoReDi, read": 1.0,
    "CoReDi, guided": 1.5,
}


def forgetting(curriculum: Curriculum) -> Rows:
    return {"curriculum": curriculum}


EXPERIMENTS = {
    "table5": Experiment("Both seeds help, and one after another beats together (Table 5).", table5),
    "rho": Experiment("A share of 0.8 for the newest expert is best (Figure 4).", rho),
    "alpha": Experiment("The veteran loss helps; its weight is 0.5 (Figure 4).", alpha),
    "rank": Experiment("Rank 128 of width 3072 is best (Figure 4).", rank),
    "coredi": Experiment(
        "Experts learn better when they denoise an encoder's features along (CoReDi).", coredi, common=3, along=GUIDED
    ),
    "forgetting": Experiment(
        "Frozen experts keep what they know.", forgetting, ("inpaint", "ground", "control", "subject", "edit")
    ),
}


class Laboratory:
    """Trains and asks; what is finished is kept in its folder and not done again."""

    def __init__(self, out: Path, budget: str, count: int, say: Callable[[str], None]):
        self.out, self.count, self.say = out, count, say
        toy = load_curriculum("toy")
        self.curriculum = fresh(scaled(toy, BUDGETS[budget]))
        examples = shorten_recipe(build(ToyRecipe, toy.toy, "toy"), max(BUDGETS[budget], 0.1)).examples
        self.flux, self.encoders = open_set(SHIPPED)
        tasks = [stage.task for stage in toy.stages]
        self.lessons = StageDatasets(
            {task: [toy_data(task, examples, self.encoders, 0)] for task in tasks}, out / "lessons", lambda *_: None
        )

    def perform(self, name: str, seeds: int) -> dict:
        """{row: {seed: report}}, also written to the folder."""
        experiment, found = EXPERIMENTS[name], {}
        for seed in range(seeds):
            for row, curriculum in experiment.rows(self.curriculum).items():
                found.setdefault(row, {})[seed] = self._measured(name, experiment, row, curriculum, seed)
        return found

    def _measured(self, name: str, experiment: Experiment, row: str, curriculum: Curriculum, seed: int) -> dict:
        folder = self.out / fingerprint(curriculum, seed)  # experiments share what they all contain
        asked, weight = name if name == "forgetting" else "-".join(experiment.tasks), experiment.along.get(row)
        path = folder / f"{asked}-{self.count}{'' if weight is None else f'-along-{weight}'}.json"
        if path.exists():
            return json.loads(path.read_text(encoding="utf-8"))
        self.say(f"{name}: {row}, seed {seed}")
        run = Run(self.host(), curriculum, self.lessons, self.encoders, folder, seed, NAME)
        bank = run.train(self._begun(experiment, row, seed))
        report = {"usage": usages(run, bank)}
        if name == "forgetting":
            report["after"] = {
                stage.name: self._after(folder, i, stage, seed) for i, stage in enumerate(curriculum.stages)
            }
        else:
            router = "final" if row == "co-training" else ""
            draw = sample_latents if weight is None else FeatureSampler(left_besides(curriculum, folder), weight)
            asking = self.count, HELD_OUT + seed, experiment.tasks, router
            report |= evaluate(self.host(), self.encoders, bank, *asking, draw=draw)
        with atomic_write(path) as part:
            part.write_text(json.dumps(report), encoding="utf-8")
        return report

    def _begun(self, experiment: Experiment, row: str, seed: int) -> Bank | None:
        """What the first row learned before the others part from it."""
        first, curriculum = next(iter(experiment.rows(self.curriculum).items()))
        if not experiment.common or row == first:
            return None
        number = experiment.common - 1
        return Bank.open(
            RunFolder(self.out / fingerprint(curriculum, seed)).stage(label(curriculum.stages[number], number))
        )

    def _after(self, folder: Path, number: int, stage: Stage, seed: int) -> dict:
        """Every task so far, with its own router and with the newest."""
        bank = Bank.open(RunFolder(folder).stage(label(stage, number)))
        tasks = [each.task for each in self.curriculum.stages[: number + 1]]
        return {
            router or "own": evaluate(self.host(), self.encoders, bank, self.count, HELD_OUT + seed, tasks, router)
            for router in ("", "final")
        }

    def host(self):
        from ...prw.embedded_host import EmbeddedHost

        return EmbeddedHost(self.flux, next(self.flux.parameters()).dtype)


def left_besides(curriculum: Curriculum, folder: Path) -> list[Features]:
    """What it takes to draw features along."""
    stages = enumerate(curriculum.stages)
    paths = [RunFolder(folder).stage(label(stage, i) + SUFFIX) for i, stage in stages if stage.features != "off"]
    return [Features.open(path) for path in paths]


def usages(run: Run, bank: Bank) -> dict[str, float]:
    """The newest expert's share of the blocks, by its own router, as at inference, on held-out lessons of its task."""
    from ...prw.flux.inputs import FluxInputs
    from ...prw.source import Routing
    from ..forward import weave
    from ..objective import usage_of_all
    from ..validate import held_out

    shares = {}
    for stage in run.curriculum.stages:
        batch = held_out(run.lessons[stage.task], 64)
        x = run.host.latent_in(batch.target).float()
        inputs = FluxInputs(x, batch.times, batch.context, batch.pooled)
        woven = weave(run.host, bank, Routing(task=stage.task, router=stage.name), batch.source, inputs)
        newest = len(bank.info.routers[stage.name].experts)
        shares[stage.name] = round(usage_of_all(woven.routes.values(), newest)[-1].item(), 4)
    return shares


def mean_and_sd(values: list[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
