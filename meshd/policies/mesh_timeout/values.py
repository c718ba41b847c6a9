"""The timeouts in force where no policy says anything.

Source: Kuma ``pkg/plugins/policies/core/defaults/consts.go`` (values).
"""

from datetime import timedelta

CONNECTION = timedelta(seconds=5)
IDLE = timedelta(hours=1)
REQUEST = timedelta(seconds=15)
STREAM_IDLE = timedelta(minutes=30)
NONE = timedelta()
"""Of a timeout: there is none."""
GATEWAY_IDLE = timedelta(minutes=5)
GATEWAY_STREAM_IDLE = timedelta(seconds=5)
GATEWAY_REQUEST_HEADERS = timedelta(milliseconds=500)
