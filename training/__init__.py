"""Training (paper, section 3.2), file by file, in the order in which they are best read.

What a step computes:
    `data`: the views of a scene, and the batch of a step. `turned_targets`: target views turned at
    random (`--turn_roll`, `--turn_tilt`).
    `networks`: what training changes: both networks and their optimizers.
    `step`: one training step, on a batch, of the networks.
    `guard`: skips a step whose numbers are not finite. `stability`: keeps the volume bounded.
    `recipes`: learning rates, dropout and averaging. `muon`: an optimizer.

How a run goes on:
    `options`: what a training takes. `memory`: how much memory and disk it needs.
    `loop`: sets a run up and takes its steps.
    `state`: what a checkpoint holds, what resuming restores, how a run goes back.

What a run leaves:
    `run_folder`: its folders, its lock, and the signals sent to it.
    `recorder`: what is shown (`progress_bar`, `tensorboard_log`), measured (`validation`) and saved
    (`keeper`) after a step.
    `next_commands`: what its last lines suggest.
"""
