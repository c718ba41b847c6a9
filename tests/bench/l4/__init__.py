"""Throughput and connection rate of the built-in engine beside HAProxy and Envoy: ``python -m tests.bench.l4``."""
