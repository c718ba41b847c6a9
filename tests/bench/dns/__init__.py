"""The resolver beside other DNS servers: the same names, one core each, in turns."""
