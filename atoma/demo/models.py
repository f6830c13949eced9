"""What the demo stores: real airports, and inspections that two people may not silently overwrite."""

from __future__ import annotations

from dataclasses import dataclass, field

from atoma.schema import Index, Schema, StoreSpec, new_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Airport:
    """One airport of the PyPI package ``airportsdata``; the id is its ICAO code."""

    id: str
    iata: str
    name: str
    city: str
    region: str
    country: str
    elevation_ft: float
    latitude: float
    longitude: float
    time_zone: str
    remark: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """A finding at an airport."""

    id: str = field(default_factory=new_id)
    airport: str
    verdict: str
    inspector: str


AIRPORTS = StoreSpec("airports", Airport, indexes=[Index("country")], conflict="lww")
INSPECTIONS = StoreSpec("inspections", Inspection, conflict="manual")
AIRPORT_SCHEMA = Schema(AIRPORTS, INSPECTIONS, version=1)
