// `accept`: take the example as it is, or reject it and say why.

export default function accepting(root, { changed, submit }) {
  const [accept, reject] = root.querySelectorAll("input[type=radio]");
  const reason = root.querySelector("input[type=text]");
  const why = reason.closest(".why");

  function show() {
    why.hidden = !reject.checked;
  }

  function decide(input) {
    input.checked = true;
    show();
    (reject.checked ? reason : accept).focus();
    changed();
  }

  function key(event) {
    if (event.target === reason) {
      if (event.key !== "Enter") return false;
      submit();
      return true;
    }
    if (event.key === "y") decide(accept);
    else if (event.key === "n") decide(reject);
    else if (event.key === "Enter" && (accept.checked || reject.checked)) submit();
    else return false;
    return true;
  }

  root.addEventListener("change", show);
  show();
  return {
    read() {
      if (accept.checked) return JSON.stringify({ verdict: "accept" });
      return reject.checked ? JSON.stringify({ verdict: "reject", reason: reason.value.trim() }) : "";
    },
    write(answer) {
      const given = JSON.parse(answer || "{}");
      accept.checked = given.verdict === "accept";
      reject.checked = given.verdict === "reject";
      reason.value = given.reason ?? "";
      show();
    },
    fault() {
      if (accept.checked) return "";
      if (!reject.checked) return "Neither accepted nor rejected yet.";
      return reason.value.trim() ? "" : "Say why it is rejected.";
    },
    focus: () => (reject.checked ? reason : accept).focus({ preventScroll: true }),
    key,
  };
}
