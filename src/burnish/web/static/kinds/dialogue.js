// `dialogue`: every turn, its role and what is said.

export default function writingTurns(root, { changed }) {
  const list = root.querySelector(".dialogue");
  const blank = root.querySelector("template");
  const turns = () => [...list.children];
  const boxOf = (turn) => turn.querySelector("textarea");
  const roleOf = (turn) => turn.querySelector("select");

  function number() {
    turns().forEach((turn, n) => {
      boxOf(turn).setAttribute("aria-label", `Turn ${n + 1}`);
      roleOf(turn).setAttribute("aria-label", `Who says turn ${n + 1}`);
      turn.querySelector(".remove").setAttribute("aria-label", `Remove turn ${n + 1}`);
    });
  }

  function makeTurn(role, content) {
    const turn = blank.content.firstElementChild.cloneNode(true);
    roleOf(turn).value = role;
    boxOf(turn).value = content;
    turn.querySelector(".remove").addEventListener("click", () => remove(turn));
    return turn;
  }

  // After the turn in hand; user and assistant speak in turns.
  function add(after) {
    const role = after && roleOf(after).value === "user" ? "assistant" : "user";
    const turn = makeTurn(role, "");
    after ? after.after(turn) : list.append(turn);
    number();
    boxOf(turn).focus();
    changed();
  }

  function remove(turn) {
    const next = turn.previousElementSibling ?? turn.nextElementSibling;
    turn.remove();
    number();
    if (next) boxOf(next).focus();
    changed();
  }

  // With Ctrl: the letters and arrows alone belong to the box.
  function heldKey(event) {
    const turn = event.target.closest?.(".dialogue > li") ?? list.lastElementChild;
    if (event.key === "Enter" && event.shiftKey) add(turn);
    else if (event.key === "ArrowUp") boxOf(turn.previousElementSibling ?? turn).focus();
    else if (event.key === "ArrowDown") boxOf(turn.nextElementSibling ?? turn).focus();
    else if (event.key === "Backspace" && turn && !boxOf(turn).value) remove(turn);
    else return false;
    return true;
  }

  root.querySelector(".add-turn").addEventListener("click", () => add(list.lastElementChild));
  return {
    read: () => JSON.stringify(turns().map((turn) => ({ role: roleOf(turn).value, content: boxOf(turn).value }))),
    write(answer) {
      list.replaceChildren(...JSON.parse(answer || "[]").map(({ role, content }) => makeTurn(role, content)));
      number();
    },
    fault() {
      const empty = turns().findIndex((turn) => !boxOf(turn).value.trim());
      if (empty >= 0) return `Turn ${empty + 1} is empty: write it, or remove it.`;
      return turns().some((turn) => roleOf(turn).value === "assistant") ? "" : "Nobody answers yet: add a turn of the assistant.";
    },
    focus() {
      const empty = turns().find((turn) => !boxOf(turn).value) ?? list.lastElementChild;
      if (empty) boxOf(empty).focus({ preventScroll: true });
    },
    key: () => false,
    heldKey,
  };
}
