"""Where fleet.toml and the state folder lie: named by a variable, else found from the working directory upwards."""

from __future__ import annotations

import os
from pathlib import Path

from fleet.config.trust import check_found
from fleet.errors import ConfigurationError
from fleet.quoting import quote

#: Name of the configuration file, looked for in the working directory and its parents.
CONFIG_NAME = "fleet.toml"
#: Name of the state folder (embedded Redis, generated passwords) beside the configuration file.
HOME_NAME = ".fleet"
#: FLEET_* variables that are not settings: where things lie.
PLACE_VARIABLES = ("FLEET_CONFIG", "FLEET_HOME", "FLEET_DATA_DIR", "FLEET_DELEGATION")


def home_path() -> Path:
    """Return the state folder: FLEET_HOME, else `.fleet` beside fleet.toml or beside an existing `.fleet`."""
    home = os.environ.get("FLEET_HOME")
    return Path(home).absolute() if home else nearest_home()


def nearest_home() -> Path:
    """Return the state folder of the working directory when no FLEET_HOME says otherwise.

    Raises:
        ConfigurationError: When somebody else may have put it there.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / HOME_NAME).is_dir():
            check_found(folder / HOME_NAME, variable="FLEET_HOME", with_code=False)
            return folder / HOME_NAME
        if (folder / CONFIG_NAME).is_file():
            return folder / HOME_NAME
    return here / HOME_NAME


def config_path() -> Path | None:
    """Return the fleet.toml in force: FLEET_CONFIG, else the nearest one upwards, else None.

    Raises:
        ConfigurationError: When FLEET_CONFIG names none, or somebody else may have put there what was found.
    """
    if os.environ.get("FLEET_CONFIG"):
        path = Path(os.environ["FLEET_CONFIG"])
        if not path.is_file():
            raise ConfigurationError(f"FLEET_CONFIG: expected the path of a fleet.toml, got {quote(str(path))}")
        return path
    here = Path.cwd()
    found = next((f / CONFIG_NAME for f in (here, *here.parents) if (f / CONFIG_NAME).is_file()), None)
    if found is not None:
        check_found(found, variable="FLEET_CONFIG", with_code=True)
    return found
