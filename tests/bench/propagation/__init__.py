"""How long a new service takes from one zone to a caller in another: ``python -m tests.bench.propagation``."""
