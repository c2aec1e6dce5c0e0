"""What becomes of a real task: accepted once, billed once, its steps kept, its trace and its audit there."""

from meshwright.cli.audit_check import AuditCheck
from meshwright.cli.output import dollars
from meshwright.cli.readiness.outcome import Outcome, counted, few, good, missing, unseen
from meshwright.cli.readiness.survey import Survey
from meshwright.cli.readiness.trial import OTHERS
from meshwright.core.audit import AuditReader
from meshwright.core.errors import MeshError
from meshwright.gen.agents.v1.task_pb2 import TASK_STATUS_COMPLETED, TaskStatus

CONFLICT = 409
RECENT_S = 3_600
"""So far back the audit is checked."""
NO_AGENT = unseen("no task was given", "--agent NAME gives one, of at most two cents")


async def accepted_once(survey: Survey) -> Outcome:
    """Whether a task that is sent twice is one task, and another one of its name is refused."""
    if not survey.target.agent:
        return NO_AGENT
    seen = await survey.trial()
    ids = {seen.sent_id, seen.first.task_id, seen.ended.task_id, seen.repeated.task_id}
    if len(ids) > 1 or seen.repeated.create_time != seen.first.create_time:
        return missing(f"the same task, sent twice, is {few(sorted(ids))}", "see the agents' log")
    if seen.changed.status != CONFLICT:
        return missing(f"another task of the same id is answered {seen.changed.status}", "see the agents' log")
    if seen.ended.status != TASK_STATUS_COMPLETED:
        status = TaskStatus.Name(seen.ended.status).removeprefix("TASK_STATUS_")
        return missing(f"it ended {status} {seen.ended.error.message[:80]}".strip(), f"see task {seen.sent_id}")
    return good(f"sent twice, accepted once, completed in {seen.ended.duration_ms} ms; another one of its id: 409")


async def resumed(survey: Survey) -> Outcome:
    """Whether a stream goes on in the middle with what comes next, nothing lost and nothing twice."""
    if not survey.target.agent:
        return NO_AGENT
    seen = await survey.trial()
    sequences = [event.sequence for event in seen.events]
    if not sequences or sequences != list(range(1, len(sequences) + 1)):
        return missing(f"its steps have sequences {few([*map(str, sequences)])}", f"see task {seen.sent_id}")
    if seen.resumed != [event for event in seen.events if event.sequence > seen.middle]:
        return missing(f"after sequence {seen.middle} other steps follow than before", f"see task {seen.sent_id}")
    return good(f"{counted(len(sequences), 'step')}; after {seen.middle} the same {len(seen.resumed)} again")


async def billed_once(survey: Survey) -> Outcome:
    """Whether a task that is sent again once it has ended costs nothing more."""
    if not survey.target.agent:
        return NO_AGENT
    seen = await survey.trial()
    before, after = seen.ended.usage, seen.after.usage
    if before != after or seen.after.attempt != seen.ended.attempt:
        more = dollars(after.cost_micros - before.cost_micros)
        return missing(
            f"sent again it costs US$ {more} more, {after.model_calls} calls of models", "see the agents' log"
        )
    calls = counted(before.model_calls, "model call")
    return good(f"sent again it costs no more than US$ {dollars(before.cost_micros)}, {calls}")


async def cost_listed(survey: Survey) -> Outcome:
    """Whether what the task has cost stands in the tenant's costs."""
    if not survey.target.agent:
        return NO_AGENT
    seen = await survey.trial()
    if isinstance(seen.costs, MeshError):
        raise seen.costs
    if any(row.name == OTHERS for row in seen.costs.rows):
        return unseen("it is summed with other sessions of this day", "look again early in a day (UTC)")
    listed, spent = sum(row.cost_micros for row in seen.costs.rows), seen.after.usage.cost_micros
    if listed != spent:
        return missing(f"it cost US$ {dollars(spent)}, listed are US$ {dollars(listed)}", "see docs/budgets.md")
    return good(
        f"US$ {dollars(spent)} are listed for its session" if spent else "it cost nothing, and nothing is listed"
    )


async def traced(survey: Survey) -> Outcome:
    """Whether the task has a trace."""
    if not survey.target.agent:
        return NO_AGENT
    seen = await survey.trial()
    if not seen.ended.trace_id:
        return missing("the task has no trace", "set MESHWRIGHT_TRACING=true, and MESHWRIGHT_OTLP_ENDPOINT")
    if not survey.target.otlp_endpoint:
        seen_of_it = f"the task has the trace {seen.ended.trace_id}; whether spans leave is not known here"
        return unseen(seen_of_it, "set MESHWRIGHT_OTLP_ENDPOINT for this command as for the processes of the mesh")
    return good(f"trace {seen.ended.trace_id}: look for it in your collector")


async def audited(survey: Survey) -> Outcome:
    """Whether the audit's chains are whole, as `meshwright audit verify` finds."""
    if not survey.target.store_url:
        return unseen("only the store has the audit", "set MESHWRIGHT_STORE_ADMIN_URL for this command")
    lines = list[int]()
    async with survey.stores.opened(survey.target.store_url) as store:
        ((now, _),) = await store.run(("TIME",))
        since_ms = 1_000 * (int(now) - RECENT_S)
        check = AuditCheck(AuditReader(store), {}, lines.append)
        verdicts = [one async for one in check.verdicts(None, since_ms)]
    broken = [f"{one.place[1] or 'the mesh'}: {one.fault.what}" for one in verdicts if one.fault]
    if broken:
        return missing(few(broken), "run `meshwright audit verify`")
    if not verdicts:
        return missing("nothing was ever written into the audit", "give a task, and look again")
    whole = f"{counted(len(verdicts), 'chain')} whole, {counted(len(lines), 'line')} of the last hour"
    return good(f"{whole}; that they are exported is up to you")
