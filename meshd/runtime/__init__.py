"""How services live: the supervisor's tiers, cells of newest values, listening with per-connection isolation, logs, metrics."""
