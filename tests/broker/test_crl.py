"""The reader of revocation lists, against lists made by the certificate authority."""

from __future__ import annotations

import base64
import random

import pytest

from fleetui.broker.crl import RevocationList, parse_revocations, read_revocations
from fleetui.common.domain.clock import SystemClock
from fleetui.common.domain.errors import ConfigError
from fleetui.common.trust.pki import Authority


@pytest.fixture(scope="module")
def authority():
    return Authority.create("test")


def der_of(pem: bytes) -> bytes:
    return base64.b64decode(b"".join(pem.splitlines()[1:-1]))


@pytest.mark.parametrize("serials", [[], [1], [0x80], [1 << 158, 2, 3], list(range(1, 300))])
def test_every_serial_is_found(authority, serials):
    found = parse_revocations(der_of(authority.crl(serials, days=7)))
    assert found.serials == {f"{serial:X}" for serial in serials}
    assert found.next_update is not None
    assert 6.9 < (found.next_update - SystemClock().now()) / 86_400 < 7.1


def test_a_file_of_two_lists(authority, tmp_path):
    other = Authority.create("other")
    path = tmp_path / "crl.pem"
    path.write_bytes(authority.crl([5], days=3) + other.crl([6], days=9))
    found = read_revocations(path)
    assert found.serials == {"5", "6"}
    assert (found.next_update - SystemClock().now()) / 86_400 < 3.1


@pytest.mark.parametrize(
    "text",
    ["", "hello", "-----BEGIN X509 CRL-----\nAAAA", "-----BEGIN X509 CRL-----\nAA!A\n-----END X509 CRL-----"],
)
def test_other_files_are_refused_in_a_sentence(tmp_path, text):
    path = tmp_path / "crl.pem"
    path.write_text(text)
    with pytest.raises(ConfigError, match="revocation list"):
        read_revocations(path)


def test_bent_lists_are_refused_or_read_but_nothing_else(authority):
    der = der_of(authority.crl([1, 2, 3], days=7))
    dice = random.Random(3)
    refused = 0
    for _ in range(3000):
        bent = bytearray(der)
        for _ in range(dice.randrange(1, 4)):
            bent[dice.randrange(len(bent))] = dice.randrange(256)
        if dice.random() < 0.3:
            del bent[dice.randrange(len(bent)) :]
        try:
            assert isinstance(parse_revocations(bytes(bent)), RevocationList)
        except (ValueError, IndexError):
            refused += 1
    assert refused > 100
