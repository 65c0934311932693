"""The local authority: what it signs is accepted by real TLS exactly where it should be, and nowhere else."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
import stat
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from fleetui.common.domain.clock import ManualClock, SystemClock
from fleetui.common.domain.errors import AccessError, ConfigError, OperatorError
from fleetui.common.trust.files import read_file, write_file
from fleetui.common.trust.pki import Authority, Credential, client_id_of, make_csr


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create("berlin", SystemClock())


def _server_context(
    folder: Path, authority: Authority, server: Credential, crl: bytes | None = None
) -> ssl.SSLContext:
    certificate, key = server.save(folder, "server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_verify_locations(cadata=authority.certificate_pem.decode())
    if crl is not None:
        path = folder / "crl.pem"
        path.write_bytes(crl)
        context.load_verify_locations(path)
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    return context


def _client_context(
    folder: Path, authority: Authority, client: Credential | None, name: str = "c"
) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority.certificate_pem.decode())
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    if client is not None:
        context.load_cert_chain(*client.save(folder, name))
    return context


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext, host: str = "localhost") -> str:
    """The common name that the server saw. Raises what either side raised."""
    near, far = socket.socketpair()
    seen: list[str | BaseException] = []

    def serve() -> None:
        far.settimeout(5)
        try:
            with server.wrap_socket(far, server_side=True) as tls:
                peer = tls.getpeercert()
                assert peer is not None
                seen.append(dict(pair for part in peer["subject"] for pair in part)["commonName"])
                tls.sendall(b"x")
        except OSError as error:
            seen.append(error)
        finally:
            far.close()

    thread = threading.Thread(target=serve)
    thread.start()
    near.settimeout(5)
    failure: OSError | None = None
    try:
        with client.wrap_socket(near, server_hostname=host) as tls:
            tls.recv(1)  # under TLS 1.3 a refusal of the client's certificate shows on the first read
    except OSError as error:
        failure = error
    finally:
        near.close()
        thread.join()
    if isinstance(seen[0], str):
        assert failure is None
        return seen[0]
    raise failure or seen[0]


def test_mutual_tls_with_strict_checks_names_the_client(tmp_path: Path, authority: Authority) -> None:
    server = _server_context(tmp_path, authority, authority.issue_server(["localhost", "127.0.0.1"]))
    client = _client_context(tmp_path, authority, authority.issue_client("cam-7"))
    assert _handshake(server, client) == "cam-7"
    assert _handshake(server, client, "127.0.0.1") == "cam-7"


def test_a_server_is_refused_under_another_name(tmp_path: Path, authority: Authority) -> None:
    server = _server_context(tmp_path, authority, authority.issue_server(["broker.example"]))
    client = _client_context(tmp_path, authority, authority.issue_client("cam-7"))
    with pytest.raises(ssl.SSLCertVerificationError, match=r"[Hh]ostname mismatch"):
        _handshake(server, client, "localhost")


def test_a_device_cannot_play_the_broker_and_the_broker_is_no_device(tmp_path: Path, authority: Authority) -> None:
    device, broker = authority.issue_client("cam-7"), authority.issue_server(["localhost"])
    with pytest.raises(ssl.SSLError):
        _handshake(_server_context(tmp_path, authority, device), _client_context(tmp_path, authority, device))
    with pytest.raises(ssl.SSLError):
        _handshake(_server_context(tmp_path, authority, broker), _client_context(tmp_path, authority, broker))


def test_no_certificate_and_one_of_another_authority_are_refused(tmp_path: Path, authority: Authority) -> None:
    server = _server_context(tmp_path, authority, authority.issue_server(["localhost"]))
    with pytest.raises(ssl.SSLError):
        _handshake(server, _client_context(tmp_path, authority, None))
    stranger = Authority.create("berlin").issue_client("cam-7")  # same fleet name, another key
    with pytest.raises(ssl.SSLError):
        _handshake(server, _client_context(tmp_path, authority, stranger))


def test_what_a_device_signs_with_its_own_key_is_refused(tmp_path: Path, authority: Authority) -> None:
    """Path length 0 and no certificate-signing usage: a device cannot found a house of its own."""
    device = authority.issue_client("cam-7")
    certificate = x509.load_pem_x509_certificate(device.certificate_pem)
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    rogue = Authority(load_pem_private_key(device.key_pem, None), certificate, SystemClock()).issue_client("cam-8")
    chained = Credential(
        rogue.certificate_pem + device.certificate_pem, rogue.key_pem, rogue.serial, rogue.not_after
    )
    server = _server_context(tmp_path, authority, authority.issue_server(["localhost"]))
    with pytest.raises(ssl.SSLError):
        _handshake(server, _client_context(tmp_path, authority, chained))


def test_a_revoked_certificate_is_refused_and_others_are_not(tmp_path: Path, authority: Authority) -> None:
    stolen, kept = authority.issue_client("cam-7"), authority.issue_client("cam-8")
    crl = authority.crl([stolen.serial])
    server = _server_context(tmp_path, authority, authority.issue_server(["localhost"]), crl)
    with pytest.raises(ssl.SSLError):
        _handshake(server, _client_context(tmp_path, authority, stolen))
    assert _handshake(server, _client_context(tmp_path, authority, kept)) == "cam-8"
    parsed = x509.load_pem_x509_crl(crl)
    assert parsed.is_signature_valid(x509.load_pem_x509_certificate(authority.certificate_pem).public_key())
    assert [entry.serial_number for entry in parsed] == [stolen.serial]
    assert len(list(x509.load_pem_x509_crl(authority.crl([])))) == 0


def test_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    old = Authority.create("berlin", ManualClock(SystemClock().now() - 400 * 86400))
    expired = old.issue_client("cam-7")
    (tmp_path / "a").mkdir()
    old.save(tmp_path / "a")
    now = Authority.load(tmp_path / "a")
    server = _server_context(tmp_path, now, now.issue_server(["localhost"]))
    with pytest.raises(ssl.SSLError):
        _handshake(server, _client_context(tmp_path, now, expired))
    assert _handshake(server, _client_context(tmp_path, now, now.issue_client("cam-7"))) == "cam-7"


def test_fields_of_a_client_certificate(authority: Authority) -> None:
    credential = authority.issue_client("cam-7")
    certificate = x509.load_pem_x509_certificate(credential.certificate_pem)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["spiffe://berlin/device/cam-7"]
    assert credential.serial == certificate.serial_number
    assert credential.not_after == certificate.not_valid_after_utc.timestamp()
    assert certificate.not_valid_after_utc - certificate.not_valid_before_utc == dt.timedelta(days=397, hours=1)
    assert client_id_of(credential.certificate_pem) == "cam-7"
    assert b"PRIVATE" not in repr(credential).encode()


def test_a_credential_never_outlives_its_authority() -> None:
    clock = ManualClock()
    authority = Authority.create("berlin", clock)
    clock.advance(3640 * 86400)
    end = x509.load_pem_x509_certificate(authority.certificate_pem).not_valid_after_utc.timestamp()
    assert authority.issue_client("cam-7").not_after == end


@pytest.mark.parametrize("bad", ["", "-x", "a/b", "a b", "x" * 65, "ä", "a\n", "+", "#", "a\x00"])
def test_client_ids_that_could_not_stand_in_a_topic_get_no_certificate(authority: Authority, bad: str) -> None:
    with pytest.raises(ConfigError):
        authority.issue_client(bad)


@pytest.mark.parametrize("bad", ["", "a b", "-a", "a-", "*", "a..b", "x" * 64, "http://a", "a\n"])
def test_server_names_are_checked(authority: Authority, bad: str) -> None:
    with pytest.raises(ConfigError):
        authority.issue_server(["localhost", bad])
    with pytest.raises(ConfigError):
        authority.issue_server([])


def test_a_long_server_name_is_kept_in_full(authority: Authority) -> None:
    name = ".".join(["a" * 60] * 3)
    certificate = x509.load_pem_x509_certificate(authority.issue_server([name, "::1"]).certificate_pem)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [name]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["::1"]


# ---------------------------------------------------------------- signing requests


def test_a_device_that_makes_its_own_key_gets_in(tmp_path: Path, authority: Authority) -> None:
    key, request = make_csr()
    signed = authority.sign_csr(request, "cam-7")
    assert signed.key_pem == b""
    server = _server_context(tmp_path, authority, authority.issue_server(["localhost"]))
    mine = Credential(signed.certificate_pem, key, signed.serial, signed.not_after)
    assert _handshake(server, _client_context(tmp_path, authority, mine)) == "cam-7"


def test_wishes_in_a_request_are_ignored(authority: Authority) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "station")]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.PEM)
    )
    signed = x509.load_pem_x509_certificate(authority.sign_csr(request, "cam-7").certificate_pem)
    assert signed.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value == "cam-7"
    assert not signed.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    names = signed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == []


def _request(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def test_weak_keys_and_the_authoritys_own_are_refused(authority: Authority) -> None:
    weak = rsa.generate_private_key(65537, 1024)  # noqa: S505 - weak on purpose
    odd = ec.generate_private_key(ec.SECP256K1())
    for key in (weak, odd, authority._key):
        with pytest.raises(AccessError):
            authority.sign_csr(_request(key), "cam-7")


def test_a_tampered_request_is_refused(authority: Authority) -> None:
    good = x509.load_pem_x509_csr(make_csr()[1]).public_bytes(Encoding.DER)
    bad = bytearray(good)
    bad[-4] ^= 1
    import base64

    pem = (
        b"-----BEGIN CERTIFICATE REQUEST-----\n"
        + base64.encodebytes(bytes(bad))
        + b"-----END CERTIFICATE REQUEST-----\n"
    )
    with pytest.raises(AccessError):
        authority.sign_csr(pem, "cam-7")


@given(st.binary(max_size=400))
def test_rubbish_is_no_request(authority: Authority, rubbish: bytes) -> None:
    with pytest.raises(AccessError):
        authority.sign_csr(b"-----BEGIN CERTIFICATE REQUEST-----\n" + rubbish, "cam-7")


def test_an_oversized_request_is_refused(authority: Authority) -> None:
    with pytest.raises(AccessError):
        authority.sign_csr(b"\n" * 20_000 + make_csr()[1], "cam-7")


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("passphrase", [None, "korrekt pferd"])
def test_save_and_load(tmp_path: Path, passphrase: str | None) -> None:
    made = Authority.create("berlin")
    made.save(tmp_path, passphrase)
    assert stat.S_IMODE((tmp_path / "ca.key").stat().st_mode) == 0o600
    assert (b"ENCRYPTED" in (tmp_path / "ca.key").read_bytes()) == (passphrase is not None)
    loaded = Authority.load(tmp_path, passphrase)
    assert loaded.fleet == "berlin"
    assert loaded.certificate_pem == made.certificate_pem
    issued = x509.load_pem_x509_certificate(loaded.issue_client("cam-7").certificate_pem)
    issued.verify_directly_issued_by(x509.load_pem_x509_certificate(made.certificate_pem))
    wrong = None if passphrase else "something"
    with pytest.raises(AccessError):
        Authority.load(tmp_path, wrong)
    with pytest.raises(AccessError):
        Authority.load(tmp_path, "other")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ca.crt", "ca.key"]


def test_damaged_missing_mixed_and_readable_files_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match="cannot be read"):
        Authority.load(tmp_path)
    a, b = Authority.create("berlin"), Authority.create("berlin")
    a.save(tmp_path)
    (tmp_path / "ca.crt").write_bytes(b.certificate_pem)
    with pytest.raises(AccessError, match="do not belong together"):
        Authority.load(tmp_path)
    (tmp_path / "ca.crt").write_bytes(b"rubbish")
    with pytest.raises(AccessError, match="not a certificate"):
        Authority.load(tmp_path)
    a.save(tmp_path)
    (tmp_path / "ca.key").chmod(0o644)
    with pytest.raises(AccessError, match="other users"):
        Authority.load(tmp_path)
    (tmp_path / "ca.key").write_bytes(b"rubbish")
    (tmp_path / "ca.key").chmod(0o600)
    with pytest.raises(AccessError, match="cannot be opened"):
        Authority.load(tmp_path)


def test_a_devices_certificate_is_no_authority_and_an_expired_one_says_so(tmp_path: Path) -> None:
    clock = ManualClock()
    authority = Authority.create("berlin", clock)
    device = authority.issue_client("cam-7")
    write_file(tmp_path / "ca.crt", device.certificate_pem, private=False)
    write_file(tmp_path / "ca.key", device.key_pem, private=True)
    with pytest.raises(AccessError, match="not an authority"):
        Authority.load(tmp_path, clock=clock)
    authority.save(tmp_path)
    clock.advance(3651 * 86400)
    with pytest.raises(AccessError, match="expired"):
        Authority.load(tmp_path, clock=clock)


def test_files_refuse_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match="cannot be written"):
        write_file(tmp_path / "no" / "such", b"", private=True)
    write_file(tmp_path / "big", b"x" * 70_000, private=False)
    with pytest.raises(AccessError, match="too large"):
        read_file(tmp_path / "big", private=False)
    (tmp_path / "dir").mkdir()
    with pytest.raises(OperatorError):
        write_file(tmp_path / "dir", b"", private=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["big", "dir"]
