"""A stage's knobs, a row each. An input that is named like a field of Stage or Settings becomes that field."""

from comfy_api.latest import io

from ...prw.config import SOURCE_TIMES
from ...prw.router import ROUTE_PER
from ...training.comfyui.feature_encoders import VAE, list_encoders
from ...training.recipes.settings import OPTIMIZERS
from ...training.recipes.stage import FEATURES
from ...training.schedules import SCHEDULES
from .schema import advanced, float_knob, int_knob


def stage_knobs() -> list:
    """Lists what most people set of a stage."""
    return [
        int_knob("iterations", 1000, 1, 10**7, "How long to train. Few hundred show whether it works; thousands make it good."),
        int_knob("batch", 4, 1, 4096, "Pictures that each update looks at. More trains calmer and takes longer."),
        int_knob("rank", 32, 1, 1024, "Size of the expert: more can learn more and makes a larger file."),
        float_knob("alpha", 64.0, 0.001, 4096, 1.0, "How strongly the expert acts: alpha / rank scales it. The paper keeps it at 2."),
        float_knob("rate", 1e-4, 0, 10, 1e-6, "How far each update goes: too large forgets and flickers, too small learns nothing."),
        float_knob("rho", 0.8, 0, 1, 0.01, "Share of FLUX's blocks that the new expert should take; the others take the rest."),
        float_knob(
            "veteran", 0.5, 0, 100, 0.01,
            "How firmly that share is held; 0 leaves it to the router, which on the toy world did as well.",
        ),
    ]  # fmt: skip


def rare_stage_knobs() -> list:
    """Lists what few people set of a stage."""
    return [
        io.String.Input("name", default="", tooltip="The new expert's name, if it shall not be the task's.", **advanced()),
        io.String.Input(
            "start", default="",
            tooltip="Name an older expert, and the new one begins as its copy; empty begins as nothing.",
            **advanced(),
        ),
        io.Combo.Input(
            "optimizer", options=list(OPTIMIZERS),
            tooltip="adamw is steady; prodigy finds its own rate (set rate to 1) and must be installed: prodigyopt.",
            **advanced(),
        ),
        io.Combo.Input(
            "schedule", options=list(SCHEDULES),
            tooltip="How the rate falls towards the end; cosine ends calmly.",
            **advanced(),
        ),
        int_knob("warmup", 0, 0, 10**6, "Iterations over which the rate rises at the start.", **advanced()),
        float_knob("router_rate", 1e-3, 0, 10, 1e-6, "The router's own rate: larger finds its share of blocks sooner.", **advanced()),
        float_knob("replay", 0.0, 0, 1, 0.01, "Share of pictures from earlier tasks in the data, against forgetting.", **advanced()),
        float_knob("text_drop", 0.1, 0, 1, 0.01, "Share of pictures whose prompt is left empty, for cfg above 1.", **advanced()),
        float_knob("guidance", 1.0, 0, 100, 0.1, "What a dev model is told while it trains; schnell and klein ignore it.", **advanced()),
        float_knob("time_shift", 1.0, 0.01, 100, 0.1, "Above 1 it trains more on near noise: where things go, not how they look.", **advanced()),
        float_knob("ema", 0.0, 0, 1, 0.001, "0.99 or so leaves the running average of the weights: calmer results.", **advanced()),
        float_knob("noise_end", 1.0, 0, 1, 0.01, "From this part on the router decides ever more as it will in use.", **advanced()),
    ]  # fmt: skip


def feature_knobs() -> list:
    """Lists knobs for features beside an expert; the inputs come behind all others,
    because graphs are older than these."""
    return [
        io.Combo.Input(
            "features",
            options=list(FEATURES),
            default=FEATURES[0],
            optional=True,
            tooltip="What the expert learns besides, of what an encoder sees in the right answers. auxiliary costs next "
            "to nothing, coredi a few more tokens, self a pass more in each update. The finished experts are as fast and "
            "as large as without. On the toy world none of the three made experts better; those of self want CoLoGen "
            "Features, or draw worse.",
            **advanced(),
        ),
        io.Combo.Input(
            "encoder",
            options=[VAE, *list_encoders()],
            default=VAE,
            optional=True,
            tooltip="Who sees them: FLUX's VAE, which is there anyway, or a vision model (DINOv2, SigLIP, CLIP) in models/clip_vision, "
            "which knows more of what things are.",
            **advanced(),
        ),
    ]


AS_EXPERTS = "as experts"
"""A recipe's empty choice: what the connected experts have."""


def source_knobs() -> list:
    """Lists knobs for how sources are routed and modulated; the inputs come behind all others,
    because graphs are older than these."""
    return [
        io.Combo.Input(
            "route",
            options=[AS_EXPERTS, *ROUTE_PER],
            default=AS_EXPERTS,
            optional=True,
            tooltip="What an expert is chosen for: sample, the whole source, or token, each small piece of it, which reads "
            "more experts in every block. as experts: as the last router of the connected ones does, else sample.",
            **advanced(),
        ),
        io.Combo.Input(
            "source_time",
            options=[AS_EXPERTS, *SOURCE_TIMES],
            default=AS_EXPERTS,
            optional=True,
            tooltip="zero: the source is read as a clean picture and runs once a picture. shared: it follows the noise's "
            "timestep, routes too, so it runs again in every step and nothing of it is cached: up to twice the time. All "
            "experts of a bank have the same.",
            **advanced(),
        ),
    ]


AS_RECIPE = "as recipe"
FIXED, AUTO, AHEAD = "fixed", "auto", "ahead"
"""Lengths of a stage, and of all stages of a recipe."""


def length_knobs() -> list:
    """Lists knobs for a stage that ends by itself; the inputs come behind all others,
    because graphs are older than these."""
    return [
        io.Combo.Input(
            "length",
            options=[FIXED, AUTO],
            default=FIXED,
            optional=True,
            tooltip="auto ends the stage when its loss on kept-out pictures stands still and the expert's share is near "
            "rho; iterations is then the most there may be. The rate falls, as schedule says, in a last part of its own.",
            **advanced(),
        ),
        int_knob("check_every", 100, 1, 10**6, "For auto: iterations between two checks.", optional=True, **advanced()),
        int_knob(
            "standstill", 3, 1, 10**6,
            "For auto: checks in a row without a new low after which the loss stands still. More waits longer.",
            optional=True, **advanced(),
        ),
        float_knob(
            "tolerance", 0.005, 0, 1, 0.001,
            "For auto: share by which a loss must be lower to count as a new low. More ends sooner.",
            optional=True, **advanced(),
        ),
        float_knob(
            "usage_band", 0.1, 0, 1, 0.01,
            "For auto: how far from rho the expert's share may be at the end. 1 does not wait for it.",
            optional=True, **advanced(),
        ),
    ]  # fmt: skip


def curriculum_length_knob() -> io.Combo.Input:
    return io.Combo.Input(
        "length",
        options=[AS_RECIPE, AUTO, AHEAD],
        default=AS_RECIPE,
        optional=True,
        tooltip="auto ends each stage when its loss on kept-out pictures stands still; the recipe's iterations are then "
        "the most there may be. ahead also gives what stages leave to later ones that still gain.",
        **advanced(),
    )


def parent_knob() -> io.String.Input:
    """Makes the knob for an expert that the new one adds to; it comes behind all others,
    because graphs are older than it."""
    return io.String.Input(
        "parent",
        default="",
        optional=True,
        tooltip="Name an older expert, and the new one learns a difference from it and takes its place: control with "
        "children canny and depth. Two children share what they have in common. Empty: it stands alone.",
        **advanced(),
    )
