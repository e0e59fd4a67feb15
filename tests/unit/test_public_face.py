"""The public names, and what importing them costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import edge_day2
import edge_day2.adapters.grpc
import edge_day2.adapters.release_service
import edge_day2.testing

PACKAGE = Path(edge_day2.__file__).parent
HEAVY = {
    "alembic",
    "attr",
    "cattrs",
    "grpc",
    "google",
    "hypothesis",
    "jwt",
    "psycopg",
    "pytest",
    "requests",
    "rich",
    "sqlalchemy",
    "statemachine",
    "tenacity",
    "yaml",
}


def modules_after(code: str) -> set[str]:
    script = f"{code}\nimport sys\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_every_public_name_can_be_loaded() -> None:
    for name in edge_day2.__all__:
        assert getattr(edge_day2, name) is not None


def test_every_public_name_of_testing_can_be_loaded() -> None:
    for name in edge_day2.testing.__all__:
        assert getattr(edge_day2.testing, name) is not None


@pytest.mark.parametrize(
    "module", [edge_day2, edge_day2.adapters.grpc, edge_day2.adapters.release_service, edge_day2.testing]
)
def test_an_unknown_name_is_an_attribute_error(module: object) -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        getattr(module, "Nonsense")  # noqa: B009  # the type checker knows that it isn't there


def test_public_names_are_listed_by_dir() -> None:
    assert set(edge_day2.__all__) <= set(dir(edge_day2))


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert modules_after("import edge_day2") & HEAVY == set()


def test_schedules_and_resources_load_no_state_machine() -> None:
    loaded = modules_after("from edge_day2 import OSResource, RepeatedSchedule, LinkingMode, OSProfile")
    assert loaded & HEAVY == {"attr"}


def test_flows_load_no_storage_and_no_yaml() -> None:
    assert modules_after("from edge_day2 import IMMUTABLE_FLOW, MUTABLE_FLOW") & HEAVY == {"attr", "statemachine"}


def test_a_directory_of_profiles_needs_no_http() -> None:
    loaded = modules_after("from edge_day2.adapters.release_service import DirectoryReleaseService")
    assert loaded & HEAVY == {"attr"}


def test_naming_the_wire_loads_no_grpc_and_a_link_no_server() -> None:
    assert modules_after("import edge_day2.adapters.grpc") & HEAVY == set()
    link = modules_after("from edge_day2.adapters.grpc import GrpcLink, ClientTls")
    assert link & HEAVY == {"attr", "google", "grpc", "tenacity"}


@pytest.mark.parametrize(
    ("package", "name"),
    [("grpc", "GrpcLink"), ("tenacity", "GrpcLink"), ("jwt", "JwtAuthenticator"), ("grpc_health", "serve")],
)
def test_a_missing_package_of_the_wire_is_said_with_the_extra_to_install(package: str, name: str) -> None:
    code = f"import sys; sys.modules[{package!r}] = None; from edge_day2.adapters.grpc import {name}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert "MissingExtra" in done.stderr
    assert "install edge_day2[grpc]" in done.stderr


@pytest.mark.parametrize("package", ["requests", "tenacity"])
def test_a_missing_package_of_the_registry_is_said_with_the_extra_to_install(package: str) -> None:
    names = "edge_day2.adapters.release_service import OciReleaseService"
    code = f"import sys; sys.modules[{package!r}] = None; from {names}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert "install edge_day2[oci]" in done.stderr


@pytest.mark.parametrize(("package", "name"), [("pytest", "contracts"), ("hypothesis", "strategies")])
def test_a_missing_package_of_testing_is_said_with_the_extra_to_install(package: str, name: str) -> None:
    code = f"import sys; sys.modules[{package!r}] = None; from edge_day2.testing import {name}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert f"{package} isn't installed; install edge_day2[testing]" in done.stderr


def test_every_name_of_the_wire_can_be_loaded() -> None:
    for name in edge_day2.adapters.grpc.__all__:
        assert getattr(edge_day2.adapters.grpc, name) is not None


def test_the_domain_never_asks_for_the_time() -> None:
    for path in (PACKAGE / "domain").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                assert node.func.attr not in {"now", "utcnow", "today"}, f"{path.name}:{node.lineno}"
