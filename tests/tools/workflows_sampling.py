"""Example workflows of the toy set for a subject in other scenes: a second branch, and a guider of two prompts."""

from canvas import Canvas, Node, Output
from cologen.training.from_scratch.evaluate import CFG, STEPS
from workflows_toy import TOLD, Toy

SUBJECT = "a [circle] at the top left"
SCENE = "a big blue square at the bottom right, on a black ground"
OTHER = f"a [red circle] at the top left, {SCENE}"
PLAIN = f"a [circle] at the top left, {SCENE}"


def marked(toy: Toy, text: str, title: str) -> Output:
    return toy.canvas.add("CoLoGenMarkedPrompt", title, clip=toy.flux["CLIP"], text=text)[0]


def subject(toy: Toy, question: Node) -> Node:
    """The subject's prompts."""
    words = marked(toy, SUBJECT, "The subject marked")
    return toy.task("CoLoGenSubject", words, image=question["source"])


def branched(toy: Toy) -> None:
    """What is drawn from now on has a second branch."""
    other = marked(toy, OTHER, "A thing that FLUX knows")
    knobs = dict(auxiliary_seed=3, strength=1.0, end=0.5)
    toy.model = toy.canvas.add("CoLoGenDualBranch", model=toy.model[0], auxiliary=other, **knobs)


def branch_map(toy: Toy, decoded: Node) -> Node:
    given = dict(model=toy.model[0], latent=decoded.values["samples"])
    return toy.canvas.add("CoLoGenBranchMap", box=(480, 0), **given)


def guided(toy: Toy, prompts: Node, latent: Output, **knobs) -> Node:
    """From prompts to a picture, by the guider."""
    add = toy.canvas.add
    guider = add("CoLoGenPersonalGuider", model=toy.model[0], positive=prompts["positive"], **knobs)
    noise, sampler = add("RandomNoise", noise_seed=7), add("KSamplerSelect", sampler_name="euler")
    sigmas = add("BasicScheduler", model=toy.model[0], scheduler="simple", steps=STEPS)
    sampled = add(
        "SamplerCustomAdvanced", noise=noise[0], guider=guider[0], sampler=sampler[0], sigmas=sigmas[0],
        latent_image=latent,
    )  # fmt: skip
    return add("VAEDecode", samples=sampled[0], vae=toy.flux["VAE"])


def dual_branch(canvas: Canvas) -> None:
    toy = Toy(canvas)
    question = toy.question("subject", seed=TOLD)
    prompts = subject(toy, question)
    branched(toy)
    latent = canvas.add("EmptySD3LatentImage", width=64, height=64)
    image = toy.sample(prompts, latent=latent[0])
    toy.save_image(image[0], "toy_dual_branch")
    branch_map(toy, image)
    toy.preview(question["source"], "Given")
    canvas.note(
        "## A scene from another branch\n\nBeside the subject a second picture is drawn for half of the steps, of a thing that "
        "FLUX knows well, and the first one reads its words wherever the subject is not. Both prompts mark their thing in "
        "brackets. *Branch Map* shows a map a step: white is the subject's.\n\nThis prompt names no square and no black "
        "ground: what you see of them came from the other one.",
    )


def personal_guider(canvas: Canvas) -> None:
    toy = Toy(canvas)
    question = toy.question("subject", seed=TOLD)
    prompts = subject(toy, question)
    other = marked(toy, PLAIN, "The plain noun in its scene")
    latent = canvas.add("EmptySD3LatentImage", width=64, height=64)
    image = guided(
        toy, prompts, latent[0], superclass=other, negative=prompts["negative"], cfg=CFG, switch=0.06, weight=0.5, area=0.3
    )  # fmt: skip
    toy.save_image(image[0], "toy_personal_guider")
    toy.preview(question["source"], "Given")
    canvas.note(
        "## Two prompts share the steps\n\nThe subject's prompt, with its picture, has its say where the marked word of the "
        "other one is: in three tenths of the picture, and half of each step there. The rest is the plain noun's scene.\n\n"
        "`area` 1, `weight` 1 and `switch` 0.14 let them take turns instead.",
    )


WORKFLOWS = {"toy_dual_branch": dual_branch, "toy_personal_guider": personal_guider}
