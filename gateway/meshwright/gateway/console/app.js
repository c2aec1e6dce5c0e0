// The page talks to the mesh by its public HTTP interface alone. What models, tools and other people wrote is shown as
// text and never parsed as markup.

import { $, compact, element, isOver, oneLine, pathOf, pretty, statusOf, tell, word } from "./base.js";
import { current, isWanted, startKey } from "./key.js";
import { call, follow } from "./mesh.js";
import { decisionOf, listInbox, showQuestions } from "./people.js";

const MOST = { tasks: 20, labelCharacters: 500, waitMs: 8000 };
const SOON_MS = 100;
const INBOX_MS = 10_000;
const ENVELOPE = new Set(["task_id", "sequence", "time", "step", "span_id", "attempt", "heartbeat"]);
const WORDS = {
  pending: "Waits for its turn.",
  running: "Works on it …",
  "input required": "Waits for a person.",
  STOP: "Answered.",
  MAX_STEPS: "Stopped at its step limit",
  TOKEN_BUDGET_EXCEEDED: "Stopped because its tokens were used up",
  COST_BUDGET_EXCEEDED: "Stopped because its money was used up",
  DEADLINE: "Ran out of time:",
  CANCELLED: "Cancelled.",
  BLOCKED: "Refused by a guardrail:",
  ERROR: "Failed:",
  DEGRADED: "No model answered: other words stand in.",
};
const state = { view: null, unsent: { text: "", taskId: "" }, isAsking: false };

const plural = (count, noun) => `${count.toLocaleString()} ${noun}${count === 1 ? "" : "s"}`;
const tokensOf = (usage) => (usage?.input_tokens ?? 0) + (usage?.output_tokens ?? 0);
const shellQuoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
const eventsPath = (task) => `${pathOf(task)}/events?include_deltas=true`;
const askPath = () => ($("agent").value ? `/v1/agents/${encodeURIComponent($("agent").value)}/tasks` : "/tasks");
// Browsers withhold randomUUID from pages that came by plain HTTP from another machine: then the mesh chooses.
const newId = () => crypto.randomUUID?.() ?? "";

// ---- Asking
function requestFromForm() {
  const prompt = $("question").value;
  const request = { prompt, metadata: { question: Array.from(oneLine(prompt)).slice(0, MOST.labelCharacters).join("") } };
  if ($("max-steps").value) request.max_steps = Number($("max-steps").value);
  if ($("token-budget").value) request.token_budget = Number($("token-budget").value);
  if ($("session").value.trim()) request.session_id = $("session").value.trim();
  return request;
}

// A question keeps its id until the mesh has accepted it: asking again after a lost answer doubles nothing.
function withTaskId(request) {
  const text = askPath() + JSON.stringify(request);
  if (state.unsent.text !== text) state.unsent = { text, taskId: newId() };
  return { task_id: state.unsent.taskId, ...request };
}

async function ask(event) {
  event.preventDefault();
  if (state.isAsking || !$("question").value.trim()) return $("question").focus();
  state.isAsking = true;
  try {
    const request = requestFromForm();
    const task = await call("POST", askPath(), withTaskId(request));
    state.unsent.text = $("question").value = "";
    tell("notice", "");
    history.pushState(null, "", `#task=${task.task_id}`);
    watch(task, request.prompt.trim());
    listRecent();
  } catch (failure) {
    tell("notice", `Not accepted: ${failure.message}`, true);
  } finally {
    state.isAsking = false;
  }
}

// The key itself stays out of clipboards and histories.
const curlKey = () => (current() ? ['-H "authorization: Bearer $MESHWRIGHT_API_KEY"'] : []);
const curl = (path, ...rest) => ["curl -N", shellQuoted(location.origin + path), ...curlKey(), ...rest].join(" ");
const curlBody = (body) => `-H 'content-type: application/json' -d ${shellQuoted(JSON.stringify(body))}`;

async function copy(button, command) {
  try {
    await navigator.clipboard.writeText(command);
    const label = button.textContent;
    Object.assign(button, { textContent: "Copied", disabled: true });
    setTimeout(() => Object.assign(button, { textContent: label, disabled: false }), 1200);
  } catch {
    tell("notice", command);
  }
}

