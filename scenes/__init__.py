"""Commands that make or check a scene folder: `python -m scenes.render --help`, and so on; see
docs/scenes.md.

`photos` makes a scene of photos or a video; `colmap`, `llff`, `nerf_synthetic` and
`transforms_json` import one, `render` renders a synthetic one. `check` finds what is wrong with a
scene, `noise` adds noise to its poses, `path` makes a camera path through it, `export` writes it
for other programs.

Every module here is a command; none is imported by another. What commands are made of lies below:
`synthetic` (objects to render), `capture` (photos, formats).
"""

import machine.importing  # noqa: F401  first, to report what goes wrong
