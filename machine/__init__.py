"""What commands need of the machine.

cli: parsers, and commands to their exit codes; errors: what an error means; importing: what a
command does before `cli` can. options: how an option is declared. output: printing that ends
nothing. progress: bars and their lines in logs. signals: requests to end. runtime: device,
precision, memory. installed: packages that a run can do without. pasted: commands that others
suggest. ranks: several processes on one run. version: the program's, and its commit.
"""
