"""Training (paper, section 3.2): `loop.train` repeats `step.train_step`, which updates `networks`
on a batch of `data`. `recipes` sets learning rates, dropout and averaging; `muon` is an optimizer;
`guard` skips steps that are not finite; `log` reports; `run_folder`, `keeper` and `state` hold a
run's files, its checkpoints, and what resuming restores.
"""
