// What agents ask of people: the open task's questions with all that can be decided, and the inbox over all tasks.
// Whoever decides sees exactly what would run, and the decision quotes its digest: the mesh refuses any other.

import { $, element, inOrder, oneLine, pathOf, tell, word } from "./base.js";
import { call } from "./mesh.js";

const MOST = { tasks: 200, pages: 5, items: 20 };
const DIGITS = 12;
const RANK = ["HIGH", "NORMAL", "LOW"];
const shown = { task_id: "", items: new Map(), onDecided: null, inbox: "" };

export const decisionOf = (name) => word(name, "DECISION_");
const titled = (text) => text[0].toUpperCase() + text.slice(1);
const callOf = (pending) => `${pending.tool}@${pending.tool_version}`;
const rankOf = (pending) => RANK.indexOf(pending.priority?.replace("INPUT_PRIORITY_", ""));

// Marks that have no shape of their own, or turn others around, are spelled out: nothing hides from who decides.
const unseen = /[\p{Cf}\p{Zl}\p{Zp}\u0080-\u009f]/gu;
const spelled = (mark) => mark.replace(/[^]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
const asJson = (value) => JSON.stringify(value ?? {}, inOrder, 2).replace(unseen, spelled);

function lapses({ expire_time: time, on_expiry: then }) {
  const hours = Math.max(0, Math.floor((Date.parse(time) - Date.now()) / 3_600_000));
  const left = hours >= 48 ? `in ${Math.floor(hours / 24)} days` : hours ? `in ${hours} h` : "within the hour";
  const when = new Date(time).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
  return `${left} (${when}), then: ${decisionOf(then)}`;
}

// ---- Questions of the open task
export function showQuestions(task, onDecided) {
  if (shown.task_id !== task.task_id) shown.items.clear();
  Object.assign(shown, { task_id: task.task_id, onDecided });
  const open = task.pending_inputs ?? [];
  const ids = new Set(open.map((pending) => pending.input_id));
  const hadFocus = $("questions").contains(document.activeElement);
  for (const [id, item] of shown.items) if (!ids.has(id)) forget(id, item);
  for (const pending of open) {
    if (!shown.items.has(pending.input_id)) shown.items.set(pending.input_id, questionItem(task, pending));
  }
  const items = [...shown.items.values()];
  // What is shown already stays where it is, with what was typed into it.
  for (const item of [...$("question-list").children]) if (!items.includes(item)) item.remove();
  for (const item of items) if (!item.isConnected) $("question-list").append(item);
  $("questions").hidden = !open.length;
  tell("questions-title", open.length === 1 ? "A decision for you" : `${open.length} decisions for you`);
  const isLost = hadFocus && !$("questions").contains(document.activeElement);
  if (isLost) $(open.length ? "questions-title" : "title").focus();
}

// Somebody else was first: what became of one's own decision is still told.
function forget(id, item) {
  const problem = item.querySelector(".bad").textContent;
  if (problem) tell("decided", `Not decided: ${problem}`, true);
  shown.items.delete(id);
}

function questionItem(task, pending) {
  const id = `asked-${pending.input_id}`;
  const heading = element("h4", { id }, pending.tool ? `May ${callOf(pending)} run?` : "An agent asks");
  if (pending.kind === "INPUT_KIND_ESCALATION" && pending.signal) heading.textContent = "An agent calls for a person";
  if (pending.kind === "INPUT_KIND_UNKNOWN_OUTCOME") heading.textContent = `What about ${callOf(pending)}?`;
  const problem = element("p", { className: "bad" });
  problem.setAttribute("role", "alert");
  const reason = element("input", { maxLength: 1000, autocomplete: "off" });
  const prompt = element("p", { className: "prompt" }, pending.prompt);
  const item = element("li", {}, heading, prompt, factsOf(task, pending));
  const choices = pending.choices.map(decisionOf);
  const send = (choice, more = () => ({})) => decide({ task, pending, item, problem }, choice, () => {
    return { reason: reason.value.trim(), ...more() };
  });
  const button = (choice, more) => {
    const made = element("button", { type: "button", onclick: () => send(choice, more) }, titled(choice));
    made.setAttribute("aria-describedby", id);
    if (choice === "approve" || choice === "answer") made.className = "primary";
    return made;
  };
  if (choices.includes("answer")) item.append(answerField(pending, button));
  if (choices.includes("edit")) item.append(editField(pending, button));
  if (choices.includes("raise_budget")) item.append(raiseFields(button));
  item.append(element("label", {}, "Reason (optional, the agent reads it)", reason));
  const plain = choices.filter((choice) => ["approve", "reject", "retry", "skip", "fail"].includes(choice));
  item.append(element("span", { className: "buttons" }, ...plain.map((choice) => button(choice))), problem);
  return item;
}

function factsOf(task, pending) {
  const code = (text) => element("code", {}, text);
  const facts = [];
  if (pending.signal) facts.push(["Because", word(pending.signal, "ESCALATION_SIGNAL_")]);
  if (pending.summary) facts.push(["So far", element("pre", { tabIndex: 0 }, pending.summary.replace(unseen, spelled))]);
  if (pending.tool) {
    const block = element("pre", { tabIndex: 0 }, asJson(pending.arguments));
    block.setAttribute("aria-label", `Arguments of ${callOf(pending)}`);
    facts.push(["Tool", code(callOf(pending))], ["Arguments", block]);
    facts.push(["Digest", code(pending.intent_digest.slice(0, DIGITS))]);
  }
  if (pending.origin_task_id && pending.origin_task_id !== task.task_id) {
    const id = pending.origin_task_id;
    facts.push(["Asked by", element("a", { href: `#task=${id}` }, `task ${id}`)]);
  }
  if (pending.expire_time) facts.push(["Lapses", lapses(pending)]);
  return element("dl", {}, ...facts.flatMap(([name, fact]) => [element("dt", {}, name), element("dd", {}, fact)]));
}

function answerField(pending, button) {
  const field = element("textarea", { rows: 2 });
  const answer = () => ({ answer: pending.answer_schema ? jsonOrText(field.value) : field.value });
  const fitting = element("pre", { tabIndex: 0 }, asJson(pending.answer_schema));
  const fits = element("details", { hidden: !pending.answer_schema }, element("summary", {}, "What fits"), fitting);
  return element("div", {}, element("label", {}, "Answer", field), fits, button("answer", answer));
}

function editField(pending, button) {
  const value = asJson(pending.arguments);
  const field = element("textarea", { rows: 6, spellcheck: false, className: "code", value });
  const edited = () => ({ edited_arguments: argumentsOf(field.value) });
  const label = element("label", {}, "Arguments that run instead, as JSON", field);
  const summary = element("summary", {}, "Other arguments …");
  return element("details", {}, summary, label, button("edit", edited));
}

function raiseFields(button) {
  const limits = [
    ["cost_budget_micros", "What the task may cost altogether, in US$ / 1000000"],
    ["token_budget", "Tokens altogether"],
    ["max_steps", "Rounds altogether"],
  ];
  const fields = limits.map(([name, title]) => [name, title, element("input", { type: "number", min: 0 })]);
  const labels = fields.map(([, title, field]) => element("label", {}, title, field));
  const given = () => fields.filter(([, , field]) => field.value).map(([name, , field]) => [name, Number(field.value)]);
  return element("div", {}, ...labels, button("raise_budget", () => Object.fromEntries(given())));
}

function jsonOrText(text) {
  try {
    return JSON.parse(text, exact);
  } catch {
    return text;
  }
}

function argumentsOf(text) {
  let values;
  try {
    values = JSON.parse(text, exact);
  } catch (failure) {
    throw new Error(`These arguments are no JSON: ${failure.message}`);
  }
  if (values?.constructor !== Object) throw new Error("The arguments must be a JSON object: {…}");
  return values;
}

// Beyond 2^53 a number would lose digits on its way; the mesh takes such ones as text.
function exact(_, value) {
  const isRounded = Number.isInteger(value) && !Number.isSafeInteger(value);
  if (isRounded) throw new Error(`write ${value} as text, "…": a number of that size loses digits`);
  return value;
}

async function decide({ task, pending, item, problem }, choice, bodyOf) {
  const about = pending.tool ? callOf(pending) : oneLine(pending.prompt).slice(0, 80);
  if (item.ariaBusy === "true") return;
  item.ariaBusy = "true";
  problem.textContent = "";
  try {
    const { input_id, intent_digest } = pending;
    const body = { input_id, decision: `DECISION_${choice.toUpperCase()}`, intent_digest, ...bodyOf() };
    await call("POST", `${pathOf(task)}:resolve`, body);
    tell("decided", `Decided: ${choice}, ${about}.`);
  } catch (failure) {
    problem.textContent = failure.message;
  } finally {
    item.ariaBusy = "false";
  }
  shown.onDecided();
}

// ---- The inbox
let isListing = false;

export async function listInbox() {
  if (isListing) return;
  isListing = true;
  try {
    showInbox(await waitingTasks());
  } catch (failure) {
    tell("inbox-problem", `Cannot be listed: ${failure.message}`, true);
  } finally {
    isListing = false;
  }
}

// A child's question shows on the tasks above it as well, and counts once.
async function waitingTasks() {
  const found = [];
  let token = "";
  for (let page = 0; page < MOST.pages && (token || !page); page += 1) {
    const query = `statuses=TASK_STATUS_INPUT_REQUIRED&page_size=${MOST.tasks}&page_token=${encodeURIComponent(token)}`;
    const answer = await call("GET", `/v1/tasks?${query}`);
    for (const task of answer.tasks) {
      const own = task.pending_inputs.filter((pending) => !pending.origin_task_id);
      found.push(...own.map((pending) => ({ task, pending })));
    }
    token = answer.next_page_token;
  }
  const timeOf = ({ pending }) => Date.parse(pending.expire_time);
  found.sort((a, b) => rankOf(a.pending) - rankOf(b.pending) || timeOf(a) - timeOf(b));
  return { found, isAll: !token };
}

function showInbox({ found, isAll }) {
  tell("inbox-count", `${found.length}${isAll ? "" : "+"}`);
  tell("inbox-problem", found.length > MOST.items ? `The first ${MOST.items} are shown.` : "");
  $("inbox-count").dataset.state = found.length ? "input required" : "";
  const items = found.slice(0, MOST.items).map(inboxItem);
  const text = items.map((item) => item.outerHTML).join("");
  const focused = document.activeElement.closest("#inbox a");
  if (text !== shown.inbox) $("inbox").replaceChildren(...items);
  shown.inbox = text;
  for (const link of $("inbox").querySelectorAll("a")) link.ariaCurrent = link.hash === location.hash ? "true" : null;
  if (!focused || focused.isConnected) return;
  ([...$("inbox").querySelectorAll("a")].find((link) => link.hash === focused.hash) ?? $("inbox-title")).focus();
}

function inboxItem({ task, pending }) {
  const wouldRun = `${callOf(pending)} ${JSON.stringify(pending.arguments ?? {}, inOrder).replace(unseen, spelled)}`;
  const title = pending.tool ? wouldRun : pending.prompt;
  const about = element("span", { className: "about" }, `${task.agent_id} · lapses ${lapses(pending).split(" (")[0]}`);
  const text = element("span", {}, oneLine(title).slice(0, 200));
  return element("li", {}, element("a", { href: `#task=${task.task_id}`, title: oneLine(title) }, text, about));
}
