"""Mutated packets: 20,000 here (``bench_broker`` does a million), and garbage over real sockets."""

from __future__ import annotations

import contextlib
import random
import socket

import pytest

from tests.broker.fuzzing import Fuzzer, corpus, login
from tests.helpers.broker import running_broker


@pytest.mark.logs_warnings("Denied: |Kicked")
@pytest.mark.parametrize("seed", range(4))
def test_mutated_packets_neither_break_it_nor_stay(seed):
    fuzzer = Fuzzer(seed)
    fuzzer.run(5000)
    fuzzer.check()
    counters = fuzzer.world.core.counters
    assert counters.malformed > 500, "the mutations do reach the parser"
    assert counters.messages_out > 50, "and some of it is delivered"
    fuzzer.finish()


@pytest.mark.logs_warnings("Denied: ")
def test_the_same_seed_does_the_same():
    runs = []
    for _ in range(2):
        fuzzer = Fuzzer(9)
        fuzzer.run(500)
        runs.append(fuzzer.world.core.counters.as_dict())
    assert runs[0] == runs[1]


def test_garbage_over_sockets(tmp_path):
    """The broker answers a well-behaved client all the while, and has nothing open when the others are gone."""
    dice = random.Random(1)
    pieces = corpus(4) + corpus(5)
    with running_broker(tmp_path, log_level="ERROR") as broker, broker.raw("station") as station:
        for i in range(300):
            with socket.create_connection((broker.host, broker.port), 5) as sock, contextlib.suppress(OSError):
                if dice.random() < 0.5:
                    sock.sendall(login("dev1", dice.choice((4, 5))).encode())
                for _ in range(dice.randrange(4)):
                    data = bytearray(dice.choice(pieces))
                    data[dice.randrange(len(data))] = dice.randrange(256)
                    sock.sendall(data)
                if dice.random() < 0.3:
                    sock.sendall(dice.randbytes(dice.randrange(1, 3000)))
            if i % 50 == 0:
                assert station.publish("still/here", b"x", qos=1) is not None
        assert station.subscribe("$SYS/broker/count/bugs") == [1]
        bugs = station.message()
        assert bugs is not None
        assert bugs.payload == b"0"
    assert "own code failed" not in broker.log_text
