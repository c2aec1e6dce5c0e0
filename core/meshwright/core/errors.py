"""The one tree of errors: a class carries its gRPC code, a stable reason and whether trying again can help."""

import grpc

from meshwright.core.mesh_error import DETAILS_KEY, DOMAIN, REASON_KEY, MeshError

__all__ = [
    "DETAILS_KEY",
    "DOMAIN",
    "REASON_KEY",
    "MeshError",
]  # beside the classes below, which are found by their names


class InternalError(MeshError):
    """Something broke on our side; the message holds an error id to look up in the log."""


class InvalidRequestError(MeshError):
    """The request is wrong as it stands; `fields` says where."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "INVALID_REQUEST"


class TaskNotFoundError(MeshError):
    """No such task for this caller."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "TASK_NOT_FOUND"


class AgentNotFoundError(MeshError):
    """No such agent is announced."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "AGENT_NOT_FOUND"


class ToolNotFoundError(MeshError):
    """No such tool or version is registered."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "TOOL_NOT_FOUND"


class SessionNotFoundError(MeshError):
    """The caller has no such session."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "SESSION_NOT_FOUND"


class FactNotFoundError(MeshError):
    """No such fact is pinned to the session."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "FACT_NOT_FOUND"


class DeliveryNotFoundError(MeshError):
    """The tenant has no such webhook event, or no attempt at it is known."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "DELIVERY_NOT_FOUND"


class KeyNotFoundError(MeshError):
    """No living instance signs with this key."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "KEY_NOT_FOUND"


class ApiKeyNotFoundError(MeshError):
    """The mesh has no API key with this id."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "API_KEY_NOT_FOUND"


class AssetNotFoundError(MeshError):
    """The page has no such file."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "ASSET_NOT_FOUND"


class TaskConflictError(MeshError):
    """The task id is taken by another request."""

    code = grpc.StatusCode.ALREADY_EXISTS
    reason = "TASK_CONFLICT"


class TaskExpiredError(MeshError):
    """The task id belonged to a task that is deleted; it stays taken for a day."""

    code = grpc.StatusCode.ALREADY_EXISTS
    reason = "TASK_EXPIRED"


class ToolConflictError(MeshError):
    """The tool's version is registered with another contract; versions never change."""

    code = grpc.StatusCode.ALREADY_EXISTS
    reason = "TOOL_CONFLICT"


class IncompatibleContractError(MeshError):
    """The tool's version would break its callers without a new major version; `fields` says where."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "INCOMPATIBLE_CONTRACT"


class PermissionDeniedError(MeshError):
    """The caller's authority does not reach this far."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = "PERMISSION_DENIED"


class ScopeMissingError(MeshError):
    """The tool needs scopes that whoever asked does not hold."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = "SCOPE_MISSING"


class NotCallableError(MeshError):
    """The agent does not take tasks from this caller."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = "NOT_CALLABLE"


class GrantInvalidError(MeshError):
    """The grant is missing, forged, expired, or from an instance that is gone."""

    code = grpc.StatusCode.UNAUTHENTICATED
    reason = "GRANT_INVALID"


class CredentialsMissingError(MeshError):
    """Nobody has said who is calling."""

    code = grpc.StatusCode.UNAUTHENTICATED
    reason = "CREDENTIALS_MISSING"


class KeyUnknownError(MeshError):
    """The API key is none of this mesh's: there is no such key, or its secret is another one."""

    code = grpc.StatusCode.UNAUTHENTICATED
    reason = "KEY_UNKNOWN"


class KeyExpiredError(MeshError):
    """The API key's time is over."""

    code = grpc.StatusCode.UNAUTHENTICATED
    reason = "KEY_EXPIRED"


class KeyRevokedError(MeshError):
    """The API key was revoked."""

    code = grpc.StatusCode.UNAUTHENTICATED
    reason = "KEY_REVOKED"


class TokenExpiredError(MeshError):
    """The token's time is over."""

    code = grpc.StatusCode.UNAUTHENTICATED
    reason = "TOKEN_EXPIRED"


class TokenInvalidError(MeshError):
    """The token was not made for this mesh, or does not say who is calling."""

    code = grpc.StatusCode.UNAUTHENTICATED
    reason = "TOKEN_INVALID"


