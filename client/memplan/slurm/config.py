"""The file of the Slurm helper.

server = "planner:50051"

[gpus]                          # GRES type: GPU type of the catalog
a100 = "nvidia-a100-40gb"

[features]                      # the same by node feature, where GRES have no types
gpu_mem_16g = "nvidia-t4"
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

__all__ = ["Config", "ConfigError", "load"]


class ConfigError(ValueError):
    """The file is wrong, named with what is wrong in it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """What the helper is told."""

    server: str = ""
    """host:port of the service, or several with commas. Default: $MEMPLAN_SERVER, else
    localhost:50051; then what is not said below comes from the environment too."""
    tls: bool = False
    """Encrypt the connection to it; implied by the files."""
    tls_ca: str = ""
    """Authorities to trust, PEM."""
    tls_cert: str = ""
    """Client certificate, PEM."""
    tls_key: str = ""
    """Key of it, PEM."""
    tls_server_name: str = ""
    """Name that the server's certificate must have. Default: that of `server`."""
    token_file: str = ""
    """File with a token that says who asks."""
    plaintext_token: bool = False
    """Send the token without TLS, because something else encrypts."""
    keepalive: float = 0.0
    """Seconds of silence after which to ask whether the service is there; 0: never."""
    retries: int = 0
    """How often to try again while the service cannot be reached, 0 to 4."""
    socket: str = "/run/memplan/slurm.sock"
    """Where the plugins find the helper."""
    patience: float = 20.0
    """Seconds that `sbatch` waits for a plan that the service is working on."""
    inventory_interval: float = 60.0
    """Seconds between two looks at the nodes of the cluster."""
    gpus: Mapping[str, str] = field(default_factory=dict)
    """GPU type of the catalog by GRES type."""
    features: Mapping[str, str] = field(default_factory=dict)
    """GPU type of the catalog by node feature."""


def load(path: str | Path) -> Config:
    """Read a file. Raises ConfigError."""
    try:
        data = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no TOML: {error}") from error
    known = {f.name: f for f in fields(Config)}
    for name, value in data.items():
        if name not in known:
            raise ConfigError(f"{path}: unknown {name!r}; one of {', '.join(known)}")
        _check(path, name, value, getattr(Config(), name))
    return Config(**data)


def _check(path: str | Path, name: str, value: Any, default: Any) -> None:
    """Raise ConfigError for a value of another kind than the default."""
    if isinstance(default, Mapping):
        right = isinstance(value, dict) and all(isinstance(v, str) for v in value.values())
    elif isinstance(default, float):
        right = type(value) in (int, float) and (value > 0 or value == default)
    else:
        right = type(value) is type(default)
    if not right:
        kind = "a table of texts" if isinstance(default, Mapping) else type(default).__name__
        raise ConfigError(f"{path}: {name} is {value!r}, not {kind}")
