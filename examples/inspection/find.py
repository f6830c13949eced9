from model import CHECKS, SCHEMA, plugins

from atoma import select
from atoma.bindings.blocking import open_client

with open_client(SCHEMA, plugins=plugins("round.db")) as client:
    words = "post* OR lamp"
    for check in client.query(select(CHECKS).where(CHECKS.matches(words)).order_by(CHECKS.rank(words).desc(), "what")):
        print(check.what, "·", check.note or "nothing noted")
