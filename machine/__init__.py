"""What commands need of the machine.

cli: parsers, errors as exit codes; importing: the same before it can. options: how an option is
declared. output: printing that ends nothing. progress: bars and their lines in logs. signals:
requests to end. runtime: device, precision, memory. installed: packages that a run can do without.
ranks: several processes on one run.
"""