async function listAgents() {
  const failed = (failure) => tell("notice", `The agents cannot be listed: ${failure.message}`, true);
  const answer = await call("GET", "/v1/agents").catch(failed);
  const isDefault = (card) => card.agent_id === "orchestrator";
  const optionOf = (card) => element("option", { title: card.description, selected: isDefault(card) }, card.agent_id);
  if (answer?.agents.length) $("agent").replaceChildren(...answer.agents.map(optionOf));
}

// ---- Following one task
function watch(task, question = task.metadata?.question) {
  close();
  if (!isOver(task)) Object.assign(task, { steps_used: 0, tokens_used: 0, tool_calls: 0 });
  const title = question || `Task ${task.task_id}`;
  const empty = { cursor: 0, failures: 0, lists: {}, agents: {}, tools: {}, drafts: {}, reports: {}, written: {} };
  state.view = { task, title, openedAt: performance.now(), ...empty };
  $("steps").replaceChildren();
  $("task").hidden = false;
  tell("decided", "");
  showAnswer(task.output, !isOver(task));
  showTask(state.view);
  questionsOf(state.view);
  markRecent();
  connect(state.view);
}

function close() {
  state.view?.source.abort();
  clearTimeout(state.view?.timer);
  clearTimeout(state.view?.reading);
  state.view = null;
  $("task").hidden = true;
  document.title = "Meshwright";
  showConnection("no task open");
}

async function connect(view) {
  showConnection(view.failures ? "reconnecting" : "connecting");
  view.source = new AbortController();
  const { signal } = view.source;
  const opened = () => {
    view.failures = 0;
    showConnection("live");
  };
  const path = `${eventsPath(view.task)}&after_sequence=${view.cursor}`;
  await follow(path, signal, opened, (event) => take(view, event)).catch(() => null);
  if (!signal.aborted) reconnect(view);
}

// Where a stream ends, its task has ended, is unknown, or cannot be served for the moment; it goes on after the last
// event that was seen. Without a key it waits for one, with which the task is opened anew.
async function reconnect(view) {
  showConnection("reconnecting");
  const wait = Math.min(MOST.waitMs, 500 * 2 ** view.failures);
  view.failures += 1;
  try {
    const task = await call("GET", pathOf(view.task));
    if (view === state.view && isOver(task) && view.cursor >= task.last_sequence) return finish(view, task);
  } catch (failure) {
    if (view !== state.view) return;
    if ([403, 404].includes(failure.status)) tell("notice", failure.message, true);
    if ([401, 403, 404].includes(failure.status)) return showConnection("refused");
  }
  view.timer = setTimeout(() => view === state.view && connect(view), wait);
}

function take(view, event) {
  if (view !== state.view || (event.sequence && event.sequence <= view.cursor)) return;
  view.cursor = Math.max(view.cursor, event.sequence);
  let inner = event;
  while (inner.child) inner = inner.child.event;
  if (inner.delta) return showDraft(view, inner);
  if (inner.progress) return showReport(view, inner);
  if (!isOver(view.task)) count(view.task, inner);
  addRow(view, event.sequence, inner);
  if (event.gap?.snapshot) view.task = event.gap.snapshot;
  if (inner.input_requested || inner.input_resolved || event.gap) readQuestions(view);
  if (event.result) finish(view, event.result);
}

// The stream tells that questions come and go, children's included; what is open now is what the task itself says.
function readQuestions(view, waitMs = SOON_MS) {
  if (isOver(view.task)) return;
  clearTimeout(view.reading);
  view.reading = setTimeout(async () => {
    const task = await call("GET", pathOf(view.task)).catch(() => null);
    if (view !== state.view || isOver(view.task) || isWanted()) return;
    if (!task || task.last_sequence < view.cursor) return readQuestions(view, task ? SOON_MS : MOST.waitMs / 4);
    if (!isOver(task)) view.task.status = task.status;
    view.task.pending_inputs = task.pending_inputs;
    questionsOf(view);
    listInbox();
  }, waitMs);
}

const questionsOf = (view) => showQuestions(view.task, () => view === state.view && readQuestions(view));

function count(task, inner) {
  task.tokens_used += tokensOf(inner.llm_call?.usage);
  task.tool_calls += inner.tool_result ? 1 : 0;
  if (inner.task_id !== task.task_id) return;
  task.steps_used = Math.max(task.steps_used, inner.step);
  task.attempt = Math.max(task.attempt, inner.attempt);
  if (inner.started || inner.input_resolved) task.status = "TASK_STATUS_RUNNING";
  if (inner.input_requested) task.status = "TASK_STATUS_INPUT_REQUIRED";
}

