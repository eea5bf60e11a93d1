"""The scene in a browser: fly through it while it learns and after, see what its grid holds, draw
camera paths.

python -m viewer --checkpoint latest --logging_root LOGS
"""

import os

# PyTorch's threads read this when it is imported. They wait for each other asleep: a thread that
# waits awake keeps the core that the others need when a browser or a training is busy too, and a
# frame took 25 times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
