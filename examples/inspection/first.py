from model import CHECKS, SCHEMA, Check, plugins

from atoma import select
from atoma.bindings.blocking import open_client

with open_client(SCHEMA, plugins=plugins("round.db")) as client:
    checks = client.store(CHECKS)
    rail = checks.insert(Check(what="Handrail of the bridge"))
    checks.insert_many([Check(what="Lamp at the gate"), Check(what="Drain of the yard")])
    checks.update(rail.id, state="fault", note="The third post is loose")
    for check in checks.query(select(CHECKS).order_by("what")):
        print(check.state, check.what)
