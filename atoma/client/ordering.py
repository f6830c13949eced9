"""Checks plugins and puts them into an order in which everyone finds what it needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from atoma.contracts.checks import is_a
from atoma.errors import PluginError, Problem
from atoma.plugins import Plugin
from atoma.ports import PortKey

RETIRED = ("operations",)
"""Members of plugin interfaces that are no longer a way in; naming the planes instead helps more than silence."""


def check_plugins(plugins: Sequence[object]) -> list[Plugin]:
    """The plugins, each one well-formed and no id twice.

    Raises:
        PluginError: Something else was passed.
    """
    if not is_a(plugins, Iterable) or is_a(plugins, str):
        raise PluginError(f"plugins is a list, plugins=[{type(plugins).__name__}(…)]")
    checked: list[Plugin] = []
    seen: set[str] = set()
    for plugin in plugins:
        if isinstance(plugin, type):
            raise PluginError(f"{plugin.__name__} is a class: pass an object of it, {plugin.__name__}(…)")
        name = type(plugin).__name__
        for member in RETIRED:
            if hasattr(plugin, member):
                raise PluginError(
                    f"{name}.{member} is not a plugin plane; use register_node, register_policy, "
                    "register_transport or register_listener of the context"
                )
        if not isinstance(plugin, Plugin):
            raise PluginError(f"{name} is not a plugin: it needs id, provides, needs and open(context)")
        for key in (*plugin.provides, *plugin.needs):
            if not is_a(key, PortKey):
                raise PluginError(f"plugin {plugin.id!r} names the port {key!r}; ports are named by PortKey values")
        if plugin.id in seen:
            raise PluginError(f"two plugins have the id {plugin.id!r}")
        seen.add(plugin.id)
        checked.append(plugin)
    return checked


def in_order(plugins: Sequence[Plugin], given: Mapping[str, str]) -> tuple[list[Plugin], list[Problem]]:
    """``plugins`` so that each comes after what it needs, and what is missing for the others.

    Args:
        plugins: In the order the application listed them, which is kept where needs allow.
        given: Port that the client itself offers → port it has to have for that.
    """
    provided = {port.name for plugin in plugins for port in plugin.provides}
    offered = provided | {port for port, need in given.items() if need in provided}
    problems: list[Problem] = []
    waiting: list[Plugin] = []
    for plugin in plugins:
        missing = [port.name for port in plugin.needs if port.name not in offered]
        if missing:
            problems.append(_missing(plugin.id, missing))
        else:
            waiting.append(plugin)
    ordered: list[Plugin] = []
    there: set[str] = set()
    while waiting:
        able = [plugin for plugin in waiting if all(port.name in there for port in plugin.needs)]
        if not able:
            names = ", ".join(plugin.id for plugin in waiting)
            problems.append(Problem("PLUGIN_CYCLE", f"plugins {names} wait for one another", "break the cycle"))
            break
        ordered.append(able[0])
        waiting.remove(able[0])
        there.update(port.name for port in able[0].provides)
        there.update(port for port, need in given.items() if need in there)
    return ordered, problems


_REMEDIES = {
    "apply": "add LocalExecution(SQLiteEngine(…)) to plugins",
    "local-database": "add LocalExecution(SQLiteEngine(…)) to plugins",
    "live-queries": "add LocalExecution(SQLiteEngine(…)) to plugins",
    "sync-link": "add Remote(…) with a transport to plugins",
}


def _missing(plugin: str, ports: Sequence[str]) -> Problem:
    remedy = "; ".join(dict.fromkeys(_REMEDIES.get(port, f"add a plugin that offers {port!r}") for port in ports))
    return Problem("PLUGIN_NEEDS", f"plugin {plugin!r} needs {', '.join(ports)}", remedy)
