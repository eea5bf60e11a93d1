"""Training (paper, section 3.2). `loop.train` runs the loop over `step.train_step`, one update of the `networks` on one
batch of `data`. `guard` skips steps that are not finite; `recipes` sets learning rates, dropout and averaging; `log`
reports; `run_folder`, `keeper` and `state` keep a run's files, its checkpoints, and what resuming restores.
"""
