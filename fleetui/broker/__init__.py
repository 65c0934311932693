"""The embedded MQTT broker: 3.1.1 and 5, asyncio, standard library only.

It runs as a process of its own (``fleetui broker``); nothing else imports its inside, apart from ``export``
(a mosquitto configuration with the same rules) and ``cli``.

=============  ==============================================================================
``wire``       varints, texts, properties, reason codes: bytes only, no I/O
``packets``    the packets of the protocol, parsed and built
``message``    one publication, shared by everybody it goes to
``topics``     who subscribed to what: index, wildcards, shared groups, cached routes
``session``    one client's subscriptions, queue and window, connected or not
``retained``   the last word on each topic
``journal``    append-only files: group commit, snapshot, recovery; knows bytes only
``state``      what stands in the journal: sessions and retained messages as records, and back
``access``     who is who (policies of a listener) and who may what (rights)
``connection`` one socket: bytes in, packets handled, bytes out
``core``       the broker: routes publications, takes over sessions, sweeps
``listeners``  sockets, TLS, revocation
``counters``   what is counted, and ``$SYS``
``admin``      ``$CONTROL``
=============  ==============================================================================

Everything runs on one thread, the event loop's. The journal is written before an acknowledgement leaves.
"""
