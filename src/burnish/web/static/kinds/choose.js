// `choose` and `choose_many`: by digit, by filter, or with the arrows.

import { numberRows, rowOfKey } from "../studio.js";

export default function choosing(root, { changed, submit }) {
  const rows = [...root.querySelectorAll(".choice")];
  const filter = root.querySelector("input[type=search]");
  const list = root.querySelector(".choices");
  const many = root.dataset.kind === "choose_many";
  let emptyIsMeant = false;

  const inputOf = (row) => row.querySelector("input");
  const visible = () => rows.filter((row) => !row.hidden);
  const chosen = () => rows.map(inputOf).filter((input) => input.checked);

  function applyFilter() {
    const wanted = filter?.value.trim().toLowerCase() ?? "";
    for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
    numberRows(visible());
  }

  function choose(row) {
    const input = inputOf(row);
    input.checked = many ? !input.checked : true;
    emptyIsMeant = false;
    if (filter) filter.value = "";
    applyFilter();
    row.scrollIntoView({ block: "nearest" });
    focus();
    changed();
  }

  // Where there is no filter the choices themselves have the focus, and letters stay commands.
  function focus() {
    if (!filter) list.focus({ preventScroll: true });
    // On a touch screen its keyboard would cover the choices.
    else if (!matchMedia("(pointer: coarse)").matches) filter.focus({ preventScroll: true });
  }

  // A choice that is itself a digit is meant by that digit.
  const rowMeant = (key) => rows.find((row) => inputOf(row).value === key) ?? rowOfKey(visible(), key);

  function key(event) {
    const row = rowMeant(event.key);
    if (row) {
      choose(row);
      return true;
    }
    if (event.key === "Enter" && filter?.value && visible().length) {
      choose(visible()[0]);
      return true;
    }
    if (event.key === "Enter" && chosen().length) {
      submit();
      return true;
    }
    if (event.key === "ArrowDown" && [filter, list].includes(event.target) && visible().length) {
      inputOf(visible().find((r) => inputOf(r).checked) ?? visible()[0]).focus();
      return true;
    }
    if (event.key === "Escape" && filter) {
      filter.value = "";
      applyFilter();
    }
    // On a choice letters filter as well; only after Esc are they commands.
    if (filter && rows.some((r) => inputOf(r) === event.target) && /^[\p{L}_]$/u.test(event.key)) {
      filter.focus();
      filter.value += event.key;
      applyFilter();
      return true;
    }
    return false;
  }

  filter?.addEventListener("input", (event) => { event.stopPropagation(); applyFilter(); });
  list.addEventListener("change", () => { emptyIsMeant = false; });
  applyFilter();
  return {
    read() {
      const values = chosen().map((input) => input.value);
      return many ? JSON.stringify(values) : values[0] ?? "";
    },
    write(answer) {
      const values = many ? JSON.parse(answer || "[]") : [answer];
      for (const row of rows) inputOf(row).checked = values.includes(inputOf(row).value);
    },
    fault() {
      if (chosen().length) return "";
      if (!many) return "No answer is chosen yet.";
      if (emptyIsMeant) return "";
      emptyIsMeant = true;
      return "Nothing is chosen. If none of them fits, submit again.";
    },
    focus,
    key,
  };
}
