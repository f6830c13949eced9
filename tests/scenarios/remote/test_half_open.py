"""A connection whose other end is gone, on a link that really goes down: two network namespaces and a link between."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager

import pytest
import trio

from tests.scenarios.remote import half_open

pytestmark = pytest.mark.xdist_group("machine")

HUB, DEVICE = "10.99.71.1", "10.99.71.2"
PATIENCE_S = 30  # a few seconds are what it takes


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def namespaces() -> Generator[tuple[str, str]]:
    """Those of the hub and of the device, with a link between."""
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs Linux, root and the ip program to make network namespaces")
    hub, device = names = f"atoma-hub-{os.getpid()}", f"atoma-device-{os.getpid()}"
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", "link0", "netns", hub, "type", "veth", "peer", "name", "link0", "netns", device)
        for name, address in ((hub, HUB), (device, DEVICE)):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "link0")
            ip("-n", name, "link", "set", "link0", "up")
        yield names
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this system makes no network namespaces: {error.stderr.decode().strip()}")
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


class Program:
    """One of the programs, in a namespace."""

    def __init__(self, process: trio.Process) -> None:
        assert process.stdout is not None
        self._output = process.stdout
        self._rest = b""

    async def line(self) -> str:
        while b"\n" not in self._rest:
            data = await self._output.receive_some()
            assert data, "the program ended"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()


@asynccontextmanager
async def running(namespace: str, *arguments: str) -> AsyncGenerator[Program]:
    command = ["ip", "netns", "exec", namespace, sys.executable, "-m", half_open.__name__, *arguments]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    try:
        yield Program(process)
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()
            if process.stdout is not None:
                await process.stdout.aclose()


@pytest.mark.parametrize("kind", half_open.KINDS)
async def test_both_ends_notice_that_the_other_is_gone(kind: str, namespaces: tuple[str, str]) -> None:
    hub_space, device_space = namespaces
    address = f"{HUB}:9911"
    with trio.fail_after(PATIENCE_S):
        async with running(hub_space, "hub", address) as hub:
            assert await hub.line() == "listening"
            async with running(device_space, kind, address) as device:
                assert await hub.line() == "asked"
                ip("-n", device_space, "link", "set", "link0", "down")
                assert await device.line() == "broken unknown"
                assert await hub.line() == "stopped"
