"""Training: experts one after another on a frozen FLUX, in a terminal (cli.py) or in ComfyUI (host/).

    U_t        = share of blocks that pick the newest expert   eq. 8   objective.py: usage
    L_veteran  = alpha |U_t - rho|                             eq. 9   objective.py: veteran_loss
    L_total    = L_task + L_veteran                            eq. 10  loop.py: _gradients; objective.py: task_loss

Reading order of a run: curriculum (stages as data), world (FLUX, encoders, lessons), run (stage after stage), growing (a
column more for the router), trainer and loop (an iteration), objective, slots (what it sees), checkpoints and run_folder
(why it can be killed).
Where lessons come from: data/ (sets and recipes), encoders/, cache/, kept_lessons. One process or many: ranks and
gradient_sums; a base that does not fit: base/. What becomes of it: watching/, evaluation/ (the paper's tables), toy/
(the world in which every answer is known), experiments/ (the papers', on that world). The papers' other systems:
features/ and subject/. What the terminal offers: commands/, bench/.
"""