function finish(view, task) {
  view.task = task;
  view.source.abort();
  showAnswer(task.output, false);
  showTask(view);
  questionsOf(view);
  showConnection("ended");
  listRecent();
  listInbox();
}

async function cancel() {
  const failed = (failure) => tell("notice", `Not cancelled: ${failure.message}`, true);
  await call("POST", `${pathOf(state.view.task)}:cancel`, {}).catch(failed);
}

// ---- Showing one task
const showConnection = (name) => tell("connection", ($("connection").dataset.state = name));

function endingOf(task) {
  const reason = task.finish_reason?.replace("FINISH_REASON_", "");
  const words = WORDS[reason] ?? WORDS[statusOf(task)];
  if (reason !== "MAX_STEPS" && !reason?.endsWith("_EXCEEDED")) return words;
  if (statusOf(task) === "failed") return `${words}:`;
  return task.unanswered ? `${words}: there is no answer.` : `${words}: this is a part of the answer.`;
}

function showTask({ task, title, openedAt }) {
  const elapsed = task.duration_ms + (isOver(task) ? 0 : Math.round(performance.now() - openedAt));
  tell("title", title);
  tell("task-id", task.task_id);
  tell("ending", [endingOf(task), task.error?.message].filter(Boolean).join(" "), statusOf(task) === "failed");
  tell("status", ($("status").dataset.state = statusOf(task)));
  tell("fact-agent", task.agent_id);
  tell("fact-time", `${elapsed.toLocaleString()} ms`);
  const counts = { steps: task.steps_used, tokens: task.tokens_used, tools: task.tool_calls, attempt: task.attempt };
  for (const [name, number] of Object.entries(counts)) tell(`fact-${name}`, number.toLocaleString());
  $("cancel").disabled = isOver(task);
  document.title = `${oneLine(title).slice(0, 60)} – Meshwright`;
}

function showAnswer(text, isDraft) {
  $("answer").className = isDraft ? "draft" : "";
  $("answer").dataset.empty = isDraft ? "Nothing yet." : "No answer.";
  $("answer").setAttribute("aria-busy", isDraft);
  $("answer").replaceChildren(...withSources(text));
}

