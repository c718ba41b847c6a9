"""What a thousand proxies cost: ``python -m tests.bench.xds``."""
