from __future__ import annotations

import pytest

from fleet_sim.agent.access import Access, Address
from fleet_sim.agent.settings import load
from fleetui.common.domain.errors import AccessError, ConfigError, OperatorError
from fleetui.common.link.transport import LinkConfig
from fleetui.common.trust.local import load_or_create_secret, local_password

LEAST = 'fleet = "main"\ndevice = "press-17"\nbroker = "mqtt://127.0.0.1:1883"\ndata = "data"\n'


@pytest.fixture
def read(tmp_path):
    def read(text: str):
        path = tmp_path / "agent.toml"
        path.write_text(text)
        return load(path)

    return read


def test_the_least_is_enough(read, tmp_path):
    settings = read(LEAST)
    assert (settings.fleet, settings.device, settings.beat_s, settings.window_s) == ("main", "press-17", 30, 300)
    assert settings.data == tmp_path / "data"
    assert settings.access == Access(Address("127.0.0.1", 1883))


def test_everything(read, tmp_path):
    (tmp_path / "s").mkdir()
    secret = load_or_create_secret(tmp_path / "s" / "local.secret")
    settings = read(
        LEAST
        + """
name = "Press 17"
site = "Hamburg"
target = "rpi4-64"
firmware = "2.4.2"
[auth]
secret = "s/local.secret"
[report]
beat = "1m30s"
window = 60
[queue]
reports = 100
bytes = "256KiB"
events = 10
[model]
handle = "vibration"
name = "bearing-wear"
version = "2.1"
seed = 7
features = 20
hidden = 16
classes = 5
[source]
rows = "120/min"
batch = 4
seed = 9
[tags]
line = "3"
"""
    )
    assert (settings.name, settings.site, settings.target, settings.firmware) == (
        "Press 17",
        "Hamburg",
        "rpi4-64",
        "2.4.2",
    )
    assert (settings.beat_s, settings.window_s) == (90.0, 60.0)
    assert (settings.limits.reports, settings.limits.bytes, settings.limits.events) == (100, 256 * 1024, 10)
    assert (settings.model.handle, settings.model.features, settings.model.classes) == ("vibration", 20, 5)
    assert settings.source.rows_per_s == 2.0
    assert settings.tags == {"line": "3"}
    config = settings.access.config(LinkConfig("press-17"))
    assert (config.username, config.password) == ("press-17", local_password(secret, "press-17"))


def test_certificates(read, tmp_path):
    text = LEAST.replace("mqtt://", "mqtts://").replace(":1883", "")
    files = '[auth]\nca = "ca.crt"\ncertificate = "d.crt"\nkey = "/keys/d.key"\n'
    settings = read(text + files)
    tls = settings.access.config(LinkConfig("press-17")).tls
    assert tls is not None
    assert (tls.ca, str(tls.key)) == (tmp_path / "ca.crt", "/keys/d.key")
    assert settings.access.address.port == 8883
    with pytest.raises(AccessError, match=r"no ca\.crt"):
        settings.access.check("press-17")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("fleet = ", "is not TOML"),
        ("beat = 5", "'beat'|beat in .* means nothing here"),
        ('[report]\nbaet = "5s"', "report.baet in .* means nothing here. Did you mean 'beat'"),
        ('[report]\nbeat = "soon"', "report.beat in .* cannot be 'soon'"),
        ('[report]\nbeat = "5"', "report.beat in .* cannot be '5'"),
        ("[report]\nbeat = true", "is True, not a number"),
        ("[report]\nbeat = 0.01", "cannot be 0.01"),
        ("[report]\nwindow = nan", "cannot be nan"),
        ("[queue]\nreports = 3", "queue.reports in .* cannot be 3"),
        ("[queue]\nreports = 100.5", "Write a whole number"),
        ('[queue]\nbytes = "1KiB"', "queue.bytes"),
        ("report = 5", "report in .* is not a table"),
        ("site = 5", "site in .* is 5, not a text"),
        (f'site = "{"x" * 65}"', "too long"),
        ("[tags]\nline = 3", "tags.line in .* is 3, not a text"),
        ('[auth]\nca = "x"', "is not TLS"),
        ('[auth]\nsecret = "none"', "no secret at"),
        ('[auth]\nsecret = "s"\nca = "c"', "both a secret and certificates"),
        ('[model]\nhandle = "a b"', "model.handle in .* cannot be 'a b'"),
        ("[model]\nclasses = 1", "model.classes"),
    ],
)
def test_faults_are_said_in_sentences(read, change, sentence):
    with pytest.raises(OperatorError, match=sentence) as caught:
        read(LEAST + change)
    assert str(caught.value).endswith((".", "?"))


@pytest.mark.parametrize("key", ["fleet", "device", "broker", "data"])
def test_what_has_to_be_there(read, key):
    text = "\n".join(line for line in LEAST.splitlines() if not line.startswith(key))
    with pytest.raises(ConfigError, match=f"does not name the (data folder|{key})"):
        read(text)


def test_odd_identities(read):
    with pytest.raises(ConfigError, match=r"device in .* cannot be"):
        read(LEAST.replace("press-17", "press/17"))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "none.toml")


@pytest.mark.parametrize(
    "url", ["http://x", "mqtt://", "mqtt://h:0", "mqtt://h:99999", "mqtt://u:p@h", "mqtt://h/x"]
)
def test_addresses_that_are_none(url):
    with pytest.raises(ConfigError, match="not the address"):
        Address.parse(url)


def test_addresses():
    assert Address.parse("broker") == Address("broker", 1883)
    assert str(Address.parse("mqtts://[::1]:9")) == "mqtts://[::1]:9"


def test_access_that_does_not_fit(tmp_path):
    secret = tmp_path / "s"
    load_or_create_secret(secret)
    with pytest.raises(ConfigError, match="both given"):
        Access.of("mqtts://h", secret=secret, certificates=tmp_path)
    with pytest.raises(ConfigError, match="without TLS"):
        Access.of("mqtt://h", certificates=tmp_path)
    with pytest.raises(ConfigError, match="wants certificates"):
        Access.of("mqtts://h")
    with pytest.raises(AccessError, match=r"no ca\.crt"):
        Access.of("mqtts://h", certificates=tmp_path)
    (tmp_path / "ca.crt").touch()
    access = Access.of("mqtts://h", certificates=tmp_path)
    with pytest.raises(AccessError, match=r"no edge-1\.crt"):
        access.check("edge-1")
