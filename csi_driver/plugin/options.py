# SPDX-License-Identifier: Apache-2.0
"""The flags that every command of the plugin has, written down once."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Annotated
from typing import Any
from typing import Concatenate

import typer

from csi_driver.domain.errors import InvalidRequestError
from csi_driver.kube.objects import require_name
from csi_driver.kube.objects import require_namespace
from csi_driver.plugin import driver
from csi_driver.plugin.driver import Driver
from csi_driver.plugin.kubectl import Kubectl
from csi_driver.plugin.printing import Form


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """Where to ask, and how to write what comes of it."""

    namespace: Annotated[
        str,
        typer.Option(
            "--namespace",
            "-n",
            metavar="NAMESPACE",
            help="namespace of the claims; the context's own without it",
            show_default=False,
        ),
    ] = ""
    context: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="context of the kubeconfig", show_default=False
        ),
    ] = ""
    kubeconfig: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="kubeconfig for kubectl; $KUBECONFIG or ~/.kube/config without it",
            show_default=False,
        ),
    ] = ""
    driver_namespace: Annotated[
        str,
        typer.Option(
            metavar="NAMESPACE",
            help="the driver's own namespace; the one its CSIDriver names without it",
            show_default=False,
        ),
    ] = ""
    release: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="the driver's Helm release, where there are several",
            show_default=False,
        ),
    ] = ""
    output: Annotated[
        Form, typer.Option("--output", "-o", metavar="FORMAT", help="how to write it")
    ] = Form.TABLE

    def __post_init__(self) -> None:
        """Refuse names that Kubernetes does not allow (InvalidRequestError)."""
        for each in (self.namespace, self.driver_namespace):
            if each:
                require_namespace(each)
        if self.release:
            require_name(self.release)

    @property
    def chosen_namespace(self) -> str | None:
        """The namespace, None for the context's own."""
        return self.namespace or None

    @property
    def kubectl(self) -> Kubectl:
        """The tool with what the user chose."""
        return Kubectl(self.context, self.kubeconfig)

    def driver(self) -> Driver:
        """Find the driver; see `driver.find` for what may fail."""
        return driver.find(self.kubectl, self.driver_namespace, self.release)


def claim_name(text: str) -> str:
    """Return a claim's name; a usage error if Kubernetes does not allow it."""
    try:
        require_name(text)
    except InvalidRequestError as error:
        raise typer.BadParameter(str(error)) from None
    return text


def with_options[**P](
    command: Callable[Concatenate[Options, P], None],
) -> Callable[..., None]:
    """Give a command the common flags; it gets them as its first argument."""
    names = [field.name for field in dataclasses.fields(Options)]

    @functools.wraps(command)
    def wrapper(**given: Any) -> None:
        common = {name: given.pop(name) for name in names}
        try:
            options = Options(**common)
        except InvalidRequestError as error:
            raise typer.BadParameter(str(error)) from None
        command(options, **given)  # type: ignore[call-arg]  # own parameters

    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    parameters = [*own, *_flags()]
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # read by typer
    wrapper.__annotations__ = {each.name: each.annotation for each in parameters}
    return wrapper


def _flags() -> list[inspect.Parameter]:
    made = inspect.signature(Options, eval_str=True).parameters.values()
    return [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in made]
