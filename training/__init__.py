"""Training (paper, section 3.2): `loop.train` repeats `step.train_step`, which updates `networks`
on a batch of `data`. `options` declares what a training takes; `recipes` sets learning rates,
dropout and averaging; `muon` is an optimizer; `guard` skips steps that are not finite; `recorder`
decides what is reported (`log`, `validation`) and saved (`keeper`); `run_folder` holds a run's
files; `state` is what a checkpoint holds and what resuming restores.
"""
