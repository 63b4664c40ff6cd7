"""`cologen plan`: the experiments on the sticker world, said before they are run, and run."""

from argparse import Namespace, _SubParsersAction
from pathlib import Path

from ...prw.files.validate import build
from ..experiments.plans import PLANS, RECIPE_SHARE
from ..recipes.curriculum import load_curriculum, scale_curriculum
from .arguments import parse_positive, print_progress


def add_commands(commands: _SubParsersAction) -> None:
    parser = commands.add_parser("plan", help="the experiments on the sticker world: their plans, and the runs")
    parser.add_argument("plan", choices=list(PLANS))
    parser.add_argument("--share", type=float, default=RECIPE_SHARE, help="of the iterations of recipe world")
    parser.add_argument(
        "--seeds", type=parse_positive, help="train and ask its rows; if not given, the plan is printed"
    )
    parser.add_argument("--n", type=parse_positive, default=256, help="questions a row and task")
    parser.add_argument("--losses", type=parse_positive, default=1024, help="held-out samples a row and task")
    parser.add_argument(
        "--examples", type=parse_positive, help="samples of each task; as many as recipe world has if not given"
    )
    parser.add_argument("--base", type=Path, help="a folder with the sticker world's FLUX, VAE and text encoder")
    parser.add_argument("--out", type=Path, default=Path("out") / "plans", help="a folder for what is trained")
    parser.set_defaults(run=_plan)


def _plan(args: Namespace) -> str:
    from ..experiments.describe_plan import describe_plan
    from ..experiments.plan_report import format_prefixes, format_report
    from ..experiments.run_plans import PlanRunner, QuestionCounts
    from ..from_scratch.recipe import ScratchRecipe
    from ..from_scratch.store import open_models
    from ..world.store import STICKERS

    plan, recipe = PLANS[args.plan], load_curriculum(STICKERS.name)
    curriculum = scale_curriculum(recipe, args.share)
    if not args.seeds:
        return describe_plan(plan, curriculum)
    examples = args.examples or build(ScratchRecipe, recipe.world, STICKERS.name).examples
    models, asked = open_models(STICKERS, args.base), QuestionCounts(args.n, args.losses)
    runner = PlanRunner(STICKERS, models, curriculum, examples, args.out, asked, print_progress)
    report, prefixes = format_report(plan, runner.run(plan, args.seeds)), runner.measure_prefixes(plan, args.seeds)
    return f"{report}\n\n{format_prefixes(prefixes)}" if prefixes else report
