// The token panel: length in the base's template, where it is cut off, and what is trained.

const PAUSE_MS = 400; // Typing has paused.

export function showTokens(panel, { url, csrf, example, answer }) {
  const figures = panel.querySelector(".token-figures");
  const pieces = panel.querySelector(".token-text");
  let timer = 0;
  let request = null;

  function piece({ text, trained, cut }) {
    const element = document.createElement(trained ? "mark" : "span");
    element.textContent = text;
    element.classList.toggle("cut", cut);
    return element;
  }

  async function ask() {
    request?.abort();
    request = new AbortController();
    const sent = {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-CSRF-Token": csrf },
      body: JSON.stringify({ example_id: example, answer: answer() }),
      signal: request.signal,
    };
    try {
      const reply = await fetch(url, sent);
      const body = await reply.json();
      if (!reply.ok) throw new Error(body.error);
      figures.textContent = body.summary;
      panel.classList.toggle("over", body.cut > 0);
      pieces.replaceChildren(...body.pieces.map(piece));
    } catch (error) {
      if (error.name !== "AbortError") figures.textContent = `No tokens: ${error.message}`;
    }
  }

  function soon() {
    clearTimeout(timer);
    if (panel.open) timer = setTimeout(ask, PAUSE_MS);
  }

  panel.addEventListener("toggle", soon);
  soon();
  return soon;
}