class IdentityInvalidError(MeshError):
    """The identity is forged, expired, or not signed by an edge that is here."""

    code = grpc.StatusCode.UNAUTHENTICATED
    reason = "IDENTITY_INVALID"


class RoleRefusedError(MeshError):
    """The role in the caller's certificate may not call this service."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = "ROLE_REFUSED"


class NameRefusedError(MeshError):
    """The caller's certificate bears the name of another agent than the one it speaks for."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = "NAME_REFUSED"


class AuthDiffersError(MeshError):
    """A process that takes calls of anybody joins a mesh that wants to know who is calling."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "AUTH_DIFFERS"


class FencedError(MeshError):
    """Another process owns the task now; whoever sees this stops working on it."""

    code = grpc.StatusCode.ABORTED
    reason = "FENCED"


class AbortedError(MeshError):
    """The call was broken off on the server's side."""

    code = grpc.StatusCode.ABORTED
    reason = "ABORTED"
    is_retryable = True


class SealedOtherwiseError(AbortedError):
    """Another process gave a data key to this place at the same moment; the call can be repeated."""

    reason = "SEALED_OTHERWISE"


class InvocationOpenError(MeshError):
    """A call with the same key is under way; ask for its outcome."""

    code = grpc.StatusCode.ABORTED
    reason = "INVOCATION_OPEN"
    is_retryable = True


class OutcomeUnknownError(MeshError):
    """The tool may or may not have run; it is not run again."""

    code = grpc.StatusCode.ABORTED
    reason = "OUTCOME_UNKNOWN"


class QueueFullError(MeshError):
    """More tasks wait than the mesh accepts."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "QUEUE_FULL"
    is_retryable = True


class StoreFullError(MeshError):
    """The store is nearly full: what was accepted goes on, nothing new is taken."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "STORE_FULL"
    is_retryable = True


class OverloadedError(MeshError):
    """The process serves as many calls as it may."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "OVERLOADED"
    is_retryable = True


class SessionBusyError(MeshError):
    """Another task of the session has not ended, and this one was not to wait."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "SESSION_BUSY"


class MemoryFullError(MeshError):
    """There is no room for one more pinned fact."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "MEMORY_FULL"


class ContextTooSmallError(MeshError):
    """What every prompt of the agent has to hold does not fit into its model's window."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "CONTEXT_TOO_SMALL"


class InputNotPendingError(MeshError):
    """The question was answered, lapsed, or never asked."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "INPUT_NOT_PENDING"


class ApprovalRequiredError(MeshError):
    """A person has to allow this call before it runs, and none has."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "APPROVAL_REQUIRED"


class DigestMismatchError(MeshError):
    """The decision is about another call than the one that waits."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "DIGEST_MISMATCH"


class InputExpiredError(MeshError):
    """Nobody answered in time."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    reason = "INPUT_EXPIRED"


class RejectedError(MeshError):
    """A person did not allow it."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = "REJECTED"


class GuardrailBlockedError(PermissionDeniedError):
    """A guardrail does not let it pass."""

    reason = "GUARDRAIL_BLOCKED"


class NoDeadLetterError(MeshError):
    """The task was not given up."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "NO_DEAD_LETTER"


class JournalNewerError(MeshError):
    """The task was written by a newer version, in a form that this one does not read."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "JOURNAL_NEWER"


class DataLossError(MeshError):
    """What was stored cannot be trusted or read: it was changed, moved, or its key was destroyed."""

    code = grpc.StatusCode.DATA_LOSS
    reason = "DATA_LOSS"


class AuditBlockedError(MeshError):
    """Where a line of the audit belongs stands something else: what it would tell of was not done."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "AUDIT_BLOCKED"


class ContentKeyMissingError(MeshError):
    """Content is encrypted with a key that this process does not have; `content_key` names it."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "CONTENT_KEY_MISSING"


class ResultTooLargeError(MeshError):
    """A result, or a model's answer, exceeds what is kept of one."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "RESULT_TOO_LARGE"


class RateLimitedError(MeshError):
    """A model provider asks us to slow down."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "RATE_LIMITED"
    is_retryable = True


class ToolRateLimitedError(MeshError):
    """The tenant has called the tool as often as it may for now."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "TOOL_RATE_LIMITED"
    is_retryable = True