// [name] is a source where the answer lists that name under "Sources:", or where it looks like a file.
function withSources(text) {
  const lines = (text.split(/^Sources:$/m)[1] ?? "").split("\n");
  const listed = new Set(lines.map((line) => line.replace(/^- /, "").trim()));
  const isSource = (name) => listed.has(name) || /^[\w./ -]+\.[a-z]\w{0,4}(#\w+)?$/i.test(name);
  const shown = (name) => (isSource(name) ? element("cite", {}, `[${name}]`) : `[${name}]`);
  return text.split(/\[([^[\]\n]{1,200})\]/).map((piece, index) => (index % 2 ? shown(piece) : piece));
}

// ---- The timeline
// What a row says, by kind of event: sign, tone, kind in words, the words, and what there is to unfold.
const TOLD = {
  started: (body) => ["▶", "info", "starts", `version ${body.agent_version}`, { tools: body.tool_pins }],
  llm_call(body) {
    const { text, usage, planned_calls: planned } = body;
    const does = planned.length ? `plans ${plural(planned.length, "call")}` : "answers";
    const facts = `${body.model}, ${plural(tokensOf(usage), "token")}, ${body.latency_ms} ms`;
    return ["●", "info", "model", `${does} (${facts})`, { text, "planned calls": planned, usage }];
  },
  tool_call: (body) => ["→", "warn", "tool", `${body.tool} ${compact(body.arguments)}`, { arguments: body.arguments }],
  tool_result(body, tool) {
    const outcome = `${tool}: ${word(body.outcome, "TOOL_OUTCOME_")}`;
    if (body.error) return ["✗", "bad", "outcome", `${outcome}: ${body.error.message}`, { error: body.error }];
    const facts = `${body.latency_ms} ms${body.replayed ? ", replayed" : ""}`;
    return ["←", "good", "outcome", `${outcome} (${facts})`, { result: body.result }];
  },
  delegation: (body) => ["↳", "info", "asks", `${body.agent_id}, up to ${plural(body.granted_tokens, "token")}`, {}],
  input_requested: (body) => ["?", "warn", "question", body.prompt, { arguments: body.arguments }],
  input_resolved(body) {
    const { answer, decided_by: person, edited_arguments_json: edited, reason } = body;
    const parts = { answer, arguments: edited, reason, digest: body.intent_digest };
    return ["✓", "good", "decision", [decisionOf(body.decision), person, reason].filter(Boolean).join(" · "), parts];
  },
  context_compacted(body) {
    const size = `from about ${plural(body.from_tokens, "token")} to ${body.to_tokens}`;
    return ["≈", "info", "shortened", `the conversation, ${size}`, { summary: body.summary }];
  },
  notice: (body) => ["!", "warn", "notice", `${word(body.kind, "NOTICE_KIND_")}: ${body.detail}`, {}],
  result(body) {
    const { output, error } = body;
    const facts = `${plural(body.steps_used, "step")}, ${plural(body.tokens_used, "token")}, ${body.duration_ms} ms`;
    const tone = { completed: "good", cancelled: "warn" }[statusOf(body)] ?? "bad";
    return [error ? "✗" : "■", tone, "result", `${statusOf(body)}: ${error?.message ?? facts}`, { output, error }];
  },
};

function addRow(view, sequence, inner) {
  const kind = Object.keys(inner).find((name) => !ENVELOPE.has(name));
  if (!kind) return;
  const body = inner[kind];
  const keyOf = (call) => `${inner.task_id} ${inner.step} ${call.call_id}`;
  if (kind === "started") view.agents[inner.task_id] = body.agent_id;
  if (kind === "llm_call" || kind === "result") view.written[inner.task_id] = kind === "result" ? Infinity : inner.step;
  for (const planned of inner.llm_call?.planned_calls ?? []) view.tools[keyOf(planned)] = planned.tool;
  const unknown = (given) => ["!", "warn", word(kind), compact(given), {}];
  const row = rowOf(view, sequence, inner, (TOLD[kind] ?? unknown)(body, view.tools[keyOf(body)] ?? "tool"));
  if (kind === "tool_result") dropReport(view, keyOf(body));
  if (kind === "delegation") view.lists[body.child_task_id] = row.appendChild(element("ol"));
  placeRow(view, inner, row);
}

function rowOf(view, sequence, inner, [sign, tone, kind, words, parts]) {
  const seconds = (Date.parse(inner.time) - Date.parse(view.task.create_time)) / 1000;
  const agent = view.agents[inner.task_id] ?? "";
  const when = `+${seconds.toFixed(2)} s`;
  const cells = Object.entries({ sequence: sequence || "", sign, kind, agent, words: oneLine(words), when });
  const spans = cells.map(([className, text]) => element("span", { className }, text));
  const details = element("details", {}, element("summary", {}, ...spans));
  details.addEventListener("toggle", () => details.append(partsOf(parts, inner)), { once: true });
  return element("li", { className: tone }, details);
}

function partsOf(parts, inner) {
  const given = Object.entries(parts).filter(([, value]) => value && value.length !== 0);
  const block = (value) => element("pre", { tabIndex: 0 }, pretty(value));
  const blocks = given.flatMap(([name, value]) => [element("h4", {}, name), block(value)]);
  const whole = element("details", { open: !given.length }, element("summary", {}, "whole event"), block(inner));
  return element("div", { className: "parts" }, ...blocks, whole);
}

const listOf = (view, inner) => view.lists[inner.task_id] ?? $("steps");
function placeRow(view, inner, row) {
  const draft = view.drafts[inner.task_id];
  delete view.drafts[inner.task_id];
  if (draft) draft.row.replaceWith(row);
  else listOf(view, inner).append(row);
  if (draft && inner.task_id === view.task.task_id) showAnswer(inner.llm_call?.text ?? "", true);
}

// Text that is being written takes one line, and the finished call takes its place: nothing jumps. A child's text may
// come later than the call that it belongs to.
function showDraft(view, inner) {
  if (inner.step <= view.written[inner.task_id]) return;
  const draft = (view.drafts[inner.task_id] ??= newDraft(view, inner));
  const { text, offset } = inner.delta;
  const at = offset - draft.from;
  const isJoined = at >= 0 && at <= draft.characters.length;
  if (!isJoined) draft.from = offset;
  draft.characters = [...(isJoined ? draft.characters.slice(0, at) : []), ...text];
  const written = (draft.from ? "… " : "") + draft.characters.join("");
  draft.words.textContent = oneLine(written.slice(-300));
  if (inner.task_id === view.task.task_id) showAnswer(written, true);
}

// How far a call has come takes one line, which goes with its outcome.
function showReport(view, inner) {
  const { call_id: id, fraction, message } = inner.progress;
  const key = `${inner.task_id} ${inner.step} ${id}`;
  if (view.reports[key] === null) return;
  const report = (view.reports[key] ??= newReport(view, inner, view.tools[key] ?? "tool"));
  const share = fraction >= 0 ? `${Math.round(100 * fraction)} %` : "";
  report.words.textContent = oneLine([share, message].filter(Boolean).join(" ") || "at work");
}

function newReport(view, inner, tool) {
  const row = rowOf(view, 0, inner, ["⋯", "warn", tool, "", {}]);
  listOf(view, inner).append(row);
  return { row, words: row.querySelector(".words").appendChild(element("bdi")) };
}

// A report that comes late, after the outcome, is not shown.
function dropReport(view, key) {
  view.reports[key]?.row.remove();
  view.reports[key] = null;
}

function newDraft(view, inner) {
  const row = rowOf(view, 0, inner, ["✎", "info draft", "writes", "", {}]);
  listOf(view, inner).append(row);
  return { row, words: row.querySelector(".words").appendChild(element("bdi")), from: 0, characters: [] };
}

// ---- Recent tasks and the address
async function listRecent() {
  const failed = (failure) => tell("recent-problem", `Cannot be listed: ${failure.message}`, true);
  const answer = await call("GET", `/v1/tasks?roots_only=true&page_size=${MOST.tasks}`).catch(failed);
  if (!answer) return;
  const focused = document.activeElement.closest("#recent a")?.hash;
  $("recent").replaceChildren(...answer.tasks.map(recentItem));
  if (focused) $("recent").querySelector(`a[href="${focused}"]`)?.focus();
  tell("recent-problem", "");
  markRecent();
}

function listAll() {
  return Promise.all([listRecent(), listInbox()]);
}

// Another key may be another caller, to whom other tasks belong.
function openAnew() {
  close();
  return Promise.all([openNamed(), listAgents(), listAll()]);
}

function recentItem(task) {
  const when = new Date(task.create_time).toLocaleString([], { dateStyle: "short", timeStyle: "short" });
  const title = task.metadata?.question || task.task_id;
  const about = element("span", { className: "about" }, `${statusOf(task)} · ${when} · ${task.agent_id}`);
  return element("li", {}, element("a", { href: `#task=${task.task_id}`, title }, element("span", {}, title), about));
}

function markRecent() {
  const open = `#task=${state.view?.task.task_id}`;
  for (const link of document.querySelectorAll(".links a")) link.ariaCurrent = link.hash === open ? "true" : null;
}

async function openNamed() {
  const task_id = /^#task=([\w.-]{1,200})$/.exec(location.hash)?.[1];
  if (task_id && task_id === state.view?.task.task_id) return;
  close();
  markRecent();
  tell("notice", "");
  if (!task_id) return $("question").focus();
  const failed = (failure) => tell("notice", `Task ${task_id} cannot be shown: ${failure.message}`, true);
  const task = await call("GET", pathOf({ task_id })).catch(failed);
  if (!task || location.hash !== `#task=${task_id}`) return;
  watch(task);
  $("title").focus();
}

function start() {
  const on = (id, type, listener) => $(id).addEventListener(type, listener);
  const keepSession = (id) => sessionStorage.setItem("session", ($("session").value = id));
  keepSession(sessionStorage.getItem("session") ?? newId());
  on("ask", "submit", ask);
  on("question", "keydown", (event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && ask(event));
  on("session", "change", () => keepSession($("session").value.trim()));
  on("new-session", "click", () => keepSession(newId()));
  on("copy-ask", "click", () => copy($("copy-ask"), curl(askPath(), curlBody(requestFromForm()))));
  on("copy-task", "click", () => copy($("copy-task"), curl(eventsPath(state.view.task))));
  on("cancel", "click", cancel);
  on("refresh", "click", listAll);
  addEventListener("hashchange", openNamed);
  addEventListener("focus", () => isWanted() || listAll());
  setInterval(() => state.view && !isOver(state.view.task) && showTask(state.view), 100);
  setInterval(() => document.hidden || isWanted() || listInbox(), INBOX_MS);
  startKey(openAnew);
  openAnew();
}
start();
