// `write` and `edit`: the answer as text; an edit shows its changes against the draft.

import { changeElements } from "../diff.js";

export default function writing(root) {
  const box = root.querySelector("textarea");
  const changed = root.querySelector(".changes");
  const draft = box.defaultValue;

  function showChanges() {
    if (!changed) return;
    const same = box.value === draft;
    changed.replaceChildren(...(same ? ["No changes to the draft yet."] : changeElements(draft, box.value)));
    changed.classList.toggle("soft", same);
  }

  // What was typed before this script ran, at the beginning of the focused box.
  let early = box.value.endsWith(draft) ? box.value.slice(0, box.value.length - draft.length) : "";

  // As if it were typed, so that the box's own undo brings back what was there.
  function takeOver() {
    box.focus();
    box.select();
    document.execCommand("insertText", false, root.querySelector(".own-answer .text").textContent);
  }

  const offer = root.querySelector(".take-over");
  offer?.addEventListener("click", takeOver);
  box.addEventListener("input", showChanges);
  showChanges();
  return {
    read: () => box.value,
    write(answer) {
      box.value = answer + early;
      early = "";
      showChanges();
    },
    fault: () => (box.value.trim() ? "" : "The answer is empty: write one, or skip."),
    focus() {
      box.focus();
      box.setSelectionRange(box.value.length, box.value.length);
    },
    key: () => false,
    heldKey(event) {
      if (!offer || event.key !== "ArrowDown") return false;
      takeOver();
      return true;
    },
  };
}
