"""How much anybody may use of the broker, in one place, and the bucket that turns rates into waiting."""

from __future__ import annotations

from dataclasses import dataclass

from fleetui.common.domain.errors import ConfigError

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class Limits:
    """Defaults fit a laptop and 10,000 devices. ``station_*``: for identities that read the whole fleet."""

    max_packet: int = 1 * MIB  # larger ones end the connection, both ways
    max_connect_packet: int = 80 * KIB  # before anybody has said who they are
    connections: int = 20_000
    connections_per_address: int = 20_000  # loopback included: a simulator is one address
    handshakes: int = 256  # TLS handshakes under way at once
    connects_per_s: float = 2_000.0  # accepted a second; the rest waits in the listen queue
    connect_timeout_s: float = 10.0  # from accept to CONNECT, TLS included
    max_keepalive_s: int = 0  # clients that ask for longer (or none) are told this; 0: as they like

    sessions: int = 50_000
    session_expiry_s: int = 7 * 86_400  # longest; also what a 3.1.1 client without clean session gets
    subscriptions: int = 256  # of one session
    topic_length: int = 512
    topic_levels: int = 16
    receive_maximum: int = 256  # QoS 2 from one client that are not yet complete
    window: int = 1_000  # QoS 1 and 2 on their way to one client, at most (less if it says so)
    window_v3: int = 64  # the same for 3.1.1, which cannot say
    topic_aliases: int = 16
    partial_bytes: int = 128 * MIB  # packets of all clients that have not come whole yet

    queue_messages: int = 1_000  # waiting for one device
    queue_bytes: int = 1 * MIB
    station_queue_messages: int = 200_000
    station_queue_bytes: int = 128 * MIB
    unsent_messages: int = 1_000  # QoS 0 for one connected client that is slow
    unsent_bytes: int = 1 * MIB
    station_unsent_messages: int = 50_000
    station_unsent_bytes: int = 32 * MIB
    memory: int = 512 * MIB  # of all messages held, each once

    retained: int = 100_000
    retained_bytes: int = 384 * MIB
    device_retained: int = 16  # topics of one device
    device_retained_bytes: int = 16 * KIB  # of one message of a device

    publishes_per_s: float = 500.0  # of one device, sustained; above, it is read more slowly. 0: unlimited
    publish_burst: float = 2_000.0

    def __post_init__(self) -> None:
        if self.max_packet < KIB:
            raise ConfigError("The largest packet must be at least 1 KiB", "Raise max_packet")
        if not 1 <= self.receive_maximum <= 65_535 or not 1 <= self.window <= 65_535:
            raise ConfigError("A window must be between 1 and 65535", "Change receive_maximum or window")
        if self.connections < 1 or self.sessions < 1:
            raise ConfigError("A broker without connections is of no use", "Raise connections and sessions")


class Bucket:
    """A token bucket: ``rate`` a second, ``burst`` at once."""

    __slots__ = ("_at", "burst", "rate", "tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self.burst = max(burst, 1.0)
        self.tokens = self.burst
        self._at = now

    def take(self, now: float) -> float:
        """0.0 if there was a token (it is gone now), else the seconds until there will be one."""
        self.tokens = min(self.burst, self.tokens + (now - self._at) * self.rate)
        self._at = now
        if self.tokens >= 1.0:
            self.tokens -= 1.0
            return 0.0
        return (1.0 - self.tokens) / self.rate
