"""The scene in a browser: fly through it while it learns and after, see what its grid holds, draw
camera paths.

    python -m viewer --checkpoint latest --logging_root LOGS

`__main__` is the command; `watch` finds its checkpoint. `session` is the server, and `browser` one
browser with its controls, in part in `path_tab`, `training_tab` and `surface`; `actions` are what
they set off, `notices` words over its picture. `access` decides who may use the viewer. `renderer`
is the thread that renders for all browsers, `shared` what they share. `scene` is what is looked
at, `zoom` with which field of view, `camera` where it falls in the window; `picture_choices`,
`scene_objects` and `features` are what is drawn. `paths` saves camera paths and renders their
videos. `record` is a command of its own.
"""

import os

import machine.importing  # noqa: F401  first, to report what goes wrong

# PyTorch's threads read this when it is imported. They wait for each other asleep: a thread that
# waits awake keeps the core that the others need when a browser or a training is busy too, and a
# frame took 25 times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
