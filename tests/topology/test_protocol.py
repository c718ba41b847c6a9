import pytest

from meshd.topology.protocol import common_protocol


@pytest.mark.parametrize(
    ("protocols", "common"),
    [
        ([], "tcp"),
        ([""], "tcp"),
        (["http"], "http"),
        (["HTTP", "http"], "http"),
        (["grpc", "http2"], "http2"),
        (["grpc", "http2", "tcp"], "tcp"),
        (["http", "http2"], "tcp"),
        (["http", ""], "tcp"),
        (["mysql"], "tcp"),
        (["tls"], "tls"),
        (["tls", "tcp"], "tcp"),
    ],
)
def test_the_most_telling_protocol_of_all(protocols, common):
    assert common_protocol(protocols) == common