class UnavailableError(MeshError):
    """A part of the mesh does not answer at the moment."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "UNAVAILABLE"
    is_retryable = True


class TlsRefusedError(MeshError):
    """The server is there, but its certificate or ours is no good: trying again does not help."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "TLS_REFUSED"


class StoreDeniedError(MeshError):
    """The store does not let this process's user do what it needs."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "STORE_DENIED"


class StoreUnavailableError(MeshError):
    """The store does not answer."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "STORE_UNAVAILABLE"
    is_retryable = True


class ModelUnavailableError(MeshError):
    """The model provider failed in a way that may pass."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "MODEL_UNAVAILABLE"
    is_retryable = True


class ModelRejectedError(MeshError):
    """The model provider refused the request for good: a key, a name or a limit is wrong."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "MODEL_REJECTED"


class ContextTooLongError(ModelRejectedError):
    """What the model was given is longer than it can read: shorten it, or ask a model with a larger context."""

    reason = "CONTEXT_TOO_LONG"


class ToolCircuitOpenError(MeshError):
    """The tool has failed so often lately that it is left alone for a while."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "TOOL_CIRCUIT_OPEN"
    is_retryable = True


class ToolFailedError(MeshError):
    """The tool raised an error."""

    code = grpc.StatusCode.UNKNOWN
    reason = "TOOL_FAILED"


class EgressRefusedError(MeshError):
    """The address is none that a tool host may call: it is private, or spelled to look like another one."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = "EGRESS_REFUSED"


class BackendUnavailableError(MeshError):
    """The service behind a tool does not answer, or asks to come back later."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "BACKEND_UNAVAILABLE"
    is_retryable = True


class ToolResultInvalidError(MeshError):
    """The tool returned what its own output schema forbids."""

    code = grpc.StatusCode.INTERNAL
    reason = "TOOL_RESULT_INVALID"


class DeadlineExceededError(MeshError):
    """The call's time is over; a task that it was waiting for goes on."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    reason = "DEADLINE_EXCEEDED"
    is_retryable = True


class TaskTimeoutError(MeshError):
    """The task's own time is over."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    reason = "TASK_TIMEOUT"


class DepthExceededError(MeshError):
    """Delegation went deeper than five levels."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "DEPTH_EXCEEDED"


class FanOutExceededError(MeshError):
    """A task hands out more work than it may."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "FAN_OUT_EXCEEDED"


class DelegationCycleError(MeshError):
    """Work came back to an agent that is above it already, and does not take it twice."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "DELEGATION_CYCLE"


class LoopDetectedError(MeshError):
    """The task made the same calls again and again, and nothing came of them."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "LOOP_DETECTED"


class OutputSchemaViolatedError(MeshError):
    """The answer does not satisfy the schema that was asked for; `fields` says where."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "OUTPUT_SCHEMA_VIOLATED"


class BudgetExceededError(MeshError):
    """The task used up what it was given, and was to fail then."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "BUDGET_EXCEEDED"


class PoisonTaskError(MeshError):
    """Every process that took the task died before it got anywhere."""

    code = grpc.StatusCode.ABORTED
    reason = "POISON_TASK"


class TaskCancelledError(MeshError):
    """The task was cancelled."""

    code = grpc.StatusCode.CANCELLED
    reason = "TASK_CANCELLED"


class NotYetAvailableError(MeshError):
    """A server of another version does not know this call: what its UNIMPLEMENTED becomes here."""

    code = grpc.StatusCode.UNIMPLEMENTED
    reason = "NOT_YET_AVAILABLE"


class SetupError(MeshError):
    """The process cannot start as it is configured: shown as one line, then exit 1."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "SETUP"


class PriceUnknownError(SetupError):
    """A budget counts money, and nobody has said what the model costs."""

    reason = "PRICE_UNKNOWN"


# fmt: off
MeshError.by_code.update((error.code.value[0], error) for error in (
    InternalError, InvalidRequestError, TaskNotFoundError, PermissionDeniedError, GrantInvalidError, RateLimitedError,
    UnavailableError, DeadlineExceededError, AbortedError, TaskCancelledError, NotYetAvailableError,
))
# fmt: on
