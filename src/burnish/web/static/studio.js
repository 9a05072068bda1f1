// What every page shares: an element with data-key is used by that key, and `?` lists them all.

const dialog = document.getElementById("keys");
const TYPED_IN = "textarea, select, input:not([type=radio], [type=checkbox], [type=submit], [type=file])";

export const isTyping = (element) => element?.matches?.(TYPED_IN) ?? false;

export const dialogIsOpen = () => document.querySelector("dialog[open]") !== null;

// Number rows 1 to 9 and 0, as the keys that choose them.
export function numberRows(rows) {
  rows.forEach((row, n) => {
    row.querySelector("kbd").textContent = n < 10 ? String((n + 1) % 10) : "";
  });
}

export function rowOfKey(rows, key) {
  if (!/^[0-9]$/.test(key)) return undefined;
  return rows[key === "0" ? 9 : Number(key) - 1];
}

const usable = (element) => !element.disabled && element.checkVisibility();

const keyed = () => [...document.querySelectorAll("[data-key]")].filter(usable);

// What an element does, in words: its own, without the keys shown on it.
function doesOf(element) {
  if (element.dataset.does) return element.dataset.does;
  const copy = element.cloneNode(true);
  for (const hint of copy.querySelectorAll(".hint, .badge")) hint.remove();
  return copy.textContent.trim();
}

function keyRow(keys, does) {
  const term = document.createElement("dt");
  for (const key of keys.split("+")) {
    const shown = document.createElement("kbd");
    shown.textContent = key.length === 1 ? key.toUpperCase() : key;
    term.append(shown);
  }
  const description = document.createElement("dd");
  description.textContent = does;
  return [term, description];
}

function showKeys() {
  const list = dialog.querySelector(".found-keys");
  list.replaceChildren(...keyed().flatMap((element) => keyRow(element.dataset.key, doesOf(element))));
  dialog.showModal();
}

function use(element) {
  if (isTyping(element)) element.focus();
  else element.click();
}

// Shift and a letter leads to another page; a letter alone does something on this one.
function wantedKey(event) {
  if (/^\p{L}$/u.test(event.key)) {
    return event.shiftKey ? `Shift+${event.key.toUpperCase()}` : event.key.toLowerCase();
  }
  return event.key;
}

for (const element of document.querySelectorAll("[data-key]")) {
  element.setAttribute("aria-keyshortcuts", element.dataset.key);
}

addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.repeat || event.isComposing) return;
  if (event.ctrlKey || event.metaKey || event.altKey || dialogIsOpen()) return;
  if (event.key === "Escape") document.activeElement.blur();
  if (isTyping(event.target)) return;
  const wanted = wantedKey(event);
  const element = keyed().find((one) => one.dataset.key === wanted);
  if (element) {
    event.preventDefault();
    use(element);
  } else if (event.key === "?") {
    event.preventDefault();
    showKeys();
  }
});

// Ctrl and Enter send the form one types in; pages with a form of their own kind see to it themselves.
addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  const form = event.target.closest?.("form");
  if (!form || form.method !== "post") return;
  event.preventDefault();
  form.requestSubmit();
});

// On a phone the task's pages stand in a row that scrolls.
document.querySelector(".task-bar [aria-current]")?.scrollIntoView({ inline: "center", block: "nearest" });

document.getElementById("show-keys")?.addEventListener("click", showKeys);

if (/Mac|iPhone|iPad/.test(navigator.platform)) {
  for (const key of document.querySelectorAll("kbd.ctrl")) key.textContent = "⌘";
}

// A form marked data-confirm asks first; the question stands in the dialog of that id.
for (const form of document.querySelectorAll("form[data-confirm]")) {
  const question = document.getElementById(form.dataset.confirm);
  form.addEventListener("submit", (event) => {
    if (question.returnValue === "yes") return;
    event.preventDefault();
    question.returnValue = "";
    question.showModal();
    question.addEventListener("close", () => {
      if (question.returnValue === "yes") form.requestSubmit(event.submitter);
    }, { once: true });
  });
}
