// What all parts of the page share: elements, and words for what the mesh says.

export const $ = (id) => document.getElementById(id);

export const word = (name, prefix) => (name ?? "").replace(prefix, "").toLowerCase().replaceAll("_", " ");
export const statusOf = (task) => word(task.status, "TASK_STATUS_");
export const isOver = (task) => ["completed", "failed", "cancelled"].includes(statusOf(task));
export const oneLine = (text) => text.replace(/\s+/g, " ").trim();
// Keys of arguments come in any order.
const sorted = (part) => Object.fromEntries(Object.entries(part).sort());
export const inOrder = (_, part) => (part?.constructor === Object ? sorted(part) : part);
export const compact = (value) => JSON.stringify(value ?? {}, inOrder).slice(0, 300);
export const pretty = (value) => (typeof value === "string" ? value : JSON.stringify(value, inOrder, 2));
export const pathOf = (task) => `/v1/tasks/${encodeURIComponent(task.task_id)}`;

export function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

export function tell(id, text, isBad = false) {
  if ($(id).textContent !== text) $(id).textContent = text;
  $(id).classList.toggle("bad", isBad);
}
