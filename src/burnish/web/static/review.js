// The review page's keys; the form itself needs no script.

import { dialogIsOpen, isTyping, numberRows, rowOfKey, showKeys } from "./studio.js";

const form = document.getElementById("review");
const exclusion = document.getElementById("exclude");

if (form) {
  const sides = [...form.querySelectorAll(".side:not(.flagged)")];
  const own = form.elements.other;
  numberRows(sides);

  const choose = (side) => {
    side.querySelector("input[type=radio]").checked = true;
    if (side.classList.contains("own")) own.focus();
  };
  own.addEventListener("input", () => choose(own.closest(".side")));

  addEventListener("keydown", (event) => {
    if (dialogIsOpen()) return;
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      form.requestSubmit(form.querySelector("button[value=decide]"));
    }
    if (event.key === "Escape") document.activeElement.blur();
    if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
    const side = rowOfKey(sides, event.key);
    if (side) {
      event.preventDefault();
      choose(side);
    }
    if (event.key === "l") document.getElementById("later").click();
    if (event.key === "?") showKeys();
    if (event.key === "x") {
      event.preventDefault();
      exclusion.open = true;
      document.getElementById("reason").focus();
    }
  });
}
