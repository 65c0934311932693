"""Passwords on the loopback listener.

On one machine, certificates for a simulated fleet would cost seconds of handshakes and prove nothing more. The
embedded broker's loopback listener instead takes a password per client that only who can read the instance's
secret file can compute: HMAC-SHA256(secret, client id). A client therefore cannot be another one there either.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from fleetui.common.domain.errors import AccessError


def load_or_create_secret(path: Path) -> bytes:
    """The instance's secret: 32 random bytes, written once, readable by its owner only."""
    for _ in range(2):
        try:
            text = path.read_text("ascii").strip()
        except FileNotFoundError:
            pass
        except OSError as error:
            raise AccessError(
                f"{path} cannot be read: {error.strerror or error}", "Run as the user who owns it"
            ) from None
        else:
            try:
                secret = bytes.fromhex(text)
            except ValueError:
                secret = b""
            if len(secret) == 32:
                return secret
            raise AccessError(
                f"{path} is damaged", "Delete it and start again; simulated devices get new passwords"
            )
        # Written beside and linked into place: of two processes that start at once, one wins and both read it.
        fresh = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32) + "\n")
        try:
            os.link(fresh, path)
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    return load_or_create_secret(path)


def local_password(secret: bytes, client_id: str) -> str:
    return hmac.new(secret, b"fleetui local " + client_id.encode(), hashlib.sha256).hexdigest()


def check_local_password(secret: bytes, client_id: str, password: bytes) -> bool:
    return hmac.compare_digest(local_password(secret, client_id).encode(), password)
