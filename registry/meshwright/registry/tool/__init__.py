"""`@tool`: a typed Python function becomes a tool with a contract."""

import asyncio
import inspect
import typing
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, overload

from google.protobuf.duration_pb2 import Duration
from pydantic import BaseModel, ConfigDict, TypeAdapter, create_model
from pydantic import ValidationError as PydanticValidationError

from meshwright.core.canonical import to_struct
from meshwright.core.errors import InvalidRequestError, SetupError
from meshwright.gen.registry.v1.tool_registry_service_pb2 import Effect, Tool
from meshwright.registry.catalog import checked_contract

EffectName = Literal["pure", "idempotent", "non_idempotent"]
UNPLACED = "unplaced:0"
"""Endpoint of a tool that no host serves yet."""


@dataclass(frozen=True, slots=True)
class Invocation:
    """What a running tool may know of its call.

    Attributes:
        tenant: Whose call it is.
        principal: Who asked for the task.
        task_id: The task that calls.
        key: The same for every repetition of the same call: hand it to a backend that can deduplicate.
    """

    tenant: str
    principal: str
    task_id: str
    key: str


INVOCATION: ContextVar[Invocation] = ContextVar("invocation")


def current_invocation() -> Invocation:
    """Returns the call that the running tool serves."""
    return INVOCATION.get()


class LocalTool:
    """A tool that runs in this process.

    Args:
        function: Typed, documented; sync functions run in a thread.
        name: Dotted name.
        version: Semantic version of the contract: raise it with every change.
        effect: What a retry may do: `pure` reads only; `idempotent` may be repeated with the same key;
            `non_idempotent` is never run twice.
        timeout_s: Time for one call.
    """

    def __init__(
        self, function: Callable[..., Any], *, name: str, version: str, effect: EffectName, timeout_s: float
    ) -> None:
        self.function = function
        self.name = name
        self.version = version
        self.effect = effect
        self.timeout_s = timeout_s
        self.__doc__ = function.__doc__
        self.__name__ = getattr(function, "__name__", name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the function as if it were undecorated."""
        return self.function(*args, **kwargs)

    @cached_property
    def _hints(self) -> dict[str, Any]:
        try:
            return typing.get_type_hints(self.function, include_extras=True)
        except NameError as error:
            raise SetupError(f"tool {self.name}: its annotations cannot be read: {error}") from None

    @cached_property
    def _arguments(self) -> type[BaseModel]:
        fields: dict[str, Any] = {}
        for parameter in inspect.signature(self.function).parameters.values():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
                raise SetupError(f"tool {self.name}: parameter {parameter.name} must be a plain named one")
            if parameter.name not in self._hints:
                raise SetupError(f"tool {self.name}: parameter {parameter.name} needs a type annotation")
            default = ... if parameter.default is parameter.empty else parameter.default
            fields[parameter.name] = (self._hints[parameter.name], default)
        return create_model("Arguments", __config__=ConfigDict(extra="forbid"), **fields)

    @cached_property
    def _result(self) -> TypeAdapter[Any]:
        if "return" not in self._hints:
            raise SetupError(f"tool {self.name}: its return type needs an annotation")
        return TypeAdapter(self._hints["return"])

    def contract(self, endpoint: str = UNPLACED) -> Tool:
        """Builds the contract from signature, docstring and declaration.

        Raises:
            SetupError: The function cannot be a tool; says why.
        """
        timeout = Duration()
        timeout.FromMilliseconds(int(self.timeout_s * 1000))
        tool = Tool(
            name=self.name,
            version=self.version,
            description=inspect.cleandoc(self.__doc__ or ""),
            input_schema=to_struct(self._arguments.model_json_schema()),
            output_schema=to_struct(self._result.json_schema(mode="serialization")),
            effect=Effect.Value(f"EFFECT_{self.effect.upper()}"),
            endpoint=endpoint,
            timeout=timeout,
        )
        try:
            return checked_contract(tool)
        except InvalidRequestError as error:
            raise SetupError(f"tool {self.name}: {error.message} ({'; '.join(error.fields.values())})") from None

    async def run(self, arguments: dict[str, Any]) -> Any:
        """Runs the function and returns its result as JSON data.

        Raises:
            InvalidRequestError: The arguments pass the schema, but not the types.
        """
        try:
            values = self._arguments.model_validate(arguments)
        except PydanticValidationError as error:
            problems = {".".join(map(str, e["loc"])): e["msg"] for e in error.errors()}
            raise InvalidRequestError(f"arguments of {self.name} do not fit", fields=problems) from None
        named = {name: getattr(values, name) for name in type(values).model_fields}
        if inspect.iscoroutinefunction(self.function):
            result = await self.function(**named)
        else:
            result = await asyncio.to_thread(self.function, **named)
        return self._result.dump_python(result, mode="json")


@overload
def tool(function: Callable[..., Any], /) -> LocalTool: ...
@overload
def tool(
    *, name: str = "", version: str = "1.0.0", effect: EffectName = "non_idempotent", timeout_s: float = 30.0
) -> Callable[[Callable[..., Any]], LocalTool]: ...
def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str = "",
    version: str = "1.0.0",
    effect: EffectName = "non_idempotent",
    timeout_s: float = 30.0,
) -> LocalTool | Callable[[Callable[..., Any]], LocalTool]:
    """Turns a typed function into a tool; its docstring is what the model reads.

    Args:
        function: The function, where the decorator stands bare.
        name: Dotted name, `docs.search`; by default the function's.
        version: Semantic version of the contract.
        effect: What a retry may do; undeclared means that the tool is never run twice.
        timeout_s: Seconds for one call.
    """

    def decorate(decorated: Callable[..., Any]) -> LocalTool:
        own_name = name or decorated.__name__
        return LocalTool(decorated, name=own_name, version=version, effect=effect, timeout_s=timeout_s)

    return decorate if function is None else decorate(function)
