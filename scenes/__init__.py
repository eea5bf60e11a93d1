"""Commands that make or check a scene folder: `python -m scenes.render --help`, and so on; see
docs/scenes.md.

Every module here is a command; none is imported by another. What commands are made of lies below:
`synthetic` (objects to render), `capture` (photos, formats).
"""

import machine.importing  # noqa: F401  first, to report what goes wrong
