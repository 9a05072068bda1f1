// The review page: choose an annotator's answer, or write one with the form of the task's kind.

import { forget, keysBeginning, read, write } from "./storage.js";
import { dialogIsOpen, isTyping, numberRows, rowOfKey } from "./studio.js";

const form = document.getElementById("review");
const status = document.getElementById("status");

function say(message) {
  status.textContent = message;
  status.hidden = !message;
}

async function begin() {
  const { default: makeEditor } = await import(`./kinds/${form.dataset.module}.js`);
  const sides = [...form.querySelectorAll(".given")];
  const own = document.getElementById("own");
  const root = form.querySelector(".editor");
  const keptKey = form.dataset.kept;
  const decide = form.querySelector("button[value=decide]");
  const submit = () => form.requestSubmit(decide);
  const editor = makeEditor(root, { changed, submit });
  const picked = () => form.querySelector("input[name=pick]:checked");

  // What the reviewer writes is kept when they ask for the annotators' answers.
  function changed() {
    own.checked = true;
    write(keptKey, editor.read());
    say("");
  }

  function editPicked() {
    if (!picked()?.dataset.answer) return say("Choose an answer first.");
    editor.write(picked().dataset.answer);
    changed();
    editor.focus();
  }

  function onKey(event) {
    if (event.isComposing || dialogIsOpen()) return;
    const held = event.ctrlKey || event.metaKey;
    if (event.key === "Enter" && held && !event.shiftKey) {
      event.preventDefault();
      return submit();
    }
    if (event.altKey) return;
    if (root.contains(event.target)) {
      const onButton = /^( |Enter)$/.test(event.key) && event.target.matches("button");
      const taken = held ? editor.heldKey?.(event) : !onButton && editor.key(event);
      if (taken) event.preventDefault();
      return;
    }
    if (held || isTyping(event.target)) return;
    const side = rowOfKey(sides, event.key);
    if (!side) return;
    event.preventDefault();
    side.querySelector("input").checked = true;
    side.scrollIntoView({ block: "nearest" });
  }

  numberRows(sides);
  const prefix = keptKey.slice(0, keptKey.lastIndexOf(":"));
  for (const key of keysBeginning(prefix)) if (key !== keptKey) forget(key); // Decided by now.
  const kept = read(keptKey, null);
  if (kept) {
    editor.write(kept);
    own.checked = true;
  }
  addEventListener("keydown", onKey, { capture: true });
  root.addEventListener("input", changed);
  root.addEventListener("change", changed);
  own.addEventListener("click", () => editor.focus());
  document.getElementById("edit-picked")?.addEventListener("click", editPicked);
  document.getElementById("exclude").addEventListener("toggle", () => {
    if (document.getElementById("exclude").open) document.getElementById("exclude-reason").focus();
  });
  form.addEventListener("submit", (event) => {
    const fault = picked() === own ? editor.fault() : picked() ? "" : "No answer is chosen yet.";
    say(fault);
    if (fault) return event.preventDefault();
    form.elements.answer.value = editor.read();
  });
  if (!sides.length) editor.focus();
  form.dataset.ready = "";
}

if (form) await begin();
