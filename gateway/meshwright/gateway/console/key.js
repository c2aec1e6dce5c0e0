// Who is calling: the API key, or token, of this tab. sessionStorage keeps it over a reload and drops it with the tab;
// other tabs and other origins never see it. It travels in a header alone: no address, no log, no copied command has it.

import { $, tell } from "./base.js";

const STORED = "api-key";
const PREFIX = "mwk_";
const SHOWN = PREFIX.length + 12;
const WORDS = {
  CREDENTIALS_MISSING: "This mesh asks who is calling. Enter an API key.",
  KEY_UNKNOWN: "This mesh does not know that key. Check that all of it was copied.",
  KEY_EXPIRED: "That key has expired. Enter another one.",
  KEY_REVOKED: "That key was revoked. Enter another one.",
  TOKEN_EXPIRED: "That token has expired. Enter another one.",
  TOKEN_INVALID: "That token is not for this mesh. Enter another one.",
};
const state = { key: sessionStorage.getItem(STORED) ?? "", isWanted: false };

export const isWanted = () => state.isWanted;
export const current = () => state.key;

export function headersOf(key) {
  if (!key) return {};
  return key.startsWith(PREFIX) ? { "x-api-key": key } : { authorization: `Bearer ${key}` };
}

// The mesh refused who is calling; an answer to an earlier key says nothing about this one.
export function refuse(sent, reason, message) {
  if (sent !== state.key) return;
  state.isWanted = true;
  tell("key-problem", WORDS[reason] ?? message, true);
  show(true);
  const isTyping = document.activeElement !== $("key") && document.activeElement?.value;
  if (!isTyping) $("key").focus();
}

function show(isOpen) {
  $("access").hidden = !isOpen;
  $("key-menu").hidden = !(state.key || state.isWanted);
  $("key-menu").ariaExpanded = String(isOpen);
  $("forget-key").hidden = !state.key;
  const name = state.key.startsWith(PREFIX) ? `${state.key.slice(0, SHOWN)}…` : "a token";
  const used = state.isWanted ? "Refused" : "In use";
  tell("key-used", state.key ? `${used}: ${name}` : "None is in use.");
}

async function use(event, onChange) {
  event.preventDefault();
  const key = $("key").value.trim();
  if (!/^[\x21-\x7e]{1,8192}$/.test(key)) {
    tell("key-problem", "A key is one word of letters, digits and signs, without blanks.", true);
    return $("key").focus();
  }
  sessionStorage.setItem(STORED, (state.key = key));
  state.isWanted = false;
  tell("key-problem", "");
  await onChange();
  if (state.isWanted) return $("key").focus();
  $("key").value = "";
  show(false);
}

// What was read with the key goes with it.
function forget() {
  sessionStorage.removeItem(STORED);
  location.reload();
}

export function startKey(onChange) {
  $("access").addEventListener("submit", (event) => use(event, onChange));
  $("forget-key").addEventListener("click", forget);
  $("key-menu").addEventListener("click", () => {
    show($("access").hidden);
    if (!$("access").hidden) $("key").focus();
  });
  show(false);
}
