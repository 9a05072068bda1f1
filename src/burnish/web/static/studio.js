// What every page shares: the list of keys, and the right name for the modifier.

const dialog = document.getElementById("keys");

export function showKeys() {
  if (dialog && !dialog.open) dialog.showModal();
}

document.getElementById("show-keys")?.addEventListener("click", showKeys);

if (/Mac|iPhone|iPad/.test(navigator.platform)) {
  for (const key of document.querySelectorAll("kbd.ctrl")) key.textContent = "⌘";
}

export const isTyping = (element) => element?.matches?.("textarea, select, input:not([type=radio])") ?? false;

export const dialogIsOpen = () => document.querySelector("dialog[open]") !== null;

// Number the visible rows 1 to 9 and 0, as the keys that choose them.
export function numberRows(rows) {
  rows.forEach((row, n) => {
    row.querySelector("kbd").textContent = n < 10 ? String((n + 1) % 10) : "";
  });
}

export function rowOfKey(rows, key) {
  if (!/^[0-9]$/.test(key)) return undefined;
  return rows[key === "0" ? 9 : Number(key) - 1];
}
