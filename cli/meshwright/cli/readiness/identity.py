"""Whether the edge asks who is calling, believes nothing else, and keeps to itself what is inside."""

import base64
import secrets

from meshwright.cli.readiness.contract import GRPC, NO_MESSAGE, OK, is_closed
from meshwright.cli.readiness.outcome import Outcome, counted, few, good, missing, unseen
from meshwright.cli.readiness.peer import AWAY
from meshwright.cli.readiness.survey import Survey
from meshwright.core.api_key import ApiKeys
from meshwright.gen.agents.v1.identity_pb2 import Identity, SignedIdentity

WHO = "/v1/agents"
"""A call that reads, and that needs a key."""
UNAUTHENTICATED, FORBIDDEN, ERRORS = 401, 403, 400
"""Of HTTP; errors begin at the last."""
SET_AUTH = "set MESHWRIGHT_AUTH to keys or jwt for every process"
EVERYTHING = "*"
"""The scope that covers all others."""
STRANGE = "doctor.invalid"
"""A name that no host has."""
OWN_ORIGINS = "list the origins of your own pages in MESHWRIGHT_CORS_ORIGINS, and no others"
INSIDE = (
    "/metrics",
    "/stats",
    "/stats/prometheus",
    "/config_dump",
    "/clusters",
    "/server_info",
    "/listeners",
    "/debug",
)
"""Paths of Envoy's admin interface and of metrics: reading them changes nothing."""
INTERNAL = (
    "registry.v1.AgentDirectoryService/GetKey",
    "registry.v1.AgentDirectoryService/WatchAgents",
    "registry.v1.AgentDirectoryService/WithdrawAgent",
    "envoy.service.auth.v3.Authorization/Check",
    "tools.v1.ToolService/GetOutcome",
)
"""Calls between processes; with an empty request none of them does anything."""


async def no_key(survey: Survey) -> Outcome:
    """Whether a call without a key is refused."""
    answer = await survey.edge.ask("GET", WHO, is_keyed=False)
    if answer.status != UNAUTHENTICATED:
        return missing(f"GET {WHO} without a key answers {answer.status}", answer.advice(SET_AUTH))
    return good(f"GET {WHO} without a key answers {answer.shown}")


async def wrong_key(survey: Survey) -> Outcome:
    """Whether a key that nobody made is refused."""
    made_up = f"Bearer mwk_{secrets.token_hex(8)}_{secrets.token_urlsafe(32)}"
    answer = await survey.edge.ask("GET", WHO, headers={"authorization": made_up}, is_keyed=False)
    if answer.status != UNAUTHENTICATED:
        return missing(f"a key that nobody made is answered {answer.status}", answer.advice(SET_AUTH))
    return good(f"a key that nobody made is answered {answer.shown}")


async def own_key(survey: Survey) -> Outcome:
    """Whether the key that was given is taken."""
    if not survey.edge.has_key:
        why = "no key was given" if not survey.target.api_key else "a key is not sent in plain text"
        return unseen(why, "set MESHWRIGHT_API_KEY, and write https://")
    answer = await survey.edge.ask("GET", WHO)
    if answer.status == UNAUTHENTICATED:
        return missing(f"it is answered 401: {answer.error.message}", "set MESHWRIGHT_API_KEY to a key of this mesh")
    if answer.status not in (OK, FORBIDDEN):
        raise answer.error
    return good(f"GET {WHO} with it answers {answer.status}")


async def api_keys(survey: Survey) -> Outcome:
    """Whether keys end, and open no more than they have to; only the store knows all of them."""
    if not survey.target.store_url:
        return unseen("only the store has the keys", "set MESHWRIGHT_STORE_ADMIN_URL for this command")
    async with survey.stores.opened(survey.target.store_url) as store:
        keys = await ApiKeys(store).valid()
    endless = [f"{one.name} ({one.key_id}) never ends" for one in keys if not one.expires]
    wide = [f"{one.name} ({one.key_id}) opens everything" for one in keys if EVERYTHING in one.scopes]
    if endless or wide:
        return missing(
            few(wide + endless), "make others with --expires and few --scopes; `meshwright key revoke` these"
        )
    return good(f"{counted(len(keys), 'key')}: each ends, none opens everything")


async def spoofed(survey: Survey) -> Outcome:
    """Whether a caller that only says who it is gets anything."""
    identity = Identity(tenant="doctor", principal="doctor", scopes=["*"])
    signed = SignedIdentity(identity=identity.SerializeToString(), signature=secrets.token_bytes(64), key_id="edge-0")
    worn = {
        "x-mesh-identity-bin": base64.b64encode(signed.SerializeToString()).decode(),
        "x-mesh-tenant": "doctor",
        "x-mesh-principal": "doctor",
        "x-mesh-scopes": "*",
        "x-forwarded-client-cert": "URI=spiffe://meshwright/edge",
    }
    answer = await survey.edge.ask("GET", WHO, headers=worn, is_keyed=False)
    if answer.status != UNAUTHENTICATED:
        return missing(f"x-mesh-* headers of a caller are answered {answer.status}", answer.advice(SET_AUTH))
    return good("x-mesh-* headers of a caller change nothing: 401")


async def inside(survey: Survey) -> Outcome:
    """Whether pages of Envoy's admin interface, or metrics, are served to callers."""
    told = [(path, (await survey.edge.ask("GET", path)).status) for path in INSIDE]
    if found := [f"{path}: {status}" for path, status in told if status < ERRORS]:
        return missing(f"served at the edge: {few(found)}", "close these paths at what stands before the edge")
    return good(f"{counted(len(INSIDE), 'path')} of Envoy and of metrics: not served")


async def internal(survey: Survey) -> Outcome:
    """Whether calls between processes pass the edge."""
    paths = [f"/{name}" for name in INTERNAL]
    passed = [path for path in paths if not is_closed(await survey.edge.ask("POST", path, NO_MESSAGE, GRPC))]
    if passed:
        return missing(f"served at the edge: {few(passed)}", "let only the edge's own listener be reached")
    return good(f"{counted(len(paths), 'call')} between processes: refused")


async def hosts(survey: Survey) -> Outcome:
    """Whether the edge answers to a name that is not its own."""
    answer = await survey.edge.ask("GET", "/ready", headers={"host": STRANGE}, is_keyed=False)
    if answer.status < ERRORS or answer.status in AWAY:
        todo = answer.advice("name its hosts by MESHWRIGHT_ALLOWED_HOSTS")
        return missing(f"host {STRANGE} is answered {answer.status}", todo)
    return good(f"host {STRANGE} is answered {answer.shown}")


async def origins(survey: Survey) -> Outcome:
    """Whether pages of strangers may call, or read what is answered."""
    origin = {"origin": f"https://{STRANGE}"}
    simple = await survey.edge.ask("GET", "/ready", headers=origin, is_keyed=False)
    asking = origin | {"access-control-request-method": "POST", "access-control-request-headers": "x-api-key"}
    preflight = await survey.edge.ask("OPTIONS", "/run", headers=asking, is_keyed=False)
    for answer in (simple, preflight):
        if allowed := answer.headers.get("access-control-allow-origin", ""):
            return missing(f"access-control-allow-origin: {allowed}", OWN_ORIGINS)
    if simple.status < ERRORS or simple.status in AWAY:
        return missing(f"a page of {STRANGE} is answered {simple.status}", simple.advice(OWN_ORIGINS))
    return good(f"a page of {STRANGE} is answered {simple.shown}, its preflight {preflight.status}")
