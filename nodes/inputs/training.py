"""What the training nodes have in common: sockets, and a run's knobs, named like fields of Settings. A stage's: stage.py."""

from typing import Any

from comfy_api.latest import io

from .schema import BankType, DataType, LossType, advanced, int_knob

RUN = io.String.Input(
    "run",
    default="my_run",
    tooltip="The run's folder in output/cologen. The same name goes on where it was stopped, also to more "
    "iterations, and gives a finished run at once; training anew needs another name.",
)
MODEL = io.Model.Input(
    "model",
    tooltip="The FLUX.1 or FLUX.2 to train on: fp8 and LoRAs are fine. It is left exactly as it is.",
)
DATA = DataType.Input(
    "data", tooltip="From CoLoGen Training Data. Tasks of earlier experts in it serve replay and samples."
)


def bank_input(tooltip: str) -> Any:
    return BankType.Input("experts", optional=True, tooltip=tooltip)


def training_outputs() -> list:
    """Lists outputs of every node that trains experts."""
    return [
        BankType.Output(display_name="experts", tooltip="For CoLoGen Apply, Save CoLoGen Experts or the next stage."),
        LossType.Output(display_name="loss", tooltip="For Plot Loss Graph and CoLoGen Usage Plot."),
        io.Image.Output(
            display_name="samples",
            tooltip="What the run drew on the way, oldest first: a row a task for pictures it never trained on, each "
            "with source, drawn and target.",
        ),
    ]


def run_knobs() -> list:
    """Lists settings that never change a result, and may differ when a run goes on."""
    return [
        int_knob("micro", 1, 0, 4096, "Pictures at once: 1 takes the least memory, 0 the whole batch. Results are the same.", **advanced()),
        io.Boolean.Input(
            "checkpointing", default=True,
            tooltip="Computes blocks twice instead of remembering them: a third slower, a fraction of the memory.",
            **advanced(),
        ),
        int_knob("save_every", 100, 0, 10**6, "Iterations between two savings; Cancel saves, too. 0: only then.", **advanced()),
        int_knob(
            "validate_every", 100, 0, 10**6,
            "Iterations between two measurements of the loss, on kept-out pictures where there are any. 0: none.",
            **advanced(),
        ),
        int_knob("sample_every", 250, 0, 10**6, "Iterations between two samples. 0: only at the end.", **advanced()),
        int_knob("sample_steps", 12, 1, 100, "Sampler steps of a sample: fewer are quicker and rougher.", **advanced()),
    ]  # fmt: skip


def seed_knob() -> io.Int.Input:
    # not "seed": the host would change that one after each run
    return int_knob(
        "run_seed", 0, 0, 2**32 - 1, "Another number draws other batches and noise; it makes another run.", **advanced()
    )
