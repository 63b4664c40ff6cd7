"""What all stages of a curriculum share, as data."""

from dataclasses import dataclass

from ...prw.config import SOURCE_TIMES
from ...prw.files.validate import check_choice, check_multiple, check_range
from ..schedules import SCHEDULES

OPTIMIZERS = ("adamw", "prodigy")
PRECISIONS = ("fp32", "bf16")
FEATURE_LOSSES = ("smooth-l1", "velocity")
UNLABELLED = ("warn", "refuse")
STAGE_SEEDS = ("number", "name")
BASE_WEIGHTS = ("plain", "fp8", "int8", "nf4")


@dataclass(frozen=True)
class Settings:
    """What all stages share: the keys at the top of a recipe."""

    rank: int = 128
    """Rank of the experts' low-rank matrices."""
    alpha: float = 256.0
    """An expert's residual is scaled by alpha / rank."""
    resolution: int = 512
    """Side of the training pictures, in pixels."""
    optimizer: str = "adamw"
    rate: float = 1e-4
    """Learning rate of experts."""
    router_rate: float = 1e-4
    schedule: str = "constant"
    """How rates fall (training/schedules.py)."""
    warmup: int = 0
    """Iterations at a stage's start over which the rates rise."""
    weight_decay: float = 1e-3
    """AdamW's weight decay of experts; routers have none."""
    clip: float = 1.0
    """Longest gradient; 0 does not clip."""
    ema: float = 0.0
    """Decay of the weights' running average, which is what a stage then leaves; 0: the weights themselves."""
    text_drop: float = 0.1
    """Share of samples whose prompt is the empty text."""
    time_shift: float = 1.0
    """Above 1: more training near pure noise, where it is decided what goes where."""
    time_phases: int = 1
    """Above 1: a stage begins near pure noise and goes on towards the picture in so many phases (timestep_schedule.py)."""
    patience: int = 200
    """Iterations without a new low of the loss after which the next phase begins."""
    check_every: int = 100
    """Iterations after which a stage of length "auto" asks anew whether it is over (stage_length.py)."""
    standstill: int = 3
    """Such checks in a row without a new low of the held-out loss after which it is."""
    tolerance: float = 0.005
    """Share by which a loss is lower that counts as a new low."""
    usage_band: float = 0.1
    """How far from rho the newest expert's usage may be at a stage's end."""
    ahead: bool = False
    """Iterations that stages of length "auto" have left of their ceilings go to later ones that still gain."""
    encoder: str = ""
    """A folder of DINOv2, SigLIP or CLIP for stages with features; empty: the VAE's own."""
    feature_size: int = 32
    """Channels that features are projected to."""
    feature_weight: float = 0.1
    """Factor of the features' loss beside L_task, for stages with features."""
    feature_loss: str = "smooth-l1"
    """Of coredi: "smooth-l1" of the features (our choice, steadier), or "velocity", the squared error of their velocity, as CoReDi
    has it. Other ways learn no velocity and always take the first."""
    guidance: float = 1.0
    """For a distilled base (dev) while it trains, and for the source always."""
    source_time: str = ""
    """The timestep that sources are modulated with: "zero", a clean picture's, so that a source runs once a picture, or
    "shared", the noise's, so that it runs in every step and routes depend on it. Empty: as the bank, a new one: "zero"."""
    stage_seeds: str = "number"
    """What sets a stage's random numbers apart from the other stages': its number in the curriculum, or its name, so that
    curricula with a stage of one name, wherever it stands, begin it with the same weights and show it the same samples."""
    noise_end: float = 1.0
    """From this part of a stage on the router's noise fades to 0, so that usage stays what it was when it is gone."""
    micro: int = 0
    """Samples a forward sees; 0: the whole batch. Smaller takes less memory and changes no result."""
    precision: str = "fp32"
    """In which the base is loaded and computes; experts and routers are always trained in fp32."""
    checkpointing: bool = False
    """Compute blocks twice instead of remembering them."""
    compile: bool = False
    """torch.compile the frozen base's blocks."""
    base_weights: str = "plain"
    """How the base's blocks are stored: "plain", as `precision` says, or in fewer bits: "fp8", "int8" or "nf4"."""
    shard: bool = False
    """Several processes share the frozen base's blocks (FSDP2) instead of having them each."""
    offload: bool = False
    """The base's blocks stay in host memory; each is copied to the device when it computes."""
    unlabelled: str = "warn"
    """What is done before a run whose inpainting data brings no objects (setup/check_objects.py): "warn" or "refuse"."""
    save_every: int = 500
    """Iterations between checkpoints, and one at a stage's end; 0: none, unless the run is stopped."""
    keep: int = 2
    """Checkpoints that are kept."""
    validate_every: int = 500
    sample_every: int = 1000
    sample_steps: int = 20
    """Sampler steps of a sample picture."""
    sample_cfg: float = 1.0
    """Above 1: classifier-free guidance of sample pictures, for a base that is not distilled; each step takes twice as long."""

    def __post_init__(self):
        for name, options in (
            ("optimizer", OPTIMIZERS),
            ("schedule", tuple(SCHEDULES)),
            ("precision", PRECISIONS),
            ("base_weights", BASE_WEIGHTS),
            ("source_time", ("", *SOURCE_TIMES)),
            ("unlabelled", UNLABELLED),
            ("stage_seeds", STAGE_SEEDS),
            ("feature_loss", FEATURE_LOSSES),
        ):
            check_choice(name, getattr(self, name), options)
        if self.shard and self.offload:
            raise ValueError("shard and offload are both true, expected one of them: set the other to false")
        check_range("rank", self.rank, 1, 16384)
        check_range("alpha", self.alpha, 1e-3, 1e6)
        check_range("resolution", self.resolution, 16, 8192)
        check_multiple("resolution", self.resolution, 16)
        for name in ("rate", "router_rate", "weight_decay", "clip", "guidance", "feature_weight"):
            check_range(name, getattr(self, name), 0, 1000)
        check_range("sample_cfg", self.sample_cfg, 1, 100)
        check_range("time_shift", self.time_shift, 0.01, 100)
        for share in ("text_drop", "ema", "noise_end", "tolerance", "usage_band"):
            check_range(share, getattr(self, share), 0, 1)
        for name, low in (
            ("warmup", 0),
            ("micro", 0),
            ("keep", 1),
            ("sample_steps", 1),
            ("time_phases", 1),
            ("patience", 1),
            ("check_every", 1),
            ("standstill", 1),
            ("feature_size", 1),
        ):
            check_range(name, getattr(self, name), low, 10**6)
        for name in ("save_every", "validate_every", "sample_every"):
            check_range(name, getattr(self, name), 0, 10**9)
