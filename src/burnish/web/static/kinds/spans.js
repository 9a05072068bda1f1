// `spans`: mark parts of the text with labels, by word or by character.
//
// Offsets count characters as Python does (code points), which JavaScript's strings do not.

import { numberRows, rowOfKey } from "../studio.js";

export default function marking(root, { changed }) {
  const text = root.querySelector(".marked");
  const labels = [...root.querySelectorAll(".span-label")];
  const live = root.querySelector("[aria-live]");
  const list = root.querySelector(".span-list");
  const characters = Array.from(text.textContent);
  const words = wordsOf(characters);
  let spans = [];
  let anchor = 0; // The selection goes from this word
  let active = 0; // to this one,
  let exact = null; // or is a range of characters.
  let tapped = false; // A finger has chosen a word, and may choose another as the other end.
  let emptyIsMeant = false;

  function selected() {
    if (exact || !words.length) return exact ?? { start: 0, end: 0 };
    const [first, last] = anchor < active ? [anchor, active] : [active, anchor];
    return { start: words[first].start, end: words[last].end };
  }

  const inside = (start, span) => span.start <= start && start < span.end;
  const excerpt = ({ start, end }) => characters.slice(start, end).join("");
  const numberOf = (label) => labels.findIndex((button) => button.value === label);

  function show() {
    const { start, end } = selected();
    const edges = new Set([0, characters.length, start, end]);
    for (const part of [...words, ...spans]) edges.add(part.start).add(part.end);
    const ordered = [...edges].sort((a, b) => a - b);
    text.replaceChildren(...ordered.slice(0, -1).map((from, n) => piece(from, ordered[n + 1], { start, end })));
    list.replaceChildren(...spans.map(entry));
    list.hidden = !spans.length;
  }

  function piece(from, to, selection) {
    const over = spans.filter((span) => inside(from, span));
    const element = document.createElement(over.length ? "mark" : "span");
    element.textContent = characters.slice(from, to).join("");
    element.dataset.start = from;
    element.dataset.end = to;
    if (over.length) element.classList.add(`hue-${numberOf(over.at(-1).label) % 8}`);
    const begun = over.filter((span) => span.start === from);
    if (begun.length) element.dataset.label = begun.map((span) => span.label).join(" ");
    element.classList.toggle("selected", inside(from, selection));
    return element;
  }

  function entry(span) {
    const item = document.createElement("li");
    const remove = document.createElement("button");
    remove.type = "button";
    remove.textContent = "Remove";
    remove.setAttribute("aria-label", `Remove ${span.label}: ${excerpt(span)}`);
    remove.addEventListener("click", () => { erase([span]); text.focus(); });
    const name = document.createElement("span");
    name.className = `badge hue-${numberOf(span.label) % 8}`;
    name.textContent = span.label;
    const words = document.createElement("span");
    words.className = "excerpt";
    words.textContent = excerpt(span);
    item.append(name, words, remove);
    return item;
  }

  function announce() {
    const range = selected();
    const over = spans.filter((span) => span.start < range.end && range.start < span.end);
    live.textContent = excerpt(range) + (over.length ? `: ${over.map((span) => span.label).join(", ")}` : "");
  }

  function showSelection() {
    show();
    text.querySelector(".selected")?.scrollIntoView({ block: "nearest" });
    announce();
  }

  function step(by, extending) {
    exact = null;
    active = Math.max(0, Math.min(words.length - 1, active + by));
    if (!extending) anchor = active;
    showSelection();
  }

  // Move one end of the selection by one character.
  function nudge(end, by) {
    const range = { ...selected() };
    range[end] = Math.max(0, Math.min(characters.length, range[end] + by));
    if (range.start < range.end) exact = range;
    showSelection();
  }

  function mark(label) {
    const { start, end } = selected();
    if (start === end) return;
    const same = spans.find((span) => span.start === start && span.end === end && span.label === label);
    if (same) return erase([same]);
    spans.push({ start, end, label });
    spans.sort((a, b) => a.start - b.start || a.end - b.end || (a.label < b.label ? -1 : 1));
    update();
  }

  function erase(gone) {
    spans = spans.filter((span) => !gone.includes(span));
    update();
  }

  function update() {
    emptyIsMeant = tapped = false;
    show();
    announce();
    changed();
  }

  const MOVES = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10, Home: -Infinity, End: Infinity };
  const NUDGES = { "]": ["end", 1], "[": ["end", -1], "}": ["start", 1], "{": ["start", -1] };

  function key(event) {
    const label = rowOfKey(labels, event.key);
    if (label) mark(label.value);
    else if (event.key in MOVES) step(MOVES[event.key], event.shiftKey);
    else if (event.key in NUDGES) nudge(...NUDGES[event.key]);
    else if (event.key === "Backspace" || event.key === "Delete") {
      const { start, end } = selected();
      erase(spans.filter((span) => span.start < end && start < span.end));
    } else return false;
    return true;
  }

  // What the pointer has selected, or the word it pressed.
  function fromPointer(event) {
    const chosen = getSelection();
    const edge = (node, offset) => {
      const part = node.nodeType === Node.TEXT_NODE ? node.parentElement : node;
      if (!part.dataset?.start) return null;
      return Number(part.dataset.start) + Array.from(node.textContent.slice(0, offset)).length;
    };
    if (!chosen.isCollapsed && text.contains(chosen.anchorNode) && text.contains(chosen.focusNode)) {
      const ends = [edge(chosen.anchorNode, chosen.anchorOffset), edge(chosen.focusNode, chosen.focusOffset)];
      if (ends.includes(null)) return;
      exact = { start: Math.min(...ends), end: Math.max(...ends) };
      chosen.removeAllRanges();
    } else {
      const at = Number(event.target.dataset?.start);
      const word = words.findIndex((one) => inside(at, one));
      if (word < 0) return;
      const isEnd = event.pointerType === "touch" && tapped;
      tapped = event.pointerType === "touch" && !isEnd;
      exact = null;
      active = word;
      if (!isEnd) anchor = word;
    }
    showSelection();
  }

  text.addEventListener("pointerup", fromPointer);
  for (const label of labels) {
    label.addEventListener("click", () => { mark(label.value); text.focus({ preventScroll: true }); });
  }
  numberRows(labels);
  show();
  return {
    read: () => JSON.stringify(spans),
    write(answer) {
      spans = JSON.parse(answer || "[]");
      show();
    },
    fault() {
      if (spans.length || emptyIsMeant) return "";
      emptyIsMeant = true;
      return "Nothing is marked. If there is nothing to mark, submit again.";
    },
    focus: () => text.focus({ preventScroll: true }),
    key,
  };
}

// Runs of letters and digits, and single other marks, as ranges of characters.
function wordsOf(characters) {
  const words = [];
  let open = false;
  characters.forEach((character, at) => {
    const isLetter = /[\p{L}\p{M}\p{N}_]/u.test(character);
    if (isLetter && open) words.at(-1).end = at + 1;
    else if (!/\s/u.test(character)) words.push({ start: at, end: at + 1 });
    open = isLetter;
  });
  return words;
}
