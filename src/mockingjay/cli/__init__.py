"""The command line: one file per verb, each calling the library function of its name."""
