from model import CHECKS, SCHEMA, SITE, SITES, Site, plugins, state

from atoma import count, select
from atoma.bindings.blocking import open_client

with open_client(SCHEMA, plugins=plugins("round.db")) as client:
    client.store(SITES).insert(Site(id="river", name="By the river"))
    for check in client.store(CHECKS).query():
        client.store(CHECKS).update(check.id, site="river")
    for check, place in client.query(select(CHECKS).order_by("what").include(SITE)):
        print(check.what, "·", place.name if place else "nowhere")
    print(list(client.query(select(CHECKS).columns(state, count()).group_by(state).order_by(state))))
