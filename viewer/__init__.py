"""The scene in a browser: fly through it while it learns and after, see what its grid holds, draw camera paths.

    python -m viewer --checkpoint latest --logging_root LOGS
"""
