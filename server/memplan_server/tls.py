"""TLS from files that may change while the server runs."""

from __future__ import annotations

from typing import Any

import grpc

from memplan.files import WatchedFiles
from memplan_server.settings import Settings

__all__ = ["server_credentials"]


def server_credentials(settings: Settings) -> Any:
    """grpc.ServerCredentials of the files in `settings`, or None where they name none.

    The files are read again for a new connection after one of them has changed, so certificates can
    be renewed under a running server; gRPC keeps what it has where they do not go together. Raises
    OSError when they cannot be read at first.
    """
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    files = WatchedFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca)

    def configuration() -> Any:
        cert, key, authorities = files.read()
        return grpc.ssl_server_certificate_configuration(
            [(key, cert)], root_certificates=authorities
        )

    return grpc.dynamic_ssl_server_credentials(
        configuration(),
        lambda: configuration() if files.changed() else None,
        require_client_authentication=settings.tls_client_ca is not None,
    )
