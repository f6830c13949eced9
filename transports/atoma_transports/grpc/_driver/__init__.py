"""gRPC over any Trio stream: grpclib's calls, codecs and stubs on an HTTP/2 connection that Trio drives.

``client.open_grpc_channel`` gives the channel that generated stubs take; ``server.serve_grpc`` answers one connection.
Nothing here knows Atoma's messages, and no asyncio loop is ever made.
"""
