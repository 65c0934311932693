"""Whose wishes a station believes: the public keys in ``keys/operators/*.pub`` of its instance.

A key that is put there counts from the next wish on, one that is taken away counts no more. The single local
operator, whom nobody has to think about, is made here at the first need: by the desk, or by the command line.
"""

from __future__ import annotations

import getpass
import logging
import shutil
from pathlib import Path

from fleetui.common.basedir import BaseDir
from fleetui.common.domain.errors import AccessError
from fleetui.common.trust.wishes import KEY_FILE, PUBLIC_FILE, Operator, known_operators, verify_wish
from fleetui.station.wishes.office import Check
from fleetui.store.records import Wish

log = logging.getLogger("fleetui.station")


def folder_of(base: BaseDir) -> Path:
    return base.keys / "operators"


def checker(base: BaseDir) -> Check:
    """Tells why a wish is refused, or None where its operator is known and has signed it."""
    folder = folder_of(base)

    def check(wish: Wish) -> str | None:
        try:
            verify_wish(
                known_operators(folder),
                operator=wish.operator,
                identity=wish.id,
                kind=wish.kind,
                arguments=wish.arguments,
                at=wish.at,
                signature=wish.signature,
            )
        except AccessError as error:
            log.warning("a wish is refused: %s", error)
            return str(error)
        return None

    return check


def local_operator(base: BaseDir) -> Operator:
    """The operator of this instance, made at the first need and known to its station."""
    keys = base.keys
    if not (keys / KEY_FILE).exists():
        Operator.create(_user()).save(keys)
    operator = Operator.load(keys)
    known = folder_of(base)
    known.mkdir(mode=0o700, exist_ok=True)
    public = known / f"{operator.public_key.hex()[:16]}.pub"
    if not public.exists():
        shutil.copyfile(keys / PUBLIC_FILE, public)
    return operator


def _user() -> str:
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = ""
    name = "".join(c for c in name if c.isprintable()).strip()[:64]
    return name or "operator"
