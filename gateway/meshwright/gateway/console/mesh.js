// Calls and streams of the mesh, by its public HTTP interface, in the name of whoever has the tab's key.

import { current, headersOf, refuse } from "./key.js";

const CALL_MS = 15_000;
const SILENT_MS = 35_000;
const AWAY = "the mesh does not answer. Is it running? Try again in a moment.";
const NO_KEY = "an API key is needed.";
const ASK = "Ask for a key that holds it.";

// Nothing is sent on to where a redirect points: the key is this mesh's alone.
async function send(path, { headers, ...options }) {
  const key = current();
  const sent = { redirect: "error", credentials: "omit", cache: "no-store", ...options };
  sent.headers = { ...headers, ...headersOf(key) };
  const response = await fetch(path, sent).catch(() => null);
  if (!response) throw new Error(AWAY);
  if (response.ok) return response;
  throw await failureOf(response, key);
}

async function failureOf(response, key) {
  const { status } = response;
  const answer = await response.json().catch(() => ({}));
  const { reason, metadata } = answer.details?.find((detail) => detail.reason) ?? {};
  const message = answer.message || `HTTP ${status}`;
  const failure = (words) => Object.assign(new Error(words), { status });
  if (reason === "SCOPE_MISSING" && metadata?.scopes) return failure(`the key lacks the scope ${metadata.scopes}. ${ASK}`);
  if (status !== 401) return failure(message);
  refuse(key, reason, message);
  return failure(NO_KEY);
}

export async function call(method, path, body) {
  const options = { method, signal: AbortSignal.timeout(CALL_MS) };
  if (body) Object.assign(options, { body: JSON.stringify(body), headers: { "content-type": "application/json" } });
  const response = await send(path, options);
  return response.json().catch(() => ({}));
}

// Reads one connection's events to its end, as an EventSource would, which cannot send a key. A stream that brings
// nothing for longer than two heartbeats is broken, whatever the connection says.
export async function follow(path, signal, onOpen, onEvent) {
  const silence = new AbortController();
  let timer = setTimeout(() => silence.abort(), SILENT_MS);
  try {
    const both = AbortSignal.any([signal, silence.signal]);
    const response = await send(path, { headers: { accept: "text/event-stream" }, signal: both });
    onOpen();
    if (!response.body) return;
    let rest = "";
    for (const reader = response.body.pipeThrough(new TextDecoderStream()).getReader(); ; ) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(() => silence.abort(), SILENT_MS);
      const frames = (rest + value).split("\n\n");
      rest = frames.pop();
      frames.map(dataOf).filter(Boolean).forEach((data) => onEvent(JSON.parse(data)));
    }
  } finally {
    clearTimeout(timer);
  }
}

function dataOf(frame) {
  const lines = frame.split("\n").filter((line) => line.startsWith("data:"));
  return lines.map((line) => line.slice(5).trimStart()).join("\n");
}
