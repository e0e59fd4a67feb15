"""maintmgr.v1 over gRPC: the Maintenance Manager as a server, and an agent's link to one. Needs `edge_day2[grpc]`.

Names are loaded when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edge_day2.lazy_names import load

if TYPE_CHECKING:
    from edge_day2.adapters.grpc.keys import JwksFile, JwksUrl
    from edge_day2.adapters.grpc.link import GrpcLink, RetryPolicy
    from edge_day2.adapters.grpc.server import MaintenanceServer, ServerLimits, serve
    from edge_day2.adapters.grpc.tls import ClientTls, ServerTls
    from edge_day2.adapters.grpc.tokens import Authenticator, Caller, JwtAuthenticator, SingleTenant

_HOMES: Final = {
    "Authenticator": "tokens",
    "Caller": "tokens",
    "ClientTls": "tls",
    "GrpcLink": "link",
    "JwksFile": "keys",
    "JwksUrl": "keys",
    "JwtAuthenticator": "tokens",
    "MaintenanceServer": "server",
    "RetryPolicy": "link",
    "ServerLimits": "server",
    "ServerTls": "tls",
    "SingleTenant": "tokens",
    "serve": "server",
}
_PACKAGES: Final = {
    "google": "protobuf",
    "grpc": "grpcio",
    "grpc_health": "grpcio-health-checking",
    "grpc_reflection": "grpcio-reflection",
    "jwt": "PyJWT",
    "tenacity": "tenacity",
}

__all__ = [
    "Authenticator",
    "Caller",
    "ClientTls",
    "GrpcLink",
    "JwksFile",
    "JwksUrl",
    "JwtAuthenticator",
    "MaintenanceServer",
    "RetryPolicy",
    "ServerLimits",
    "ServerTls",
    "SingleTenant",
    "serve",
]


def __getattr__(name: str) -> object:
    return load(globals(), _HOMES, name, extra="grpc", packages=_PACKAGES)
