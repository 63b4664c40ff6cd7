"""Example workflows of the toy set for a subject in other scenes: a second branch, and a guider of two prompts."""

from canvas import Canvas, Node, Output
from cologen.training.from_scratch.evaluate import CFG, STEPS
from workflows_toy import TOLD, Toy

SUBJECT = "a [circle] at the top left"
SCENE = "a big blue square at the bottom right, on a black ground"
OTHER = f"a [red circle] at the top left, {SCENE}"
PLAIN = f"a [circle] at the top left, {SCENE}"


def marked(toy: Toy, text: str, at: tuple[float, float], title: str) -> Output:
    return toy.canvas.add("CoLoGenMarkedPrompt", at, title, box=(300, 120), clip=toy.flux["CLIP"], text=text)[0]


def subject(toy: Toy, question: Node, at: tuple[float, float]) -> Node:
    """The subject's prompts."""
    words = marked(toy, SUBJECT, (1, 6), "The subject marked")
    return toy.task("CoLoGenSubject", at, words, image=question["source"])


def branched(toy: Toy, at: tuple[float, float]) -> None:
    """What is drawn from now on has a second branch."""
    other = marked(toy, OTHER, (1, 10), "A thing that FLUX knows")
    knobs = dict(auxiliary_seed=3, strength=1.0, end=0.5)
    toy.model = toy.canvas.add("CoLoGenDualBranch", at, model=toy.model[0], auxiliary=other, **knobs)


def branch_map(toy: Toy, decoded: Node, at: tuple[float, float]) -> Node:
    given = dict(model=toy.model[0], latent=decoded.values["samples"])
    return toy.canvas.add("CoLoGenBranchMap", at, box=(640, 260), **given)


def guided(toy: Toy, prompts: Node, latent: Output, column: float, **knobs) -> Node:
    """From prompts to a picture, by the guider."""
    add, row = toy.canvas.add, (lambda number: (column + 1, number))
    guider = add("CoLoGenPersonalGuider", (column, 0), model=toy.model[0], positive=prompts["positive"], **knobs)
    noise, sampler = add("RandomNoise", row(6), noise_seed=7), add("KSamplerSelect", row(9), sampler_name="euler")
    sigmas = add("BasicScheduler", row(11), model=toy.model[0], scheduler="simple", steps=STEPS)
    sampled = add(
        "SamplerCustomAdvanced", row(0), noise=noise[0], guider=guider[0], sampler=sampler[0], sigmas=sigmas[0],
        latent_image=latent,
    )  # fmt: skip
    return add("VAEDecode", row(4), samples=sampled[0], vae=toy.flux["VAE"])


def dual_branch(canvas: Canvas) -> None:
    toy = Toy(canvas)
    question = toy.question("subject", (0, 8), seed=TOLD)
    prompts = subject(toy, question, (2, 6))
    branched(toy, (2, 0))
    latent = canvas.add("EmptySD3LatentImage", (2, 13), width=64, height=64)
    image = toy.sample(prompts, 3, latent=latent[0])
    toy.save_image(image[0], (4, 0), "toy_dual_branch")
    branch_map(toy, image, (4, 11))
    toy.preview(question["source"], (4, 6), "Given")
    canvas.note(
        "## A scene from another branch\n\nBeside the subject a second picture is drawn for half of the steps, of a thing that "
        "FLUX knows well, and the first one reads its words wherever the subject is not. Both prompts mark their thing in "
        "brackets. *Branch Map* shows a map a step: white is the subject's.\n\nThis prompt names no square and no black "
        "ground: what you see of them came from the other one.",
        (0, 13),
        (360, 280),
    )


def personal_guider(canvas: Canvas) -> None:
    toy = Toy(canvas)
    question = toy.question("subject", (0, 8), seed=TOLD)
    prompts = subject(toy, question, (2, 0))
    other = marked(toy, PLAIN, (1, 10), "The plain noun in its scene")
    latent = canvas.add("EmptySD3LatentImage", (2, 8), width=64, height=64)
    image = guided(
        toy, prompts, latent[0], 3, superclass=other, negative=prompts["negative"], cfg=CFG, switch=0.06, weight=0.5, area=0.3
    )  # fmt: skip
    toy.save_image(image[0], (5, 0), "toy_personal_guider")
    toy.preview(question["source"], (5, 6), "Given")
    canvas.note(
        "## Two prompts share the steps\n\nThe subject's prompt, with its picture, has its say where the marked word of the "
        "other one is: in three tenths of the picture, and half of each step there. The rest is the plain noun's scene.\n\n"
        "`area` 1, `weight` 1 and `switch` 0.14 let them take turns instead.",
        (0, 13),
        (360, 240),
    )


WORKFLOWS = {"toy_dual_branch": dual_branch, "toy_personal_guider": personal_guider}
