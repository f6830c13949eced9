"""Ways to get at what is somebody else's, or at the hub with a token that is not good any more: F79; and twice done: F56."""

from __future__ import annotations

from typing import Final

from tests.campaigns.plants.plant import Plant

MATRIX = "tests/scenarios/test_authorisation.py"
SESSIONS = "tests/scenarios/test_sessions.py"
LEAKS = "tests/scenarios/test_token_leaks.py"
KEYS = "tests/unit/hub/test_resolving.py"
FACTS = "atoma_stores.sql.hub.facts"
SESSION = "atoma.ports.sessions:Session"


def plant(where: str, old: str, new: str, why: str, *tests: str, row: str = "F79") -> Plant:
    """A row of this table."""
    return Plant(row, where, old, new, why, tests)


PLANTS: Final[tuple[Plant, ...]] = (
    # what is somebody else's
    plant(
        "atoma.hub.pulling:SnapshotTokens.read",
        "if place.scope != scope or place.principal != principal:",
        "if place.scope != scope:",
        "a snapshot goes on with somebody else's token",
        MATRIX,
    ),
    plant(
        "atoma.hub.pulling:SnapshotTokens.read",
        "if place.scope != scope or place.principal != principal:",
        "if place.principal != principal:",
        "a token of one scope goes on in another",
        "tests/unit/hub/test_pulling.py",
    ),
    plant(
        FACTS,
        "{{client}} c ON c.client_id=k.client AND c.principal=k.principal",
        "{{client}} c ON c.client_id=k.client",
        "who knows a mutation of somebody else's is told its verdict",
        MATRIX,
    ),
    plant(
        "atoma.hub.pushing:OpenDecision.decide",
        "confirmed(of_principal(facts.client, self.principal), self.request.confirmed_mid)",
        "confirmed(facts.client, self.request.confirmed_mid)",
        "the verdicts of somebody else's file are told",
        MATRIX,
    ),
    # tokens that are not good any more
    plant(
        f"{SESSION}.stream",
        "self._carry_out(self._streams, self.expires_at)",
        "self._carry_out(self._streams, math.inf)",
        "a stream over gRPC or HTTP outlives its token",
        MATRIX,
    ),
    plant(
        f"{SESSION}.end",
        "scope.cancel()",
        "pass",
        "what is under way goes on after its session was ended",
        SESSIONS,
    ),
    plant(
        f"{SESSION}.end",
        "self.on_end(session_ended(reason))",
        "pass",
        "a connection in memory goes on after its session was ended",
        SESSIONS,
    ),
    plant(
        f"{SESSION}.is_good",
        "not self.ended and not self.expired",
        "not self.expired",
        "the next call of a connection goes on with an ended session",
        SESSIONS,
    ),
    plant(
        "atoma.ports.sessions:Sessions.end",
        "attempt.ended.add(subject)",
        "pass",
        "a token that is revoked while it is verified slips through",
        SESSIONS,
    ),
    plant(
        "atoma.hub.verifying:Reverification._verify",
        "except AuthenticationError as error:",
        "except ZeroDivisionError as error:",
        "a token that the verifier refuses goes on working",
        SESSIONS,
    ),
    plant(
        "atoma.hub.verifying:Reverification._verify",
        "with trio.fail_after(VERIFY_S):",
        "with trio.CancelScope():",
        "a verifier that hangs is never asked again",
        SESSIONS,
    ),
    plant(
        "atoma.hub.verifying:Reverification._look",
        "if now >= session.verified + UNVERIFIED_PERIODS * self._every_s:",
        "if False:",
        "a verifier that is away makes every token good for ever",
        SESSIONS,
    ),
    plant(
        "atoma_transports.frames.server:ServerConnection._use",
        "self._stop(info, streams_only=False)",
        "self._stop(info)",
        "a call that waits is not ended with its session",
        SESSIONS,
    ),
    plant(
        "atoma_transports.serving.admission:Admission.close",
        "session.close()",
        "pass",
        "who has left over gRPC or HTTP is listed for ever",
        SESSIONS,
    ),
    # tokens that are shown
    plant(
        "atoma_transports.grpc._driver.compression",
        'logging.getLogger("hpack").setLevel(logging.INFO)',
        'logging.getLogger("hpack").setLevel(logging.DEBUG)',
        "tokens are in the log",
        LEAKS,
    ),
    plant(
        f"{SESSION}.__repr__",
        "{self.principal.subject!r}",
        "{self._token!r}",
        "a session shows its token",
        LEAKS,
    ),
    plant(
        "atoma.hub.auth:StaticTokenVerifier.verify",
        'AuthenticationError("the token is missing',
        'AuthenticationError(f"the token {token} is missing',
        "a refusal repeats the token",
        LEAKS,
    ),
    # twice done
    plant(
        "atoma.hub.direct:WriteDecision.decide",
        "check_age(self.key, facts)",
        "pass",
        "a late copy of a write whose answer is forgotten is applied again",
        KEYS,
        row="F56",
    ),
    plant(
        "atoma.hub.direct:FenceDecision.decide",
        "check_unspent(facts)",
        "pass",
        "what was called abandoned is applied once the fence is forgotten",
        KEYS,
        row="F56",
    ),
    plant(
        "atoma_stores.sql.hub.epochs:end_epoch",
        "note_forgotten(dialect, now_ms),",
        "",
        "a restored hub says of a write that it lost that it never happened",
        KEYS,
        row="F56",
    ),
    plant(
        "atoma_stores.sql.hub.upkeep:raise_forgotten",
        "min(before_ms, newest + APART_MS)",
        "before_ms",
        "one compaction by a wrong clock makes fresh keys expired for years",
        KEYS,
        row="F56",
    ),
)
