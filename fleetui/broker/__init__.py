"""The embedded MQTT broker: 3.1.1 and 5, asyncio, standard library only.

It runs as a process of its own (``fleetui broker``); nothing else imports its inside, apart from ``export``
(a mosquitto configuration with the same rules) and ``cli``.

==============  ============================================================================
``wire``        varints, texts, properties, reason codes: bytes only, no I/O
``packets``     the packets of the protocol, parsed and built; ``handshake``: its first and last
``message``     one publication, shared by everybody it goes to
``topics``      who subscribed to what: index, wildcards, shared groups, cached routes
``session``     one client's subscriptions, queue and window, connected or not
``retained``    the last word on each topic
``journal``     append-only files: group commit, snapshot, recovery; knows bytes only
``records``     what stands in the journal; ``state``: sessions as records, and back
``access``      who is who (policies of a listener) and who may what (rights)
``limits``      how much anybody may use
``connection``  one socket: bytes in, packets handled; ``outlet``: bytes out
``admission``   CONNECT: who, with which session
``core``        the broker: routes publications, ends sessions, sweeps
``listeners``   sockets, TLS; ``crl``: who is revoked
``counters``    what is counted, and ``$SYS``; ``admin``: ``$CONTROL``
``process``     data folder, lock, signals; ``cli``, ``check``, ``export``: the command line
==============  ============================================================================

How a message gets through: ``connection`` cuts the packet out of the bytes that came, ``topics`` knows (from its
cache, most of the time) to which sessions the topic goes, each ``session`` sends or queues it and tells ``state``
if it is kept. When everything that arrived in this turn of the event loop is handled, ``core`` lets the journal
write one frame, and then each ``outlet`` its bytes, acknowledgements and messages alike.

Everything runs on one thread, the event loop's. The journal is written before an acknowledgement leaves.
"""
