"""TLS from files that may change while the server runs."""

from __future__ import annotations

import ssl
from typing import Any

import grpc

from memplan.files import WatchedFiles
from memplan_server.settings import Settings

__all__ = ["server_credentials"]


def server_credentials(settings: Settings) -> Any:
    """grpc.ServerCredentials of the files in `settings`, or None where they name none.

    The files are read again for a new connection after one of them has changed, so certificates can
    be renewed under a running server; gRPC keeps what it has where they do not go together. At
    first raises OSError when they cannot be read, and ValueError when they do not go together.
    """
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    files = WatchedFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca)

    def configuration() -> Any:
        cert, key, authorities = files.read()
        return grpc.ssl_server_certificate_configuration(
            [(key, cert)], root_certificates=authorities
        )

    first = configuration()
    _check(settings)
    return grpc.dynamic_ssl_server_credentials(
        first,
        lambda: configuration() if files.changed() else None,
        require_client_authentication=settings.tls_client_ca is not None,
    )


def _check(settings: Settings) -> None:
    """Raise ValueError for files that gRPC would refuse without saying why."""
    assert settings.tls_cert is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # An empty password: one that is asked for would stop the server at a prompt.
        context.load_cert_chain(settings.tls_cert, settings.tls_key, password=lambda: b"")
    except ssl.SSLError as error:
        raise ValueError(
            f"--tls-cert {settings.tls_cert} and --tls-key {settings.tls_key} are no certificate "
            f"and its key without a password, in PEM: {error}"
        ) from None
    try:
        if settings.tls_client_ca is not None:
            context.load_verify_locations(settings.tls_client_ca)
    except ssl.SSLError as error:
        said = f"--tls-client-ca {settings.tls_client_ca} holds no certificates in PEM: {error}"
        raise ValueError(said) from None
