"""A QUIC connection to a host by its name, through a UDP association.

usage: quic_echo.py PROXY_PORT NAME SECONDS ADDRESS...

Each of the addresses has a QUIC server that answers with its own address. The client opens
a stream four times a second, all in one connection, and prints the addresses that have
answered. Needs aioquic.
"""
import asyncio
import datetime
import socket
import ssl
import struct
import sys

from aioquic.asyncio import QuicConnectionProtocol, serve
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

PORT = 4433
PROTOCOLS = ["echo"]


def server_configuration(name):
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    configuration = QuicConfiguration(is_client=False, alpn_protocols=PROTOCOLS)
    configuration.certificate, configuration.private_key = certificate, key
    return configuration


def answer_with(address):
    async def answer(reader, writer):
        await reader.read()
        writer.write(address.encode())
        writer.write_eof()

    return lambda reader, writer: asyncio.ensure_future(answer(reader, writer))


def request_association(proxy_port):
    """The connection that the association depends on, and where its datagrams go."""
    control = socket.create_connection(("127.0.0.1", proxy_port))
    control.sendall(b"\5\1\0" + b"\5\3\0\1" + bytes(6))
    reply = control.makefile("rb").read(12)
    assert reply[:6] == b"\5\0\5\0\0\1", reply
    return control, (socket.inet_ntoa(reply[6:10]), struct.unpack(">H", reply[10:])[0])


class ByName(asyncio.DatagramTransport):
    """Sends each datagram after a header with the name of the host (RFC 1928, section 7)."""

    def __init__(self, transport, name):
        super().__init__()
        self.transport = transport
        self.header = bytes((0, 0, 0, 3, len(name))) + name.encode() + struct.pack(">H", PORT)

    def sendto(self, data, addr=None):
        self.transport.sendto(self.header + data)

    def close(self):
        self.transport.close()


class Client(QuicConnectionProtocol):
    name = ""

    def connection_made(self, transport):
        super().connection_made(ByName(transport, self.name))

    def datagram_received(self, data, addr):
        # The header of an answer has an IPv4 address, so 10 bytes.
        super().datagram_received(data[10:], (self.name, PORT))


async def main(proxy_port, name, seconds, addresses):
    for address in addresses:
        configuration = server_configuration(name)
        await serve(
            address, PORT, configuration=configuration, stream_handler=answer_with(address)
        )
    _control, relay = request_association(proxy_port)
    Client.name = name
    configuration = QuicConfiguration(alpn_protocols=PROTOCOLS, verify_mode=ssl.CERT_NONE)
    configuration.server_name = name
    loop = asyncio.get_running_loop()
    _, client = await loop.create_datagram_endpoint(
        lambda: Client(QuicConnection(configuration=configuration)), remote_addr=relay
    )
    client.connect((name, PORT))
    await client.wait_connected()
    end, answered = loop.time() + seconds, set()
    while loop.time() < end:
        reader, writer = await client.create_stream()
        writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), 10)
        answered.add(answer.decode())
        await asyncio.sleep(0.25)
    print(*answered)


asyncio.run(main(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]), sys.argv[4:]))
