// Browsing by keys: from example to example, and choosing them.

import { dialogIsOpen, isTyping } from "./studio.js";

const rows = [...document.querySelectorAll(".results > li")];

function here() {
  return rows.findIndex((row) => row.contains(document.activeElement));
}

function go(step) {
  const row = rows[Math.max(0, Math.min(rows.length - 1, here() + step))];
  row?.querySelector("summary").focus();
}

function choose() {
  rows[here()]?.querySelector("input[type=checkbox]").click();
}

const count = document.getElementById("chosen-count");

function showCount() {
  const chosen = document.querySelectorAll("input[name=ids]:checked").length;
  count.textContent = chosen || "none yet";
}

// An action's field comes after its choice.
for (const action of document.querySelectorAll("input[name=action]")) {
  const field = action.closest(".bulk-row").querySelector("input:not([type=radio])");
  action.addEventListener("click", () => field?.focus());
  field?.addEventListener("input", () => { action.checked = true; });
}
document.querySelector(".results")?.addEventListener("change", showCount);
if (count) showCount();

const KEYS = { j: () => go(1), k: () => go(here() < 0 ? 1 : -1), x: choose };

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
  if (isTyping(event.target) || dialogIsOpen() || !(event.key in KEYS)) return;
  event.preventDefault();
  KEYS[event.key]();
}, { capture: true });
