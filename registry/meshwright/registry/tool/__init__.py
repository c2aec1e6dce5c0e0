"""`@tool`: a typed Python function becomes a tool with a contract."""

import inspect
import typing
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal, overload

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticUserError

from meshwright.core.errors import InvalidRequestError, SetupError
from meshwright.core.mistake import mistakes
from meshwright.gen.registry.v1.tool_registry_service_pb2 import Tool
from meshwright.registry.catalog import UNPLACED, declared_contract
from meshwright.registry.threads import run_in_thread

EffectName = Literal["pure", "idempotent", "non_idempotent"]
ApprovalName = Literal["never", "when_tainted", "always"]


class LocalTool:
    """A tool that runs in this process.

    Args:
        function: Typed, documented; sync functions run in a thread.
        name: Dotted name.
        version: Semantic version of the contract: raise it with every change.
        effect: What a retry may do: `pure` reads only; `idempotent` may be repeated with the same key;
            `non_idempotent` is never run twice.
        timeout_s: Time for one call.
        approval: When a person is asked before a call: `never`; `when_tainted`, after untrusted content has entered
            the context; `always`.
        required_scopes: Scopes that whoever asks must hold.
        redact: JSON Pointers of what is taken out of results; the segment `-` means every item of an array.
        cost_micros: What a call costs, in millionths of a US dollar.

    Raises:
        SetupError: There is no such effect or approval, or a list is a text.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str,
        version: str,
        effect: EffectName,
        timeout_s: float,
        approval: ApprovalName = "never",
        required_scopes: Sequence[str] = (),
        redact: Sequence[str] = (),
        cost_micros: int = 0,
    ) -> None:
        for what, said, names in (("effect", effect, EffectName), ("approval", approval, ApprovalName)):
            if said not in typing.get_args(names):
                raise SetupError(f"tool {name}: {what} {said!r} is none of {', '.join(typing.get_args(names))}")
        for what, texts in (("required_scopes", required_scopes), ("redact", redact)):
            if isinstance(texts, str):
                raise SetupError(f"tool {name}: {what} is a list: write {what}=[{texts!r}]")
        self.function = function
        self.name = name
        self.version = version
        self.effect = effect
        self.timeout_s = timeout_s
        self.approval = approval
        self.required_scopes = tuple(required_scopes)
        self.redact = tuple(redact)
        self.cost_micros = cost_micros
        self.is_threaded = not inspect.iscoroutinefunction(function)
        self.__doc__ = function.__doc__
        self.__name__ = getattr(function, "__name__", name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the function as if it were undecorated."""
        return self.function(*args, **kwargs)

    @cached_property
    def _hints(self) -> dict[str, Any]:
        try:
            return typing.get_type_hints(self.function, include_extras=True)
        except (NameError, AttributeError, TypeError, SyntaxError) as error:
            raise SetupError(f"tool {self.name}: its annotations cannot be read: {error}") from None

    @cached_property
    def _arguments(self) -> type[BaseModel]:
        fields: dict[str, Any] = {}
        for index, parameter in enumerate(inspect.signature(self.function).parameters.values()):
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
                raise SetupError(f"tool {self.name}: parameter {parameter.name} must be a plain named one")
            if parameter.name not in self._hints:
                raise SetupError(f"tool {self.name}: parameter {parameter.name} needs a type annotation")
            default = ... if parameter.default is parameter.empty else parameter.default
            # by alias: a parameter may be called as an attribute of the model is, or begin with an underscore
            named = Field(alias=parameter.name)
            fields[f"p{index}"] = (Annotated[self._hints[parameter.name], named], default)
        return create_model("Arguments", __config__=ConfigDict(extra="forbid"), **fields)

    @cached_property
    def _places(self) -> list[tuple[str, str]]:
        """Parameters, and the model's fields that hold their values."""
        return [(str(field.alias), name) for name, field in self._arguments.model_fields.items()]

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
        try:
            input_schema = self._arguments.model_json_schema()
            output_schema = self._result.json_schema(mode="serialization")
        except PydanticUserError as error:
            what = error.message.partition("\n")[0]
            raise SetupError(f"tool {self.name}: a type has no JSON Schema: {what}") from None
        try:
            return declared_contract(
                self,
                description=inspect.cleandoc(self.__doc__ or ""),
                input_schema=input_schema,
                output_schema=output_schema,
                endpoint=endpoint,
            )
        except InvalidRequestError as error:
            more = [said for said in error.fields.values() if said not in error.message]
            told = f"{error.message} ({'; '.join(more)})" if more else error.message
            raise SetupError(f"tool {self.name}: {told}") from None

    async def run(self, arguments: dict[str, Any]) -> Any:
        """Runs the function and returns its result as JSON data.

        Raises:
            InvalidRequestError: The arguments pass the schema, but not the types.
        """
        try:
            values = self._arguments.model_validate(arguments)
        except ValidationError as error:
            wrong = mistakes(error, self._arguments)
            problems = {"/".join(map(str, ("arguments", *one.location))): one.words for one in wrong}
            raise InvalidRequestError(f"arguments of {self.name} do not fit", fields=problems) from None
        named = {parameter: getattr(values, name) for parameter, name in self._places}
        if self.is_threaded:
            result = await run_in_thread(lambda: self.function(**named))
            if inspect.isawaitable(result):
                result = await result
        else:
            result = await self.function(**named)
        return self._result.dump_python(result, mode="json", by_alias=True, warnings=False)


@overload
def tool(function: Callable[..., Any], /) -> LocalTool: ...
@overload
def tool(
    *,
    name: str = "",
    version: str = "1.0.0",
    effect: EffectName = "non_idempotent",
    timeout_s: float = 30.0,
    approval: ApprovalName = "never",
    required_scopes: Sequence[str] = (),
    redact: Sequence[str] = (),
    cost_micros: int = 0,
) -> Callable[[Callable[..., Any]], LocalTool]: ...
def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str = "",
    version: str = "1.0.0",
    effect: EffectName = "non_idempotent",
    timeout_s: float = 30.0,
    approval: ApprovalName = "never",
    required_scopes: Sequence[str] = (),
    redact: Sequence[str] = (),
    cost_micros: int = 0,
) -> LocalTool | Callable[[Callable[..., Any]], LocalTool]:
    """Turns a typed function into a tool; its docstring is what the model reads.

    Args:
        function: The function, where the decorator stands bare.
        name: Dotted name, `docs.search`; by default the function's.
        version: Semantic version of the contract.
        effect: What a retry may do; undeclared means that the tool is never run twice.
        timeout_s: Seconds for one call.
        approval: When a person is asked before a call: `never`, `when_tainted` (after untrusted content has entered the
            context) or `always`.
        required_scopes: Scopes that whoever asks must hold, `["mail:send"]`.
        redact: JSON Pointers of what is taken out of results, `["/card/number", "/items/-/secret"]`.
        cost_micros: What a call costs, in millionths of a US dollar: budgets of money count it.
    """

    def decorate(decorated: Callable[..., Any]) -> LocalTool:
        own_name = name or decorated.__name__
        return LocalTool(
            decorated,
            name=own_name,
            version=version,
            effect=effect,
            timeout_s=timeout_s,
            approval=approval,
            required_scopes=required_scopes,
            redact=redact,
            cost_micros=cost_micros,
        )

    return decorate if function is None else decorate(function)
