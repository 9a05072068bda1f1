// The labelling page: keys, measured time, and an outbox so that no answer is lost or sent twice.
//
// An answer gets its id here, goes into the outbox (localStorage) before it is sent, and leaves it
// when the server has confirmed it. After a reload, a lost network or a restarted server the outbox
// is sent again; the server knows the id, so an answer that had arrived stays one.

import { dialogIsOpen, isTyping, numberRows, rowOfKey, showKeys } from "./studio.js";

const RETRY_MS = 2000;
const AWAY_MS = 60000; // Without a key or a pointer for so long, nobody is working.

const work = document.getElementById("work");
const status = document.getElementById("status");
const form = document.getElementById("answer");
const text = document.getElementById("text");
const filter = document.getElementById("filter");
const rows = [...document.querySelectorAll(".choice")];
const guidelines = document.getElementById("guidelines");
const { project, task, annotator, example } = work.dataset;
const mine = `burnish:${project}:${task}:${annotator}`;
const draftKey = `${mine}:draft:${example}`;
const outboxKey = `${mine}:outbox`;

// Storage

function read(key, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(key)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

function write(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
    return true;
  } catch {
    say("This browser keeps nothing (storage is full or off): unsent answers would be lost on a reload.", true);
    return false;
  }
}

function say(message, isError = false) {
  status.textContent = message;
  status.classList.toggle("error", isError);
  status.hidden = !message;
}

// Time at work: while the page is seen and somebody moves.

let seconds = 0;
let since = performance.now();
let lastSign = since;
let seen = document.visibilityState === "visible";

function countTime() {
  const now = performance.now();
  const until = Math.min(now, lastSign + AWAY_MS);
  if (seen && until > since) seconds += (until - since) / 1000;
  since = now;
  seen = document.visibilityState === "visible";
}

for (const sign of ["keydown", "pointermove", "pointerdown", "wheel", "touchstart"]) {
  addEventListener(sign, () => { countTime(); lastSign = performance.now(); }, { passive: true });
}

// The answer as it stands

const chosen = () => rows.find((row) => row.firstElementChild.checked);
const answerNow = () => (text ? text.value : chosen()?.firstElementChild.value ?? "");

function keepDraft() {
  countTime();
  if (form && !form.hasAttribute("aria-busy")) write(draftKey, { answer: answerNow(), seconds });
}

// What was typed before this script ran, at the beginning of the focused box.
function typedBefore() {
  return text.value.endsWith(text.defaultValue) ? text.value.slice(0, text.value.length - text.defaultValue.length) : "";
}

function restoreDraft() {
  const draft = read(draftKey, null);
  if (!draft) return;
  seconds = draft.seconds;
  if (text) text.value = draft.answer + typedBefore();
  else {
    const row = rows.find((r) => r.firstElementChild.value === draft.answer);
    if (row) row.firstElementChild.checked = true;
  }
}

// Sending

function setBusy(busy) {
  form?.toggleAttribute("aria-busy", busy);
  for (const control of form?.elements ?? []) control.disabled = busy;
}

function send(state, answer) {
  countTime();
  const item = {
    client_id: crypto.randomUUID(),
    example_id: example,
    answer,
    status: state,
    seconds: Math.round(seconds * 10) / 10,
    guideline_version: work.dataset.guidelines,
  };
  write(outboxKey, [...read(outboxKey, []), item]);
  localStorage.removeItem(draftKey);
  setBusy(true);
  flush([item]);
}

// `unkept` holds what storage would not take; it is in the outbox otherwise.
async function flush(unkept = []) {
  const outbox = read(outboxKey, []);
  const known = new Set(outbox.map((item) => item.client_id));
  const waiting = [...outbox, ...unkept.filter((item) => !known.has(item.client_id))];
  for (const item of waiting) {
    const answer = await post(item);
    if (answer === null || answer.status >= 500) {
      const fault = answer ? await faultOf(answer) : "the studio cannot be reached";
      say(`Not sent yet: ${fault}. ${waiting.length === 1 ? "Your answer is" : `${waiting.length} answers are`} kept in this browser and will be sent as soon as possible.`);
      setTimeout(() => flush(unkept), RETRY_MS);
      return;
    }
    write(outboxKey, read(outboxKey, []).filter((other) => other.client_id !== item.client_id));
    unkept = unkept.filter((other) => other.client_id !== item.client_id);
    if (!answer.ok) {
      await refuse(item, answer);
      return;
    }
  }
  if (waiting.length) location.replace("/label");
}

async function post(item) {
  try {
    return await fetch("/label", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(item),
    });
  } catch {
    return null;
  }
}

async function faultOf(answer) {
  const body = await answer.json().catch(() => ({ error: answer.statusText }));
  return body.error;
}

