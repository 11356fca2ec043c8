# SPDX-License-Identifier: Apache-2.0
"""What a build needs of this machine to reach its package index.

A Dockerfile takes two secrets: `pip.conf` and `ca.crt`.  A secret is there while
a step runs and in no layer, since an index's address may hold a password.
"""

from __future__ import annotations

import configparser
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_OPTIONS: Final = (
    "default-timeout",
    "extra-index-url",
    "index-url",
    "proxy",
    "retries",
    "timeout",
    "trusted-host",
)
"""The options of pip that say where packages come from; others name paths."""

_BUNDLES: Final = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE")
_DEBIAN_BUNDLE: Final = "/etc/ssl/certs/ca-certificates.crt"


def _pip_files(home: Path, environment: Mapping[str, str]) -> list[Path]:
    """Return pip's configuration files, those that win last."""
    files = [
        Path("/etc/xdg/pip/pip.conf"),
        Path("/etc/pip.conf"),
        home / ".pip/pip.conf",
        home / ".config/pip/pip.conf",
    ]
    if own := environment.get("PIP_CONFIG_FILE"):
        files.append(Path(own))
    return files


def pip_settings(files: list[Path], environment: Mapping[str, str]) -> str:
    """Return a pip.conf that says what the files and the environment say."""
    found: dict[str, str] = {}
    parser = configparser.RawConfigParser()
    parser.read(files)
    for section in ("global", "install"):
        if parser.has_section(section):
            found.update(parser.items(section))
    for option in _OPTIONS:
        if value := environment.get(f"PIP_{option.upper().replace('-', '_')}"):
            found[option] = value
    result = configparser.RawConfigParser()
    result["global"] = {name: found[name] for name in _OPTIONS if name in found}
    text = io.StringIO()
    result.write(text)
    return text.getvalue()


def _bundle(environment: Mapping[str, str]) -> Path | None:
    """Return the file of certificate authorities that this machine trusts."""
    named = [environment[name] for name in _BUNDLES if environment.get(name)]
    candidates = [Path(name) for name in (*named, _DEBIAN_BUNDLE)]
    return next((path for path in candidates if path.is_file()), None)


def write_secrets(directory: Path) -> dict[str, Path]:
    """Write the secrets below `directory`; return them by their ids."""
    environment = os.environ
    settings = directory / "pip.conf"
    settings.write_text(pip_settings(_pip_files(Path.home(), environment), environment))
    secrets = {"pip.conf": settings}
    if bundle := _bundle(environment):
        copy = directory / "ca.crt"
        copy.write_bytes(bundle.read_bytes())
        secrets["ca.crt"] = copy
    return secrets
