"""Network addresses of compact encoding (`compact-encoding.md` section 5)."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

from covey.errors import DecodeError, EncodeError
from covey.wire.codec import Codec, Reader
from covey.wire.numeric import port as port_codec


class IpAddress(NamedTuple):
    """A numeric host and a port."""

    host: str
    port: int

    @property
    def family(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.host else 4


class Ipv4Codec(Codec[str]):
    """Four bytes in written order."""

    __slots__ = ()
    minimum = 4

    def encode_into(self, out: bytearray, value: str) -> None:
        """Append a dotted quad; `EncodeError` for anything else."""
        try:
            out += ipaddress.IPv4Address(value).packed
        except ValueError as error:
            raise EncodeError(f"not an IPv4 address: {value!r}") from error

    def decode_from(self, reader: Reader) -> str:
        """Take four bytes."""
        return ".".join(map(str, reader.take(4)))


class Ipv6Codec(Codec[str]):
    """Sixteen bytes; decodes to eight groups without zero compression, as the reference writes."""

    __slots__ = ()
    minimum = 16

    def encode_into(self, out: bytearray, value: str) -> None:
        """Append an IPv6 address without a zone; `EncodeError` for anything else."""
        try:
            address = ipaddress.IPv6Address(value)
        except ValueError as error:
            raise EncodeError(f"not an IPv6 address: {value!r}") from error
        if address.scope_id is not None:
            raise EncodeError(f"an IPv6 zone means nothing to others: {value!r}")
        out += address.packed

    def decode_from(self, reader: Reader) -> str:
        """Take sixteen bytes."""
        data = reader.take(16)
        return ":".join(f"{data[i] << 8 | data[i + 1]:x}" for i in range(0, 16, 2))


class IpCodec(Codec[str]):
    """One byte family, 4 or 6, and the host; other families are refused."""

    __slots__ = ()
    minimum = 5

    def encode_into(self, out: bytearray, value: str) -> None:
        """Append family and host."""
        if not isinstance(value, str):
            raise EncodeError(f"a host is a str, not {type(value).__name__}")
        family, codec = (6, ipv6) if ":" in value else (4, ipv4)
        out.append(family)
        codec.encode_into(out, value)

    def decode_from(self, reader: Reader) -> str:
        """Take family and host."""
        family = reader.take(1)[0]
        if family == 4:
            return ipv4.decode_from(reader)
        if family == 6:
            return ipv6.decode_from(reader)
        raise DecodeError(f"an address family is 4 or 6, not {family}")


class IpAddressCodec(Codec[IpAddress]):
    """A host in the encoding of `host`, then the port (2 bytes, little endian)."""

    __slots__ = ("_host", "minimum")

    def __init__(self, host: Codec[str]) -> None:
        self._host = host
        self.minimum = host.minimum + port_codec.minimum

    def encode_into(self, out: bytearray, value: IpAddress) -> None:
        """Append host and port; a plain `(host, port)` pair will do."""
        if not isinstance(value, tuple) or len(value) != 2:
            raise EncodeError(f"an address is a host and a port, not {value!r}")
        host, port = value
        self._host.encode_into(out, host)
        port_codec.encode_into(out, port)

    def decode_from(self, reader: Reader) -> IpAddress:
        """Take host and port."""
        host = self._host.decode_from(reader)
        return IpAddress(host, port_codec.decode_from(reader))


ipv4: Codec[str] = Ipv4Codec()
ipv6: Codec[str] = Ipv6Codec()
ip: Codec[str] = IpCodec()
ipv4_address = IpAddressCodec(ipv4)
ipv6_address = IpAddressCodec(ipv6)
ip_address = IpAddressCodec(ip)
