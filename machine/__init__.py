"""What commands need of the machine.

cli: parsers, errors as exit codes. output: printing that ends nothing. progress: bars and their
lines in logs. signals: requests to end. runtime: device, precision, memory. ranks: several
processes on one run.
"""
