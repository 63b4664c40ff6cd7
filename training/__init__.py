"""Training: experts one after another on a frozen FLUX, in a terminal (cli/) or in ComfyUI (comfyui/).

    U_t        = share of blocks that pick the newest expert   eq. 8   objective.py: usage
    L_veteran  = alpha |U_t - rho|                             eq. 9   objective.py: veteran_loss
    L_total    = L_task + L_veteran                            eq. 10  trainer.py: StageTrainer.compute_loss

Reading order of a run: recipes/curriculum (stages as data), setup/build_run (FLUX, encoders, datasets), run (stage after
stage), add_expert, trainer (an iteration), objective, data/batch_sampler and batch (what it sees), checkpoint/.
The map of all rooms: docs/architecture.md.
"""
