"""The command line: reads arguments, calls one function, shows the result."""