// What the studio will never take goes back into the answer box it came from.
async function refuse(item, answer) {
  write(`${mine}:draft:${item.example_id}`, { answer: item.answer, seconds: item.seconds });
  setBusy(false);
  if (item.example_id === example) restoreDraft();
  say(`Not taken: ${await faultOf(answer)}`, true);
}

// What people do

function submit() {
  const answer = answerNow();
  if (answer.trim()) return send("submitted", answer);
  say(text ? "The answer is empty: write one, or skip." : "No answer is chosen yet.");
  (text ?? filter).focus();
}

const flagDialog = document.getElementById("flag-dialog");
const flag = () => flagDialog.showModal();
const skip = () => send("skipped", "");

function toggle(id) {
  const details = document.getElementById(id);
  details.open = !details.open;
}

const LETTERS = { s: skip, f: flag, g: () => toggle("guidelines"), r: () => toggle("record"), "?": showKeys };

// Choices

const visible = () => rows.filter((row) => !row.hidden);

function applyFilter() {
  const wanted = filter.value.trim().toLowerCase();
  for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  numberRows(visible());
}

function choose(row) {
  row.firstElementChild.checked = true;
  filter.value = "";
  applyFilter();
  row.scrollIntoView({ block: "nearest" });
  filter.focus({ preventScroll: true });
  say("");
  keepDraft();
}

// A choice that is itself a digit is meant by that digit.
function choiceOfKey(key) {
  return rows.find((row) => row.firstElementChild.value === key) ?? rowOfKey(visible(), key);
}

function choiceKey(event) {
  const row = choiceOfKey(event.key);
  if (row) {
    choose(row);
    return true;
  }
  if (event.key === "Enter" && filter.value && visible().length) {
    choose(visible()[0]);
    return true;
  }
  if (event.key === "Enter" && chosen()) {
    submit();
    return true;
  }
  if (event.key === "ArrowDown" && event.target === filter && visible().length) {
    (visible().find((r) => r === chosen()) ?? visible()[0]).firstElementChild.focus();
    return true;
  }
  // Letters filter, and the letter itself lands in the box; only after Esc are they commands.
  if (event.target.matches("input[type=radio]") && /^[\p{L}_]$/u.test(event.key)) filter.focus();
  return false;
}

// Keys

function onKey(event) {
  if (event.isComposing || dialogIsOpen() || form.hasAttribute("aria-busy")) return;
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    submit();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") {
    if (filter) { filter.value = ""; applyFilter(); }
    document.activeElement.blur();
    return;
  }
  if (/^( |Enter)$/.test(event.key) && event.target.matches("button, a, summary")) return;
  if (filter && choiceKey(event)) {
    event.preventDefault();
    return;
  }
  if (isTyping(document.activeElement)) return;
  const action = LETTERS[event.key.toLowerCase()];
  if (action && !event.repeat) {
    event.preventDefault();
    action();
  } else if (event.key === "Enter") {
    event.preventDefault();
    (text ?? filter).focus();
  }
}

function showGuidelines() {
  const key = `burnish:${project}:guidelines`;
  const before = read(key, null);
  const changed = before !== work.dataset.guidelines;
  document.getElementById("guidelines-new").hidden = !changed || before === null;
  // On a narrow screen they come first until they have been read, then they are out of the way.
  guidelines.parentElement.classList.toggle("unread", changed);
  if (!changed && matchMedia("(max-width: 60rem)").matches) guidelines.open = false;
  write(key, work.dataset.guidelines);
}

function begin() {
  restoreDraft();
  showGuidelines();
  addEventListener("keydown", onKey);
  addEventListener("pagehide", keepDraft);
  document.addEventListener("visibilitychange", keepDraft);
  form.addEventListener("input", (event) => {
    if (event.target === filter) applyFilter();
    else keepDraft();
    say("");
  });
  form.addEventListener("submit", (event) => { event.preventDefault(); submit(); });
  document.getElementById("skip").addEventListener("click", skip);
  document.getElementById("flag").addEventListener("click", flag);
  document.getElementById("flag-cancel").addEventListener("click", () => flagDialog.close());
  document.getElementById("flag-form").addEventListener("submit", () => {
    send("flagged", document.getElementById("flag-note").value);
  });
  if (filter) applyFilter();
  if (text) {
    text.focus();
    text.setSelectionRange(text.value.length, text.value.length);
  } else if (!matchMedia("(pointer: coarse)").matches) {
    filter.focus(); // On a touch screen that would cover the choices with a keyboard.
  }
}

if (form) begin();
if (read(outboxKey, []).length) {
  if (read(outboxKey, []).some((item) => item.example_id === example)) setBusy(true);
  flush();
}
