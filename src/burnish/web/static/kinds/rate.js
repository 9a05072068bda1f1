// `rate`: type the number.

const TOGETHER_MS = 800; // Digits typed within so long of each other are one number.

export default function rating(root, { changed, submit }) {
  const inputs = [...root.querySelectorAll("input[type=radio]")];
  const chosen = () => inputs.find((input) => input.checked);
  const inputOf = (number) => inputs.find((input) => input.value === number);
  let typed = "";
  let typedAt = 0;

  function key(event) {
    if (/^[0-9]$/.test(event.key)) {
      const now = performance.now();
      const together = now - typedAt < TOGETHER_MS ? typed + event.key : event.key;
      typed = inputOf(together) ? together : event.key;
      typedAt = now;
      const input = inputOf(typed);
      if (!input) return false;
      input.checked = true;
      input.focus();
      changed();
      return true;
    }
    if (event.key === "Enter" && chosen()) {
      submit();
      return true;
    }
    return false;
  }

  return {
    read: () => chosen()?.value ?? "",
    write(answer) {
      for (const input of inputs) input.checked = input.value === answer;
    },
    fault: () => (chosen() ? "" : "No rating is given yet."),
    focus: () => (chosen() ?? inputs[0]).focus({ preventScroll: true }),
    key,
  };
}
