"""Who is connected to a server of Temporal, and in one line why not.

Knows: the client's own errors, which have no names but their text. Refuses to know: what is asked of the server.
"""

from __future__ import annotations

import re
from typing import Final

from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode, TLSConfig

from blockwright.errors import BlockwrightError, ConnectionLost, NotTrusted, Refused, UsageError
from blockwright.pipeline.temporal.server import Server

_REASONS: Final = (
    (r"InvalidCertificate\(Expired", NotTrusted, "the server's certificate has expired"),
    (r"InvalidCertificate\(NotValidYet", NotTrusted, "the server's certificate is not valid yet"),
    (r"InvalidCertificate\(NotValidForName", NotTrusted, "the server's certificate is for another name than {name}"),
    (r"InvalidCertificate\(", NotTrusted, "the server's certificate is of no authority that is trusted"),
    (r"AlertReceived\(CertificateRequired", ConnectionLost, "the server asks for a certificate: {pair}"),
    (r"AlertReceived\(CertificateExpired", ConnectionLost, "the server says that our certificate has expired"),
    (r"AlertReceived\((\w+)", ConnectionLost, "the server refuses TLS with us: it says {1}"),
    (r"InvalidMessage|InvalidContentType", ConnectionLost, "the server speaks no TLS"),
    (r"failed to parse private key|PrivateKeyParseError", UsageError, "{pkcs8}"),
    (r'code: (Unauthenticated|PermissionDenied), message: "([^"]*)"', Refused, "refused: {2}"),
    (r"ConnectionRefused", ConnectionLost, "connection refused"),
    (r"dns error", ConnectionLost, "the host's name is not known"),
    (r"get_system_info.*tonic::transport::Error\(Transport", ConnectionLost, "the connection broke: {hint}"),
)
_DENIED: Final = (RPCStatusCode.UNAUTHENTICATED, RPCStatusCode.PERMISSION_DENIED)
_PAIR: Final = "expected --temporal-tls-cert and --temporal-tls-key"
_PKCS8: Final = "our key is not as this client reads it: 'openssl pkcs8 -topk8 -nocrypt -in KEY' writes it so"


async def connect(server: Server) -> Client:
    """Return a client. Raises ConnectionLost, NotTrusted for a certificate, Refused, UsageError for a key's form."""
    tls: TLSConfig | bool = False
    if server.tls is not None:
        tls = TLSConfig(
            server_root_ca_cert=server.tls.authority,
            domain=server.tls.name,
            client_cert=server.tls.certificate,
            client_private_key=server.tls.key,
        )
    try:
        return await Client.connect(server.address, namespace=server.namespace, tls=tls, api_key=server.api_key)
    except (RuntimeError, RPCError, ValueError) as error:
        raise trouble_with(server, error) from None


async def check_namespace(client: Client, server: Server) -> None:
    """Return where the namespace is there, and is ours to use. Raises ConnectionLost, Refused."""
    try:
        await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace=server.namespace))
    except RPCError as error:
        raise trouble_with(server, error) from None


def trouble_with(server: Server, error: Exception) -> BlockwrightError:
    """Return what is raised where a server was not reached, or did not take a request."""
    text = " ".join((error.message if isinstance(error, RPCError) else str(error)).split())
    if server.api_key:
        text = text.replace(server.api_key, "…")  # whatever the server has to say of it
    if isinstance(error, RPCError) and error.status in _DENIED:
        return Refused(f"temporal: {server.address}: refused: {text[:300]}")
    for pattern, kind, words in _REASONS:
        found = re.search(pattern, text)
        if found:
            said = words.format("", *found.groups(), name=_name(server), pair=_PAIR, pkcs8=_PKCS8, hint=_hint(server))
            return kind(f"temporal: {server.address}: {said}")
    return ConnectionLost(f"temporal: {server.address}: {text[:300]}")


def _name(server: Server) -> str:
    """Return what the certificate was to be for."""
    return (server.tls and server.tls.name) or server.address.rpartition(":")[0]


def _hint(server: Server) -> str:
    """Return what a server may want that ends a connection without a word."""
    if server.tls is None:
        return "a server that speaks TLS wants --temporal-tls"
    if server.tls.certificate is None:
        return f"a server may ask for a certificate: {_PAIR}"
    return "a server may not trust our certificate, or it has expired"
