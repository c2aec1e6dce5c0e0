"""`meshwright key`: API keys of a mesh, at its store: whoever reaches the store is its operator."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from meshwright.cli.output import Format, show, show_table
from meshwright.cli.tool_serve import local_mesh
from meshwright.core.api_key import KEY, LIBRARY, LONGEST_S, ApiKey, ApiKeys
from meshwright.core.errors import InvalidRequestError, SetupError, StoreDeniedError
from meshwright.core.identity import checked_name
from meshwright.core.known_scope import opens_methods
from meshwright.core.role import Role
from meshwright.core.settings import Settings, data_home
from meshwright.core.store import Store
from meshwright.core.store_user import user_of

app = typer.Typer(no_args_is_help=True, help="API keys: make one, see which there are, revoke one.")
T = TypeVar("T")
ADVICE = "name the folder of a `meshwright dev` with --data, or a store with --store"
SECONDS = {"m": 60, "h": 3_600, "d": 86_400}
StoreUrl = Annotated[
    str | None,
    typer.Option("--store", help="URL of the store  [default: MESHWRIGHT_STORE_URL, else that of the dev mesh]"),
]
DevData = Annotated[Path | None, typer.Option("--data", help="Data folder of a `meshwright dev`, whose store it is")]
Output = Annotated[Format, typer.Option("--output", "-o", help="How data is printed")]


@app.command()
def create(
    name: Annotated[str, typer.Option(help="What the key is for, for people")],
    scopes: Annotated[str, typer.Option(help="What it opens, by commas: tasks:read,tasks:write; '*' is everything")],
    tenant: Annotated[str, typer.Option(help="Tenant in whose name its holder acts")] = "default",
    principal: Annotated[str | None, typer.Option(help="As whom its holder acts  [default: the name]")] = None,
    expires: Annotated[str, typer.Option(help="When it ends: 30d, 12h, 90m; by default never")] = "",
    output: Output = Format.TABLE,
    store: StoreUrl = None,
    data: DevData = None,
) -> None:
    """Makes a key and prints it: it is shown this once, and kept as a hash."""
    asked = [scope.strip() for scope in scopes.split(",") if scope.strip()]
    of_tools = [scope for scope in asked if not opens_methods(scope)]
    acts_as = checked_name("principal", name if principal is None else principal)
    life_s = seconds(expires) if expires else 0
    key, made = with_keys(
        store, data, lambda keys: keys.create(name, asked, tenant=tenant, principal=acts_as, life_s=life_s)
    )
    if of_tools:
        typer.echo(f"{' '.join(of_tools)}: no scope of the mesh, good for tools that require it", err=True)
    if output is not Format.TABLE:
        show(json.dumps({"key": key} | facts(made), indent=2 if output is Format.JSON else None))
        return
    show(key)
    typer.echo(
        f"acts as {made.principal} of {made.tenant}, scopes {' '.join(sorted(made.scopes))}, ends {day(made.expires)}\n"
        "it is not shown again: send it as the header x-api-key, or set MESHWRIGHT_API_KEY",
        err=True,
    )


@app.command("list")
def list_keys(output: Output = Format.TABLE, store: StoreUrl = None, data: DevData = None) -> None:
    """Lists keys, the newest first; a key that has ended stands here for 30 days more."""
    found = with_keys(store, data, lambda keys: keys.all())
    if output is Format.TABLE:
        show_table(
            ("KEY", "NAME", "TENANT", "PRINCIPAL", "SCOPES", "MADE", "ENDS", "LAST USED"),
            (
                (
                    one.key_id,
                    one.name,
                    one.tenant,
                    one.principal,
                    " ".join(sorted(one.scopes)),
                    day(one.created),
                    f"revoked {day(one.revoked)}" if one.revoked else day(one.expires),
                    day(one.used),
                )
                for one in found
            ),
        )
    elif output is Format.JSON:
        show(json.dumps([facts(one) for one in found], indent=2))
    else:
        for one in found:
            show(json.dumps(facts(one)))


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="As `key list` prints it, or the key itself")],
    store: StoreUrl = None,
    data: DevData = None,
) -> None:
    """Revokes a key: the next call with it is refused."""
    whole = KEY.fullmatch(key_id)
    named = whole["key_id"] if whole else key_id
    gone = with_keys(store, data, lambda keys: keys.revoke(named))
    show(f"{gone.key_id}  revoked: {gone.name} of {gone.tenant}")


def with_keys(store: str | None, data: Path | None, work: Callable[[ApiKeys], Awaitable[T]]) -> T:
    """Runs a command's work on the keys of the mesh that it names.

    Raises:
        SetupError: The store cannot be used; says how another one is named.
        StoreDeniedError: The store's user may not do it; says whose address is needed.
    """

    async def run() -> T:
        opened = Store(store_url(store, data), LIBRARY)
        try:
            with advised(ADVICE):
                await opened.open()
                return await work(ApiKeys(opened))
        except StoreDeniedError:
            raise StoreDeniedError(
                f"this user of the store may not see API keys: take the address of {user_of(Role.GATEWAY)}, "
                "by --store or MESHWRIGHT_STORE_URL"
            ) from None
        finally:
            await opened.close()

    return asyncio.run(run())


@contextmanager
def advised(advice: str) -> Iterator[None]:
    """Adds to an error of setup how another store is named."""
    try:
        yield
    except SetupError as error:
        raise SetupError(f"{error.message.rstrip('.')}; {advice}") from None


def store_url(named: str | None, data: Path | None) -> str:
    """Returns the URL of the store: the one that is named, that of a mesh's data folder, or the setting's.

    Raises:
        SetupError: No mesh runs on the folder that is named.
    """
    if named:
        return named
    settings = Settings.load()
    if data is None and "store_url" in settings.model_fields_set:
        return settings.store_url
    local = local_mesh(data or data_home() / "dev")
    if data is not None and not local:
        raise SetupError(f"no mesh runs on {data}: start it, or name its store by MESHWRIGHT_STORE_URL")
    return local.get("store", settings.store_url)


def seconds(text: str) -> int:
    """Reads a span of time.

    Raises:
        InvalidRequestError: It is none, or longer than ten years.
    """
    parts = re.fullmatch(r"([1-9][0-9]{0,6})([mhd])", text)
    span = int(parts[1]) * SECONDS[parts[2]] if parts else 0
    if not 0 < span <= LONGEST_S:
        raise InvalidRequestError(
            f"{text!r} is no span of time: write 90m, 12h or 30d, at most 3650d", fields={"expires": "90m, 12h or 30d"}
        )
    return span


def facts(key: ApiKey) -> dict[str, object]:
    """Returns what is told of a key to a program; times as `day` writes them, null where there is none."""
    times = {name: getattr(key, name) for name in ("created", "expires", "revoked", "used")}
    return {
        "key_id": key.key_id,
        "name": key.name,
        "tenant": key.tenant,
        "principal": key.principal,
        "scopes": sorted(key.scopes),
        **{name: day(moment) if moment else None for name, moment in times.items()},
    }


def day(moment: int) -> str:
    """Writes a time, in milliseconds, as UTC; 0: never."""
    return datetime.fromtimestamp(moment // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if moment else "never"
