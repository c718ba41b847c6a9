"""A gRPC service that answers any unary call with its name.

Usage: python grpc_application.py NAME PORT...
"""

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc


class Any(grpc.GenericRpcHandler):
    """Whatever is called."""

    def __init__(self, name):
        self.name = name.encode()

    def service(self, handler_call_details):
        del handler_call_details
        return grpc.unary_unary_rpc_method_handler(lambda _request, _context: self.name)


def main():
    name, *ports = sys.argv[1:]
    server = grpc.server(ThreadPoolExecutor(4), handlers=[Any(name)])
    for port in ports:
        server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
