"""What commands need of the machine.

cli: parsers, errors as exit codes. runtime: device, precision, memory. ranks: several processes on
one run.
"""
