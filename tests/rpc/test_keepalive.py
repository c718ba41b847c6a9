import socket

import trio

from meshd.rpc.keepalive import WITH_A_CROWD, WITH_ONE, keep_alive


async def test_the_kernel_is_told_how_long_to_wait() -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener, await trio.open_tcp_stream(*listener.socket.getsockname()) as stream:
        for patience, told in ((WITH_ONE, (1, 5, 2, 2, 10_000)), (WITH_A_CROWD, (1, 15, 5, 3, 0))):
            keep_alive(stream, patience)
            tcp = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
            options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE), *((socket.IPPROTO_TCP, option) for option in tcp)]
            assert tuple(stream.socket.getsockopt(*option) for option in options) == told


async def test_a_socket_that_is_gone_is_no_error() -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        stream = await trio.open_tcp_stream(*listener.socket.getsockname())
        await stream.aclose()
        keep_alive(stream, WITH_ONE)
