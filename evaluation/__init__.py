"""What a trained model gives.

`command` is the body of `--train_test test`; `export` and `pack` are commands. `trained` is the
door to a trained model; `render` renders views and paths; `metrics` measures frames and depth,
`perceptual` how different two images look (LPIPS). `held_out` tells which views a checkpoint was
chosen by. `learned_surface` is the surface that a model has learned: of depth maps, `fusion` makes
points, `mesh` triangles. `output` writes the files of a test, `video_writer` its video,
`picture_grid` captioned pictures.
"""

import machine.importing  # noqa: F401  first, to report what goes wrong
