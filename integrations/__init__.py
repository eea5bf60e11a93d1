"""How other programs use this one: a folder for each."""
