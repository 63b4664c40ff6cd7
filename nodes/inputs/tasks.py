"""What the nodes of all tasks have in common: their inputs and outputs."""

from comfy_api.latest import io

from ...training.data.tasks.control import MAP_DRAWERS
from .schema import BankType, OptionsType

TASK_NODES = "CoLoGen/tasks"
MAP_KINDS = (*MAP_DRAWERS, "pose")
"""Kinds of control map: those of the training data, and poses, for imported experts."""


def prompt_inputs() -> list:
    return [
        io.Conditioning.Input("positive", tooltip="The prompt, or the positive output of another CoLoGen task."),
        io.Vae.Input("vae", tooltip="FLUX's VAE."),
    ]


def optional_inputs() -> list:
    """Lists what every task takes beside; all of it can be left open."""
    return [
        io.Conditioning.Input(
            "negative",
            optional=True,
            tooltip="The negative prompt, which then reads the source, too. Open: the prompt without its words.",
        ),
        OptionsType.Input(
            "options", optional=True, tooltip="From CoLoGen Source Options: strength, window, region, size."
        ),
        experts_input(),
    ]


def experts_input() -> BankType.Input:
    """Makes the input to which older graphs connect imported experts."""
    return BankType.Input(
        "experts",
        optional=True,
        tooltip="May stay open: a source is fitted to the experts of the MODEL that samples it. Connected, it is fitted to these at "
        "once.",
    )


def prompt_outputs() -> list:
    return [
        io.Conditioning.Output(display_name="positive", tooltip="For the sampler or the next task."),
        io.Conditioning.Output(display_name="negative", tooltip="For the sampler or the next task."),
    ]


def latent_output(what: str = "An empty latent of the picture's size, for the sampler.") -> io.Latent.Output:
    return io.Latent.Output(display_name="latent", tooltip=what)
