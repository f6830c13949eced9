"""Makes the Python modules of ``atoma_transports/grpc/v1/sync.proto``, or checks that they are what it says.

    python transports/generate_stubs.py            writes them
    python transports/generate_stubs.py --check    compares them with the committed ones; exit code 1 when they differ

The version of grpcio-tools is pinned: generated code refuses a protobuf runtime that is older than its generator.
"""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TOOLS = "1.71.2"  # makes code for protobuf 5.29 and everything after it, on Python 3.9 to 3.13
HERE = Path(__file__).resolve().parent
PACKAGE = Path("atoma_transports/grpc/v1")
PROTO = PACKAGE / "sync.proto"
MADE = ("sync_pb2.py", "sync_pb2.pyi", "sync_grpc.py")


def generate(out: Path) -> None:
    """Generate below ``out``."""
    found = importlib.metadata.version("grpcio-tools")
    if found != TOOLS:
        sys.exit(f"generate_stubs: grpcio-tools {found} is installed; install grpcio-tools=={TOOLS}")
    plugin = shutil.which("protoc-gen-grpclib_python", path=str(Path(sys.executable).parent))
    if plugin is None:
        sys.exit("generate_stubs: protoc-gen-grpclib_python is not installed; install grpclib")
    command = [
        sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={HERE}", f"--python_out={out}", f"--pyi_out={out}",
        f"--plugin=protoc-gen-grpclib_python={plugin}", f"--grpclib_python_out={out}", str(HERE / PROTO),
    ]  # fmt: skip
    subprocess.run(command, check=True)


def differences() -> list[str]:
    """Files whose committed text is not what the generator makes now."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        return [
            name
            for name in MADE
            if not (HERE / PACKAGE / name).is_file()
            or (HERE / PACKAGE / name).read_bytes() != (Path(folder) / PACKAGE / name).read_bytes()
        ]


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit code."""
    if arguments == ["--check"]:
        different = differences()
        for name in different:
            sys.stderr.write(f"{PACKAGE / name} is not what {PROTO.name} says: run transports/generate_stubs.py\n")
        return int(bool(different))
    if arguments:
        sys.stderr.write(__doc__ or "")
        return 2
    generate(HERE)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
