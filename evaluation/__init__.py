"""Evaluation: `command` is the body of `--train_test test`. `render` renders a camera path from a
model, `metrics` measures frames and depth, `output` writes frames and depth, `video` encodes
videos, `pictures` makes captioned grids of pictures.
"""
