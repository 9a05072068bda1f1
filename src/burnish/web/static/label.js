// The labelling page: the answer as it stands, what is sent, and keys.

import { startClock } from "./clock.js";
import { faultOf, makeOutbox } from "./outbox.js";
import { forget, read, write } from "./storage.js";
import { dialogIsOpen } from "./studio.js";
import { showTokens } from "./tokens.js";

const work = document.getElementById("work");
const status = document.getElementById("status");
const form = document.getElementById("answer");
const { project, task, annotator, example, csrf, guidelines, draft, signIn } = work.dataset;
const mine = `burnish:${project}:${task}:${annotator}`;
const draftKey = `${mine}:draft:${example}`;
const here = `/tasks/${encodeURIComponent(task)}`;

const clock = startClock();
let editor = null;
let tokensLater = () => {};

function say(message, { isError = false, link = null, linkText = "" } = {}) {
  status.textContent = message;
  status.classList.toggle("error", isError);
  status.hidden = !message;
  if (link === null) return;
  const anchor = document.createElement("a");
  anchor.href = link || location.href;
  anchor.textContent = linkText;
  status.append(" ", anchor);
}

// Sending

const outbox = makeOutbox({
  prefix: `${mine}:outbox:`,
  url: `${here}/label`,
  csrf,
  signIn,
  say,
  sent: () => location.replace(`${here}/label`),
  refused,
});

function setBusy(busy) {
  form?.toggleAttribute("aria-busy", busy);
  for (const control of form?.elements ?? []) control.disabled = busy;
}

function send(state, answer) {
  forget(draftKey);
  setBusy(true);
  outbox.put({
    example_id: example,
    annotator,
    answer,
    status: state,
    seconds: clock.seconds(),
    guideline_version: guidelines,
    draft_id: draft || null,
  });
}

// What the studio will never take goes back into the answer it came from.
function refused(item, fault) {
  const kept = item.status === "submitted" ? item.answer : "";
  write(`${mine}:draft:${item.example_id}`, { answer: kept, seconds: item.seconds });
  setBusy(false);
  if (item.example_id === example && kept) editor.write(kept);
  say(`Not taken: ${fault}`, { isError: true });
}

// The answer as it stands, kept through a reload

function keepDraft() {
  if (form.hasAttribute("aria-busy")) return;
  write(draftKey, { answer: editor.read(), seconds: clock.seconds() });
}

function changed() {
  say("");
  keepDraft();
  tokensLater();
}

function restoreDraft() {
  const kept = read(draftKey, null);
  if (kept) clock.goOnFrom(kept.seconds);
  const answer = kept?.answer ?? form.dataset.answer;
  if (answer) editor.write(answer);
}

// What people do

function submit() {
  const fault = editor.fault();
  if (!fault) return send("submitted", editor.read());
  say(fault);
  editor.focus();
}

async function undo() {
  const headers = { "X-CSRF-Token": csrf };
  const answer = await fetch(`${here}/undo`, { method: "POST", headers }).catch(() => null);
  if (answer?.ok) location.replace(`${here}/label`);
  else say(answer ? await faultOf(answer) : "The studio cannot be reached: nothing was undone.", { isError: true });
}

const flagDialog = document.getElementById("flag-dialog");

function onKey(event) {
  if (event.isComposing || dialogIsOpen() || form.hasAttribute("aria-busy")) return;
  const held = event.ctrlKey || event.metaKey;
  if (event.key === "Enter" && held && !event.shiftKey) {
    event.preventDefault();
    submit();
  } else if (!event.altKey && (held ? heldKey(event) : ownKey(event))) {
    event.preventDefault();
  }
}

// Keys of the kind of answer, then Enter, which goes back to it.
function ownKey(event) {
  if (/^( |Enter)$/.test(event.key) && event.target.matches("button, a, summary")) return false;
  if (editor.key(event)) return true;
  if (event.key !== "Enter" || form.contains(event.target)) return false;
  editor.focus();
  return true;
}

const heldKey = (event) => editor.heldKey?.(event) ?? false;

// Beside the answer there is no room for the panels, and above it they are in the way.
const narrow = matchMedia("(max-width: 60rem)").matches;

function showGuidelines() {
  const panel = document.getElementById("guidelines");
  const key = `${mine}:guidelines`;
  const before = read(key, null);
  const isNew = before !== guidelines;
  const badge = document.getElementById("guidelines-new");
  badge.hidden = !isNew || (before === null && !narrow);
  badge.textContent = before === null ? "new" : "changed";
  if (!narrow) return write(key, guidelines);
  // Closed, so that the example comes first, but above it until they have been opened.
  panel.open = false;
  panel.classList.toggle("unread", isNew);
  panel.addEventListener("toggle", () => { if (panel.open) write(key, guidelines); });
}

async function begin() {
  const { default: makeEditor } = await import(`./kinds/${form.dataset.module}.js`);
  editor = makeEditor(form.querySelector(".editor"), { changed, submit });
  restoreDraft();
  showGuidelines();
  const panel = document.getElementById("tokens");
  if (panel && narrow) panel.open = false;
  if (panel) tokensLater = showTokens(panel, { url: `${here}/tokens`, csrf, example, answer: editor.read });
  // Before the page's own keys: what a kind takes is not a command.
  addEventListener("keydown", onKey, { capture: true });
  addEventListener("pagehide", keepDraft);
  document.addEventListener("visibilitychange", keepDraft);
  form.addEventListener("input", changed);
  form.addEventListener("submit", (event) => { event.preventDefault(); submit(); });
  document.getElementById("skip").addEventListener("click", () => send("skipped", ""));
  document.getElementById("flag").addEventListener("click", () => flagDialog.showModal());
  document.getElementById("flag-cancel").addEventListener("click", () => flagDialog.close());
  document.getElementById("flag-form").addEventListener("submit", () => {
    send("flagged", document.getElementById("flag-note").value);
  });
  editor.focus();
  form.dataset.ready = "";
}

if (form) await begin();
document.getElementById("undo")?.addEventListener("click", undo);
if (outbox.waiting().length) {
  if (outbox.waiting().some((item) => item.example_id === example)) setBusy(true);
  outbox.flush();
}
