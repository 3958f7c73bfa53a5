"""`scripts/setup-venv` on machines that lack something: what it says, before it makes or downloads anything."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]
SCRIPT = REPO / "scripts" / "setup-venv"
#: All that the script may call beside an interpreter, apt-get and sudo.
TOOLS = ("mkdir", "ln", "dirname", "id", "uname", "tr", "rm", "basename")
#: An interpreter that answers `-c` as a machine with `{prelude}` would, and only writes down everything else.
PYTHON = """\
#!/bin/sh
if [ "$1" = -c ]; then
    code=$2
    shift 2
    exec {real} -c "{prelude}
$code" "$@"
fi
[ "$1" != --version ] || {{ echo "Python {version}"; exit 0; }}
echo "$0 $*" >>{log}
exit {code}
"""
OLD = "import sys; sys.version_info = (3, 9, 2, 'final', 0)"
NO_VENV = "import sys; sys.modules['ensurepip'] = None"
NO_GLIBC = "import os; del os.confstr"
OLD_GLIBC = "import os; os.confstr = lambda name: 'glibc 2.17'"


@dataclass(frozen=True)
class Machine:
    """A machine with nothing on PATH but what is put there; `calls` keeps what was really done."""

    folder: Path

    def __post_init__(self) -> None:
        (self.folder / "bin").mkdir()
        (self.folder / "scripts").mkdir()
        shutil.copy(SCRIPT, self.folder / "scripts")
        for tool in TOOLS:
            (self.folder / "bin" / tool).symlink_to(str(shutil.which(tool)))

    @property
    def calls(self) -> list[str]:
        log = self.folder / "calls"
        return log.read_text(encoding="utf-8").splitlines() if log.exists() else []

    def add(self, name: str, text: str) -> None:
        file = self.folder / "bin" / name
        file.unlink(missing_ok=True)
        file.write_text(text, encoding="utf-8")
        file.chmod(0o755)

    def add_python(self, name: str, prelude: str = "", *, version: str = "3.13.5", code: int = 1) -> None:
        log = self.folder / "calls"
        self.add(name, PYTHON.format(real=sys.executable, prelude=prelude, version=version, log=log, code=code))

    def add_debian(self) -> None:
        for name in ("apt-get", "sudo"):
            self.add(name, f'#!/bin/sh\necho "{name} $*" >>{self.folder / "calls"}\n')

    def set_up(self, **variables: str) -> subprocess.CompletedProcess[str]:
        env = {"PATH": str(self.folder / "bin"), **variables}
        return subprocess.run(
            ["/bin/sh", "scripts/setup-venv", "."], cwd=self.folder, env=env,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    folder = tmp_path / "machine"
    folder.mkdir()
    return Machine(folder)


def test_no_python_is_said(machine: Machine) -> None:
    done = machine.set_up()
    assert done.returncode == 1
    assert "expected Python 3.11 or newer, found: none" in done.stderr


def test_an_old_python_is_named_with_its_version(machine: Machine) -> None:
    machine.add_python("python3", OLD, version="3.9.2")
    done = machine.set_up()
    assert done.returncode == 1
    assert "expected Python 3.11 or newer, found: Python 3.9.2" in done.stderr
    assert machine.calls == []


@pytest.mark.parametrize(("name", "package"), [("python3", "python3-venv"), ("python3.13", "python3.{}-venv")])
def test_a_debian_python_without_venv_gets_one_command_and_nothing_is_installed(
    machine: Machine, name: str, package: str
) -> None:
    machine.add_debian()
    machine.add_python(name, NO_VENV)
    done = machine.set_up()
    sudo = "" if os.getuid() == 0 else "sudo "
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"setup:     {sudo}apt-get install {package.format(sys.version_info[1])}"
    assert machine.calls == []


def test_a_python_without_venv_elsewhere_is_said(machine: Machine) -> None:
    machine.add_python("python3", NO_VENV)
    done = machine.set_up()
    assert done.returncode == 1
    assert "python3 lacks them" in done.stderr


@pytest.mark.parametrize(("prelude", "found"), [(NO_GLIBC, "another C library"), (OLD_GLIBC, "glibc 2.17")])
def test_a_c_library_that_no_wheel_is_built_for_is_said(machine: Machine, prelude: str, found: str) -> None:
    machine.add_python("python3", prelude)
    machine.add("uname", "#!/bin/sh\necho Linux\n")
    done = machine.set_up()
    assert done.returncode == 1
    assert f"expected glibc 2.28 or newer, found: {found};" in done.stderr
    assert machine.calls == []


def test_the_c_library_of_macos_is_its_own_affair(machine: Machine) -> None:
    machine.add_python("python3", NO_GLIBC)
    machine.add("uname", "#!/bin/sh\necho Darwin\n")
    machine.set_up()
    assert [call.split()[1:] for call in machine.calls] == [["-m", "venv", "--clear", ".venv"]]


def test_a_machine_that_no_server_comes_for_needs_one_on_path(machine: Machine) -> None:
    machine.add_python("python3", "import os; os.confstr = lambda name: 'glibc 2.41'")
    machine.add("uname", '#!/bin/sh\n[ "$1" = -m ] && echo riscv64 || echo Linux\n')
    done = machine.set_up()
    assert done.returncode == 1
    assert "expected redis-server or valkey-server on PATH, for none comes with Fleet on riscv64" in done.stderr
    assert machine.calls == []
    machine.add("valkey-server", "#!/bin/sh\n")
    machine.set_up()
    assert len(machine.calls) == 1


@pytest.mark.parametrize(
    ("present", "taken"),
    [
        ({"python3": "", "python3.14": ""}, "python3"),
        ({"python3": OLD, "python3.12": "", "python3.13": ""}, "python3.13"),
        ({"python3": NO_VENV, "python3.11": ""}, "python3.11"),
    ],
)
def test_the_machines_own_python_comes_first_then_the_newest_that_will_do(
    machine: Machine, present: dict[str, str], taken: str
) -> None:
    for name, prelude in present.items():
        machine.add_python(name, prelude)
    machine.set_up()
    assert [Path(call.split()[0]).name for call in machine.calls] == [taken]


def test_our_old_distribution_goes_before_the_new_one_comes(machine: Machine) -> None:
    (machine.folder / ".venv" / "bin").mkdir(parents=True)
    (machine.folder / "fleet.egg-info").mkdir()
    machine.add_python("../.venv/bin/python", code=0)
    done = machine.set_up(LOCK="")
    assert done.returncode == 0
    assert "removing the distribution fleet" in done.stderr
    assert [call.split()[3] for call in machine.calls if " pip " in call] == [
        "--version",
        "show",
        "uninstall",
        "install",
    ]
    assert not (machine.folder / "fleet.egg-info").exists()


def test_an_environment_whose_making_was_interrupted_is_made_anew(machine: Machine) -> None:
    (machine.folder / ".venv" / "bin").mkdir(parents=True)
    machine.add_python("../.venv/bin/python", code=1)  # no pip yet
    machine.add_python("python3")
    machine.set_up()
    assert "-m venv --clear .venv" in " ".join(machine.calls)
