"""Training: experts one after another on a frozen FLUX, in a terminal (cli/) or in ComfyUI (comfyui/).

    U_t        = share of blocks that choose the newest expert   eq. 8   objective.py: compute_usage
    L_veteran  = alpha |U_t - rho|                               eq. 9   objective.py: veteran_loss
    L_total    = L_task + L_veteran                              eq. 10  stage_trainer.py: StageTrainer.compute_loss

Reading order: recipes/curriculum.py (stages as data), trainer.py (what an iteration does: draw a batch, its loss, backward,
clip, step), stage_trainer.py (the loss: noise the batch, run the source, predict the velocity), objective.py (its parts),
run.py (what a run does: log, save, stop and go on), curriculum_run.py (stage after stage), add_expert.py (one more expert
and router column), stage_length.py (when a stage is over), validate.py and sampling.py.
What an iteration reads: data/ (sets, tasks, encoded datasets), batch.py. What it is not about: trained_weights.py (optimizer,
average, state), micro_batches.py and batch_usage.py (a batch cut in parts), distributed/ (several processes), base/ (a
frozen base that does not fit), checkpoint/ (why a run can be killed).
Other losses in the same loop: coredi/ (encoder features) and subject/ (one's own subject). What becomes of a run:
monitor/, evaluation/ (the paper's tables), toy/ and world/ (worlds in which every answer is known; from_scratch/ makes their models),
experiments/ (the papers', in the first of them).
"""
