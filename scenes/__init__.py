"""Everything that makes a scene folder: synthetic renders, other people's formats, photos.

Each module is a command: `python -m scenes.render --help`, and so on. `docs/scenes.md` says which one to use.
"""
