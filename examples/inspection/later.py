from model import CHECKS, SCHEMA, plugins, state

from atoma import select
from atoma.bindings.blocking import open_client

with open_client(SCHEMA, plugins=plugins("round.db")) as client:
    for check in client.query(select(CHECKS).where(state == "fault")):
        print(check.remark)
