"""Ways to take more of a hub than one's share: F79."""

from __future__ import annotations

from typing import Final

from tests.campaigns.plants.plant import Plant

FAIRNESS = "atoma_transports.calls.fairness"
MEMORY = "atoma_transports.calls.memory"
UNITS = "tests/unit/transports/test_units.py"
CONNECTIONS = "tests/unit/transports/test_connections.py"
HEADERS = "tests/unit/transports/test_header_bounds.py"
LARGE = "tests/unit/transports/test_large_requests.py"
FAIR = "tests/unit/transports/test_fairness.py"
BUDGET = "tests/unit/transports/test_memory_budget.py"
ARRIVALS = "tests/unit/transports/test_arrivals.py"
READING = "tests/unit/hub/test_reading.py"
CLIENTS = "tests/unit/hub/test_clients.py"


def plant(where: str, old: str, new: str, why: str, *tests: str) -> Plant:
    """A row of this table."""
    return Plant("F79", where, old, new, why, tests)


PLANTS: Final[tuple[Plant, ...]] = (
    # what reading takes of the loop
    plant(
        f"{FAIRNESS}:Share.took",
        "self._owner.seconds.count(seconds)",
        "self._owner.seconds.count(seconds if self._own else 0)",
        "a principal reads as much as it wants",
        FAIR,
    ),
    plant(
        f"{FAIRNESS}:Share._wait_its_turn",
        "await trio.sleep(self._owner.seconds.debt_s())",
        "await trio.sleep(0)",
        "who is over the share goes on at once",
        FAIR,
    ),
    plant(
        f"{FAIRNESS}:Share._wait_its_turn",
        "await trio.lowlevel.checkpoint()",
        "pass",
        "a peer within its share lets nobody else run between two turns of its parser",
        UNITS,
    ),
    plant(
        f"{FAIRNESS}:Fairness.guest_turn",
        "async with guests.line:",
        "if True:",
        "of many guests who come at once all are read in one pass of the loop",
        FAIR,
    ),
    plant(
        f"{FAIRNESS}:Fairness.guest_turn",
        "async with guests.hall, guests.line:",
        "async with guests.line:",
        "a guest who has asked for something waits behind all who have asked for nothing",
        ARRIVALS,
    ),
    plant(
        "atoma_transports.serving.arrivals:Arrivals._start",
        "SWAPS if full else STARTS",
        "500",
        "of those who come at once all begin to be served in one pass of the loop",
        ARRIVALS,
    ),
    plant(
        "atoma_transports.serving.arrivals:Arrivals._refuse_surplus",
        "if words and asks_for_something(words):",
        "if words is None:",
        "who has asked while they waited is hung up on like those who have not",
        ARRIVALS,
    ),
    plant(
        "atoma_transports.grpc._driver.wire:Http2Wire._receive_settings_frame",
        "if self._acknowledged and frames:",
        "if False:",
        "the settings of a peer that only greeted are acknowledged twice",
        ARRIVALS,
    ),
    plant(
        "atoma_transports.websocket.pipe:WebSocketPipe._parts",
        "self._side is ConnectionType.CLIENT or",
        "True or",
        "a large answer is copied while it is sent",
        BUDGET,
    ),
    plant(
        "atoma_transports.frames.server:ServerConnection._send_answer",
        "await self._out.space(len(payload))",
        "data = encode_frame('reply', id, payload); await self._out.space(len(payload))",
        "an answer that waits is kept as a frame besides",
        BUDGET,
    ),
    plant(
        "atoma.hub.garbage:_freeze",
        "gc.freeze()",
        "pass",
        "a full collection of garbage looks through all connections, and holds the loop meanwhile",
        "tests/unit/hub/test_garbage.py",
    ),
    plant(
        "atoma_stores.postgres.lanes:WriterLane._aside",
        "return self._thread",
        "return None",
        "a hub on PostgreSQL joins texts in its loop",
        "tests/unit/hub/test_postgres.py",
    ),
    plant(
        f"{MEMORY}:Memory.read_on",
        "while self.held >= of.most and",
        "while False and",
        "requests are read on, however much the principal holds",
        BUDGET,
    ),
    plant(
        f"{MEMORY}:Memory._dismiss_slowest",
        "end()",
        "pass",
        "a connection that takes none of its answers keeps all others of its principal waiting",
        BUDGET,
    ),
    plant(
        f"{FAIRNESS}:Share.moved",
        "self._holding.sent_at = trio.current_time()",
        "pass",
        "who takes an answer slowly counts as one who takes nothing",
        BUDGET,
    ),
    plant(
        "atoma_transports.websocket.pipe:WebSocketPipe._await_goodbye",
        "await self._read()",
        "self._protocol.receive_data(bytes(await self._stream.receive_some(RECEIVE_BYTES))), self._sort(None)",
        "what comes after the goodbye is parsed to its end in one step",
        UNITS,
    ),
    plant(
        "atoma_transports.calls.requests:in_turns",
        "share.took(began, DECODING_S_MAX)",
        "pass",
        "decoding takes as much of the loop as it wants",
        UNITS,
    ),
    plant(
        "atoma_transports.http.calls:Calls._special",
        "self._wire.share.earned(len(body), len(several.calls))",
        "pass",
        "our own HTTP client, whose calls travel in batches, is slowed down",
        UNITS,
    ),
    # what small units count as
    plant(
        f"{FAIRNESS}:Share.unit",
        "self._fresh += UNIT_BYTES - size",
        "pass",
        "a million units of a byte count as a megabyte",
        UNITS,
    ),
    plant(
        "atoma_transports.http.wire:ServerWire._check_piece",
        "self.share.piece(len(event.data) if event.chunk_end else TINY_BYTES)",
        "pass",
        "HTTP: chunks of a byte cost nothing",
        UNITS,
    ),
    plant(
        "atoma_transports.http.wire:ServerWire.head",
        "self.share.unit(0)",
        "pass",
        "HTTP: requests sent ahead count as their bytes",
        UNITS,
    ),
    plant(
        "atoma_transports.http.wire:ServerWire._event",
        "self.share.came(len(data))",
        "pass",
        "HTTP: bytes are not counted",
        UNITS,
    ),
    plant(
        "atoma_transports.websocket.pipe:WebSocketPipe._sort",
        "share.piece(0)",
        "pass",
        "WebSocket: pings cost nothing",
        UNITS,
    ),
    plant(
        "atoma_transports.websocket.pipe:WebSocketPipe._sort",
        "share.piece(len(event.data))",
        "pass",
        "WebSocket: fragments and empty continuations cost nothing",
        UNITS,
    ),
    plant(
        "atoma_transports.grpc._driver.connection:Connection.__init__",
        "self.wire.tell_frames(share.unit)",
        "self.wire.tell_frames(share.came)",
        "gRPC: DATA of a byte, padding, PING and WINDOW_UPDATE count as their bytes",
        UNITS,
    ),
    plant(
        "atoma_transports.grpc._driver.wire:Http2Wire._count",
        "self._chatter > self._chatter_max or self._updates > self._updates_max",
        "self._chatter > self._chatter_max",
        "gRPC: DATA of a byte comes without end",
        UNITS,
    ),
    plant(
        f"{FAIRNESS}:Share.piece",
        "raise TinyPieces",
        "pass",
        "pieces that carry next to nothing come without end",
        UNITS,
    ),
    plant(
        f"{FAIRNESS}:Share.check_rate",
        "(debt_s := self._bytes.debt_s()) > PAUSE_S",
        "(debt_s := 0.0) > PAUSE_S",
        "nobody is told that they send too much",
        UNITS,
    ),
    # connections
    plant(
        f"{FAIRNESS}:Owner.make_room",
        "if self.connections < most:",
        "if self.connections <= most:",
        "a principal has one connection more",
        CONNECTIONS,
    ),
    plant(
        f"{FAIRNESS}:Owner.make_room",
        "rested.give_way()",
        "pass",
        "a principal that keeps HTTP connections may have any number more",
        CONNECTIONS,
    ),
    plant(
        f"{FAIRNESS}:Share.leave",
        "self._owner.connections -= 1",
        "pass",
        "a connection that has ended keeps its place",
        CONNECTIONS,
    ),
    plant(
        "atoma_transports.http.handler:_answer_one",
        "if hosting.place.shared:",
        "if False:",
        "who asked last over each connection of a proxy has them all",
        CONNECTIONS,
    ),
    plant(
        "atoma_transports.grpc.handler:SyncCalls._counted",
        "if not self._calls and self._hosting.place.shared:",
        "if False:",
        "the same over gRPC",
        CONNECTIONS,
    ),
    plant(
        "atoma_transports.serving.admission:Admission.enter",
        "self._share.admit(session.principal.subject)\n        self._place.accept()",
        "self._place.accept()\n        self._share.admit(session.principal.subject)",
        "connections that were refused take the places of a port",
        CONNECTIONS,
    ),
    plant(
        "atoma_transports.memory.network:MemoryNetwork._serve",
        ", fairness=fairness",
        "",
        "in memory connections are not counted",
        CONNECTIONS,
    ),
    # header fields
    plant(
        "atoma_transports.serving.server:_serve_head",
        "check_head(head)",
        "pass",
        "a WebSocket handshake has any number of header fields",
        HEADERS,
    ),
    plant(
        "atoma_transports.http.wire:_Heads.maybe_extract_lines",
        "len(lines) > HEAD_LINES_MAX",
        "len(lines) > 1_000_000",
        "a request on a kept connection has any number of header fields, and so has the end of a body",
        HEADERS,
    ),
    plant(
        "atoma_transports.grpc._driver.compression:RememberingDecoder.decode",
        "check_fields(data, self._max_fields)",
        "pass",
        "gRPC: a block of headers is unpacked whatever is in it",
        HEADERS,
    ),
    plant(
        "atoma_transports.grpc._driver.wire:_Turns._update_header_buffer",
        "if self._block > self.block_bytes:",
        "if False:",
        "gRPC: four megabytes of headers are gathered",
        HEADERS,
    ),
    plant(
        "atoma_transports.grpc._driver.server:_Serving._check",
        "len(headers) > fields_max or ",
        "",
        "gRPC: a call has any number of metadata fields",
        "tests/unit/transports/grpc/test_driver_limits.py",
    ),
    # what is in a request
    plant(
        "atoma_transports.http.envelope:check_separators",
        "sum(map(data.count, SEPARATORS)) > SEPARATORS_MAX",
        'data.count(b",") > 2 * SEPARATORS_MAX',
        "a megabyte of empty lists is decoded",
        LARGE,
    ),
    plant(
        "atoma_transports.calls.requests:check_survey",
        "if survey.too_many:",
        "if False:",
        "MessagePack with a million values is decoded",
        LARGE,
    ),
    # what reading takes of the database
    plant(
        "atoma.hub.reading:Readers.turn",
        "if reads.asked >= budget.readers + budget.waiting:",
        "if False:",
        "any number of reads of one principal waits",
        READING,
    ),
    plant(
        "atoma.hub.reading:Readers.turn",
        "async with reads.places:",
        "if True:",
        "one principal has all readers",
        READING,
    ),
    plant(
        "atoma.hub.reading:Readers.turn",
        "reads.meter.count)",
        "lambda seconds: None)",
        "one principal reads without end",
        READING,
    ),
    # clients
    plant(
        "atoma_stores.sql.hub.state:State._make_room",
        "        return forgets",
        "        return ()",
        "whoever has a token fills the hub's file with clients",
        CLIENTS,
    ),
    plant(
        "atoma_stores.sql.hub.facts",
        "ORDER BY c.seen_ms, c.number",
        "ORDER BY c.number",
        "the oldest client is forgotten, not the one that was away for longest",
        CLIENTS,
    ),
    plant(
        "atoma_stores.sql.hub.clients:ClientCount.with_one_more",
        " if known.client_id not in busy",
        "",
        "a client is forgotten while its mutations are being decided",
        CLIENTS,
    ),
    plant(
        "atoma.hub.pushing:is_expired",
        "return facts.expired or (facts.traceless and not begins_anew)",
        "return facts.expired",
        "a client that was forgotten without a trace is taken for a new one, and its writes are applied twice",
        CLIENTS,
    ),
    plant(
        "atoma.hub.pushing:is_expired",
        "begins_anew = request.incarnation > FIRST_INCARNATION and not request.confirmed_mid",
        "begins_anew = False",
        "a device that was repaired is repaired for ever",
        CLIENTS,
    ),
)
