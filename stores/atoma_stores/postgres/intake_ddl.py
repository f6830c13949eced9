"""The functions ``atoma.write``, ``atoma.write_as`` and ``atoma.answer``, and the table of the writes that they leave.

A role needs no privilege except to call them: they write as the hub's role, and record the caller.
"""

from __future__ import annotations

import hashlib

from atoma.contracts.limits import IDEM_BYTES
from atoma.contracts.mutations import KIND_OF
from atoma_stores.sql.dialect import HUB_SCHEMA, STORES_SCHEMA

CHANNEL = "atoma_intake"
TABLE = f"{HUB_SCHEMA}.intake"
_NEW_KEY = """encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid()) PLACING
    substring(int8send((extract(epoch FROM clock_timestamp())*1000)::bigint) FROM 3) FROM 1 FOR 6), 52, 1), 53, 1), 'hex')::uuid::text"""
"""A UUIDv7, whose age is known, so that a hub need not remember it for ever."""
_DIGEST = (
    "sha256(convert_to(jsonb_build_array(leave.scope, leave.store, leave.op, leave.id, leave.vals)::text, 'UTF8'))"
)
_OPS = ", ".join(f"'{word}'" for word in KIND_OF)
_WORDS = " or ".join(", ".join(KIND_OF).rsplit(", ", 1))
_BODY = f"""#variable_conflict use_column
DECLARE
    here bytea := {_DIGEST};
    there bytea;
BEGIN
    IF leave.key IS NULL OR leave.key = '' OR octet_length(leave.key) > {IDEM_BYTES} THEN
        RAISE invalid_parameter_value USING MESSAGE = 'atoma.write: a key has 1 to {IDEM_BYTES} bytes';
    END IF;
    IF leave.scope IS NULL OR leave.store IS NULL OR leave.op IS NULL OR leave.id IS NULL OR jsonb_typeof(leave.vals) IS DISTINCT FROM 'object' THEN
        RAISE invalid_parameter_value USING MESSAGE = 'atoma.write: scope, store, op and id are text, and values is a JSON object';
    END IF;
    IF leave.op NOT IN ({_OPS}) THEN
        RAISE invalid_parameter_value USING MESSAGE = format('atoma.write: op is {_WORDS}, not %s', leave.op);
    END IF;
    INSERT INTO {TABLE}(subject, login, key, digest, scope, store, op, id, vals)
        VALUES(leave.subject, session_user, leave.key, here, leave.scope, leave.store, leave.op, leave.id, leave.vals) ON CONFLICT (subject, key) DO NOTHING;
    IF NOT FOUND THEN
        SELECT digest INTO there FROM {TABLE} i WHERE i.subject = leave.subject AND i.key = leave.key;
        IF there IS DISTINCT FROM here THEN
            RAISE unique_violation USING MESSAGE = format('atoma.write: the key %s was used for another write', leave.key),
                HINT = 'take a new key for every write; the same key is for the same write, tried again';
        END IF;
    END IF;
    PERFORM pg_notify('{CHANNEL}', '');
    RETURN leave.key;
END"""
_TAKES = 'scope text, store text, op text, id text, "values" jsonb'
DDL = (
    f"""CREATE TABLE IF NOT EXISTS {TABLE}(n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, subject text COLLATE "C" NOT NULL,
    login name NOT NULL, key text COLLATE "C" NOT NULL, digest bytea NOT NULL, scope text NOT NULL, store text NOT NULL, op text NOT NULL,
    id text NOT NULL, vals jsonb NOT NULL, left_at timestamptz NOT NULL DEFAULT clock_timestamp(), answer jsonb,
    answered_ms bigint, UNIQUE(subject, key))""",
    f"CREATE INDEX IF NOT EXISTS intake_waits ON {TABLE}(n) WHERE answer IS NULL",
    f"CREATE INDEX IF NOT EXISTS intake_answered ON {TABLE}(answered_ms) WHERE answer IS NOT NULL",
    f"""CREATE OR REPLACE FUNCTION {HUB_SCHEMA}.leave(scope text, store text, op text, id text, vals jsonb, key text, subject text) RETURNS text
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog AS $body${_BODY}$body$""",
    f"""CREATE OR REPLACE FUNCTION {STORES_SCHEMA}.write({_TAKES} DEFAULT '{{}}', key text DEFAULT {_NEW_KEY}) RETURNS text
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog
    AS $body$SELECT {HUB_SCHEMA}.leave(write.scope, write.store, write.op, write.id, write."values", write.key, 'sql:' || session_user)$body$""",
    f"""CREATE OR REPLACE FUNCTION {STORES_SCHEMA}.write_as(principal text, {_TAKES} DEFAULT '{{}}', key text DEFAULT {_NEW_KEY})
    RETURNS text LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog
    AS $body$SELECT {HUB_SCHEMA}.leave(write_as.scope, write_as.store, write_as.op, write_as.id, write_as."values", write_as.key, write_as.principal)$body$""",
    f"""CREATE OR REPLACE FUNCTION {STORES_SCHEMA}.answer(key text) RETURNS jsonb
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog
    AS $body$SELECT i.answer FROM {TABLE} i WHERE i.login = session_user AND i.key = answer.key ORDER BY i.n DESC LIMIT 1$body$""",
    *(
        f"REVOKE ALL ON FUNCTION {STORES_SCHEMA}.{name} FROM PUBLIC"
        for name in (
            "write(text, text, text, text, jsonb, text)",
            "write_as(text, text, text, text, text, jsonb, text)",
            "answer(text)",
        )
    ),
)
"""The table and the functions, which keep their privileges when they are replaced."""
DDL_KEY, DDL_FORM = "intake", hashlib.sha256("".join(DDL).encode()).hexdigest()[:16]
"""The key in ``meta`` for the installed form of them, and the current form."""
